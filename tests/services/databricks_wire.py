"""How the simulated Databricks words its answers: runs, pages and errors."""

from __future__ import annotations

from typing import Any

from .databricks_runs import Run

ERROR_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "RESOURCE_DOES_NOT_EXIST",
    429: "REQUEST_LIMIT_EXCEEDED",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Rejected(Exception):
    """An answer with an error *status*."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or ERROR_CODES[status]


def describe_run(run: Run, run_id: int, url: str, *, include_history: bool = False) -> dict[str, Any]:
    """
    Return what ``jobs/runs/get`` says of a run, or of one of its tasks if *run_id* is a task's.

    The fields are those that the provider's hook and operators read. A run has one entry in
    ``repair_history`` for itself and one for each repair: ``get_latest_repair_id`` of the hook counts on it.
    """
    common = {
        "job_id": run.job_id,
        "state": run.state(),
        "start_time": _milliseconds(run.started),
        "end_time": _milliseconds(run.ended),
    }
    tasks = [
        {
            **common,
            "run_id": task_run_id,
            "task_key": task_key,
            "attempt_number": run.repairs,
            "run_page_url": _page_url(run, task_run_id, url),
        }
        for task_run_id, task_key in run.tasks.items()
    ]
    if run_id != run.run_id:
        return next(task for task in tasks if task["run_id"] == run_id)

    described = {
        **common,
        "run_id": run.run_id,
        "number_in_job": run.run_id,
        "run_name": run.payload.get("run_name", "Untitled"),
        "run_type": run.run_type,
        "run_page_url": _page_url(run, run.run_id, url),
        "tasks": tasks,
    }
    if include_history:
        repairs = [{"type": "REPAIR", "id": repair_id} for repair_id in run.repair_ids]
        described["repair_history"] = [{"type": "ORIGINAL"}, *repairs]
    return described


def _page_url(run: Run, run_id: int, url: str) -> str:
    return f"{url}/#job/{run.job_id}/run/{run_id}"


def _milliseconds(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1000)


def page_of(entries: list[Any], body: dict[str, Any], *, default: int, maximum: int) -> tuple[list[Any], dict[str, str]]:
    """Return one page, and the answer's ``next_page_token`` if there are more."""
    limit = int(body.get("limit") or default)
    if not 0 < limit <= maximum:
        raise Rejected(f"limit must be between 1 and {maximum}")
    start = int(body.get("page_token") or 0)
    end = start + limit
    return entries[start:end], ({"next_page_token": str(end)} if end < len(entries) else {})
