"""
something dead given out: the store has taken a value and not said so, and what was made is cleaned up

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
tests.property.test_once_machine:OnceLife
begin(names='one', siblings='mapped', values='a str', token=False, cleanup=True, alive=False, is_async=False)
a_task_works(work=(0, 'well', 1, [0, 0, 0, 0]))
the_store_is_in_trouble(calls=7, what="late", work=(0, "well", 1, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
"""


def test_a_value_that_was_kept_unsaid_is_not_given_out_dead() -> None:
    play(SCRIPT)
