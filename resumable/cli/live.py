"""The records of jobs as the command sees them: whose each is, who should be watching it, and what is known of it."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.cli.links import link_of
from resumable.cli.output import Refused, Unreadable
from resumable.errors import RecordError
from resumable.jobs.record import JobRecord, Outcome

if TYPE_CHECKING:
    from resumable.host._beside import Kept

NOT_WAITED_FOR = "the task does not wait for it"

_WATCHERS = {
    "deferred": "triggerer",
    "up_for_reschedule": "scheduler: started again soon",
    "up_for_retry": "scheduler: the next try",
    "queued": "scheduler: about to start",
    "scheduled": "scheduler: about to start",
    "restarting": "scheduler: about to start",
    "None": "scheduler: about to start",
}


@dataclass
class Live:
    """A record: ``record`` is None if it cannot be read, for the reason ``problem``."""

    kept: Kept
    record: JobRecord | None
    problem: str = ""
    seen: str = ""
    """What the service says, after a look."""

    @property
    def task(self) -> str:
        row = self.kept.row
        return f"{row.dag_id}.{row.task_id}" + (f"[{row.map_index}]" if row.map_index >= 0 else "")

    @property
    def run_id(self) -> str:
        return self.kept.row.run_id

    @property
    def is_watched(self) -> bool:
        """Whether Airflow goes on with the task: whatever has it stops the job when the task is marked failed."""
        return self.kept.is_unfinished

    @property
    def is_open(self) -> bool:
        """Whether the job may still run."""
        record = self.record
        return record is None or record.outcome is None or (record.outcome is Outcome.CANCELLED and record.closed_at is None)

    @property
    def is_orphan(self) -> bool:
        """Whether the job may run and no process, trigger or scheduler has its task; one that is not waited for has none."""
        return self.is_open and not self.is_watched and not (self.record and self.record.left == NOT_WAITED_FOR)

    @property
    def is_in_doubt(self) -> bool:
        return self.record is not None and self.record.in_doubt

    @property
    def watcher(self) -> str:
        state = self.kept.row.state
        if state == "running":
            return f"worker {self.kept.hostname}".strip()
        if state in _WATCHERS:
            return _WATCHERS[state]
        if self.is_watched:
            return f"task {state}"
        left = f", on purpose: {self.record.left}" if self.record and self.record.left else ""
        return f"nobody (task {state}){left}"

    @property
    def service(self) -> str:
        return "?" if self.record is None else self.record.service

    @property
    def job(self) -> str:
        if self.record is None:
            return self.problem
        return str(self.record.handle or f"no id: token {self.record.token}")

    @property
    def state(self) -> str:
        """As of the last event."""
        record = self.record
        if record is None:
            return "unreadable"
        if record.in_doubt:
            return "submit unanswered"
        if record.outcome is Outcome.CANCELLED and record.closed_at is None:
            return "told to stop"
        if record.outcome is not None:
            return record.outcome.value
        if record.stopping:
            return "told to stop"
        if record.failing_try is not None:
            return "failing"
        return "left running" if record.left and record.left != NOT_WAITED_FOR else "submitted"

    @cached_property
    def age(self) -> float | None:
        """Seconds since the submit, or since it was announced."""
        record = self.record
        return None if record is None else time.time() - (record.submitted_at or record.intended_at)

    def to_json(self) -> dict[str, Any]:
        record, row = self.record, self.kept.row
        return {
            "dag_id": row.dag_id,
            "run_id": row.run_id,
            "task_id": row.task_id,
            "map_index": row.map_index,
            "task_state": None if row.state == "None" else row.state,
            "service": record and record.service,
            "job": record and record.handle and record.handle.ids,
            "place": dict(record.handle.place if record.handle else record.place) if record else None,
            "token": record and record.token,
            "state": self.state,
            "seen": self.seen or None,
            "age_seconds": None if self.age is None else int(self.age),
            "try": record and record.try_number,
            "attempt": record and record.attempt,
            "submission": record and record.submission,
            "watched_by": self.watcher,
            "is_orphan": self.is_orphan,
            "in_doubt": self.is_in_doubt,
            "left": record and record.left,
            "link": link_of(record.handle) if record else None,
            "problem": self.problem or None,
        }


_LONG = ("fingerprint", "history")


def live(kept: Kept, *, in_short: bool = False) -> Live:
    if kept.row.is_elsewhere:
        return Live(kept, None, "its value is kept by [workers] state_store_backend, and cannot be read here")
    try:
        data = kept.row.data
        return Live(kept, JobRecord.from_json({n: v for n, v in data.items() if n not in _LONG} if in_short else data))
    except RecordError as e:
        return Live(kept, None, str(e).partition(". ")[0][:200])


def all_live(
    tasks: Collection[tuple[str, str]] | None = None,
    run_id: str | None = None,
    *,
    only_open: bool = True,
    in_short: bool = False,
) -> Iterator[Live]:
    """
    The records in Airflow's own stores; of those that are open, or of all.

    Args:
        tasks: see `resumable.host._beside.records`.
        run_id: the same.
        only_open: the same.
        in_short: for a list, which may be long: without what takes most of the reading. Never write such a record.
    """
    for kept in host.beside().records(tasks, run_id, only_open=only_open):
        one = live(kept, in_short=in_short)
        if one.is_open or not only_open:
            yield one


def matching(found: Iterable[Live], *, dag: str | None, service: str | None, older: float | None) -> Iterator[Live]:
    """Those of a DAG (a shell pattern), of a service, of at least so many seconds."""
    for one in found:
        if dag and not fnmatch.fnmatchcase(one.kept.row.dag_id, dag):
            continue
        if service and one.service != service:
            continue
        if older is not None and (one.age is None or one.age < older):
            continue
        yield one


def require_readable() -> None:
    """
    Raises:
        Unreadable: records are kept where the command cannot read; an empty list would be taken for an answer.
    """
    if (where := host.records_are_elsewhere()) is not None:
        raise Unreadable(f"{where}: the command cannot read the records there. Nothing is known of them here, nothing was done.")


@dataclass(frozen=True)
class Named:
    """
    The task that a person named.

    Attributes:
        text: as it was written.
        tasks: dag_id and task_id of each task that it may be: both may have dots in them.
        map_index: None: none was given.
    """

    text: str
    tasks: tuple[tuple[str, str], ...]
    map_index: int | None

    @classmethod
    def of(cls, text: str) -> Named:
        """
        Raises:
            Refused: it names no task.
        """
        found = re.fullmatch(r"(.*?)(?:\[(\d{1,9})\])?", text.strip(), re.ASCII | re.DOTALL)
        assert found is not None
        name = found[1]
        at = [name.index("/")] if "/" in name else [place for place, letter in enumerate(name) if letter == "."]
        tasks = tuple((name[:place], name[place + 1 :]) for place in at if name[:place] and name[place + 1 :])
        if not tasks:
            raise Refused(
                f"{text!r} names no task: give dag_id.task_id, or dag_id.task_id[7] of a mapped one. `jobs` has the names."
            )
        return cls(text, tasks, None if found[2] is None else int(found[2]))

    def among(self, found: Iterable[Key], what: str) -> set[tuple[str, str, int]]:
        """
        Which of the task instances are meant: dag_id, task_id, map_index of the one task.

        Args:
            found: dag_id, run_id, task_id, map_index of what there is of ``tasks``.
            what: what there is of them, in words.

        Raises:
            Refused: it may be two tasks, or it is mapped and no index was given.
        """
        there = {(dag_id, task_id, index) for dag_id, _, task_id, index in found}
        names = sorted({one[:2] for one in there})
        if len(names) > 1:
            either = ", or ".join(f"task {task_id} of DAG {dag_id} ({dag_id}/{task_id})" for dag_id, task_id in names)
            raise Refused(f"{self.text} may be {either}. Write it with the slash.")
        wanted = -1 if self.map_index is None else self.map_index
        chosen = {one for one in there if one[2] == wanted}
        others = sorted({index for _, _, index in there})
        if there and not chosen:
            some = ", ".join(map(str, others[:10])) + (f" and {len(others) - 10} more" if len(others) > 10 else "")
            if self.map_index is None:
                raise Refused(f"{self.text} is mapped: say which, e.g. {self.text}[{others[0]}]. There is a {what} of {some}.")
            there_is = "It is not mapped." if others == [-1] else f"There is one of {some}."
            raise Refused(f"There is no {what} of {self.text}. {there_is}")
        return chosen


Key = tuple[str, str, str, int]
"""dag_id, run_id, task_id, map_index."""


def one_of(task: str, run_id: str | None) -> Live:
    """
    The record of ``dag_id.task_id`` or ``dag_id.task_id[7]``: of the run that is named, or the only one that is open.

    Raises:
        Refused: there is none, or more than one.
    """
    require_readable()
    named = Named.of(task)
    of_task = list(all_live(named.tasks, run_id, only_open=False))
    chosen = named.among((one.kept.row.task for one in of_task), "record")
    found = [one for one in of_task if (one.kept.row.dag_id, one.kept.row.task_id, one.kept.row.map_index) in chosen]
    if len(found) > 1:  # of several runs, or of several iterations that have a mapped task of that index each
        found = [one for one in found if one.is_open] or found
    if not found:
        of = f" in run {run_id}" if run_id else ""
        raise Refused(f"There is no record of a job of task {task}{of}. `jobs` lists those that are live.")
    if len(found) > 1 and len({one.run_id for one in found}) == 1:
        raise Refused(
            f"Task {task} has {len(found)} records in run {found[0].run_id}, one for each iteration of a loop. Which of them is "
            "meant cannot be said here: mark the task in the UI, which stops its job."
        )
    if len(found) > 1:
        raise Refused(f"Task {task} has records in {which_runs(one.run_id for one in found)}")
    return found[0]


def which_runs(found: Iterable[str]) -> str:
    """How many runs there are, and what to do about that."""
    runs = sorted(found, reverse=True)
    some = ", ".join(runs[:10]) + (f" and {len(runs) - 10} more" if len(runs) > 10 else "")
    return f"{len(runs)} runs. Say which, by --run: {some}"


def again(one: Live) -> Live | None:
    """The same record as it is now; None if it is gone."""
    row = one.kept.row
    found = all_live([(row.dag_id, row.task_id)], row.run_id, only_open=False)
    return next((now for now in found if (now.kept.row.id, now.kept.variable) == (row.id, one.kept.variable)), None)
