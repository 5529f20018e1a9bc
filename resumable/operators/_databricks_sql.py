"""
Databricks SQL statements that survive their worker.

Recovery: look up. The service knows no token, so the statement carries a mark.

Facts on the service (Statement Execution API and Query History API references): a statement is closed if nobody asks for its
state for 15 minutes; CLOSED means that it was executed and its result is no longer kept; the history of a warehouse gives the
most recently started queries first, filtered by warehouse and time, with the text of each. How soon a statement shows in the
history is not documented.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tenacity import stop_after_attempt

from resumable._extras import provider_import
from resumable.errors import InvalidAnswerError, RecordError
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord
from resumable.stop.triggers import StopGuard

with provider_import("databricks"):
    from airflow.providers.databricks.hooks.databricks import SQLStatementState
    from airflow.providers.databricks.operators.databricks import DatabricksSQLStatementsOperator
    from airflow.providers.databricks.triggers.databricks import DatabricksSQLStatementExecutionTrigger

    from resumable.operators._databricks_runs import DatabricksCall, is_missing

HISTORY = ("GET", "2.0/sql/history/queries")
PAGE = 100
CLOCK_SKEW = 15 * 60.0
SHORTEST_WAIT = 1.0

_STATES = {
    "PENDING": JobState.ACTIVE,
    "RUNNING": JobState.ACTIVE,
    "SUCCEEDED": JobState.SUCCEEDED,
    "CLOSED": JobState.SUCCEEDED,
    "FAILED": JobState.FAILED,
    "CANCELED": JobState.FAILED,
}
_MARK = re.compile(r"/\* resumable:([0-9a-f]{48}) \*/")


def _executed(state: SQLStatementState) -> SQLStatementState:
    """The provider takes CLOSED, a statement that was executed, for a failure."""
    return SQLStatementState("SUCCEEDED") if state.state == "CLOSED" else state


class ResumableDatabricksSQLStatementExecutionTrigger(StopGuard, DatabricksSQLStatementExecutionTrigger):
    """The provider's trigger, which takes CLOSED for what it is, and cancels only if a user has ended the task."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        look = self.hook.a_get_sql_statement_state

        async def look_and_translate(statement_id: str) -> SQLStatementState:
            return _executed(await look(statement_id))

        self.hook.__dict__["a_get_sql_statement_state"] = look_and_translate


class SqlStatement(DatabricksCall):
    """One execution of a statement."""

    service = "databricks-sql"
    recovery = Recovery.LOOK_UP
    settle = 60.0
    doubt = "the token is in a comment of the statement and is looked up in the query history"
    window = "the submit gets there, or the history shows it, later than 60 seconds after it was sent or its answer was lost"
    submit_method = "post_sql_statement"
    look_methods = ("get_sql_statement_state",)
    own_trigger = ResumableDatabricksSQLStatementExecutionTrigger

    def lookup_hints(self, arguments: Mapping[str, Any]) -> Mapping[str, str]:
        return {"warehouse": str(arguments["warehouse_id"])}

    def add_token(self, arguments: dict[str, Any], token: str) -> None:
        arguments["statement"] = f"/* resumable:{token} */ {arguments['statement']}"

    @contextmanager
    def sending(self) -> Iterator[None]:
        """The hook repeats a POST on time-outs and 5xx, which makes a second statement."""
        with replaced(self.hook, retry_args={**self.hook.retry_args, "stop": stop_after_attempt(1)}):
            yield

    def ids_of(self, answer: Any, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002
        if isinstance(answer, str) and answer:
            return answer
        raise InvalidAnswerError(
            f"Databricks answered the submit with statement_id={answer!r}, which is no statement's id. It may be running: "
            "look for it in the query history.",
            next_try="looks it up by its mark",
        )

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        asked = left = self.operator.timeout
        if attempt.handle is not None and attempt.record is not None:
            began = attempt.record.submitted_at or attempt.record.intended_at
            left = max(SHORTEST_WAIT, began + asked - time.time())
        with replaced(self.operator, timeout=left), super().intercept(attempt):
            yield

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        ours = super().replacements(attempt)
        look = ours["get_sql_statement_state"]
        return {**ours, "get_sql_statement_state": lambda statement_id: _executed(look(statement_id))}

    def observe(self, handle: JobHandle) -> Observation:
        try:
            answer = self.hook._do_api_call(("GET", f"2.0/sql/statements/{_statement_id(handle)}"))
        except Exception as e:
            if is_missing(e, "statement", _statement_id(handle)):
                return Observation(JobState.GONE, str(e))
            raise
        state = answer["status"]["state"]
        return Observation(_STATES.get(state, JobState.UNKNOWN), state)

    def find(self, record: JobRecord) -> JobHandle | None:
        found = [
            query["query_id"]
            for query in self._history(record.place["warehouse"], since=record.intended_at - CLOCK_SKEW)
            if (mark := _MARK.match(query.get("query_text") or "")) and mark[1] == record.token
        ]
        if len(found) > 1:
            raise RuntimeError(f"{len(found)} statements carry the mark {record.token}: {found}")
        return JobHandle(self.service, found[0], self.place()) if found else None

    def _history(self, warehouse: str, since: float) -> Iterator[Mapping[str, Any]]:
        asked: dict[str, Any] = {
            "filter_by.warehouse_ids": warehouse,
            "filter_by.query_start_time_range.start_time_ms": int(since * 1000),
            "max_results": PAGE,
        }
        while True:
            page = self.hook._do_api_call(HISTORY, asked)
            yield from page.get("res") or []
            if not page.get("has_next_page") or not page.get("next_page_token"):
                return
            asked = {**asked, "page_token": page["next_page_token"]}

    def cancel(self, handle: JobHandle) -> None:
        self.hook.cancel_sql_statement(_statement_id(handle))


@durable_operator(SqlStatement)
class ResumableDatabricksSQLStatementsOperator(DatabricksSQLStatementsOperator):
    """
    `DatabricksSQLStatementsOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The statement goes out once, with a comment before it, ``/* resumable:… */``, by which one whose answer was lost is found
    again in the warehouse's query history. ``timeout`` counts from the submission, over all attempts. A statement that nobody
    asked after for 15 minutes is closed by the service: it was executed, and the task succeeds.
    """

    spec_fields = ("statement", "warehouse_id", "catalog", "schema", "parameters", "query_tags")


def _statement_id(handle: JobHandle) -> str:
    if isinstance(handle.ids, str) and handle.ids:
        return handle.ids
    raise RecordError(
        f"The record holds {handle.ids!r} as the id of a Databricks SQL statement, which is none. Nothing was submitted, and "
        "the statement, if there is one, is left alone. Look for it in the query history, then delete the task state key "
        "'resumable' of this task instance."
    )
