"""DataSync task executions that survive their worker: class C. StartTaskExecution knows no token, so it is a tag, and looked up.

Facts on the service (botocore's service model): an execution can be tagged when it is started, which may need the permission
``datasync:TagResource``; ListTaskExecutions shows ARNs and states of a task's executions, ListTagsForResource the tags of one;
a task runs one execution at a time. Every error is an InvalidRequestException; that of something unknown has "not found" in its
message (Terraform's AWS provider tells it by that).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resumable import compat
from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import Certainty, Deliver
from resumable.limits import Limit, tells_of_limit
from resumable.record import JobHandle, JobRecord, Outcome

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.datasync import DataSyncOperator
    from botocore.exceptions import ClientError

    from resumable.operators._aws import TAG, AwsReplay
    from resumable.operators._aws_names import account_of

__all__ = ["ResumableDataSyncOperator"]

_STOPPING = "CANCELLING"


class ResumableDataSyncOperator(AwsReplay, DataSyncOperator):
    """
    `DataSyncOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The execution carries the tag ``resumable-token``, by which a start whose answer was lost is found again. A reattachment looks
    for no task, makes none and updates none. What the provider makes before, locations and the task, it finds again by their URIs
    in the next try; a request that makes one is sent once. Whether an execution is cancelled is for the policies to say, not for
    the provider's exceptions: at ``max_iterations`` it runs on, unless ``on_timeout="cancel"`` is given.
    """

    service = "datasync"
    operation = "StartTaskExecution"
    setup = ("UpdateTask",)
    makes = ("CreateLocationS3", "CreateLocationSmb", "CreateLocationNfs", "CreateLocationEfs", "CreateTask")
    certainty = Certainty.FIND
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

    if TYPE_CHECKING:  # of the provider's operator
        task_arn: Any
        wait_for_completion: Any
        delete_task_after_execution: Any

    def stamp(self, params: dict[str, Any], token: str) -> None:
        params["Tags"] = [*params.get("Tags", ()), {"Key": TAG, "Value": token}]

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"task": str(params["TaskArn"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        execution = self.wanted(response.get("TaskExecutionArn"), "execution's ARN")
        self._resumable_account = account_of(execution) or self._resumable_account
        return {"task": str(params["TaskArn"]), "execution": execution}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"TaskExecutionArn": self.ids(handle, "execution")[0]}

    def state_of(self, handle: JobHandle) -> str:
        return str(self.hook.conn.describe_task_execution(TaskExecutionArn=self.ids(handle, "execution")[0])["Status"])

    def is_missing(self, error: ClientError) -> bool:
        return _is_unknown(error.response) and "execution" in str(error.response["Error"].get("Message", "")).lower()

    def find(self, record: JobRecord) -> JobHandle | None:
        task = record.place["task"]
        self._resumable_account = account_of(task) or self._resumable_account
        return next(
            (
                self.handle({"task": task, "execution": execution})
                for execution in self._resumable_executions(task)
                if {"Key": TAG, "Value": record.token} in self._resumable_tags(execution)
            ),
            None,
        )

    def _resumable_executions(self, task: str) -> Iterator[str]:
        """The latest first, which is most likely the one; the list is in no order that is promised."""
        latest = self.hook.conn.describe_task(TaskArn=task).get("CurrentTaskExecutionArn")
        if latest:
            yield latest
        for page in self.hook.conn.get_paginator("list_task_executions").paginate(TaskArn=task):
            yield from (e["TaskExecutionArn"] for e in page["TaskExecutions"] if e["TaskExecutionArn"] != latest)

    def _resumable_tags(self, execution: str) -> list[dict[str, str]]:
        pages = self.hook.conn.get_paginator("list_tags_for_resource").paginate(ResourceArn=execution)
        return [tag for page in pages for tag in page["Tags"]]

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_task_execution", {"TaskExecutionArn": self.ids(handle, "execution")[0]}

    # -- the provider's own ways --------------------------------------------------------------------------------------

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        task, waits = self.task_arn, self.wait_for_completion
        if attempt.handle is not None:
            self.task_arn = self.ids(attempt.handle, "task")[0]
        if isinstance(attempt.plan, Deliver):
            self.wait_for_completion = False  # the task may be deleted, and then nothing tells of its execution
        # The provider's wait knows no CANCELLING, and would fail.
        vars(self.hook)["TASK_EXECUTION_INTERMEDIATE_STATES"] = tuple(self.active)
        vars(self.hook)["wait_for_task_execution"] = self._resumable_wait
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
            with super().seam(attempt):
                events.register(f"before-call.{delete}", done)
                events.register(f"after-call.{delete}", deleted)
                yield
        finally:
            events.unregister(f"before-call.{delete}", done)
            events.unregister(f"after-call.{delete}", deleted)
            self.task_arn, self.wait_for_completion = task, waits

    @contextmanager
    def _resumable_not_waiting(self) -> Iterator[None]:
        deletes, self.delete_task_after_execution = self.delete_task_after_execution, False
        try:
            with super()._resumable_not_waiting():
                yield
        finally:
            self.delete_task_after_execution = deletes

    def _resumable_wait(self, *args: Any, **kwargs: Any) -> Any:
        """The hook's, which makes a task's time-out of its own limit: it counts as one only where the author says what then."""
        try:
            return type(self.hook).wait_for_task_execution(self.hook, *args, **kwargs)
        except compat.task_timeout() as e:
            is_asked_for = self._resumable_given_policy.on_timeout is not None and self.limits[0].of_author(self) is not None
            if tells_of_limit(e) and not is_asked_for:
                raise RuntimeError(str(e)) from None
            raise

    def _cancel_datasync_task_execution(self) -> None:
        """The provider cancels on any exception of its wait, that of a status it could not get included."""
        if not self._resumable_is_durable:
            super()._cancel_datasync_task_execution()


def _is_unknown(answer: Mapping[str, Any]) -> bool:
    error = answer.get("Error", {})
    return error.get("Code") == "InvalidRequestException" and "not found" in str(error.get("Message", "")).lower()
