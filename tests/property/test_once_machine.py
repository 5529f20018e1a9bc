"""
Whatever happens around `once`: what is to be made once is made once, nobody loses what is in use, and nothing is left unsaid.

Each attempt is a process, with as many threads as its author calls `once` from, and one for signals. Every thread stops before
each call that it makes, to the store and to the service; the machine picks who goes on, who dies, who is given up by Airflow and
lives on, what is cleared, marked, dies or does not answer meanwhile. The stores are the library's, all three. Two task instances
of one deployment have ids and names that look alike.

What the claims leave out, in full:

- A store that fences nothing (Variables, object storage): what happens between an attempt's look at the owner and its write; and
  an attempt that Airflow has given up and that begins with `once` after its successor has ended.
- Without a ``token``, an attempt that dies, or is given up, while ``create`` is under way may leave what the next one makes
  again: that one has to say so.
- Without a ``cleanup`` nothing is to be cleaned up.
- What ``create`` returned and cannot be kept is cleaned up at once; of a worker that dies meanwhile the next try has no value to
  clean up with. It says so, and makes another.
- What is left by a task of which no process is left is the sweep's (`tests/property/test_sweep_life.py`): the record names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st

from resumable import RecordError, StateStoreError, host, once, setup_once
from resumable.identity import TaskIdentity
from resumable.stop.sigterm import Stop
from resumable.stop.watch import StopGuard
from resumable.stores import SupersededError
from tests.life import invariants as inv
from tests.life.backends import TROUBLES, Backend
from tests.life.script import Told, as_test, step
from tests.support.names import AirflowFailException, mask_secret

pytestmark = [
    pytest.mark.skipif(not host.has_sdk(), reason="Airflow 2 tells a listener of the end of a task"),
    pytest.mark.timeout(1200),
]

SECRET = "correct-horse-battery"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
WHICH = st.integers(0, 5)
TURNS = st.one_of(st.lists(st.integers(0, 2), max_size=14), st.just([0] * 30))
WORK = st.tuples(WHICH, st.sampled_from(["well", "well", "fails", "fails", "is skipped"]), st.sampled_from([1, 1, 2]), TURNS)
"""Who works: which one, how it ends when it is started, in how many threads; and which of its threads go on."""

PLACE = st.sampled_from(["", "set", "create", "create answers", "create answers", "work", "work", "cleanup", "cleanup answers"])
"""Before which call a thread stands; any, if it is empty."""

LIMIT = 4_000

SIBLINGS = {
    "mapped": (TaskIdentity("dag", "run", "task", 0), TaskIdentity("dag", "run", "task", 1)),
    "runs": (TaskIdentity("dag", "run:1", "task"), TaskIdentity("dag", "run-1", "task")),
    "tasks": (TaskIdentity("dag", "run", "task.a"), TaskIdentity("dag", "run", "task-a")),
}
LONG = "the_cluster_that_the_nightly_load_of_all_orders_of_all_shops_works_on_in_"
NAMES = {"one": ("cluster",), "dots": ("cluster.a", "cluster-a"), "long": (f"{LONG}eu", f"{LONG}us")}
VALUES: dict[str, Callable[[str], Any]] = {
    "a str": lambda made: made,
    "a list": lambda made: [made, 1],
    "a dict": lambda made: {"id": made, "where": {"region": "eu-west-1"}},
}
ODD: dict[str, Callable[[str], Any]] = {
    "None": lambda made: None,
    "a set": lambda made: {made},
    "a secret": lambda made: {"id": made, "password": SECRET},
    "too long": lambda made: made * LIMIT,
    "nan": lambda made: [made, float("nan")],
}


class DiedError(BaseException):
    """SIGKILL: whatever the process does afterwards has no effect."""


class CreateError(Exception):
    """The service's no, or no answer of its."""


class Operator:
    """Airflow's, as far as `once` looks at it."""

    def on_kill(self) -> None: ...


@dataclass
class Cluster:
    """Something that was set up."""

    number: int
    task: Task
    name: str
    token: str | None
    epoch: int
    is_alive: bool = True
    is_being_undone: bool = False
    is_undone: bool = False
    was_given: bool = False
    could_not_be_undone: bool = False
    could_not_be_kept: bool = False

    @property
    def label(self) -> str:
        return f"made-{self.number}-"


@dataclass
class Task:
    """A task instance, as Airflow's database has it."""

    identity: TaskIdentity
    state: str | None = None
    try_number: int = 0
    max_tries: int = 2
    clears: int = 0
    ti_id: int = 0
    epoch: int = 0
    started: datetime = START
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        return self.state in ("success", "failed", "skipped")


CALLER: contextvars.ContextVar[Caller] = contextvars.ContextVar("CALLER")


class Caller:
    """A thread of an attempt, that stops before each of its calls until it is told to go on."""

    def __init__(self, attempt: Attempt, work: Callable[[], None]) -> None:
        self.attempt, self._work = attempt, work
        self.error: BaseException | None = None
        self.is_done = False
        self.at = "birth"
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()
        self._stopped.acquire()

    def go_on(self) -> None:
        self._go.release()
        self._stopped.acquire()

    def stop_before(self, call: str) -> None:
        self.at = call
        self._stopped.release()
        self._go.acquire()
        if self.attempt.is_dead:
            raise DiedError

    def _run(self) -> None:
        CALLER.set(self)
        try:
            self._stopped.release()
            self._go.acquire()
            if not self.attempt.is_dead:
                self._work()
        except BaseException as e:
            self.error = e
        self.is_done = True
        self._stopped.release()


class OwnLock:
    """A lock of one process: who finds it taken lets the others go on."""

    def __init__(self) -> None:
        self._holder: Caller | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = CALLER.get()
        while self._holder not in (None, me) and not (self._holder is not None and self._holder.is_done):
            me.stop_before("lock")
        self._holder, self._depth = me, self._depth + 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._holder = None


class Locks:
    """In the place of the locks of a module: each attempt is a process and has its own."""

    def setdefault(self, key: Any, default: Any) -> Any:
        return CALLER.get().attempt.locks.setdefault(key, OwnLock())


class Attempt:
    """One start of a task: its process."""

    def __init__(self, life: OnceLife, task: Task, ends: str, threads: int) -> None:
        self.life, self.task, self.ends = life, task, ends
        self.try_number, self.ti_id, self.epoch = task.try_number, task.ti_id, task.epoch
        self.is_dead = self.is_given_up = self.is_stopped = self.has_ended = False
        self.locks: dict[Any, OwnLock] = {}
        self.given: dict[str, Cluster] = {}
        self.made: dict[str, Cluster] = {}
        self.operator = Operator()
        self.started = task.started
        self.generation = SimpleNamespace(clear_number=task.clears, start_date=task.started)
        self.max_tries = task.max_tries
        self.standing = nullcontext()  # only one thread goes on at a time
        self.was_alone = not any(one.is_alive for one in task.attempts)
        self.callers: list[Caller] = []
        self.error: BaseException | None = None
        self.callers = [Caller(self, self._main)]
        self.callers += [Caller(self, self._one_more) for _ in range(threads - 1)]

    # -- as the stores see it

    def before(self, call: str) -> None:
        CALLER.get().stop_before(call)

    @property
    def is_known(self) -> bool:
        return self.ti_id == self.task.ti_id

    @property
    def is_current(self) -> bool:
        return self.is_known and not self.is_given_up and self.try_number == self.task.try_number

    @property
    def is_alive(self) -> bool:
        return not self.is_dead and not all(caller.is_done for caller in self.callers)

    @property
    def works(self) -> bool:
        """Whether it works with what it was given, and somebody is interested in that."""
        return self.is_alive and self.is_current and not self.has_ended and not self.is_stopped

    def die(self) -> None:
        self.is_dead = True
        for caller in self.callers:
            while not caller.is_done:
                caller.go_on()

    def go_on(self, turn: int) -> None:
        callers = [caller for caller in self.callers if not caller.is_done]
        if callers:
            callers[turn % len(callers)].go_on()
        if self.is_stopped and self.callers[-1].is_done and not self.is_dead:
            self.die()  # Airflow ends the process of a task that a user has ended

    # -- what it does

    @property
    def context(self) -> dict[str, Any]:
        ids = self.task.identity
        ti = SimpleNamespace(
            dag_id=ids.dag_id,
            run_id=ids.run_id,
            task_id=ids.task_id,
            map_index=ids.map_index,
            try_number=self.try_number,
            max_tries=self.max_tries,
            task=self.operator,
        )
        return {"ti": ti, "task": self.operator, "dag_run": self.generation, "attempt": self}

    def _once_each(self) -> None:
        for name in self.life.names:
            cluster = self.life.given(self, name, self._once(name))
            earlier = self.given.get(name)
            if earlier is not None and earlier.is_alive and self.is_current:
                self.life.holds(inv.ONCE_TWICE, earlier is cluster, f"one attempt was given {earlier.label} and {cluster.label}")
            self.given[name] = cluster

    def _once(self, name: str) -> Any:
        life, how = self.life, {}
        if life.has_cleanup:
            how["cleanup"] = lambda value: life.undo(self, name, value)
        if life.has_alive:
            how["alive"] = lambda value: life.is_alive(self, value)
        if life.has_token:
            create: Any = lambda token: life.make(self, name, token)
        else:
            create = lambda: life.make(self, name, None)
        if life.is_async:
            return asyncio.run(asyncio.to_thread(once, name, create, context=self.context, **how))
        return once(name, create, context=self.context, **how)

    def _one_more(self) -> None:
        """Another thread of the task that wants the same."""
        try:
            self._once_each()
        except Exception as e:
            self.error = self.error or e

    def _main(self) -> None:
        try:
            self._once_each()
            for _ in range(5):
                self.before("work")
            while any(not caller.is_done for caller in self.callers[1:]):
                self.before("join")
            if self.error is not None:
                raise self.error
            if self.ends == "fails":
                raise CreateError("of the work")
        except Exception as e:
            self.error = e
        self.before("the end")
        self._end()

    def _end(self) -> None:
        """Airflow is told, and calls the callbacks, whatever it has answered."""
        is_final = isinstance(self.error, AirflowFailException) or self.try_number > self.max_tries
        outcome = "success" if self.error is None else "failed" if is_final else "up_for_retry"
        if self.ends == "is skipped" and self.error is None:
            outcome = "skipped"
        self.has_ended = True
        if self.is_current and self.task.state in ("running", "restarting"):
            self.life.set_state(self.task, "up_for_retry" if self.task.state == "restarting" else outcome)
        kind = {"success": "on_success_callback", "failed": "on_failure_callback", "skipped": "on_skipped_callback"}.get(outcome)
        for callback in getattr(self.operator, kind, ()) if kind else ():
            callback(self.context)

    def be_stopped(self, stop: Stop) -> None:
        """Airflow has told the process to end; what it does then is done by another of its threads."""

        def settle() -> None:
            guard = StopGuard._of.get(id(self.operator))
            if guard is not None:
                guard._settle(stop, self.task.state)

        self.is_stopped = True
        self.callers.append(Caller(self, settle))


class OnceLife(Told):
    """See the module."""

    store = "task state"

    def __init__(self) -> None:
        super().__init__()
        self.clusters: list[Cluster] = []
        self.by_token: dict[str, Cluster] = {}
        self.is_going_wrong: list[str] = []
        self.odd: str | None = None
        self.lines: list[str] = []
        self.broken: inv.Broken | None = None
        self._stack = ExitStack()
        patch = mock.patch.object
        self._stack.enter_context(mock.patch("resumable.stores.base.time.sleep"))
        self._stack.enter_context(mock.patch("resumable.stores.object_storage.os.fsync"))
        self._stack.enter_context(patch(setup_once, "_locks", Locks()))
        self.starts = 0
        self._stack.enter_context(patch(setup_once, "time", SimpleNamespace(time=lambda: 1.7e9 + self.starts // 2)))
        self._stack.enter_context(patch(host, "value_limit", return_value=LIMIT))
        self._stack.enter_context(patch(host, "own_state", lambda context: context["attempt"].task.state))
        is_last = lambda context: context["ti"].try_number > context["ti"].max_tries
        self._stack.enter_context(patch(host, "is_last_try", is_last))
        self._stack.enter_context(patch(host, "state_store", lambda context: self._store(context["attempt"])))
        self._stack.enter_context(patch(host.ending, "first_of", self._first_of(host.ending.first_of)))
        mask_secret(SECRET)
        self._hear()

    def _first_of(self, found: Callable[..., Any]) -> Callable[..., Any]:
        """Airflow's context is of the process: attempts here share one."""
        return lambda name, *places: (lambda context: nullcontext()) if name == "set_current_context" else found(name, *places)

    def _hear(self) -> None:
        log, lines = logging.getLogger("resumable"), self.lines

        class Heard(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(record.getMessage())

        heard, level = Heard(), log.level
        log.addHandler(heard)
        log.setLevel(logging.INFO)
        self._stack.callback(lambda: (log.removeHandler(heard), log.setLevel(level)))

    def _store(self, attempt: Attempt) -> Any:
        return self.backend.store(attempt.task.identity, attempt)

    def holds(self, invariant: inv.Invariant, is_so: object, seen: str) -> None:
        """The code under test may swallow what is raised here: the step raises it again."""
        try:
            invariant.holds(is_so, seen)
        except inv.Broken as e:
            self.broken = self.broken or e
            raise

    def _on_write(self, key: str, value: Any) -> None:
        self.holds(inv.SECRET_KEPT, SECRET not in json.dumps(value), f"under {key}")

    def clean_up(self) -> None:
        for attempt in getattr(self, "attempts", []):
            attempt.die()
            guard = StopGuard._of.pop(id(attempt.operator), None)
            if guard is not None:
                guard.__exit__()
        if hasattr(self, "backend"):
            self.backend.close()
        self._stack.close()

    # -- the service --------------------------------------------------------------------------------------------------

    def make(self, attempt: Attempt, name: str, token: str | None) -> Any:
        attempt.before("create")
        wrong = self.is_going_wrong.pop() if self.is_going_wrong else ""
        if wrong:
            self.met(f"create: {wrong}")
        if wrong == "refused":
            raise CreateError("no room")
        cluster = self.by_token.get(token or "")
        if cluster is None:
            cluster = Cluster(len(self.clusters) + 1, attempt.task, name, token, attempt.epoch)
            self._check_first(attempt, cluster)
            self.clusters.append(cluster)
            if token is not None:
                self.by_token[token] = cluster
        attempt.made[name] = cluster
        odd, self.odd = self.odd, None
        if odd:
            self.met(f"value: {odd}")
            cluster.could_not_be_kept = True
        attempt.before("create answers")
        if wrong == "no answer":
            raise CreateError("timed out")
        return (ODD[odd] if odd else VALUES[self.values])(cluster.label)

    def _check_first(self, attempt: Attempt, cluster: Cluster) -> None:
        """Another one may be made only if none is there."""
        for other in self.clusters:
            is_same = other.task is cluster.task and other.name == cluster.name and other.epoch == cluster.epoch
            if not is_same or not other.is_alive or other.could_not_be_undone:
                continue
            if other.could_not_be_kept and other.is_being_undone:
                continue  # its clean-up was broken off, and nothing that was kept leads there
            if not attempt.is_current and (cluster.token is None or not self.backend.fences):
                continue
            is_known = cluster.token is not None or other.was_given
            self.holds(inv.ONCE_TWICE, not is_known, f"{cluster.label} ({cluster.name}) is made, and {other.label} is there")

    def undo(self, attempt: Attempt, name: str, value: Any) -> None:
        cluster = self._cluster(value, attempt, name)
        cluster.is_being_undone = True
        attempt.before("cleanup")
        self._check_unused(attempt, cluster)
        if self.is_going_wrong and self.is_going_wrong.pop() != "refused":
            self.met("cleanup: no answer")
            cluster.could_not_be_undone = True
            raise CreateError(f"not removed: {cluster.label}")
        cluster.is_alive, cluster.is_undone = False, True
        attempt.before("cleanup answers")

    def _check_unused(self, attempt: Attempt, cluster: Cluster) -> None:
        if not cluster.is_alive:
            return
        for other in cluster.task.attempts:
            if other.works and cluster in other.given.values():
                who = "its own attempt" if other is attempt else f"try {attempt.try_number}"
                self.holds(inv.IN_USE, False, f"{who} removes {cluster.label}, which try {other.try_number} works with")

    def is_alive(self, attempt: Attempt, value: Any) -> bool:
        attempt.before("alive")
        if self.is_going_wrong:
            self.is_going_wrong.pop()
            self.met("alive: no answer")
            raise CreateError("who knows")
        return self._cluster(value, attempt, None).is_alive

    def _cluster(self, value: Any, attempt: Attempt, name: str | None) -> Cluster:
        label = re.search(r"made-(\d+)-", repr(value))
        if label is None:  # None
            return attempt.made[str(name)]
        one = self.clusters[int(label[1]) - 1]
        is_own = one.task is attempt.task and name in (None, one.name)
        seen = f"{name} of {attempt.task.identity}: {value!r:.60} is {one.name} of {one.task.identity}"
        self.holds(inv.RESULT_STRANGE, is_own, seen)
        return one

    def given(self, attempt: Attempt, name: str, value: Any) -> Cluster:
        """An attempt has been given a value."""
        cluster = self._cluster(value, attempt, name)
        cluster.was_given = cluster.was_given or attempt.is_current
        if attempt.is_current and not attempt.is_stopped:
            who = f"try {attempt.try_number} is given {cluster.label}"
            self.holds(inv.DEAD_GIVEN, not cluster.is_undone, f"{who}, which was cleaned up")
            self.holds(inv.DEAD_GIVEN, not cluster.is_being_undone, f"{who}, whose clean-up had begun")
            self.holds(inv.DEAD_GIVEN, cluster.epoch == attempt.epoch, f"{who} of before a clear")
        return cluster

    # -- Airflow ------------------------------------------------------------------------------------------------------

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for task in self.tasks for attempt in task.attempts] if hasattr(self, "tasks") else []

    @property
    def alive(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.is_alive]

    @property
    def working(self) -> list[Attempt]:
        """Those that Airflow takes for alive."""
        return [one for one in self.alive if one.is_current and one.task.state == "running" and not one.has_ended]

    @property
    def waiting(self) -> list[Task]:
        for task in self.tasks:
            if task.state == "restarting" and not task.attempts[-1].is_alive:
                self.set_state(task, "up_for_retry")
        return [task for task in self.tasks if task.state in (None, "up_for_retry")]

    @property
    def ended(self) -> list[Task]:
        return [task for task in self.tasks if task.has_ended]

    def set_state(self, task: Task, state: str) -> None:
        task.state = state
        if state == "up_for_retry":
            task.ti_id += 1

    @step(
        first=True,
        names=st.sampled_from(sorted(NAMES)),
        siblings=st.sampled_from(sorted(SIBLINGS)),
        values=st.sampled_from(sorted(VALUES)),
        token=st.booleans(),
        cleanup=st.sampled_from([True, True, True, False]),
        alive=st.booleans(),
        is_async=st.sampled_from([False, False, True]),
    )
    def begin(self, names: str, siblings: str, values: str, token: bool, cleanup: bool, alive: bool, is_async: bool) -> None:
        self.backend = Backend(self.store, self._on_write, self.met)
        self.names, self.values = NAMES[names], values
        self.tasks = [Task(identity) for identity in SIBLINGS[siblings]]
        self.has_token, self.has_cleanup, self.has_alive, self.is_async = token, cleanup, alive, is_async
        self.cover(f"{'with' if token else 'without'} a token")

    @step(work=WORK)
    def a_task_works(self, work: tuple[int, str, int, list[int]]) -> None:
        """One that runs goes on, one that waits is started, one that has ended is cleared first."""
        self._work(*work)

    def _work(self, which: int, ends: str, threads: int, turns: list[int]) -> Attempt:
        some: list[Any] = [*self.alive, *self.waiting]
        if not some:
            self._clear(_one(self.ended, which))
            some = self.waiting
        one = _one(some, which)
        attempt: Attempt = self._start(one, ends, threads) if isinstance(one, Task) else one
        self._go_on(attempt, turns)
        return attempt

    def _work_to(self, work: tuple[int, str, int, list[int]], at: str) -> Attempt:
        """The same, up to a call of a kind, if it has one to come."""
        which, ends, threads, turns = work
        attempt = self._work(which, ends, threads, [] if at else turns)
        self._come_to(attempt, at)
        return attempt

    def _start(self, task: Task, ends: str, threads: int) -> Attempt:
        task.try_number += 1
        task.state = "running"
        self.starts += 1  # two of them in a second
        attempt = Attempt(self, task, ends, threads)
        task.attempts.append(attempt)
        return attempt

    def _go_on(self, attempt: Attempt, turns: list[int]) -> None:
        for turn in turns:
            if attempt.is_alive:
                attempt.go_on(turn)
        self._take_in(attempt)

    def _take_in(self, attempt: Attempt) -> None:
        """What an attempt may fail with, and what must not come out of a thread of it."""
        if self.broken is not None:
            raise self.broken
        for caller in attempt.callers:
            expected = (DiedError, CreateError, StateStoreError, SupersededError, AirflowFailException)
            if caller.error is not None and not isinstance(caller.error, expected):
                raise caller.error
        error = attempt.error
        if isinstance(error, RecordError) or not isinstance(error, Exception | None):
            raise error
        if error is not None and not isinstance(error, CreateError | StateStoreError | SupersededError | AirflowFailException):
            raise error
        if isinstance(error, SupersededError):
            is_only_one = attempt.was_alone and attempt.is_current
            inv.TRY_FOR_NOTHING.holds(not is_only_one, f"try {attempt.try_number} is the only one, and told: {error}")
        if isinstance(error, StateStoreError):
            inv.OUTAGE_MADE_UP.holds(self.backend.has_troubled(attempt), f"try {attempt.try_number}: {error}")

    @step(work=WORK, at=PLACE)
    def a_worker_is_killed(self, work: tuple[int, str, int, list[int]], at: str) -> None:
        attempt = self._work_to(work, at)
        if attempt in self.working:
            self.met(f"killed at: {attempt.callers[0].at}")
            attempt.die()
            self._give_up(attempt.task)

    @step(work=WORK, at=PLACE, successor=PLACE, ends=st.booleans())
    def an_attempt_loses_its_heartbeat(
        self, work: tuple[int, str, int, list[int]], at: str, successor: str, ends: bool = False
    ) -> None:
        """Airflow takes it for dead; it lives on (``ends``: to its end), while the next one comes to some place of its own."""
        attempt = self._work_to(work, at)
        if attempt not in self.working:
            return
        self.met(f"given up at: {attempt.callers[0].at}")
        attempt.is_given_up = True
        self._give_up(attempt.task)
        if attempt.task in self.waiting:
            self._come_to(self._start(attempt.task, "well", 1), successor)
            if ends:
                self._finish(attempt)

    def _come_to(self, attempt: Attempt, place: str) -> None:
        """Let it go on until it stands before a call of this kind; not at all if there is none to come."""
        for _ in range(60 if place else 0):
            if attempt.callers[0].at == place or not attempt.is_alive:
                break
            attempt.go_on(0)
        self._take_in(attempt)

    def _give_up(self, task: Task) -> None:
        self.set_state(task, "failed" if task.try_number > task.max_tries else "up_for_retry")

    @step(
        work=WORK,
        how=st.sampled_from(["marks it failed", "marks it success", "clears it", "clears it"]),
        at=st.sampled_from(["", "work"]),
        killed_at=st.sampled_from(["", "cleanup", "cleanup answers"]),
    )
    def a_user_ends_a_running_task(
        self, work: tuple[int, str, int, list[int]], how: str, at: str = "", killed_at: str = ""
    ) -> None:
        """``killed_at``: it takes longer than Airflow waits for it."""
        attempt = self._work_to(work, at)
        if attempt not in self.working:
            return
        self.met(f"a user {how}")
        attempt.task.state = "restarting" if how == "clears it" else how.rsplit(maxsplit=1)[-1]
        attempt.task.clears += how == "clears it"
        attempt.be_stopped(Stop.CLEARED if how == "clears it" else Stop.BY_USER)
        settles = attempt.callers[-1]
        for _ in range(60 if killed_at else 0):
            if settles.is_done or settles.at == killed_at:
                break
            attempt.go_on(len([caller for caller in attempt.callers if not caller.is_done]) - 1)
        if killed_at and settles.at == killed_at and not settles.is_done:
            self.met(f"a user {how}, killed at: {killed_at}")
            attempt.die()
            self._take_in(attempt)

    @step(lambda self: self.ended, which=WHICH, run=st.booleans())
    def a_task_is_cleared(self, which: int, run: bool) -> None:
        """Alone, or with its whole run, that starts anew."""
        self._clear(_one(self.ended, which), run=run)

    def _clear(self, task: Task, *, run: bool = False) -> None:
        task.state = None
        task.max_tries = task.try_number + 2
        task.clears += 1
        task.epoch += 1
        task.ti_id += 1
        if run:
            task.started += timedelta(hours=1)

    @step(
        what=st.sampled_from(["the sibling is cleared", "a user marks one that waits", "it dies", "it dies"]),
        which=WHICH,
    )
    def meanwhile(self, what: str, which: int) -> None:
        """It dies: a spot instance, an idle time-out."""
        if what == "the sibling is cleared":
            _one(self.tasks, which).clears += 1
        alive = [one for one in self.clusters if one.is_alive]
        if what == "it dies" and alive:
            _one(alive, which).is_alive = False
        waiting = [task for task in self.waiting if task.state == "up_for_retry"]
        if what == "a user marks one that waits" and waiting:
            _one(waiting, which).state = "failed"

    # -- trouble ------------------------------------------------------------------------------------------------------

    @step(what=st.sampled_from(TROUBLES), calls=st.sampled_from([1, 1, 2, 2, 5, 7, 13]), work=WORK, anew=st.booleans())
    def the_store_is_in_trouble(self, what: str, calls: int, work: tuple[int, str, int, list[int]], anew: bool = False) -> None:
        """``anew``: in the first calls of the next try, after a worker was killed."""
        if anew and (attempt := self._work(*work)) in self.working:
            attempt.die()
            self._give_up(attempt.task)
            self.backend.trouble = [what] * calls
            if attempt.task in self.waiting:
                self.met(f"a try begins, the store is {what}")
                self._go_on(self._start(attempt.task, work[1], work[2]), work[3])
            return
        self.backend.trouble = [what] * calls
        self._work(*work)

    @step(what=st.sampled_from(["refused", "no answer", "no answer", *sorted(ODD)]), work=WORK)
    def the_service_is_odd(self, what: str, work: tuple[int, str, int, list[int]]) -> None:
        """It refuses, does not answer, or ``create`` returns what cannot be kept."""
        if what in ODD:
            self.odd = what
        else:
            self.is_going_wrong = [what]
        self._work(*work)

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Everybody comes to an end, a last try of who waits ends well, and what is there then is of a record or was told of."""
        if not hasattr(self, "tasks"):
            return
        self.is_going_wrong, self.odd, self.backend.trouble = [], None, []
        for attempt in self.alive:
            self._finish(attempt)
        for task in self.tasks:
            if task.state == "restarting":
                self.set_state(task, "up_for_retry")
            if not task.has_ended:
                self._last_try(task)
        if self.has_cleanup:
            self._check_orphans()

    def _finish(self, attempt: Attempt) -> None:
        for number in range(3000):
            if not attempt.is_alive:
                break
            attempt.go_on(number)
        inv.NEVER_ENDS.holds(not attempt.is_alive, f"try {attempt.try_number} waits for ever, at {attempt.callers[0].at}")
        self._take_in(attempt)

    def _last_try(self, task: Task) -> None:
        attempt = self._start(task, "well", 1)
        self._finish(attempt)
        inv.NO_TRY_HELPS.holds(attempt.error is None, f"the last try fails: {attempt.error}")
        inv.NO_TRY_HELPS.holds(set(attempt.given) == set(self.names), f"the last try was given {sorted(attempt.given)}")
        if self.has_cleanup:
            left = [one.label for one in attempt.given.values() if one.is_alive]
            inv.ORPHAN_KEPT.holds(not left, f"the task has succeeded, and {left} was not cleaned up")

    def _check_orphans(self) -> None:
        kept, said = self.backend.text(), "\n".join(self.lines)
        for one in self.clusters:
            if not one.is_alive:
                continue
            names = [one.label, *([one.token] if one.token else [])]
            is_told = any(name in kept or name in said for name in names)
            if one.token is None:
                begun = ("making", "is_being_cleaned_up")
                is_told = is_told or "is not known" in said or any(f'"{word}"' in kept or f'"{word}\\"' in kept for word in begun)
            inv.ORPHAN_KEPT.holds(is_told, f"{one.label} ({one.name}, token {one.token}) is there, and nothing says so")


def _one(of: list[Any], which: int) -> Any:
    return of[which % len(of)]


class OnceLifeInVariables(OnceLife):
    store = "Variables"


class OnceLifeInObjectStorage(OnceLife):
    store = "object storage"


MEETS = (
    *(f"a store that is {what}" for what in TROUBLES),
    *("killed at: work", "given up at: create answers", "given up at: work", "a user clears it", "create: refused"),
)
HOW_OFTEN: dict[str, Any] = {"examples": 100, "steps": 8, "meets": MEETS}
test_once_in_task_state = as_test(OnceLife, **HOW_OFTEN)
test_once_in_variables = as_test(OnceLifeInVariables, **HOW_OFTEN)
test_once_in_object_storage = as_test(OnceLifeInObjectStorage, **HOW_OFTEN)
