"""``wait="defer"`` on a real Airflow: who stops, who dies, and what becomes of the jobs that wait in the triggerer."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest

from tests.airflow.harness import Airflow
from tests.airflow.processes import with_children
from tests.airflow.triggerers import another_triggerer, frozen, has_let_go
from tests.crash.dags_defer import MANY
from tests.crash.scenarios import Remote
from tests.crash.stops import Scenario, Task, possible, registers, side_by_side

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(900)]

KINDS = ("databricks_defer", "emr_defer", "custom_defer")
SCENARIOS: dict[str, tuple[str, Scenario]] = {}
scenario = registers(SCENARIOS)


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    shutil.copy(Path(__file__).parent / "dags_defer" / "defer.py", folder)
    return folder


@pytest.fixture(scope="module")
def airflow(start_airflow: Callable[..., Airflow], remote: Remote, dags: Path) -> Airflow:
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__CORE__PARALLELISM": "24",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "40",  # a first question takes it some seconds
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__RESUMABLE__SWEEP_DELAY": "300",  # what is cancelled is cancelled by a trigger
        "AIRFLOW__RESUMABLE__FLEET_RATES": "emr:ListSteps=2/10",
        "AIRFLOW__RESUMABLE__SWEEP_MODULES": "tests.crash.nightly",
    }
    return start_airflow(dags, env=env, triggerer=True)


def deferred(t: Task, suffix: str = "") -> None:
    """Wait until the trigger runs: a mark before that is not told to it."""
    t.start(suffix)
    waits(t)


def waits(t: Task, triggers: int = 1) -> None:
    """Wait until as many triggers have been begun for the task in all."""
    t.state("deferred")
    t.until("the trigger", lambda: begun(t) >= triggers, 180)
    time.sleep(2)  # it has been begun, and comes to wait


def begun(t: Task) -> int:
    """Triggers that were begun for the task. Airflow 2 says so in the triggerers' own logs."""
    said = [line for file in t.airflow.home.glob("logs-triggerer*.txt") for line in file.read_text().splitlines()]
    return max(logs(t).count(") starting"), sum(f"/{t.run_id}/job/" in line and ") starting" in line for line in said))


@scenario(*KINDS)
def a_deferred_task_delivers_its_job_in_one_try_and_three_starts_at_most(t: Task) -> None:
    deferred(t)
    assert "resumable: deferred, waiting for" in t.log()
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    assert "the triggerer has seen that the job is succeeded" in t.log()
    assert len(t.airflow.attempts(t.dag_id, t.run_id, "job")) == 2


@scenario(*KINDS)
def a_job_that_fails_while_its_task_is_deferred_fails_the_try_and_the_next_one_submits(t: Task) -> None:
    deferred(t)
    t.fail()
    t.until("the second job", lambda: t.jobs == 2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 2, 0)


@scenario(*KINDS)
def a_worker_that_is_killed_before_the_deferral_is_followed_by_a_retry_that_waits_for_the_same_job(t: Task) -> None:
    t.start()
    first = t.attempt(1)
    t.until("the record", lambda: t.jobs == 1 and t.record["job"] is not None)
    t.airflow.kill_worker(first)
    t.attempt(2)
    waits(t)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)


@scenario(*KINDS)
def a_deferred_task_marked_failed_cancels_its_job_once(t: Task) -> None:
    deferred(t)
    t.mark("failed")
    t.cancelled("marked while deferred", 90)
    assert t.state("failed")["state"] == "failed"
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks_defer", "emr_defer")
def a_deferred_task_marked_success_cancels_its_job_once(t: Task) -> None:
    deferred(t)
    t.mark("success")
    t.cancelled("marked success while deferred", 90)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario(*KINDS)
def a_deferred_task_that_is_cleared_stops_the_old_job_before_the_new_one(t: Task) -> None:
    deferred(t)
    t.clear()
    t.until("the second job", lambda: t.jobs == 2)
    t.until("one job", lambda: t.active == 1)
    t.end()
    assert (t.jobs, t.cancels) == (2, 1)


@scenario("databricks_defer", "custom_defer")
def on_clear_reattach_keeps_the_job_of_a_deferred_task(t: Task) -> None:
    deferred(t, "_keep")
    t.clear()
    t.attempt(2)
    waits(t, 2)
    assert (t.active, t.cancels) == (1, 0)
    t.end()
    assert (t.jobs, t.cancels) == (1, 0)


@scenario("databricks_defer", "emr_defer")
def job_timeout_holds_while_the_task_is_deferred(t: Task) -> None:
    t.start("_overdue")
    row = t.state("failed", seconds=300)
    assert (row["try_number"], t.jobs, t.active, t.cancels) == (1, 1, 0, 1)
    assert "has run for longer than job_timeout" in t.log()


@scenario("databricks_defer")
def execution_timeout_counts_the_deferral_and_cancels_the_job(t: Task) -> None:
    t.start("_timeout")
    t.state("deferred")
    t.state("failed", seconds=300)
    assert (t.jobs, t.active, t.cancels) == (1, 0, 1)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with side_by_side(request, SCENARIOS, airflow, remote, 8) as futures:
        yield futures


@pytest.mark.parametrize("name", possible(SCENARIOS))
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()


def test_a_triggerer_that_is_killed_leaves_the_jobs_to_the_next_one(airflow: Airflow, remote: Remote) -> None:
    tasks = [Task(airflow, remote, kind, f"killed-{kind}") for kind in KINDS]
    for t in tasks:
        t.start()
    for t in tasks:
        waits(t)
    processes = with_children([psutil.Process(airflow._services._running["triggerer"].pid)])
    for process in processes:
        process.send_signal(signal.SIGKILL)
    airflow.restart("triggerer")
    for t in tasks:
        row = t.end()
        assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


def test_a_triggerer_that_stands_still_and_wakes_up_cancels_no_job_and_a_users_mark_still_does(
    airflow: Airflow, remote: Remote
) -> None:
    tasks = [Task(airflow, remote, kind, f"frozen-{kind}") for kind in KINDS]
    for t in tasks:
        t.start()
    for t in tasks:
        waits(t)
    with another_triggerer(airflow):
        with frozen(airflow):
            for t in tasks:
                t.until("the other's trigger", lambda t=t: begun(t) >= 2, 240)
        for t in tasks:
            t.until("the first one to be stopped", lambda t=t: "trigger was stopped" in logs(t) or has_let_go(airflow), 120)
        for t in tasks:
            row = t.state("deferred")
            assert (t.jobs, t.active, t.cancels, row["try_number"]) == (1, 1, 0, 1)
        for t in tasks[:2]:
            t.mark("failed")
            t.until("the cancel", lambda t=t: t.active == 0, 90)
            assert (t.jobs, t.cancels) == (1, 1)
        row = tasks[2].end()
        assert (row["try_number"], tasks[2].jobs, tasks[2].cancels) == (1, 1, 0)


def logs(t: Task) -> str:
    """Everything that was written about the task, the triggers' lines included."""
    folder = t.airflow.home / "airflow" / "logs" / f"dag_id={t.dag_id}" / f"run_id={t.run_id}"
    return "\n".join(file.read_text() for file in folder.rglob("attempt=*"))


def test_a_stop_of_one_of_many_that_wait_reaches_its_job_and_no_other(airflow: Airflow, remote: Remote) -> None:
    dag_id, run_id = "ours_many_defer", "many"
    airflow.trigger(dag_id, run_id=run_id)
    airflow.wait_until("the jobs", lambda: remote.jobs("databricks", run_id) >= MANY, 600)  # 24 processes, on a busy machine
    for n in range(MANY):
        airflow.wait_task(dag_id, run_id, "job", ["deferred"], 300, map_index=n)
    before = remote.databricks.count("runs/list")
    airflow.wait_until("readings of the list", lambda: remote.databricks.count("runs/list") > before + 3, 120)
    airflow.mark(dag_id, run_id, "job", "failed", map_index=7)
    airflow.wait_until("the cancel", lambda: remote.active("databricks", run_id) == MANY - 1, 60)
    assert remote.cancels("databricks", run_id) == 1
    (stopped,) = [run for run in remote._runs(run_id) if not run.is_active]
    assert "/7" in str(stopped.payload)
    remote.finish("databricks", run_id)
    assert airflow.wait_run(dag_id, run_id, 300) == "failed"
    states = [airflow.task(dag_id, run_id, "job", n)["state"] for n in range(MANY)]
    assert states == ["failed" if n == 7 else "success" for n in range(MANY)]
    assert (remote.jobs("databricks", run_id), remote.cancels("databricks", run_id)) == (MANY, 1)
