"""From each row of the guarantees it is one look to the test that shows it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text()

FIGURES = {"| | ours | the provider's |"}
"""Tables of what was measured in one run: the text above them says by which command."""


@cache
def defined(path: Path) -> frozenset[str]:
    """The functions of a module: tests, and scenarios, which a test runs by name."""
    return frozenset(
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def tables(page: str) -> list[list[str]]:
    found = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [lines for lines in (block.splitlines() for block in found) if lines[0] not in FIGURES]


ROWS = [row for table in tables(GUARANTEES) for row in table[2:]]


def test_each_table_of_the_guarantees_says_by_what_it_is_shown() -> None:
    assert [table[0] for table in tables(GUARANTEES) if not table[0].endswith("| shown by |")] == []
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:60].strip("| "))
def test_each_row_names_the_tests_that_show_it_and_they_are_there(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.rstrip("| ").rpartition(" | ")[2])
    assert named, "no test"
    assert [f"{path}::{name}" for path, name in named if name not in defined(ROOT / "tests" / path)] == []


def test_the_tests_that_the_page_on_compatibility_names_are_in_the_files_that_it_links() -> None:
    files = [ROOT / "docs" / path for path in re.findall(r"\]\((\.\./tests/[\w/]+\.py)\)", COMPATIBILITY)]
    named = set(re.findall(r"`(test_\w+)`", COMPATIBILITY))
    assert len(named) > 10
    assert named - {name for file in files for name in defined(file)} == set()
