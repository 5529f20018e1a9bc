"""The sweep as the example DAG does it, on a real Airflow before 3.3, whose REST API gives three Variables at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from resumable import host
from resumable.stores.variables import opened
from tests.airflow.harness import Airflow

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(600),
    pytest.mark.skipif(host.has_task_state(), reason="this Airflow keeps no records in Variables"),
]


def of_runs(airflow: Airflow) -> list[str]:
    found = airflow.variables()
    if host.has_sdk():  # page by page, as no more are given at once
        for offset in (3, 6, 9):
            page = airflow.call("GET", "/variables", params={"limit": 1000, "offset": offset})["variables"]
            found |= {one["key"]: one["value"] for one in page}
    return sorted(opened(text)[0]["run_id"] for text in found.values())


def test_the_dag_deletes_what_deleted_runs_have_left_and_nothing_else(
    start_airflow: Callable[..., Airflow], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(HERE.parents[1] / "examples" / "dags" / "sweep_variables.py", dags)
    shutil.copy(HERE / "dags_left.py", dags / "left.py")
    airflow = start_airflow(dags, env={"AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "3", "AIRFLOW__RESUMABLE__STORE": ""})
    if host.has_sdk():
        body = {"connection_id": "airflow_api", "conn_type": "http", "host": airflow.url}
        airflow.call("POST", "/connections", json=body)
    for run in ("deleted", "kept"):
        airflow.trigger("left", run_id=run)
        assert airflow.wait_run("left", run) == "failed"
    assert of_runs(airflow) == ["deleted"] * 5 + ["kept"] * 5
    airflow.delete_run("left", "deleted")
    airflow.trigger("sweep_variables", run_id="sweep")
    assert airflow.wait_run("sweep_variables", "sweep") == "success", airflow.log("sweep_variables", "sweep", "sweep", 1)
    assert of_runs(airflow) == ["kept"] * 5
    log = airflow.log("sweep_variables", "sweep", "sweep", 1)
    assert "its DAG run is gone; Lost job-0 was not seen to end: look there" in log
