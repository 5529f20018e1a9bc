"""
Worker-slot seconds of one job in each of the four ways to wait, on a real Airflow: how long its task was running.

    python -m tests.bench.slots [--seconds 150]

One Databricks run each, against a simulated workspace on this machine, all four side by side, with intervals of 30 s (between two
starts of ``reschedule`` 60 s). A slot is taken while a task is in the state running, which is looked at five times a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.airflow.harness import Airflow
from tests.services import DatabricksSimulator

WAYS = ("poll", "reschedule", "deferrable", "defer")
DAG_FILE = '''
"""DAGs for Airflow, one for each way to wait."""
from airflow.sdk import DAG

from resumable.operators.databricks import ResumableDatabricksOperator
from tests.airflow.attempts import note_attempt

RUN = {"run_name": "{{ dag.dag_id }}", "notebook_task": {"notebook_path": "/nightly"}, "existing_cluster_id": "c"}
WAYS = {
    "poll": {},
    "reschedule": {"resume_policy": {"wait": "reschedule"}},
    "deferrable": {"deferrable": True},
    "defer": {"resume_policy": {"wait": "defer"}},
}
for way, given in WAYS.items():
    with DAG(way, schedule=None) as dag:
        ResumableDatabricksOperator(
            task_id="job", retries=0, pre_execute=note_attempt, json=RUN, polling_period_seconds=30, **given
        )
    globals()[way] = dag
'''


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=150.0, help="how long a job runs")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder, DatabricksSimulator() as workspace:
        workspace.duration = seconds
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "ways.py").write_text(DAG_FILE)
        with Airflow(Path(folder) / "home", dags, env=workspace.env(), triggerer=True) as airflow:
            held = _held(airflow)
            print(f"a job of {seconds:.0f} s {'slot seconds':>14} {'starts':>8}")
            for way in WAYS:
                starts = len(airflow.attempts(way, "bench", "job"))
                print(f"{way:16} {held[way]:14.1f} {starts:8}", flush=True)


def _held(airflow: Airflow) -> Counter[str]:
    held: Counter[str] = Counter()
    for way in WAYS:
        airflow.trigger(way, run_id="bench")
    waiting, last = set(WAYS), time.monotonic()
    while waiting:
        time.sleep(0.2)
        states = {way: airflow.task(way, "bench", "job")["state"] for way in sorted(waiting)}
        now = time.monotonic()
        for way, state in states.items():
            held[way] += (now - last) * (state == "running")
            if state in ("success", "failed"):
                assert state == "success", way
                waiting.discard(way)
        last = now
    return held


if __name__ == "__main__":
    main()
