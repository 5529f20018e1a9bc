"""
something left behind: a worker died while it made the value, and the task was cleared

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLife
begin(names='one', siblings='runs', values='a str', token=True, cleanup=True, alive=False, is_async=False)
a_worker_is_killed(work=(0, 'fails', 1, [0, 0, 0, 0]), at='')
a_worker_is_killed(work=(0, 'fails', 1, []), at='')
a_worker_is_killed(work=(0, 'fails', 1, []), at='')
a_task_is_cleared(which=0, run=False)
"""


def test_what_was_left_before_a_clear_is_told() -> None:
    play(SCRIPT)
