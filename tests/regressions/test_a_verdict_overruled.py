"""
a verdict overruled: a look of the wait fails, the job ends meanwhile so that the operator skips, and the task failed
with the look's error

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='wrapped', wait='poll', retries=0, policy={}, moves=False, policy_fails=False, looks_to_stop=0)
start(last='job succeeds', then=[(3, 'job is skipped')])
"""


def test_a_verdict_overruled() -> None:
    play(SCRIPT)
