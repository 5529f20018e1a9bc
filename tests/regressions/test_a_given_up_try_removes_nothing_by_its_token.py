"""
something dead given out: a try that is given up cleans up, by the token, what its successor is given

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLifeInVariables
begin(names='one', siblings='mapped', values='a dict', token=True, cleanup=True, alive=False, is_async=False)
an_attempt_loses_its_heartbeat(work=(0, 'well', 1, [0, 0, 0]), at='', successor='')
a_task_works(work=(1, 'well', 1, [0, 0, 0, 0]))
the_service_is_odd(what='None', work=(0, 'well', 1, [0, 0]))
the_store_is_in_trouble(calls=2, what='down', work=(0, 'well', 1, [0, 0, 0, 0, 0, 0]))
"""


def test_a_given_up_try_removes_nothing_by_its_token() -> None:
    play(SCRIPT)
