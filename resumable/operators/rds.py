"""
RDS snapshots, copies and exports of them, that survive their worker.

Recovery: repeat by name. The author's identifier is the job's for ever.

Facts on the service (botocore's service model, API reference): an identifier that was used is answered with "already exists",
also when that snapshot or export failed; a snapshot's ``SnapshotCreateTime`` is the copy's own where it is a copy; the files of
an export lie in S3 under its identifier. Deleting a snapshot stops a copy that is under way; one that is being created cannot be
deleted. Tags in a request keep RDS from copying those of the instance or of the source (run against AWS by moto's authors,
``moto/rds/models.py``), so a mark is added only to tags that the author gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from resumable._extras import provider_import
from resumable.helpers import account_of, replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.rds import (
        RdsCopyDbSnapshotOperator,
        RdsCreateDbSnapshotOperator,
        RdsStartExportTaskOperator,
    )
    from botocore.exceptions import ClientError

    from resumable.operators._aws import TAG
    from resumable.operators._aws.names import AwsOwnNamedJob

__all__ = ["ResumableRdsCopyDbSnapshotOperator", "ResumableRdsCreateDbSnapshotOperator", "ResumableRdsStartExportTaskOperator"]

_GONE = frozenset({"ExportTaskNotFound", "ExportTaskNotFoundFault"})
_ENDED_BADLY = frozenset({"failed", "canceled"})


class RdsExport(AwsOwnNamedJob):
    """One export of a snapshot."""

    service = "rds"
    operation = "StartExportTask"
    limits = (Limit("waiter_max_attempts", "waiter_interval"),)
    wait_argument = "wait_for_completion"
    name_argument, name_param, name_id, name_length = "export_task_identifier", "ExportTaskIdentifier", "export", 60
    doubt = "the start is repeated under the same identifier; an export of that identifier and source, begun since, is taken up"
    window = (
        "none known; an export of that source which somebody else starts under the same identifier while a start is in doubt, or "
        "in the 15 minutes before, is taken for ours"
    )
    conflicts = frozenset({"ExportTaskAlreadyExists", "ExportTaskAlreadyExistsFault"})
    active = frozenset({"starting", "in_progress", "canceling"})
    stopping = frozenset({"canceling"})
    succeeded = frozenset({"complete"})
    failed = _ENDED_BADLY

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        look = self.hook.get_export_task_state
        # Not the source's: a snapshot may be another account's, shared. A role that is passed is one's own.
        self.known_account = account_of(self.operator.iam_role_arn) or self.known_account

        def look_for_failure(name: str) -> str:
            return self._unless_failed(name, look(name))

        with replaced(self.hook, get_export_task_state=look_for_failure), super().intercept(attempt):
            yield

    @staticmethod
    def _unless_failed(name: str, state: str) -> str:
        if state in _ENDED_BADLY:  # the provider waits for `complete` to the last of its attempts
            raise RuntimeError(f"The export task {name} is {state}.")
        return state

    def add_token(self, params: dict[str, Any], token: str) -> None:
        """The identifier is in the request already."""

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"export": self.require_id(response.get("ExportTaskIdentifier") or params["ExportTaskIdentifier"], "identifier")}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        task = self._described(params["ExportTaskIdentifier"])
        if task is None or task.get("SourceArn") != params["SourceArn"]:
            return None
        ours = self.may_be_ours(error, task.get("TaskStartTime"))
        return {"export": params["ExportTaskIdentifier"]} if ours else None

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

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_export_task", {"ExportTaskIdentifier": self.ids(handle, "export")[0]}


@durable_operator(RdsExport)
class ResumableRdsStartExportTaskOperator(RdsStartExportTaskOperator):
    """
    `RdsStartExportTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first export of a task instance has the ``export_task_identifier`` given, and its files lie where they are looked for. One
    that follows it, after a failure or a clear, has 8 hex characters more: the service takes no identifier twice. Unlike the
    provider's, it cancels the export when a user stops the task, and fails at once when the export has failed.
    """


class _Snapshot(AwsOwnNamedJob):
    """Snapshots of an instance or of a cluster: two sets of API calls, told apart by ``db_type``, and in a handle by ``type``."""

    service = "rds-snapshot"
    wait_argument = "wait_for_completion"
    not_templated = ("db_type", "kms_key_id", "copy_tags", "target_custom_availability_zone", "source_region")
    name_id = "snapshot"
    doubt = (
        "the request is repeated under the same identifier; a snapshot of it is taken up if it has our tag, or, where the author "
        "gives no tags, if it is of the same database and was begun since"
    )
    window = (
        "none known with `tags`; without, a snapshot of the database which somebody else makes under the same identifier while "
        "a request is in doubt, or in the 15 minutes before, is taken for ours"
    )
    conflicts = frozenset({"DBSnapshotAlreadyExists", "DBClusterSnapshotAlreadyExistsFault"})
    active = frozenset({"creating", "copying", "pending"})
    succeeded = frozenset({"available"})
    failed = frozenset({"failed", "incompatible-restore", "incompatible-parameters", "deleting", "deleted"})

    name_params: ClassVar[Mapping[str, str]]
    """By type of the database, the member of the request that holds the snapshot's identifier."""

    @property
    def name_param(self) -> str:  # type: ignore[override]
        return self.name_params[self.operator.db_type.value]

    @property
    def name_length(self) -> int:  # type: ignore[override]
        return 255 if self.operator.db_type.value == "instance" else 63

    def add_token(self, params: dict[str, Any], token: str) -> None:
        if params.get("Tags"):
            params["Tags"] = [*params["Tags"], {"Key": TAG, "Value": token}]

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        snapshot = response.get("DBSnapshot") or response.get("DBClusterSnapshot") or {}
        arn = snapshot.get("DBSnapshotArn") or snapshot.get("DBClusterSnapshotArn")
        self.known_account = account_of(arn) or self.known_account
        return {"snapshot": self.require_id(params[self.name_param], "identifier"), "type": self.operator.db_type.value}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:
        ids = {"snapshot": params[self.name_param], "type": self.operator.db_type.value}
        found = self._described(self.handle(ids))
        if found is None:
            return None
        if any(tag["Key"] == TAG for tag in params.get("Tags", ())):
            ours = {"Key": TAG, "Value": token} in found.get("TagList", ())
            if not ours:
                self.say_not_ours(f"the snapshot {ids['snapshot']} has not the tag of this submit")
            return ids if ours else None
        ours = self.is_of(found, params) and self.may_be_ours(error, found.get("SnapshotCreateTime"))
        return ids if ours else None

    def is_of(self, snapshot: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
        """Whether it is a snapshot of what ``params`` ask for."""
        raise NotImplementedError

    def _described(self, handle: JobHandle) -> dict[str, Any] | None:
        name, kind = self.ids(handle, "snapshot", "type")
        if kind == "instance":
            found = self.hook.conn.describe_db_snapshots(DBSnapshotIdentifier=name)["DBSnapshots"]
        else:
            found = self.hook.conn.describe_db_cluster_snapshots(DBClusterSnapshotIdentifier=name)["DBClusterSnapshots"]
        return dict(found[0]) if found else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        member = "DBSnapshot" if self.ids(handle, "type")[0] == "instance" else "DBClusterSnapshot"
        return {member: self._described(handle) or {}}

    def state_of(self, handle: JobHandle) -> str | None:
        snapshot = self._described(handle)
        return None if snapshot is None else str(snapshot["Status"]).lower()

    def is_missing(self, error: ClientError) -> bool:
        return str(error.response["Error"]["Code"]).startswith(("DBSnapshotNotFound", "DBClusterSnapshotNotFound"))


class RdsSnapshot(_Snapshot):
    """A snapshot that is made of an instance or of a cluster."""

    operation = ("CreateDBSnapshot", "CreateDBClusterSnapshot")
    name_argument = "db_snapshot_identifier"
    name_params = {"instance": "DBSnapshotIdentifier", "cluster": "DBClusterSnapshotIdentifier"}

    def is_of(self, snapshot: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
        member = "DBInstanceIdentifier" if self.operator.db_type.value == "instance" else "DBClusterIdentifier"
        return bool(snapshot.get(member, "").lower() == params[member].lower())

    @classmethod
    def can_stop(cls, operator: Any) -> bool:  # noqa: ARG003
        return False

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError(f"RDS cannot stop {handle} while it is being created; it is kept")


@durable_operator(RdsSnapshot)
class ResumableRdsCreateDbSnapshotOperator(RdsCreateDbSnapshotOperator):
    """
    `RdsCreateDbSnapshotOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first snapshot of a task instance has the ``db_snapshot_identifier`` given. One that follows it, after a failure or a
    clear, has 8 hex characters more: RDS takes no identifier twice. Where the author gives ``tags``, ``resumable-token`` is one
    more of them. RDS cannot stop a snapshot that is being created: after a user's stop it goes on and is kept, a clear
    meanwhile is refused unless ``on_clear="reattach"``, and so is a ``job_timeout``.
    """


class RdsSnapshotCopy(_Snapshot):
    """A snapshot that is made by copying another one."""

    operation = ("CopyDBSnapshot", "CopyDBClusterSnapshot")
    unrecorded_params = frozenset({"PreSignedUrl"})
    name_argument = "target_db_snapshot_identifier"
    name_params = {"instance": "TargetDBSnapshotIdentifier", "cluster": "TargetDBClusterSnapshotIdentifier"}

    def is_of(self, snapshot: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
        wanted = params.get("SourceDBSnapshotIdentifier") or params["SourceDBClusterSnapshotIdentifier"]
        # Shown of some copies only: of instances, where region or account differ.
        source = snapshot.get("SourceDBSnapshotIdentifier") or snapshot.get("SourceDBClusterSnapshotArn") or wanted
        return str(source).lower().endswith(str(wanted).lower())

    look_path = "(DBSnapshots || DBClusterSnapshots)[0].Status"
    stop_deletes = True

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        name, kind = self.ids(handle, "snapshot", "type")
        if kind == "instance":
            return "describe_db_snapshots", {"DBSnapshotIdentifier": name}
        return "describe_db_cluster_snapshots", {"DBClusterSnapshotIdentifier": name}

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        name, kind = self.ids(handle, "snapshot", "type")
        if kind == "instance":
            return "delete_db_snapshot", {"DBSnapshotIdentifier": name}
        return "delete_db_cluster_snapshot", {"DBClusterSnapshotIdentifier": name}


@durable_operator(RdsSnapshotCopy)
class ResumableRdsCopyDbSnapshotOperator(RdsCopyDbSnapshotOperator):
    """
    `RdsCopyDbSnapshotOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    Identifiers and tags as with `ResumableRdsCreateDbSnapshotOperator`. Unlike the provider's, it stops the copy when a user
    stops the task, by deleting what is there of it; a copy that is seen to be complete is not deleted.
    """
