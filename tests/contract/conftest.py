"""
Which of the contract runs by default: everything for the first operators, for the others what a second job would cost most.

The whole is `python3 dev.py catalog`.
"""

from __future__ import annotations

import pytest

IN_FULL = ("databricks-submit-run", "databricks-run-now", "emr-steps", "athena")
FOR_ALL = (
    "test_a_retry_reattaches_to_the_active_job_and_gives_the_same",
    "test_a_lost_answer_makes_no_second_job",
    "test_a_clear_while_the_job_runs_cancels_it_before_the_next_is_submitted",
    "test_a_stop_reaches_the_job_by_its_record_alone",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if case is not None and case.name not in IN_FULL and item.originalname not in FOR_ALL:
            item.add_marker(pytest.mark.catalog)
