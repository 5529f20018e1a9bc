# ruff: noqa: E501 - a step is a line
"""
a healthy job cancelled for nobody: cancelled, and nobody had asked for it: ['the job'] (a job is cancelled only if a
user, the author's edit, a limit or a policy asks for it)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='wrapped', wait='poll', retries=2, policy={'on_change': 'fail', 'on_final_failure': 'cancel'}, moves=False, policy_fails=False, kept_in='task state', looks_to_stop=0)
next_submit_goes_wrong(how='the worker dies before it has the answer')
start(after=None, last='job succeeds', then=[(0, 'nothing')])
edit_the_job()
"""


def test_a_job_that_is_said_to_be_left_is_left_whatever_on_final_failure_says() -> None:
    play(SCRIPT)
