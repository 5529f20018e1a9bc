"""Athena queries that survive their worker; recovery: repeat by token, StartQueryExecution's own token.

Facts on the service (API reference, botocore's service model): ``ClientRequestToken`` has 32 to 128 characters; the same token
with the same parameters is answered with the same query, whatever became of it, with other parameters by an
InvalidRequestException. For how long is not documented: it is relied upon for an hour. A query's execution is known for 45
days.
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
    from airflow.providers.amazon.aws.operators.athena import AthenaOperator

    from resumable.operators._aws import HOUR, AwsCall

__all__ = ["ResumableAthenaOperator"]


class AthenaQuery(AwsCall):
    """One execution of a query."""

    together = "athena"
    service = "athena"
    operation = "StartQueryExecution"
    token_member = "ClientRequestToken"
    status_calls = ("GetQueryExecution",)
    not_templated = ("query_execution_context", "result_configuration")
    limits = (Limit("max_polling_attempts", "sleep_time", default=999999),)
    token_lifetime = HOUR
    active = frozenset({"QUEUED", "RUNNING"})
    succeeded = frozenset({"SUCCEEDED"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"InvalidRequestException"})
    missing_words = re.compile(r"(?i)query ?execution.*not found")
    doubt = "the query is submitted again with the same `ClientRequestToken`; Athena answers with the one it has"
    window = "none known within an hour; an older doubt is refused (Athena does not say for how long it knows a token)"

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"query": self.require_id(response.get("QueryExecutionId"), "QueryExecutionId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"QueryExecutionId": self.ids(handle, "query")[0]}

    def state_of(self, handle: JobHandle) -> str | None:
        query = self.hook.conn.get_query_execution(QueryExecutionId=self.ids(handle, "query")[0])
        return str(query["QueryExecution"]["Status"]["State"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_query_execution", {"QueryExecutionId": self.ids(handle, "query")[0]}


@durable_operator(AthenaQuery)
class ResumableAthenaOperator(AthenaOperator):
    """
    `AthenaOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    A ``client_request_token`` of your own is sent as written, with a warning. A user's stop cancels the query with one request,
    also while the task is deferred; the provider's waits for the end of the query, and does not cancel a deferred one.
    """
