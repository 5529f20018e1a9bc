"""
A Celery worker is stopped, another takes its tasks up: one job each, on CeleryExecutor with Redis and PostgreSQL.

A stop is sent to the worker's main process, as the init of a container does for Celery; when that has ended, everything else in
the container dies. Seen with Celery 5.6.3, provider 3.26.0, Airflow 3.3.2:

- SIGTERM is a warm shutdown: the worker takes no more messages and waits for its tasks, without a limit and without telling
  them. What the platform's grace period does not wait for is SIGKILLed. A request for the next message that is on its way to
  Redis (up to a second) still gets one: such a task is "received" and not begun, until Airflow's ``task_queued_timeout``.
- SIGQUIT is a cold shutdown: the processes of the pool get SIGTERM, each is the supervisor of a task and hands that on to it,
  and the worker waits for them (7 s with two tasks).
- SIGTERM with REMAP_SIGTERM=SIGQUIT is a cold shutdown too, but billiard then ends the processes of its pool by SIGQUIT. That
  kills Airflow's supervisors without a word to their tasks, and Celery reports the tasks as failed: each stop costs a try.
- The message of a task that was SIGKILLed with its worker is not delivered again before Redis' visibility timeout (24 hours).
  Airflow does not wait for it: it misses the heartbeats, and the retry is a new message.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.celery.harness import CeleryAirflow, Worker
from tests.crash.scenarios import SUBMIT, _operation
from tests.services import Hold

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]

_numbers = itertools.count(1)


@dataclass
class Task:
    """One task of one DAG run, with its jobs."""

    airflow: CeleryAirflow
    kind: str
    run_id: str
    suffix: str = ""

    @property
    def dag_id(self) -> str:
        return f"ours_{self.kind}{self.suffix}"

    def start(self) -> Task:
        self.airflow.trigger(self.dag_id, run_id=self.run_id)
        return self

    def attempt(self, number: int) -> dict[str, Any]:
        return self.airflow.wait_attempt(self.dag_id, self.run_id, "job", number, 120)

    def is_looked_at(self) -> None:
        """Wait until whoever watches the job has looked at it twice more."""
        self.until("the job", lambda: self.jobs == 1)
        seen = self.airflow.remote.looks(self.kind, self.run_id)
        self.until("a look", lambda: self.airflow.remote.looks(self.kind, self.run_id) >= seen + 2)

    def until(self, what: str, ask: Any, seconds: float = 120) -> None:
        self.airflow.wait_until(f"{what} of {self.run_id}", ask, seconds)

    @property
    def jobs(self) -> int:
        return self.airflow.remote.jobs(self.kind, self.run_id)

    @property
    def cancels(self) -> int:
        return self.airflow.remote.cancels(self.kind, self.run_id)

    def end(self) -> tuple[str, int, int, int]:
        """Let the job finish; the task's state, its tries, the jobs submitted and the cancels."""
        self.airflow.remote.finish(self.kind, self.run_id)
        row = self.airflow.wait_task(self.dag_id, self.run_id, "job", ["success", "failed"], 120)
        return row["state"], row["try_number"], self.jobs, self.cancels

    def log(self, number: int = 1) -> str:
        return self.airflow.log(self.dag_id, self.run_id, "job", number)


@pytest.fixture
def workers(celery: CeleryAirflow) -> Iterator[Any]:
    """Return a function that starts a worker; those left are ended with the test."""
    started: list[Worker] = []

    def start(**env: str) -> Worker:
        started.append(celery.worker(f"w{next(_numbers)}", **env))
        return started[-1]

    yield start
    for worker in started:
        if worker.is_up:
            worker.lose()


KINDS = ("databricks", "emr")


def watched_by(worker: Worker, airflow: CeleryAirflow, name: str, suffix: str = "") -> list[Task]:
    """One task of each kind, whose job runs and is watched by the worker."""
    tasks = [Task(airflow, kind, f"{name}-{kind}", suffix).start() for kind in KINDS]
    for task in tasks:
        assert worker.has(task.attempt(1))
        task.is_looked_at()
    return tasks


def test_a_worker_that_is_killed_is_followed_by_the_retry_on_the_other(celery: CeleryAirflow, workers: Any) -> None:
    one = workers()
    tasks = watched_by(one, celery, "killed")
    two = workers()
    one.lose()
    for task in tasks:
        assert two.has(task.attempt(2))
        task.until("the reattachment", lambda task=task: "reattached" in task.log(2))
        assert task.end() == ("success", 2, 1, 0)


def test_a_worker_that_is_killed_in_the_submit_makes_no_second_job(celery: CeleryAirflow, workers: Any) -> None:
    one = workers()
    held = []
    for kind in ("databricks_deferrable", "emr"):
        task, hold = Task(celery, kind, f"in-submit-{kind}"), Hold()
        celery.remote.service(kind).fault(_operation(SUBMIT, kind), hold, text=task.run_id)
        task.start()
        hold.wait_reached(120)
        held.append((task, hold))
    two = workers()
    one.lose()
    for _, hold in held:
        hold.release(drop=True)
    for task, _ in held:
        task.attempt(2)
        task.until("a look", lambda task=task: celery.remote.looks(task.kind, task.run_id) >= 1)
        state, tries, jobs, cancels = task.end()
        assert (state, tries, jobs, cancels) == ("success", 2, 1, 0)
    assert two.is_up


def test_a_cold_shutdown_hands_the_tasks_back_and_uses_no_try(celery: CeleryAirflow, workers: Any) -> None:
    one = workers()
    tasks = watched_by(one, celery, "cold", "_r0")
    two = workers()
    one.signal(signal.SIGQUIT)
    one.process.wait(60)
    one.lose()
    for task in tasks:
        assert two.has(task.attempt(2))
        assert "handed back" in task.log()
        task.until("the reattachment", lambda task=task: "reattached" in task.log())
        assert task.end() == ("success", 1, 1, 0)


def test_a_remapped_sigterm_tells_no_task_and_costs_a_try_but_no_job(celery: CeleryAirflow, workers: Any) -> None:
    one = workers(REMAP_SIGTERM="SIGQUIT")
    tasks = watched_by(one, celery, "remapped")
    two = workers()
    one.signal(signal.SIGTERM)
    one.process.wait(60)
    one.lose()
    for task in tasks:
        assert two.has(task.attempt(2))
        assert "told to stop" not in task.log()
        task.until("the reattachment", lambda task=task: "reattached" in task.log(2))
        assert task.end() == ("success", 2, 1, 0)


def test_a_warm_shutdown_waits_for_the_tasks_and_its_end_by_force_costs_a_try(celery: CeleryAirflow, workers: Any) -> None:
    """SIGTERM: the worker takes no more messages and waits; the tasks are not told. What is left at the end of the grace dies."""
    one = workers()
    first, second = watched_by(one, celery, "warm")
    two = workers()
    one.signal(signal.SIGTERM)
    celery.wait_until("the warm shutdown", lambda: "Warm shutdown" in one.log, 30)
    celery.wait_until("the end of its last request for a message", lambda: not one.waits_for_a_message, 30)
    new = Task(celery, "databricks", "warm-new").start()
    assert two.has(new.attempt(1))
    first.is_looked_at()
    assert first.end() == ("success", 1, 1, 0)
    assert one.is_up
    one.lose()
    assert two.has(second.attempt(2))
    second.until("the reattachment", lambda: "reattached" in second.log(2))
    assert second.end() == ("success", 2, 1, 0)
    assert new.end() == ("success", 1, 1, 0)


def test_a_deferred_task_does_not_notice_the_end_of_its_worker(celery: CeleryAirflow, workers: Any) -> None:
    one = workers()
    task = Task(celery, "databricks_deferrable", "deferred").start()
    celery.wait_task(task.dag_id, task.run_id, "job", "deferred", 120)
    task.is_looked_at()
    two = workers()
    one.lose()
    assert task.end() == ("success", 1, 1, 0)
    assert two.is_up
