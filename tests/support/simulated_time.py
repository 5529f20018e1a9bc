"""An event loop whose time passes when nothing else is left to do: hours of waiting in no time, and no thread beside it."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None and not self.loop.is_stopping:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.loop.now += timeout or 0.0
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """``time`` begins at 1,000 seconds, and at the epoch's `EPOCH`."""

    def __init__(self) -> None:
        self.now, self.is_stopping = 1000.0, False
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    @property
    def _clock_resolution(self) -> float:
        """
        Nothing happens before its time. asyncio lets it, by as much as the clock cannot tell: two that look at this clock, and
        find that it is not time yet, would be called again and again, and no time would pass.
        """
        return math.ulp(self.now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None: ...

    def stop(self) -> None:
        self.is_stopping = True
        super().stop()

    def run_until_complete(self, future: Any) -> Any:
        self.is_stopping = False
        return super().run_until_complete(future)

    def pass_time(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))


EPOCH = 1_700_000_000.0


@contextmanager
def simulated() -> Iterator[SimulatedLoop]:
    """A loop, and at its end nothing that it was told of went wrong unheard."""
    loop = SimulatedLoop()
    try:
        yield loop
        assert not loop.errors, loop.errors
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


class Instant:
    """A pool whose calls take as long as is said, on the loop's time."""

    def __init__(self, size: int, latency: Callable[[], float] = lambda: 0.1) -> None:
        self.size, self._latency = size, latency
        self.under_way = self.most = 0
        self.is_closed = False

    def run(self, call: Callable[[], T]) -> Awaitable[T]:
        return self._run(call)

    async def _run(self, call: Callable[[], T]) -> T:
        assert not self.is_closed
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        assert self.under_way <= self.size
        try:
            try:
                answer = call()  # the service has answered as things were when it was asked
            except Exception:
                await asyncio.sleep(self._latency())
                raise
            await asyncio.sleep(self._latency())
            return answer
        finally:
            self.under_way -= 1

    def close(self) -> None:
        self.is_closed = True
