"""
What becomes of a job whose task nobody holds: on a real Airflow 3.3, by its listener and by the sweep.

A ``retry_policy`` and code around the operator end tasks too; runs and DAGs are deleted; 200 tasks are marked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.crash.stops import Task

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(900)]

AFTER_THE_SWEEP = 45.0
"""Seconds from the end of a DAG run until its listener has had it swept for certain."""


def wait_for_the_sweep(t: Task) -> None:
    import time

    t.airflow.wait_run(t.dag_id, t.run_id)
    time.sleep(AFTER_THE_SWEEP)  # that nothing happens cannot be waited for


def a_retry_policy_that_ends_the_task_leaves_its_job_and_the_record_says_why(t: Task) -> None:
    t.start("_policy")
    row = t.state("failed")
    assert row["try_number"] == 1
    wait_for_the_sweep(t)
    t.airflow.run("resumable.sweep")
    assert (t.jobs, t.active, t.cancels) == (1, 1, 0)
    assert t.record["left"] == "on_final_failure=leave"


def a_task_that_code_around_the_operator_skips_keeps_the_job_of_its_earlier_try(t: Task) -> None:
    t.start("_skips")
    t.airflow.kill_worker(t.in_the_wait())
    t.state("skipped")
    wait_for_the_sweep(t)
    said = t.airflow.run("resumable.sweep")
    assert f"of {t.dag_id} {t.run_id} job (skipped) may be running: nobody is known to have ended the task" in said
    assert (t.jobs, t.active, t.cancels) == (1, 1, 0)
    t.airflow.run("resumable.sweep", "--ended-by-user", t.dag_id, t.run_id, "job")
    assert (t.active, t.cancels) == (0, 1)


def a_run_that_is_deleted_while_its_task_waits_for_a_look_has_its_job_stopped(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.airflow.call("PATCH", f"/dags/{t.dag_id}/dagRuns/{t.run_id}", json={"state": "failed"})
    t.airflow.delete_run(t.dag_id, t.run_id)
    t.cancelled("run deleted between two looks", 120)
    assert (t.jobs, t.cancels) == (1, 1)


def a_run_that_is_deleted_under_a_running_task_has_its_job_stopped_by_the_task(t: Task) -> None:
    t.start()
    t.in_the_wait()
    t.airflow.call("PATCH", f"/dags/{t.dag_id}/dagRuns/{t.run_id}", json={"state": "failed"})
    t.airflow.delete_run(t.dag_id, t.run_id)
    t.cancelled("run deleted under a running task", 60)
    assert t.jobs == 1


def a_dag_that_is_deleted_while_its_task_waits_for_a_look_has_its_job_stopped(t: Task) -> None:
    t.start("_deletable")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.airflow.call("DELETE", f"/dags/{t.dag_id}")
    t.cancelled("DAG deleted between two looks", 120)
    assert (t.jobs, t.cancels) == (1, 1)


def a_run_that_is_marked_failed_stops_the_job_of_a_task_that_waits_for_a_retry(t: Task) -> None:
    """Airflow makes such a task skipped, and tells no listener of it."""
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.airflow.call("PATCH", f"/dags/{t.dag_id}/dagRuns/{t.run_id}", json={"state": "failed"})
    t.cancelled("run marked between two looks", 90)
    assert (t.jobs, t.cancels) == (1, 1)


SCENARIOS: dict[str, tuple[str, Callable[[Task], None]]] = {
    run.__name__: (kind, run)
    for kind, run in (
        ("custom", a_retry_policy_that_ends_the_task_leaves_its_job_and_the_record_says_why),
        ("databricks", a_task_that_code_around_the_operator_skips_keeps_the_job_of_its_earlier_try),
        ("emr", a_run_that_is_deleted_while_its_task_waits_for_a_look_has_its_job_stopped),
        ("databricks", a_run_that_is_deleted_under_a_running_task_has_its_job_stopped_by_the_task),
        ("databricks", a_dag_that_is_deleted_while_its_task_waits_for_a_look_has_its_job_stopped),
        ("emr", a_run_that_is_marked_failed_stops_the_job_of_a_task_that_waits_for_a_retry),
    )
}


@pytest.fixture(scope="module")
def running(airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(max_workers=6) as pool:
        yield {
            name: pool.submit(run, Task(airflow, remote, kind, f"unheld-{n}"))
            for n, (name, (kind, run)) in enumerate(SCENARIOS.items())
        }


@pytest.mark.parametrize("name", SCENARIOS)
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()


@pytest.mark.timeout(1800)
def test_marks_of_200_tasks_at_once_stop_their_jobs_by_a_few_processes(airflow: Airflow, remote: Remote) -> None:
    count = 200
    airflow.trigger("ours_many", run_id="many")

    def waiting() -> int:
        path, seen = "/dags/ours_many/dagRuns/many/taskInstances", []
        for offset in range(0, count, 100):
            seen += airflow.call("GET", path, params={"limit": 100, "offset": offset})["task_instances"]
        return sum(row["state"] == "up_for_reschedule" for row in seen)

    airflow.wait_until("200 tasks between two looks", lambda: waiting() == count, 1200, pause=2)
    assert remote.active("databricks", "many") == count
    before = _processes(airflow)
    entities: list[dict[str, Any]] = [{"task_id": "job", "map_index": n, "new_state": "failed"} for n in range(count)]
    action = {"action": "update", "action_on_non_existence": "fail", "entities": entities}
    airflow.call("PATCH", "/dags/ours_many/dagRuns/many/taskInstances", json={"actions": [action]})
    airflow.wait_until("the end of 200 jobs", lambda: remote.active("databricks", "many") == 0, 300)
    assert (remote.jobs("databricks", "many"), remote.cancels("databricks", "many")) == (count, count)
    print(f"200 tasks marked at once: {_processes(airflow) - before} processes")
    assert 1 <= _processes(airflow) - before <= 6


def _processes(airflow: Airflow) -> int:
    logs = ("api-server", "scheduler")
    return sum((airflow.home / f"logs-{name}.txt").read_text().count("swept in a process of their own") for name in logs)
