"""What a store costs in a real task, and what 200 task instances leave behind (python3 dev.py matrix --measure)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow import __version__

from tests.airflow.harness import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.versions, pytest.mark.timeout(900)]


def test_two_hundred_task_instances_leave_no_variable_behind(
    start_airflow: Callable[..., Airflow], tmp_path_factory: pytest.TempPathFactory
) -> None:
    env = {
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__RESUMABLE__STORE": "",
        "AIRFLOW__RESUMABLE__STORE_PATH": tmp_path_factory.mktemp("objects").as_uri(),
    }
    airflow = start_airflow(Path(__file__).parent / "dags", env=env)
    airflow.trigger("measure", run_id="measure")
    assert airflow.wait_run("measure", "measure") == "success"
    measured = airflow.xcoms("measure", "measure", "job")["return_value"]
    airflow.trigger("many", run_id="many")
    assert airflow.wait_run("many", "many", 800) == "success"
    airflow.wait_until("no Variable", lambda: not airflow.variables(), 30)
    line = {"airflow": __version__, "milliseconds": measured, "variables left of 200": len(airflow.variables())}
    print(json.dumps(line))
    if file := os.environ.get("MATRIX_TABLE"):
        with Path(file).open("a") as kept:
            kept.write(json.dumps(line) + "\n")
