"""
a result lost: a job that had just succeeded when execution_timeout struck was cancelled, and run again

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='resend', wait='poll', retries=2, policy={}, moves=False, policy_fails=False, looks_to_stop=0)
start(then=[(0, 'nothing')], last='job succeeds', after=('a request', 'times out'))
start(then=[(0, 'nothing')], last='job succeeds', after=None)
"""


def test_a_result_lost() -> None:
    play(SCRIPT)
