"""
something dead given out: a thread that takes the value up writes over the clean-up of a stopped task

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLifeInVariables
begin(names='dots', siblings='mapped', values='a dict', token=False, cleanup=True, alive=False, is_async=False)
a_worker_is_killed(work=(0, 'well', 1, [0, 0, 0, 0, 0, 0, 0]), at='')
a_task_works(work=(0, 'well', 2, [0, 0, 0]))
a_user_ends_a_running_task(work=(0, 'well', 1, []), how='clears it')
"""


def test_a_thread_does_not_write_over_a_clean_up() -> None:
    play(SCRIPT)
