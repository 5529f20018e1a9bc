"""What the command does to tasks of DAGs that Airflow knows: marks one failed, gives one a job that was started by hand."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

from resumable import adoption, host
from resumable.cli import cancel
from resumable.cli.main import main
from resumable.identity import TaskIdentity
from resumable.jobs.record import JobRecord
from resumable.stores.variables import VariableStore
from tests.support import database
from tests.support.names import DAG
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
ARGUMENTS = {"task_id": "task", "json": NOTEBOOK, "polling_period_seconds": 0, "databricks_retry_delay": 0}

_real_sleep = time.sleep


@pytest.fixture(autouse=True)
def deployment(monkeypatch):
    database.empty()
    monkeypatch.setattr(time, "sleep", lambda seconds: _real_sleep(min(seconds, 0.002)))
    monkeypatch.setattr(cancel, "_sleep", lambda _: None)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ADOPT", "all")


def dag():
    with DAG("dag", start_date=datetime(2026, 1, 1), schedule=None) as made:
        DatabricksSubmitRunOperator(**ARGUMENTS)
    for task in made.tasks:
        adoption.adopt(task)
    return made


def started_by_hand(workspace):
    return workspace._start({"run_name": "by hand"}, None, [])["run_id"]


def kept():
    """What the task itself would find."""
    if host.has_task_state():
        return database.kept("dag", "task")
    return VariableStore(TaskIdentity("dag", "run", "task"), dict(host.database().variables())).get("resumable")


def test_a_task_is_marked_failed_as_the_ui_does():
    database.put_dag(dag())
    database.put_task("dag", "run", "task", "running")
    key = ("dag", "run", "task", -1)
    assert host.beside().mark_failed(key)
    assert host.beside().state_of(key) == "failed"


def test_a_task_of_a_dag_that_is_gone_is_not_marked():
    with pytest.raises(LookupError):
        host.beside().mark_failed(("gone", "run", "task", -1))


@pytest.mark.parametrize("state", [None, "up_for_retry", "failed", "scheduled"])
def test_a_job_that_was_started_by_hand_becomes_a_tasks(workspace, state):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", state)
    job = started_by_hand(workspace)
    assert main(["adopt", "dag.task", str(job), "--run", "run", "--yes"]) == 0
    record = JobRecord.from_json(kept())
    assert record.handle is not None
    assert record.handle.ids == {"run_id": job}
    assert host.beside().user() in record.history[-1].note
    operator = "resumable.operators.databricks:ResumableDatabricksSubmitRunOperator"
    assert record.reach == {"operator": operator, "databricks_conn_id": "databricks_default"}


@pytest.mark.parametrize("is_cleared", [False, True])
def test_the_next_attempt_reattaches_to_it_also_after_a_clear(workspace, is_cleared):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", "failed")
    job = started_by_hand(workspace)
    assert main(["adopt", "dag.task", str(job), "--yes"]) == 0
    instance = TaskInstance(lambda: dag().task_dict["task"])
    instance.data["resumable"] = json.loads(json.dumps(kept()))
    if is_cleared:
        instance.try_number = 3
        instance.clear()
    workspace.finish(job)
    instance.attempt()
    assert workspace.calls("runs/submit") == []
    assert instance.record["state"] == "succeeded"
    assert [event[1] for event in instance.record["history"]] == ["adopted by", "delivered", "succeeded"]


@pytest.mark.parametrize("state", ["running", "queued", "deferred"])
def test_a_task_that_may_be_about_to_submit_is_given_no_job(workspace, state):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", state)
    assert main(["adopt", "dag.task", str(started_by_hand(workspace)), "--yes"]) == 1
    assert list(host.beside().records()) == []


def test_a_job_that_has_failed_or_is_not_there_is_not_adopted(workspace):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", "failed")
    job = started_by_hand(workspace)
    workspace.finish(job, "FAILED")
    assert main(["adopt", "dag.task", str(job), "--yes"]) == 1
    assert main(["adopt", "dag.task", "999999", "--yes"]) == 1
    assert main(["adopt", "dag.task", "no id", "--yes"]) == 1
    assert list(host.beside().records()) == []


def test_a_job_has_one_task(workspace):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", "failed")
    database.put_task("dag", "other", "task", "failed")
    job = started_by_hand(workspace)
    assert main(["adopt", "dag.task", str(job), "--run", "run", "--yes"]) == 0
    assert main(["adopt", "dag.task", str(job), "--run", "other", "--yes"]) == 1
    assert main(["adopt", "dag.task", str(started_by_hand(workspace)), "--run", "run", "--yes"]) == 1
    assert len(list(host.beside().records())) == 1


def test_what_is_in_flight_stands_in_the_way_back(workspace, capsys):
    database.put_dag(dag())
    database.put_task("dag", "run", "task", "failed")
    assert main(["plan", "--back"]) == 0
    assert "the adopt line may go" in capsys.readouterr().out
    assert main(["adopt", "dag.task", str(started_by_hand(workspace)), "--yes"]) == 0
    capsys.readouterr()
    assert main(["plan", "--back"]) == 1
    assert "1 jobs of adopted tasks are in flight" in capsys.readouterr().out
