"""
a verdict overruled: the operator skips for its job, and another one was submitted (what the operator's own code makes
of a job that has ended is what the task becomes)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='wrapped', wait='poll', retries=1, policy={}, moves=False, policy_fails=False, kept_in='task state', looks_to_stop=0)
start(after=('at once', 'times out'), last='job succeeds', then=[(4, 'job is skipped')])
"""


def test_a_skip_is_left_to_the_next_try_after_a_time_out() -> None:
    play(SCRIPT)
