"""What stops a task of a real Airflow, and what becomes of its job: run by `test_stops`, `test_modes` and `tests.versions`."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from tests.airflow.harness import Airflow
from tests.airflow.processes import task_process
from tests.crash.scenarios import LOOK, SUBMIT, Remote, _operation
from tests.services import Hold
from tests.versions.cannot import why_not

_T = TypeVar("_T")

LOOK_SECONDS = 10
"""Between two looks of the DAGs ``*_reschedule``: `tests/crash/dags/jobs.py`."""


class Task:
    """One task of one DAG run, with its jobs."""

    def __init__(self, airflow: Airflow, remote: Remote, kind: str, name: str) -> None:
        self.airflow, self.remote, self.kind = airflow, remote, kind
        self.dag_id, self.run_id = "", name

    def start(self, suffix: str = "") -> Task:
        self.dag_id = f"ours_{self.kind}{suffix}"
        self.airflow.trigger(self.dag_id, run_id=self.run_id)
        return self

    def in_the_wait(self, number: int = 1, jobs: int = 1) -> dict[str, Any]:
        """Wait until the n-th execution has looked at its job twice."""
        attempt = self.attempt(number)
        self.until("the job", lambda: self.jobs == jobs)
        look, service = _operation(LOOK, self.kind), self.remote.service(self.kind)
        seen = self.remote.looks(self.kind, self.run_id)
        self.until("a look", lambda: self.remote.looks(self.kind, self.run_id) >= seen + 2)
        assert service.count(look)
        return attempt

    def attempt(self, number: int) -> dict[str, Any]:
        return self.airflow.wait_attempt(self.dag_id, self.run_id, "job", number, 120)

    def until(self, what: str, ask: Callable[[], Any], seconds: float = 120) -> None:
        self.airflow.wait_until(f"{what} of {self.run_id}", ask, seconds)

    def state(self, *states: str, seconds: float = 120) -> dict[str, Any]:
        return self.airflow.wait_task(self.dag_id, self.run_id, "job", list(states), seconds)

    @property
    def jobs(self) -> int:
        return self.remote.jobs(self.kind, self.run_id)

    @property
    def active(self) -> int:
        return self.remote.active(self.kind, self.run_id)

    @property
    def cancels(self) -> int:
        return self.remote.cancels(self.kind, self.run_id)

    def end(self) -> dict[str, Any]:
        self.remote.finish(self.kind, self.run_id)
        return self.state("success")

    def fail(self) -> None:
        """Let the job fail for a reason of its own."""
        self.remote.finish(self.kind, self.run_id, ok=False)

    @property
    def record(self) -> dict[str, Any]:
        return dict(self.airflow.state_store(self.dag_id, self.run_id, "job")["resumable"])

    def log(self, number: int = 1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, "job", number)

    def mark(self, state: str) -> None:
        self.airflow.mark(self.dag_id, self.run_id, "job", state)

    def clear(self) -> None:
        self.airflow.clear(self.dag_id, self.run_id, ["job"])

    def cancelled(self, what: str, seconds: float) -> None:
        """Wait until no job is active, and note how long it took."""
        since = time.monotonic()
        self.until("the cancel", lambda: self.active == 0, seconds)
        LATENCIES[f"{what}, {self.kind}"].append(time.monotonic() - since)


LATENCIES: dict[str, list[float]] = defaultdict(list)
"""Seconds from a user's click to the stopped job, for the table at the end."""

Scenario = Callable[[Task], None]
SCENARIOS: dict[str, tuple[str, Scenario]] = {}


def registers(scenarios: dict[str, tuple[str, Scenario]]) -> Callable[..., Callable[[Scenario], Scenario]]:
    """A decorator, given the kinds of its tasks, that puts a scenario into ``scenarios`` once for each."""

    def scenario(*kinds: str) -> Callable[[Scenario], Scenario]:
        def register(run: Scenario) -> Scenario:
            for kind in kinds:
                scenarios[f"{run.__name__}-{kind}"] = (kind, run)
            return run

        return register

    return scenario


scenario = registers(SCENARIOS)


def possible(scenarios: Mapping[str, Any]) -> list[Any]:
    """The names for `pytest.mark.parametrize`; what this Airflow cannot do is skipped, and `tests.versions` shows that."""
    return [pytest.param(name, marks=[pytest.mark.skip(reason=why)] if (why := why_not(name)) else []) for name in scenarios]


@contextmanager
def side_by_side(
    request: pytest.FixtureRequest, scenarios: dict[str, tuple[str, Scenario]], airflow: Airflow, remote: Remote, at_once: int
) -> Iterator[dict[str, Future[None]]]:
    """The scenarios that were asked for (-k), all begun, some at a time. In the end, what their clicks took is printed."""
    pool = ThreadPoolExecutor(at_once)
    try:
        chosen = asked_for(request, scenarios).items()
        yield {name: pool.submit(run, Task(airflow, remote, kind, name)) for name, (kind, run) in chosen}
    finally:
        pool.shutdown(cancel_futures=True)
    for what, seconds in sorted(LATENCIES.items()):
        print(f"from the click to the stopped job: {what}: {', '.join(f'{s:.1f}' for s in seconds)} s")


def asked_for(request: pytest.FixtureRequest, scenarios: Mapping[str, _T]) -> dict[str, _T]:
    """Those that -k has left."""
    items = [item for item in request.session.items if not item.get_closest_marker("skip")]
    asked = {item.callspec.params.get("name") for item in items if hasattr(item, "callspec")}
    return {name: of for name, of in scenarios.items() if name in asked}


@scenario("databricks", "emr")
def an_eviction_leaves_the_job_and_uses_no_try_not_even_with_retries_0(t: Task) -> None:
    t.start("_r0")
    t.airflow.signal_worker(t.in_the_wait(), signal.SIGTERM)
    t.state("up_for_reschedule")
    assert (t.active, t.cancels) == (1, 0)
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    assert "handed back" in t.log()
    assert "reattached" in t.log()


@scenario("databricks", "emr")
def an_eviction_while_the_submit_is_in_flight_makes_no_second_job(t: Task) -> None:
    hold = Hold()
    t.remote.service(t.kind).fault(_operation(SUBMIT, t.kind), hold, text=t.run_id)
    t.start("_r0")
    hold.wait_reached(120)
    t.airflow.signal_worker(t.attempt(1), signal.SIGTERM)
    t.state("up_for_reschedule")
    hold.release(drop=True)
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log())
    if t.kind.endswith("deferrable"):
        is_looked_at_by_the_trigger(t)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


def is_looked_at_by_the_trigger(t: Task) -> None:
    """A job that ends in the second after the deferral would meet a race of Airflow's: see the end of docs/guarantees.md."""
    t.state("deferred")
    seen = t.remote.looks(t.kind, t.run_id)
    t.until("a look of the trigger", lambda: t.remote.looks(t.kind, t.run_id) > seen)


def _is_cancelled_once(t: Task, state: str) -> None:
    t.start()
    t.in_the_wait()
    t.mark(state)
    t.cancelled("marked while running", 50)  # Airflow 2 lets a task marked success run on for 20 s
    assert t.state(state)["state"] == state
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks", "emr")
def a_task_marked_failed_cancels_its_job_once(t: Task) -> None:
    _is_cancelled_once(t, "failed")


@scenario("databricks")
def a_task_marked_success_cancels_its_job_once(t: Task) -> None:
    _is_cancelled_once(t, "success")


@scenario("emr")
def a_task_marked_skipped_cancels_its_job_once(t: Task) -> None:
    _is_cancelled_once(t, "skipped")


@scenario("databricks", "emr")
def a_clear_while_running_stops_the_old_job_before_the_new_one(t: Task) -> None:
    t.start()
    t.in_the_wait()
    t.clear()
    seen = set()

    def second() -> bool:
        seen.add(t.active)
        return t.jobs == 2

    t.until("the second job", second)
    assert (t.cancels, max(seen)) == (1, 1)
    t.until("the submit", lambda: "submitted" in t.log(2))
    t.end()
    assert t.jobs == 2


@scenario("databricks", "emr")
def a_clear_after_success_runs_again(t: Task) -> None:
    t.start()
    t.in_the_wait()
    t.end()
    t.airflow.wait_run(t.dag_id, t.run_id)
    t.clear()
    t.in_the_wait(2, jobs=2)
    t.end()
    assert (t.jobs, t.cancels) == (2, 0)


@scenario("databricks")
def a_clear_of_the_whole_run_after_a_failure_runs_again(t: Task) -> None:
    t.start("_r0")
    t.in_the_wait()
    for run in t.remote.databricks.active():
        if t.run_id in str(run.payload):
            t.remote.databricks.finish(run.run_id, "FAILED")
    assert t.airflow.wait_run(t.dag_id, t.run_id) == "failed"
    t.airflow.clear(t.dag_id, t.run_id)
    t.in_the_wait(2, jobs=2)
    t.end()
    assert (t.jobs, t.cancels) == (2, 0)


def _deferred(t: Task) -> None:
    """Wait until the trigger looks at the job: a mark before that is not told to it."""
    t.start()
    t.state("deferred")
    seen = t.remote.looks(t.kind, t.run_id)
    t.until("a look of the trigger", lambda: t.remote.looks(t.kind, t.run_id) > seen + 1)


@scenario("databricks_deferrable", "emr_deferrable")
def a_deferred_task_marked_failed_cancels_its_job_once(t: Task) -> None:
    _deferred(t)
    t.mark("failed")
    t.cancelled("marked while deferred", 90)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks_deferrable", "emr_deferrable")
def a_retry_of_a_deferred_task_whose_job_failed_starts_from_the_top(t: Task) -> None:
    """Airflow 3.0 resumes it with the event of the earlier try."""
    _deferred(t)
    t.fail()
    t.until("the second job", lambda: t.jobs == 2)
    t.state("deferred")
    t.end()
    assert (t.jobs, t.cancels) == (2, 0)


@scenario("databricks_deferrable", "emr_deferrable")
def a_deferred_task_that_is_cleared_stops_the_old_job_before_the_new_one(t: Task) -> None:
    _deferred(t)
    t.clear()
    t.until("the second job", lambda: t.jobs == 2)
    t.until("one job", lambda: t.active == 1)
    t.state("deferred")
    t.end()
    assert t.jobs == 2
    assert t.cancels >= 1


@scenario("databricks", "emr")
def wait_reschedule_holds_no_slot_between_looks_and_uses_no_try(t: Task) -> None:
    t.start("_reschedule")
    first = t.attempt(1)
    t.state("up_for_reschedule")
    assert t.jobs == 1
    third = t.attempt(3)
    assert third["time"] - first["time"] > 2 * LOOK_SECONDS  # the scheduler heeds the dates
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    xcoms = t.airflow.xcoms(t.dag_id, t.run_id, "job")
    assert "run_page_url" in xcoms if t.kind == "databricks" else len(xcoms["return_value"]) == 2


@scenario("databricks", "emr")
def a_user_ends_a_task_between_two_looks_and_the_next_clear_stops_the_job(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.clear()
    t.until("the second job", lambda: t.jobs == 2)
    assert t.active == 1
    assert t.cancels == 1
    t.end()


@scenario("databricks", "emr")
def a_task_marked_failed_between_two_looks_cancels_its_job_once(t: Task) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.mark("failed")
    t.cancelled("marked between two looks", 90)
    assert t.state("failed")["state"] == "failed"
    assert (t.jobs, t.cancels) == (1, 1)
    t.until("the record", lambda: t.record["state"] == "cancelled", 20)


@scenario("databricks")
def a_task_marked_success_after_a_hand_back_cancels_its_job_once(t: Task) -> None:
    t.start("_r0")
    t.airflow.evict(t.in_the_wait())
    t.state("up_for_reschedule")
    t.mark("success")
    t.cancelled("marked after a hand-back", 90)
    assert (t.jobs, t.cancels) == (1, 1)


def _marked_and_killed(t: Task, attempt: dict[str, Any]) -> None:
    """The worker dies before it is told of the mark. (3.4 sees its death at once, and may drop a later mark.)"""
    t.airflow.signal_worker(attempt, signal.SIGSTOP)
    t.mark("failed")
    t.airflow.kill_worker(attempt)


@scenario("databricks")
def a_mark_whose_worker_is_killed_with_it_cancels_the_job_once(t: Task) -> None:
    t.start()
    _marked_and_killed(t, t.in_the_wait())
    t.cancelled("marked, worker killed", 90)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks", "emr")
def a_worker_that_lost_the_api_server_leaves_the_job_to_the_retry(t: Task) -> None:
    t.start()
    first = t.in_the_wait()
    ti_id = t.airflow.task(t.dag_id, t.run_id, "job")["id"]
    for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
        t.airflow.proxy.fail(method, "", times=10**6, ti_id=ti_id)
    t.airflow.proxy.fail("GET", "/task-instances/states", times=10**6, where=lambda path, body: t.run_id in path)
    t.in_the_wait(2)
    t.until("the end of the first worker", lambda: task_process(first) is None)
    assert (t.active, t.cancels) == (1, 0)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)


@scenario("emr")
def a_sweep_leaves_the_steps_of_a_task_that_does_not_wait(t: Task) -> None:
    t.start("_not_waiting")
    assert t.airflow.wait_run(t.dag_id, t.run_id) == "success"
    t.airflow.mark(t.dag_id, t.run_id, "job", "failed")
    t.airflow.run("resumable.sweep")
    assert (t.active, t.cancels) == (1, 0)


@scenario("databricks")
def a_sweep_leaves_the_job_of_a_last_try_that_was_lost_and_says_so(t: Task) -> None:
    t.start("_r0")
    t.airflow.kill_worker(t.in_the_wait())
    t.state("failed")
    assert f"{t.dag_id} {t.run_id} job (failed) may be running: the last try was lost" in t.airflow.run("resumable.sweep")
    assert (t.active, t.cancels) == (1, 0)


@scenario("databricks", "emr")
def execution_timeout_cancels_the_job(t: Task) -> None:
    t.start("_timeout")
    t.state("failed")
    t.until("the cancel", lambda: t.active == 0, 5)
    assert (t.jobs, t.cancels) == (1, 1)


@scenario("databricks")
def execution_timeout_with_detach_leaves_the_job_to_the_retry(t: Task) -> None:
    t.start("_timeout_detach")
    t.attempt(2)
    t.until("the reattachment", lambda: "reattached" in t.log(2))
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)
    assert "left running" in t.log(1)


@scenario("databricks", "emr")
def dagrun_timeout_cancels_the_job(t: Task) -> None:
    t.start("_dagrun_timeout")
    t.until("the job", lambda: t.jobs == 1)
    t.until("the cancel", lambda: t.active == 0, 60)
    assert t.cancels == 1
