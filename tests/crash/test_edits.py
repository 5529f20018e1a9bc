"""A DAG file that computes something else at each parse, and one that is edited while its job runs, on a real Airflow 3.3."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.crash.stops import Scenario, Task, registers

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(900)]

MOVED = "although json.notebook_task, json.run_name moved: it is computed when the DAG file is parsed, which is no edit"
SCENARIOS: dict[str, tuple[str, Scenario]] = {}
scenario = registers(SCENARIOS)


@scenario("databricks")
def a_lost_worker_costs_no_second_job_whatever_the_file_computes(t: Task) -> None:
    t.start("_moves")
    t.airflow.kill_worker(t.in_the_wait())
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (2, 1, 0)
    assert MOVED in t.log(2)


@scenario("databricks")
def an_eviction_costs_no_second_job_whatever_the_file_computes(t: Task) -> None:
    t.start("_moves_r0")
    t.airflow.evict(t.in_the_wait())
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("databricks")
def a_task_that_looks_again_and_again_has_one_job_whatever_the_file_computes(t: Task) -> None:
    t.start("_moves_reschedule")
    for look in (1, 2, 3, 4):
        t.attempt(look)
        t.until("a look", lambda look=look: t.remote.looks(t.kind, t.run_id) >= look)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("databricks")
def a_deferred_task_has_one_job_whatever_the_file_computes(t: Task) -> None:
    t.start("_moves_deferrable")
    t.state("deferred")
    t.until("a look", lambda: t.remote.looks(t.kind, t.run_id) >= 2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


@scenario("databricks")
def an_edit_restarts_the_job_once_also_with_a_stale_worker_in_between(t: Task) -> None:
    file = t.airflow.dags / "edited.py"
    before = file.read_text()
    edited = before.replace('"/before"', '"/after"')
    t.start("_edited")
    first = t.in_the_wait()
    file.write_text(edited)
    t.airflow.kill_worker(first)
    second = t.in_the_wait(2, jobs=2)
    assert (t.active, t.cancels) == (1, 1)
    assert "the author changed json.notebook_task, on_change=restart" in t.log(2)
    file.write_text(before)  # as on a worker that the deploy has not reached
    t.airflow.kill_worker(second)
    third = t.in_the_wait(3, jobs=2)
    file.write_text(edited)
    t.airflow.kill_worker(third)
    t.in_the_wait(4, jobs=2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (4, 2, 1)


@pytest.fixture(scope="module")
def running(airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(max_workers=len(SCENARIOS)) as pool:
        yield {name: pool.submit(run, Task(airflow, remote, kind, name)) for name, (kind, run) in SCENARIOS.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()
