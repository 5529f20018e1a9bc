"""RDS snapshot exports that survive their worker: class A. The author's identifier is the export's for ever.

Facts on the service (botocore's service model, API reference): an identifier that was used is answered with
ExportTaskAlreadyExists, also when that export failed; the files lie in S3 under the identifier, which is why the first one of a
task keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import Submit
from resumable.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.rds import RdsStartExportTaskOperator
    from botocore.exceptions import ClientError

    from resumable.operators._aws import AwsReplay
    from resumable.operators._aws_names import account_of, named

__all__ = ["ResumableRdsStartExportTaskOperator"]

NAME_LENGTH = 60
_GONE = frozenset({"ExportTaskNotFound", "ExportTaskNotFoundFault"})
_ENDED_BADLY = frozenset({"failed", "canceled"})


class ResumableRdsStartExportTaskOperator(AwsReplay, RdsStartExportTaskOperator):
    """
    `RdsStartExportTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first export of a task instance has the ``export_task_identifier`` given, and its files lie where they are looked for. One
    that follows it, after a failure or a clear, has 8 hex characters more: the service takes no identifier twice. Unlike the
    provider's, it cancels the export when a user stops the task, and fails at once when the export has failed.
    """

    service = "rds"
    operation = "StartExportTask"
    wait_argument = "wait_for_completion"
    doubt = "the start is repeated under the same identifier; an export of that identifier and source, begun since, is taken up"
    window = "none known; an export that somebody else starts at the same moment under the same identifier is taken for ours"
    conflicts = frozenset({"ExportTaskAlreadyExists", "ExportTaskAlreadyExistsFault"})
    active = frozenset({"starting", "in_progress", "canceling"})
    succeeded = frozenset({"complete"})
    failed = _ENDED_BADLY

    if TYPE_CHECKING:  # of the provider's operator
        export_task_identifier: Any

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        theirs, look = self.export_task_identifier, self.hook.get_export_task_state
        self._account = account_of(self.source_arn) or self._account
        self.export_task_identifier = self._identifier(attempt, theirs)
        self.hook.get_export_task_state = lambda name: self._unless_failed(name, look(name))
        try:
            with super().seam(attempt):
                yield
        finally:
            self.export_task_identifier = theirs
            del self.hook.get_export_task_state

    def _identifier(self, attempt: Attempt, given: str) -> str:
        if attempt.handle is not None:
            return self.ids(attempt.handle, "export")[0]
        if attempt.record is None:
            return given
        if isinstance(attempt.plan, Submit) and attempt.plan.in_doubt:
            return str(attempt.record.place["name"])
        return named(given, attempt.token, NAME_LENGTH, 8)

    @staticmethod
    def _unless_failed(name: str, state: str) -> str:
        if state in _ENDED_BADLY:  # the provider waits for `complete` to the last of its attempts
            raise RuntimeError(f"The export task {name} is {state}.")
        return state

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"name": str(params["ExportTaskIdentifier"])}

    def stamp(self, params: dict[str, Any], token: str) -> None:
        """The identifier is in the request already."""

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"export": self.wanted(response.get("ExportTaskIdentifier") or params["ExportTaskIdentifier"], "identifier")}

    def adopted(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        task = self._described(params["ExportTaskIdentifier"])
        record = self._attempt.record if self._attempt is not None else None
        if task is None or record is None or task.get("SourceArn") != params["SourceArn"]:
            return None
        began = task.get("TaskStartTime")
        return {"export": params["ExportTaskIdentifier"]} if began is None or began >= self.oldest(record) else None

    def _described(self, name: str) -> dict[str, Any] | None:
        tasks = self.hook.conn.describe_export_tasks(ExportTaskIdentifier=name)["ExportTasks"]
        return dict(tasks[0]) if tasks else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return self._described(self.ids(handle, "export")[0]) or {}

    def state_of(self, handle: JobHandle) -> str | None:
        task = self._described(self.ids(handle, "export")[0])
        return None if task is None else str(task["Status"]).lower()

    def is_missing(self, error: ClientError) -> bool:
        return error.response["Error"]["Code"] in _GONE

    def cancel(self, handle: JobHandle) -> None:
        try:
            super().cancel(handle)
        except ClientError as e:
            if not e.response["Error"]["Code"].startswith("InvalidExportTaskState"):  # it has ended
                raise

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_export_task", {"ExportTaskIdentifier": self.ids(handle, "export")[0]}
