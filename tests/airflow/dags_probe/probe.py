"""A DAG that waits for a file: what the harness's own test runs on Airflow."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator

from tests.airflow.attempts import note_attempt


class ProbeOperator(BaseOperator):
    """Tell what the last try stored, store this try's number, and wait for the run's file."""

    def execute(self, context: Any) -> str:
        store = context["task_state_store"]
        before = store.get("try", default=None)
        print(f"probe: found {before!r}")
        store.set("try", context["ti"].try_number)
        print("probe: stored")
        while not (Path(os.environ["PROBE_FOLDER"]) / context["run_id"]).exists():
            time.sleep(0.1)
        return f"found {before!r}"


with DAG("probe", schedule=None):
    ProbeOperator(task_id="wait", pre_execute=note_attempt, retries=2, retry_delay=timedelta(seconds=1))
