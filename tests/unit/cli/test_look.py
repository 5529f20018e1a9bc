"""``jobs --look``: many jobs of one connection are asked about by few requests, and each gets its own state."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import boto3
import pytest

from resumable import host
from resumable.cli.main import main
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord
from tests.services import DatabricksSimulator, EmrService, Refuse
from tests.services.aws_tokens import Athena
from tests.support import database

pytestmark = [
    pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def deployment():
    database.empty()


def put(number, service, ids, reach):
    record = JobRecord(service, "t" * 48, Generation(3, 0, None), 0, "owner", 1, time.time() - number, reach=reach)
    record = replace(record.submitted(JobHandle(service, ids), time.time() - number), try_number=1)
    database.put("etl", "r1", f"t{number}", "running", record.to_json())


def seen(capsys):
    capsys.readouterr()
    assert main(["jobs", "--look", "--json"]) == 0
    return {int(one["task_id"][1:]): one["seen"] for one in json.loads(capsys.readouterr().out)}


def known_to(monkeypatch, service):
    for name, value in service.env().items():
        monkeypatch.setenv(name, value)


def test_runs_that_are_listed_as_active_need_no_look_of_their_own(monkeypatch, capsys):
    reach = {
        "operator": "resumable.operators.databricks:ResumableDatabricksSubmitRunOperator",
        "databricks_conn_id": "databricks_default",
    }
    with DatabricksSimulator() as workspace:
        known_to(monkeypatch, workspace)
        runs = [workspace._start({"run_name": str(n)}, None, [])["run_id"] for n in range(40)]
        for number, run in enumerate(runs):
            put(number, "databricks", {"run_id": run}, reach)
        put(40, "databricks", {"run_id": 99}, reach)
        workspace.finish(runs[3], "FAILED")
        found = seen(capsys)
        assert "FAILED" in found.pop(3)
        assert "99" in found.pop(40)
        assert all("RUNNING" in state or "PENDING" in state for state in found.values())
        assert len(workspace.calls("runs/get")) == 2
        assert len(workspace.calls("runs/list")) <= 3


ATHENA = {"operator": "resumable.operators.athena:ResumableAthenaOperator", "aws_conn_id": None, "region_name": "us-east-1"}


def test_queries_are_asked_about_fifty_at_a_time(monkeypatch, capsys):
    with Athena() as athena:
        known_to(monkeypatch, athena)
        for number in range(60):
            job = athena.start_query_execution({"QueryString": f"select {number}"})["QueryExecutionId"]
            put(number, "athena", {"query": job}, ATHENA)
        assert set(seen(capsys).values()) == {"RUNNING"}
        assert len(athena.calls("BatchGetQueryExecution")) == 2
        assert athena.calls("GetQueryExecution") == []


def test_where_a_call_about_many_is_refused_each_job_is_looked_at(monkeypatch, capsys):
    with Athena() as athena:
        known_to(monkeypatch, athena)
        for number in range(3):
            job = athena.start_query_execution({"QueryString": f"select {number}"})["QueryExecutionId"]
            put(number, "athena", {"query": job}, ATHENA)
        athena.fault("BatchGetQueryExecution", Refuse(400, "AccessDeniedException"))
        assert set(seen(capsys).values()) == {"RUNNING"}
        assert len(athena.calls("GetQueryExecution")) == 3


def test_steps_of_one_cluster_are_asked_about_ten_at_a_time(monkeypatch, capsys):
    reach = {"operator": "resumable.operators.emr:ResumableEmrAddStepsOperator", "aws_conn_id": None, "region_name": "us-east-1"}
    with EmrService() as emr:
        known_to(monkeypatch, emr)
        cluster = emr.create_cluster()
        step = {"Name": "s", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "x"}}
        client = boto3.client("emr")
        for number in range(12):
            ids = client.add_job_flow_steps(JobFlowId=cluster, Steps=[step, step])["StepIds"]
            put(number, "emr", {"cluster": cluster, "steps": ids}, reach)
        found = seen(capsys)
        assert len(found) == 12
        assert all("PENDING" in state or "RUNNING" in state for state in found.values())
        assert len(emr.calls("ListSteps")) == 3


def test_doctor_tells_of_a_call_about_many_that_is_not_allowed(monkeypatch, capsys):
    with Athena() as athena:
        known_to(monkeypatch, athena)
        put(1, "athena", {"query": athena.start_query_execution({"QueryString": "q"})["QueryExecutionId"]}, ATHENA)

        def rights():
            main(["doctor", "--look", "--json"])
            return [(one["level"], one["what"]) for one in json.loads(capsys.readouterr().out) if one["about"] == "rights"]

        assert rights() == [("good", "athena by None, us-east-1: many jobs can be asked about at once")]
        athena.fault("BatchGetQueryExecution", Refuse(400, "AccessDeniedException"))
        ((level, what),) = rights()
        assert (level, "is refused" in what) == ("look", True)
