"""
Tasks of a real Airflow 3.3, killed at random moments: every item's effect is there, and few are there twice.

    CHECKPOINT_SEED=7 python -m pytest -s tests/crash/test_checkpoint_crash.py
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import host
from tests.airflow.conftest import start_airflow  # noqa: F401
from tests.airflow.harness import Airflow
from tests.services import EmrService

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(600)]

SEED = int(os.environ.get("CHECKPOINT_SEED", "20261"))
EVERY, COUNT = 25, 400
ITEMS = {f"file-{n:04}" for n in range(COUNT)}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("target")


@pytest.fixture(scope="module")
def emr() -> Iterator[EmrService]:
    with EmrService() as emr:
        yield emr


@pytest.fixture(scope="module")
def airflow(start_airflow: Callable[..., Airflow], target: Path, emr: EmrService) -> Airflow:  # noqa: F811
    (target / "landing").mkdir()
    for item in ITEMS:
        (target / "landing" / item).write_text(f"  CONTENT of {item}\n")
    env = {
        **emr.env(),
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "TEST_TARGET": str(target),
        "EXAMPLE_SOURCE": f"file://{target}/landing",
        "EXAMPLE_TARGET": f"file://{target}/clean",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__RESUMABLE__SWEEP_DELAY": "2",
        "AIRFLOW__RESUMABLE__CLEANUP_MODULES": "tests.crash.effects",
    }
    (target / "clean").mkdir()
    return start_airflow(Path(__file__).parent / "checkpoint_dags", env=env)


def effects(target: Path, dag_id: str, run_id: str) -> list[str]:
    file = target / "effects"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(" ", 2)[2] for line in lines if line.startswith(f"{dag_id} {run_id} ")]


def killed(
    airflow: Airflow, target: Path, dag_id: str, kill: Callable[..., None], times: int = 2, task_id: str = "job"
) -> tuple[str, int]:
    """Run a DAG whose attempts are killed at random moments; returns its run and the repeated effects."""
    draw = random.Random(f"{SEED}/{dag_id}/{kill.__name__}")
    run_id = airflow.trigger(dag_id, run_id=f"{kill.__name__}-{dag_id}")
    for number in range(1, times + 1):
        attempt = airflow.wait_attempt(dag_id, run_id, task_id, number, 120)
        before = len(effects(target, dag_id, run_id))
        wanted = before + draw.randrange(1, COUNT // (times + 1))
        airflow.wait_until("some items", lambda: len(effects(target, dag_id, run_id)) >= wanted, 60)  # noqa: B023
        kill(attempt)
    assert airflow.wait_run(dag_id, run_id, 180) == "success"
    counts = Counter(Path(effect).name for effect in effects(target, dag_id, run_id))
    repeated = sum(counts[item] - 1 for item in ITEMS if item in counts)
    print(f"{dag_id} {kill.__name__}: {times} kills, {repeated} effects repeated")
    return run_id, repeated


@pytest.mark.parametrize(("dag_id", "at_once"), [("loop", 1), ("many", 5)])
def test_after_sigkill_no_item_is_lost_and_repeats_are_one_write_intervals(airflow, target, dag_id, at_once):
    run_id, repeated = killed(airflow, target, dag_id, airflow.kill_worker)
    assert set(effects(target, dag_id, run_id)) == ITEMS
    assert repeated <= 2 * (EVERY + at_once)
    assert "goes on" in airflow.log(dag_id, run_id, "job", 2)


@pytest.mark.parametrize("dag_id", ["loop_r0", "many_r0"])
def test_an_eviction_uses_up_no_try_and_repeats_nothing(airflow, target, dag_id):
    run_id, repeated = killed(airflow, target, dag_id, airflow.evict)
    assert set(effects(target, dag_id, run_id)) == ITEMS
    assert repeated == 0
    assert airflow.task(dag_id, run_id, "job")["try_number"] == 1
    assert "handed back" in airflow.log(dag_id, run_id, "job", 1)


def test_a_resource_is_made_once_for_all_tries_and_removed_at_the_end(airflow, target):
    run_id = airflow.trigger("resource", run_id="resource-1")
    attempt = airflow.wait_attempt("resource", run_id, "job", 1, 120)
    airflow.wait_until("some items", lambda: len(effects(target, "resource", run_id)) > 40, 60)
    airflow.kill_worker(attempt)
    assert airflow.wait_run("resource", run_id, 180) == "success"
    airflow.wait_until("the removal", lambda: "removed cluster-1" in effects(target, "resource", run_id), 20)
    seen = effects(target, "resource", run_id)
    assert seen.count("made") == 1
    assert {what.partition("@")[0] for what in seen if what.startswith("file")} == ITEMS
    if host.has_task_state():
        assert airflow.state_store("resource", run_id, "job")["resumable.once.cluster"]["state"] == "cleaned up"


def test_a_clear_does_all_items_again(airflow, target):
    run_id = airflow.trigger("loop", run_id="cleared")
    assert airflow.wait_run("loop", run_id, 120) == "success"
    airflow.clear("loop", run_id, ["job"])
    time.sleep(1)
    assert airflow.wait_run("loop", run_id, 120) == "success"
    assert set(Counter(effects(target, "loop", run_id)).values()) == {2}


def test_a_user_who_ends_the_task_ends_it(airflow, target):
    run_id = airflow.trigger("resource", run_id="ended")
    airflow.wait_attempt("resource", run_id, "job", 1, 120)
    airflow.wait_until("some items", lambda: len(effects(target, "resource", run_id)) > 10, 60)
    airflow.mark("resource", run_id, "job", "failed")
    airflow.wait_until("the removal", lambda: "removed cluster-1" in effects(target, "resource", run_id), 20)
    assert airflow.task("resource", run_id, "job")["state"] == "failed"
    assert len(effects(target, "resource", run_id)) < COUNT


@pytest.mark.skipif(not host.has_task_state(), reason="the sweep needs a task state store")
def test_what_a_killed_last_try_made_is_cleaned_up_by_the_sweep(airflow, target):
    run_id = airflow.trigger("resource_r0", run_id="killed")
    attempt = airflow.wait_attempt("resource_r0", run_id, "job", 1, 120)
    kept = lambda: airflow.state_store("resource_r0", run_id, "job").get("resumable.once.cluster", {}).get("state")
    airflow.wait_until("the note of the making", lambda: kept() == "made", 60)
    airflow.kill_worker(attempt)
    assert airflow.wait_run("resource_r0", run_id, 180) == "failed"
    airflow.wait_until("the removal", (target / "removed").exists, 60)
    assert (target / "removed").read_text() == "cluster-1\n"
    airflow.wait_until("the note of it", lambda: kept() == "cleaned up", 20)


# -- the examples as they are -----------------------------------------------------------------------------------------

needs_airflow_3 = pytest.mark.skipif(not host.has_task_state(), reason="the examples are written for Airflow 3.3")


@needs_airflow_3
@pytest.mark.parametrize("kill", ["kill_worker", "evict"])
def test_the_example_of_files_loses_none_however_it_is_killed(airflow, target, kill):
    for file in (target / "clean").iterdir():
        file.unlink()
    run_id, repeated = killed(airflow, target, "checkpointed_files", getattr(airflow, kill), task_id="clean_files")
    assert {Path(path).name for path in effects(target, "checkpointed_files", run_id)} == ITEMS
    assert {file.name: file.read_text() for file in (target / "clean").iterdir()} == {i: f"content of {i}" for i in ITEMS}
    assert repeated <= (2 * (100 + 20) if kill == "kill_worker" else 0)


@needs_airflow_3
def test_the_example_of_a_cluster_makes_one_and_terminates_it_though_its_worker_is_killed_twice(airflow, target, emr):
    run_id = airflow.trigger("setup_once", run_id="cluster-1")
    for number, table in ((1, "customers"), (2, "orders")):
        attempt = airflow.wait_attempt("setup_once", run_id, "load_tables", number, 120)
        airflow.wait_until("a table", lambda: f"begun {table}" in effects(target, "setup_once", run_id), 60)  # noqa: B023
        airflow.kill_worker(attempt)
    assert airflow.wait_run("setup_once", run_id, 180) == "success"

    def made() -> dict[str, Any]:
        return airflow.state_store("setup_once", run_id, "load_tables")["resumable.once.cluster"]

    airflow.wait_until("its end", lambda: made()["state"] == "cleaned up", 20)
    ours = made()["token"][:40]  # the rest is the time
    assert sum(ours in call.body["Name"] for call in emr.calls("RunJobFlow")) == 1  # the schedule starts runs as well
    airflow.wait_until("the end of every one", lambda: emr.count("TerminateJobFlows") == emr.count("RunJobFlow"), 60)
    done = [what for what in effects(target, "setup_once", run_id) if what.startswith("done")]
    assert list(dict.fromkeys(done)) == ["done customers", "done orders", "done payments"]
    assert len(done) <= 4, "a table that took less than the ten seconds between two writes may be done again"
