"""
A job in flight on one Airflow, the environment upgraded on the same database, and the retry on the next one.

    MATRIX_OLDER=.venvs/3.2/bin/python .venv/bin/python -m pytest -m versions tests/versions/test_upgrade.py
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.crash.test_stops import Task

OLDER = os.environ.get("MATRIX_OLDER")
DAGS = Path(__file__).parents[1] / "crash" / "dags"

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not OLDER, reason="MATRIX_OLDER names no older interpreter"),
]


def test_after_an_upgrade_the_retry_reattaches_by_the_variable_of_the_old_airflow(tmp_path: Path, remote: Remote) -> None:
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    older = Airflow(tmp_path / "home", DAGS, env=env, triggerer=True)
    older.python = str(Path(str(OLDER)).absolute())
    with older:
        tasks = [Task(older, remote, kind, f"{kind}-upgraded") for kind in ("databricks", "emr")]
        for t in tasks:
            t.start()
            t.in_the_wait()
        deferred = [Task(older, remote, kind, f"{kind}-upgraded") for kind in ("databricks_deferrable", "emr_deferrable")]
        for t in deferred:
            t.start()
            t.state("deferred")
        assert len(older.variables()) == 4
    with Airflow(tmp_path / "home", DAGS, env=env, triggerer=True) as newer:
        for t in tasks:
            t.airflow = newer
            t.attempt(2)
            t.until("the reattachment", lambda t=t: "resumable: reattached" in t.log(2))
            t.end()
            assert (t.jobs, t.cancels) == (1, 0)
            assert newer.state_store(t.dag_id, t.run_id, "job")["resumable"]["state"] == "succeeded"
        for t in deferred:
            t.airflow = newer
            assert t.end()["try_number"] == 1
            assert (t.jobs, t.cancels) == (1, 0)
            assert t.record["state"] == "succeeded"
        assert newer.variables() == {}
