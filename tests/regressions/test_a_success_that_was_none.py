# ruff: noqa: E501 - a step is a line
"""
An ECS task ends with a code that skips, its try times out, ECS forgets it: the next try skips the Airflow task.

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.contract.test_lives:ContractLife
begin(case='ecs-sync', wait='poll', policy_fails=False, moves=True, limited=False, policy={}, retries=1, own_execute=True)
start(after=('a request', 'status: dropped'), last='job succeeds', then=[(6, 'job is skipped'), (1, 'times out'), (9, 'store down')])
job_is_forgotten()
"""


def test_a_success_that_was_none() -> None:
    play(SCRIPT)
