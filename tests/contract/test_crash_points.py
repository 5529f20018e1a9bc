"""Wherever a worker dies: one job, and the result and XComs of an undisturbed run. And the page that says so says no more."""

from __future__ import annotations

import pytest

from tests.contract import matrix
from tests.contract.attempts import shape
from tests.contract.cases import CASES, Case
from tests.contract.crash_points import deaths, undisturbed

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_job_wherever_the_worker_dies(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, effects = undisturbed(case, monkeypatch)
    assert len(effects) >= 5
    assert any(effect.startswith("store.set") for effect in effects)
    for point in deaths(case, monkeypatch, effects):
        assert point.jobs == fresh.jobs == 1, point.name
        assert shape(point.result) == shape(fresh.result), point.name
        assert shape(point.xcoms) == shape(fresh.xcoms), point.name


def test_the_page_lists_every_operator_with_what_its_class_says_of_it() -> None:
    page = matrix.PAGE.read_text().partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line.startswith("| `")]
    assert [row[:4] for row in rows] == [matrix.claims(operator) for operator in matrix.operators()]


def test_the_page_claims_only_what_was_run_without_a_second_job() -> None:
    page = matrix.PAGE.read_text().partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in page.splitlines() if line.startswith("| `")]
    for row in rows:
        points, second = row[4].split(" / ")
        assert int(points) > 0, row
        assert second == "0", row


def test_every_operator_says_how_doubt_is_cleared_up_and_what_is_left() -> None:
    assert not [o.__name__ for o in matrix.operators() if not all(matrix.claims(o)[2:4])]
