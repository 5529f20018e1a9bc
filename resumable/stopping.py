"""SIGTERM while a checkpoint or a `once` is open: keep what is done, then hand the task back or let it end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from resumable import compat
from resumable.errors import LostSightError
from resumable.interruption import Interrupted, SignalWatch, Stop
from resumable.task import CurrentTask

ITEM_PATIENCE = 10.0
"""Seconds that the item under way may take to its end when the worker goes away, before it is interrupted."""

SIGKILL_PATIENCE = 10.0
"""Seconds to wait for the SIGKILL that Airflow has announced (it comes after five)."""

_PAUSE = 0.02

_log = logging.getLogger("resumable")


class StopGuard(SignalWatch):
    """
    Stands by while anything of ours is open in one attempt of a task: all share one guard.

    On an eviction everything open is written at once, and the item under way may come to its end. Otherwise the operator's own
    ``on_kill`` is called, as Airflow would.
    """

    _of: dict[int, StopGuard] = {}

    def __init__(self, operator: Any, own_state: Callable[[], str | None]) -> None:
        super().__init__(own_state, request_lock=compat.request_lock(), log=_log)
        self.reason: Stop | None = None
        self._operator = operator
        self._members: list[Callable[[Stop], None]] = []
        self._interrupted: list[Callable[[Stop], None]] = []
        self._loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
        self._own_on_kill = vars(operator).get("on_kill")

    @classmethod
    def join(cls, task: CurrentTask, told: Callable[[Stop], None], *, interrupts: bool) -> StopGuard | None:
        """
        Have ``told`` called, in a thread, when the task is told to stop; with ``interrupts``, get the main thread out of its work
        then (`Interrupted`, or in a coroutine a cancel). `leave` it afterwards.

        None where no signal arrives (not the main thread), or where the operator of a job has taken the signals over.
        """
        operator = task.operator
        if threading.current_thread() is not threading.main_thread() or getattr(operator, "_interruption", None) is not None:
            return None
        guard = cls._of.get(id(operator))
        if guard is None:
            guard = cls._of[id(operator)] = cls(operator, lambda: compat.own_state(task.context))
            vars(operator)["on_kill"] = guard.notice
            guard.__enter__()
        guard._members.append(told)
        if not interrupts:
            return guard
        guard._interrupted.append(told)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return guard
        current = asyncio.current_task()
        if current is not None:
            guard._loops.append((loop, current))
        return guard

    def spare(self, told: Callable[[Stop], None]) -> None:
        """The work of this member is over, one way or the other: nothing is to be interrupted any more."""
        if told in self._interrupted:
            self._interrupted.remove(told)
        if not self._interrupted and self.reason is not None:
            self.close()

    def leave(self, told: Callable[[Stop], None]) -> None:
        """The other end of `join`."""
        self.spare(told)
        self._members.remove(told)
        if self._members:
            return
        self._of.pop(id(self._operator), None)
        if self._own_on_kill is None:
            vars(self._operator).pop("on_kill", None)
        else:
            vars(self._operator)["on_kill"] = self._own_on_kill
        self.__exit__()

    def check(self) -> None:
        """Between two items: raises `Interrupted` if the task is to stop."""
        if self.reason is not None:
            self._may_raise = False
            raise Interrupted(self.reason)

    def end_of_attempt(self) -> NoReturn:
        """
        The way out of an attempt that was told to stop.

        Raises:
            AirflowRescheduleException: on an eviction; LostSightError: otherwise.
        """
        stop = self.reason or Stop.UNKNOWN
        if stop is Stop.EVICTION:
            seconds = compat.hand_back_seconds()
            _log.info(
                "resumable: %s; progress is kept, the task is handed back and started again in %.0f s, which uses up no try",
                stop.value,
                seconds,
            )
            raise compat.hand_back(seconds)
        if stop is not Stop.UNKNOWN:
            time.sleep(SIGKILL_PATIENCE)  # an exception would run the failure callbacks of a task that did not fail
        raise LostSightError(f"Told to stop, {stop.value}. Progress is kept; if Airflow starts the task again, it goes on there.")

    def _settle(self, stop: Stop, state: str | None) -> Stop:
        self.reason = stop
        _log.info("resumable: told to stop, %s (state %s)", stop.value, state)
        for told in list(self._members):
            try:
                told(stop)
            except Exception as e:
                _log.warning("resumable: what is done could not be kept: %r", e)
        if stop is Stop.EVICTION:
            until = time.monotonic() + ITEM_PATIENCE
            while self._interrupted and time.monotonic() < until:
                time.sleep(_PAUSE)
        if self._interrupted or stop is not Stop.EVICTION:
            self._call_own_on_kill()
        return stop

    def _call_own_on_kill(self) -> None:
        try:
            (self._own_on_kill or type(self._operator).on_kill.__get__(self._operator))()
        except Exception as e:
            _log.warning("resumable: on_kill failed: %r", e)

    def _leave(self, stop: Stop) -> None:
        if not self._interrupted:
            return
        if not self._loops:
            super()._leave(stop)
            return
        for loop, task in self._loops:
            if self._is_open and not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
