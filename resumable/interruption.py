"""A SIGTERM arrives: find out why, and cancel the job only if a user wanted the task stopped.

The handler (``on_kill``) runs between two instructions of whatever the task was doing, perhaps inside a request to its
supervisor. Asking anything there deadlocks, and raising from there shifts every later answer of the supervisor by one. So it
writes one byte to a pipe; a thread that waits on the pipe asks, in its turn, like any other code.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from resumable.attempt import Attempt
from resumable.policy import OnClear, ResumePolicy
from resumable.record import Outcome

HANDLE_PATIENCE = 3.0
"""Seconds to wait for the answer of a submit that is under way: of the five before SIGKILL."""


class Stop(Enum):
    """Why the task is told to stop."""

    EVICTION = "the worker is going away"
    CLEARED = "a user cleared the task"
    BY_USER = "a user ended the task"
    SUPERSEDED = "another attempt takes over"


def why(state: str | None) -> Stop:
    """What the task instance's own state says about a SIGTERM (`airflow-lifecycle`: 3.1 to 3.3 were tried)."""
    match state:
        case "running":
            return Stop.EVICTION
        case "restarting":
            return Stop.CLEARED
        case "failed" | "success" | "skipped" | "removed":
            return Stop.BY_USER
        case _:
            return Stop.SUPERSEDED


def cancels(stop: Stop, policy: ResumePolicy) -> bool:
    """Whether the job is to be cancelled."""
    return stop is Stop.BY_USER or (stop is Stop.CLEARED and policy.on_clear is OnClear.RESTART)


class Interruption:
    """
    Watches for ``notice()`` while a job is submitted and waited for.

    Args:
        attempt: whose job it is.
        own_state: asks Airflow for the task instance's state; called in the thread only.
        cancel: stops the job; by default through the adapter.
    """

    def __init__(
        self,
        attempt: Attempt,
        own_state: Callable[[], str | None],
        *,
        log: Any,
        cancel: Callable[[str], bool] | None = None,
    ) -> None:
        self._attempt, self._own_state, self._log = attempt, own_state, log
        self._cancel = cancel or attempt.cancel
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="resumable-interruption", daemon=True)

    def __enter__(self) -> Interruption:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._writer)  # the thread reads end-of-file and leaves, unless it is at work

    def notice(self) -> None:
        """Called by the signal handler: neither asks nor raises nor takes a lock."""
        try:
            os.write(self._writer, b"!")
        except OSError:  # the wait is over, there is nothing left to protect
            return

    def _watch(self) -> None:
        try:
            if os.read(self._reader, 1):
                self._act()
        finally:
            os.close(self._reader)

    def _act(self) -> None:
        try:
            state = self._own_state()
        except Exception as e:
            self._log.warning(
                "resumable: told to stop, and Airflow does not say why (%r); %s is left running for the next attempt",
                e,
                self._attempt.handle or "the job, if there is one,",
            )
            return
        stop = why(state)
        if not cancels(stop, self._attempt.policy):
            self._log.info(
                "resumable: told to stop because %s (state %s); %s is left running, the next attempt reattaches",
                stop.value,
                state,
                self._attempt.handle or "the job, if there is one,",
            )
            return
        until = time.monotonic() + HANDLE_PATIENCE
        while self._attempt.handle is None and self._attempt.in_doubt and time.monotonic() < until:
            time.sleep(0.05)
        if self._cancel(f"{stop.value} (state {state})"):
            self._attempt.close(Outcome.CANCELLED)
