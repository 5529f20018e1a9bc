"""ECS tasks that survive their worker: class B, RunTask's own token.

Facts on the service (developer guide, ECS_Idempotency; botocore's service model): ``clientToken`` holds 64 characters and is
known per cluster for 24 hours, or an hour after the end of the task if that is sooner; with other parameters it is answered
with a ConflictException that names the task. RunTask may answer with HTTP 200 and ``failures``. A stopped task is described and
listed for an hour. ``startedBy`` holds 128 characters; ListTasks filters by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import Deliver, JobState
from resumable.limits import Limit
from resumable.record import JobHandle, JobRecord
from resumable.spec import is_of_the_job

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator

    from resumable.operators._aws import HOUR, AwsReplay

__all__ = ["ResumableEcsRunTaskOperator"]

_BAD = "EXITED "


class ResumableEcsRunTaskOperator(AwsReplay, EcsRunTaskOperator):
    """
    `EcsRunTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The token is the task's ``clientToken`` and its ``startedBy``, by which a task is found once ECS may have forgotten the
    token; the provider's ``reattach``, which uses ``startedBy`` too, is not in effect. A wait that failed stops no task that
    runs, whatever ``stop_task_on_failure`` says. A user's stop stops the task, also while the Airflow task is deferred.

    A stopped task is known to ECS for an hour: an attempt that comes later finds it missing (``on_missing``).
    """

    spec_fields = tuple(name for name in EcsRunTaskOperator.template_fields if is_of_the_job(name) and name != "container_name")
    service = "ecs"
    operation = "RunTask"
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    looks = ("DescribeTasks",)
    conflicts = frozenset({"ConflictException"})
    wait_argument = "wait_for_completion"
    asks_account = True
    token_lifetime = HOUR
    finds_expired = True
    active = frozenset({"PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"})
    stopping = frozenset({"DEACTIVATING", "STOPPING", "DEPROVISIONING"})
    succeeded = frozenset({"STOPPED"})
    doubt = (
        "the task is run again with the same `clientToken`; ECS answers with the one it has. After an hour: looked up "
        "by `startedBy`"
    )
    window = (
        "none within an hour of the submit; later, a task that has ended more than an hour before is not found and runs "
        "again"
    )

    container_name: str | None

    def before_execute(self, attempt: Attempt) -> None:
        self.reattach = False
        self.stop_task_on_failure = False
        if attempt.handle is None or self.container_name or not (self.awslogs_group and self.awslogs_stream_prefix):
            return
        containers = (self._described(attempt.handle) or {}).get("containers") or []  # or the provider waits 40 seconds to ask
        if containers:
            self.container_name = containers[0]["name"]

    def stamp(self, params: dict[str, Any], token: str) -> None:
        params["clientToken"] = params["startedBy"] = token

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"cluster": str(params.get("cluster") or "default")}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str] | None:
        tasks = response.get("tasks") or []
        if not tasks and response.get("failures"):
            return None
        arn = self.wanted(tasks[0].get("taskArn") if tasks else None, "taskArn")
        return {"cluster": str(params.get("cluster") or "default"), "task": arn}

    def adopted(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> Any:  # noqa: ARG002
        arns = error.get("resourceIds") or []
        return {"cluster": str(params.get("cluster") or "default"), "task": arns[0]} if arns else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"tasks": [{"taskArn": self.ids(handle, "task")[0]}], "failures": []}

    def _described(self, handle: JobHandle) -> Mapping[str, Any] | None:
        cluster, task = self.ids(handle, "cluster", "task")
        found = self.hook.conn.describe_tasks(cluster=cluster, tasks=[task])["tasks"]
        return found[0] if found else None

    def state_of(self, handle: JobHandle) -> str | None:
        task = self._described(handle)
        if task is None:
            return None
        if task["lastStatus"] != "STOPPED":
            return str(task["lastStatus"])
        codes = [container.get("exitCode", 1) for container in task.get("containers", [])]
        if task.get("stopCode") == "TaskFailedToStart" or any(codes):
            return _BAD + ",".join(map(str, codes))
        return "STOPPED"

    def place_state(self, word: str) -> JobState:
        return JobState.FAILED if word.startswith(_BAD) else super().place_state(word)

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        for status in ("RUNNING", "STOPPED"):
            arns = self.hook.conn.list_tasks(cluster=cluster, startedBy=record.token, desiredStatus=status)["taskArns"]
            if arns:
                return self.handle({"cluster": cluster, "task": arns[0]}, record)
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, task = self.ids(handle, "cluster", "task")
        return "stop_task", {"cluster": cluster, "task": task, "reason": "stopped by Airflow"}

    # -- a task that has succeeded and may be forgotten by now: the provider's wait for it would not end ---------------

    def _has_succeeded(self) -> bool:
        return self._is_durable and self._attempt is not None and isinstance(self._attempt.plan, Deliver)

    def defer(self, **kwargs: Any) -> Any:
        return None if self._has_succeeded() else super().defer(**kwargs)

    def _wait_for_task_ended(self) -> None:
        if not self._has_succeeded():
            super()._wait_for_task_ended()

    def _check_success_task(self) -> None:
        if not self._has_succeeded():
            super()._check_success_task()
