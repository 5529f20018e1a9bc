"""How each service is asked about many jobs at once, by its real client: what it answers is right, the rest is left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from resumable.fleet.faults import Fault, fault_of
from resumable.fleet.lookups import Lookup
from resumable.fleet.services import LOOKUPS, aws, databricks
from resumable.jobs.decision import JobState
from resumable.jobs.record import JobHandle
from resumable.operators import athena, batch, ecs, emr, glue, sagemaker, step_function
from resumable.operators.databricks import (
    ResumableDatabricksRunNowOperator,
    ResumableDatabricksSQLStatementsOperator,
    ResumableDatabricksSubmitRunOperator,
    ResumableDatabricksTaskOperator,
)
from tests.services.databricks import DatabricksSimulator
from tests.services.emr import EmrService

REGION = "us-east-1"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


@pytest.fixture
def _moto() -> Iterator[None]:
    with mock_aws():
        yield


def place_of(operator: Any) -> Any:
    """The operator's own judgement of a word, without an operator."""
    return lambda _, word: operator._resumable.service(SimpleNamespace()).classify(word)


def handles(service: str, *ids: dict[str, Any]) -> list[JobHandle]:
    return [JobHandle(service, one, {"region": REGION, "account": "123456789012"}) for one in ids]


def _hook(client: Any) -> Any:
    """What the lookups of AWS take: a hook with the client. A hook of Databricks is one."""
    return SimpleNamespace(conn=client) if isinstance(client, BaseClient) else client


def pages(lookup: Lookup, client: Any, asked: list[JobHandle], place: Any = None) -> tuple[dict[int, JobState], int]:
    """All that a list shows, and in how many pages."""
    assert lookup.listing is not None
    seen: dict[int, JobState] = {}
    cursor, count = None, 0
    while True:
        page = lookup.listing.read(_hook(client), asked, place, cursor)
        seen.update({i: one.state for i, one in page.seen.items()})
        count += 1
        if (cursor := page.following) is None:
            return seen, count


def by_id(lookup: Lookup, client: Any, asked: list[JobHandle], place: Any = None) -> dict[int, JobState]:
    assert lookup.by_id is not None
    return {i: one.state for i, one in lookup.by_id.ask(_hook(client), asked, place).items()}


# -- by id ------------------------------------------------------------------------------------------------------------


def test_athena_tells_fifty_queries_apart_and_leaves_out_those_it_does_not_know() -> None:
    client = boto3.client("athena", REGION)
    asked = handles("athena", *({"query": f"q{i}"} for i in range(4)))
    answer = {
        "QueryExecutions": [
            {"QueryExecutionId": "q2", "Status": {"State": "FAILED"}},
            {"QueryExecutionId": "q0", "Status": {"State": "RUNNING"}},
            {"QueryExecutionId": "q1", "Status": {"State": "SUCCEEDED"}},
        ],
        "UnprocessedQueryExecutionIds": [{"QueryExecutionId": "q3", "ErrorCode": "INVALID_QUERY_EXECUTION_ID"}],
    }
    with Stubber(client) as stub:
        stub.add_response("batch_get_query_execution", answer, {"QueryExecutionIds": ["q0", "q1", "q2", "q3"]})
        seen = by_id(aws.ATHENA, client, asked, place_of(athena.ResumableAthenaOperator))
    assert seen == {0: JobState.ACTIVE, 1: JobState.SUCCEEDED, 2: JobState.FAILED}


def test_batch_tells_jobs_apart_and_leaves_out_those_it_does_not_know() -> None:
    client = boto3.client("batch", REGION)
    asked = handles("batch", *({"job": f"b{i}", "name": "n"} for i in range(3)))
    common = {"jobName": "n", "jobQueue": "q", "startedAt": 1, "jobDefinition": "d"}
    answer = {"jobs": [{"jobId": "b1", "status": "RUNNABLE", **common}, {"jobId": "b0", "status": "FAILED", **common}]}
    with Stubber(client) as stub:
        stub.add_response("describe_jobs", answer, {"jobs": ["b0", "b1", "b2"]})
        seen = by_id(aws.BATCH, client, asked, place_of(batch.ResumableBatchOperator))
    assert seen == {0: JobState.FAILED, 1: JobState.ACTIVE}


@pytest.mark.usefixtures("_moto")
def test_ecs_tells_the_tasks_of_a_cluster_apart_and_leaves_out_those_it_does_not_show() -> None:
    client = boto3.client("ecs", REGION)
    client.create_cluster(clusterName="c")
    client.register_task_definition(
        family="f", networkMode="awsvpc", containerDefinitions=[{"name": "x", "image": "y", "memory": 1}]
    )
    subnet = boto3.client("ec2", REGION).describe_subnets()["Subnets"][0]["SubnetId"]
    network = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}}
    task = {"cluster": "c", "taskDefinition": "f", "launchType": "FARGATE", "networkConfiguration": network}
    started = [client.run_task(**task)["tasks"][0]["taskArn"] for _ in range(3)]
    client.stop_task(cluster="c", task=started[1])
    missing = started[0][:-4] + "0000"
    asked = handles("ecs", *({"cluster": "c", "task": arn} for arn in (*started, missing)))
    seen = by_id(aws.ECS, client, asked, place_of(ecs.ResumableEcsRunTaskOperator))
    assert seen[0] is seen[2] is JobState.ACTIVE
    assert seen[1] is JobState.SUCCEEDED
    assert 3 not in seen
    assert aws.ECS.group(asked[0]) == "c"


# -- EMR steps --------------------------------------------------------------------------------------------------------


@pytest.fixture
def steps() -> Iterator[tuple[EmrService, Any, str]]:
    with EmrService() as service:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        client = boto3.client("emr", REGION, endpoint_url=service.url, **keys)
        cluster = service.create_cluster()
        yield service, client, cluster


def add_steps(client: Any, cluster: str, count: int) -> list[str]:
    ids: list[str] = []
    for start in range(0, count, 100):
        step = [{"Name": str(i), "HadoopJarStep": {"Jar": "x"}} for i in range(start, min(count, start + 100))]
        ids += client.add_job_flow_steps(JobFlowId=cluster, Steps=step)["StepIds"]
    return ids


def test_emr_tells_the_steps_of_a_cluster_apart_by_id(steps: tuple[EmrService, Any, str]) -> None:
    service, client, cluster = steps
    ids = add_steps(client, cluster, 6)
    service.finish(ids[0])
    service.finish(ids[3], "FAILED")
    jobs = ([ids[0]], [ids[1]], [ids[2], ids[3]], [ids[3]], [ids[4], ids[5]])
    asked = handles("emr", *({"cluster": cluster, "steps": job} for job in jobs))
    states = [JobState.SUCCEEDED, JobState.ACTIVE, JobState.FAILING, JobState.FAILED, JobState.ACTIVE]
    assert by_id(aws.EMR_STEPS, client, asked) == dict(enumerate(states))
    at_a_distance = emr.EmrSteps(SimpleNamespace())
    for state, handle in zip(states, asked, strict=False):
        at_a_distance._own_hook = SimpleNamespace(conn=client)
        assert at_a_distance.observe(handle).state is state, "as the operator's own look"


def test_a_step_that_emr_does_not_know_spoils_the_call_and_is_known_for_that(steps: tuple[EmrService, Any, str]) -> None:
    _, client, cluster = steps
    asked = handles("emr", *({"cluster": cluster, "steps": [step]} for step in (*add_steps(client, cluster, 2), "s-UNKNOWN")))
    with pytest.raises(ClientError) as refused:
        by_id(aws.EMR_STEPS, client, asked)
    assert fault_of(refused.value) is Fault.REFUSED


def test_emr_lists_the_steps_of_a_cluster_that_run_fifty_a_page(steps: tuple[EmrService, Any, str]) -> None:
    service, client, cluster = steps
    ids = add_steps(client, cluster, 130)
    service.finish(ids[7])
    service.finish(ids[20])
    wanted = [[ids[7]], [ids[8]], [ids[0], ids[129]], [ids[20], ids[21]], *([step] for step in ids[60:100])]
    asked = handles("emr", *({"cluster": cluster, "steps": job} for job in wanted))
    seen, count = pages(aws.EMR_STEPS, client, asked)
    assert count == 3
    assert seen == {i: JobState.ACTIVE for i in range(len(wanted)) if i not in (0, 3)}, "ended in part: not said by a list"


def test_a_job_of_many_emr_steps_costs_as_many_calls_as_it_takes() -> None:
    handle = handles("emr", {"cluster": "j", "steps": [f"s-{i}" for i in range(25)]})[0]
    assert aws.EMR_STEPS.cost(handle) == 3
    assert aws.EMR_STEPS.ids(handle) == 25


# -- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_moto")
def test_glue_lists_the_runs_of_a_job_name() -> None:
    client = boto3.client("glue", REGION)
    client.create_job(Name="a", Role="r", Command={"Name": "glueetl"}, ExecutionProperty={"MaxConcurrentRuns": 300})
    runs = [client.start_job_run(JobName="a")["JobRunId"] for _ in range(3)]
    asked = handles("glue", *({"job": "a", "run": run} for run in [*runs, "jr_none"]))
    seen, _ = pages(aws.GLUE, client, asked, place_of(glue.ResumableGlueJobOperator))
    assert set(seen) == {0, 1, 2}
    assert set(seen.values()) <= {JobState.ACTIVE, JobState.SUCCEEDED}
    assert aws.GLUE.group(asked[0]) == "a"


@pytest.mark.usefixtures("_moto")
def test_step_functions_lists_the_executions_of_a_machine_that_run() -> None:
    client = boto3.client("stepfunctions", REGION)
    definition = json.dumps({"StartAt": "x", "States": {"x": {"Type": "Pass", "End": True}}})
    role = "arn:aws:iam::123456789012:role/r"
    machine = client.create_state_machine(name="m", definition=definition, roleArn=role)["stateMachineArn"]
    arns = [client.start_execution(stateMachineArn=machine, name=f"e{i}")["executionArn"] for i in range(4)]
    client.stop_execution(executionArn=arns[2])
    asked = handles("sfn", *({"execution": arn} for arn in arns))
    assert aws.STEP_FUNCTIONS.group(asked[0]) == machine
    seen, _ = pages(aws.STEP_FUNCTIONS, client, asked, place_of(step_function.ResumableStepFunctionStartExecutionOperator))
    assert seen == {0: JobState.ACTIVE, 1: JobState.ACTIVE, 3: JobState.ACTIVE}


def test_an_execution_whose_machine_its_arn_does_not_tell_is_asked_about_alone() -> None:
    assert aws.STEP_FUNCTIONS.group(handles("sfn", {"execution": "arn:aws:states:eu-west-1:1:express:m:n:x"})[0]) is None


@pytest.mark.usefixtures("_moto")
def test_emr_serverless_lists_the_runs_of_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moto.emrserverless.models.JOB_STATUS", "RUNNING")
    client = boto3.client("emr-serverless", REGION)
    application = client.create_application(name="a", type="SPARK", releaseLabel="emr-6.6.0")["applicationId"]
    runs = [
        client.start_job_run(applicationId=application, executionRoleArn="arn:aws:iam::123456789012:role/r")["jobRunId"]
        for _ in range(2)
    ]
    asked = handles("emr-serverless", *({"application": application, "run": run} for run in [*runs, "none"]))
    seen, _ = pages(aws.EMR_SERVERLESS, client, asked, place_of(emr.ResumableEmrServerlessStartJobOperator))
    assert seen == {0: JobState.ACTIVE, 1: JobState.ACTIVE}


@pytest.mark.usefixtures("_moto")
def test_emr_on_eks_lists_the_runs_of_a_virtual_cluster() -> None:
    boto3.client("eks", REGION).create_cluster(
        name="e", roleArn="arn:aws:iam::123456789012:role/r", resourcesVpcConfig={"subnetIds": ["subnet-1"]}
    )
    client = boto3.client("emr-containers", REGION)
    container = {"id": "e", "type": "EKS", "info": {"eksInfo": {"namespace": "n"}}}
    cluster = client.create_virtual_cluster(name="v", containerProvider=container)["id"]
    driver = {"sparkSubmitJobDriver": {"entryPoint": "s3://x"}}
    role = "arn:aws:iam::123456789012:role/r"
    runs = [
        client.start_job_run(
            name=f"r{i}", virtualClusterId=cluster, executionRoleArn=role, releaseLabel="emr-6.3.0-latest", jobDriver=driver
        )["id"]
        for i in range(2)
    ]
    client.cancel_job_run(id=runs[1], virtualClusterId=cluster)
    asked = handles("emr-containers", *({"cluster": cluster, "run": run} for run in runs))
    seen, _ = pages(aws.EMR_CONTAINERS, client, asked, place_of(emr.ResumableEmrContainerOperator))
    assert seen[0] is JobState.ACTIVE


@pytest.mark.parametrize(
    ("kind", "operator"),
    [
        ("TrainingJob", sagemaker.ResumableSageMakerTrainingOperator),
        ("ProcessingJob", sagemaker.ResumableSageMakerProcessingOperator),
        ("TransformJob", sagemaker.ResumableSageMakerTransformOperator),
        ("HyperParameterTuningJob", sagemaker.ResumableSageMakerTuningOperator),
        ("AutoMLJob", sagemaker.ResumableSageMakerAutoMLOperator),
    ],
)
def test_sagemaker_lists_the_jobs_of_a_kind_that_run(kind: str, operator: Any) -> None:
    client, lookup = boto3.client("sagemaker", REGION), LOOKUPS[f"sagemaker-{kind}"]
    asked = handles("sagemaker", {"name": "a"}, {"name": "b"})
    summary: dict[str, Any] = {
        f"{kind}Name": "b",
        f"{kind}Arn": f"arn:aws:sagemaker:{REGION}:123456789012:x/b" + "x" * 20,
        f"{kind}Status": "InProgress",
        "CreationTime": 1,
    }
    if kind == "HyperParameterTuningJob":
        summary |= {
            "Strategy": "Random",
            "TrainingJobStatusCounters": {},
            "ObjectiveStatusCounters": {},
        }
    if kind == "AutoMLJob":
        summary |= {"AutoMLJobSecondaryStatus": "Starting", "LastModifiedTime": 1}
    given = {"StatusEquals": "InProgress", "MaxResults": 100, "SortBy": "CreationTime", "SortOrder": "Descending"}
    method = {"AutoMLJob": "list_auto_ml_jobs"}.get(kind) or "list_" + "".join(
        f"_{letter.lower()}" if letter.isupper() else letter for letter in kind
    ).strip("_") + "s"
    with Stubber(client) as stub:
        stub.add_response(method, {f"{kind}Summaries": [], "NextToken": "t"}, given)
        stub.add_response(method, {f"{kind}Summaries": [summary]}, {**given, "NextToken": "t"})
        seen, count = pages(lookup, client, asked, place_of(operator))
    assert (seen, count) == ({1: JobState.ACTIVE}, 2)


def test_databricks_lists_the_runs_that_run_and_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with DatabricksSimulator() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        hook = DatabricksHook("databricks_default", retry_limit=1)
        runs = [hook.submit_run({"run_name": f"r{i}", "idempotency_token": str(i)}) for i in range(60)]
        service.finish(runs[3])
        service.finish(runs[4], "FAILED")
        asked = [JobHandle("databricks", {"run_id": run}, {"workspace": "w"}) for run in [*runs[:50], 999_999]]
        seen, count = pages(databricks.RUNS, hook, asked)
        assert count == 3
        assert seen == {i: JobState.ACTIVE for i in range(50) if i not in (3, 4)}
        assert {call.body.get("limit") for call in service.calls("runs/list")} == {"25"}


def test_runs_of_jobs_and_runs_of_none_are_listed_apart_so_that_neither_list_shows_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with DatabricksSimulator() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        hook = DatabricksHook("databricks_default", retry_limit=1)
        job = service.add_job("nightly")
        of_none = [hook.submit_run({"run_name": f"r{i}", "idempotency_token": str(i)}) for i in range(20)]
        of_a_job = [hook.run_now({"job_id": job}) for _ in range(30)]
        submitted = [JobHandle("databricks", {"run_id": run}, {"workspace": "w"}) for run in of_none]
        jobs = [JobHandle("databricks", {"run_id": run, "job_id": job}, {"workspace": "w"}) for run in of_a_job]
        group = databricks.RUNS.group
        assert {group(handle) for handle in submitted}.isdisjoint({group(handle) for handle in jobs})
        assert pages(databricks.RUNS, hook, submitted) == (dict.fromkeys(range(20), JobState.ACTIVE), 1)
        assert pages(databricks.RUNS, hook, jobs) == (dict.fromkeys(range(30), JobState.ACTIVE), 2)


# -- which ------------------------------------------------------------------------------------------------------------


def lookup_for(operator: Any) -> Lookup:
    service = operator._resumable.service(SimpleNamespace())
    return service.lookup(JobHandle(service.service, {"id": "1"}))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("operator", "lookup"),
    [
        (athena.ResumableAthenaOperator, aws.ATHENA),
        (batch.ResumableBatchOperator, aws.BATCH),
        (ecs.ResumableEcsRunTaskOperator, aws.ECS),
        (emr.ResumableEmrAddStepsOperator, aws.EMR_STEPS),
        (emr.ResumableEmrCreateJobFlowOperator, aws.EMR_CLUSTERS),
        (emr.ResumableEmrContainerOperator, aws.EMR_CONTAINERS),
        (emr.ResumableEmrServerlessStartJobOperator, aws.EMR_SERVERLESS),
        (glue.ResumableGlueJobOperator, aws.GLUE),
        (step_function.ResumableStepFunctionStartExecutionOperator, aws.STEP_FUNCTIONS),
        (sagemaker.ResumableSageMakerTuningOperator, LOOKUPS["sagemaker-HyperParameterTuningJob"]),
        (ResumableDatabricksSubmitRunOperator, databricks.RUNS),
        (ResumableDatabricksRunNowOperator, databricks.RUNS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_service_whose_jobs_can_be_asked_about_together_says_how(operator: Any, lookup: Lookup) -> None:
    assert lookup_for(operator) is lookup


@pytest.mark.parametrize(
    "operator",
    [
        emr.ResumableEmrStartNotebookExecutionOperator,
        sagemaker.ResumableSageMakerStartPipelineOperator,
        ResumableDatabricksTaskOperator,
        ResumableDatabricksSQLStatementsOperator,
    ],
    ids=lambda value: value.__name__,
)
def test_jobs_of_the_same_service_that_are_of_another_kind_are_asked_about_one_by_one(operator: Any) -> None:
    lookup = lookup_for(operator)
    assert (lookup.by_id, lookup.listing) == (None, None)


def test_a_subclass_that_sees_its_jobs_in_its_own_way_is_asked_and_no_list_in_its_place() -> None:
    class Careful(athena.AthenaQuery):
        def state_of(self, handle: JobHandle) -> str | None:
            return "RUNNING"

    class Renamed(athena.AthenaQuery):
        service = "athena-of-ours"

    assert Careful(SimpleNamespace()).lookup(JobHandle("athena", {"query": "q"})).by_id is None
    assert Renamed(SimpleNamespace()).lookup(JobHandle("athena", {"query": "q"})) is aws.ATHENA


def test_each_lookup_is_found_by_its_name() -> None:
    assert all(LOOKUPS[name].name == name for name in LOOKUPS)
