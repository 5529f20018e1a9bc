"""
A process that dies between any two lines of the load, or of `Watermark`, loses no row and loads none in two runs.

Each DAG run's first try is a forked process that ends, as by SIGKILL, right before the first line that no try has died before,
until there is none. Rows come in all the time, some with the timestamp of a while ago.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import examples.dags.incremental_load as example
import resumable.watermark.intervals
import resumable.watermark.mark
import resumable.watermark.run
import resumable.watermark.shared
import resumable.watermark.values
from tests.support.incremental import DAY, Deployment, Run

PARTS = ("mark", "run", "shared", "intervals", "values")
FILES = {example.__file__, *(vars(resumable.watermark)[part].__file__ for part in PARTS)}
SEED = 7
LAG = timedelta(seconds=60)
DIED, ENDED = 9, 0

load = example.dag.get_task("load").python_callable


class Disk:
    """What outlives a process: the two databases, and the deployment's state in a file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("shop", "warehouse"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "sqlite", "host": str(folder / name)}))
            with self.database(name) as db, db:
                db.execute("PRAGMA journal_mode=MEMORY")
                db.execute("CREATE TABLE orders (id PRIMARY KEY, amount, updated_at)")
        with self.database("warehouse") as db, db:
            db.execute("CREATE TABLE loads (id)")
            for event in ("INSERT", "UPDATE"):
                db.execute(f"CREATE TRIGGER {event}ed AFTER {event} ON orders BEGIN INSERT INTO loads VALUES (new.id); END")
        self.airflow = Deployment()
        self.now = DAY
        self.written = 0
        self.rng = random.Random(SEED)

    def database(self, name: str) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self.folder / name))

    def time_passes(self) -> None:
        """Rows come in; each becomes visible within LAG of its timestamp."""
        self.now += timedelta(seconds=self.rng.uniform(1, 100))
        with self.database("shop") as db, db:
            for _ in range(self.rng.randrange(4)):
                self.written += 1
                at = self.now - self.rng.random() * LAG
                db.execute("INSERT INTO orders VALUES (?, ?, ?)", (self.written, self.rng.random(), example.text(at)))

    def attempt(self, run: Run, die_before: Callable[[str], bool]) -> int:
        """One try in a process of its own; what it kept is read back from the disk."""
        kept = self.folder / "state.json"
        pid = os.fork()
        if pid == 0:
            self._child(run, die_before, kept)
        _, status = os.waitpid(pid, 0)
        if kept.exists():
            asset, own = json.loads(kept.read_text())
            self.airflow.asset, run.data = asset, own
            kept.unlink()
        code = os.waitstatus_to_exitcode(status)
        assert code in (DIED, ENDED), (self.folder / "error").read_text()
        return code

    def _child(self, run: Run, die_before: Callable[[str], bool], kept: Path) -> None:
        code = 1
        try:
            resumable.watermark.run._now = lambda: self.now
            example.LAG = LAG
            context = self.airflow.context(run, at=lambda call: None)
            for accessor in (context["task_state_store"], context["asset_state_store"]["orders"]):
                accessor.set = _written_through(accessor.set, lambda: kept.write_text(json.dumps([self.airflow.asset, run.data])))
            context["task"].inlets = [example.ORDERS]
            context["asset_state_store"] = {example.ORDERS: context["asset_state_store"]["orders"]}
            resumable.host.current_context = lambda: context
            sys.settrace(_dying_before(die_before, self.folder / "line"))
            load()
            sys.settrace(None)
            code = ENDED
        except BaseException:
            import traceback

            (self.folder / "error").write_text(traceback.format_exc())
        finally:
            os._exit(code)


def _written_through(write: Any, then: Any) -> Any:
    def both(key: str, value: Any) -> None:
        write(key, value)
        then()

    return both


def _dying_before(is_last: Callable[[str], bool], place: Path) -> Any:
    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            if is_last(line):
                place.write_text(line)
                os._exit(DIED)
        return trace

    return trace


def never(line: str) -> bool:
    return False


class AtRandom:
    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, line: str) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    memory = Path("/dev/shm")  # the files are real, the waits for the disk are not what is tested
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Disk(Path(folder), monkeypatch)


@pytest.mark.timeout(900)
def test_no_row_is_lost_and_none_loaded_by_two_runs_whatever_line_a_try_died_before(disk: Disk) -> None:
    died_before: set[str] = set()
    died = True
    disk.time_passes()
    while died:
        run = disk.airflow.run(f"run-{len(disk.airflow.runs)}")
        died = disk.attempt(run, lambda line: line not in died_before) == DIED
        died_before.add((disk.folder / "line").read_text())
        while disk.rng.random() < 0.2:  # its retries die too, anywhere
            disk.time_passes()
            run.retry()
            disk.attempt(run, AtRandom(disk.rng.randrange(1, 400)))
        disk.time_passes()
        run.retry()
        assert disk.attempt(run, never) == ENDED
        run.state = "success"
        disk.time_passes()
    assert len(died_before) > 100
    assert {line.split(":")[0] for line in died_before} == {"incremental_load.py", *(f"{part}.py" for part in PARTS)}
    given = [json.loads(run.data["resumable.watermark.orders"]) for run in disk.airflow.runs.values()]
    assert [one["since"] for one in given[1:]] == [one["proposed"] or one["mark"] for one in given[:-1]]
    end = example.text(datetime.fromisoformat(given[-1]["until"]))
    with disk.database("shop") as shop, disk.database("warehouse") as warehouse:
        rows = shop.execute("SELECT * FROM orders WHERE updated_at <= ? ORDER BY id", (end,)).fetchall()
        assert len(rows) > len(disk.airflow.runs)
        assert warehouse.execute("SELECT * FROM orders ORDER BY id").fetchall() == rows
    print(f"{len(died_before)} lines, {len(disk.airflow.runs)} runs, {len(rows)} rows")
