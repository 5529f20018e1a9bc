"""
What a sweep costs over 10,000 records of which none, ten and all need something, and how many processes 1,000 DAG runs start.

    python -m tests.bench.sweep [--records 10000] [--runs 1000] [--json FILE]

Each sweep is the real command in a process of its own, over a real Airflow's tables in SQLite, with Databricks runs at a
simulator in another process. "None": the tasks do not wait for their jobs. "Ten" and "all": a user has ended the tasks, and their
jobs run. CPU and memory are the sweep's own.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORD = {
    "version": 1,
    "service": "databricks",
    "token": "t" * 48,
    "submission": 0,
    "generation": {"max_tries": 3, "clear_number": 0, "run_started": "2026-01-01T00:00:00+00:00"},
    "attempt": 1,
    "try": 1,
    "owner": "0a1b2c3d4e5f",
    "spec": "0a1b2c3d4e5f6071",
    "intended_at": "2026-01-01T00:00:00.000+00:00",
    "submitted_at": "2026-01-01T00:00:01.000+00:00",
    "state": "submitted",
    "place": {},
    "reach": {
        "operator": "resumable.operators.databricks:ResumableDatabricksOperator",
        "databricks_conn_id": "databricks_default",
    },
}
_MEASURED = """
import resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdin=sys.stdin, stdout=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.stdout.strip().splitlines()[-1])
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def fill(records: int, needed: int, place: dict[str, str]) -> list[tuple[str, str, str, int]]:
    """Put the records into the tables; the tasks that a user has ended."""
    from tests.support import database

    database.empty()
    ended = []
    values = []
    for n in range(records):
        run = f"run{n // 100}"
        data = {**RECORD, "place": place, "job": {"run_id": n + 1}}
        if n >= needed:
            data["left"] = "the task does not wait for it"
        else:
            ended.append(("etl", run, f"t{n}", -1))
        values.append((run, f"t{n}", data))
    database.put_many("etl", values)
    return ended


def swept(ended: list[tuple[str, str, str, int]], records: int) -> dict[str, Any]:
    """Run the command as the listener does, and measure it."""
    asked = {"runs": [("etl", f"run{n}") for n in range(-(-records // 100))], "by_user": ended}
    command = [sys.executable, "-m", "resumable.sweep", "--only"]
    with tempfile.TemporaryFile("w+") as given, Path(os.devnull).open("w") as nowhere:
        json.dump(asked, given)
        given.seek(0)
        measured = [sys.executable, "-c", _MEASURED, *command]
        done = subprocess.run(measured, stdin=given, stdout=subprocess.PIPE, stderr=nowhere, text=True, cwd=ROOT, check=True)
    told, figures = done.stdout.strip().splitlines()
    wall, cpu, memory = map(float, figures.split())
    return {"counts": json.loads(told)["counts"], "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "memory_mib": round(memory)}


def processes(runs: int) -> dict[str, int]:
    """How many processes the ends of DAG runs start, by what their tasks have left."""
    from resumable.cleanup import listener
    from tests.support import database

    started: list[Any] = []

    def count(asked: Any) -> set[Any]:
        started.append(asked)
        return set()

    listener._sweep = count
    kinds = {
        "a job that is not waited for": {"left": "the task does not wait for it"},
        "a job that ended": {"state": "succeeded", "closed_at": "2026-01-01T00:00:00.000+00:00"},
        "a job whose last try was lost": {},
        "a task that a user marked": {},
    }
    found = {}
    for kind, more in kinds.items():
        database.empty()
        database.put_many("etl", [(f"run{n}", "t", {**RECORD, "job": {"run_id": 1}, **more}) for n in range(runs)])
        started.clear()
        for n in range(runs):
            if "user" in kind:
                listener._reaper.note(("etl", f"run{n}"), ("t", -1, str(uuid.UUID(int=n + 1))))
            listener._run_ended(type("Run", (), {"dag_id": "etl", "run_id": f"run{n}"}), "success")
        while listener._reaper._thread is not None:
            time.sleep(0.1)
        found[kind] = len(started)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="resumable-bench-")
    os.environ.update({"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__RESUMABLE__SWEEP_DELAY": "0.5"})
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from tests.services import DatabricksSimulator
    from tests.services.databricks_runs import Run

    logging.disable(logging.CRITICAL)
    found: dict[str, Any] = {}
    with DatabricksSimulator() as service:
        os.environ.update(service.env())
        for name, needed in (("none", 0), ("ten", 10), ("all", given.records)):
            service.runs.clear()
            service.runs.update({n: Run(n, n, None, {}) for n in range(1, max(1, needed) + 1)})
            place = {"workspace": json.loads(service.connection_json())["host"]}
            found[name] = swept(fill(given.records, needed, place), given.records)
            print(f"{given.records:,} records, {name:4}: {found[name]}", flush=True)
    found["processes"] = processes(given.runs)
    for kind, count in found["processes"].items():
        print(f"{given.runs:,} DAG runs with {kind}: {count} processes", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
