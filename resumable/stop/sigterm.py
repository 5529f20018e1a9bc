"""A SIGTERM arrives: find out why, stop the job only if a user wants that, and get out of whatever the task is doing.

The handler (``on_kill``) runs between two instructions of the main thread, perhaps inside a request to the supervisor. A
question asked there deadlocks, and an exception raised there shifts every later answer of the supervisor by one. So it writes
one byte to a pipe. A thread that waits on the pipe asks for the task's own state, in its turn like any other code, and cancels
the job if it must. Then it takes the lock that guards requests to the supervisor, so that none is in flight, and sends the
process SIGTERM once more: now the handler may raise, and `Interrupted` leaves the provider's code for the mixin, which hands
the task back or lets it fail.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import ControlFlow
from resumable.jobs.attempt import Attempt
from resumable.jobs.record import Outcome
from resumable.policy import OnClear, OnTimeout, ResumePolicy

if TYPE_CHECKING:
    from typing_extensions import Self

HANDLE_GRACE_SECONDS = 2.5
"""Seconds after a SIGTERM that a submit under way may take to answer, before the task leaves its job to the next attempt."""

CANCEL_GRACE_SECONDS = 4.0
"""The same where the job is to be cancelled: nobody may come after, and SIGKILL comes after five."""

CANCEL_SECONDS = 15.0
"""Seconds that are left for the cancel itself where SIGKILL comes later (Airflow 3.4)."""

_STOP, _END = b"!", b"."

_PAUSE = 0.02
_DEADLINE_PAUSE = 1.0
_SWALLOWED = 1.0
_JOIN = 2.0


class Stop(Enum):
    """Why the task is told to stop."""

    EVICTION = "the worker is going away"
    CLEARED = "a user cleared the task"
    BY_USER = "a user ended the task"
    SUPERSEDED = "another attempt takes over"
    UNKNOWN = "Airflow does not say why"
    JOB_TIMEOUT = "the job has run for longer than job_timeout"
    TIMED_OUT = "execution_timeout is over, and the task does not react"


class Interrupted(ControlFlow):
    """Raised in the main thread, out of the provider's code. Not to be caught by anything but the mixin."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.value)
        self.stop = stop


def why(state: str | None) -> Stop:
    """What the task instance's own state says about a SIGTERM (tried on Airflow 3.1 to 3.3)."""
    match state:
        case "running":
            return Stop.EVICTION
        case "restarting":
            return Stop.CLEARED
        case "failed" | "success" | "skipped" | "removed" | host.DELETED:
            return Stop.BY_USER
        case _:
            return Stop.SUPERSEDED


def cancels(stop: Stop, policy: ResumePolicy) -> bool:
    """Whether the job is to be cancelled."""
    is_restarted = stop is Stop.CLEARED and policy.on_clear is OnClear.RESTART
    is_timed_out = stop is Stop.TIMED_OUT and policy.on_timeout is OnTimeout.CANCEL
    return stop is Stop.BY_USER or is_restarted or is_timed_out


def _is_in_logging() -> bool:
    """
    Whether the main thread was interrupted in the middle of a log call.

    ``logging`` takes a handler's lock in one statement and opens the ``try`` that frees it in the next. Raised in between, an
    exception leaves the lock with this thread for ever, and every other thread waits at its next log line.
    """
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "logging":
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


class SignalWatch(ABC):
    """
    Stands by while a task works, and gets it out of its work when a SIGTERM arrives.

    Args:
        own_state: asks Airflow for the task instance's state; called in the thread only.
        request_lock: the lock that guards requests to the supervisor.
        log: a logger.
    """

    def __init__(self, own_state: Callable[[], str | None], *, request_lock: AbstractContextManager[Any], log: Any) -> None:
        self._own_state, self._lock, self._log = own_state, request_lock, log
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="resumable-interruption", daemon=True)
        self._stop: Stop | None = None
        self._may_raise = False
        self._is_open = False
        self._told_at = 0.0

    def __enter__(self) -> Self:
        self._is_open = True
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        with suppress(OSError):  # the thread has left
            os.write(self._writer, _END)  # an end-of-file alone would not come while a forked child holds the pipe
        os.close(self._writer)
        self._thread.join(_JOIN)  # so that none of its signals comes after the end

    def close(self) -> None:
        """From here on a signal neither asks nor raises: the main thread is out of the work."""
        self._is_open = self._may_raise = False

    def notice(self) -> None:
        """Called by the signal handler: takes no lock; raises only when the thread has made sure that it may."""
        if self._is_open and self._may_raise and self._stop is not None:  # open: the thread may have been about to allow it
            if _is_in_logging():
                return  # the next signal is on its way
            self._may_raise = False
            raise Interrupted(self._stop)
        if self._is_open and self._stop is None:
            self._halt()
            os.write(self._writer, _STOP)

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def _halt(self) -> None:  # noqa: B027 - most need none
        """In the handler, first of all: takes no lock and asks nobody."""

    @abstractmethod
    def _settle(self, stop: Stop, state: str | None) -> Stop:
        """In the thread: do what the stop asks for. Returns the reason to leave with."""

    def _overdue(self) -> bool:
        """In the thread, about once a second: whether to leave without a signal, as `Stop.JOB_TIMEOUT`."""
        return False

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        try:
            if self._is_signalled():
                self._leave(self._settled())
        finally:
            os.close(self._reader)

    def _is_signalled(self) -> bool:
        """Wait for a signal or for the end of the work (False), and for its deadline meanwhile."""
        told = select.poll()  # select() knows no descriptor above 1023
        told.register(self._reader, select.POLLIN)
        while not told.poll(_DEADLINE_PAUSE * 1000):
            if not self._is_open:  # the main thread was interrupted while it closed
                return False
            if self._is_overdue():
                self._leave(Stop.JOB_TIMEOUT)
                return False
        return os.read(self._reader, 1) == _STOP

    def _is_overdue(self) -> bool:
        try:
            return self._overdue()
        except Exception as e:
            self._log.warning("resumable: the job could not be held to its job_timeout yet: %r", e)
            return False

    def _settled(self) -> Stop:
        self._told_at = time.monotonic()
        try:
            state = self._own_state()
            stop = why(state)
        except Exception as e:
            state, stop = repr(e), Stop.UNKNOWN
        try:
            return self._settle(stop, state)
        except BaseException as e:  # whatever it is, the main thread waits to be told, and nobody else would hear of it
            say = "resumable: told to stop, %s (state %s), and that went wrong: the job may run on: %r"
            self._log.warning(say, stop.value, state, e)
            return stop

    def _leave(self, stop: Stop) -> None:
        """Raise `Interrupted` in the main thread, again if somebody's ``except BaseException`` swallows it."""
        while self._is_open and callable(signal.getsignal(signal.SIGTERM)):  # dag.test() has no handler: nothing to raise from
            with self._lock:
                self._stop = stop
                self._may_raise = self._is_open
                while self._may_raise and self._is_open:
                    # again and again: one that comes right before the main thread blocks is handled only when that call returns
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(_PAUSE)
            swallowed_at = time.monotonic() + _SWALLOWED
            while self._is_open and time.monotonic() < swallowed_at:
                time.sleep(_PAUSE)


class Interruption(SignalWatch):
    """
    Stands by while a job is submitted and waited for.

    Args:
        attempt: whose job it is.
        own_state: see `SignalWatch`.
        request_lock: see `SignalWatch`.
        log: a logger.
        cancel: stops the job; by default through the adapter.
        is_out_of_time: whether the task's ``execution_timeout`` is over. Airflow 3.4 sends a SIGTERM to one that does not react
            to it, a minute later by default.
    """

    def __init__(
        self,
        attempt: Attempt,
        own_state: Callable[[], str | None],
        *,
        request_lock: AbstractContextManager[Any],
        log: Any,
        cancel: Callable[[str], bool] | None = None,
        is_out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(own_state, request_lock=request_lock, log=log)
        self._attempt = attempt
        self._cancel = cancel or attempt.cancel
        self._is_out_of_time = is_out_of_time

    def _halt(self) -> None:
        self._attempt.is_halted = True

    def _overdue(self) -> bool:
        return self._attempt.stop_if_overdue(self._cancel)

    def _settle(self, stop: Stop, state: str | None) -> Stop:
        if stop is Stop.EVICTION and self._is_out_of_time():
            stop = Stop.TIMED_OUT
        if self._cancels(stop):
            self._await_record(self._patience(stop))
        self._await_answer(self._patience(stop))
        is_alone = state == host.DELETED  # with the run the record is gone, and there is no other attempt
        if stop is Stop.BY_USER and not is_alone and not self._attempt.owns_record():
            stop = Stop.SUPERSEDED
        if stop is Stop.TIMED_OUT and self._cancels(stop) and self._attempt.note_end():
            return stop
        if self._cancels(stop):
            if self._cancel(f"{stop.value} (state {state})"):
                self._attempt.close(Outcome.CANCELLED)
        else:
            say = self._log.warning if stop is Stop.UNKNOWN else self._log.info
            job = self._attempt.handle or "the job, if there is one,"
            say("resumable: told to stop, %s (state %s): %s is left running", stop.value, state, job)
        return stop

    def _cancels(self, stop: Stop) -> bool:
        """After a clear the job is stopped so that another one can follow: not where none can."""
        is_kept = stop is Stop.CLEARED and self._attempt.is_the_only_job
        return cancels(stop, self._attempt.policy) and not is_kept

    def _patience(self, stop: Stop) -> float:
        if not self._cancels(stop):
            return HANDLE_GRACE_SECONDS
        return max(CANCEL_GRACE_SECONDS, host.users_stop_grace() - CANCEL_SECONDS)

    def _await_record(self, patience: float) -> None:
        """While the record is being read, nobody can say that there is no job. The main thread submits none any more."""
        until = self._told_at + patience
        while self._is_open and self._attempt.number is None and time.monotonic() < until:
            time.sleep(_PAUSE)

    def _await_answer(self, patience: float) -> None:
        until = self._told_at + patience
        while self._is_open and self._attempt.in_doubt and time.monotonic() < until:
            time.sleep(_PAUSE)
