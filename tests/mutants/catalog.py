"""
The planted faults, one entry each: a name, what is broken in words, the file, what stands there, what takes its place, and the
generators that are to notice. First those that were found by users and reviewers, then ones of the same kinds.

What stands there must stand there once. Nothing else is needed for a new one; `GENERATORS` has the names.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERATORS: dict[str, tuple[str, ...]] = {
    "core": ("tests/property/test_state_machine.py",),
}
"""What pytest is given for each. A name with a colon, as ``operators:ecs``, takes only the tests whose ids have the word."""


@dataclass(frozen=True)
class Mutant:
    """
    Args:
        name: for ``--only``.
        breaks: what is broken, in words.
        file: of the tree.
        old, new: what stands in it, once, and what takes its place.
        by: the generators that are to notice, the likeliest first.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    by: tuple[str, ...]


CORE: list[Mutant] = []

MUTANTS: list[Mutant] = [*CORE]
