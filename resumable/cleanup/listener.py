"""
Hears of the tasks and runs that a user ends, and has their jobs stopped where no process of the task can do it.

Airflow calls a listener in the process where the mark is made: the API server, or for ``dagrun_timeout`` the scheduler. Neither
is a place for a provider's code. So a thread of ours waits until the task's own process has had its time, asks the database
whether there is anything to do, reports what only a person can deal with, and starts `resumable.sweep` in a process of its own
for the rest: once for all that is due, and not at all for what was left on purpose.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from resumable import host
from resumable.cleanup.ended import Asked, Ended, Verdict, job_of, judged, shown
from resumable.cleanup.table import SUPERSEDED, Row, RunId, TaskStateTable
from resumable.errors import RecordError
from resumable.jobs.record import KEY

try:
    from airflow.listeners import hookimpl
except ImportError:  # importing this module must not fail where there is no Airflow
    hookimpl = lambda f: f  # noqa: E731

log = logging.getLogger("resumable.listener")

REPETITIONS = 6
"""Sweeps of one run that are tried again, each after twice as long: for about half an hour with the default delay."""

SWEEP_SECONDS = 600.0
"""What one process may take, for all that is due at a time."""

_BY_USER = "state was manually set to"
"""What Airflow says of a DAG run that a user has marked (3.3); of one that ended otherwise it gives the reason."""

_START = "import sys; sys.path[:1] == [''] and sys.path.pop(0); from resumable.cleanup.sweep import main; sys.exit(main())"
"""``python -m`` and ``python -c`` look for modules in the working directory first, and there may be anybody's: not here."""


@dataclass(frozen=True)
class Note:
    """
    Something that Airflow has told.

    Attributes:
        run: the DAG run.
        task: task_id, map_index and the id of the start of a task that a user has ended; None if it is about the run.
        is_stop: the run was ended by a user or by ``dagrun_timeout``.
        is_clear: only what a clear has taken out of a loop is meant.
        deleted: the open record of a run that a user is deleting.
    """

    run: RunId
    task: tuple[str, int, str] | None = None
    is_stop: bool = False
    is_clear: bool = False
    deleted: Row | None = None


class Reaper:
    """Has each run swept ``[resumable] sweep_delay`` seconds after something was noted of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[Note, float] = {}
        self._failures: dict[Note, int] = {}
        self._thread: threading.Thread | None = None

    def note(self, run: RunId, task: tuple[str, int, str] | None = None, **more: Any) -> None:
        """Have ``run`` swept for what is told of it: `Note` has the arguments. Returns at once."""
        note = Note(run, task, **more)
        with self._lock:
            # A mark that comes later has a delay of its own, and puts no other off: each task's process is to have its time.
            self._due.setdefault(note, time.monotonic() + host.sweep_delay())
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="resumable-sweep", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (wait := self._until_due()) is not None:
            time.sleep(wait)
            notes = self._take_due()
            try:
                again = _again(notes)
            except Exception as e:
                log.warning("resumable: %s not swept: %r", sorted({note.run for note in notes}), e)
                again = set(notes)
            self._repeat(notes, again)

    def _repeat(self, notes: set[Note], again: set[Note]) -> None:
        """Have what was not settled swept once more, later."""
        with self._lock:
            for note in notes:
                failures = self._failures.pop(note, 0) + 1
                if note not in again:
                    continue
                if failures > REPETITIONS:
                    say = "resumable: %s was not swept to the end; python -m resumable.sweep does it by hand"
                    log.warning(say, " ".join(note.run))
                    continue
                self._failures[note] = failures
                self._due.setdefault(note, time.monotonic() + host.sweep_delay() * 2**failures)

    def _until_due(self) -> float | None:
        """Seconds until the first note is due; None, and the thread ends, if there is none."""
        with self._lock:
            if not self._due:
                self._thread = None
                return None
            return max(0.0, min(self._due.values()) - time.monotonic())

    def _take_due(self) -> set[Note]:
        with self._lock:
            notes = {note for note, due in self._due.items() if due <= time.monotonic()}
            self._due = {note: due for note, due in self._due.items() if note not in notes}
        return notes


def _again(notes: set[Note]) -> set[Note]:
    """Do what the notes ask for; those that have to be looked at again."""
    asked = _asked(notes)
    if asked is None:
        return set()
    again = _sweep(asked)
    return {note for note in notes if note.run in again}


def _asked(notes: Iterable[Note]) -> Asked | None:
    """What a process is to be started for; None if there is nothing. Reports what it would only report."""
    notes = list(notes)
    tasks = [(*note.run, *note.task) for note in notes if note.task]
    ended = Ended.of(tasks, [note.run for note in notes if note.is_stop])
    whole = {note.run for note in notes if note.task is None and not note.is_clear}
    rows = [row for row in TaskStateTable().ended({note.run for note in notes}) if row.run in whole or ended.has(row)]
    rows += [note.deleted for note in notes if note.deleted is not None]
    work = [row for row in rows if _needs_a_process(row, ended)]
    if not work:
        return None
    return Asked(
        runs=sorted({row.run for row in work}),
        by_user=sorted(tasks),
        ended_runs=sorted(ended.runs),
        deleted=[row for row in work if row.is_deleted],
        only={row.id for row in work if not row.is_deleted},
    )


def _needs_a_process(row: Row, ended: Ended) -> bool:
    try:
        found, record = judged(row, ended)
    except RecordError as e:
        log.warning("resumable: %s is left alone, its key %s: %s", shown(row), shown(row.key), shown(e))
        return False
    if found is Verdict.ELSEWHERE:
        _say_once(found.value)
        return False
    if found in (Verdict.LOST, Verdict.UNEXPLAINED) and record is not None:
        say = "resumable: %s of %s (%s) may be running: %s. Look in the service; python -m resumable.sweep can stop it"
        log.warning(say, job_of(record), row, row.state, found.value)
    return found in (Verdict.STOP, Verdict.IN_DOUBT, Verdict.CLEAN_UP)


def _sweep(asked: Asked) -> set[RunId]:
    """Sweep in a process of its own; the runs that have to be looked at again."""
    count = len(asked.only or ()) + len(asked.deleted)
    log.info("resumable: %d records of %d DAG runs are swept in a process of their own", count, len(asked.runs))
    command = [sys.executable, "-c", _START, "--only"]
    env = {**os.environ}
    try:
        done = subprocess.run(
            command, input=asked.to_json(), text=True, check=False, env=env, stdout=subprocess.PIPE, timeout=SWEEP_SECONDS
        )
        *said, answer = done.stdout.strip().splitlines()
        sys.stderr.writelines(f"{line}\n" for line in said)  # Airflow's loggers write to standard output
        return {(dag_id, run_id) for dag_id, run_id in json.loads(answer)["again"]}
    except (subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as e:
        log.warning("resumable: the sweep did not come to its end: %s", shown(repr(e)))
        return set(asked.runs)


@cache
def _say_once(why: str) -> None:
    log.warning("resumable: %s: jobs whose task a user ends while no process holds it are not looked after", why)


_reaper = Reaper()


def _hears() -> bool:
    """Whether there are records to look at in this process: a server's, of an Airflow with a task state store."""
    if not (host.is_server() and host.has_task_state()):
        return False
    if (where := host.records_are_elsewhere()) is not None:
        _say_once(where)
        return False
    return True


def _user_ended(previous_state: Any, task_instance: Any) -> None:
    # Only the API server, after a user's mark, says nothing of the state before (None); the task and the scheduler do.
    if previous_state is None and _hears():
        ti = task_instance
        _reaper.note((ti.dag_id, ti.run_id), (ti.task_id, ti.map_index, str(getattr(ti, "id", ""))))


def _run_ended(dag_run: Any, msg: str) -> None:
    if _hears():
        _reaper.note((dag_run.dag_id, dag_run.run_id), is_stop=msg == "timed_out" or _BY_USER in msg)


# -- a DAG run, or a DAG, is deleted: its records go with it -----------------------------------------------------------


def hear_of_deletions() -> None:
    """
    Have the API server's process, where users delete, keep what is needed to stop the jobs of what is deleted.

    Airflow has no word for it to a listener. ``airflow dags delete`` and ``airflow db clean`` are other processes.
    """
    if not (host.is_server() and host.has_task_state()):
        return
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    if not event.contains(Session, "before_flush", _some_are_cleared):
        event.listen(Session, "before_flush", _some_are_cleared)
        event.listen(Session, "do_orm_execute", _state_is_discarded)
    if _hears() and not event.contains(Session, "before_flush", _some_are_deleted):
        event.listen(Session, "before_flush", _some_are_deleted)
        event.listen(Session, "do_orm_execute", _many_are_deleted)


# -- a task is cleared: Airflow 3.4 then deletes all that it has kept --------------------------------------------------

_CLEARING = "resumable_clearing"
"""Where a session remembers the transaction in which it clears tasks."""


def _some_are_cleared(session: Any, *_: Any) -> None:
    """A task instance that is cleared has no state or is restarting, and one that its loop goes on without is archived."""
    from airflow.models.taskinstance import TaskInstance  # noqa: TID251

    for one in session.dirty:
        if not isinstance(one, TaskInstance):
            continue
        known = vars(one)  # what is not there is not loaded, and this is no place for a question to the database
        if known.get("state", "unknown") in (None, "restarting"):
            session.info[_CLEARING] = session.get_transaction()
        is_superseded = known.get("archived_reason") == SUPERSEDED and {"dag_id", "run_id"} <= known.keys()
        if is_superseded and _hears():
            _reaper.note((known["dag_id"], known["run_id"]), is_clear=True)


def _state_is_discarded(state: Any) -> None:
    """
    Spare what is ours where a clear deletes the state of its tasks: what a clear means for a job, a checkpoint or `once` is said
    by ``on_clear``, and without its record nobody could stop the job of before.

    What a user deletes by itself, not with a clear, is deleted.
    """
    if not state.is_delete or getattr(state.bind_mapper, "local_table", None) is None:
        return
    transaction = state.session.get_transaction()
    if state.bind_mapper.local_table.name != "task_state_store" or transaction is None:
        return
    if state.session.info.get(_CLEARING) is not transaction:
        return
    key = state.bind_mapper.local_table.c.key
    state.statement = state.statement.where(key != KEY, ~key.startswith(f"{KEY}.", autoescape=True))


def _some_are_deleted(session: Any, *_: Any) -> None:
    """Of a run the task instances are deleted with it, and before it."""
    if session.deleted:
        from airflow.models.dagrun import DagRun  # noqa: TID251

        runs = [(one.dag_id, one.run_id) for one in session.deleted if isinstance(one, DagRun)]
        if runs:
            _note_deleted(runs, session.connection().execute)


def _many_are_deleted(state: Any) -> None:
    """Of a DAG all task instances are deleted first, by one statement."""
    if not state.is_delete or getattr(state.bind_mapper, "local_table", None) is None:
        return
    if state.bind_mapper.local_table.name != "task_instance":
        return
    from airflow.models.taskinstance import TaskInstance  # noqa: TID251
    from sqlalchemy import select

    runs = select(TaskInstance.dag_id, TaskInstance.run_id).distinct()
    if state.statement.whereclause is not None:
        runs = runs.where(state.statement.whereclause)
    _note_deleted([(dag_id, run_id) for dag_id, run_id in state.session.execute(runs)], state.session.execute)


def _note_deleted(runs: list[RunId], execute: Any) -> None:
    """Never keeps Airflow from deleting."""
    try:
        for row in TaskStateTable().of_runs(runs, execute):
            _note_deleted_row(row)
    except Exception as e:
        say = "resumable: %d DAG runs are deleted, and what becomes of their jobs is not known: %s"
        log.warning(say, len(runs), shown(repr(e)))


def _note_deleted_row(row: Row) -> None:
    with suppress(RecordError):
        found, record = judged(row, Ended())
        if found not in (Verdict.LEFT, Verdict.CLOSED, Verdict.ELSEWHERE):
            what = "what once made" if record is None else job_of(record)
            log.warning("resumable: the DAG run of %s is deleted; %s is stopped in %.0f s", row, what, host.sweep_delay())
            _reaper.note(row.run, deleted=row)


@hookimpl
def on_starting(component: Any) -> None:
    """A DAG processor forks a process for each file: what adoption imports is imported before, once."""
    if host.parses_dag_files(str(getattr(component, "job_type", ""))) and host.setting("adopt") is not None:
        from resumable import adoption

        adoption.warm_up()


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


def _given_both(hook: Any) -> Any:
    """Pluggy gives a hook no argument that has a default; without one nobody else could call it by its first argument."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    hook.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ("dag_run", "msg")])
    return hookimpl(hook)


@_given_both
def on_dag_run_success(dag_run: Any, msg: str = "") -> None:
    _run_ended(dag_run, msg)


@_given_both
def on_dag_run_failed(dag_run: Any, msg: str = "") -> None:
    _run_ended(dag_run, msg)
