"""
Whatever happens in whatever order, no row at or before the mark is missing, and no row is read by two successful runs.

Each attempt of a run is a thread that stops before every call it makes, to the stores and to the target; the machine picks who
goes on, who dies, who is given up and lives on as a zombie, what is cleared, deleted, marked, skipped or edited meanwhile. Runs
are backfills too, or are made anew as such; a person sets the mark back; stores do not answer, or too late. The mark is an int, a
str, a date, a day of pandas or a datetime, of an asset or in a Variable, of one task, of a mapped one whose place in its list
moves, or shared by two.

What the claims leave out, in full:

- The load is an upsert or replaces its interval: it may be repeated, and is done as a whole or not at all.
- A row is visible before a later one is (what `lag` is for).
- With runs at once, rows may be read by two of them, and an update of the mark can be written over: no row is lost by it, but
  the claims about rows read twice are made for one run at a time only.
- Not more than 20 runs in a row end their work and fail afterwards; of more, the oldest are forgotten, which reads rows again.
- Whoever sets the mark back asks for rows to be read again; that is not done between the load and the end of a run's work, which
  nobody can tell from work that came after, nor between a run's last look at the mark and its write, for no store compares.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date, datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from resumable import StateStoreError, Watermark, host
from resumable.errors import SupersededError
from resumable.stores.task_variables import TaskVariableStore
from resumable.watermark import intervals
from tests.life import invariants as inv
from tests.life.script import Told, as_test, step
from tests.support.incremental import ASSET, Deployment, Run
from tests.support.names import AirflowFailException, AirflowSkipException
from tests.support.refusals import answer_of_server

EXPECTED = (SupersededError, StateStoreError)
ENDED = ("success", "failed", "skipped")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST_DAY, FIRST_HOUR = date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=timezone.utc)


def pandas_day(n: int) -> Any:
    import pandas as pd

    return pd.Timestamp("2026-01-01") + pd.Timedelta(days=n)


def numpy_number(n: int) -> Any:
    import numpy as np

    return np.float64(n)


MARKS: dict[str, tuple[Callable[[int], Any], Callable[[int], Any], Callable[[Any], int], Any]] = {
    "int": (int, int, int, 1),
    "number of numpy": (int, numpy_number, int, 1),
    "str": (lambda n: f"{n:06}", lambda n: f"{n:06}", int, None),
    "date": (lambda n: FIRST_DAY + n * DAY, lambda n: FIRST_DAY + n * DAY, lambda day: (day - FIRST_DAY).days, DAY),
    "day of pandas": (lambda n: FIRST_DAY + n * DAY, pandas_day, lambda day: (day - FIRST_DAY).days, DAY),
    "datetime": (lambda n: FIRST_HOUR + n * HOUR, lambda n: FIRST_HOUR + n * HOUR, lambda at: (at - FIRST_HOUR) // HOUR, HOUR),
}
"""Of each kind: the value of the n-th row, the same as the target's client gives it, its number, and the step from row to row."""

OF_TIME = ("date", "day of pandas", "datetime")
WHICH = st.integers(0, 5)
STEPS = st.one_of(st.integers(1, 12), st.just(40))
"""How far a process goes on; the last is to its end."""
SKIPS = st.sampled_from([False, False, False, True])


class DiedError(BaseException):
    """SIGKILL: whatever the process does afterwards has no effect."""


class Process:
    """One attempt in a thread of its own, that stops before each of its calls until it is told to go on."""

    def __init__(self, world: World, run: Run) -> None:
        self.world, self.run = world, run
        self.try_number = run.try_number
        self.at, self.done, self.dead, self.has_loaded = "birth", False, False, False
        self.is_overtaken = False
        """Whether somebody set the mark back while it worked: it may have looked at the mark before."""
        self.error: BaseException | None = None
        self.context = world.airflow.context(run, at=self.stop_before)
        own, of_assets = self.context["task_state_store"], self.context["asset_state_store"].values()
        own.set = self._refused_if_given_up(own.set, "set")
        for accessor in of_assets:
            accessor.set = self._refused_if_given_up(accessor.set, "set the mark")
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._stopped.acquire()

    @property
    def is_current(self) -> bool:
        return (
            self.run.try_number == self.try_number and self.run.state == "running" and self.run.run_id in self.world.airflow.runs
        )

    def go_on(self) -> None:
        self._go.release()
        self._stopped.acquire()

    def die(self) -> None:
        self.dead = True
        while not self.done:
            self.go_on()

    def stop_before(self, call: str) -> None:
        self.at = call
        self._stopped.release()
        self._go.acquire()
        if self.dead:
            raise DiedError

    def _refused_if_given_up(self, write: Callable[[str, Any], None], call: str) -> Callable[[str, Any], None]:
        def checked(key: str, value: Any) -> None:
            self.stop_before(call)
            if not self.is_current:
                raise answer_of_server(404, "Task instance UUID('0199') not found")
            world, at = self.world, self.stop_before
            self.stop_before = lambda call: None  # type: ignore[method-assign]
            try:
                write(key, value)
            finally:  # also if the answer comes too late
                self.stop_before = at  # type: ignore[method-assign]
                world.written()

        return checked

    def _work(self) -> None:
        world = self.world
        try:
            self._stopped.release()
            self._go.acquire()
            if self.dead:
                raise DiedError
            with world.watermark(self) as mark:
                since, until = world.number(mark.since), world.number(mark.until)
                world.was_given(self, mark, since, until)
                self.stop_before("load")
                if self.run.run_id in world.skipping:
                    raise AirflowSkipException
                world.target.update(range(since + 1, until + 1))
                self.has_loaded = True
                self.stop_before("advance")
                mark.advance(*world.advanced(until))
            world.block_ended(self)
        except BaseException as e:
            self.error = e
        self.done = True
        self._stopped.release()


class World:
    """The source and the target, the deployment, and what the claims need to know."""

    def __init__(self, *, at_once: int, kind: str = "int", of: str = "asset", whose: str = "one task") -> None:
        self.airflow = Deployment()
        self.airflow.max_active_runs = at_once
        self.kind, self.of, self.whose = kind, of, whose
        self.value, self.as_given, self.number, self.step = MARKS[kind]
        self.newest = 0
        self.overlap = 0
        self.target: set[int] = set()
        self.processes: list[Process] = []
        self.intervals: dict[str, tuple[int, int]] = {}
        self.begun: dict[str, int] = {}
        self.worked: dict[str, tuple[int, int]] = {}
        self.asked: dict[str, tuple[int, int]] = {}
        """What backfills are to read."""
        self.ever_succeeded: set[str] = set()
        self.skipping: set[str] = set()
        self.before_a_set: set[str] = set()
        """Runs from before a person set the mark back: what they have read is to be read again."""
        self.forgotten: set[str] = set()
        """Runs whose own state was deleted: what they had read stands in the mark's record alone."""
        self.ends = {0}
        """Where the mark may stand: what a successful run came to, or a person said."""
        self.marks = [0]

    # -- what the processes do

    def run(self, run_id: str, *, index: int = 0, **more: Any) -> Run:
        task_id = "other" if self.whose == "two tasks" and index % 2 else "task"
        return self.airflow.run(run_id, task_id=task_id, map_index=index % 3 if self.whose == "mapped" else -1, **more)

    def watermark(self, process: Process) -> Watermark:
        more: dict[str, Any] = {"asset": ASSET} if self.of == "asset" else {}
        if self.step is not None and self.overlap:
            more["overlap"] = self.overlap * self.step
        if self.whose == "two tasks":
            more["shared"] = True
        return Watermark("orders", start=self.value(0), until=self.up_to, context=process.context, **more)

    def up_to(self) -> Any:
        return self.as_given(self.newest)

    def advanced(self, until: int) -> tuple[Any, ...]:
        return () if until % 2 else (self.as_given(until),)

    # -- what the processes tell

    def was_given(self, process: Process, mark: Any, since: int, until: int) -> None:
        run = process.run
        read = (since, until)
        if run.run_id in self.asked:
            asked = self.asked[run.run_id]
            # one that was given up before the run was made anew reads what that run was to read then
            inv.ROW_UNREAD.holds(
                read == asked or not process.is_current, f"the backfill {run.run_id} reads {read} instead of {asked}"
            )
            return
        is_lost = run.run_id in self.forgotten and self.airflow.max_active_runs > 1  # written over, with its proposal
        if (run.run_id in self.before_a_set and not run.data) or is_lost:
            self.intervals[run.run_id] = read  # what it had read then nobody knows any more
        known = self.intervals.setdefault(run.run_id, read)
        inv.ROW_UNREAD.holds(known == read, f"{run.run_id} was given {known}, and then {read}")
        if not mark.is_repeat:
            begun = self.number(mark._interval.mark)
            self.begun[run.run_id] = begun
            self.check_new(process, begun, until)

    def check_new(self, process: Process, since: int, until: int) -> None:
        if self.airflow.max_active_runs > 1 or process.is_overtaken:
            return
        for run_id, (first, last) in self.worked.items():
            run = self.airflow.runs.get(run_id)
            if run is not None and run.state == "success" and process.is_current:
                is_new = not (first < until and since < last)
                inv.ROW_TWICE.holds(is_new, f"{process.run.run_id} reads what {run_id} has loaded")
        self.ends |= {last for run_id, (_, last) in self.worked.items() if run_id in self.ever_succeeded}
        inv.ROW_UNREAD.holds(since in self.ends, f"the mark stands at {since}, which no successful run came to")

    def block_ended(self, process: Process) -> None:
        run_id = process.run.run_id
        if process.is_current and run_id not in self.asked:
            first, last = self.begun.get(run_id, self.intervals[run_id][0]), self.intervals[run_id][1]
            if run_id in self.before_a_set:
                self.ends.add(last)
            elif last > first:
                self.worked[run_id] = (first, last)

    def written(self) -> None:
        if self.airflow.asset or self.airflow.variables:
            self.marks.append(self.mark)

    @property
    def record(self) -> dict[str, Any]:
        kept: Any = self.airflow.record
        return json.loads(kept) if isinstance(kept, str) else kept  # a Variable is a text

    @property
    def mark(self) -> int:
        text = self.record["mark"]
        read = {"date": date.fromisoformat, "day of pandas": date.fromisoformat, "datetime": datetime.fromisoformat}
        return self.number(read.get(self.kind, lambda value: value)(text))

    # -- the claims

    def check(self) -> None:
        missing = set(range(1, self.marks[-1] + 1)) - self.target
        inv.ROW_UNREAD.holds(not missing, f"rows {sorted(missing)} lie before the mark {self.marks[-1]} and were never loaded")
        if self.airflow.max_active_runs == 1:
            inv.ROW_TWICE.holds(self.marks == sorted(self.marks), f"the mark went back: {self.marks}")


class Named:
    """The deployment's Variables, through the context's accessor."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def get(self, name: str) -> Any:
        return self._accessor.get(name)

    def set(self, name: str, text: str, description: str) -> None:
        self._accessor.set(name, text)

    def delete(self, name: str) -> None:
        self._accessor.delete(name)


def variables_of(context: Any) -> TaskVariableStore:
    return TaskVariableStore(host.task_identity(context), Named(context["variables"]))


class Machine(Told):
    """See the module."""

    at_once = 1

    def __init__(self) -> None:
        super().__init__()
        self.world = World(at_once=self.at_once)
        self.numbers = 0
        self._stack = ExitStack()
        self._stack.enter_context(mock.patch("resumable.stores.base.time.sleep"))
        self._stack.enter_context(mock.patch.object(host, "task_variable_store", variables_of))

    def clean_up(self) -> None:
        for process in self.alive:
            process.die()
        self._stack.close()

    @step(
        first=True,
        kind=st.sampled_from(sorted(MARKS)),
        of=st.sampled_from(["asset", "asset", "Variable"]),
        whose=st.sampled_from(["one task", "one task", "mapped", "two tasks"]),
    )
    def begin(self, kind: str, of: str, whose: str) -> None:
        if of == "Variable" and whose == "two tasks":  # a Variable is of one task
            whose = "mapped"
        if of == "asset" and whose == "mapped":
            whose = "one task"
        self.world = World(at_once=self.at_once, kind=kind, of=of, whose=whose)
        self.cover(f"{kind}, {of} of {whose}")

    def tell(self, act: Callable[[], Any]) -> Any:
        return super().tell(lambda: (act(), self.world.check())[0])

    # -- helpers

    @property
    def runs(self) -> list[Run]:
        return list(self.world.airflow.runs.values())

    @property
    def ended(self) -> list[Run]:
        return [run for run in self.runs if run.state in ENDED]

    @property
    def active(self) -> list[Run]:
        return [run for run in self.runs if run.state not in ENDED]

    @property
    def alive(self) -> list[Process]:
        return [p for p in self.world.processes if not p.done]

    def start_process(self, run: Run) -> None:
        self.world.processes.append(Process(self.world, run))

    # -- what happens

    @step(rows=st.integers(1, 3))
    def rows_come(self, rows: int) -> None:
        self.world.newest += rows

    @step(lambda self: len(self.active) < self.at_once, index=WHICH, skips=SKIPS, steps=STEPS)
    def a_run_starts(self, index: int, skips: bool, steps: int) -> None:
        self.numbers += 1
        run = self.world.run(f"run-{self.numbers}", index=index)
        if skips:
            self.world.skipping.add(run.run_id)
        self.start_process(run)
        self._go_on(self.alive[-1], steps)

    @step(lambda self: self.alive, which=WHICH, steps=STEPS)
    def a_process_goes_on(self, which: int, steps: int) -> None:
        self._go_on(_one(self.alive, which), steps)

    def _go_on(self, process: Process, steps: int) -> None:
        for _ in range(steps):
            if not process.done:
                process.go_on()
        self.take_in(process)

    def take_in(self, process: Process) -> None:
        if not process.done:
            return
        error = process.error
        if error is not None and not isinstance(error, (*EXPECTED, DiedError, AirflowSkipException)):
            raise error
        if process.is_current and isinstance(error, AirflowSkipException):
            process.run.state = "skipped"
        elif process.is_current and error is None:
            process.run.state = "success"
            self.world.ever_succeeded.add(process.run.run_id)
        elif process.is_current:
            process.run.state = "up_for_retry"

    @property
    def current(self) -> list[Process]:
        return [p for p in self.alive if p.is_current]

    @step(lambda self: self.current, which=WHICH, for_good=st.booleans())
    def a_worker_is_killed(self, which: int, for_good: bool) -> None:
        process = _one(self.current, which)
        process.die()
        process.run.state = "failed" if for_good else "up_for_retry"

    @step(lambda self: self.current, which=WHICH, for_good=st.booleans())
    def a_process_is_given_up_and_lives_on(self, which: int, for_good: bool) -> None:
        _one(self.current, which).run.state = "failed" if for_good else "up_for_retry"

    @step(lambda self: self.current, which=WHICH)
    def a_task_fails_after_its_work_was_done(self, which: int) -> None:
        process = _one(self.current, which)
        while not process.done:
            process.go_on()
        process.run.state = "failed"

    @step(lambda self: [r for r in self.runs if r.state == "up_for_retry"], which=WHICH, index=WHICH)
    def a_run_is_retried(self, which: int, index: int) -> None:
        run = _one([r for r in self.runs if r.state == "up_for_retry"], which)
        run.retry()
        self.start_process(run)
        self._go_on(self.alive[-1], index * 3)

    @step(lambda self: self.ended and len(self.active) < self.at_once, which=WHICH, forgets=st.booleans())
    def a_run_is_cleared(self, which: int, forgets: bool) -> None:
        run = _one(self.ended, which)
        known = {p["run"] for p in self.world.record["proposed"]} if self.marked else set()
        if forgets and run.run_id in known:
            run.data.clear()  # [state_store] clear_on_success
            self.world.forgotten.add(run.run_id)
        run.clear()
        self.start_process(run)

    @property
    def marked(self) -> bool:
        return bool(self.world.airflow.asset or self.world.airflow.variables)

    @step(lambda self: self.ended, which=WHICH)
    def a_run_is_deleted(self, which: int) -> None:
        del self.world.airflow.runs[_one(self.ended, which).run_id]

    @step(lambda self: [r for r in self.runs if r.state == "failed"], which=WHICH)
    def a_failed_run_is_marked_success(self, which: int) -> None:
        run = _one([r for r in self.runs if r.state == "failed"], which)
        run.state = "success"
        self.world.ever_succeeded.add(run.run_id)

    @step(overlap=st.integers(0, 3))
    def the_overlap_is_edited(self, overlap: int) -> None:
        self.world.overlap = overlap

    @step(
        lambda self: self.world.kind in OF_TIME and len(self.active) < self.at_once,
        after=st.integers(0, 8),
        rows=st.integers(1, 3),
        anew=st.booleans(),
        which=WHICH,
        steps=STEPS,
    )
    def a_backfill_runs(self, after: int, rows: int, anew: bool, which: int, steps: int) -> None:
        """A run of its own, or one of earlier that is made anew (``--reprocess-behavior``)."""
        world, step_ = self.world, self.world.step
        first = datetime.combine(FIRST_DAY, datetime.min.time(), timezone.utc) + (after + 1) * step_
        if anew and self.ended:
            run = _one(self.ended, which)
            run.clear()
            world.worked.pop(run.run_id, None)
        else:
            self.numbers += 1
            run = world.run(f"backfill-{self.numbers}", index=which)
        run.run_type, run.interval = "backfill", (first, first + rows * step_)
        world.skipping.discard(run.run_id)
        world.asked[run.run_id] = (after, after + rows)
        self.start_process(run)
        self._go_on(self.alive[-1], steps)

    @step(what=st.sampled_from(["down", "late"]), calls=st.sampled_from([1, 2, 5, 7, 13]))
    def the_stores_are_in_trouble(self, what: str, calls: int) -> None:
        self.world.airflow.trouble[:] = [what] * calls

    @step(
        lambda self: self.marked and self.world.of == "asset" and self.world.mark,
        often=2,
        to=st.integers(0, 8),
        at_work=st.booleans(),
    )
    def somebody_sets_the_mark_back(self, to: int, at_work: bool = False) -> None:
        """
        As ``resumable mark set`` does, because what was loaded was wrong, and is taken away. ``at_work``: a run that works then
        comes to its end.
        """
        if any(process.has_loaded or process.at == "set the mark" for process in self.alive):
            return
        self._set_back(to)
        if at_work and self.current:
            self._go_on(_one(self.current, to), 40)

    @step(
        lambda self: self.world.of == "asset" and len(self.active) < self.at_once,
        to=st.integers(0, 8),
        rows=st.integers(1, 3),
        index=WHICH,
    )
    def the_mark_is_set_back_while_a_run_works(self, to: int, rows: int, index: int) -> None:
        """Between what it was given and its load, and what it has loaded then lies behind a gap; the next run comes."""
        for _ in range(2):  # a mark is moved by the run after the one that has worked
            if not (self.marked and self.world.mark):
                self.world.newest += rows
                self._go_on(self._new_run(index), 40)
        if not (self.marked and self.world.mark) or len(self.active) >= self.at_once:
            return
        self.world.newest += rows
        process = self._new_run(index)
        while not process.done and process.at != "load":
            process.go_on()
        self.take_in(process)
        if process.done or any(one.has_loaded or one.at == "set the mark" for one in self.alive):
            return
        self._set_back(to)
        self._go_on(process, 40)
        if len(self.active) < self.at_once:
            self._go_on(self._new_run(index), 40)

    def _new_run(self, index: int) -> Process:
        self.numbers += 1
        self.start_process(self.world.run(f"run-{self.numbers}", index=index))
        return self.world.processes[-1]

    def _set_back(self, to: int) -> None:
        world = self.world
        to %= world.mark
        if self.current:
            self.met("the mark is set back while a run works")
        (key,) = world.airflow.asset
        kept = json.loads(world.airflow.asset[key])
        kept |= {"mark": intervals.ValueType.of(world.value(0)).to_json(world.value(to)), "proposed": [], "owner": "a person"}
        world.airflow.asset[key] = json.dumps(kept)
        world.target -= set(range(to + 1, world.newest + 1))
        world.worked.clear()
        for process in self.alive:
            process.is_overtaken = True
        world.before_a_set |= {*world.intervals, *(process.run.run_id for process in self.alive)}
        world.ends.add(to)
        world.marks = [to]

    @step(lambda self: self.marked and self.world.of == "asset" and self.world.whose == "one task")
    def another_task_opens_the_mark(self) -> None:
        """It would skip what this one has read, and this one what it has."""
        world = self.world
        trouble, world.airflow.trouble[:] = list(world.airflow.trouble), []
        run = Run("stranger-run", task_id="stranger")
        try:
            context = world.airflow.context(run)
            with Watermark("orders", start=world.value(0), asset=ASSET, until=world.up_to, context=context) as mark:
                inv.ROW_UNREAD.holds(False, f"two tasks move one mark; the other is given {mark.since} to {mark.until}")
        except AirflowFailException:
            pass
        finally:
            world.airflow.trouble[:] = trouble

    # -- the end

    def end(self) -> None:
        world = self.world
        world.airflow.trouble.clear()
        for process in self.alive:
            process.die()
        for run in self.active:
            run.state = "failed"
        for number in range(2):
            last = Process(world, world.run(f"last-{number}", index=number))
            while not last.done:
                last.go_on()
            inv.NO_TRY_HELPS.holds(last.error is None, f"the last run fails: {last.error!r}")
            last.run.state = "success"
            world.ever_succeeded.add(last.run.run_id)
        missing = set(range(1, world.newest + 1)) - world.target
        inv.ROW_UNREAD.holds(not missing, f"in the end rows {sorted(missing)} are missing")


def _one(of: list[Any], which: int) -> Any:
    return of[which % len(of)]


class AtOnce(Machine):
    at_once = 3


test_one_run_at_a_time = as_test(Machine, examples=80, steps=30)
test_runs_at_once = as_test(AtOnce, examples=80, steps=30)


# -- and it can fail: each mutation of the code is found ---------------------------------------------------------------


def counts_without_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "succeeded", lambda context, tasks: set(tasks))


def never_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "succeeded", lambda context, tasks: set())


def retries_read_a_new_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(given: intervals.Interval, mark: Any) -> intervals.Interval:
        until: Any = given.until
        if isinstance(until, str):
            return intervals.replace(given, until=f"{int(until) + 1:06}")
        return intervals.replace(
            given, until=until + (HOUR if isinstance(until, datetime) else DAY if isinstance(until, date) else 1)
        )

    monkeypatch.setattr("resumable.watermark.run.repeat", again)


def skips_what_a_failed_run_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    last = [0]

    def give(mark: int, *, until: int, **_: Any) -> intervals.Interval:
        first, last[0] = min(last[0], until), until
        return intervals.Interval(mark, first, until)

    monkeypatch.setattr("resumable.watermark.run.give", give)


MUTATIONS = [counts_without_success, never_counts, retries_read_a_new_interval, skips_what_a_failed_run_was_given]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_machine_finds_a_watermark_that(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    machine = seed(1)(type("Mutated", (Machine,), {}))
    quick = settings(
        max_examples=300,
        stateful_step_count=40,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)
