"""
Jobs in flight on one Airflow, the environment upgraded on the same database, and the retries on the next one.

    MATRIX_OLDER=.venvs/3.2/bin/python .venv/bin/python -m pytest -m versions tests/versions/test_upgrade.py
    MATRIX_OLDER=.venv/bin/python .venvs/3.4/bin/python -m pytest -m versions tests/versions/test_upgrade.py
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.crash.stops import Task

OLDER = os.environ.get("MATRIX_OLDER")
HERE = Path(__file__).parent
JOBS = HERE.parent / "crash" / "dags" / "jobs.py"
BECOMES_LOOP = HERE / "dags_loops" / "becomes_loop.py"

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not OLDER, reason="MATRIX_OLDER names no older interpreter"),
]


def has_task_state(python: str) -> bool:
    ask = "from resumable import host; print(host.has_task_state())"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()[-1] == "True"


def test_after_an_upgrade_each_job_is_taken_up_however_it_was_waited_for(tmp_path: Path, remote: Remote) -> None:
    old = str(Path(str(OLDER)).absolute())
    dags = tmp_path / "dags"
    dags.mkdir()
    for file in (JOBS, BECOMES_LOOP):
        shutil.copy(file, dags)
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    older = Airflow(tmp_path / "home", dags, env=env, triggerer=True)
    older.python = old
    with older:
        tasks = [Task(older, remote, kind, f"{kind}-upgraded") for kind in ("databricks", "emr")]
        for t in tasks:
            t.start()
            t.in_the_wait()
        deferred = [Task(older, remote, kind, f"{kind}-upgraded") for kind in ("databricks_deferrable", "emr_deferrable")]
        for t in deferred:
            t.start()
            t.state("deferred")
        rescheduled = [Task(older, remote, kind, f"{kind}-upgraded-between-looks") for kind in ("databricks", "emr")]
        for t in rescheduled:
            t.start("_reschedule")
            t.state("up_for_reschedule")
        older.trigger("becomes_loop", run_id="becomes-loop")
        older.wait_until("the job", lambda: remote.jobs("databricks", "becomes-loop") == 1, 60)
        first = older.wait_attempt("becomes_loop", "becomes-loop", "rounds.job", 1)
        if not has_task_state(old):
            assert len(older.variables()) == 7
    with Airflow(tmp_path / "home", dags, env=env, triggerer=True) as newer:
        for t in tasks:
            t.airflow = newer
            t.attempt(2)
            t.until("the reattachment", lambda t=t: "resumable: reattached" in t.log(2))
            t.end()
            assert (t.jobs, t.cancels) == (1, 0)
            assert newer.state_store(t.dag_id, t.run_id, "job")["resumable"]["state"] == "succeeded"
        for t in (*deferred, *rescheduled):
            t.airflow = newer
            assert t.end()["try_number"] == 1
            assert (t.jobs, t.cancels) == (1, 0)
            assert t.record["state"] == "succeeded"
        # The run goes on by the new version of its DAG: the job in flight is taken up, not started once more beside.
        again = newer.wait_attempt("becomes_loop", "becomes-loop", "rounds.job", 2, 120)
        assert again["pid"] != first["pid"]
        seen = remote.looks("databricks", "becomes-loop")
        newer.wait_until("two looks", lambda: remote.looks("databricks", "becomes-loop") >= seen + 2, 60)
        assert (remote.jobs("databricks", "becomes-loop"), remote.cancels("databricks", "becomes-loop")) == (1, 0)
        remote.finish("databricks", "becomes-loop")
        newer.wait_until("no Variable", lambda: newer.variables().keys() <= {"resumable"}, 30)


PUT = """
from tests.support import database
from tests.support.swept import record

for task_id, index in (("plain", -1), ("mapped", 3)):
    database.put("etl", "one", task_id, "failed", record().to_json(), map_index=index, tries=(4, 3))
"""


@pytest.mark.skipif(not OLDER or not has_task_state(str(OLDER)), reason="the older one keeps no records that a sweep could read")
def test_after_an_upgrade_the_sweep_finds_the_open_records_of_before(tmp_path: Path) -> None:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    more = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(HERE.parents[1])}
    env = {**mine, **more, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}

    def run(python: str, *arguments: str) -> str:
        how = {"env": env, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 280}
        done = subprocess.run([python, *arguments], check=False, **how)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout + done.stderr

    old = str(Path(str(OLDER)).absolute())
    run(old, "-m", "airflow", "db", "migrate")
    run(old, "-c", PUT)
    run(sys.executable, "-m", "airflow", "db", "migrate")
    said = run(sys.executable, "-m", "resumable.sweep", "--dry-run")
    assert "etl one plain (failed) may be running" in said
    assert "etl one mapped map_index=3 (failed) may be running" in said
