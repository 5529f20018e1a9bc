"""
Whatever stands in the records, and whoever ends which task when: the sweep stops what a user ended, and nothing else.

Over the tables of a real Airflow. Records are running, in doubt, left on purpose, told to stop, forged, damaged, of newer
releases; their tasks run, wait, were ended by a user, by a retry policy, by ``dagrun_timeout``, cleared, deleted; the clock of
the worker that wrote them was another; the service fails, or lies once. The listener's way (its notes, then a sweep of what they
name) and the command by hand are drawn alike.

What the claims leave out, in full: a user's stop of a task whose service does not answer is repeated by the listener; here only
that the sweep says so. A row that takes too long is `tests/unit/cleanup/test_sweep.py`.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st

from resumable import JobNotFound, ResumableMixin, host
from resumable.cleanup import listener, sweep
from resumable.cleanup.ended import Asked
from resumable.cleanup.sweep import Sweep
from resumable.cleanup.table import ONCE, Row, TaskStateTable
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from tests.life import invariants as inv
from tests.life.script import Told, as_test, step

pytestmark = [
    pytest.mark.skipif(not host.has_task_state(), reason="there is no task state table to sweep"),
    pytest.mark.timeout(1200),
]

WHICH = st.integers(0, 30)
FINISHED = ("success", "failed", "skipped", "upstream_failed", "removed")
UNFINISHED = ("running", "queued", "deferred", "up_for_retry", "up_for_reschedule", "scheduled", "restarting")
DAY = 86_400.0
KINDS = ["left", "told", "cancel if lost", "doubt", "doubt, no job", "ended", "gone", "closed"]
HERE = __name__
RECORD = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["running"] * 4 + ["told", "cancel if lost"] + KINDS),
        "state": st.one_of(st.sampled_from(UNFINISHED), st.sampled_from(FINISHED[:3])),
        "tries_left": st.booleans(),
        "run": st.sampled_from([0, 0, 0, 1, 2]),
        "clock": st.sampled_from([0.0, 0.0, -DAY, DAY]),
        "findable": st.booleans(),
    }
)
"""What a task keeps, how it is, and by how much the clock of its worker was wrong."""

NEW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["running"] * 3 + ["doubt"] * 3 + KINDS),
        "state": st.sampled_from(UNFINISHED),
        "tries_left": st.booleans(),
        "run": st.integers(0, 2),
        "clock": st.just(0.0),
        "findable": st.booleans(),
    }
)
THEN = st.sampled_from(["", "", "is cleared", *["is cleared and ends by itself"] * 2])
"""What becomes of a task that a user has marked, before the listener has done anything about it."""


class Service:
    """Of this process: jobs by id, and what it does wrong."""

    states: dict[int, str] = {}
    by_token: dict[str, int] = {}
    cancelled: list[int] = []
    cleaned: list[str] = []
    called_by_name: list[str] = []
    trouble: list[str] = []


class TrainJob(ResumableMixin, host.base_operator()):
    """A custom operator of a package that ``[resumable] sweep_modules`` names."""

    reach_fields = ("conn_id",)
    settle_time = 0.0

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def submit_job(self, context: Any) -> Any:
        raise AssertionError("the sweep submits nothing")

    def get_job_status(self, external_id: Any, context: Any) -> str:
        if Service.trouble and (what := Service.trouble.pop()):
            raise JobNotFound(f"no job {external_id}") if what == "404" else SystemExit(what)
        if self.conn_id != "trainer":
            raise LookupError(f"the conn_id {self.conn_id!r} isn't defined")
        if external_id not in Service.states:
            raise JobNotFound(f"no job {external_id}")
        return Service.states[external_id]

    def is_job_active(self, status: str) -> bool:
        return status == "RUNNING"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "DONE"

    def is_job_failed(self, status: str) -> bool:
        return status == "FAILED"

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        raise AssertionError("the sweep waits for no job")

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        raise AssertionError("the sweep delivers nothing")

    def cancel_job(self, external_id: Any, context: Any) -> None:
        Service.cancelled.append(external_id)
        Service.states[external_id] = "FAILED"


class FindableJob(TrainJob):
    """One whose service can be asked for the token of a job."""

    def find_job(self, token: str, context: Any) -> Any:
        return Service.by_token.get(token)


def running_jobs() -> list[int]:
    return [job for job, state in Service.states.items() if state == "RUNNING"]


def remove(value: Any) -> None:
    """A clean-up of a module that ``[resumable] cleanup_modules`` names."""
    Service.cleaned.append(value)


class ByName:
    """Stands in any module that imports it: none of that module's own, and never to be called by a record."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        Service.called_by_name.append(str(args or kwargs))


ByName.__module__ = "somewhere.else"

FORGED = (
    *["everybodys_module:Train"] * 4,  # that it was imported shows
    *("os:system", "subprocess:Popen", "", ":"),
    *(f"{HERE}:ByName", f"{HERE}:Service", f"{HERE}.x:Train"),
)
ODD: tuple[Any, ...] = (
    *('"submitted', "submitting", "", "null", '["submitted"]', '{"state": "submitted"}', '{"version": 1, "state": "submitted"}'),
    *('{"version": 99, "state": "submitted", "job": 7}', '{"version": 1.5, "state": "submitted"}'),
    *["[" * 3000 + '"submitted"'] * 5,  # nothing else ends whoever reads it by a RecursionError
    '{"version": 1, "state": "submitted", "job": {"a": NaN}, "token": 7, "generation": [], "owner": {}, "intended_at": "never"}',
)


@dataclass
class Task:
    """One task instance with a record, and what is true of it."""

    number: int
    kind: str
    run_id: str
    ti_id: str
    state: str
    has_tries_left: bool
    job: int | None = None
    value: str = ""
    is_left: bool = False
    was_told: bool = False
    cancel_if_lost: bool = False
    is_reachable: bool = True
    is_open: bool = True
    marked: set[str] = field(default_factory=set)  # the starts that a user ended
    is_of_ended_run: bool = False
    is_deleted: bool = False

    @property
    def task_id(self) -> str:
        return f"task-{self.number}-"

    @property
    def is_by_user(self) -> bool:
        return self.is_deleted or self.ti_id in self.marked or (self.is_of_ended_run and self.state == "skipped")

    @property
    def may_be_stopped(self) -> bool:
        """The promise: by a user or ``dagrun_timeout``, or as the task itself had noted."""
        if not self.is_open or self.is_left or not (self.is_deleted or self.state in FINISHED):
            return False
        is_lost = self.state == "failed" and not self.has_tries_left
        return self.is_by_user or self.was_told or (self.cancel_if_lost and is_lost)


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class SweepLife(Told):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Task] = []
        self.notes: set[Any] = set()
        self.ended_runs: set[str] = set()
        self.deletions = 0  # a run that comes again under its id takes the job up: it has the same token
        self._stack = ExitStack()
        self._set_up()

    def _set_up(self) -> None:
        from tests.support import database

        self.database = database
        database.empty()
        for name in ("states", "by_token", "cancelled", "cleaned", "called_by_name", "trouble"):
            getattr(Service, name).clear()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "everybodys_module.py").write_text("class Train: ...\ndef remove(value): ...\n")
        settings = {
            "AIRFLOW__RESUMABLE__SWEEP_MODULES": HERE,
            "AIRFLOW__RESUMABLE__CLEANUP_MODULES": HERE,
            "_AIRFLOW_PROCESS_CONTEXT": "server",
        }
        self._stack.enter_context(mock.patch.dict(os.environ, settings))
        self._stack.enter_context(mock.patch.object(sys, "path", [str(folder), *sys.path]))
        self._stack.enter_context(mock.patch.object(sweep, "_sleep"))
        self._stack.enter_context(mock.patch.object(listener, "_sweep", self._in_this_process))
        self.heard = Heard()
        log = logging.getLogger("resumable")
        level, log.level = log.level, logging.INFO
        log.addHandler(self.heard)
        self._stack.callback(lambda: (log.removeHandler(self.heard), log.setLevel(level)))

    def clean_up(self) -> None:
        sys.modules.pop("everybodys_module", None)
        self._stack.close()

    # -- records ------------------------------------------------------------------------------------------------------

    @step(often=3, records=st.lists(RECORD, min_size=1, max_size=4))
    def tasks_keep_records(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._keeps(**record)

    def _keeps(self, kind: str, state: str, tries_left: bool, run: int, clock: float, findable: bool) -> None:
        number = len(self.tasks) + 1
        job = 100 + number
        token = f"{number:048x}"
        at = time.time() - 600 + clock
        operator = FindableJob if findable or kind.startswith("doubt") else TrainJob
        name = operator.__name__
        record = JobRecord(name, token, Generation(3, 0, None), 0, "owner", 1, at, handle=JobHandle(name, job))
        record = replace(record, reach={"operator": f"{HERE}:{operator.__name__}", "conn_id": "trainer"}, submitted_at=at)
        if kind != "doubt, no job":
            Service.states[job], Service.by_token[token] = "RUNNING", job
        if kind == "left":
            record = replace(record, left="the task does not wait for it")
        elif kind == "told":
            record = replace(record.closed(Outcome.CANCELLED, at), closed_at=None)
        elif kind == "cancel if lost":
            record = replace(record, cancel_if_lost=True)
        elif kind.startswith("doubt"):
            record = replace(record, handle=None, submitted_at=None)
        elif kind == "ended":
            Service.states[job] = "DONE"
        elif kind == "gone":
            del Service.states[job]
        elif kind == "closed":
            record = record.closed(Outcome.SUCCEEDED, at)
        task = self._put(kind, state, tries_left, run, record.to_json(), job=None if kind == "doubt, no job" else job)
        task.is_left, task.was_told, task.cancel_if_lost = kind == "left", kind == "told", kind == "cancel if lost"
        task.is_open = kind != "closed"

    @step(
        seldom=True, path=st.sampled_from(FORGED), state=st.sampled_from(FINISHED[:3]), run=st.integers(0, 2), mark=st.booleans()
    )
    def a_task_forges_a_record(self, path: str, state: str, run: int, mark: bool) -> None:
        """With the name of code that the sweep is to import and call; the job that it names is another task's."""
        victim = next((task.job for task in self.tasks if task.job is not None), 1)
        record = JobRecord("TrainJob", "f" * 48, Generation(3, 0, None), 0, "owner", 1, 1e9, handle=JobHandle("TrainJob", victim))
        record = replace(record, reach={"operator": path, "conn_id": "trainer"})
        task = self._put("forged", state, False, run, record.to_json())
        task.is_reachable = False
        if mark:
            self._mark(task, state)

    @step(seldom=True, value=st.sampled_from(ODD), state=st.sampled_from(FINISHED[:3]), run=st.integers(0, 2), once=st.booleans())
    def a_task_keeps_something_odd(self, value: str, state: str, run: int, once: bool) -> None:
        task = self._put("odd", state, True, run, value, key=ONCE + "odd" if once else None)
        task.is_open = False
        self._mark(task, state)

    @step(seldom=True, run=st.integers(0, 2), state=st.sampled_from(FINISHED[:2]))
    def a_connection_is_gone(self, run: int, state: str) -> None:
        """A record of another deployment: its connection is not here."""
        number, name = len(self.tasks) + 1, "TrainJob"
        record = JobRecord(name, f"{number:048x}", Generation(3, 0, None), 0, "o", 1, 1e9, handle=JobHandle(name, 100 + number))
        record = replace(record, reach={"operator": f"{HERE}:TrainJob", "conn_id": "elsewhere"})
        Service.states[100 + number] = "RUNNING"
        task = self._put("elsewhere", state, True, run, record.to_json(), job=100 + number)
        task.is_reachable = False
        self._mark(task, state)

    @step(
        seldom=True,
        path=st.sampled_from([f"{HERE}:remove", "everybodys_module:remove", "os:system", *[f"{HERE}:ByName"] * 2]),
        state=st.sampled_from([*UNFINISHED[:2], *FINISHED[:3]]),
        run=st.integers(0, 2),
        swept=st.booleans(),
    )
    def once_made_something(self, path: str, state: str, run: int, swept: bool = False) -> None:
        """``swept``: by hand, at once."""
        made = f"cluster-{len(self.tasks) + 1}-"
        kept = {"version": 1, "state": "made", "value": made, "cleanup": path, "token": "t", "try": 1, "owner": "o"}
        task = self._put("once", state, True, run, {**kept, "generation": Generation(3, 0, None).to_json()}, key=ONCE + "cluster")
        task.value, task.is_reachable, task.is_open = made, path == f"{HERE}:remove", True
        if swept:
            self._sweep_by_hand(dry_run=False)

    def _put(
        self, kind: str, state: str, tries_left: bool, run: int, value: Any, *, job: int | None = None, key: str | None = None
    ) -> Task:
        number, run_id = len(self.tasks) + 1, f"run-{run}-{self.deletions}"
        more = {} if key is None else {"key": key}
        tries = (1, 3) if tries_left else (4, 3)
        ti_id = self.database.put("dag", run_id, f"task-{number}-", state, value, tries=tries, **more)
        task = Task(number, kind, run_id, ti_id, state, tries_left, job)
        self.tasks.append(task)
        self.cover(f"{kind}, {state}")
        return task

    # -- what happens to tasks ----------------------------------------------------------------------------------------

    @step(
        lambda self: self.alive,
        often=2,
        which=WHICH,
        to=st.sampled_from(FINISHED[:3]),
        then=THEN,
    )
    def a_user_marks(self, which: int, to: str, then: str = "") -> None:
        """``then``: before the listener has done anything about the mark."""
        self._mark_and(_one(self.alive, which), to, then)

    @step(often=2, record=NEW, to=st.sampled_from(FINISHED[:3]), then=THEN, swept=st.sampled_from([True, True, False]))
    def a_user_marks_a_new_one(self, record: dict[str, Any], to: str, then: str, swept: bool) -> None:
        """``swept``: and nothing else happens until the listener has done what it does about it."""
        self._keeps(**record)
        self._mark_and(self.tasks[-1], to, then)
        if swept:
            self._listener_sweeps()

    def _mark_and(self, task: Task, to: str, then: str) -> None:
        self._mark(task, to)
        if task.kind == "doubt":
            self.met("a user ends a task whose submit is in doubt")
        if then:
            self.met(f"marked, then {then}")
            self._clear(task)
        if then.endswith("by itself"):
            self._set(task, state="failed")
            task.state = "failed"

    def _mark(self, task: Task, to: str) -> None:
        task.state = to
        task.marked.add(task.ti_id)
        self._set(task, state=to)
        self.notes.add(listener.Note(("dag", task.run_id), (task.task_id, -1, task.ti_id)))

    @step(lambda self: self.unfinished, which=WHICH, to=st.sampled_from(FINISHED[:3]))
    def a_task_ends_by_itself(self, which: int, to: str) -> None:
        """With tries left, too: a ``retry_policy`` says so, code around ours swallows an error."""
        task = _one(self.unfinished, which)
        task.state = to
        self._set(task, state=to)

    @step(lambda self: self.alive, which=WHICH)
    def a_task_is_cleared(self, which: int) -> None:
        self._clear(_one(self.alive, which))

    def _clear(self, task: Task) -> None:
        new = uuid.uuid4()
        self._set(task, state="running", id=new)
        task.ti_id, task.state, task.is_of_ended_run = str(new), "running", False

    @step(lambda self: self.unfinished, often=2, which=WHICH, by_user=st.booleans())
    def a_run_ends(self, which: int, by_user: bool) -> None:
        run_id = _one(self.unfinished, which).run_id
        if by_user and any(task.kind == "running" and task.state in FINISHED and task.run_id == run_id for task in self.alive):
            self.met("a user ends a run of which a task had ended before")
        for task in [task for task in self.unfinished if task.run_id == run_id]:
            task.state = "skipped"
            task.is_of_ended_run = by_user
            self._set(task, state="skipped")
        self.ended_runs |= {run_id} if by_user else set()
        self.notes.add(listener.Note(("dag", run_id), is_stop=by_user))

    @step(lambda self: self.alive, which=WHICH)
    def a_run_is_deleted(self, which: int) -> None:
        run_id = _one(self.alive, which).run_id
        noted: list[Row] = []
        self.deletions += 1
        with mock.patch.object(listener._reaper, "note", lambda run, task=None, deleted=None: noted.append(deleted)):
            listener.hear_of_deletions()
            self.database.delete_run("dag", run_id)
        self.notes |= {listener.Note(row.run, deleted=row) for row in noted}
        for task in self.tasks:
            if task.run_id == run_id:
                task.is_deleted, task.run_id = True, f"{run_id} (deleted)"

    @step(lambda self: running_jobs(), seldom=True, which=WHICH, to=st.sampled_from(["DONE", "FAILED"]))
    def a_job_ends(self, which: int, to: str) -> None:
        Service.states[_one(running_jobs(), which)] = to

    @step(seldom=True, what=st.sampled_from(["404", "exit"]))
    def the_service_is_in_trouble(self, what: str) -> None:
        """Once: one answer that there is no such job, or somebody's operator that ends the process."""
        Service.trouble = [what]

    # -- sweeps -------------------------------------------------------------------------------------------------------

    @step(lambda self: self.notes, often=3)
    def the_listener_sweeps(self) -> None:
        self._listener_sweeps()

    def _listener_sweeps(self) -> None:
        notes, self.notes = self.notes, set()
        noted_starts = {note.task[2] for note in notes if note.task}
        noted_runs = {note.run for note in notes if note.task is None and note.deleted is None}
        noted_deleted = {note.deleted.task_id for note in notes if note.deleted is not None}
        before = self._before()
        again = listener._again(notes)
        swept = [
            task
            for task in self.tasks
            if task.ti_id in noted_starts
            or ("dag", task.run_id) in noted_runs
            or (task.is_deleted and task.task_id in noted_deleted)
        ]
        self._check(before, swept, is_again=bool(again))
        self.notes |= again

    @step(lambda self: self.tasks, often=2, dry_run=st.sampled_from([True, True, False]))
    def somebody_sweeps_by_hand(self, dry_run: bool) -> None:
        self._sweep_by_hand(dry_run=dry_run)

    def _sweep_by_hand(self, *, dry_run: bool) -> None:
        before = self._before()
        if dry_run and any(task.was_told and task.job in self.was_running and task.state in FINISHED for task in self.alive):
            self.met("a dry run where there is a job to stop")
        Sweep(dry_run=dry_run).run()
        for task in self.tasks:
            if task.job in Service.cancelled[before[0] :]:
                is_asked_for = (task.was_told or task.cancel_if_lost) and not dry_run
                inv.CANCELLED_FOR_NOBODY.holds(is_asked_for, f"{task.kind} of a task that is {task.state}, by hand")
        self._check(before, [task for task in self.tasks if not task.is_deleted], is_again=False, by_hand=True, dry_run=dry_run)

    def _in_this_process(self, asked: Asked) -> set[Any]:
        asked = Asked.from_json(asked.to_json())
        pass_ = Sweep()
        pass_.run(asked.runs, asked.by_user, ended_runs=asked.ended_runs, deleted=asked.deleted, only=asked.only)
        return pass_.unsettled

    def _before(self) -> tuple[int, int]:
        self.heard.lines.clear()
        self.was_running = set(running_jobs())
        self.had_trouble = bool(Service.trouble)
        return len(Service.cancelled), len(Service.cleaned)

    def _check(
        self, before: tuple[int, int], swept: list[Task], *, is_again: bool, by_hand: bool = False, dry_run: bool = False
    ) -> None:
        cancelled, cleaned = Service.cancelled[before[0] :], Service.cleaned[before[1] :]
        inv.NO_STRANGE_CODE.holds("everybodys_module" not in sys.modules, "a module was imported that nobody has allowed")
        inv.NO_STRANGE_CODE.holds(not Service.called_by_name, f"what a record names was called: {Service.called_by_name}")
        owners = {task.job: task for task in self.tasks if task.job is not None}
        for job in cancelled:
            task = owners[job]
            seen = f"the job of a task that is {task.state}, whose record is {task.kind}"
            # one that had been skipped before cannot be told from those that the end of its run skipped
            is_of_run = task.state == "skipped" and task.run_id in self.ended_runs and task.is_open and not task.is_left
            inv.CANCELLED_FOR_NOBODY.holds(task.may_be_stopped or is_of_run, f"cancelled, and nobody had asked for it: {seen}")
        made = {task.value: task for task in self.tasks if task.value}
        for value in cleaned:
            task = made[value]
            inv.IN_USE.holds(task.is_deleted or task.state in FINISHED, f"{value} is cleaned up, its task is {task.state}")
        said = "\n".join(self.heard.lines)
        for task in swept:
            if task.kind == "once" or (task.job in self.was_running and not dry_run):
                self._check_one(task, cancelled, cleaned, said, is_again=is_again, by_hand=by_hand, dry_run=dry_run)

    def _check_one(self, task: Task, cancelled: list[int], cleaned: list[str], said: str, **how: bool) -> None:
        """Stopped, or told of."""
        if not task.is_open or task.is_left or not (task.is_deleted or task.state in FINISHED):
            return
        is_named = task.task_id in said or (task.value and task.value in said)
        if task.kind == "once":
            is_done = task.value in cleaned
            task.is_open = task.is_open and not is_done
        else:
            is_done = task.job in cancelled
            if is_done:
                task.was_told = True
        inv.ORPHAN_KEPT.holds(is_done or is_named, f"{task.kind} of a task that is {task.state}: not stopped, and nothing said")
        can_be = task.is_reachable and not how["is_again"] and not how["by_hand"] and not self.had_trouble
        if task.may_be_stopped and can_be and task.kind != "once":
            inv.STOP_LOST.holds(is_done, f"{task.kind} of a task that is {task.state} runs on: {said[-300:]}")

    # -- inside -------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Task]:
        return [task for task in self.tasks if not task.is_deleted]

    @property
    def unfinished(self) -> list[Task]:
        return [task for task in self.alive if task.state in UNFINISHED]

    def _set(self, task: Task, **values: Any) -> None:
        self.database.change("dag", task.run_id, task.task_id, **values)

    def end(self) -> None:
        """In the end the listener has heard of all, and the service answers."""
        Service.trouble = []
        if self.notes:
            self._listener_sweeps()
        rest = [
            task
            for task in self.tasks
            if task.may_be_stopped and task.is_by_user and task.is_reachable and Service.states.get(task.job or 0) == "RUNNING"
        ]
        inv.STOP_LOST.holds(not rest, f"a user has ended them, their jobs run on: {[(task.kind, task.state) for task in rest]}")
        list(TaskStateTable().ended())  # whatever stands there can be read


def _one(of: list[Any], which: int) -> Any:
    return of[which % len(of)]


MEETS = (
    *("marked, then is cleared", "marked, then is cleared and ends by itself", "a dry run where there is a job to stop"),
    *("a user ends a run of which a task had ended before", "a user ends a task whose submit is in doubt"),
)
test_the_sweep_stops_what_a_user_ended_and_nothing_else = as_test(SweepLife, examples=40, steps=20, meets=MEETS)
