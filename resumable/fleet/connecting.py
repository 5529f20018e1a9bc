"""The client of a poller: made by one of those who wait, in their own task, once for all, and again when it has to be.

On Airflow 3 a triggerer looks connections up for the trigger whose task asks, so the poller's own tasks cannot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from resumable.fleet.lookups import Reached
from resumable.fleet.waiting import Errand, Waiter

_log = logging.getLogger("resumable.fleet")


class Connection:
    """
    Args:
        name: of the poller, for the log.
        loop: whose timers are used.
        retry: seconds between two tries: the first and the longest pause.
        any_waiter: somebody who waits, if anybody does.
        made: called when there is a client.
        failed: called with each error of a try to make one.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        retry: tuple[float, float],
        *,
        any_waiter: Callable[[], Waiter | None],
        made: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.reached: Reached | None = None
        self._name, self._loop, self._retry = name, loop, retry
        self._any_waiter, self._made, self._failed = any_waiter, made, failed
        self._pause = retry[0]
        self._maker: Waiter | None = None
        self._timer: asyncio.TimerHandle | None = None

    def need(self) -> None:
        """See to it that there is a client, or soon will be."""
        if self.reached is None and self._maker is None and self._timer is None:
            self._send()

    def _send(self) -> None:
        self._timer = None
        self._maker = self._any_waiter()
        if self._maker is not None:
            self._maker.put(Errand.CONNECT)

    async def make(self, waiter: Waiter) -> None:
        """In the task of ``waiter``, who was asked to."""
        if self._maker is not waiter:
            return
        try:
            reached = await waiter.target.reach()
        except Exception as e:
            self._maker = None
            self._timer = self._loop.call_later(self._pause, self._send)
            self._pause = min(self._retry[1], self._pause * 2)
            self._failed(e)
            return
        self._maker, self.reached, self._pause = None, reached, self._retry[0]
        self._made()

    def left(self, waiter: Waiter) -> None:
        """``waiter`` waits no more: if it was to make the client, somebody else does."""
        if self._maker is waiter:
            self._send()

    def expired(self, reached: Reached, error: Exception) -> None:
        """``reached`` has answered that its credentials are no longer good."""
        if self.reached is reached:
            _log.warning("resumable fleet: %s: the credentials have expired, the connection is read again: %r", self._name, error)
            self.reached = None
            self.need()

    def close(self) -> None:
        self.reached = self._maker = None
        if self._timer is not None:
            self._timer.cancel()
