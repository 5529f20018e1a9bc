"""
Faults of Airflow's pre-releases that the harness works around (`tests/airflow/mends`): still there, or the work-around can go.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from resumable.host import versions
from tests.airflow.harness import Airflow

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not versions.has("airflow.sdk.definitions.loop"), reason="no pre-release"),
]

DAG = """
import time
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from tests.airflow.attempts import note_attempt

with DAG("plain", schedule=None):
    PythonOperator(task_id="job", python_callable=time.sleep, op_args=[300], retries=1, pre_execute=note_attempt)
"""


def test_a_lost_heartbeat_ends_the_scheduler_without_our_mend(tmp_path: Path) -> None:
    """If this fails: Airflow has mended it. Remove tests/airflow/mends, this test, and what docs/airflow-versions.md says."""
    for folder in ("dags", "no_mends"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dags" / "plain.py").write_text(DAG)
    env = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "no_mends")}
    with Airflow(tmp_path / "home", tmp_path / "dags", env=env) as airflow:
        airflow.trigger("plain", run_id="lost")
        attempt = airflow.wait_attempt("plain", "lost", "job", 1)
        airflow.signal_worker(attempt, signal.SIGSTOP)
        log = airflow.home / "logs-scheduler.txt"
        airflow.wait_until("the end of the scheduler", lambda: "Exception when executing SchedulerJob" in log.read_text(), 60)
        assert "UNIQUE constraint failed: task_instance" in log.read_text()
