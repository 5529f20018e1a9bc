"""Real signals on a real Airflow 3.3: an eviction costs nothing, a user's stop stops the job."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import LOOK, SUBMIT, Remote, _operation
from tests.services import Hold

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(300)]

KINDS = ["databricks", "emr"]


class Task:
    """One task of one DAG run, with its jobs."""

    def __init__(self, airflow: Airflow, remote: Remote, kind: str, dag_id: str, run_id: str) -> None:
        self.airflow, self.remote, self.kind, self.dag_id, self.run_id = airflow, remote, kind, dag_id, run_id

    def start(self) -> Task:
        self.airflow.trigger(self.dag_id, run_id=self.run_id)
        return self

    def in_the_wait(self, number: int = 1, jobs: int = 1) -> dict[str, Any]:
        attempt = self.attempt(number)
        self.airflow.wait_until("the job", lambda: self.jobs == jobs, 60)
        service, look = self.remote.service(self.kind), _operation(LOOK, self.kind)
        service.wait_for(look, service.count(look) + 2, 60)
        return attempt

    def attempt(self, number: int) -> dict[str, Any]:
        return self.airflow.wait_attempt(self.dag_id, self.run_id, "job", number, 90)

    @property
    def jobs(self) -> int:
        return self.remote.jobs(self.kind, self.run_id)

    @property
    def active(self) -> int:
        return self.remote.active(self.kind, self.run_id)

    @property
    def cancels(self) -> int:
        return self.remote.cancels(self.kind, self.run_id)

    def row(self) -> dict[str, Any]:
        return self.airflow.task(self.dag_id, self.run_id, "job")

    def end(self, state: str = "success") -> dict[str, Any]:
        self.remote.finish(self.kind, self.run_id)
        return self.airflow.wait_task(self.dag_id, self.run_id, "job", [state], 90)

    def log(self, number: int = 1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, "job", number)


@pytest.fixture
def task(airflow: Airflow, remote: Remote, request: pytest.FixtureRequest) -> Any:
    def start(kind: str, suffix: str = "") -> Task:
        name = request.node.name.replace("[", "-").replace("]", "")
        return Task(airflow, remote, kind, f"ours_{kind}{suffix}", name).start()

    return start


@pytest.mark.parametrize("kind", KINDS)
def test_an_eviction_leaves_the_job_and_uses_no_try_not_even_with_retries_0(task: Any, kind: str) -> None:
    t = task(kind, "_r0")
    t.airflow.signal_worker(t.in_the_wait(), signal.SIGTERM)
    t.airflow.wait_task(t.dag_id, t.run_id, "job", ["up_for_reschedule"], 15)
    assert (t.active, t.cancels) == (1, 0)
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    assert "handed back" in t.log()
    assert "reattached" in t.log()


def test_an_eviction_while_the_submit_is_in_flight_makes_no_second_job(task: Any, remote: Remote) -> None:
    for kind in KINDS:
        hold = Hold()
        name = f"in-flight-{kind}"
        remote.service(kind).fault(_operation(SUBMIT, kind), hold, text=name)
        t = task(kind, "_r0")
        t.run_id = name
        t.start()
        hold.wait_reached(60)
        t.airflow.signal_worker(t.attempt(1), signal.SIGTERM)
        t.airflow.wait_task(t.dag_id, t.run_id, "job", ["up_for_reschedule"], 20)
        hold.release(drop=True)
        t.attempt(2)
        t.airflow.wait_until("the reattachment", lambda t=t: "reattached" in t.log(), 90)
        row = t.end()
        assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_users_mark_cancels_the_job_once(task: Any, kind: str, state: str) -> None:
    t = task(kind)
    t.in_the_wait()
    t.airflow.mark(t.dag_id, t.run_id, "job", state)
    t.airflow.wait_until("the cancel", lambda: t.active == 0, 15)
    assert t.row()["state"] == state
    assert (t.jobs, t.cancels) == (1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clear_while_running_stops_the_old_job_before_the_new_one(task: Any, kind: str) -> None:
    t = task(kind)
    t.in_the_wait()
    t.airflow.clear(t.dag_id, t.run_id, ["job"])
    seen = set()

    def second() -> bool:
        seen.add(t.active)
        return t.jobs == 2

    t.airflow.wait_until("the second job", second, 90)
    assert t.cancels == 1
    assert max(seen) == 1
    t.airflow.wait_until("the submit", lambda: "submitted" in t.log(2), 30)
    t.end()
    assert t.jobs == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_clear_after_success_runs_again(task: Any, kind: str) -> None:
    t = task(kind)
    t.in_the_wait()
    t.end()
    t.airflow.clear(t.dag_id, t.run_id, ["job"])
    t.in_the_wait(2, jobs=2)
    t.end()
    assert (t.jobs, t.cancels) == (2, 0)


def test_an_eviction_of_one_mapped_task_leaves_the_other_alone(airflow: Airflow, remote: Remote) -> None:
    airflow.trigger("ours_mapped", run_id="mapped")
    first, _ = (airflow.wait_attempt("ours_mapped", "mapped", "job", 1, 60, map_index=i) for i in (0, 1))
    airflow.wait_until("both jobs", lambda: remote.jobs("databricks", "mapped") == 2, 60)
    remote.databricks.wait_for("runs/get", remote.databricks.count("runs/get") + 5, 30)
    airflow.signal_worker(first, signal.SIGTERM)
    airflow.wait_attempt("ours_mapped", "mapped", "job", 2, 90, map_index=0)
    remote.databricks.wait_for("runs/get", remote.databricks.count("runs/get") + 5, 30)
    remote.finish("databricks", "mapped")
    assert airflow.wait_run("ours_mapped", "mapped") == "success"
    assert (remote.jobs("databricks", "mapped"), remote.cancels("databricks", "mapped")) == (2, 0)
    assert [airflow.task("ours_mapped", "mapped", "job", i)["try_number"] for i in (0, 1)] == [1, 1]
