"""
a result lost: its job had succeeded, and another one was submitted (a job that has succeeded is delivered, and not run
again until somebody asks for it)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='resend', wait='poll', retries=1, policy={}, moves=False, policy_fails=False, kept_in='task state', looks_to_stop=0)
next_submit_goes_wrong(how='the worker dies before it has the answer')
start(after=None, last='job succeeds', then=[(0, 'nothing')])
next_stop_goes_wrong(how='stop: answered and not done')
start(after=None, last='job succeeds', then=[(0, 'nothing')])
clear()
start(after=None, last='job succeeds', then=[(3, 'times out')])
job_shows_a_state_of_next_year()
"""


def test_a_job_that_succeeds_although_it_was_told_to_stop_is_delivered() -> None:
    play(SCRIPT)
