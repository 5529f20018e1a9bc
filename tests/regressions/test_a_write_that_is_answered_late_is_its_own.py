"""
a job left running unsaid: the task has failed, its job runs, and the record does not say that it was told to stop: the
write by which the attempt takes the record over was answered late, and it took itself for another one

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='find', policy={}, retries=1, wait='poll', moves=False, policy_fails=False, kept_in='Variables', looks_to_stop=3)
start(after=None, last='job fails', then=[(6, 'dies')])
next_write_is_answered_late()
start(after=None, last='job fails', then=[(0, 'times out')])
"""


def test_a_write_that_is_answered_late_is_its_own() -> None:
    play(SCRIPT)
