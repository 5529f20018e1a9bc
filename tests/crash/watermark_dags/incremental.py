"""examples/dags/incremental_load.py as it is, in processes that die at a chosen line: see test_watermark_crash.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from airflow.sdk import DAG, get_current_context, task

import examples.dags.incremental_load as example
import resumable.watermark.intervals
import resumable.watermark.mark
import resumable.watermark.run
import resumable.watermark.shared
import resumable.watermark.values
from resumable import Watermark
from tests.airflow.attempts import note_attempt

PARTS = ("mark", "run", "shared", "intervals", "values")
FILES = {example.__file__, *(vars(resumable.watermark)[part].__file__ for part in PARTS)}
dag = example.dag


def die_at_the_line_of_the_plan(context: Any) -> None:
    """The plan has (how, n) for each run: its first try dies right before the n-th of the lines of `FILES` that it comes to."""
    note_attempt(context)
    ti = context["ti"]
    plan = json.loads(Path(os.environ["TEST_PLAN"]).read_text()).get(ti.run_id)
    if plan is None or ti.try_number > 1:
        return
    how, n = plan
    lines: set[str] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        line = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        if event == "line" and line not in lines:
            lines.add(line)
            if len(lines) == n:
                die(how, line, ti.run_id)
        return trace

    sys.settrace(trace)


def die(how: str, where: str, run_id: str) -> None:
    with Path(os.environ["TEST_DEATHS"]).open("a") as deaths:
        deaths.write(json.dumps([run_id, how, where]) + "\n")
    if how == "node":
        os.kill(os.getppid(), signal.SIGKILL)
    if how == "terminated":
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(5)  # it hands the signal on; then the node ends, as after a grace period
    os.kill(os.getpid(), signal.SIGKILL)


load: Any = dag.get_task("load")
load._pre_execute_hook = die_at_the_line_of_the_plan
load.retry_delay = timedelta(seconds=1)


with DAG("per_task", schedule=None, max_active_runs=1):

    @task
    def count() -> list[int]:
        with Watermark("ids", start=0, until=get_current_context()["dag_run"].conf["until"]) as mark:
            mark.advance()
        return [mark.since, mark.until]

    count()
