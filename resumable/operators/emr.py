"""EMR steps that survive their worker: class C. AddJobFlowSteps knows no token, so it is stamped into the steps' names.

Facts on the service (botocore service model and API reference): step names hold 256 characters; ListSteps gives the newest first,
50 a page, and takes at most 10 step ids; CancelSteps works on running steps from EMR 5.28 on; the steps of a terminated cluster
stay visible for about two months.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.errors import InvalidAnswerError, RecordError
from resumable.lifecycle import Certainty, Deliver, JobState, Observation
from resumable.policy import OnClear
from resumable.record import JobHandle, JobRecord
from resumable.triggers import StopGuard

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
    from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
    from botocore.exceptions import ClientError

    from resumable.operators._aws import AwsReplay

__all__ = ["ResumableEmrAddStepsOperator", "ResumableEmrAddStepsTrigger"]

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

    def __init__(self, *, keeps_on_clear: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keeps_on_clear = keeps_on_clear
        self._theirs = kwargs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {**super().serialize()[1], "keeps_on_clear": self.keeps_on_clear}

    async def run(self) -> AsyncIterator[Any]:
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
            await client.cancel_steps(
                ClusterId=self._theirs["job_flow_id"],
                StepIds=self._theirs["step_ids"],
                StepCancellationOption="SEND_INTERRUPT",
            )


class ResumableEmrAddStepsOperator(AwsReplay, EmrAddStepsOperator):
    """
    `EmrAddStepsOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The steps of one task are one job: it is active while one of them is, and has succeeded when all have. Each step's name ends in a
    short mark, `` [r:…:0/2]``, by which a submit whose answer was lost is found again. Unlike the provider's, it cancels its steps
    when a user stops the task.
    """

    service = "emr"
    operation = "AddJobFlowSteps"
    certainty = Certainty.FIND
    settle = 20.0
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
                f"EMR answered {len(params['Steps'])} steps with the ids {steps!r}. Steps may be running on {params['JobFlowId']}: "
                "look for them there. The next try looks them up by their mark."
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
            if e.response["Error"]["Code"] != "InvalidRequestException" or "is not valid" not in str(e):
                raise
            return self._missing(handle, str(e))
        states = [seen.get(step, "") for step in steps]
        return Observation(_job_state(states), _summary(states))

    def _missing(self, handle: JobHandle, answer: str) -> Observation:
        account = handle.place.get("account")
        if account and account != (here := self.hook.account_id):
            return Observation(JobState.FOREIGN, f"account {here}")
        return Observation(JobState.GONE, answer)

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        oldest = datetime.fromtimestamp(record.intended_at, timezone.utc) - CLOCK_SKEW
        found: dict[int, str] = {}
        wanted = 0
        for step in self._newest_steps(cluster):
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

    def _newest_steps(self, cluster: str) -> Iterator[Mapping[str, Any]]:
        for page in self.hook.conn.get_paginator("list_steps").paginate(ClusterId=cluster):
            yield from page["Steps"]

    def cancel(self, handle: JobHandle) -> None:
        cluster, steps = _ids(handle)
        self.hook.conn.cancel_steps(ClusterId=cluster, StepIds=steps, StepCancellationOption="SEND_INTERRUPT")

    def _waits(self) -> bool:
        return bool(self.wait_for_completion or self.deferrable)

    def trigger(self, theirs: Any) -> ResumableEmrAddStepsTrigger:
        return ResumableEmrAddStepsTrigger(**theirs.serialize()[1], keeps_on_clear=self.resume_policy.on_clear is OnClear.REATTACH)

    def defer(self, *, trigger: Any, **kwargs: Any) -> Any:
        if self._attempt is not None and isinstance(self._attempt.plan, Deliver):
            return None  # nothing to wait for: the provider's execute goes on and returns the step ids
        return super().defer(trigger=trigger, **kwargs)


def _ids(handle: JobHandle) -> tuple[str, list[str]]:
    ids = handle.ids if isinstance(handle.ids, Mapping) else {}
    cluster, steps = ids.get("cluster"), ids.get("steps")
    if isinstance(cluster, str) and isinstance(steps, list) and steps and all(isinstance(s, str) for s in steps):
        return cluster, steps
    raise RecordError(
        f"The record holds {handle.ids!r} as the ids of EMR steps, which they are not. Nothing was submitted, and the steps, if there "
        "are any, are left alone. Look for them on the cluster, then delete the task state key 'resumable' of this task "
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
