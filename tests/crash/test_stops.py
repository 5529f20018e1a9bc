"""
Real signals on a real Airflow: an eviction costs nothing, a user's stop stops the job.

Each scenario is a test of its own; they run side by side, because most of their time is waiting for Airflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.crash.stops import SCENARIOS, Task, possible, side_by_side

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with side_by_side(request, SCENARIOS, airflow, remote, 6) as futures:
        yield futures


@pytest.mark.parametrize("name", possible(SCENARIOS))
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()


def test_an_eviction_of_one_mapped_task_leaves_the_other_alone(airflow: Airflow, remote: Remote) -> None:
    airflow.trigger("ours_mapped", run_id="mapped")
    first, _ = (airflow.wait_attempt("ours_mapped", "mapped", "job", 1, 60, map_index=i) for i in (0, 1))
    airflow.wait_until("both jobs", lambda: remote.jobs("databricks", "mapped") == 2, 60)
    remote.databricks.wait_for("runs/get", remote.databricks.count("runs/get") + 5, 30)
    airflow.evict(first)
    airflow.wait_attempt("ours_mapped", "mapped", "job", 2, 90, map_index=0)
    remote.databricks.wait_for("runs/get", remote.databricks.count("runs/get") + 5, 30)
    remote.finish("databricks", "mapped")
    assert airflow.wait_run("ours_mapped", "mapped") == "success"
    assert (remote.jobs("databricks", "mapped"), remote.cancels("databricks", "mapped")) == (2, 0)
    assert [airflow.task("ours_mapped", "mapped", "job", i)["try_number"] for i in (0, 1)] == [1, 1]


def test_a_restart_of_the_triggerer_leaves_deferred_jobs_alone(airflow: Airflow, remote: Remote) -> None:
    tasks = [Task(airflow, remote, kind, f"triggerer-{kind}").start() for kind in ("databricks_deferrable", "emr_deferrable")]
    for t in tasks:
        t.state("deferred")
        t.until("the job", lambda t=t: t.active == 1)
    airflow.restart("triggerer")
    for t in tasks:
        assert t.end()["try_number"] == 1
        assert (t.jobs, t.cancels) == (1, 0)
