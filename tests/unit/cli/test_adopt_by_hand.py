"""``adopt TASK JOB``: whose job it is, by which connection it is reached, and what is refused."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import datetime

import pytest
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSubmitRunOperator,
)
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

from resumable import host
from resumable.cli.main import main
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from tests.services import EmrService
from tests.services.aws_tokens import Athena, Ecs
from tests.support import database
from tests.support.names import DAG, BaseOperator
from tests.support.terminal import Terminal

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
SUBMIT = {"task_id": "task", "json": NOTEBOOK}


@pytest.fixture(autouse=True)
def deployment():
    database.empty()


def known_to(monkeypatch, env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def deploy(make, *, state="failed", map_index=-1, task_id="task", run_id="run"):
    """A DAG of what ``make`` makes, as Airflow's database has it, and a task instance."""
    with DAG("dag", start_date=datetime(2026, 1, 1), schedule=None) as dag:
        make()
    database.put_dag(dag)
    database.put_task("dag", run_id, task_id, state, map_index)


def run_of(workspace):
    return workspace._start({"run_name": "by hand"}, None, [])["run_id"]


def records():
    return [JobRecord.from_json(one.row.data) for one in host.beside().records(only_open=False)]


def adopt(*arguments):
    return main(["adopt", *map(str, arguments), "--yes"])


def refused(capsys, *arguments):
    capsys.readouterr()
    before = len(records())
    assert adopt(*arguments) == 1
    assert len(records()) == before
    return capsys.readouterr().err


# -- by which connection ----------------------------------------------------------------------------------------------


def test_the_job_of_a_mapped_task_is_looked_for_where_the_task_looks(workspace, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PROD", workspace.connection_json())
    monkeypatch.delenv("AIRFLOW_CONN_DATABRICKS_DEFAULT")
    deploy(
        lambda: DatabricksSubmitRunOperator.partial(task_id="task", databricks_conn_id="prod").expand(json=[NOTEBOOK, NOTEBOOK]),
        map_index=1,
    )
    assert adopt("dag.task[1]", run_of(workspace)) == 0
    (record,) = records()
    assert record.reach["databricks_conn_id"] == "prod"


def test_a_mapped_task_that_names_no_connection_has_its_operators_default(workspace):
    deploy(lambda: DatabricksSubmitRunOperator.partial(task_id="task").expand(json=[NOTEBOOK]), map_index=0)
    assert adopt("dag.task[0]", run_of(workspace)) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: DatabricksSubmitRunOperator.partial(**SUBMIT).expand(databricks_conn_id=["prod", "test"]),
        lambda: DatabricksSubmitRunOperator.partial(task_id="task").expand_kwargs([{"json": {}, "databricks_conn_id": "prod"}]),
    ],
    ids=["expand", "expand_kwargs"],
)
def test_a_connection_that_differs_between_mapped_tasks_is_asked_for(workspace, monkeypatch, capsys, make):
    monkeypatch.setenv("AIRFLOW_CONN_PROD", workspace.connection_json())
    deploy(make, map_index=0)
    job = run_of(workspace)
    assert "--with databricks_conn_id=VALUE" in refused(capsys, "dag.task[0]", job)
    assert adopt("dag.task[0]", job, "--with", "databricks_conn_id=prod") == 0
    (record,) = records()
    assert record.reach["databricks_conn_id"] == "prod"


def test_a_connection_that_is_a_template_is_asked_for(workspace, capsys):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT, databricks_conn_id="{{ var.value.workspace }}"))
    job = run_of(workspace)
    assert "is a template" in refused(capsys, "dag.task", job)
    assert adopt("dag.task", job, "--with", "databricks_conn_id=databricks_default") == 0


def test_what_airflows_database_does_not_keep_is_asked_for_and_never_taken_for_the_default(monkeypatch, capsys):
    with Ecs() as ecs:
        known_to(monkeypatch, ecs.env())
        arguments = {"cluster": "c", "task_definition": "t", "overrides": {}, "aws_conn_id": None, "region_name": "us-east-1"}
        deploy(lambda: EcsRunTaskOperator(task_id="task", **arguments))
        job = json.dumps({"cluster": "c", "task": ecs.run_task({"cluster": "c"})["tasks"][0]["taskArn"]})
        assert "--with aws_conn_id=VALUE --with region_name=VALUE" in refused(capsys, "dag.task", job)
        assert adopt("dag.task", job, "--with", "aws_conn_id=", "--with", "region_name=us-east-1") == 0
        (record,) = records()
        assert (record.reach["aws_conn_id"], record.reach["region_name"]) == (None, "us-east-1")


def test_no_connection_is_not_the_default_one(monkeypatch):
    with Athena() as athena:
        known_to(monkeypatch, athena.env())
        query = {"query": "q", "database": "d", "output_location": "s3://o/", "aws_conn_id": None, "region_name": "us-east-1"}
        deploy(lambda: AthenaOperator(task_id="task", **query))
        job = athena.start_query_execution({"QueryString": "q"})["QueryExecutionId"]
        assert adopt("dag.task", json.dumps({"query": job})) == 0
        (record,) = records()
        assert record.reach["aws_conn_id"] is None


@pytest.mark.parametrize("given", ["aws_conn_id", "=prod", "x=1"])
def test_a_with_that_means_nothing_is_refused(workspace, capsys, given):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    assert "--with" in refused(capsys, "dag.task", run_of(workspace), "--with", given)


def test_a_service_that_cannot_be_reached_is_told_in_words(capsys, monkeypatch):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT, databricks_conn_id="nowhere"))
    assert "nowhere" in refused(capsys, "dag.task", "7")
    gone = json.dumps({"conn_type": "databricks", "host": "http://127.0.0.1:9", "extra": {"retry_limit": 1}})
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", gone)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert "cannot be looked at" in refused(capsys, "dag.task", "7")


# -- which job --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["", "null", "no id", "{", "[]", "{}", '{"run": 1}', "1.5", "true", "\x1b[2J"])
def test_what_is_no_id_is_refused_in_words(workspace, capsys, job):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    assert "resumable: " in refused(capsys, "dag.task", job)


def test_a_bare_id_of_a_service_that_has_several_is_asked_for_as_json(monkeypatch, capsys):
    with Athena() as athena:
        known_to(monkeypatch, athena.env())
        query = {"query": "q", "database": "d", "output_location": "s3://o/", "aws_conn_id": None, "region_name": "us-east-1"}
        deploy(lambda: AthenaOperator(task_id="task", **query))
        assert "as JSON" in refused(capsys, "dag.task", "query-1")


def test_a_job_that_is_done_gives_the_task_its_result(workspace):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    job = run_of(workspace)
    workspace.finish(job)
    assert adopt("dag.task", job) == 0


def of_another(ids, *, service="databricks", place=None, **changes):
    """Another task's record."""
    record = JobRecord(service, "t" * 48, Generation(3, 0, None), 0, "owner", 1, time.time())
    record = replace(record.submitted(JobHandle(service, ids, place or {}), time.time()), **changes)
    database.put_task("dag", "other", "another", "success")
    assert host.beside().put_record(("dag", "other", "another", -1), "", record.to_json())


@pytest.mark.parametrize("outcome", [None, Outcome.SUCCEEDED, Outcome.CANCELLED])
def test_a_job_that_is_another_tasks_is_refused_also_after_its_end(workspace, capsys, outcome):
    deploy(lambda: DatabricksRunNowOperator(task_id="task", job_id=5))
    job = run_of(workspace)
    of_another({"run_id": job, "job_id": 5}, outcome=outcome, closed_at=time.time() if outcome else None)
    assert "is the job of dag.another, run other" in refused(capsys, "dag.task", job)


def test_of_two_who_give_away_the_same_job_the_second_is_refused(workspace, capsys, monkeypatch):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    job = run_of(workspace)

    def meanwhile(_):
        of_another({"run_id": job})
        return "y"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", meanwhile)
    assert main(["adopt", "dag.task", str(job)]) == 1
    assert "is the job of dag.another" in capsys.readouterr().err
    assert len(records()) == 1


def test_a_job_of_the_same_id_in_another_workspace_is_another_job(workspace):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    job = run_of(workspace)
    of_another({"run_id": job}, place={"workspace": "elsewhere"})
    assert adopt("dag.task", job) == 0


def test_a_job_that_was_forgotten_is_nobodys(workspace):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    job = run_of(workspace)
    of_another({"run_id": job}, forgotten_by="ann@host", outcome=Outcome.REJECTED)
    assert adopt("dag.task", job) == 0


def test_one_step_of_another_tasks_steps_is_refused(monkeypatch, capsys):
    with EmrService() as emr:
        known_to(monkeypatch, emr.env())
        cluster = emr.create_cluster()
        deploy(lambda: EmrAddStepsOperator(task_id="task", job_flow_id=cluster, steps=[], aws_conn_id=None))
        of_another({"cluster": cluster, "steps": ["s-1", "s-2"]}, service="emr")
        said = refused(capsys, "dag.task", json.dumps({"cluster": cluster, "steps": ["s-2"]}))
        assert "is the job of dag.another" in said


def test_a_part_of_a_workflow_has_no_job_of_its_own(workspace, capsys):
    def make():
        with DatabricksWorkflowTaskGroup(group_id="wf", databricks_conn_id="databricks_default"):
            DatabricksNotebookOperator(task_id="one", notebook_path="/1", source="WORKSPACE", job_cluster_key="k")

    deploy(make, task_id="wf.one")
    assert "wf.launch" in refused(capsys, "dag.wf.one", run_of(workspace))


# -- which task -------------------------------------------------------------------------------------------------------


def test_a_task_that_starts_while_the_question_stands_is_given_no_job(workspace, capsys, monkeypatch):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT), state=None)
    job = run_of(workspace)

    def meanwhile(_):
        database.change("dag", "run", "task", state="running")
        return "y"

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", meanwhile)
    assert main(["adopt", "dag.task", str(job)]) == 1
    assert "has been started meanwhile" in capsys.readouterr().err
    assert records() == []


def test_a_task_of_several_runs_or_none_is_asked_for(workspace, capsys):
    deploy(lambda: DatabricksSubmitRunOperator(**SUBMIT))
    database.put_task("dag", "later", "task", "failed")
    assert "2 runs" in refused(capsys, "dag.task", "7")
    assert "no task instance in run never" in refused(capsys, "dag.task", "7", "--run", "never")
    assert "no task instance" in refused(capsys, "dag.nothing", "7")


def test_an_operator_of_nobody_we_know_is_refused(capsys):
    deploy(lambda: BaseOperator(task_id="task"))
    assert "is a BaseOperator" in refused(capsys, "dag.task", "7")


def test_a_task_whose_dag_is_gone_is_refused(capsys):
    database.put_task("dag", "run", "task", "failed")
    assert "no task task of a DAG dag" in refused(capsys, "dag.task", "7")
