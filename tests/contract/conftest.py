"""
The operators under contract. The first ones run the whole contract by default, the others what a second job would cost most.
The whole is `python3 dev.py catalog`.
"""

from __future__ import annotations

import pytest

from tests.contract.cases import CASES, Case


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


IN_FULL = ("databricks-submit-run", "databricks-run-now", "emr-steps", "athena")
FOR_ALL = (
    "test_a_retry_reattaches_to_the_active_job_and_gives_the_same",
    "test_a_lost_answer_makes_no_second_job",
    "test_a_repetition_that_finds_the_network_down_does_not_hide_the_job_of_the_first_request",
    "test_a_clear_while_the_job_runs_cancels_it_before_the_next_is_submitted",
    "test_a_stop_reaches_the_job_by_its_record_alone",
    "test_a_trigger_that_is_merely_stopped_leaves_the_job_and_a_users_mark_cancels_it",
    "test_a_trigger_that_wakes_up_after_the_job_is_done_undoes_nothing",
    "test_wait_defer_gives_the_slot_back_until_the_job_has_ended_and_gives_the_same",
    "test_the_trigger_of_wait_defer_leaves_the_job_when_it_is_merely_stopped_and_cancels_it_for_a_users_mark",
    "test_a_job_that_is_there_is_asked_about_and_nothing_else",
    "test_the_wait_goes_on_with_new_credentials_and_is_not_held_up",
    "test_credentials_that_were_only_said_to_have_expired_make_no_second_job",
    "test_a_wait_ends_in_whichever_way_the_job_has_ended",
    "test_whatever_happens_to_a_task_its_service_shows_what_was_promised",
    "test_an_authors_execute_complete_has_the_last_word_on_a_job_that_has_failed",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        params = item.callspec.params if getattr(item, "callspec", None) else {}
        case = params.get("case") or params.get("case_and_limit", (None,))[0]
        if case is not None and case.name not in IN_FULL and item.originalname not in FOR_ALL:
            item.add_marker(pytest.mark.catalog)
