# ruff: noqa: E501 - a step is a line
"""
a task that never ends: 600 effects in one start, the last: http DescribeFlowExecutionRecords (starts of one try lead
somewhere: to the end of the job, or of the try)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.contract.test_lives:ContractLife
begin(case='appflow-before-sync', wait='defer', retries=2, policy={}, moves=True, policy_fails=False, kept_in='task state', limited=False, own_execute=False, named='')
start_whose_end_is_noted_and_not_told(how='job succeeds')
job_is_forgotten()
"""


def test_a_flow_whose_end_was_noted_is_delivered_although_it_is_listed_no_more() -> None:
    play(SCRIPT)
