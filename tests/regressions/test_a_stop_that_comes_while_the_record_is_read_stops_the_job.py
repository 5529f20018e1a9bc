# ruff: noqa: E501 - a step is a line
"""
a user's stop lost: a user stopped the task while its process read the record, and its job ran on

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='resend', wait='reschedule', retries=0, policy={}, moves=True, policy_fails=False, kept_in='task state', looks_to_stop=0)
start(after=None, last='job succeeds', then=[(0, 'nothing')])
start(after=None, last='job succeeds', then=[(0, 'stopped by a user')])
"""


def test_a_stop_that_comes_while_the_record_is_read_stops_the_job() -> None:
    play(SCRIPT)
