"""ECS tasks that survive their worker; recovery: repeat by token, RunTask's own token.

Facts on the service (developer guide, ECS_Idempotency; botocore's service model): ``clientToken`` holds 64 characters and is
known per cluster for 24 hours, or an hour after the end of the task if that is sooner; with other parameters it is answered
with a ConflictException that names the task. RunTask may answer with HTTP 200 and ``failures``. A stopped task is described and
listed for an hour. ``startedBy`` holds 128 characters; ListTasks filters by it. DescribeTasks tells why it does not show a task
(``failures``): MISSING means that there is none, or not yet. After RunTask that may last "up to five minutes" (API reference).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable import host
from resumable._extras import provider_import
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Deliver, JobState, Observation
from resumable.jobs.deferral import is_extended
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord
from resumable.jobs.spec import is_of_the_job

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator

    from resumable.operators._aws import HOUR, AwsCall

__all__ = ["ResumableEcsRunTaskOperator"]

_BAD, _SKIPPED = "EXITED ", "SKIPPED BY EXIT CODE "
_quiet = logging.Logger("resumable.ecs")  # the provider's check logs the whole description each time


class _Judged:
    """The operator as the provider's own check of a stopped task sees it, on what was just described of that task."""

    def __init__(self, operator: Any, task: Mapping[str, Any]) -> None:
        self._operator, self._task = operator, {"containers": [], **task}
        self.client, self.arn, self.task_log_fetcher, self.log = self, task["taskArn"], None, _quiet
        self.cluster = getattr(operator, "cluster", None)  # this, and the next: not for a job of a record
        self.skip_on_exit_code = getattr(operator, "skip_on_exit_code", ())

    def describe_tasks(self, **_: Any) -> dict[str, Any]:
        return {"tasks": [self._task], "failures": []}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)


class EcsTask(AwsCall):
    """One task on a cluster."""

    together = "ecs"
    service = "ecs"
    operation = "RunTask"
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    status_calls = ("DescribeTasks",)
    conflicts = frozenset({"ConflictException"})
    wait_argument = "wait_for_completion"
    token_lifetime = HOUR
    visible_after = 300.0
    finds_expired = True
    active = frozenset({"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"})
    stopping = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING"})
    succeeded = frozenset({"STOPPED"})
    doubt = (
        "the task is run again with the same `clientToken`; ECS answers with the one it has. After an hour: looked up "
        "by `startedBy`"
    )
    window = (
        "none within an hour of the submit; later, a task that has ended more than an hour before is not found and runs again"
    )

    def before_execute(self, attempt: Attempt) -> None:
        operator = self.operator
        operator.reattach = operator.stop_task_on_failure = False
        has_logs = operator.awslogs_group and operator.awslogs_stream_prefix
        if attempt.handle is None or operator.container_name or not has_logs:
            return
        # Or the provider waits 40 seconds to ask.
        containers = (self._described(attempt.handle) or {}).get("containers") or []
        if containers:
            operator.container_name = containers[0]["name"]

    def add_token(self, params: dict[str, Any], token: str) -> None:
        params["clientToken"] = params["startedBy"] = token

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"cluster": str(params.get("cluster") or "default")}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str] | None:
        tasks = response.get("tasks") or []
        if not tasks and response.get("failures"):
            return None
        arn = self.require_id(tasks[0].get("taskArn") if tasks else None, "taskArn")
        return {"cluster": str(params.get("cluster") or "default"), "task": arn}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> Any:  # noqa: ARG002
        arns = error.get("resourceIds") or []
        return {"cluster": str(params.get("cluster") or "default"), "task": arns[0]} if arns else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"tasks": [{"taskArn": self.ids(handle, "task")[0]}], "failures": []}

    def _described(self, handle: JobHandle) -> Mapping[str, Any] | None:
        cluster, task = self.ids(handle, "cluster", "task")
        answer = self.hook.conn.describe_tasks(cluster=cluster, tasks=[task])
        if answer["tasks"]:
            shown: Mapping[str, Any] = answer["tasks"][0]
            return shown
        if any(failure.get("reason") != "MISSING" for failure in answer.get("failures", ())):
            raise RuntimeError(f"ECS does not show {task}: {answer['failures']}")
        return None

    def state_of(self, handle: JobHandle) -> str | None:
        task = self._described(handle)
        if task is None:
            return None
        if task["lastStatus"] != "STOPPED":
            return str(task["lastStatus"])
        codes = ",".join(str(container.get("exitCode")) for container in task.get("containers", []))
        try:
            EcsRunTaskOperator._check_success_task(_Judged(self.operator, task))
        except (AttributeError, LookupError, TypeError):  # of a check that reads what is not there: no verdict
            raise
        except Exception as e:
            return (_SKIPPED if host.is_skip(e) else _BAD) + codes
        return "STOPPED"

    def classify(self, word: str) -> JobState:
        if word.startswith(_SKIPPED):
            return JobState.SUCCEEDED
        return JobState.FAILED if word.startswith(_BAD) else super().classify(word)

    def end_to_keep(self, seen: Observation) -> str:
        return seen.detail if seen.detail.startswith(_SKIPPED) else ""

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        for status in ("RUNNING", "STOPPED"):
            pages = self.hook.conn.get_paginator("list_tasks").paginate(
                cluster=cluster, startedBy=record.token, desiredStatus=status
            )
            if arn := next((arn for page in pages for arn in page["taskArns"]), None):
                return self.handle({"cluster": cluster, "task": arn}, record)
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, task = self.ids(handle, "cluster", "task")
        return "stop_task", {"cluster": cluster, "task": task, "reason": "stopped by Airflow"}

    # -- a task that has succeeded and may be forgotten by now: the provider's wait for it would not end ---------------

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        ways = {"defer": self._defer, "_wait_for_task_ended": self._wait, "_check_success_task": self._check}
        with replaced(self.operator, **ways), super().intercept(attempt):
            yield

    def _has_succeeded(self) -> bool:
        return isinstance(self.attempt.plan, Deliver)

    def _defer(self, **kwargs: Any) -> Any:
        handle, has_succeeded = self.attempt.handle, self._has_succeeded()
        is_shown = has_succeeded and is_extended(self.operator) and handle is not None and self._described(handle) is not None
        if not has_succeeded or is_shown:
            return type(self.operator).defer(self.operator, **kwargs)
        if not self.operator.wait_for_completion:  # the provider's execute does not go on to its check, its deferral would have
            self._check()
        return None

    def _wait(self) -> None:
        if not self._has_succeeded():
            type(self.operator)._wait_for_task_ended(self.operator)

    def _check(self) -> None:
        """The provider's, which may skip the Airflow task; of a task that ECS has forgotten the record says how it ended."""
        handle, record = self.attempt.handle, self.attempt.record
        if not self._has_succeeded() or (handle is not None and self._described(handle) is not None):
            type(self.operator)._check_success_task(self.operator)
        elif record is not None and record.ended_as:
            code = record.ended_as.removeprefix(_SKIPPED)
            raise host.skip(f"{handle} had ended with exit code {code}, one of skip_on_exit_code; ECS has forgotten it")


@durable_operator(EcsTask)
class ResumableEcsRunTaskOperator(EcsRunTaskOperator):
    """
    `EcsRunTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The token is the task's ``clientToken`` and its ``startedBy``, by which a task is found once ECS may have forgotten the
    token; the provider's ``reattach``, which uses ``startedBy`` too, is not in effect. A wait that failed stops no task that
    runs, whatever ``stop_task_on_failure`` says. A user's stop stops the task, also while the Airflow task is deferred.

    A stopped task is known to ECS for an hour: an attempt that comes later finds it missing (``on_missing``). How one has ended
    is what the provider's own check says of it. An exit code out of ``skip_on_exit_code`` is an end that is delivered: it skips
    the Airflow task, also when nobody saw it.
    """

    spec_fields = tuple(name for name in EcsRunTaskOperator.template_fields if is_of_the_job(name) and name != "container_name")
