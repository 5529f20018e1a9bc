"""What people really write with a checkpoint, a watermark and `once`, on a real Airflow 3.3."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import host
from tests.airflow.conftest import start_airflow  # noqa: F401
from tests.airflow.harness import Airflow

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.stops,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not host.has_task_state(), reason="these DAGs are written for Airflow 3.3"),
]

STATE = r"/store/ti/"
ITEMS = [f"file-{n:04}" for n in range(100)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("target")


@pytest.fixture(scope="module")
def airflow(start_airflow: Callable[..., Airflow], target: Path) -> Airflow:  # noqa: F811
    env = {"TEST_TARGET": str(target), "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10"}
    return start_airflow(Path(__file__).parent / "patterns_dags", env=env)


def effects(target: Path, dag_id: str, run_id: str) -> list[str]:
    file = target / "effects"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(" ", 2)[2] for line in lines if line.startswith(f"{dag_id} {run_id} ")]


def run(airflow: Airflow, dag_id: str, conf: dict[str, Any] | None = None, state: str = "success", timeout: float = 120) -> str:
    run_id = airflow.trigger(dag_id, conf)
    assert airflow.wait_run(dag_id, run_id, timeout) == state
    return run_id


def result(airflow: Airflow, dag_id: str, run_id: str, task_id: str = "job", map_index: int = -1) -> Any:
    return airflow.xcoms(dag_id, run_id, task_id, map_index).get("return_value")


def test_a_siblings_clear_restarts_no_stage_that_was_complete(airflow: Airflow, target: Path) -> None:
    run_id = airflow.trigger("stages", run_id="siblings-clear")
    airflow.wait_task("stages", run_id, "job", "up_for_retry", 120)
    airflow.wait_task("stages", run_id, "sibling", "success", 60)
    airflow.clear("stages", run_id, ["sibling"])
    assert airflow.wait_run("stages", run_id, 120) == "success"
    done = effects(target, "stages", run_id)
    assert [one for one in done if one.startswith("first")] == [f"first {item}" for item in ITEMS]
    assert [one for one in done if one.startswith("second")] == [f"second {item}" for item in ITEMS]
    assert len({one for one in done if one.startswith("token")}) == 1
    assert airflow.task("stages", run_id, "job")["try_number"] == 2


def test_a_clear_goes_on_with_what_was_not_complete(airflow: Airflow, target: Path) -> None:
    run_id = airflow.trigger("stages", run_id="own-clear")
    airflow.wait_task("stages", run_id, "job", "up_for_retry", 120)
    airflow.clear("stages", run_id, ["job"])
    assert airflow.wait_run("stages", run_id, 120) == "success"
    done = effects(target, "stages", run_id)
    assert [one for one in done if one.startswith("second")] == [f"second {item}" for item in ITEMS]
    log = airflow.log("stages", run_id, "job", 2)
    assert "checkpoint 'second' goes on though the task was cleared: 50 items stay done" in log
    assert "checkpoint 'first' starts over" in log


def test_an_eviction_within_map_in_threads_uses_up_no_try_and_repeats_nothing(airflow: Airflow, target: Path) -> None:
    run_id = airflow.trigger("threads", run_id="evicted")
    attempt = airflow.wait_attempt("threads", run_id, "job", 1, 120)
    airflow.wait_until("some items", lambda: len(effects(target, "threads", run_id)) >= 10, 60)
    airflow.evict(attempt)
    assert airflow.wait_run("threads", run_id, 180) == "success"
    assert sorted(effects(target, "threads", run_id)) == ITEMS
    assert len(airflow.attempts("threads", run_id, "job")) == 2
    assert airflow.task("threads", run_id, "job")["try_number"] == 1


def test_on_a_slow_api_server_a_checkpoint_makes_the_three_writes_that_there_always_are(airflow: Airflow) -> None:
    slow = airflow.proxy.slow("PUT", STATE, 2.0)
    try:
        before = len(airflow.proxy.requests("PUT", STATE))
        run_id = run(airflow, "slow_store")
        writes = len(airflow.proxy.requests("PUT", STATE)) - before
    finally:
        slow.end()
    seconds = result(airflow, "slow_store", run_id)
    print(f"slow api-server: 300 items of 10 ms with writes of 2 s: {seconds:.1f} s, {writes} writes")
    assert writes == 3
    assert 3 <= seconds < 60, "a write for each item would be ten minutes"


def test_reading_ahead_fails_the_task_at_once_without_its_retries(airflow: Airflow, target: Path) -> None:
    run_id = run(airflow, "reads_ahead", state="failed")
    assert airflow.task("reads_ahead", run_id, "job")["try_number"] == 1
    assert "takes the next item before the last one" in airflow.log("reads_ahead", run_id, "job", 1)
    assert effects(target, "reads_ahead", run_id) == []


def test_a_process_that_was_given_up_leaves_the_cluster_that_its_successor_works_with(airflow: Airflow, target: Path) -> None:
    """Its supervisor stands still past the heartbeat timeout, wakes up, and the task ends its work well."""
    run_id = airflow.trigger("in_use", run_id="given-up")
    attempt = airflow.wait_attempt("in_use", run_id, "job", 1, 120)
    airflow.wait_until("its use", lambda: any(one.startswith("use 1") for one in effects(target, "in_use", run_id)), 60)
    airflow.signal_worker(attempt, signal.SIGSTOP)
    second = airflow.wait_attempt("in_use", run_id, "job", 2, 120)
    airflow.wait_until("the second use", lambda: any(one.startswith("use 2") for one in effects(target, "in_use", run_id)), 60)
    (target / f"{run_id}-1").touch()
    airflow.signal_worker(attempt, signal.SIGCONT)
    time.sleep(8)  # it has nothing to say that one could wait for
    seen = effects(target, "in_use", run_id)
    assert not [one for one in seen if one.startswith("removed")]
    assert len({one.split()[-1] for one in seen if one.startswith("use")}) == 1
    (target / f"{run_id}-2").touch()
    assert airflow.wait_run("in_use", run_id, 120) == "success"
    airflow.wait_until("the removal", lambda: effects(target, "in_use", run_id)[-1].startswith("removed"), 30)
    assert len([one for one in effects(target, "in_use", run_id) if one.startswith("removed")]) == 1
    assert second["try_number"] == 2


def test_a_backfill_that_makes_runs_anew_reads_exactly_their_days(airflow: Airflow) -> None:
    def days() -> dict[str, Any]:
        runs = airflow.call("GET", "/dags/daily/dagRuns", params={"limit": 50, "order_by": "logical_date"})["dag_runs"]
        return {one["logical_date"][:10]: one for one in runs}

    airflow.wait_until("three days", lambda: [one["state"] for one in days().values()] == ["success"] * 3, 180)
    read = {day: result(airflow, "daily", one["dag_run_id"]) for day, one in days().items()}
    assert len(read["2026-01-01"]) > 300, "the first run reads all there is"
    body = {
        "dag_id": "daily",
        "from_date": "2026-01-01T00:00:00Z",
        "to_date": "2026-01-03T00:00:00Z",
        "reprocess_behavior": "completed",
        "max_active_runs": 1,
        "run_backwards": False,
        "dag_run_conf": {},
    }
    airflow.call("POST", "/backfills", json=body)
    made_anew = lambda: [(one["run_type"], one["state"]) for one in days().values()] == [("backfill", "success")] * 3
    airflow.wait_until("the backfill", made_anew, 240)
    read = {day: result(airflow, "daily", one["dag_run_id"]) for day, one in days().items()}
    assert read == {day: [day] for day in ("2026-01-01", "2026-01-02", "2026-01-03")}


def test_two_tasks_that_open_one_mark_are_told_and_one_may_follow(airflow: Airflow) -> None:
    run_id = run(airflow, "two_tasks", state="failed")
    assert result(airflow, "two_tasks", run_id, "load_eu") == [0, 10]
    assert result(airflow, "two_tasks", run_id, "follow") == [0, 10]
    assert airflow.task("two_tasks", run_id, "load_us")["try_number"] == 1
    assert "of task two_tasks.load_eu, and two_tasks.load_us opens it too" in airflow.log("two_tasks", run_id, "load_us", 1)


def test_a_list_of_shops_that_changes_gives_each_its_own_mark(airflow: Airflow) -> None:
    run(airflow, "shops", {"shops": ["a", "b", "c"], "until": 10})
    run(airflow, "shops", {"shops": ["a", "b", "c"], "until": 20, "fails": "b"}, state="failed")
    run_id = run(airflow, "shops", {"shops": ["a", "aa", "b", "c"], "until": 30})
    given = [result(airflow, "shops", run_id, "shop", index) for index in range(4)]
    assert given == [["a", 20, 30], ["aa", 0, 30], ["b", 10, 30], ["c", 20, 30]]


def test_a_sensor_sees_a_row_that_comes_after_its_first_poke(airflow: Airflow) -> None:
    run(airflow, "sensor", {"row": time.time() + 12}, timeout=90)


def test_of_two_runs_at_once_the_one_that_fails_leaves_no_gap(airflow: Airflow, target: Path) -> None:
    one = airflow.trigger("at_once", {"until": 10, "fails": True}, run_id="one")
    two = airflow.trigger("at_once", {"until": 20}, run_id="two")
    for run_id in (one, two):
        airflow.wait_until("its interval", lambda: effects(target, "at_once", run_id), 120)  # noqa: B023
        (target / f"{run_id}-go").touch()
    assert airflow.wait_run("at_once", two, 120) == "success"
    assert airflow.wait_run("at_once", one, 180) == "failed"
    (target / "three-go").touch()
    three = airflow.trigger("at_once", {"until": 30}, run_id="three")
    assert airflow.wait_run("at_once", three, 120) == "success"
    assert [effects(target, "at_once", run_id)[0] for run_id in (one, two, three)] == ["given 0 10", "given 0 20", "given 20 30"]
