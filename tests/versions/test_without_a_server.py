"""A task without a scheduler, as people try out their DAGs: no configuration, and on each version the same outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow import __version__

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        __version__.startswith("3.2."), reason="3.2.2's in-process API server answers before it is ready, whatever the task"
    ),
]

DAG_FILE = '''
"""A DAG for Airflow."""
import sys

from resumable.jobs import alarm
from tests.versions.dags.measured import DAG, Quick, Slow

alarm.POLLED_SECONDS = 0.0  # a job so short is not worth a deferral else

with DAG("slow", schedule=None) as slow:
    Slow(task_id="job", number=7, retries=3, resume_policy={"wait": "defer", "wait_interval": 1.0})

with DAG("quick", schedule=None) as dag:
    Quick(task_id="job", number=7, retries=3)

if __name__ == "__main__":
    print("the run ended in", (slow if "slow" in sys.argv else dag).test().state)
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    home = tmp_path_factory.mktemp("home")
    file = home / "dags" / "quick.py"
    file.parent.mkdir()
    file.write_text(DAG_FILE)
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    env = {
        **mine,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "NO_PROXY": "*",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=280, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-4000:]
        return said

    run("-m", "airflow", "db", "migrate")
    return lambda *arguments: run(*(str(file) if one == "FILE" else one for one in arguments))


def test_airflow_tasks_test_runs_a_task_and_needs_nothing(run) -> None:
    for _ in range(2):  # nothing is kept from one to the next
        assert "resumable: submitted Quick" in run("-m", "airflow", "tasks", "test", "quick", "job")


def test_dag_test_runs_a_dag_and_needs_nothing(run) -> None:
    said = run("FILE")
    assert said.count("resumable: submitted Quick") >= 1
    assert "the run ended in success" in said


def test_dag_test_runs_a_dag_whose_task_defers_and_it_has_one_job(run) -> None:
    said = run("FILE", "slow")
    assert said.count("resumable: deferred, waiting for") == 1
    assert "the triggerer has seen that the job is succeeded" in said
    assert said.count("resumable: submitted Slow") == 1
    assert "the run ended in success" in said
