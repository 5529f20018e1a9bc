"""
What becomes of the job, or of what `once` made, of a task instance that has ended: pure, from one row of the table.

A task that ends by itself closes its record, or notes why it leaves the job. An open record without such a note means that
somebody else ended the task, or that its process was lost, or that code around ours ended it: which of them, the row cannot
tell. So a job is stopped only where Airflow has told that a user or ``dagrun_timeout`` ended the task, or where the task itself
had told the job to stop, or had noted that it is to be cancelled if the last try is lost.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from resumable.cleanup.table import Row, RunId
from resumable.errors import RecordError
from resumable.jobs.record import KEY, JobRecord, Outcome


class Verdict(Enum):
    """What the sweep does about one open record; the value says why."""

    STOP = "the task was ended"
    CLEAN_UP = "what once made is still there"
    LEFT = "left running on purpose"
    LOST = "the last try was lost, on_final_failure=leave"
    UNEXPLAINED = "nobody is known to have ended the task"
    IN_DOUBT = "its submit was not answered"
    ELSEWHERE = "its value is kept by [workers] state_store_backend"
    CLOSED = "there is nothing to do"


@dataclass(frozen=True)
class Ended:
    """
    Whom Airflow has told of.

    Attributes:
        tasks: those that a user has ended: dag_id, run_id, task_id, map_index, and the id of that start of the task instance. A
            later start, after a clear, is another. Without that id any start is meant.
        runs: those that a user or ``dagrun_timeout`` has ended: that made their unfinished tasks ``skipped``.
    """

    tasks: frozenset[tuple[Any, ...]] = field(default_factory=frozenset)
    runs: frozenset[RunId] = field(default_factory=frozenset)

    @classmethod
    def of(cls, tasks: Collection[Any], runs: Collection[Any]) -> Ended:
        return cls(frozenset(tuple(task) for task in tasks), frozenset((dag_id, run_id) for dag_id, run_id in runs))

    def has(self, row: Row) -> bool:
        """Whether the row's task instance is one of them."""
        if row.is_by_user:
            return True
        is_of_run = row.run in self.runs and row.state == "skipped"
        return is_of_run or (*row.task, row.ti_id) in self.tasks or row.task in self.tasks


@dataclass(frozen=True)
class Asked:
    """What the listener has swept, as it tells the process that does it: see `resumable.cleanup.sweep.Sweep.run`."""

    runs: list[RunId] = field(default_factory=list)
    by_user: list[tuple[Any, ...]] = field(default_factory=list)
    ended_runs: list[RunId] = field(default_factory=list)
    deleted: list[Row] = field(default_factory=list)
    only: set[int] | None = None

    def to_json(self) -> str:
        only = None if self.only is None else sorted(self.only)
        return json.dumps({**asdict(self), "only": only})

    @classmethod
    def from_json(cls, text: str) -> Asked:
        data = json.loads(text)
        return cls(
            runs=[(dag, run) for dag, run in data["runs"]],
            by_user=[tuple(task) for task in data.get("by_user", [])],
            ended_runs=[(dag, run) for dag, run in data.get("ended_runs", [])],
            deleted=[Row(**row) for row in data.get("deleted", [])],
            only=None if data.get("only") is None else set(data["only"]),
        )


def judged(row: Row, ended: Ended) -> tuple[Verdict, JobRecord | None]:
    """
    The verdict on a row, and its record if it has one.

    Raises:
        RecordError: the row holds nothing of this library, or what a newer release wrote.
    """
    if row.is_elsewhere:
        return Verdict.ELSEWHERE, None
    data = row.data
    if row.key != KEY:
        return (Verdict.CLEAN_UP if _is_to_be_cleaned_up(data) else Verdict.CLOSED), None
    record = JobRecord.from_json(data)
    if record.outcome is not None and not (record.outcome is Outcome.CANCELLED and record.closed_at is None):
        return Verdict.CLOSED, record
    return verdict(record, row.state, has_tries_left=row.has_tries_left, by_user=ended.has(row)), record


def verdict(record: JobRecord, state: str, *, has_tries_left: bool, by_user: bool) -> Verdict:
    """
    What becomes of the job of a task instance that has ended.

    Args:
        record: an open one.
        state: of the task instance, an ended one.
        has_tries_left: Airflow would have started another try. (It may not have: a ``retry_policy`` and some exceptions end a
            task with tries left.)
        by_user: a user or ``dagrun_timeout`` is known to have ended it.
    """
    if record.outcome is Outcome.CANCELLED and record.handle is not None:
        return Verdict.STOP  # it was told to, and was not seen to
    if record.left:
        return Verdict.LEFT
    is_lost = state == "failed" and not has_tries_left
    if not by_user and not (is_lost and record.cancel_if_lost):
        return Verdict.LOST if is_lost else Verdict.UNEXPLAINED
    return Verdict.IN_DOUBT if record.handle is None else Verdict.STOP


def _is_to_be_cleaned_up(kept: Mapping[str, Any]) -> bool:
    if kept.get("state") != "made" or not kept.get("cleanup"):
        return False
    if not isinstance(kept["cleanup"], str) or "value" not in kept:
        raise RecordError("it is no value of once")
    return True


def job_of(record: JobRecord) -> str:
    """How a job is named in a log: on one line, however it came into the record."""
    return shown(record.handle or f"{record.service} job with token {record.token}")


def shown(text: Any) -> str:
    """On one line, and not too long: a task can keep anything in its state."""
    return " ".join(str(text).split())[:300]
