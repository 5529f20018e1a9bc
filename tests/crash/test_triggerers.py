"""
Two triggerers, of which one stands still until the other has taken its triggers over, on a real Airflow.

Airflow 3.3.0 to 3.3.2 then tell the first one, once it goes on, to stop these triggers, as they do after a user's click. 3.4.0b2
has it drop them without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.airflow.harness import Airflow
from tests.airflow.triggerers import another_triggerer, frozen, has_let_go
from tests.crash.scenarios import Remote
from tests.crash.stops import Task, _deferred

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(600)]

THRESHOLD = 8
"""Seconds without a heartbeat after which a triggerer's triggers are given to another one."""


@pytest.fixture
def airflow(start_airflow: Callable[..., Airflow], remote: Remote, dags: Path) -> Airflow:
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(THRESHOLD),
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__RESUMABLE__SWEEP_DELAY": "300",  # what is cancelled is cancelled by a trigger
    }
    return start_airflow(dags, env=env, triggerer=True)


def logs(task: Task) -> str:
    """Everything that was written about the task, the triggers' lines included."""
    folder = task.airflow.home / "airflow" / "logs" / f"dag_id={task.dag_id}" / f"run_id={task.run_id}"
    return "\n".join(file.read_text() for file in folder.rglob("attempt=*"))


def test_a_triggerer_that_wakes_up_cancels_no_job_and_a_users_mark_still_does(airflow: Airflow, remote: Remote) -> None:
    tasks = [Task(airflow, remote, kind, f"{kind}-frozen") for kind in ("databricks_deferrable", "emr_deferrable")]
    for task in tasks:
        _deferred(task)
    with another_triggerer(airflow):
        with frozen(airflow):
            seen = {task.run_id: remote.looks(task.kind, task.run_id) for task in tasks}
            for task in tasks:
                task.until("the other's looks", lambda t=task: remote.looks(t.kind, t.run_id) > seen[t.run_id] + 2, 180)
        for task in tasks:
            task.until("the first one to be stopped", lambda t=task: "trigger was stopped" in logs(t) or has_let_go(airflow), 120)
        for task in tasks:
            row = task.state("deferred")
            assert (task.jobs, task.active, task.cancels, row["try_number"]) == (1, 1, 0, 1)
        for task in tasks:
            task.mark("failed")
            task.until("the cancel", lambda t=task: t.active == 0, 60)
            assert (task.jobs, task.cancels) == (1, 1)
