"""
a job left running unsaid: execution_timeout struck the last try while it read its record; its job ran on, and the
record does not say so

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.life.test_task_life:OwnLife
begin(case='find', policy={}, retries=1, wait='poll', moves=False, policy_fails=False, kept_in='task state', looks_to_stop=0)
start(after=None, last='job fails', then=[(6, 'dies')])
start_that_is_out_of_time_when_it_has_read_its_record()
"""


def test_a_time_out_while_the_record_is_read_is_dealt_with() -> None:
    play(SCRIPT)
