"""The incremental load of the examples on a real Airflow, its workers killed between two lines while rows are inserted."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import start_airflow  # noqa: F401
from tests.airflow.harness import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(1500)]

DAG = "incremental_load"
KEY = "resumable.watermark.orders"
RUNS = 30
SEED = 20261124
HOW = ("process", "terminated", "process", "undisturbed", "process", "node")
"""How the first try of each run in turn ends: SIGKILL of the task, SIGTERM to its supervisor, SIGKILL of both."""

LINES = 180
"""A few less than the lines of the example and of `Watermark` that a first try comes to."""


class Shop:
    """A table of orders that somebody writes to all the time, each row within milliseconds of its own timestamp."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "shop.db", folder / "warehouse.db"
        for file, more in ((self.source, ""), (self.target, LOADS)):
            with closing(sqlite3.connect(file)) as db:
                db.executescript("PRAGMA journal_mode=WAL; CREATE TABLE orders (id PRIMARY KEY, amount, updated_at);" + more)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Shop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        rng = random.Random(SEED)
        number = 0
        with closing(sqlite3.connect(self.source, timeout=30, isolation_level=None)) as db:
            while not self._ended.wait(rng.uniform(0, 0.1)):
                number += 1
                db.execute("INSERT INTO orders VALUES (?, ?, ?)", (number, number * 10, _text(datetime.now(timezone.utc))))

    def rows(self, which: Path, query: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(which, timeout=30)) as db:
            return db.execute(query, values).fetchall()


LOADS = """
CREATE TABLE loads (id);
CREATE TRIGGER inserted AFTER INSERT ON orders BEGIN INSERT INTO loads VALUES (new.id); END;
CREATE TRIGGER updated AFTER UPDATE ON orders BEGIN INSERT INTO loads VALUES (new.id); END;
"""


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture(scope="module")
def airflow(start_airflow: Callable[..., Airflow], shop: Shop) -> Airflow:  # noqa: F811
    (shop.source.parent / "plan.json").write_text("{}")
    env = {
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": str(shop.source)}),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(shop.target)}),
        "ORDERS_LAG_SECONDS": "1",
        "TEST_PLAN": str(shop.source.parent / "plan.json"),
        "TEST_DEATHS": str(shop.source.parent / "deaths.jsonl"),
    }
    return start_airflow(Path(__file__).parent / "watermark_dags", env=env)


def test_no_row_is_lost_and_none_loaded_by_two_runs_over_thirty_runs_with_crashes(airflow: Airflow, shop: Shop) -> None:
    plan = {f"run-{i:02}": (HOW[i % len(HOW)], 1 + i * LINES // RUNS) for i in range(RUNS)}
    (shop.source.parent / "plan.json").write_text(json.dumps({r: p for r, p in plan.items() if p[0] != "undisturbed"}))
    runs = [airflow.trigger(DAG, run_id=run) for run in plan]
    started = time.monotonic()
    states = {run: airflow.wait_run(DAG, run, 1400) for run in runs}
    airflow.trigger(DAG, run_id="last")
    assert airflow.wait_run(DAG, "last") == "success", airflow.log(DAG, "last", "load", 1)
    print(f"\n{RUNS} runs in {time.monotonic() - started:.0f} s")
    deaths = [json.loads(line) for line in (shop.source.parent / "deaths.jsonl").read_text().splitlines()]
    for run, how, where in deaths:
        print(f"{run} {how} before {where}, tries {airflow.task(DAG, run, 'load')['try_number']}")
    assert set(states.values()) == {"success"}, states
    assert {run for run, *_ in deaths} == {run for run, (how, _) in plan.items() if how != "undisturbed"}

    kept = [airflow.state_store(DAG, run["dag_run_id"], "load")[KEY] for run in _all_runs(airflow)]
    kept.sort(key=lambda one: one["until"])
    assert [one["since"] for one in kept[1:]] == [one["proposed"] for one in kept[:-1]]  # no gap, no overlap

    end = _text(datetime.fromisoformat(kept[-1]["until"]))
    written = shop.rows(shop.source, "SELECT id, amount, updated_at FROM orders WHERE updated_at <= ? ORDER BY id", end)
    assert len(written) > RUNS
    assert shop.rows(shop.target, "SELECT id, amount, updated_at FROM orders ORDER BY id") == written
    killed = {run for run, *_ in deaths}
    calm = [airflow.state_store(DAG, run, "load")[KEY] for run in runs if run not in killed]
    for one in calm:
        once = shop.rows(
            shop.target,
            "SELECT id, count(*) FROM loads JOIN orders USING (id) WHERE updated_at > ? AND updated_at <= ? GROUP BY id",
            *(_text(datetime.fromisoformat(one[side])) for side in ("since", "until")),
        )
        assert {count for _, count in once} <= {1}


def test_a_cleared_run_reads_its_own_interval_and_leaves_the_mark(airflow: Airflow, shop: Shop) -> None:
    before = airflow.state_store(DAG, "run-03", "load")[KEY]
    mark = _mark(airflow)
    airflow.clear(DAG, "run-03")
    airflow.wait_run(DAG, "run-03")
    tries = airflow.task(DAG, "run-03", "load")["try_number"]
    log = airflow.log(DAG, "run-03", "load", tries)
    assert "again, the task was cleared" in log
    assert airflow.state_store(DAG, "run-03", "load")[KEY]["since"] == before["since"]
    assert airflow.state_store(DAG, "run-03", "load")[KEY]["until"] == before["until"]
    assert _mark(airflow)["mark"] == mark["mark"]
    airflow.trigger(DAG, run_id="after-the-clear")
    assert airflow.wait_run(DAG, "after-the-clear") == "success"
    assert airflow.state_store(DAG, "after-the-clear", "load")[KEY]["since"] == mark["proposed"][-1]["until"]


def test_without_an_asset_the_mark_is_kept_in_a_variable_of_the_task(airflow: Airflow) -> None:
    read = []
    for until in (10, 25):
        run = airflow.trigger("per_task", {"until": until})
        assert airflow.wait_run("per_task", run) == "success", airflow.log("per_task", run, "count", 1)
        read.append(airflow.xcoms("per_task", run, "count")["return_value"])
    assert read == [[0, 10], [10, 25]]
    (variable,) = airflow.call("GET", "/variables")["variables"]
    assert variable["key"] == "per_task.count.resumable.watermark.ids"
    assert json.loads(variable["value"])["mark"] == 10


def _all_runs(airflow: Airflow) -> list[dict[str, Any]]:
    runs = airflow.call("GET", f"/dags/{DAG}/dagRuns", params={"limit": 100})["dag_runs"]
    return [run for run in runs if run["state"] == "success"]


def _mark(airflow: Airflow) -> dict[str, Any]:
    (asset,) = airflow.call("GET", "/assets", params={"name_pattern": "orders"})["assets"]
    stored = airflow.call("GET", f"/assets/{asset['id']}/state-store")
    (entry,) = stored["asset_state_store"]
    return dict(entry["value"])
