"""
DataSync task executions that survive their worker.

Recovery: look up. StartTaskExecution knows no token, so it is a tag, and looked up.

Facts on the service (botocore's service model): an execution can be tagged when it is started, which may need the permission
``datasync:TagResource``; ListTaskExecutions shows ARNs and states of a task's executions, ListTagsForResource the tags of one;
a task runs one execution at a time. Every error is an InvalidRequestException; that of something unknown has "not found" in its
message (Terraform's AWS provider tells it by that).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable import host
from resumable._extras import provider_import
from resumable.helpers import account_of, replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Deliver, Recovery
from resumable.jobs.limits import Limit, tells_of_limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord, Outcome

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.datasync import DataSyncOperator
    from botocore.exceptions import ClientError

    from resumable.operators._aws import TAG, AwsCall

__all__ = ["ResumableDataSyncOperator"]

_STOPPING = "CANCELLING"


class DataSyncExecution(AwsCall):
    """One execution of a task."""

    service = "datasync"
    operation = "StartTaskExecution"
    setup_calls = ("UpdateTask",)
    unrepeatable_calls = ("CreateLocationS3", "CreateLocationSmb", "CreateLocationNfs", "CreateLocationEfs", "CreateTask")
    recovery = Recovery.LOOK_UP
    settle = 30.0
    wait_argument = "wait_for_completion"
    limits = (Limit("max_iterations", "wait_interval_seconds"),)
    doubt = "the token is a tag of the execution (`resumable-token`) and is looked up among the executions of the task"
    window = (
        "the start reaches DataSync, or `ListTaskExecutions` shows the execution, later than 30 seconds after it was sent or its "
        "answer was lost"
    )
    active = frozenset({"INITIALIZING", "QUEUED", "LAUNCHING", "PREPARING", "TRANSFERRING", "VERIFYING", _STOPPING})
    stopping = frozenset({_STOPPING})
    succeeded = frozenset({"SUCCESS"})
    failed = frozenset({"ERROR"})

    def add_token(self, params: dict[str, Any], token: str) -> None:
        params["Tags"] = [*params.get("Tags", ()), {"Key": TAG, "Value": token}]

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"task": str(params["TaskArn"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        execution = self.require_id(response.get("TaskExecutionArn"), "execution's ARN")
        self.known_account = account_of(execution) or self.known_account
        return {"task": str(params["TaskArn"]), "execution": execution}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"TaskExecutionArn": self.ids(handle, "execution")[0]}

    def state_of(self, handle: JobHandle) -> str:
        return str(self.hook.conn.describe_task_execution(TaskExecutionArn=self.ids(handle, "execution")[0])["Status"])

    def is_missing(self, error: ClientError) -> bool:
        return _is_unknown(error.response) and "execution" in str(error.response["Error"].get("Message", "")).lower()

    def find(self, record: JobRecord) -> JobHandle | None:
        task = record.place["task"]
        self.known_account = account_of(task) or self.known_account
        return next(
            (
                self.handle({"task": task, "execution": execution})
                for execution in self._executions(task)
                if {"Key": TAG, "Value": record.token} in self._tags(execution)
            ),
            None,
        )

    def _executions(self, task: str) -> Iterator[str]:
        """The latest first, which is most likely the one; the list is in no order that is promised."""
        latest = self.hook.conn.describe_task(TaskArn=task).get("CurrentTaskExecutionArn")
        if latest:
            yield latest
        for page in self.hook.conn.get_paginator("list_task_executions").paginate(TaskArn=task):
            yield from (e["TaskExecutionArn"] for e in page["TaskExecutions"] if e["TaskExecutionArn"] != latest)

    def _tags(self, execution: str) -> list[dict[str, str]]:
        pages = self.hook.conn.get_paginator("list_tags_for_resource").paginate(ResourceArn=execution)
        return [tag for page in pages for tag in page["Tags"]]

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_task_execution", {"TaskExecutionArn": self.ids(handle, "execution")[0]}

    # -- the provider's own ways --------------------------------------------------------------------------------------

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        task, waits = self.operator.task_arn, self.operator.wait_for_completion
        if attempt.handle is not None:
            self.operator.task_arn = self.ids(attempt.handle, "task")[0]
        during = {
            # Once it has succeeded, the task may be deleted, and then nothing tells of its execution.
            "wait_for_completion": waits and not isinstance(attempt.plan, Deliver),
            "_cancel_datasync_task_execution": self._cancel_nothing,
        }
        # The provider's wait knows no CANCELLING, and would fail.
        vars(self.hook)["TASK_EXECUTION_INTERMEDIATE_STATES"] = tuple(self.active)
        vars(self.hook)["wait_for_task_execution"] = self._wait
        events, delete = self.hook.conn.meta.events, f"{self.service_event}.DeleteTask"

        def done(**_: Any) -> None:
            """With the task goes its execution: that it has succeeded must be known before."""
            if waits:
                attempt.close(Outcome.SUCCEEDED)

        def deleted(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
            if http_response.status_code >= 300 and _is_unknown(parsed):
                http_response.status_code = 200
                parsed.clear()

        try:
            with replaced(self.operator, **during), super().intercept(attempt):
                events.register(f"before-call.{delete}", done)
                events.register(f"after-call.{delete}", deleted)
                yield
        except BaseException:  # what is executed again starts from what the author gave; what has succeeded tells its task
            self.operator.task_arn = task
            raise
        finally:
            events.unregister(f"before-call.{delete}", done)
            events.unregister(f"after-call.{delete}", deleted)

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        with replaced(self.operator, delete_task_after_execution=False), super().not_waiting():
            yield

    def _wait(self, *args: Any, **kwargs: Any) -> Any:
        """The hook's, which makes a task's time-out of its own limit: it counts as one only where the author says what then."""
        try:
            return type(self.hook).wait_for_task_execution(self.hook, *args, **kwargs)
        except host.task_timeout() as e:
            limit = self.limits[0].of_author(self.operator)
            is_asked_for = self.run.task.given.on_timeout is not None and limit is not None
            if tells_of_limit(e) and not is_asked_for:
                raise RuntimeError(str(e)) from None
            raise

    def _cancel_nothing(self) -> None:
        """The provider cancels on any exception of its wait, that of a status it could not get included."""


@durable_operator(DataSyncExecution)
class ResumableDataSyncOperator(DataSyncOperator):
    """
    `DataSyncOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The execution carries the tag ``resumable-token``, by which a start whose answer was lost is found again. A reattachment looks
    for no task, makes none and updates none. What the provider makes before, locations and the task, it finds again by their URIs
    in the next try; a request that makes one is sent once. Whether an execution is cancelled is for the policies to say, not for
    the provider's exceptions: at ``max_iterations`` it runs on, unless ``on_timeout="cancel"`` is given.
    """


def _is_unknown(answer: Mapping[str, Any]) -> bool:
    error = answer.get("Error", {})
    return error.get("Code") == "InvalidRequestException" and "not found" in str(error.get("Message", "")).lower()
