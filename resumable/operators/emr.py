"""EMR that survives its worker: steps and clusters (class C), jobs on EKS and on EMR Serverless (class B).

AddJobFlowSteps and RunJobFlow know no token, so it is stamped into the steps' names, and on the cluster as a tag. StartJobRun
of EMR on EKS and of EMR Serverless takes a ``clientToken``.

Facts on the services (botocore service models and API references): step names hold 256 characters; ListSteps gives the newest
first, 50 a page, and takes at most 10 step ids; CancelSteps works on running steps from EMR 5.28 on; the steps of a terminated
cluster stay visible for about two months. ListClusters shows no tags and filters by time and state alone; DescribeCluster shows
tags; RunJobFlow with tags needs the permission ``elasticmapreduce:AddTags``. A job run on EKS tells its ``clientToken``, in
lists too. For how long EMR on EKS and EMR Serverless know a token is not documented: it is relied upon for an hour.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, Literal

from resumable import compat
from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.errors import InvalidAnswerError, RecordError
from resumable.lifecycle import Certainty, Deliver, JobState, Observation
from resumable.limits import Limit
from resumable.record import JobHandle, JobRecord
from resumable.triggers import StopGuard

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.emr import (
        EmrAddStepsOperator,
        EmrContainerOperator,
        EmrCreateJobFlowOperator,
        EmrServerlessStartJobOperator,
    )
    from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
    from botocore.exceptions import ClientError

    from resumable.operators._aws import HOUR, TAG, AwsReplay, require_taken

__all__ = [
    "ResumableEmrAddStepsOperator",
    "ResumableEmrAddStepsTrigger",
    "ResumableEmrContainerOperator",
    "ResumableEmrCreateJobFlowOperator",
    "ResumableEmrServerlessStartJobOperator",
]

STEP_IDS_A_CALL = 10
NAME_LENGTH = 256
CLOCK_SKEW = timedelta(minutes=15)

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
        for ids in _chunks(self._theirs["step_ids"]):
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


class ResumableEmrAddStepsOperator(AwsReplay, EmrAddStepsOperator):
    """
    `EmrAddStepsOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The steps of one task are one job: it is active while one of them is, and has succeeded when all have. Each step's name ends
    in a short mark, `` [r:…:0/2]``, by which a submit whose answer was lost is found again. Unlike the provider's, it cancels
    its steps when a user stops the task.
    """

    service = "emr"
    operation = "AddJobFlowSteps"
    asks_account = False  # the provider's DescribeCluster tells it
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    certainty = Certainty.FIND
    settle = 20.0
    doubt = "the token is in each step's name (`[r:…:0/2]`) and is looked up"
    window = "the submit reaches EMR, or `ListSteps` shows it, later than 20 seconds after it was sent or its answer was lost"
    wait_argument = "wait_for_completion"

    def stamp(self, params: dict[str, Any], token: str) -> None:
        count = len(params["Steps"])
        for i, step in enumerate(params["Steps"]):
            mark = f" [r:{token[:24]}:{i}/{count}]"
            step["Name"] = str(step.get("Name", ""))[: NAME_LENGTH - len(mark)] + mark

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
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
        arn = str(response.get("Cluster", {}).get("ClusterArn", ""))  # arn:aws:elasticmapreduce:REGION:ACCOUNT:cluster/j-…
        return arn.split(":")[4] if arn.count(":") >= 5 else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"StepIds": list(_ids(handle)[1])}

    def before_execute(self, attempt: Attempt) -> None:
        if attempt.handle is not None:  # a name may mean another cluster by now; the steps are on this one
            self.job_flow_id, self.job_flow_name = _ids(attempt.handle)[0], None

    def observe(self, handle: JobHandle) -> Observation:
        cluster, steps = _ids(handle)
        seen: dict[str, str] = {}
        try:
            for ids in _chunks(steps):
                for step in self.hook.conn.list_steps(ClusterId=cluster, StepIds=ids)["Steps"]:
                    seen[step["Id"]] = step["Status"]["State"]
        except ClientError as e:
            is_unknown = e.response["Error"]["Code"] == "InvalidRequestException" and "is not valid" in str(e)
            if not is_unknown or "account" not in handle.place:  # it is the cluster that is not known, perhaps here alone
                raise
            return self._resumable_missing(handle, str(e))
        states = [seen.get(step, "") for step in steps]
        state = _job_state(states)
        return self._resumable_missing(handle, "not listed") if state is JobState.GONE else Observation(state, _summary(states))

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        oldest = datetime.fromtimestamp(record.intended_at, timezone.utc) - CLOCK_SKEW
        found: dict[int, str] = {}
        wanted = 0
        for step in self._resumable_newest_steps(cluster):
            if step["Status"]["Timeline"]["CreationDateTime"] < oldest:
                break
            mark = _MARKER.search(step["Name"])
            if mark and mark[1] == record.token[:24]:
                found[int(mark[2])], wanted = step["Id"], int(mark[3])
        if not found:
            return None
        if len(found) != wanted:
            raise RuntimeError(f"{len(found)} of {wanted} steps with the mark {record.token[:24]} are visible on {cluster}")
        account = self.account_in("DescribeCluster", self.hook.conn.describe_cluster(ClusterId=cluster))
        place = {**self.place(), **({"account": account} if account else {})}
        return JobHandle(self.service, {"cluster": cluster, "steps": [found[i] for i in range(wanted)]}, place)

    def _resumable_newest_steps(self, cluster: str) -> Iterator[Mapping[str, Any]]:
        for page in self.hook.conn.get_paginator("list_steps").paginate(ClusterId=cluster):
            yield from page["Steps"]

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, steps = _ids(handle)
        return "cancel_steps", {"ClusterId": cluster, "StepIds": steps, "StepCancellationOption": "SEND_INTERRUPT"}

    def is_stopping(self, seen: Observation) -> bool:
        """Each step that has not ended is being cancelled: a cancel is refused, step by step, for those that have ended."""
        words = set(re.findall(r"[A-Z_]+", seen.detail))
        return "CANCEL_PENDING" in words and not words & {"PENDING", "RUNNING"}

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion or self.deferrable)

    def trigger(self, theirs: Any) -> ResumableEmrAddStepsTrigger:
        return ResumableEmrAddStepsTrigger(**theirs.serialize()[1])

    def defer(self, *, trigger: Any, **kwargs: Any) -> Any:
        if self._resumable_attempt is not None and isinstance(self._resumable_attempt.plan, Deliver):
            return None  # nothing to wait for: the provider's execute goes on and returns the step ids
        return super().defer(trigger=trigger, **kwargs)


class ResumableEmrCreateJobFlowOperator(AwsReplay, EmrCreateJobFlowOperator):
    """
    `EmrCreateJobFlowOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The job is the start of the cluster, until what ``wait_policy`` waits for. The cluster has the tag ``resumable-token``, by
    which a submit whose answer was lost is found again. Where clusters may not be tagged, a subclass with ``mark_in = "name"``
    has a short mark, `` [r:…]``, at the end of the cluster's name instead. A user's stop terminates the cluster while it is
    waited for, also while the task is deferred. A wait that failed terminates no cluster that starts, whatever
    ``terminate_job_flow_on_failure`` says; one that is waited for with ``WAIT_FOR_STEPS_COMPLETION`` is so with
    ``deferrable=True`` too.
    """

    mark_in: ClassVar[Literal["tag", "name"]] = "tag"

    service = "emr"
    operation = "RunJobFlow"
    limits = (Limit("waiter_max_attempts", "waiter_delay", default=60),)
    looks = ("DescribeCluster",)
    certainty = Certainty.FIND
    settle = 30.0
    wait_argument = "wait_for_completion"
    reach_fields = (*AwsReplay.reach_fields, "wait_policy")
    doubt = "the token is a tag of the cluster (`resumable-token`) and is looked up among the clusters created since"
    window = "the submit reaches EMR, or `ListClusters` shows it, later than 30 seconds after it was sent or its answer was lost"
    active = frozenset({"STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING"})
    stopping = frozenset({"TERMINATING"})
    failed = frozenset({"TERMINATED_WITH_ERRORS"})
    missing_codes = frozenset({"InvalidRequestException"})
    missing_words = re.compile(r"(?i)cluster id .* is not valid")
    look_path = "Cluster.Status.State"  # the stop terminates the cluster, which others use once it has started

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self.terminate_job_flow_on_failure = False

    def stamp(self, params: dict[str, Any], token: str) -> None:
        if self.mark_in == "tag":
            params["Tags"] = [*params.get("Tags", []), {"Key": TAG, "Value": token}]
        else:
            mark = _cluster_mark(token)
            params["Name"] = str(params["Name"])[: NAME_LENGTH - len(mark)] + mark

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"cluster": self.wanted(response.get("JobFlowId"), "JobFlowId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"JobFlowId": self.ids(handle, "cluster")[0]}

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "describe_cluster", {"ClusterId": self.ids(handle, "cluster")[0]}

    def state_of(self, handle: JobHandle) -> str | None:
        method, arguments = self.look_call(handle)
        return str(getattr(self.hook.conn, method)(**arguments)["Cluster"]["Status"]["State"])

    def place_state(self, word: str) -> JobState:
        ready = {"TERMINATED"} if self._resumable_waits_for_steps() else {"RUNNING", "WAITING", "TERMINATED"}
        return JobState.SUCCEEDED if word in ready else super().place_state(word)

    def _resumable_waits_for_steps(self) -> bool:
        policy = getattr(self, "wait_policy", None)
        return getattr(policy, "value", policy) == "wait_for_steps_completion"  # from a record it comes as text

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

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion)

    def trigger(self, theirs: Any) -> Any:
        ours = super().trigger(theirs)
        if ours is not theirs:
            ours.kwargs["waiter_name"] = theirs.waiter_name  # which the provider's trigger forgets to serialise
        return ours


class ResumableEmrContainerOperator(AwsReplay, EmrContainerOperator):
    """
    `EmrContainerOperator` (EMR on EKS) with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A ``client_request_token`` of your own is sent as written, with a warning. A user's stop cancels the job run with one
    request, whatever ``cancel_on_kill`` says; the provider's waits for the end of the run.
    """

    service = "emr-containers"
    token_member = "clientToken"
    limits = (Limit("max_polling_attempts", "poll_interval"),)
    operation = "StartJobRun"
    looks = ("DescribeJobRun",)
    wait_argument = "wait_for_completion"
    token_lifetime = HOUR
    finds_expired = True
    settle = 30.0
    active = frozenset({"PENDING", "SUBMITTED", "RUNNING", "CANCEL_PENDING"})
    stopping = frozenset({"CANCEL_PENDING"})
    succeeded = frozenset({"COMPLETED"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"ResourceNotFoundException"})  # of the virtual cluster, too
    missing_words = re.compile(r"(?i)job ?run")
    doubt = "the job run is started again with the same `clientToken`; after an hour it is looked up by that token"
    window = "none known"

    def own_token(self, params: Mapping[str, Any]) -> str | None:
        return super().own_token(params) if self.client_request_token else None  # else the provider has made one up

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"cluster": str(params["virtualClusterId"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        self._resumable_account = _account(response.get("arn"))
        return {"cluster": str(params["virtualClusterId"]), "run": self.wanted(response.get("id"), "id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        cluster, run = self.ids(handle, "cluster", "run")
        return {"id": run, "virtualClusterId": cluster}

    def state_of(self, handle: JobHandle) -> str | None:
        cluster, run = self.ids(handle, "cluster", "run")
        return str(self.hook.conn.describe_job_run(virtualClusterId=cluster, id=run)["jobRun"]["state"])

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        pages = self.hook.conn.get_paginator("list_job_runs").paginate(virtualClusterId=cluster, createdAfter=self.oldest(record))
        for page in pages:
            for run in page["jobRuns"]:
                if run.get("clientToken") == record.token:
                    return self.handle({"cluster": cluster, "run": run["id"]}, record)
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, run = self.ids(handle, "cluster", "run")
        return "cancel_job_run", {"virtualClusterId": cluster, "id": run}


class ResumableEmrServerlessStartJobOperator(AwsReplay, EmrServerlessStartJobOperator):
    """
    `EmrServerlessStartJobOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A ``client_request_token`` of your own is sent as written, with a warning; the token is in the job run's name where none is
    given. A user's stop cancels the job run with one request, whatever ``cancel_on_kill`` says; the provider's waits for the end
    of the run. Without ``deferrable=True`` the provider cancels the run after ``waiter_max_attempts`` looks; this one leaves it
    running.
    """

    service = "emr-serverless"
    token_member = "clientToken"
    limits = (Limit("waiter_max_attempts", "waiter_delay", default=25),)
    stops = ("CancelJobRun",)
    operation = "StartJobRun"
    looks = ("GetJobRun",)
    assumed = {"GetApplication": {"application": {"state": "STARTED"}}}  # the provider starts one that has stopped, for money
    conflicts = frozenset({"ConflictException"})
    wait_argument = "wait_for_completion"
    token_lifetime = HOUR
    active = frozenset({"SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING", "CANCELLING"})
    stopping = frozenset({"CANCELLING"})
    succeeded = frozenset({"SUCCESS"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"ResourceNotFoundException"})  # of the application, too
    missing_words = re.compile(r"(?i)job ?run")
    doubt = "the job run is started again with the same `clientToken`; the service answers with the one it has"
    window = "none known within an hour; an older doubt is refused (EMR Serverless does not say for how long it knows a token)"

    name: str | None
    config: dict[str, Any]

    def before_execute(self, attempt: Attempt) -> None:
        named_by = self._resumable_given_token() or attempt.token
        self.name = self.name or self.config.get("name") or f"emr_serverless_job_airflow_{named_by}"
        self.config = {key: value for key, value in self.config.items() if key != "name"}

    def own_token(self, params: Mapping[str, Any]) -> str | None:
        return super().own_token(params) if self._resumable_given_token() else None  # else the provider has made one up

    def _resumable_given_token(self) -> Any:
        return self.config.get("clientToken") or compat.given(self).get("client_request_token")

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        if self._resumable_is_durable and next_method == "execute":  # the provider had deferred for the start of its application
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Any, event: dict[str, Any] | None = None) -> Any:
        """The provider's; where the trigger tells a failure, the provider's fails to read it."""
        if self._resumable_is_durable and event is not None and event.get("status") != "success":
            msg = f"EMR Serverless job failed, or waiting for it did: {event}"
            raise RuntimeError(msg)
        return super().execute_complete(context, event)

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        self._resumable_account = _account(response.get("arn"))
        return {"application": str(params["applicationId"]), "run": self.wanted(response.get("jobRunId"), "jobRunId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        application, run = self.ids(handle, "application", "run")
        return {"applicationId": application, "jobRunId": run}

    def state_of(self, handle: JobHandle) -> str | None:
        application, run = self.ids(handle, "application", "run")
        return str(self.hook.conn.get_job_run(applicationId=application, jobRunId=run)["jobRun"]["state"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        application, run = self.ids(handle, "application", "run")
        return "cancel_job_run", {"applicationId": application, "jobRunId": run}

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion)


def _cluster_mark(token: str) -> str:
    return f" [r:{token[:24]}]"


def _account(arn: Any) -> str | None:
    parts = str(arn).split(":")
    return parts[4] or None if len(parts) > 5 else None


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


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), STEP_IDS_A_CALL):
        yield list(ids[start : start + STEP_IDS_A_CALL])


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
