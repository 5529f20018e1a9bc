"""The list of planted faults is well-formed, and each can still be planted."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutants.__main__ import ROOT, planted
from tests.mutants.catalog import GENERATORS, MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_still_has_its_place_and_is_python(mutant: Mutant) -> None:
    text = planted(mutant, (ROOT / mutant.file).read_text())
    compile(text, mutant.file, "exec")


def test_each_has_a_name_of_its_own_words_and_a_generator() -> None:
    assert [name for name, n in Counter(mutant.name for mutant in MUTANTS).items() if n > 1] == []
    for mutant in MUTANTS:
        assert mutant.breaks, mutant
        assert mutant.by, mutant
        assert {name.partition(":")[0] for name in mutant.by} <= set(GENERATORS), mutant.name
        assert mutant.file.startswith("resumable/"), mutant.name


@pytest.mark.parametrize("name", GENERATORS)
def test_each_generator_is_there(name: str) -> None:
    assert all((ROOT / path.partition("::")[0]).exists() for path in GENERATORS[name])
