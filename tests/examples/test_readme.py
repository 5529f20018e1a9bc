"""README's before/after table: each number of both columns, for Databricks submit run and EMR add steps."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from resumable.cli.main import COMMANDS
from resumable.policy import SETTINGS
from resumable.provider_info import get_provider_info
from tests.contract.cases import CASES, DROP_ANSWER, SERVER_ERROR_AFTER_EFFECT, Bench, Case
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

ROOT = Path(__file__).parents[2]
BY_NAME = {str(case): case for case in CASES}
PAGES = [str(page.relative_to(ROOT)) for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))]
DATABRICKS, EMR = "databricks-submit-run-sync", "emr-steps-sync"


class Run:
    """A task of ours or of the provider's, with its service."""

    def __init__(self, case: Case, whose: str, bench: Bench) -> None:
        self.bench = bench
        self.operator: Any = None
        self._make = lambda: getattr(case, whose)(task_id="task", **bench.arguments(), **case.extra)
        self.instance = TaskInstance(self.make)

    def make(self) -> Any:
        self.operator = self._make()
        return self.operator

    def die(self, effects: int) -> None:
        """End the first attempt some effects after its submit."""
        left = [effects]

        def listen(_: str) -> None:
            left[0] -= self.bench.jobs() > 0
            self.instance.effects.dead = left[0] <= 0

        with pytest.raises(WorkerDied):
            self.instance.attempt(listener=listen)

    def attempt(self, finish_after: int = 0) -> int:
        """Run an attempt whose job ends after some effects; returns the most jobs that were active at once."""
        seen = [0]

        def listen(_: str) -> None:
            seen.append(self.bench.active())
            if len(seen) > finish_after:
                self.bench.finish()

        self.instance.attempt(listener=listen)
        return max(seen)


def killed_in_the_wait(run: Run) -> int:
    run.die(5)
    run.attempt(finish_after=6)
    return run.bench.jobs()


def killed_with_the_answer_in_flight(run: Run) -> int:
    run.die(1)
    run.attempt(finish_after=6)
    return run.bench.jobs()


def answer_lost(run: Run, fault: Any = DROP_ANSWER) -> int:
    run.bench.at_once()
    run.bench.server.fault(run.bench.submit, fault)
    run.instance.attempt()
    return run.bench.jobs()


def answer_503(run: Run) -> int:
    return answer_lost(run, SERVER_ERROR_AFTER_EFFECT)


def cleared_after_success(run: Run) -> int:
    run.bench.at_once()
    run.instance.attempt()
    run.instance.try_number += 1
    run.instance.clear()
    run.instance.attempt()
    return run.bench.jobs()


def most_at_once_when_cleared_while_running(run: Run) -> int:
    run.die(5)
    run.instance.clear()
    return run.attempt(finish_after=12)


def cancels_on_kill(run: Run) -> int:
    """What SIGTERM calls in the task process of the provider's operator."""
    run.die(5)
    run.operator.on_kill()
    return run.bench.cancels()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("happens", "name", "theirs", "ours"),
    [
        (killed_in_the_wait, DATABRICKS, 1, 1),
        (killed_in_the_wait, EMR, 2, 1),
        (killed_with_the_answer_in_flight, DATABRICKS, 2, 1),
        (killed_with_the_answer_in_flight, "databricks-submit-run-deferrable", 2, 1),
        (killed_with_the_answer_in_flight, EMR, 2, 1),
        (answer_lost, DATABRICKS, 2, 1),
        (answer_lost, EMR, 2, 1),
        (answer_503, DATABRICKS, 2, 1),
        (answer_503, EMR, 2, 1),
        (cleared_after_success, DATABRICKS, 1, 2),
        (cleared_after_success, EMR, 2, 2),
        (most_at_once_when_cleared_while_running, EMR, 2, 1),
        (cancels_on_kill, DATABRICKS, 1, None),  # ours: tests/crash/test_stops.py
        (cancels_on_kill, EMR, 0, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_table_says_what_is_so(
    happens: Callable[[Run], int], name: str, theirs: int, ours: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = BY_NAME[name]
    for whose, expected in (("theirs", theirs), ("ours", ours)):
        if expected is not None:
            with contextlib.ExitStack() as stack:
                assert happens(Run(case, whose, stack.enter_context(case.bench(monkeypatch)))) == expected, whose


def test_the_settings_page_names_every_setting_of_a_policy() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "settings.md").read_text(), re.MULTILINE))
    assert set(SETTINGS) <= named


def test_readme_counts_the_amazon_operators_that_are_under_contract() -> None:
    count = len({case.ours for case in CASES if "Databricks" not in case.ours.__name__})
    assert f"[{count} operators](docs/operators.md)" in (ROOT / "README.md").read_text()


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()) if "://" not in link]
    targets = [((ROOT / page).parent / path if path else ROOT / page, anchor) for path, _, anchor in links]
    assert [str(path) for path, _ in targets if not path.exists()] == []
    assert [anchor for path, anchor in targets if anchor and anchor not in headings(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_configuration_that_a_page_shows_is_known_to_airflow(page: str) -> None:
    known = get_provider_info()["config"]["resumable"]["options"]
    text = (ROOT / page).read_text()
    shown = ConfigParser()
    for block in re.findall(r"^```ini\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        shown.read_string(block)
    of_ours = set(shown["resumable"]) if shown.has_section("resumable") else set()
    said = set(re.findall(r"`\[resumable\]\s+(\w+)", text)) | {
        name.lower() for name in re.findall(r"AIRFLOW__RESUMABLE__(\w+)", text)
    }
    assert (of_ours | said) - set(known) == set()


def test_the_commands_and_their_options_that_the_pages_name_are_there() -> None:
    options: dict[str, set[str]] = {}
    for command in COMMANDS:
        options.setdefault(command.name.split()[0], set()).update(flag for one in command.arguments for flag in one.flags)
    named = re.findall(r"python -m resumable (\w+)([^`\n]*)", "".join((ROOT / page).read_text() for page in PAGES))
    assert named
    assert [name for name, rest in named if not set(re.findall(r"--[a-z-]+", rest)) <= options.get(name, set())] == []
    table = re.findall(r"^\| `([a-z]+)[^|]*\|", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    assert set(table) == set(options)
