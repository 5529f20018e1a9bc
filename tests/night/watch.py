"""
A plugin of pytest that notes each test as soon as it has ended, one line of JSON each, in the file that NIGHT_NOTES names.

With NIGHT_RANDOM_ONLY set, tests that draw nothing are left out: the same again would show nothing new.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis.internal.detection import is_hypothesis_test

from tests.life.script import as_test, run

CASES = re.compile(r"(\d+) passing(?: \w+)?, (\d+) failing(?: \w+)?,(?: and)? (\d+) invalid")
EVENT = re.compile(r"\* +([\d.]+)%, (.*)")
LONGEST = 6000
MARKER = "generator"
"""Of tests that draw by another way than hypothesis, from the seed in LIFE_SEED."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: draws from LIFE_SEED, for python3 dev.py night")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("NIGHT_RANDOM_ONLY"):
        kept = [item for item in items if is_random(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def is_random(item: pytest.Item) -> bool:
    drawn = getattr(item, "obj", None)
    is_of_life = getattr(drawn, "__qualname__", "").startswith(as_test.__name__)
    is_of_life |= getattr(getattr(item, "module", None), "run", None) is run  # a test that plays the machine of its case
    return is_of_life or is_hypothesis_test(drawn) or item.get_closest_marker(MARKER) is not None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" or report.outcome != "passed":
        _note(item, report)


def _note(item: pytest.Item, report: pytest.TestReport) -> None:
    noted: dict[str, Any] = {"test": item.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 1)}
    noted |= counted(getattr(item, "hypothesis_statistics", ""))
    if report.outcome == "failed":
        noted["error"], noted["said"] = _headline(report), report.longreprtext[-LONGEST:]
    if path := os.environ.get("NIGHT_NOTES"):
        with Path(path).open("a") as notes:
            notes.write(json.dumps(noted) + "\n")


def _headline(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else report.longreprtext.strip().rpartition("\n")[2]
    return next(iter(message.strip().splitlines()), "")[:300]


def counted(statistics: str) -> dict[str, Any]:
    """
    How many cases hypothesis has tried, and in how many of them each `hypothesis.event` was.

    Returns:
        ``cases`` and ``events``; empty if there are no statistics.
    """
    cases, events = 0, {}
    for phase in statistics.split("  - during ")[1:]:
        if not (numbers := CASES.search(phase)):
            continue
        here = sum(map(int, numbers.groups()))
        cases += here
        for share, event in EVENT.findall(phase):
            if not event.startswith(("Retried draw", "Aborted test", "invalid because")):
                events[event] = events.get(event, 0) + round(float(share) * here / 100)
    return {"cases": cases, "events": events} if cases else {}
