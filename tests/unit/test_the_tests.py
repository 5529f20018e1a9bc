"""Habits of the tests themselves, and of what runs them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
MODULES = sorted(path for path in TESTS.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> set[str]:
    """The modules that a module imports, also those that are imported from a package by name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_no_test_module_is_imported_by_another() -> None:
    """What two of them share stands in `tests.support`, or in the nearest conftest."""
    paths = [path.relative_to(TESTS).with_suffix("") for path in MODULES if path.name.startswith("test_")]
    tests = {".".join(("tests", *path.parts)) for path in paths}
    wrong = {(str(path.relative_to(TESTS)), name) for path in MODULES for name in imported(path) & tests}
    assert wrong == THE_MACHINE


THE_MACHINE = {("property/test_machine_can_fail.py", "tests.property.test_state_machine")}
"""The one exception: planted faults, kept scripts and nights name this machine by the module that tests with it."""


def test_each_folder_of_unit_tests_is_a_room_of_the_package_and_each_room_has_one() -> None:
    rooms = {path.parent.name for path in (ROOT / "resumable").glob("*/__init__.py")}
    folders = {path.parent.name for path in (TESTS / "unit").glob("*/test_*.py")}
    assert folders == rooms


@pytest.mark.parametrize("fixture", ["no_waiting", "no_waiting_of_the_task"])
def test_waits_are_made_short_in_one_place(fixture: str) -> None:
    defined = [path for path in MODULES for node in ast.walk(ast.parse(path.read_text())) if getattr(node, "name", "") == fixture]
    assert defined == [TESTS / "conftest.py"]


def test_ci_and_hooks_run_nothing_but_commands_of_dev_py() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    suites = jobs["suites"]["strategy"]["matrix"]["suite"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in hooks} == {"local"}
    runs += [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    named = {run.removeprefix("python3 dev.py ") for run in runs} - {"${{ matrix.suite }}"} | set(suites)
    assert named <= set(re.findall(r"^def (\w+)\(\*arguments", (ROOT / "dev.py").read_text(), re.MULTILINE))
