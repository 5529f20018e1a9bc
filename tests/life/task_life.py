"""
The life of one task instance of one operator: what ordinary days, bad networks, users and authors do to it, drawn.

The operator's own code runs as Airflow's task runner runs it (`tests.support.runner`), against a service that keeps count. A
start is one step of a script, with what happens during it::

    begin(case='custom-find', wait='poll', retries=1, policy={}, moves=False, policy_fails=False)
    start(then=[(3, 'dies')], last='job succeeds')
    job_ends('fails')
    start(then=[], last='job succeeds')

Left out, in full: a job that runs is never forgotten by its service; a job number of a service is never used again; an edit is
made once in a history (older files that come back are drawn elsewhere); nobody but the task submits to the service.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing, suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st

from resumable import ResumableError, host
from resumable.host import versions
from resumable.jobs.decision import Recovery
from resumable.jobs.limits import tells_of_limit
from resumable.stores.base import StateStore
from tests.life import invariants
from tests.life.backends import NOBODY, Backend
from tests.life.script import Told, step
from tests.services import Drop, Refuse
from tests.support.names import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from tests.support.runner import StoreDown, TaskInstance, WorkerDied, _run_trigger

QUIET = 25
"""Effects without anything that happens, while the job runs, after which the start is brought to its end by ``last``."""

SIGNAL_PATIENCE = 4.0
"""Seconds that a process may take to act on a signal."""

MOST_EFFECTS = 600
"""Of one start, before it is taken for one that never ends."""

_PAGE = "<html>404 Not Found</html>"

FAULTS: dict[str, tuple[Callable[[], Any], int]] = {
    "503": (lambda: Refuse(status=503), 6),
    "503 once": (lambda: Refuse(status=503), 1),
    "429": (lambda: Refuse(status=429), 1),
    "404 of a proxy": (lambda: Refuse(status=404, body=_PAGE), 1),
    "403": (lambda: Refuse(status=403), 1),
    "dropped": (Drop, 1),
    "503 after it was done": (lambda: Refuse(status=503, after_effect=True), 1),
    "answered and not done": (lambda: Refuse(status=200, body={}), 1),
    "answered, and the answer cannot be read": (lambda: Refuse(status=200, body={}, after_effect=True), 1),
}
"""How a call may go wrong, and how often in a row."""

AT_CALLS = {
    "submit": ("503 once", "429", "403", "dropped", "503 after it was done", "answered, and the answer cannot be read"),
    "status": ("503", "429", "404 of a proxy", "dropped"),
    "stop": ("503 once", "dropped", "answered and not done"),
}

ENDS = ("job succeeds", "job fails", "job is skipped")
OF_JOB = (*ENDS, "job fails in part")
OF_WORKER = ("dies", "evicted", "store down", "store late")
OF_USER = ("stopped by a user", "times out")
OF_TRIGGER = ("reassigned", "marked while deferred", "trigger fails")
DIES_AT_SUBMIT = "the worker dies before it has the answer"
WRONG = {call: tuple(f"{call}: {fault}" for fault in faults) for call, faults in AT_CALLS.items()}

KINDS = (("nothing",), OF_JOB, OF_WORKER, OF_USER, *WRONG.values())
"""Each kind is drawn as often as any other, however many there are of it."""


AT_SUBMIT = "submit"
"""When something happens: with the answer to the submit, whichever effect that is. Most of what can be lost is lost there."""
NO_SUBMIT = 9
"""Effects after which no submit is waited for any more: this start makes none."""


def happenings(*kinds: tuple[str, ...], least: int = 1, most: int = 3) -> st.SearchStrategy[Any]:
    """What happens during a start: each some effects after the one before, or at the submit."""
    drawn = st.one_of(*(st.sampled_from(kind) for kind in kinds))
    when = st.one_of(st.integers(0, 9), st.integers(0, 9), st.just(AT_SUBMIT))
    return st.lists(st.tuples(when, drawn), min_size=least, max_size=most)


LAST = st.sampled_from(["job succeeds", "job succeeds", "job fails", "job is skipped", "dies"])
LAST_OF_A_SKIPPER = st.sampled_from([*["job is skipped"] * 3, "job succeeds", "job fails", "dies"])
"""Of an operator that skips its task for some jobs."""
WHERE = {"at once": "", "a request": "http", "a write": "store.set"}
AFTER = st.none() | st.tuples(
    st.sampled_from([*WHERE]), st.sampled_from(["dies", "times out", *OF_WORKER, "times out", *WRONG["status"]])
)
"""The moment in which a job has ended is the one in which most is asked and written: what happens with the next of such."""

AFTER_THE_NOTE = ("a write", "dies")

STARTS = 3
"""A task is started as often as this many other things happen to it."""

MEANWHILE = ("a sibling is cleared", "the file is edited elsewhere", "the provider gains a field")

POLICY = st.fixed_dictionaries(
    {},
    optional={
        "on_failed": st.just("fail"),
        "on_missing": st.just("fail"),
        "on_change": st.sampled_from(["reattach", "fail"]),
        "on_clear": st.just("reattach"),
        "on_timeout": st.just("detach"),
        "on_final_failure": st.just("cancel"),
    },
)

BUGS = (AttributeError, TypeError, KeyError, IndexError, NameError, RecursionError, AssertionError)

_real_sleep, _real_async_sleep = time.sleep, asyncio.sleep


class Stopped(Exception):
    """A user ended the task while no process held it."""


class OperatorLife(Told):
    """The base: a subclass says where its cases are, and draws `begin`."""

    bench: Any = None
    tells_skips = False
    """The service of the operator tells a job for which the operator skips from a failed one."""
    _stack: ExitStack | None = None

    def case_of(self, name: str) -> Any:
        """The case: ``ours``, ``extra``, ``deferrable`` and ``bench``, as those of the contract."""
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        """What the task's code takes for the passing of time."""

    # -- the steps

    def begins(
        self,
        case: str,
        wait: str,
        retries: int,
        policy: dict[str, str],
        *,
        moves: bool = False,
        policy_fails: bool = False,
        limited: bool = False,
        own_execute: bool = False,
        named: str = "",
        kept_in: str = "task state",
    ) -> None:
        """
        Args:
            case: the operator, in its mode.
            wait: ``poll``, ``reschedule`` or ``defer``.
            retries: Airflow's.
            policy: ``resume_policy``.
            moves: every argument is computed when the DAG file is parsed, and is another each time.
            policy_fails: the task's ``retry_policy`` fails it at its first failure.
            limited: the author gave the limit of the wait that the operator has.
            own_execute: the operator is a subclass with an ``execute`` around the operator's.
            named: the author names the job, where the operator has an argument for it: ``for good``, or ``in each try`` anew.
            kept_in: which store has the task's state.
        """
        self.case, self.moves, self.policy_fails = self.case_of(case), moves, policy_fails
        self.kind = _with_own_execute(self.case.ours) if own_execute else self.case.ours
        self._stack = ExitStack()
        logging.disable(logging.CRITICAL)
        self._stack.callback(logging.disable, logging.NOTSET)
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        main = threading.main_thread()
        is_main = lambda: threading.current_thread() is main
        patch.setattr(time, "sleep", lambda s: self._pause(s) if is_main() else _real_sleep(min(s, 0.02)))
        patch.setattr(asyncio, "sleep", lambda seconds, *a: _real_async_sleep(0, *a))
        self.bench = self._stack.enter_context(self.case.bench(patch))
        self.policy = dict(policy)
        if wait != "poll" and not self.case.deferrable:
            self.policy["wait"] = wait
        self.limit = self._limit() if limited and not self.case.deferrable and wait == "poll" else {}
        self.named = named and getattr(self.case.ours._resumable.service, "name_argument", "")
        self.is_named_anew = named == "in each try"
        self.task = TaskInstance(self._make, retries=retries)
        self.store_late_for = 0
        self.is_next_write_late = self._times_out_at_read = False
        self.store = self._stack.enter_context(closing(Backend(kept_in)))
        self._stack.enter_context(mock.patch.object(host, "state_store", functools.partial(self._state_store, host.state_store)))
        self.task.store_down = self._is_store_down
        self.task.run_trigger = self._defer
        self.task.is_all_written = not moves
        if moves:
            self.task.text = lambda: "# nothing of the job stands here as a constant\n"
        self._planned: list[tuple[str, Any]] = []
        self.parses = 0
        self.is_edited = self.has_gained_a_field = False
        self.ended: str | None = None
        self.tries: set[int] = set()
        self.edits = 0
        self.may_cancel = self.is_good = self.is_skipped = self.is_refusing = self.is_stopped_unseen = False
        self.was_told_to_stop = False
        self.last_end = ""
        self.known_jobs = self.known_cancels = self.known_active = 0
        self.jobs = 0
        self.was_in_doubt = False
        self.is_of_before = False  # the job that runs, or ended last, is of before a clear
        self.is_of_older_text = False  # the same, of before an edit: what it comes to is nothing to the task
        self.is_older_text_in_doubt = False
        self.store_down_for = 0
        self._signalled: str | None = None
        self._then: list[tuple[int | str, str]] = []
        self._after: tuple[str, str] | None = None
        self._due: tuple[str, str] | None = None
        self._stalled: Any = None
        self._is_next_faulty = self._is_started = self._dies_at_submit = self._is_to_be_heard = self._has_timed_out = False

    def is_open(self) -> bool:
        return self.ended is None

    @step(is_open, often=STARTS, then=happenings(*KINDS), last=LAST, after=AFTER)
    def start(self, then: list[tuple[int | str, str]], last: str, after: tuple[str, str] | None = None) -> None:
        """
        Airflow starts the task. ``then``: after so many more effects, or at the submit, that happens; ``last``: what ends a wait
        in the end; ``after``: what happens with the next effect of a kind after the job has ended.
        """
        self._start(then, last, after)

    @step(is_open, how=st.sampled_from(ENDS))
    def start_whose_end_is_noted_and_not_told(self, how: str) -> None:
        """Drawn by itself: the worker dies between its note of the job's end and its answer to Airflow."""
        self._start([], how, AFTER_THE_NOTE)

    @step(
        lambda self: self.ended is None and not self.bench.active(),
        seldom=True,
        how=st.one_of(st.just(DIES_AT_SUBMIT), st.sampled_from(WRONG["submit"])),
    )
    def next_submit_goes_wrong(self, how: str) -> None:
        """Drawn by itself: a start makes one submit, at most, and most of what can be lost is lost there."""
        if how == DIES_AT_SUBMIT:
            self._dies_at_submit = True
            return
        self._is_next_faulty = True
        self._happens(how)

    @step(lambda self: self.ended is None and self.bench.active(), seldom=True, how=st.sampled_from(WRONG["stop"]))
    def next_stop_goes_wrong(self, how: str) -> None:
        """Drawn by itself: few starts stop a job."""
        self._is_next_faulty = True
        self._happens(how)

    @step(lambda self: self.ended is None and self.store.kind != "task state" and not self.is_next_write_late, seldom=True)
    def next_write_is_answered_late(self) -> None:
        """Drawn by itself: the first write of a start is the one by which it takes the record over."""
        self.is_next_write_late = True

    @step(lambda self: self.ended is None and self._defers)
    def a_user_marks_it_while_it_is_deferred(self) -> None:
        """Drawn by itself: what users do most, where no process of the task is."""
        self._start([(0, "marked while deferred")], "job succeeds")

    @step(lambda self: self.bench.active(), how=st.sampled_from(OF_JOB))
    def job_ends(self, how: str) -> None:
        """While no process holds the task."""
        self._happens(how)

    @step(lambda self: not self.bench.active() and self.jobs and self.last_end, seldom=True)
    def job_is_forgotten(self) -> None:
        before = self.bench.jobs()
        self.bench.forget()
        self.known_jobs -= before - self.bench.jobs()
        self.is_good = False
        self.is_skipped = False
        if self.task.data.get("resumable", {}).get("state") in ("submitting", "submitted"):
            self.is_refusing = False  # that it had failed nobody has seen

    @step(lambda self: self.tries)
    def clear(self) -> None:
        self._clear()

    @step(seldom=True, what=st.sampled_from(MEANWHILE))
    def meanwhile(self, what: str) -> None:
        """Something that is nothing to this task."""
        self.cover(what)
        if what == MEANWHILE[0]:
            self.task.clear_number += 1
        elif what == MEANWHILE[1]:
            self.task.more_text += "OTHER = 'x'\n"
        else:
            self.has_gained_a_field = True

    @step(lambda self: self._stalled is not None and self.ended is None, seldom=True)
    def stalled_triggerer_wakes(self) -> None:
        """The triggerer of an earlier deferral: by now the task waits elsewhere, or for another try."""
        self._triggerer_stops(self._stalled, "up_for_retry")

    @step(lambda self: self.jobs and not self.moves and not self.is_edited, often=2)
    def edit_the_job(self) -> None:
        self.is_edited = self.is_of_older_text = True
        self.is_older_text_in_doubt = self.task.data.get("resumable", {}).get("state") == "submitting"
        self.edits += 1
        if self.ended is None:
            self.met(f"on_change={self.policy.get('on_change', 'restart')}")
        self.may_cancel |= self.policy.get("on_change", "restart") == "restart"
        self.is_good = self.is_skipped = self.is_refusing = False

    # -- what happens

    def _limit(self) -> dict[str, Any]:
        """The argument that limits the wait to three looks, and a second between two of them."""
        for limit in self.case.ours._resumable.service.limits:
            pauses = (limit.pause,) if isinstance(limit.pause, str) else limit.pause
            if not limit.deferred_only and pauses:
                return {limit.argument: 3, pauses[0]: 1}
        return {}

    def _make(self) -> Any:
        self.parses += 1
        is_other = self.is_edited or (self.moves and self.parses % 2 == 0)
        if self.moves and is_other and self.task.data:
            self.met("a value that moves")
        arguments = {**(self.bench.other_arguments() if is_other else self.bench.arguments()), **self.limit}
        if self.named and not arguments.get(self.named):
            arguments[self.named] = "of the author"
        more: dict[str, Any] = {"resume_policy": self.policy} if self.policy else {}
        operator = self.kind(task_id="task", **{**arguments, **self.case.extra, **more})
        if self.policy_fails:
            operator.retry_policy = _Fails(self)
        return operator

    def _state_store(self, of_airflow: Callable[[Any], StateStore], context: Any) -> StateStore:
        is_airflows = self.store.kind == "task state"
        store = of_airflow(context) if is_airflows else self.store.store(host.task_identity(context), NOBODY)
        return _Answering(self, store, is_airflows=is_airflows)

    def _rendered(self, operator: Any, _context: Any) -> None:
        """
        The author's templates are rendered: a name with the number of the try in it. And a provider's upgrade: a template field
        that the DAG file does not speak of, with a value of the provider's.
        """
        if self.named and self.is_named_anew:
            setattr(operator, self.named, f"{getattr(operator, self.named)}-{self.task.try_number}")
        if self.has_gained_a_field:
            operator.template_fields = (*type(operator).template_fields, "environments")
            operator.environments = [{"environment_key": "default"}]

    def _start(self, then: Iterable[tuple[int | str, str]], last: str, after: tuple[str, str] | None = None) -> None:
        self._due = None
        self._then, self._last, self._after = [tuple(item) for item in then], last, after  # type: ignore[misc]
        self._drawn = [*self._then, *([after] if after else [])]
        self._happened: list[str] = []
        self.store_down_before = self.store_down_for + self.store_late_for + self.is_next_write_late
        self._waited = self._effects = 0
        self._was_faulty = bool(self.store_down_before) or self._is_next_faulty or bool(self.bench.server.has_faults)
        self._signalled = None
        self._is_to_be_heard = self._has_timed_out = False
        self._had_job = True
        self._broken: invariants.Broken | None = None
        self._was_in_doubt = self.is_of_now and self.task.data.get("resumable", {}).get("state") == "submitting"
        self._fails_trigger = False
        self.task.state = "running"
        self.tries.add(self.task.try_number)
        number = self.task.try_number
        error: BaseException | None = None
        self._is_started = True
        try:
            self.task.attempt(listener=self._listen, render=self._rendered)
            outcome = "success"
            self.task.try_number += 1
        except invariants.Broken:
            raise
        except AirflowRescheduleException as e:
            self.task.try_number, outcome, error = number, "handed back", e
        except AirflowSkipException as e:
            outcome, error = "skipped", e
        except AirflowFailException as e:
            outcome, error = "failed", e
        except WorkerDied as e:
            outcome, error = "died", e
        except Stopped as e:
            outcome, error = "stopped", e
        except (Exception, AirflowTaskTimeout, *compat_stopped()) as e:
            outcome, error = "try failed", e
        self._is_started = False
        self._count_faults()
        self._is_next_faulty = self._is_next_faulty and bool(self.bench.server.has_faults)
        if self._broken is not None:
            raise self._broken
        self.task.effects.listener = None
        self._look()
        self.cover(f"a start: {outcome}")
        self._ended_as(outcome, number, error)

    def _ended_as(self, outcome: str, number: int, error: BaseException | None) -> None:
        self._check_error(outcome, error)
        is_last = number > self.task.max_tries or (self.policy_fails and outcome == "try failed")
        if self._signalled == "stopped by a user" or outcome == "stopped":
            self.ended = "stopped"
            if not (self._fails_trigger and outcome == "handed back"):  # nobody stands by in between: the sweep's
                self._check_stop()
        elif outcome in ("success", "skipped", "failed"):
            self.ended = outcome
        elif outcome != "handed back" and is_last:
            self.ended = "failed"
        if outcome == "died" and not self.tells_skips and self.task.data.get("resumable", {}).get("state") == "failed":
            self.is_skipped = False  # noted, and not told any more: the guarantees name this window
        if outcome == "success":
            right = self.last_end == "job succeeds" and not self.bench.active()
            invariants.SUCCESS_FALSE.holds(right, f"the task is a success, its job's end: {self.last_end or 'none, it runs'}")
        if self.is_skipped and outcome in ("success", "failed", "try failed") and not self._faulty:
            invariants.VERDICT.holds(False, f"the operator skips for such a job, the task is: {outcome} ({error!r})")
        if outcome == "try failed" and self.limit and tells_of_limit(error):
            self.met("a limit of the author's")
        if outcome == "try failed" and not self.limit:
            self._check_what_it_was_for(error)
        if self._was_in_doubt and outcome in ("try failed", "failed") and not self._faulty:
            self._check_doubt(error)
        if self.ended == "failed":
            self._check_left(outcome)

    @property
    def _faulty(self) -> bool:
        """Something else than its job's end has happened to this start, or was to happen in it from before."""
        return self._was_faulty or any(what not in (*OF_JOB, "nothing") for what in self._happened)

    def _listen(self, effect: str) -> None:
        """After each effect of the process."""
        self._effects += 1
        try:
            self._look()
            invariants.NEVER_ENDS.holds(self._effects < MOST_EFFECTS, f"{self._effects} effects in one start, the last: {effect}")
        except invariants.Broken as e:
            self._broken = self._broken or e
            self.task.effects.dead = True
            return
        if threading.current_thread() is not threading.main_thread() or effect == "defer":
            return
        self._waited += 1
        if self.named and self._is_submit(effect):
            self.met(f"a name of the author's{' for each try' if self.is_named_anew else ''}")
        if self._dies_at_submit and self._is_submit(effect):
            self._dies_at_submit = False
            self.met(DIES_AT_SUBMIT)
            self._happens("dies", effect)
            return
        if self._times_out_at_read and effect == "store.get":
            self._times_out_at_read = False
            self.met("times out while the record is read")
            self._happens("times out", "http")
        if self._due is not None:
            if effect.startswith(WHERE[self._due[0]]):
                what, self._due = self._due[1], None
                self._happens(what, effect)
        elif self._then and not (self._defers and self._then[0][1] in OF_TRIGGER):
            if self._is_due(self._then[0][0], effect):
                what = self._then.pop(0)[1]
                self._waited = 0
                self._happens(what, effect)
        elif self._waited > (8 * QUIET if self.limit else QUIET) and self._known_to_run():
            if self.limit:  # nothing has happened for so long that whatever has happened before is over
                self._broken = invariants.Broken(invariants.POLICY, f"{self.limit} was given, and the wait goes on and on")
                self.task.effects.dead = True
            self._waited = 0
            self._happens(self._last, effect)

    @property
    def _defers(self) -> bool:
        return bool(self.case.deferrable) or self.policy.get("wait") == "defer"

    def _is_due(self, when: int | str, effect: str) -> bool:
        if when != AT_SUBMIT:
            return self._waited > int(when)
        return self._waited > NO_SUBMIT or self._is_submit(effect)

    def _is_submit(self, effect: str) -> bool:
        return effect.startswith("http") and effect.endswith(self.bench.submit)

    def _known_to_run(self) -> bool:
        return bool(self.bench.active()) and self.task.data.get("resumable", {}).get("job") is not None

    def _happens(self, what: str, effect: str = "") -> None:
        self.cover(what)
        if self._is_started:
            self._happened.append(what)
        if what in OF_JOB:
            self._job_ends(what)
            if self._is_started and self._after is not None and not self.bench.active():
                self._due, self._after = self._after, None
                if ":" in self._due[1]:
                    self._goes_wrong(self._due[1])
                    self._due = None
        elif what == "dies":
            self.task.effects.dead = True
        elif what in ("evicted", "stopped by a user"):
            self._is_told_to_stop(what)
        elif what == "times out":
            if self._has_timed_out:
                return  # Airflow's clock of a start goes off once
            if effect.startswith("http"):
                self.met(what)
                self._has_timed_out = True
                self.may_cancel |= self.policy.get("on_timeout", "cancel") == "cancel"
                self.was_told_to_stop |= self.policy.get("on_timeout", "cancel") == "cancel"
                self.is_stopped_unseen |= self.is_out_of_sight()  # told to stop, while nobody can see whether it has succeeded
                raise AirflowTaskTimeout("execution_timeout")
            self._then.insert(0, (0, what))  # in the next request
        elif what == "store down":
            self.store_down_for = 2
        elif what == "store late":
            self.store_late_for = 1
        elif ":" in what:
            self._goes_wrong(what)

    def _is_told_to_stop(self, what: str) -> None:
        if self._signalled is not None or not self._known_to_run():
            return
        self._signalled = what
        self.met(what)
        if what == "stopped by a user":
            self.task.state = "failed"
            self.may_cancel = True
        os.kill(os.getpid(), signal.SIGTERM)
        self._is_to_be_heard = True
        if self._effects > 1:  # in the first one the record is read, and what comes of the signal waits for that
            self._let_it_be_heard()

    def before_effect(self) -> None:
        """Before each call of the task's code to its store or, if it is in this process, to its service."""
        if self._is_to_be_heard and threading.current_thread() is threading.main_thread():
            self._let_it_be_heard()

    def _let_it_be_heard(self) -> None:
        """Whatever comes of a signal comes at one effect, each time."""
        self._is_to_be_heard = False
        until = time.monotonic() + SIGNAL_PATIENCE
        while time.monotonic() < until and _is_heard():
            _real_sleep(0.002)

    def _goes_wrong(self, what: str) -> None:
        call, _, fault = what.partition(": ")
        make, times = FAULTS[fault]
        for operation in self._operations(call):
            planned = make()
            self._planned.append((what, planned))
            self.bench.server.fault(operation, planned, times=times)

    def _count_faults(self) -> None:
        """Those that have acted on a call of the task's."""
        for taken in self.bench.server.taken:
            for what, planned in self._planned:
                if planned is taken:
                    self.met(what)
                    self.met(f"{what.partition(':')[0]} that goes wrong")
        self.bench.server.taken.clear()

    def _operations(self, call: str) -> tuple[str, ...]:
        named = {"submit": (self.bench.submit,), "status": self.bench.status[:1], "stop": (self.bench.stop,)}[call]
        return tuple(name for name in named if name)

    def _job_ends(self, what: str) -> None:
        if not self.bench.active():
            return
        if what == "job fails in part":
            in_part = getattr(self.bench, "fail_in_part", None)
            if in_part is not None:
                in_part()
                self.met(what)
                self.may_cancel = True  # what still runs of it is stopped before another job is submitted
                self._notes_failure(what)
            return
        if what == "job is skipped":
            if (skip := getattr(self.bench, "skip", None)) is None:
                self._job_ends("job succeeds")
                return
            skip()
            self.met(what)
            is_known = self.task.data.get("resumable", {}).get("job") is not None
            # what a job that was told to stop ends as is taken for its answer to that
            self.is_skipped = self.is_of_now and is_known and not self.was_told_to_stop
        else:
            self.bench.finish(ok=what == "job succeeds")
        if what == "job succeeds" and self.last_end != "job fails in part":
            self.is_good = self.is_of_now and not self.is_stopped_unseen
        elif what == "job fails":
            self._notes_failure(what)
        if self.last_end != "job fails in part" or self.bench.active():
            self.last_end = what
        self.known_active = self.bench.active()

    @property
    def is_of_now(self) -> bool:
        """The job is of this clear and of this text: what it comes to is what the task asked for."""
        return not (self.is_of_before or self.is_of_older_text)

    def _notes_failure(self, what: str) -> None:
        self.last_end = what
        is_by_itself = not self.may_cancel  # one that was told to stop has not failed
        self.is_refusing = self.policy.get("on_failed") == "fail" and self.is_of_now and is_by_itself
        self.met(f"on_failed={self.policy.get('on_failed', 'resubmit')}")

    def _is_store_down(self, verb: str) -> bool:
        if self.store_down_for:
            self.store_down_for -= 1
            self.met("store down")
            return True
        return False

    def _pause(self, seconds: float) -> None:
        self.sleep(seconds)
        _real_sleep(min(seconds, 0.0005))

    def _defer(self, deferred: TaskDeferred) -> tuple[str, dict[str, Any]]:
        """The task is deferred: what was to happen happens now, and then its trigger runs."""
        self._stalled = deferred.trigger
        while self._then and self._then[0][1] not in OF_WORKER:
            what = self._then.pop(0)[1]
            if what == "reassigned":
                self._triggerer_stops(deferred.trigger, "deferred")
            elif what in ("stopped by a user", "marked while deferred"):
                self.may_cancel = True
                self._had_job = self._known_to_run()
                self._triggerer_stops(deferred.trigger, "failed")
                raise Stopped
            elif what in ("trigger fails", "times out"):
                self.cover(what)
                self._fails_trigger = True
                return "__fail__", {"error": "Trigger failure", "traceback": ["the triggerer has lost it"]}
            else:
                self._happens(what)
        if self._known_to_run():
            self._happens(self._last if self._last in OF_JOB else "job succeeds")
        answer = _run_trigger(deferred)
        self._look()
        return answer

    def _triggerer_stops(self, trigger: Any, state: str) -> None:
        """The triggerer stops its trigger while Airflow says that the task is in a state; it was given to another, or marked."""
        self.met(f"a triggerer stops its trigger, the task is {state}")
        _, kwargs = trigger.serialize()
        again = type(trigger)(**kwargs)
        again.task_instance = None

        async def seen(_: Any) -> str:
            return state

        with mock.patch("resumable.host.state_seen_by_trigger", seen):
            asyncio.run(again.on_kill())
        self._look()

    def _clear(self) -> None:
        if self.task.try_number in self.tries:
            self.task.try_number += 1  # a hand-back waits: the clear starts another try
        self.task.clear()
        self.task.max_tries -= 1  # Airflow adds to the last try, and the next one is what the runner has
        if self.bench.active():
            self.met(f"on_clear={self.policy.get('on_clear', 'restart')}")
        self.ended = None
        self.tries, self.edits = set(), 0
        self.jobs = 0
        self.is_of_before = True
        self.may_cancel |= self.policy.get("on_clear", "restart") == "restart" or self.is_edited
        self.is_good = self.is_skipped = self.is_refusing = False
        self.was_in_doubt = self.task.data.get("resumable", {}).get("state") == "submitting"
        if self.was_in_doubt and hasattr(self.bench, "abandon"):
            # nothing of this service tells what became of the submit: a clear starts another job beside it
            self.bench.abandon()
            self.known_active = self.bench.active()

    # -- what must hold

    def _look(self) -> None:
        """Look at the service: called after everything that may have changed it."""
        jobs, active, cancels = self.bench.jobs(), self.bench.active(), self.bench.cancels()
        was_active = self.known_active
        new, self.known_jobs = jobs - self.known_jobs, jobs
        told, self.known_cancels, self.known_active = cancels > self.known_cancels, cancels, active
        invariants.one_at_once(range(active))
        if told and was_active and not new:
            is_last = self.policy_fails or self.task.try_number > self.task.max_tries
            in_the_end = is_last and self.policy.get("on_final_failure") == "cancel"
            invariants.none_cancelled_for_nobody(["the job"], ["the job"] if self.may_cancel or in_the_end else [])
        if new > 0:
            self.jobs += new
            invariants.jobs_per_try(self.jobs, len(self.tries), self.edits)
            invariants.RESULT_LOST.holds(not self.is_good, "its job had succeeded, and another one was submitted")
            invariants.VERDICT.holds(not self.is_skipped, "the operator skips for its job, and another one was submitted")
            refused = "on_failed=fail, its job had failed, and another one was submitted"
            invariants.POLICY.holds(not self.is_refusing, refused)
            self.is_good = self.is_stopped_unseen = self.was_told_to_stop = False
            # what repeats an unanswered submit from before an edit may make its job: of the older text, and not wanted any more
            self.is_of_older_text, self.is_older_text_in_doubt = self.is_older_text_in_doubt, False
            # where the same token is the only way to find out about a submit from before a clear, that may make its job
            self.is_of_before, self.was_in_doubt = self.was_in_doubt, False
            self.edits += self.is_of_before
            is_unwanted = self.is_of_older_text and self.policy.get("on_change", "restart") == "restart"
            self.may_cancel = self._signalled == "stopped by a user" or self.is_of_before or is_unwanted
            self.last_end = ""

    def is_out_of_sight(self) -> bool:
        """The service shows a state of the job that nobody knows."""
        return False

    def _check_what_it_was_for(self, error: BaseException | None) -> None:
        if not self._known_to_run() or self.is_out_of_sight() or self.last_end != "":
            return
        if self.may_cancel and self.stop_faults():
            return  # it is to be stopped, and was told to by a call that did nothing
        harmless = all(what in ("nothing", "evicted", "store late") or what.startswith("status: ") for what in self._happened)
        if (harmless and not self.store_down_before) or (self._signalled == "evicted" and "times out" not in self._happened):
            told = f"its job runs on, and all that happened was {self._happened or 'nothing'}: {error!r}"
            invariants.TRY_FOR_NOTHING.holds(isinstance(error, ResumableError) and not error.retryable, told)

    def _check_doubt(self, error: BaseException | None) -> None:
        """A submit was not answered, by whatever that was; this start had nothing in its way, and the service could tell."""
        recovery = getattr(self.case.ours._resumable.service, "recovery", Recovery.LOOK_UP)
        can_tell = recovery in (Recovery.REPEAT, Recovery.LOOK_UP) and not getattr(self.case, "is_blind", False)
        runs = bool(self.bench.active()) and self.last_end == ""
        if can_tell and runs and not (self.limit or self.is_out_of_sight()):
            self.cover("a submit in doubt, and nothing in the way")
            invariants.TRY_FOR_NOTHING.holds(False, f"the job of an unanswered submit runs, and the try fails: {error!r}")

    def _check_error(self, outcome: str, error: BaseException | None) -> None:
        if outcome != "try failed" or self._faulty:
            return
        invariants.ERROR_UNREADABLE.holds(not isinstance(error, BUGS), f"{error!r}")

    def _check_stop(self) -> None:
        can_stop = getattr(self.bench, "can_stop", True)
        if can_stop and self._had_job and not self.stop_faults():
            running = getattr(self.bench, "untold", self.bench.active)()
            invariants.STOP_LOST.holds(not running, "a user stopped the task, its job runs on")

    def stop_faults(self) -> list[Any]:
        """What may have kept a cancel from its job: drawn in this history."""
        drawn = [given for name, given in self.history if name == "start"]
        drawn += [{"then": [(0, given["how"])]} for name, given in self.history if name == "next_stop_goes_wrong"]
        return [what for given in drawn for _, what in given["then"] if what.startswith(("stop: ", "store "))]

    def _check_left(self, outcome: str) -> None:
        drawn = {what for _, what in self._drawn}
        if not self.bench.active() or outcome == "died" or "store down" in drawn or "store late" in drawn:
            return  # a dead worker says nothing, nor does one whose store is down: what it leaves is for the sweep
        record = self.task.data.get("resumable", {})
        is_told = "closed_at" not in record and record.get("state") == "cancelled"  # and not seen to stop: the sweep's
        said = record.get("left") or record.get("state") == "submitting" or is_told
        invariants.LEFT_UNSAID.holds(said, f"the task has failed, its job runs, and the record is {record}")

    def end(self) -> None:
        """Nothing breaks any more: a few tries must do."""
        if self.bench is None:
            return
        self.bench.server.clear_faults()
        self.store_down_for = self.store_late_for = 0
        self._dies_at_submit = self.is_next_write_late = False
        self.limit, self.policy_fails = {}, False
        told: list[str] = []
        for _ in range(8 + 2 * self.task.retries):
            if self.ended in ("success", "skipped"):
                return
            if self.ended is not None:
                if self.bench.active():
                    self._job_ends("job fails")  # what the errors advise: wait for its end, or stop it; then clear
                self._clear()
            before = self.ended
            self._start([], "job succeeds")
            if self.ended is None and self._known_to_run():
                self._job_ends("job succeeds")
            told.append(f"{before} -> {self.ended}, try {self.task.try_number}")
        invariants.NO_TRY_HELPS.holds(self.ended in ("success", "skipped"), f"{told}")

    def clean_up(self) -> None:
        if self._stack is not None:
            with suppress(Exception):
                self._stack.close()
            self._stack = None


class _Answering:
    """
    The store of one start: of the task's own, or of the deployment's. Each of its calls is an effect of the process. What it
    keeps is shown where a test looks for task state.
    """

    def __init__(self, life: OperatorLife, store: StateStore, *, is_airflows: bool) -> None:
        self._life, self._store, self._is_airflows = life, store, is_airflows
        self._effects = life.task.effects
        self.fences_writes, self.outlives_success = store.fences_writes, store.outlives_success

    def get(self, key: str) -> Any:
        return self._run("get", lambda: self._store.get(key))

    def set(self, key: str, value: Any) -> None:
        self._life.met(f"kept in {self._life.store.kind}")
        self._run("set", lambda: self._store.set(key, value), lambda: self._life.task.data.update({key: value}))

    def delete(self, key: str) -> None:
        self._run("delete", lambda: self._store.delete(key), lambda: self._life.task.data.pop(key, None))

    def _run(self, verb: str, act: Callable[[], Any], shown: Callable[[], Any] = lambda: None) -> Any:
        self._life.before_effect()
        # of Airflow's there is the runner's double, which is an effect by itself, and may be down
        answer = act() if self._is_airflows else self._effects.run(f"store.{verb}", lambda: self._answer(verb, act, shown))
        is_late_write = verb == "set" and self._life.is_next_write_late
        if self._life.store_late_for or is_late_write:
            self._life.store_late_for -= not is_late_write
            self._life.is_next_write_late &= not is_late_write
            self._life.met("store late")
            if is_late_write:
                self._life.met("the first write is answered late")
            raise StoreDown(f"{verb}: no answer in time")
        return answer

    def _answer(self, verb: str, act: Callable[[], Any], shown: Callable[[], Any]) -> Any:
        if self._life.task.store_down(verb):
            raise StoreDown(verb)
        answer = act()
        shown()
        return answer


def _is_heard() -> bool:
    """Something of this process still deals with the signal."""
    return any(thread.name == "resumable-interruption" for thread in threading.enumerate())


def compat_stopped() -> tuple[type[BaseException], ...]:
    """What ends a process that Airflow 2 has told to stop."""
    found = versions.exception("AirflowTaskTerminated")
    return (found,) if isinstance(found, type) else ()


@functools.cache
def _with_own_execute(kind: type[Any]) -> type[Any]:
    """A subclass as somebody writes it: it does something before and after, and has the operator's own ``execute`` in between."""

    class Mine(kind):  # type: ignore[misc]
        def execute(self, context: Any) -> Any:
            context["ti"].xcom_push("began", True)
            result = super().execute(context)
            context["ti"].xcom_push("ended", True)
            return result

    return Mine


class _Fails:
    """A ``retry_policy`` that fails the task at its first failure, whatever tries are left."""

    def __init__(self, life: OperatorLife) -> None:
        self._life = life

    def evaluate(self, **_: Any) -> Any:
        self._life.met("a retry_policy")
        return mock.Mock(action=mock.Mock(value="fail"))
