"""
Notebook executions of EMR.

Recovery: look up. StartNotebookExecution knows no token, so it is at the end of the execution's name, and looked up.

Facts on the service. botocore's service model: a name holds 256 characters, and is not taken once; ListNotebookExecutions shows
names and no tags, 50 executions a page, of one editor and from a time on if asked so (else of 30 days). Its API reference: an
InternalServerError comes with the HTTP status 400, as an InvalidRequestException does, and proves nothing. Assumed, because
nothing says it: how soon a list shows an execution, and that the error of an unknown one names it as a notebook execution.
The amazon provider: its wait ends well once the notebook is RUNNING, and is not ended by STOPPED; here it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Recovery
from resumable.jobs.limits import Limit
from resumable.jobs.record import JobHandle, JobRecord
from resumable.operators._aws import AwsCall
from resumable.operators._aws.names import SHORT_TOKEN, named

NAME_LENGTH = 256

_MADE_UP = re.compile(r"emr_notebook_[0-9a-f-]{36}")
"""A name that the provider makes where the author gives none: another one at each parse."""


class NotebookExecution(AwsCall):
    """The start of a notebook on a cluster, until it runs: what the provider waits for."""

    service = "emr"
    operation = "StartNotebookExecution"
    status_calls = ("DescribeNotebookExecution",)
    wait_argument = "wait_for_completion"
    limits = (Limit("waiter_max_attempts", "waiter_delay", default=25),)
    recovery = Recovery.LOOK_UP
    settle = 30.0
    doubt = "the token is in the execution's name and is looked up among the executions of the editor"
    window = (
        "the start reaches EMR, or `ListNotebookExecutions` shows the execution, later than 30 seconds after it was sent or its "
        "answer was lost"
    )
    active = frozenset({"START_PENDING", "STARTING", "FINISHING", "FAILING", "STOP_PENDING", "STOPPING"})
    stopping = frozenset({"STOP_PENDING", "STOPPING"})
    succeeded = frozenset({"RUNNING", "FINISHED"})
    failed = frozenset({"FAILED", "STOPPED"})
    missing_codes = frozenset({"InvalidRequestException"})
    missing_words = re.compile(r"(?i)notebook ?execution.*(not valid|invalid|not found|not exist)")

    @classmethod
    def spec_values(cls, operator: Any) -> dict[str, Any]:
        values = super().spec_values(operator)
        return {name: None if _MADE_UP.fullmatch(str(value)) else value for name, value in values.items()}

    def add_token(self, params: dict[str, Any], token: str) -> None:
        params["NotebookExecutionName"] = named(params.get("NotebookExecutionName"), token, NAME_LENGTH)

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"editor": str(params["EditorId"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"execution": self.require_id(response.get("NotebookExecutionId"), "NotebookExecutionId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"NotebookExecutionId": self.ids(handle, "execution")[0]}

    def state_of(self, handle: JobHandle) -> str | None:
        described = self.hook.conn.describe_notebook_execution(NotebookExecutionId=self.ids(handle, "execution")[0])
        return str(described["NotebookExecution"]["Status"])

    def find(self, record: JobRecord) -> JobHandle | None:
        pages = self.hook.conn.get_paginator("list_notebook_executions").paginate(
            EditorId=record.place["editor"], From=self.oldest(record)
        )
        for page in pages:
            for execution in page["NotebookExecutions"]:
                if execution.get("NotebookExecutionName", "").endswith(record.token[:SHORT_TOKEN]):
                    return self.handle({"execution": execution["NotebookExecutionId"]}, record)
        return None

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with super().intercept(attempt), self.noting("DescribeNotebookExecution", _note_end):
            yield

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_notebook_execution", {"NotebookExecutionId": self.ids(handle, "execution")[0]}


def _note_end(parsed: Mapping[str, Any], **_: Any) -> None:
    """The provider's wait takes no notice of an execution that was stopped, to the last of its looks."""
    execution = parsed.get("NotebookExecution", {})
    if execution.get("Status") == "STOPPED":
        execution["Status"] = "FAILED"
