"""
SQL statements of the simulated Databricks: the Statement Execution API and the query history.

Sources: [doc] the API references of Statement Execution and Query History, whose texts the Databricks SDKs repeat; [hook] what
the provider's ``DatabricksHook`` sends and reads; [sdk] databricks-sdk-py, which sends a nested filter as dotted query
parameters; [assumed] neither documented nor observed, chosen here.
"""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass, field
from typing import Any

from werkzeug import Request

from .databricks_wire import Rejected

_STATEMENT = re.compile(r"/api/2\.0/sql/statements/(?P<id>[^/]+)(?P<cancel>/cancel)?")
_FILTER = "filter_by."


@dataclass
class Statement:
    """One statement; *polled* is the ``time.time()`` of the last request for its state."""

    id: str
    payload: dict[str, Any]
    state: str = "RUNNING"
    message: str = ""
    started: float = field(default_factory=time.time)
    polled: float = field(default_factory=time.time)

    @property
    def is_active(self) -> bool:
        return self.state in ("PENDING", "RUNNING")

    def status(self) -> dict[str, Any]:
        error = {"error": {"error_code": "BAD_REQUEST", "message": self.message}} if self.message else {}
        return {"statement_id": self.id, "status": {"state": self.state, **error}}


class Statements:
    """
    The statements of a workspace. There is no idempotency token: each POST starts one [doc].

    Attributes:
        all: every statement by its id, forgotten ones excepted.
        duration: seconds after which a statement succeeds by itself; None: only by ``finish()``.
        close_after: seconds without a request for its state after which it is CLOSED: executed, its result gone ([doc]: one
            that is not polled for 15 minutes).
        unlisted_reads: for how many reads the history does not show a new statement yet [assumed: it lags behind].
    """

    def __init__(self) -> None:
        self.all: dict[str, Statement] = {}
        self.duration: float | None = None
        self.close_after: float | None = None
        self.unlisted_reads = 0
        self._ids = itertools.count(1)

    def active(self) -> list[Statement]:
        return [statement for statement in self.all.values() if statement.is_active]

    def finish(self, state: str = "SUCCEEDED", message: str = "") -> None:
        """End every active statement, as FAILED with *message* for instance, or put it into any state."""
        for statement in self.active():
            statement.state, statement.message = state, message

    def parse(self, request: Request) -> tuple[str, dict[str, Any]] | None:
        """Return operation and body, None for a request of another API."""
        body = {**request.args.to_dict(), **(request.get_json(silent=True) or {})}
        if request.path == "/api/2.0/sql/statements":
            return "sql/statements", body
        if request.path == "/api/2.0/sql/history/queries":
            return "sql/history", body
        if found := _STATEMENT.fullmatch(request.path):
            return "sql/cancel" if found["cancel"] else "sql/get", {"statement_id": found["id"], **body}
        return None

    def answer(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        for statement in self.active():
            if self.duration is not None and time.time() - statement.started >= self.duration:
                statement.state = "SUCCEEDED"
        return getattr(self, "_do_" + operation.removeprefix("sql/"))(body)

    def _do_statements(self, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("statement") or not body.get("warehouse_id"):
            raise Rejected("statement and warehouse_id are required")
        statement = Statement(f"01f0-{next(self._ids)}", body)
        self.all[statement.id] = statement
        return statement.status()

    def _do_get(self, body: dict[str, Any]) -> dict[str, Any]:
        statement = self._statement(body)
        if self.close_after is not None and not statement.message and time.time() - statement.polled >= self.close_after:
            statement.state = "CLOSED"
        statement.polled = time.time()
        return statement.status()

    def _do_cancel(self, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel; one that has ended stays as it is [assumed]."""
        statement = self._statement(body)
        if statement.is_active:
            statement.state = "CANCELED"
        return {}

    def _do_history(self, body: dict[str, Any]) -> dict[str, Any]:
        """List the most recently started first, filtered by warehouse and start [doc]."""
        if self.unlisted_reads:
            self.unlisted_reads -= 1
            return {"res": [], "has_next_page": False}
        since = int(body.get(_FILTER + "query_start_time_range.start_time_ms") or 0)
        warehouse = body.get(_FILTER + "warehouse_ids")
        found = [
            {
                "query_id": statement.id,  # [assumed] the statement's id
                "query_text": statement.payload["statement"],
                "warehouse_id": statement.payload["warehouse_id"],
                "query_start_time_ms": int(statement.started * 1000),
            }
            for statement in reversed(self.all.values())
            if warehouse in (None, statement.payload["warehouse_id"]) and statement.started * 1000 >= since
        ]
        start, limit = int(body.get("page_token") or 0), int(body.get("max_results") or 100)
        more = start + limit < len(found)
        page = {"res": found[start : start + limit], "has_next_page": more}
        return {**page, "next_page_token": str(start + limit)} if more else page

    def _statement(self, body: dict[str, Any]) -> Statement:
        if body["statement_id"] not in self.all:
            raise Rejected(f"Statement {body['statement_id']} was not found.", 404)
        return self.all[body["statement_id"]]
