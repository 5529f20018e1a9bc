"""QuickSight ingestions that survive their worker; recovery: repeat by name. The author's id is the ingestion's in its data set.

Facts on the service (botocore's service model): an id holds 128 letters, digits, hyphens and underscores; one that is taken is
answered with ResourceExistsException; an ingestion has a CreatedTime; CancelIngestion stops one that runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from resumable._extras import provider_import
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.quicksight import QuickSightCreateIngestionOperator

    from resumable.operators._aws.names import AwsOwnNamedJob

__all__ = ["ResumableQuickSightCreateIngestionOperator"]


class QuickSightIngestion(AwsOwnNamedJob):
    """One ingestion of a data set."""

    service = "quicksight"
    operation = "CreateIngestion"
    limits = (Limit("waiter_max_attempts", ("check_interval", "waiter_delay")),)
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True
    name_argument, name_param, name_id, name_length = "ingestion_id", "IngestionId", "ingestion", 128
    doubt = "the request is repeated under the same id; an ingestion of that id, created since, is taken up"
    window = (
        "none known; an ingestion that somebody else starts under the same id while a request is in doubt, or in the 15 minutes "
        "before, is taken for ours"
    )
    conflicts = frozenset({"ResourceExistsException"})
    active = frozenset({"INITIALIZED", "QUEUED", "RUNNING"})
    succeeded = frozenset({"COMPLETED"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"ResourceNotFoundException"})  # of the data set, the namespace, the account, too
    missing_words = re.compile(r"(?i)ingestion")

    def add_token(self, params: dict[str, Any], token: str) -> None:
        """The id is in the request already."""

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        self.known_account = params["AwsAccountId"]
        ingestion = response.get("IngestionId") or params["IngestionId"]
        return {**self._whose(params), "ingestion": self.require_id(ingestion, "ingestion's id")}

    @staticmethod
    def _whose(params: Mapping[str, Any]) -> dict[str, str]:
        return {"account": params["AwsAccountId"], "data_set": params["DataSetId"]}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        ids = {**self._whose(params), "ingestion": params["IngestionId"]}
        ours = self.may_be_ours(error, self._described(self.handle(ids))["Ingestion"]["CreatedTime"])
        return ids if ours else None

    def _which(self, handle: JobHandle) -> dict[str, Any]:
        account, data_set, ingestion = self.ids(handle, "account", "data_set", "ingestion")
        return {"AwsAccountId": account, "DataSetId": data_set, "IngestionId": ingestion}

    def _described(self, handle: JobHandle) -> dict[str, Any]:
        return dict(self.hook.conn.describe_ingestion(**self._which(handle)))

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        described = self._described(handle)
        ingestion = described.pop("Ingestion")
        return {**described, **{name: ingestion[name] for name in ("Arn", "IngestionId", "IngestionStatus")}}

    def state_of(self, handle: JobHandle) -> str:
        return str(self._described(handle)["Ingestion"]["IngestionStatus"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_ingestion", self._which(handle)


@durable_operator(QuickSightIngestion)
class ResumableQuickSightCreateIngestionOperator(QuickSightCreateIngestionOperator):
    """
    `QuickSightCreateIngestionOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first ingestion of a task instance has the ``ingestion_id`` given, by which a sensor finds it. One that follows it, after
    a failure or a clear, has 8 hex characters more: an id is taken once. Unlike the provider's, it cancels the ingestion when a
    user stops the task.
    """

    spec_fields = ("data_set_id", "ingestion_id", "ingestion_type")  # not how it is waited for, which is templated too
