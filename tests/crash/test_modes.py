"""
Every row of "When the task is stopped" in every way to wait, and for a custom operator: what `test_stops` leaves out.

A row that has no meaning in a mode is not here: a deferred task has no worker that could be evicted.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.airflow.harness import Airflow
from tests.airflow.processes import task_process
from tests.crash import stops
from tests.crash.scenarios import CANCEL, LOOK_FROM_AFAR, SUBMIT, Remote, _operation
from tests.crash.stops import Scenario, Task, _deferred, _marked_and_killed, possible, registers
from tests.services import Hold, Refuse

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(900)]

AT_ONCE = 8

SCENARIOS: dict[str, tuple[str, Scenario]] = {}
scenario = registers(SCENARIOS)


for run, kinds in (
    (stops.an_eviction_leaves_the_job_and_uses_no_try_not_even_with_retries_0, ["custom"]),
    (stops.an_eviction_while_the_submit_is_in_flight_makes_no_second_job, ["custom", "databricks_deferrable", "emr_deferrable"]),
    (stops.a_worker_that_lost_the_api_server_leaves_the_job_to_the_retry, ["custom"]),
    (stops.a_task_marked_failed_cancels_its_job_once, ["custom"]),
    (stops.a_clear_while_running_stops_the_old_job_before_the_new_one, ["custom"]),
    (stops.a_task_marked_failed_between_two_looks_cancels_its_job_once, ["custom"]),
    (stops.execution_timeout_cancels_the_job, ["custom"]),
    (stops.execution_timeout_with_detach_leaves_the_job_to_the_retry, ["emr", "custom"]),
):
    scenario(*kinds)(run)


# -- the worker --------------------------------------------------------------------------------------------------------


@scenario("custom")
def a_custom_operator_whose_worker_is_killed_is_followed_by_a_retry_that_reattaches(t: Task) -> None:
    t.start()
    t.airflow.kill_worker(t.in_the_wait())
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)
    assert t.airflow.xcoms(t.dag_id, t.run_id, "job")["return_value"] == int(t.remote.ids(t.kind, t.run_id)[0])


@scenario("databricks", "emr")
def an_eviction_before_execute_has_begun_submits_nothing_and_uses_no_try(t: Task) -> None:
    t.start("_dawdles")
    t.airflow.evict(t.attempt(1))
    t.state("up_for_reschedule")
    assert t.jobs == 0
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("databricks")
def a_task_marked_failed_before_execute_has_begun_submits_nothing(t: Task) -> None:
    t.start("_dawdles")
    first = t.attempt(1)
    t.mark("failed")
    t.until("the end of the worker", lambda: task_process(first) is None)
    assert t.state("failed")["state"] == "failed"
    assert t.jobs == 0


@scenario("custom")
def a_custom_operator_with_wait_reschedule_holds_no_slot_between_looks_and_uses_no_try(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.attempt(3)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    assert t.airflow.xcoms(t.dag_id, t.run_id, "job")["return_value"] == int(t.remote.ids(t.kind, t.run_id)[0])


@scenario("databricks", "emr", "custom")
def an_eviction_in_the_middle_of_a_look_of_the_reschedule_mode_uses_no_try(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    hold = Hold()
    t.remote.service(t.kind).fault(_operation(LOOK_FROM_AFAR, t.kind), hold, text=t.remote.ids(t.kind, t.run_id)[0])
    second = t.attempt(2)
    hold.wait_reached(120)
    t.airflow.evict(second)
    t.until("the end of the worker", lambda: task_process(second) is None)
    hold.release(drop=True)
    t.attempt(3)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("databricks", "emr", "custom")
def a_process_that_was_given_up_and_wakes_up_touches_neither_job_nor_record(t: Task) -> None:
    t.start()
    first = t.in_the_wait()
    t.airflow.signal_worker(first, signal.SIGSTOP)
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    record = t.record
    t.airflow.signal_worker(first, signal.SIGCONT)
    t.until("the end of the first worker", lambda: task_process(first) is None)
    assert (t.active, t.cancels) == (1, 0)
    assert t.record["owner"] == record["owner"]
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)


# -- a user ------------------------------------------------------------------------------------------------------------


@scenario("databricks", "emr")
def a_cancel_that_hangs_beyond_the_five_seconds_is_made_good(t: Task) -> None:
    hold = Hold(before_effect=True)
    t.start()
    t.in_the_wait()
    service, cancel = t.remote.service(t.kind), _operation(CANCEL, t.kind)
    service.fault(cancel, hold, text=t.remote.ids(t.kind, t.run_id)[0])
    t.mark("failed")
    hold.wait_reached(60)
    t.cancelled("the first cancel hangs", 90)
    hold.release(drop=True)
    assert t.state("failed")["state"] == "failed"
    assert (t.jobs, t.active) == (1, 0)


@scenario("databricks_deferrable", "emr_deferrable")
def a_deferred_task_marked_success_cancels_its_job(t: Task) -> None:
    _deferred(t)
    t.mark("success")
    t.cancelled("marked success while deferred", 90)
    assert t.state("success")["state"] == "success"
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("emr", "custom")
def a_task_marked_failed_after_a_hand_back_cancels_its_job_once(t: Task) -> None:
    t.start("_r0")
    t.airflow.evict(t.in_the_wait())
    t.state("up_for_reschedule")
    t.mark("failed")
    t.cancelled("marked after a hand-back", 90)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks", "emr")
def a_task_marked_skipped_between_two_looks_cancels_its_job_once(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.mark("skipped")
    t.cancelled("marked between two looks", 90)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("emr")
def a_mark_whose_worker_is_killed_in_the_submit_cancels_the_job_once(t: Task) -> None:
    hold = Hold()
    t.remote.service(t.kind).fault(_operation(SUBMIT, t.kind), hold, text=t.run_id)
    t.start()
    hold.wait_reached(120)
    _marked_and_killed(t, t.attempt(1))
    hold.release(drop=True)
    t.cancelled("marked, worker killed in the submit", 120)
    assert (t.jobs, t.cancels) == (1, 1)


def _mark_run(t: Task, state: str) -> None:
    t.airflow.call("PATCH", f"/dags/{t.dag_id}/dagRuns/{t.run_id}", json={"state": state})


@scenario("databricks", "emr_deferrable")
def a_run_marked_failed_cancels_the_jobs_of_its_tasks(t: Task) -> None:
    if t.kind.endswith("deferrable"):
        _deferred(t)
    else:
        t.start()
        t.in_the_wait()
    _mark_run(t, "failed")
    t.cancelled("the run marked failed", 50)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks", "emr")
def a_run_marked_failed_between_two_looks_cancels_the_jobs_of_its_tasks(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    _mark_run(t, "failed")
    t.cancelled("the run marked failed between two looks", 90)
    assert (t.jobs, t.cancels) == (1, 1)


def _runs_again(t: Task) -> None:
    seen = set()

    def second() -> bool:
        seen.add(t.active)
        return t.jobs == 2

    t.until("the second job", second, 180)
    assert (t.cancels, max(seen)) == (1, 1)
    t.until("the submit", lambda: t.active == 1)
    t.end()
    assert t.jobs == 2


@scenario("databricks", "emr")
def a_clear_of_the_whole_run_while_its_task_runs_stops_the_old_job_first(t: Task) -> None:
    t.start()
    t.in_the_wait()
    t.airflow.call("POST", f"/dags/{t.dag_id}/dagRuns/{t.run_id}/clear", json={"dry_run": False, "only_failed": False})
    _runs_again(t)


@scenario("databricks")
def a_clear_of_an_upstream_task_stops_the_old_job_first(t: Task) -> None:
    t.start("_upstream")
    t.in_the_wait()
    t.airflow.clear(t.dag_id, t.run_id, ["before"], include_downstream=True)
    _runs_again(t)


@scenario("databricks")
def a_clear_from_the_command_line_while_running_and_after_success_runs_again(t: Task) -> None:
    t.start("_cli")
    t.in_the_wait()
    t.airflow.run("airflow", "dags", "clear", t.dag_id, "--run-id", t.run_id, "--yes")
    _runs_again(t)
    t.airflow.wait_run(t.dag_id, t.run_id)
    t.airflow.run("airflow", "dags", "clear", t.dag_id, "--run-id", t.run_id, "--yes")
    t.until("the third job", lambda: t.jobs == 3)
    t.end()
    assert (t.jobs, t.cancels) == (3, 1)


@scenario("databricks_deferrable", "emr_deferrable")
def a_deferred_task_that_is_cleared_after_success_runs_again(t: Task) -> None:
    _deferred(t)
    t.end()
    t.airflow.wait_run(t.dag_id, t.run_id)
    t.clear()
    t.until("the second job", lambda: t.jobs == 2)
    t.state("deferred")
    t.end()
    assert (t.jobs, t.cancels) == (2, 0)


@scenario("databricks", "emr", "custom")
def on_clear_reattach_keeps_the_job_of_a_running_task(t: Task) -> None:
    t.start("_keep")
    t.in_the_wait()
    t.clear()
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    t.end()
    assert (t.jobs, t.cancels) == (1, 0)


@scenario("databricks_deferrable", "emr_deferrable")
def on_clear_reattach_keeps_the_job_of_a_deferred_task(t: Task) -> None:
    t.start("_keep")
    t.state("deferred")
    seen = t.remote.looks(t.kind, t.run_id)
    t.until("a look of the trigger", lambda: t.remote.looks(t.kind, t.run_id) > seen + 1)
    t.clear()
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    t.state("deferred")
    seen = t.remote.looks(t.kind, t.run_id)
    t.until("looks of the new trigger", lambda: t.remote.looks(t.kind, t.run_id) > seen + 5)
    assert (t.active, t.cancels) == (1, 0)
    t.end()
    assert (t.jobs, t.cancels) == (1, 0)


@scenario("databricks", "emr")
def on_clear_reattach_keeps_the_job_between_two_looks(t: Task) -> None:
    t.start("_reschedule_keep")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.clear()
    t.attempt(2)
    t.state("up_for_reschedule")
    t.end()
    assert (t.jobs, t.cancels) == (1, 0)


# -- time --------------------------------------------------------------------------------------------------------------


@scenario("databricks_deferrable", "emr_deferrable", "custom")
def dagrun_timeout_cancels_the_job_of_a_task(t: Task) -> None:
    t.start("_dagrun_timeout")
    t.until("the job", lambda: t.jobs == 1)
    t.until("the cancel", lambda: t.active == 0, 120)
    assert t.cancels == 1
    assert t.state("skipped", "failed")


@scenario("databricks", "emr", "custom")
def dagrun_timeout_cancels_the_job_between_two_looks(t: Task) -> None:
    t.start("_reschedule_dagrun_timeout")
    t.until("the job", lambda: t.jobs == 1)
    t.until("the cancel", lambda: t.active == 0, 150)
    assert t.cancels == 1


def _is_overdue(t: Task, suffix: str) -> None:
    t.start(suffix)
    t.until("the job", lambda: t.jobs == 1)
    row = t.state("failed", seconds=180)
    assert (row["try_number"], t.jobs, t.active, t.cancels) == (1, 1, 0, 1)
    assert "has run for longer than job_timeout" in t.log()
    assert t.record["state"] == "cancelled"


@scenario("databricks", "emr", "custom", "databricks_deferrable", "emr_deferrable")
def job_timeout_cancels_the_job_once_and_fails_the_task_for_good(t: Task) -> None:
    _is_overdue(t, "_overdue")


@scenario("databricks", "emr", "custom")
def job_timeout_counts_over_the_looks_of_the_reschedule_mode(t: Task) -> None:
    _is_overdue(t, "_reschedule_overdue")


# -- a job that fails --------------------------------------------------------------------------------------------------


@scenario("databricks", "emr", "custom")
def with_wait_reschedule_a_job_that_fails_between_two_looks_fails_the_try(t: Task) -> None:
    t.start("_reschedule_r1")
    for number in (1, 2):
        t.until("the job", lambda number=number: t.jobs == number)
        t.state("up_for_reschedule")
        t.fail()
        t.until("the end of the try", lambda number=number: t.log(number).count("no try has failed for it yet") == 1)
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.record["state"]) == (2, 2, 0, "failed")


@scenario("databricks", "emr", "custom")
def a_job_that_fails_while_its_task_is_handed_back_fails_the_try_also_with_retries_0(t: Task) -> None:
    t.start("_r0")
    t.airflow.evict(t.in_the_wait())
    t.state("up_for_reschedule")
    t.fail()
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.record["state"]) == (1, 1, 0, "failed")


@scenario("databricks", "emr", "custom", "databricks_deferrable", "emr_deferrable")
def a_job_that_fails_while_it_is_watched_is_asked_for_once_a_try(t: Task) -> None:
    t.start("_r1")
    for number in (1, 2):
        t.until("the job", lambda number=number: t.jobs == number)
        t.attempt(number)
        if t.kind.endswith("deferrable"):
            stops.is_looked_at_by_the_trigger(t)
        t.fail()
        t.until("the end of the job", lambda: t.active == 0)
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.record["state"]) == (2, 2, 0, "failed")


@scenario("databricks", "emr", "custom")
def a_job_that_fails_while_its_worker_is_dead_fails_the_retry_which_submits_nothing(t: Task) -> None:
    t.start("_r1")
    t.airflow.kill_worker(t.in_the_wait())
    t.fail()
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.record["state"]) == (2, 1, 0, "failed")


@scenario("emr_deferrable")
def a_set_of_steps_of_which_one_fails_fails_the_try_and_the_next_one_stops_the_rest_first(t: Task) -> None:
    t.start("_r1")
    t.until("the job", lambda: t.jobs == 1)
    stops.is_looked_at_by_the_trigger(t)
    t.remote.emr.finish(t.remote.ids(t.kind, t.run_id)[0], "FAILED")
    seen = []

    def second() -> bool:
        seen.append(t.active)
        return t.jobs == 2

    t.until("the second set", second, 180)
    assert (t.cancels, max(seen)) == (1, 1)
    stops.is_looked_at_by_the_trigger(t)
    t.remote.emr.finish(t.remote.ids(t.kind, t.run_id)[2], "FAILED")
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.active) == (2, 2, 1, 1)
    assert t.record["left"] == "on_final_failure=leave"


@scenario("databricks")
def one_404_of_a_proxy_at_the_first_look_of_a_retry_does_not_give_the_job_up(t: Task) -> None:
    t.start("_r1")
    t.airflow.kill_worker(t.in_the_wait())
    missing = Refuse(404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "No API found for 'GET /jobs/runs/get'"})
    t.remote.databricks.fault("runs/get", missing, text=t.remote.ids(t.kind, t.run_id)[0])
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)


# -- the end of the last try, and the wait -----------------------------------------------------------------------------


@scenario("custom")
def a_last_try_that_fails_leaves_its_job_and_names_it(t: Task) -> None:
    t.start("_gives_up")
    t.state("failed")
    assert (t.jobs, t.active, t.cancels) == (1, 1, 0)
    assert f"NightlyOperator {t.remote.ids(t.kind, t.run_id)[0]} is left running" in t.log()
    t.airflow.run("resumable.sweep")
    assert (t.active, t.cancels) == (1, 0)


@scenario("custom")
def a_last_try_that_fails_cancels_its_job_where_the_policy_says_so(t: Task) -> None:
    t.start("_gives_up_cancel")
    t.state("failed")
    t.until("the cancel", lambda: t.active == 0, 20)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks_deferrable", "emr_deferrable")
def a_trigger_that_fails_is_followed_by_another_and_uses_no_try(t: Task) -> None:
    t.start("_r0")
    t.state("deferred")
    refused = Refuse(400, {"error_code": "BAD", "__type": "ValidationException", "message": "no"})
    t.remote.service(t.kind).fault(_operation(LOOK_FROM_AFAR, t.kind), refused, text=t.remote.ids(t.kind, t.run_id)[0])
    t.until("the news of the failure", lambda: "failed, not the job" in t.log())
    t.until("the next deferral", lambda: "reattached" in t.log())
    stops.is_looked_at_by_the_trigger(t)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("emr", "emr_deferrable")
def a_limit_of_the_author_fails_the_try_leaves_the_job_and_the_retry_reattaches(t: Task) -> None:
    t.start("_short_waiter")
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    assert "has ended the wait, as the author asked; the job runs on" in t.log(1)
    if t.kind.endswith("deferrable"):
        stops.is_looked_at_by_the_trigger(t)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)


# -- how they run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with stops.side_by_side(request, SCENARIOS, airflow, remote, AT_ONCE) as futures:
        yield futures


@pytest.mark.parametrize("name", possible(SCENARIOS))
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()


@pytest.mark.parametrize("suffix", ["mapped", "mapped_reschedule"])
def test_a_mark_of_one_mapped_task_cancels_its_job_and_no_other(airflow: Airflow, remote: Remote, suffix: str) -> None:
    dag_id, run_id = f"ours_{suffix}", f"marked-{suffix}"
    airflow.trigger(dag_id, run_id=run_id)
    for index in (0, 1):
        airflow.wait_attempt(dag_id, run_id, "job", 1, 120, map_index=index)
    airflow.wait_until("both jobs", lambda: remote.jobs("databricks", run_id) == 2, 60)
    if suffix.endswith("reschedule"):
        airflow.wait_task(dag_id, run_id, "job", "up_for_reschedule", 60, map_index=0)
    else:
        seen = remote.looks("databricks", run_id)
        airflow.wait_until("looks", lambda: remote.looks("databricks", run_id) > seen + 3, 60)
    airflow.mark(dag_id, run_id, "job", "failed", map_index=0)
    airflow.wait_until("the cancel", lambda: remote.active("databricks", run_id) == 1, 90)
    remote.finish("databricks", run_id)
    airflow.wait_task(dag_id, run_id, "job", "success", 120, map_index=1)
    assert airflow.task(dag_id, run_id, "job", 0)["state"] == "failed"
    assert (remote.jobs("databricks", run_id), remote.cancels("databricks", run_id)) == (2, 1)


def test_a_users_stop_of_a_deferred_task_reaches_the_job_while_the_triggerer_is_down(airflow: Airflow, remote: Remote) -> None:
    marked = Task(airflow, remote, "databricks_deferrable", "down-marked")
    cleared = Task(airflow, remote, "emr_deferrable", "down-cleared")
    for t in (marked, cleared):
        _deferred(t)
    airflow.stop("triggerer")
    try:
        marked.mark("failed")
        cleared.clear()
        marked.cancelled("marked while the triggerer is down", 90)
        cleared.until("the second job", lambda: cleared.jobs == 2)
        assert (cleared.active, cleared.cancels) == (1, 1)
    finally:
        airflow.start("triggerer")
    cleared.end()
    assert (marked.jobs, marked.cancels) == (1, 1)
    assert cleared.jobs == 2
