"""How AWS services are asked about many jobs: what a call takes and shows is as botocore's service models say.

Rates are per account and region. Sources: "Amazon EMR endpoints and quotas" (ListSteps and DescribeStep 0.5 calls a second, 10
at once; all EMR calls together 5 and 25), "Amazon Athena endpoints and quotas" (GetQueryExecution 100 and 200,
BatchGetQueryExecution 20 and 40), "Request throttling for the Amazon ECS API" (reading calls 20 a second, 50 at once). Batch,
Glue, EMR Serverless and EMR on EKS publish none, the pages of Step Functions contradict each other, for SageMaker none was found:
there, `resumable.fleet.lookups.ASSUMED` counts.

A list is asked for the jobs that run alone, where the service has such a filter: one that is not in it is looked at by itself, by
the operator's own means, before anything is said of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resumable.fleet.budget import Rate
from resumable.fleet.lookups import ById, Listing, Lookup, Page, Place, Seen
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle


def _of(handle: JobHandle, name: str) -> Any:
    return handle.ids.get(name) if isinstance(handle.ids, Mapping) else None


def _by(name: str) -> Callable[[JobHandle], Any]:
    """The jobs that have the same ``name`` among their ids form a group."""
    return lambda handle: _of(handle, name)


def _seen(words: Mapping[str, str], asked: Sequence[JobHandle], name: str, place: Place) -> Seen:
    """What the service's words, by id, come to."""
    found = ((i, words.get(_of(handle, name))) for i, handle in enumerate(asked))
    return {i: Observation(place(i, word), word) for i, word in found if word is not None}


# -- Athena, Batch, ECS: by id -----------------------------------------------------------------------------------------


def _athena(hook: Any, asked: Sequence[JobHandle], place: Place) -> Seen:
    """BatchGetQueryExecution: up to 50 ids. Those that it does not know are in ``UnprocessedQueryExecutionIds``."""
    answer = hook.conn.batch_get_query_execution(QueryExecutionIds=[_of(handle, "query") for handle in asked])
    words = {query["QueryExecutionId"]: str(query["Status"]["State"]) for query in answer.get("QueryExecutions", ())}
    return _seen(words, asked, "query", place)


ATHENA = Lookup(
    "athena",
    "athena:GetQueryExecution",
    by_id=ById("athena:BatchGetQueryExecution", 50, _athena),
    rates={"athena:GetQueryExecution": Rate(100, 200), "athena:BatchGetQueryExecution": Rate(20, 40)},
)


def _batch(hook: Any, asked: Sequence[JobHandle], place: Place) -> Seen:
    """DescribeJobs: up to 100 ids. It leaves out those that it does not know."""
    answer = hook.conn.describe_jobs(jobs=[_of(handle, "job") for handle in asked])
    return _seen({job["jobId"]: str(job["status"]) for job in answer["jobs"]}, asked, "job", place)


BATCH = Lookup("batch", "batch:DescribeJobs", by_id=ById("batch:DescribeJobs", 100, _batch))


def _ecs(hook: Any, asked: Sequence[JobHandle], place: Place) -> Seen:
    """DescribeTasks: up to 100 tasks of a cluster. Those that it does not show are in ``failures``, each with a reason."""
    answer = hook.conn.describe_tasks(cluster=_of(asked[0], "cluster"), tasks=[_of(handle, "task") for handle in asked])
    return _seen({task["taskArn"]: str(task["lastStatus"]) for task in answer["tasks"]}, asked, "task", place)


ECS = Lookup(
    "ecs",
    "ecs:DescribeTasks",
    group=_by("cluster"),
    by_id=ById("ecs:DescribeTasks", 100, _ecs),
    rates={"ecs:DescribeTasks": Rate(20, 50)},
)


# -- EMR steps: by id, ten a call, or the list of those of a cluster that run, 50 a page --------------------------------

STEP_IDS_A_CALL = 10
STEPS_A_PAGE = 50
_STEPS_RUN = ("PENDING", "RUNNING", "CANCEL_PENDING")
_STEPS_FAILED = frozenset({"FAILED", "CANCELLED", "INTERRUPTED"})


def _steps(handle: JobHandle) -> Sequence[str]:
    return tuple(_of(handle, "steps") or ())


def _of_steps(words: Mapping[str, str], asked: Sequence[JobHandle]) -> Seen:
    """What the words of their steps come to, of the jobs whose steps all have one."""
    seen = {}
    for i, handle in enumerate(asked):
        states = [words.get(step, "") for step in _steps(handle)]
        if states and all(states):
            counts = {state: states.count(state) for state in dict.fromkeys(states)}
            told = ", ".join(f"{n} {state}" if len(states) > 1 else state for state, n in counts.items())
            seen[i] = Observation(_state_of_steps(frozenset(states)), told)
    return seen


def _state_of_steps(states: frozenset[str]) -> JobState:
    has_failed, runs = bool(states & _STEPS_FAILED), bool(states & set(_STEPS_RUN))
    if states - _STEPS_FAILED - set(_STEPS_RUN) - {"COMPLETED"}:
        return JobState.UNKNOWN
    if runs:
        return JobState.FAILING if has_failed else JobState.ACTIVE
    return JobState.FAILED if has_failed else JobState.SUCCEEDED


def _steps_by_id(hook: Any, asked: Sequence[JobHandle], place: Place) -> Seen:  # noqa: ARG001
    """ListSteps with ``StepIds``: up to ten, of one cluster."""
    ids = [step for handle in asked for step in _steps(handle)]
    answer = hook.conn.list_steps(ClusterId=_of(asked[0], "cluster"), StepIds=ids)
    return _of_steps({step["Id"]: str(step["Status"]["State"]) for step in answer["Steps"]}, asked)


def _steps_listed(hook: Any, asked: Sequence[JobHandle], place: Place, cursor: Any) -> Page:  # noqa: ARG001
    """ListSteps with ``StepStates``: 50 a page; ``Marker`` names the next. A job of several steps may be spread over pages."""
    marker, words = cursor or (None, {})
    more = {} if marker is None else {"Marker": marker}
    answer = hook.conn.list_steps(ClusterId=_of(asked[0], "cluster"), StepStates=list(_STEPS_RUN), **more)
    words = {**words, **{step["Id"]: str(step["Status"]["State"]) for step in answer["Steps"]}}
    following = answer.get("Marker")
    return Page(_of_steps(words, asked), (following, words) if following else None)


EMR_STEPS = Lookup(
    "emr",
    "emr:ListSteps",
    group=_by("cluster"),
    ids=lambda handle: len(_steps(handle)),
    cost=lambda handle: math.ceil(len(_steps(handle)) / STEP_IDS_A_CALL),
    by_id=ById("emr:ListSteps", STEP_IDS_A_CALL, _steps_by_id),
    listing=Listing("emr:ListSteps", STEPS_A_PAGE, _steps_listed),
    rates={"emr:ListSteps": Rate(0.5, 10), "emr:DescribeStep": Rate(0.5, 10)},
)

EMR_CLUSTERS = Lookup("emr-cluster", "emr:DescribeCluster", group=lambda _: None, rates={"emr:DescribeCluster": Rate(5, 25)})


# -- lists -------------------------------------------------------------------------------------------------------------


def _pages(
    method: str,
    given: Callable[[JobHandle], Mapping[str, Any]],
    *,
    items: str,
    key: str,
    state: str,
    name: str,
    token: str = "nextToken",
) -> Callable[[Any, Sequence[JobHandle], Place, Any], Page]:
    """
    Reads one page of a list.

    Args:
        method: the client's.
        given: its arguments, of any job of the group.
        items: the member of the answer that holds the jobs.
        key: the member of a job with its id.
        state: the member of a job with its word.
        name: the same id's name in a handle.
        token: the member, of request and answer, that names the next page.
    """

    def read(hook: Any, asked: Sequence[JobHandle], place: Place, cursor: Any) -> Page:
        more = {} if cursor is None else {token: cursor}
        answer = getattr(hook.conn, method)(**given(asked[0]), **more)
        words = {str(job[key]): str(job[state]) for job in answer.get(items, ())}
        return Page(_seen(words, asked, name, place), answer.get(token) or None)

    return read


GLUE = Lookup(
    "glue",
    "glue:GetJobRun",
    group=_by("job"),
    listing=Listing(
        "glue:GetJobRuns",
        200,
        _pages(
            "get_job_runs",
            lambda handle: {"JobName": _of(handle, "job"), "MaxResults": 200},
            items="JobRuns",
            key="Id",
            state="JobRunState",
            name="run",
            token="NextToken",
        ),
    ),
)
"""GetJobRuns: those of one job name, the newest first, those that have ended among them."""

EMR_CONTAINERS = Lookup(
    "emr-containers",
    "emr-containers:DescribeJobRun",
    group=_by("cluster"),
    listing=Listing(
        "emr-containers:ListJobRuns",
        50,
        _pages(
            "list_job_runs",
            lambda handle: {
                "virtualClusterId": _of(handle, "cluster"),
                "states": ["PENDING", "SUBMITTED", "RUNNING", "CANCEL_PENDING"],
                "maxResults": 50,
            },
            items="jobRuns",
            key="id",
            state="state",
            name="run",
        ),
    ),
)

EMR_SERVERLESS = Lookup(
    "emr-serverless",
    "emr-serverless:GetJobRun",
    group=_by("application"),
    listing=Listing(
        "emr-serverless:ListJobRuns",
        50,
        _pages(
            "list_job_runs",
            lambda handle: {
                "applicationId": _of(handle, "application"),
                "states": ["SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING", "CANCELLING"],
                "maxResults": 50,
            },
            items="jobRuns",
            key="id",
            state="state",
            name="run",
        ),
    ),
)


def _machine_of(handle: JobHandle) -> str | None:
    """The state machine of an execution, by its ARN: ``arn:aws:states:REGION:ACCOUNT:execution:MACHINE:NAME``."""
    match = re.fullmatch(r"(arn:[\w-]+:states:[\w-]+:\d+):execution:([^:]+):[^:]+", str(_of(handle, "execution")))
    return f"{match[1]}:stateMachine:{match[2]}" if match else None


STEP_FUNCTIONS = Lookup(
    "sfn",
    "sfn:DescribeExecution",
    group=_machine_of,
    listing=Listing(
        "sfn:ListExecutions",
        1000,
        _pages(
            "list_executions",
            lambda handle: {"stateMachineArn": _machine_of(handle), "statusFilter": "RUNNING", "maxResults": 1000},
            items="executions",
            key="executionArn",
            state="status",
            name="execution",
        ),
    ),
)


def _sagemaker(kind: str) -> Lookup:
    """
    Args:
        kind: as the operations name it: ``TrainingJob``, ``ProcessingJob``, ``TransformJob``, ``HyperParameterTuningJob``,
            ``AutoMLJob``.
    """
    method = {
        "TrainingJob": "list_training_jobs",
        "ProcessingJob": "list_processing_jobs",
        "TransformJob": "list_transform_jobs",
        "HyperParameterTuningJob": "list_hyper_parameter_tuning_jobs",
        "AutoMLJob": "list_auto_ml_jobs",
    }[kind]
    read = _pages(
        method,
        lambda _: {"StatusEquals": "InProgress", "MaxResults": 100, "SortBy": "CreationTime", "SortOrder": "Descending"},
        items=f"{kind}Summaries",
        key=f"{kind}Name",
        state=f"{kind}Status",
        name="name",
        token="NextToken",
    )
    return Lookup(
        f"sagemaker-{kind}", f"sagemaker:Describe{kind}", listing=Listing(f"sagemaker:List{kind}s", 100, read), rates={}
    )


SAGEMAKER = tuple(map(_sagemaker, ("TrainingJob", "ProcessingJob", "TransformJob", "HyperParameterTuningJob", "AutoMLJob")))
