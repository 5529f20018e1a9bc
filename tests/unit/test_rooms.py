"""The package's rooms: who imports whom, and how long a module or a class may be."""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

import resumable
from resumable import host
from tests.bench.files_entered import calls_of_a_fresh_attempt

ROOT = Path(resumable.__file__).parent

PLAIN = {"errors", "helpers", "identity", "policy"}
"""Modules that know nothing of a room: anybody may import them."""

MAY_IMPORT = {
    "jobs": {"fleet", "host", "stop", "stores"},
    "fleet": {"host", "jobs", "stop"},
    "stop": {"current_task", "host", "jobs"},
    "checkpoint": {"current_task", "host", "stop", "stores"},
    "watermark": {"current_task", "host", "stores"},
    "setup_once": {"checkpoint", "cleanup", "current_task", "host", "setup_cleanup", "stop", "stores"},
    "setup_cleanup": {"checkpoint", "host"},
    "stores": {"host", "jobs"},
    "host": {"cleanup", "jobs", "stores"},
    "cleanup": {"adoption", "host", "jobs", "stores"},
    "operators": {"_extras", "host", "jobs", "stop", "stores"},
    "cli": {"_extras", "adoption", "cleanup", "fleet", "host", "jobs", "provider_info", "watermark"},
}
"""By room, which others its modules may import; the first docstring of each room says the same in words."""

MODULE_LINES, CLASS_LINES = 400, 250

MOST_FILES = 25
"""Of ours that a fresh attempt of a Databricks task enters until its request leaves."""


@cache
def modules() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted(ROOT.rglob("*.py"))]


@cache
def imported(tree: ast.Module) -> list[str]:
    """The rooms that a module imports from when it runs."""
    found: list[str] = []
    only_types = {id(node) for block in ast.walk(tree) if _is_for_types(block) for node in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resumable") and id(node) not in only_types:
            names = [alias.name for alias in node.names] if node.module == "resumable" else [str(node.module).split(".")[1]]
            found += names
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = {
        (str(path.relative_to(ROOT)), other)
        for path, tree in modules()
        if path.relative_to(ROOT).parts[0] in (room, f"{room}.py")
        for other in imported(tree)
        if other not in PLAIN | MAY_IMPORT[room] | {room}
    }
    assert wrong == set()


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if (ROOT / room).is_dir()])
def test_a_room_says_what_belongs_there_and_who_imports_whom(room: str) -> None:
    told = " ".join((ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or "").split())
    assert "May import" in told
    assert "May be imported by" in told


def test_no_module_and_no_class_is_long_without_a_reason() -> None:
    long = []
    for path, tree in modules():
        lines = len(path.read_text().splitlines())
        if lines > MODULE_LINES and f"More than {MODULE_LINES} lines, because" not in (ast.get_docstring(tree) or ""):
            long.append((str(path.relative_to(ROOT)), lines))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                lines = int(node.end_lineno or 0) - node.lineno + 1
                if lines > CLASS_LINES and f"More than {CLASS_LINES} lines, because" not in (ast.get_docstring(node) or ""):
                    long.append((node.name, lines))
    assert long == []


@pytest.mark.skipif(not host.has_task_state(), reason="an older Airflow is reached through other modules")
def test_one_attempt_enters_no_more_files_than_a_reader_can_follow() -> None:
    """A module more for a few lines that one reader needs is a file more to open."""
    with mock.patch.dict(os.environ):
        entered = {file for file, _ in calls_of_a_fresh_attempt()}
    assert len(entered) <= MOST_FILES, sorted(entered)
