"""
CPU time of one item that is kept: a checkpoint against what else there is, in one process and one task of ``dag.test()``.

    python -m tests.bench.per_item > result.json        (also with `pip install diskcache`)

Its API server runs in the same process, so that the CPU time of a write has the server's share as well. Of three runs the median.
Counted besides: the requests of an undisturbed task.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

COUNT, FEW = 20_000, 200


DAG_FILE = """
from airflow.sdk import DAG, get_current_context, task
from tests.bench.per_item import report

with DAG("per_item", schedule=None) as dag:

    @task
    def run():
        report(get_current_context())

    run()
"""


def report(context: Any) -> None:
    """In the task: measure, and leave the result where the program that started it looks for it."""
    Path(os.environ["AIRFLOW_HOME"], "result.json").write_text(json.dumps(measure(context)))


def measure(context: Any) -> dict[str, Any]:
    from airflow.sdk.execution_time import task_runner

    from resumable import Checkpoint

    keys = [f"bucket/data/2026/file-{n:07}.parquet" for n in range(COUNT)]
    seen: set[str] = set()
    store, folder, numbers = context["task_state_store"], Path(tempfile.mkdtemp()), iter(range(1000))

    def plain(n: int) -> None:
        for key in keys[:n]:
            seen.add(key)

    def ours(n: int, **more: Any) -> None:
        with Checkpoint(f"c{next(numbers)}", **more) as checkpoint:
            for key in checkpoint.items(keys[:n]):
                seen.add(key)

    def naive(n: int) -> None:
        for key in keys[:n]:
            seen.add(key)
            store.set("last", key)

    def sqlite(synchronous: str) -> Callable[[int], None]:
        def run(n: int) -> None:
            with sqlite3.connect(folder / f"{synchronous}{next(numbers)}.db", isolation_level=None) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(f"PRAGMA synchronous={synchronous}")
                db.execute("CREATE TABLE done (key PRIMARY KEY)")
                for key in keys[:n]:
                    if db.execute("SELECT 1 FROM done WHERE key = ?", (key,)).fetchone() is None:
                        seen.add(key)
                        db.execute("INSERT INTO done VALUES (?)", (key,))

        return run

    def cached(n: int) -> None:
        import diskcache

        with diskcache.Cache(str(folder / f"cache{next(numbers)}")) as cache:
            for key in keys[:n]:
                if key not in cache:
                    seen.add(key)
                    cache[key] = 1

    ways: list[tuple[str, int, Callable[[int], None]]] = [
        ("a plain loop", COUNT, plain),
        ("a checkpoint", COUNT, ours),
        ("a checkpoint, every=1", FEW, lambda n: ours(n, every=1)),
        ("sqlite, a commit per item, NORMAL", COUNT // 10, sqlite("normal")),
        ("sqlite, a commit per item, FULL", COUNT // 10, sqlite("full")),
        ("task_state_store.set per item", FEW, naive),
    ]
    try:
        import diskcache  # noqa: F401

        ways.append(("diskcache", COUNT // 10, cached))
    except ImportError:
        pass
    rows = {}
    for name, count, way in ways:
        runs = []
        for _ in range(3):
            cpu, wall = time.process_time(), time.perf_counter()
            way(count)
            runs.append(((time.process_time() - cpu) / count * 1e6, (time.perf_counter() - wall) / count * 1e6))
        cpus, walls = zip(*runs, strict=True)
        rows[name] = {"cpu_us": round(statistics.median(cpus), 2), "wall_us": round(statistics.median(walls), 2)}

    comms: Any = type(getattr(task_runner, "SUPERVISOR_COMMS"))  # noqa: B009
    asked: Counter[str] = Counter()
    send = comms.send

    def counted(self: Any, msg: Any, *more: Any, **named: Any) -> Any:
        asked[type(msg).__name__] += 1
        return send(self, msg, *more, **named)

    comms.send = counted
    try:
        ours(100)
    finally:
        comms.send = send
    return {"per_item": rows, "requests_of_100_items": dict(asked)}


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        env = {
            **os.environ,
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": f"{home}/dags",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }
        dags = Path(home, "dags")
        dags.mkdir()
        (dags / "per_item_dag.py").write_text(DAG_FILE)
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=env, check=True, capture_output=True)
        command = [sys.executable, "-c", "import per_item_dag; per_item_dag.dag.test()"]
        env["PYTHONPATH"] = os.pathsep.join([str(dags), str(Path.cwd())])
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        result = Path(home, "result.json")
        if not result.exists():
            sys.exit(ran.stdout[-3000:] + ran.stderr[-3000:])
        print(json.dumps(json.loads(result.read_text()), indent=2))


if __name__ == "__main__":
    main()
