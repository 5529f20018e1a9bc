"""EMR that survives its worker: steps, clusters, notebooks (look up), jobs on EKS and on EMR Serverless (repeat by token).

AddJobFlowSteps and RunJobFlow know no token, so it is stamped into the steps' names, and on the cluster as a tag. StartJobRun
of EMR on EKS and of EMR Serverless takes a ``clientToken``. Notebook executions: see `_emr_notebooks`.

Facts on the services (botocore service models and API references): step names hold 256 characters; ListSteps gives the newest
first, 50 a page, and takes at most 10 step ids; CancelSteps works on running steps from EMR 5.28 on; the steps of a terminated
cluster stay visible for about two months. ListClusters shows no tags and filters by time and state alone; DescribeCluster shows
tags; RunJobFlow with tags needs the permission ``elasticmapreduce:AddTags``. A job run on EKS tells its ``clientToken``, in
lists too. For how long EMR on EKS and EMR Serverless know a token is not documented: it is relied upon for an hour.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from resumable._extras import provider_import
from resumable.errors import InvalidAnswerError, RecordError
from resumable.helpers import account_of
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord
from resumable.stop.triggers import StopGuard

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.emr import (
        EmrAddStepsOperator,
        EmrContainerOperator,
        EmrCreateJobFlowOperator,
        EmrServerlessStartJobOperator,
        EmrStartNotebookExecutionOperator,
    )
    from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
    from botocore.exceptions import ClientError

    from resumable.operators._aws import TAG, AwsCall, chunks, require_taken
    from resumable.operators._emr_job_runs import EksJobRun, ServerlessJobRun
    from resumable.operators._emr_notebooks import NotebookExecution

__all__ = [
    "ResumableEmrAddStepsOperator",
    "ResumableEmrAddStepsTrigger",
    "ResumableEmrContainerOperator",
    "ResumableEmrCreateJobFlowOperator",
    "ResumableEmrServerlessStartJobOperator",
    "ResumableEmrStartNotebookExecutionOperator",
]

STEP_IDS_A_CALL = 10
NAME_LENGTH = 256

_ACTIVE = frozenset({"PENDING", "CANCEL_PENDING", "RUNNING"})
_FAILED = frozenset({"FAILED", "CANCELLED", "INTERRUPTED"})
_MARKER = re.compile(r" \[r:([0-9a-f]{24}):(\d+)/(\d+)\]$")


class ResumableEmrAddStepsTrigger(StopGuard, EmrAddStepsTrigger):
    """
    The provider's trigger, for any number of steps (the service takes ten step ids in one question, the provider's asks for all),
    and with a cancel when a user stops the task.
    """

    def __init__(self, *, keeps_on_clear: bool = True, **kwargs: Any) -> None:
        super().__init__(keeps_on_clear=keeps_on_clear, **kwargs)
        self._theirs = kwargs

    async def watch(self) -> AsyncIterator[Any]:
        event = None
        for ids in chunks(self._theirs["step_ids"], STEP_IDS_A_CALL):
            async for event in EmrAddStepsTrigger(**{**self._theirs, "step_ids": ids}).run():
                if event.payload.get("status") != "success":
                    yield event
                    return
        if event is not None:
            event.payload["value"] = self._theirs["step_ids"]
            yield event

    async def cancel(self) -> None:
        async with await self.hook().get_async_conn() as client:
            answer = await client.cancel_steps(
                ClusterId=self._theirs["job_flow_id"],
                StepIds=self._theirs["step_ids"],
                StepCancellationOption="SEND_INTERRUPT",
            )
        require_taken("cancel_steps", answer)


class EmrSteps(AwsCall):
    """The steps that one task adds to a cluster: active while one of them is, succeeded when all have."""

    together = "emr"
    service = "emr"
    operation = "AddJobFlowSteps"
    asks_account = False  # the provider's DescribeCluster tells it
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    recovery = Recovery.LOOK_UP
    settle = 20.0
    doubt = "the token is in each step's name (`[r:…:0/2]`) and is looked up"
    window = "the submit reaches EMR, or `ListSteps` shows it, later than 20 seconds after it was sent or its answer was lost"
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True

    def add_token(self, params: dict[str, Any], token: str) -> None:
        count = len(params["Steps"])
        for i, step in enumerate(params["Steps"]):
            mark = f" [r:{token[:24]}:{i}/{count}]"
            step["Name"] = str(step.get("Name", ""))[: NAME_LENGTH - len(mark)] + mark

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"cluster": str(params["JobFlowId"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        steps = list(response.get("StepIds") or [])
        if len(steps) != len(params["Steps"]) or not all(isinstance(s, str) and s for s in steps):
            raise InvalidAnswerError(
                f"EMR answered {len(params['Steps'])} steps with the ids {steps!r}. Steps may be running on "
                f"{params['JobFlowId']}: look for them there.",
                next_try="looks them up by their mark",
            )
        return {"cluster": params["JobFlowId"], "steps": steps}

    def account_in(self, operation: str, response: Mapping[str, Any]) -> str | None:
        if operation != "DescribeCluster":
            return None
        return account_of(response.get("Cluster", {}).get("ClusterArn"))

    def have_job_in_common(self, one: Any, other: Any) -> bool:
        steps = [set(ids.get("steps") or ()) if isinstance(ids, Mapping) else set() for ids in (one, other)]
        return bool(steps[0] & steps[1])

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"StepIds": list(_ids(handle)[1])}

    def before_execute(self, attempt: Attempt) -> None:
        if attempt.handle is not None:  # a name may mean another cluster by now; the steps are on this one
            self.operator.job_flow_id, self.operator.job_flow_name = _ids(attempt.handle)[0], None

    def observe(self, handle: JobHandle) -> Observation:
        cluster, steps = _ids(handle)
        seen: dict[str, str] = {}
        try:
            for ids in chunks(steps, STEP_IDS_A_CALL):
                for step in self.hook.conn.list_steps(ClusterId=cluster, StepIds=ids)["Steps"]:
                    seen[step["Id"]] = step["Status"]["State"]
        except ClientError as e:
            is_unknown = e.response["Error"]["Code"] == "InvalidRequestException" and "is not valid" in str(e)
            if not is_unknown or "account" not in handle.place:  # it is the cluster that is not known, perhaps here alone
                raise
            return self.missing(handle, str(e))
        states = [seen.get(step, "") for step in steps]
        state = _job_state(states)
        return self.missing(handle, "not listed") if state is JobState.GONE else Observation(state, _summary(states))

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        found: dict[int, str] = {}
        wanted = 0
        for step in self._newest_steps(cluster):
            if step["Status"]["Timeline"]["CreationDateTime"] < self.oldest(record):
                break
            mark = _MARKER.search(step["Name"])
            if mark and mark[1] == record.token[:24]:
                found[int(mark[2])], wanted = step["Id"], int(mark[3])
        if not found:
            return None
        if len(found) != wanted:
            raise RuntimeError(f"{len(found)} of {wanted} steps with the mark {record.token[:24]} are visible on {cluster}")
        account = self.account_in("DescribeCluster", self.hook.conn.describe_cluster(ClusterId=cluster))
        self.known_account = account or self.known_account
        return self.handle({"cluster": cluster, "steps": [found[i] for i in range(wanted)]})

    def _newest_steps(self, cluster: str) -> Iterator[Mapping[str, Any]]:
        for page in self.hook.conn.get_paginator("list_steps").paginate(ClusterId=cluster):
            yield from page["Steps"]

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, steps = _ids(handle)
        return "cancel_steps", {"ClusterId": cluster, "StepIds": steps, "StepCancellationOption": "SEND_INTERRUPT"}

    def is_stopping(self, seen: Observation) -> bool:
        """Each step that has not ended is being cancelled: a cancel is refused, step by step, for those that have ended."""
        words = set(re.findall(r"[A-Z_]+", seen.detail))
        return "CANCEL_PENDING" in words and not words & {"PENDING", "RUNNING"}

    def trigger(self, theirs: Any) -> ResumableEmrAddStepsTrigger:
        return ResumableEmrAddStepsTrigger(**theirs.serialize()[1])


class EmrCluster(AwsCall):
    """The start of a cluster, until what ``wait_policy`` waits for."""

    together = "emr-cluster"
    service = "emr"
    operation = "RunJobFlow"
    limits = (Limit("waiter_max_attempts", "waiter_delay", default=60),)
    status_calls = ("DescribeCluster",)
    recovery = Recovery.LOOK_UP
    settle = 30.0
    wait_argument = "wait_for_completion"
    reach_fields = (*AwsCall.reach_fields, "wait_policy")
    doubt = "the token is a tag of the cluster (`resumable-token`) and is looked up among the clusters created since"
    window = "the submit reaches EMR, or `ListClusters` shows it, later than 30 seconds after it was sent or its answer was lost"
    active = frozenset({"STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"})
    stopping = frozenset({"TERMINATING"})
    failed = frozenset({"TERMINATED_WITH_ERRORS"})
    missing_codes = frozenset({"InvalidRequestException"})
    missing_words = re.compile(r"(?i)cluster id .* is not valid")
    look_path = "Cluster.Status.State"  # the stop terminates the cluster, which others use once it has started

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self.operator.terminate_job_flow_on_failure = False

    def add_token(self, params: dict[str, Any], token: str) -> None:
        if self.mark_in == "tag":
            params["Tags"] = [*params.get("Tags", []), {"Key": TAG, "Value": token}]
        else:
            mark = _cluster_mark(token)
            params["Name"] = str(params["Name"])[: NAME_LENGTH - len(mark)] + mark

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"cluster": self.require_id(response.get("JobFlowId"), "JobFlowId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"JobFlowId": self.ids(handle, "cluster")[0]}

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "describe_cluster", {"ClusterId": self.ids(handle, "cluster")[0]}

    def state_of(self, handle: JobHandle) -> str | None:
        method, arguments = self.look_call(handle)
        return str(getattr(self.hook.conn, method)(**arguments)["Cluster"]["Status"]["State"])

    def classify(self, word: str) -> JobState:
        ready = {"TERMINATED"} if self._waits_for_steps() else {"RUNNING", "WAITING", "TERMINATED"}
        return JobState.SUCCEEDED if word in ready else super().classify(word)

    def _waits_for_steps(self) -> bool:
        policy = self.operator.wait_policy
        return bool(getattr(policy, "value", policy) == "wait_for_steps_completion")  # from a record it comes as text

    def find(self, record: JobRecord) -> JobHandle | None:
        client, mark = self.hook.conn, _cluster_mark(record.token)
        for page in client.get_paginator("list_clusters").paginate(CreatedAfter=self.oldest(record)):
            for cluster in page["Clusters"]:
                if self.mark_in == "name":
                    is_ours = cluster["Name"].endswith(mark)
                else:
                    tags = client.describe_cluster(ClusterId=cluster["Id"])["Cluster"].get("Tags", [])
                    is_ours = {"Key": TAG, "Value": record.token} in tags
                if is_ours:
                    return self.handle({"cluster": cluster["Id"]}, record)
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "terminate_job_flows", {"JobFlowIds": list(self.ids(handle, "cluster"))}

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)

    def trigger(self, theirs: Any) -> Any:
        ours = super().trigger(theirs)
        if ours is not theirs:
            ours.kwargs["waiter_name"] = theirs.waiter_name  # which the provider's trigger forgets to serialise
        return ours


@durable_operator(EmrSteps)
class ResumableEmrAddStepsOperator(EmrAddStepsOperator):
    """
    `EmrAddStepsOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The steps of one task are one job: it is active while one of them is, and has succeeded when all have. Each step's name ends
    in a short mark, `` [r:…:0/2]``, by which a submit whose answer was lost is found again. Unlike the provider's, it cancels
    its steps when a user stops the task.
    """


@durable_operator(EmrCluster)
class ResumableEmrCreateJobFlowOperator(EmrCreateJobFlowOperator):
    """
    `EmrCreateJobFlowOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The job is the start of the cluster, until what ``wait_policy`` waits for. The cluster has the tag ``resumable-token``, by
    which a submit whose answer was lost is found again. Where clusters may not be tagged, a subclass with ``mark_in = "name"``
    has a short mark, `` [r:…]``, at the end of the cluster's name instead. A user's stop terminates the cluster while it is
    waited for, also while the task is deferred. A wait that failed terminates no cluster that starts, whatever
    ``terminate_job_flow_on_failure`` says; one that is waited for with ``WAIT_FOR_STEPS_COMPLETION`` is so with
    ``deferrable=True`` too.
    """


@durable_operator(EksJobRun)
class ResumableEmrContainerOperator(EmrContainerOperator):
    """
    `EmrContainerOperator` (EMR on EKS) with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A ``client_request_token`` of your own is sent as written, with a warning. A user's stop cancels the job run with one
    request, whatever ``cancel_on_kill`` says; the provider's waits for the end of the run.
    """


@durable_operator(ServerlessJobRun)
class ResumableEmrServerlessStartJobOperator(EmrServerlessStartJobOperator):
    """
    `EmrServerlessStartJobOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A ``client_request_token`` of your own is sent as written, with a warning; the token is in the job run's name where none is
    given. A user's stop cancels the job run with one request, whatever ``cancel_on_kill`` says; the provider's waits for the end
    of the run. Without ``deferrable=True`` the provider cancels the run after ``waiter_max_attempts`` looks; this one leaves it
    running.
    """


@durable_operator(NotebookExecution)
class ResumableEmrStartNotebookExecutionOperator(EmrStartNotebookExecutionOperator):
    """
    `EmrStartNotebookExecutionOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The job is the start of the notebook, until it runs, as the provider's wait has it: one that fails later fails no task. The
    execution's name ends in 24 hex characters, by which a start whose answer was lost is found again. Unlike the provider's, it
    stops the execution when a user stops the task, and fails at once when somebody stopped it before it ran.
    """


def _cluster_mark(token: str) -> str:
    return f" [r:{token[:24]}]"


def _ids(handle: JobHandle) -> tuple[str, list[str]]:
    ids = handle.ids if isinstance(handle.ids, Mapping) else {}
    cluster, steps = ids.get("cluster"), ids.get("steps")
    if isinstance(cluster, str) and isinstance(steps, list) and steps and all(isinstance(s, str) for s in steps):
        return cluster, steps
    raise RecordError(
        f"The record holds {handle.ids!r} as the ids of EMR steps, which they are not. Nothing was submitted, and the steps, if "
        "there are any, are left alone. Look for them on the cluster, then delete the task state key 'resumable' of this task "
        "instance."
    )


def _job_state(states: Sequence[str]) -> JobState:
    failed, active = any(s in _FAILED for s in states), any(s in _ACTIVE for s in states)
    if not any(states):
        return JobState.GONE
    if any(s not in _ACTIVE | _FAILED | {"COMPLETED"} for s in states):
        return JobState.UNKNOWN
    if active:
        return JobState.FAILING if failed else JobState.ACTIVE
    return JobState.FAILED if failed else JobState.SUCCEEDED


def _summary(states: Sequence[str]) -> str:
    counts = {s or "NOT LISTED": states.count(s) for s in dict.fromkeys(states)}
    return ", ".join(f"{n} {s}" if len(states) > 1 else s for s, n in counts.items())
