"""SIGTERM while a checkpoint or a `once` is open: keep what is done, then hand the task back or let it end."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from resumable import host
from resumable.current_task import CurrentTask
from resumable.errors import LostSightError
from resumable.stop.sigterm import Interrupted, SignalWatch, Stop

ITEM_GRACE_SECONDS = 10.0
"""Seconds that the item under way may take to its end when the worker goes away, before it is interrupted."""

_PAUSE = 0.02

_log = logging.getLogger("resumable")


class StopGuard(SignalWatch):
    """
    Stands by while anything of ours is open in one attempt of a task: all share one guard.

    On an eviction everything open is written at once, and the item under way may come to its end. Otherwise, and if nothing that
    is open gets the task out of its work, the operator's own ``on_kill`` is called, as Airflow would.
    """

    _of: dict[int, StopGuard] = {}

    def __init__(self, operator: Any, context: Mapping[str, Any]) -> None:
        super().__init__(lambda: host.own_state(context), request_lock=host.request_lock(), log=_log)
        self._context = context
        self._signals: AbstractContextManager[None] | None = None
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

        None where there is no getting out of the work (not the main thread), or where the operator of a job has taken the signals
        over.
        """
        operator = task.operator
        ours = vars(operator).get("_resumable")
        is_main = threading.current_thread() is threading.main_thread()
        if (interrupts and not is_main) or (ours is not None and ours.run is not None and ours.run.watch is not None):
            return None
        guard = cls._of.get(id(operator))
        if guard is None:
            guard = cls._of[id(operator)] = cls(operator, task.context)
            vars(operator)["on_kill"] = guard.notice
            guard.__enter__()
        guard._members.append(told)
        if not interrupts:
            return guard
        guard._interrupted.append(told)
        if guard._signals is None:
            guard._signals = host.sigterm_calls(guard.notice)
            guard._signals.__enter__()
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
        if self._signals is not None:
            self._signals.__exit__(None, None, None)

    def check(self) -> None:
        """Between two items: raises `Interrupted` if the task is to stop."""
        if self.reason is not None:
            self._may_raise = False
            raise Interrupted(self.reason)

    def end_of_attempt(self) -> NoReturn:
        """
        The way out of an attempt that was told to stop.

        Raises:
            AirflowRescheduleException: on an eviction; LostSightError, on Airflow 2 AirflowTaskTerminated: otherwise.
        """
        stop = self.reason or Stop.UNKNOWN
        if stop is Stop.EVICTION:
            seconds = host.hand_back_seconds()
            _log.info(
                "resumable: %s; progress is kept, the task is handed back and started again in %.0f s, which uses up no try",
                stop.value,
                seconds,
            )
            with host.airflow_errors(self._context):
                raise host.hand_back(seconds)
        if stop is not Stop.UNKNOWN:
            host.end_stopped_task(taken_over=stop is Stop.SUPERSEDED)
        raise LostSightError(f"Told to stop, {stop.value}. Progress is kept; if Airflow starts the task again, it goes on there.")

    def _settle(self, stop: Stop, state: str | None) -> Stop:
        self.reason = stop
        _log.info("resumable: told to stop, %s (state %s)", stop.value, state)
        is_handed_back = stop is Stop.EVICTION and bool(self._interrupted)
        for told in reversed(list(self._members)):
            try:
                told(stop)
            except Exception as e:
                _log.warning("resumable: what is done could not be kept: %r", e)
        if stop is Stop.EVICTION:
            until = time.monotonic() + ITEM_GRACE_SECONDS
            while self._interrupted and time.monotonic() < until:
                time.sleep(_PAUSE)
        if self._interrupted or not is_handed_back:
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
