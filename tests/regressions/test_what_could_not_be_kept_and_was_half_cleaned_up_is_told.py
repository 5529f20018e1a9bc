# ruff: noqa: E501 - a step is a line
"""
done twice: made-4- (cluster.a) is made, and made-3- is there (what is to be done once is done once)

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLife
begin(names='dots', siblings='mapped', values='a dict', token=True, cleanup=True, alive=False, is_async=False)
a_task_works(work=(0, 'well', 1, [0, 0, 0]))
a_task_works(work=(0, 'well', 1, [0, 0, 0, 0, 0, 0]))
the_service_is_odd(what='None', work=(0, 'well', 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
a_worker_is_killed(at='cleanup', work=(0, 'well', 1, []))
"""


def test_what_could_not_be_kept_and_was_half_cleaned_up_is_told() -> None:
    play(SCRIPT)
