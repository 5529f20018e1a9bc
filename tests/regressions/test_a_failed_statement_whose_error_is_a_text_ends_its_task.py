# ruff: noqa: E501 - a step is a line
"""
a task that never ends: 600 effects in one start, the last: http DescribeStatement (starts of one try lead somewhere: to
the end of the job, or of the try)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.contract.test_lives:ContractLife
begin(case='redshift-data-sync', policy={'on_failed': 'fail'}, kept_in='task state', own_execute=False, policy_fails=False, wait='defer', moves=False, retries=0, named='', limited=False)
start(after=None, last='job fails', then=[])
"""


def test_a_failed_statement_whose_error_is_a_text_ends_its_task() -> None:
    play(SCRIPT)
