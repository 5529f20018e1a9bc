"""Redshift Data API statements that survive their worker; recovery: repeat by token, the API's own token.

Facts on the service (management guide and API reference): ``ClientToken`` holds 64 characters and is known for eight hours;
statements and their results are kept for 24 hours; of an older one DescribeStatement says, as a ValidationException, "Could not
retrieve the query result as it has expired" (quoted in the provider's tests).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from resumable._extras import provider_import
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator
    from botocore.exceptions import ClientError

    from resumable.operators._aws import HOUR, AwsCall

__all__ = ["ResumableRedshiftDataOperator"]

_EXPIRED = re.compile(r"(?i)\bexpired\b")


class RedshiftStatement(AwsCall):
    """A statement, or a batch of them."""

    service = "redshift-data"
    token_member = "ClientToken"
    operation = ("ExecuteStatement", "BatchExecuteStatement")
    status_calls = ("DescribeStatement",)
    wait_argument = "wait_for_completion"
    not_templated = ("session_keep_alive_seconds",)
    token_lifetime = 7.5 * HOUR
    active = frozenset({"SUBMITTED", "PICKED", "STARTED"})
    succeeded = frozenset({"FINISHED"})
    failed = frozenset({"FAILED", "ABORTED"})
    doubt = "the statement is submitted again with the same `ClientToken`; the service answers with the one it has"
    window = "none within the eight hours that a token holds; an older doubt (from 7.5 hours on) is refused"

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        session = {"session": response["SessionId"]} if response.get("SessionId") else {}
        return {"statement": self.require_id(response.get("Id"), "Id"), **session}

    def handle_of(self, external_id: Any) -> JobHandle:
        self.account()
        return self.handle({"statement": str(external_id)})

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        session = handle.ids.get("session")
        return {"Id": self.ids(handle, "statement")[0], **({"SessionId": session} if session else {})}

    def state_of(self, handle: JobHandle) -> str | None:
        return str(self.hook.conn.describe_statement(Id=self.ids(handle, "statement")[0])["Status"])

    def is_missing(self, error: ClientError) -> bool:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message") or ""
        return code == "ResourceNotFoundException" or (code == "ValidationException" and bool(_EXPIRED.search(message)))

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "cancel_statement", {"Id": self.ids(handle, "statement")[0]}

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)


@durable_operator(RedshiftStatement)
class ResumableRedshiftDataOperator(RedshiftDataOperator):
    """
    `RedshiftDataOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A user's stop cancels the statement whatever ``cancel_on_kill`` says (``durable=False`` has the provider's way). The
    provider's own ``durable`` is not in effect: this one keeps the statement from the submit on, deferred or not.
    """
