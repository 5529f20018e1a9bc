"""AppFlow runs that survive their worker; recovery: repeat by token. StartFlow takes a token that holds for eight hours.

Facts on the service (botocore's service model): StartFlow's clientToken "is active for 8 hours"; DescribeFlowExecutionRecords
lists the executions of a flow in pages; its ResourceNotFoundException speaks of the flow, never of an execution, which is gone if
it is not listed; CancelFlowExecutions takes execution ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable._extras import provider_import
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Deliver
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.appflow import (
        AppflowRunAfterOperator,
        AppflowRunBeforeOperator,
        AppflowRunDailyOperator,
        AppflowRunFullOperator,
        AppflowRunOperator,
    )

    from resumable.operators._aws import AwsCall

__all__ = [
    "ResumableAppflowRunAfterOperator",
    "ResumableAppflowRunBeforeOperator",
    "ResumableAppflowRunDailyOperator",
    "ResumableAppflowRunFullOperator",
    "ResumableAppflowRunOperator",
]

_SUCCESSFUL, _CANCELED = "Successful", "Canceled"
_LOOK = "DescribeFlowExecutionRecords"


class AppflowRun(AwsCall):
    """One execution of a flow."""

    service = "appflow"
    operation = "StartFlow"
    token_member = "clientToken"
    setup_calls = ("UpdateFlow",)  # the filter of a run; another one must not be put into a flow that runs
    wait_argument = "wait_for_completion"
    limits = (Limit("max_attempts", "poll_interval"),)
    token_lifetime = 7 * 3600.0
    doubt = "the start is repeated with the same `clientToken`; AppFlow answers with the execution it has"
    window = "none known within seven hours; an older doubt is refused (AppFlow knows a token for eight)"
    active = frozenset({"InProgress", "CancelStarted"})
    stopping = frozenset({"CancelStarted"})
    succeeded = frozenset({_SUCCESSFUL})
    failed = frozenset({"Error", _CANCELED})

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        def correct(parsed: dict[str, Any], **_: Any) -> None:
            """The provider waits to the last of its attempts for an execution that was canceled, or is not listed any more."""
            if attempt.handle is None or "flowExecutions" not in parsed:
                return
            word = self._word(parsed["flowExecutions"], attempt.handle)
            if word == _CANCELED:
                raise RuntimeError(f"{attempt.handle} was canceled.")
            if word is None and isinstance(attempt.plan, Deliver) and not parsed.get("nextToken"):
                ended = {"executionId": self.response_of(attempt.handle)["executionId"], "executionStatus": _SUCCESSFUL}
                parsed["flowExecutions"] = [*parsed["flowExecutions"], ended]

        with super().intercept(attempt), self.noting(_LOOK, correct):
            yield

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"flow": str(params["flowName"]), "execution": self.require_id(response.get("executionId"), "execution's id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"executionId": self.ids(handle, "execution")[0]}

    def setup_response(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"flowStatus": "Active"}

    def _word(self, executions: Iterable[Mapping[str, Any]], handle: JobHandle) -> str | None:
        mine = self.ids(handle, "execution")[0]
        return next((r["executionStatus"] for r in executions if r["executionId"] == mine), None)

    def state_of(self, handle: JobHandle) -> str | None:
        pages: dict[str, Any] = {"flowName": self.ids(handle, "flow")[0]}
        while True:
            records = self.hook.conn.describe_flow_execution_records(**pages)
            if word := self._word(records["flowExecutions"], handle):  # an answer without any is no list of none
                return word
            if not records.get("nextToken"):
                return None
            pages["nextToken"] = records["nextToken"]

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        flow, execution = self.ids(handle, "flow", "execution")
        return "cancel_flow_executions", {"flowName": flow, "executionIds": [execution]}


@durable_operator(AppflowRun)
class ResumableAppflowRunOperator(AppflowRunOperator):
    """
    `AppflowRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``clientToken``; nothing of it is to be seen. Unlike the provider's, it cancels the execution when a user
    stops the task, and fails at once when somebody cancelled it.
    """


@durable_operator(AppflowRun)
class ResumableAppflowRunFullOperator(AppflowRunFullOperator):
    """`AppflowRunFullOperator`, as `ResumableAppflowRunOperator`. The filter is not set again for a run that exists."""


@durable_operator(AppflowRun)
class ResumableAppflowRunBeforeOperator(AppflowRunBeforeOperator):
    """`AppflowRunBeforeOperator`, as `ResumableAppflowRunOperator`. The filter is not set again for a run that exists."""


@durable_operator(AppflowRun)
class ResumableAppflowRunAfterOperator(AppflowRunAfterOperator):
    """`AppflowRunAfterOperator`, as `ResumableAppflowRunOperator`. The filter is not set again for a run that exists."""


@durable_operator(AppflowRun)
class ResumableAppflowRunDailyOperator(AppflowRunDailyOperator):
    """`AppflowRunDailyOperator`, as `ResumableAppflowRunOperator`. The filter is not set again for a run that exists."""
