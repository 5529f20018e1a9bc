"""
The answer to a submit is lost, the job is found, and execution_timeout strikes at the first look: it was left running unsaid.

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='find', wait='poll', retries=0, policy={}, moves=False, policy_fails=False, kept_in='task state', looks_to_stop=0)
next_submit_goes_wrong(how='submit: dropped')
start(after=None, last='job succeeds', then=[(0, 'nothing'), (3, 'times out')])
"""


def test_a_time_out_while_a_lost_submit_is_looked_up() -> None:
    play(SCRIPT)
