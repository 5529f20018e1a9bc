"""
Whatever happens in whatever order, no row at or before the mark is missing, and no row is read by two successful runs.

Each attempt of a run is a thread that stops before every call it makes, to the stores and to the target; the machine picks who
goes on, who dies, who is given up and lives on as a zombie, what is cleared, deleted, marked or edited meanwhile.

What the claims leave out, in full:

- The load is an upsert or replaces its interval: it may be repeated, and is done as a whole or not at all.
- A row is visible before a later one is (what `lag` is for).
- With runs at once, rows may be read by two of them, and an update of the mark can be written over: no row is lost by it, but
  the claims about rows read twice are made for one run at a time only.
- Not more than 20 runs in a row end their work and fail afterwards; of more, the oldest are forgotten, which reads rows again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from resumable import StateStoreError, Watermark, compat, intervals
from resumable.stores import SupersededError
from tests.support.incremental import ASSET, Deployment, Run
from tests.support.refusals import answer_of_server

EXPECTED = (SupersededError, StateStoreError)
ENDED = ("success", "failed")


class DiedError(BaseException):
    """SIGKILL: whatever the process does afterwards has no effect."""


class Process:
    """One attempt in a thread of its own, that stops before each of its calls until it is told to go on."""

    def __init__(self, world: World, run: Run) -> None:
        self.world, self.run = world, run
        self.try_number = run.try_number
        self.at, self.done, self.dead = "birth", False, False
        self.error: BaseException | None = None
        self.given: Any = None
        self.context = world.airflow.context(run, at=self.stop_before)
        for accessor in (self.context["task_state_store"], *self.context["asset_state_store"].values()):
            accessor.set = self._refused_if_given_up(accessor.set)
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

    def _refused_if_given_up(self, write: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        def checked(key: str, value: Any) -> None:
            self.stop_before("set")
            if not self.is_current:
                raise answer_of_server(404, "Task instance UUID('0199') not found")
            world, at = self.world, self.stop_before
            self.stop_before = lambda call: None  # type: ignore[method-assign]
            try:
                write(key, value)
            finally:
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
            with Watermark(
                "orders",
                start=0,
                asset=ASSET,
                until=lambda: world.newest,
                overlap=world.overlap,
                context=self.context,
            ) as mark:
                self.given = (mark.since, mark.until)
                world.was_given(self, mark)
                self.stop_before("load")
                world.target.update(range(mark.since + 1, mark.until + 1))
                self.stop_before("advance")
                mark.advance()
            world.block_ended(self)
        except BaseException as e:
            self.error = e
        self.done = True
        self._stopped.release()


class World:
    """The source and the target, the deployment, and what the claims need to know."""

    def __init__(self, *, at_once: int) -> None:
        self.airflow = Deployment()
        self.airflow.max_active_runs = at_once
        self.newest = 0
        self.overlap = 0
        self.target: set[int] = set()
        self.processes: list[Process] = []
        self.intervals: dict[str, tuple[int, int]] = {}
        self.begun: dict[str, int] = {}
        self.worked: dict[str, tuple[int, int]] = {}
        self.ever_succeeded: set[str] = set()
        self.marks = [0]

    # -- what the processes tell

    def was_given(self, process: Process, mark: Any) -> None:
        run = process.run
        read = (mark.since, mark.until)
        assert self.intervals.setdefault(run.run_id, read) == read, f"{run.run_id} was given two intervals"
        if not mark.is_repeat:
            self.begun[run.run_id] = mark._interval.mark
            self.check_new(process, mark._interval.mark, mark.until)

    def check_new(self, process: Process, since: int, until: int) -> None:
        if self.airflow.max_active_runs > 1:
            return
        for run_id, (first, last) in self.worked.items():
            run = self.airflow.runs.get(run_id)
            if run is not None and run.state == "success":
                assert not (first < until and since < last), f"{process.run.run_id} reads what {run_id} has loaded"
        own = [last for run_id, (_, last) in self.worked.items() if run_id in self.ever_succeeded]
        assert since in (0, *own), f"the mark stands at {since}, which no successful run came to"

    def block_ended(self, process: Process) -> None:
        if process.is_current:
            run_id = process.run.run_id
            first, last = self.begun.get(run_id, self.intervals[run_id][0]), self.intervals[run_id][1]
            if last > first:
                self.worked[run_id] = (first, last)

    def written(self) -> None:
        if self.airflow.asset:
            self.marks.append(self.airflow.record["mark"])

    # -- the claims

    def check(self) -> None:
        missing = set(range(1, self.marks[-1] + 1)) - self.target
        assert not missing, f"rows {sorted(missing)} lie before the mark {self.marks[-1]} and were never loaded"
        if self.airflow.max_active_runs == 1:
            assert self.marks == sorted(self.marks), f"the mark went back: {self.marks}"


class Machine(RuleBasedStateMachine):
    at_once = 1

    @initialize()
    def begin(self) -> None:
        self.world = World(at_once=self.at_once)
        self.numbers = 0

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

    # -- rules

    @rule(rows=st.integers(1, 3))
    def rows_come(self, rows: int) -> None:
        self.world.newest += rows

    @precondition(lambda self: len(self.active) < self.at_once)
    @rule()
    def a_run_starts(self) -> None:
        self.numbers += 1
        self.start_process(self.world.airflow.run(f"run-{self.numbers}"))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), steps=st.integers(1, 12))
    def a_process_goes_on(self, data: st.DataObject, steps: int) -> None:
        process = data.draw(st.sampled_from(self.alive))
        for _ in range(steps):
            if not process.done:
                process.go_on()
        self.take_in(process)

    def take_in(self, process: Process) -> None:
        if not process.done:
            return
        error = process.error
        if error is not None and not isinstance(error, (*EXPECTED, DiedError)):
            raise error
        if process.is_current and error is None:
            process.run.state = "success"
            self.world.ever_succeeded.add(process.run.run_id)
        elif process.is_current:
            process.run.state = "up_for_retry"

    @precondition(lambda self: [p for p in self.alive if p.is_current])
    @rule(data=st.data(), for_good=st.booleans())
    def a_worker_is_killed(self, data: st.DataObject, for_good: bool) -> None:
        process = data.draw(st.sampled_from([p for p in self.alive if p.is_current]))
        process.die()
        process.run.state = "failed" if for_good else "up_for_retry"

    @precondition(lambda self: [p for p in self.alive if p.is_current])
    @rule(data=st.data(), for_good=st.booleans())
    def a_process_is_given_up_and_lives_on(self, data: st.DataObject, for_good: bool) -> None:
        process = data.draw(st.sampled_from([p for p in self.alive if p.is_current]))
        process.run.state = "failed" if for_good else "up_for_retry"

    @precondition(lambda self: [p for p in self.alive if p.is_current])
    @rule(data=st.data())
    def a_task_fails_after_its_work_was_done(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from([p for p in self.alive if p.is_current]))
        while not process.done:
            process.go_on()
        process.run.state = "failed"

    @precondition(lambda self: [r for r in self.runs if r.state == "up_for_retry"])
    @rule(data=st.data())
    def a_run_is_retried(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([r for r in self.runs if r.state == "up_for_retry"]))
        run.retry()
        self.start_process(run)

    @precondition(lambda self: self.ended and len(self.active) < self.at_once)
    @rule(data=st.data(), forgets=st.booleans())
    def a_run_is_cleared(self, data: st.DataObject, forgets: bool) -> None:
        run = data.draw(st.sampled_from(self.ended))
        known = {p["run"] for p in self.world.airflow.record["proposed"]} if self.world.airflow.asset else set()
        if forgets and run.run_id in known:
            run.data.clear()  # [state_store] clear_on_success
        run.clear()
        self.start_process(run)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def a_run_is_deleted(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.ended))
        del self.world.airflow.runs[run.run_id]

    @precondition(lambda self: [r for r in self.runs if r.state == "failed"])
    @rule(data=st.data())
    def a_failed_run_is_marked_success(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([r for r in self.runs if r.state == "failed"]))
        run.state = "success"
        self.world.ever_succeeded.add(run.run_id)

    @rule(overlap=st.integers(0, 3))
    def the_overlap_is_edited(self, overlap: int) -> None:
        self.world.overlap = overlap

    # -- claims

    @invariant()
    def nothing_is_missing(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for process in self.alive:
            process.die()
        world = self.world
        for run in self.active:
            run.state = "failed"
        for number in range(2):
            last = Process(world, world.airflow.run(f"last-{number}"))
            while not last.done:
                last.go_on()
            assert last.error is None, last.error
            last.run.state = "success"
            world.ever_succeeded.add(last.run.run_id)
        assert world.target == set(range(1, world.newest + 1)), "in the end everything is there"


class AtOnce(Machine):
    at_once = 3


OPTIONS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestSerial = Machine.TestCase
TestSerial.settings = OPTIONS
TestAtOnce = AtOnce.TestCase
TestAtOnce.settings = OPTIONS


# -- and it can fail: each mutation of the code is found ---------------------------------------------------------------


def counts_without_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "succeeded", lambda context, tasks: set(tasks))


def never_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "succeeded", lambda context, tasks: set())


def retries_read_a_new_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(given: intervals.Interval, mark: int) -> intervals.Interval:
        return intervals.replace(given, until=given.until + 1)

    monkeypatch.setattr("resumable.watermark.repeat", again)


def skips_what_a_failed_run_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    last = [0]

    def give(mark: int, *, until: int, **_: Any) -> intervals.Interval:
        first, last[0] = min(last[0], until), until
        return intervals.Interval(mark, first, until)

    monkeypatch.setattr("resumable.watermark.give", give)


MUTATIONS = [counts_without_success, never_counts, retries_read_a_new_interval, skips_what_a_failed_run_was_given]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_machine_finds_a_watermark_that(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    machine = seed(1)(type("Mutated", (Machine,), {}))
    quick = settings(OPTIONS, max_examples=300, database=None, print_blob=False, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=quick)
