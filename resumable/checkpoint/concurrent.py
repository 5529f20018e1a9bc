"""Work on several items at once: in threads, or in coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from types import CoroutineType
from typing import Any

from resumable import host
from resumable.errors import ConfigurationError
from resumable.helpers import called, unworked


class Threads:
    """
    Threads that take one position after the other and work it, while the thread that began them listens: it is the one that a
    signal reaches, and the one that writes.

    They are daemons: an item that does not come to its end must not keep a process from ending that was told to stop.

    Args:
        work: called with a position.
        positions: each is worked once.
        count: of threads.
        is_over: whether no other item is to be begun.
        failed: called with a position and its error; the others go on.
    """

    def __init__(
        self,
        work: Callable[[int], Any],
        positions: Iterator[int],
        count: int,
        *,
        is_over: Callable[[], bool],
        failed: Callable[[int, BaseException], None],
    ) -> None:
        self._work, self._positions, self._is_over, self._failed = work, positions, is_over, failed
        self._taking, self.ended = threading.Lock(), threading.Event()
        self._told: SimpleQueue[BaseException | bool] = SimpleQueue()
        context = contextvars.copy_context()
        self._threads = [
            threading.Thread(target=context.copy().run, args=(self._run,), name=f"resumable-map-{number}", daemon=True)
            for number in range(count)
        ]

    def run(self, after_item: Callable[[], None]) -> None:
        """
        Work them all, and call ``after_item`` here after each that was done.

        Raises:
            What ends all (`ends_all`), once the items under way have ended; what ``after_item`` raises, at once.
        """
        error: BaseException | None = None
        try:
            for thread in self._threads:
                thread.start()
            working = len(self._threads)
            while working:
                told = self._told.get()
                if told is False:
                    after_item()
                    continue
                working -= 1
                error = error or (told if isinstance(told, BaseException) else None)
        finally:
            self.ended.set()
        if error is not None:
            raise error

    def _run(self) -> None:
        last: BaseException | bool = True
        try:
            while not (self.ended.is_set() or self._is_over()):
                with self._taking:
                    position = next(self._positions, None)
                if position is None:
                    break
                try:
                    self._work(position)
                except (Exception, asyncio.CancelledError) as e:  # an event loop of its own may have been cancelled
                    if ends_all(e):
                        raise
                    self._failed(position, e)
                else:
                    self._told.put(False)
        except BaseException as e:
            self.ended.set()
            last = e
        self._told.put(last)


def tried_in_thread(work: Callable[[Any], Any], item: Any, tries: int, ended: threading.Event) -> None:
    """
    Work one item, up to ``tries`` times, unless ``ended`` says to stop in between.

    Raises:
        ConfigurationError: ``work`` returned something to await.
    """
    for number in range(1, tries + 1):
        try:
            answer = work(item)
            break
        except Exception as e:
            if number == tries or ends_all(e) or ended.wait(_pause(number)):
                raise
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise ConfigurationError(
            f"map: {_name_of(work)} returned something to await. The item is not taken "
            "for done. Write: async with Checkpoint(...) as checkpoint: await checkpoint.map(...)"
        )
    _check_worked(work, answer)


def _check_worked(work: Any, answer: Any) -> None:
    """Raises: ConfigurationError: what ``work`` returned is work that nobody has done yet."""
    if (what := unworked(answer)) is not None:
        raise ConfigurationError(
            f"map: {_name_of(work)} returned {what}, and nobody goes on with that. The item is not taken for done. Let the "
            "function do all of its work before it returns."
        )


def _name_of(work: Any) -> str:
    return str(getattr(work, "__qualname__", type(work).__qualname__))


class Nothing:
    """What `Checkpoint.map` returns when all is done: to be awaited or not."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


class Caller:
    """
    Calls the work of a `Checkpoint.map` in a coroutine: a coroutine function in the event loop, a plain one in threads.

    A plain function may still return something to await, e.g. ``lambda item: asyncio.to_thread(load, item)``; from its first
    answer on it is known, and called in the loop.
    """

    def __init__(self, work: Callable[[Any], Any], concurrency: int) -> None:
        self._work, self._concurrency = work, concurrency
        self._is_in_loop = is_coroutine_function(work)
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, item: Any) -> None:
        answer = self._work(item) if self._is_in_loop else await self._called_in_thread(item)
        if type(answer) is CoroutineType or inspect.isawaitable(answer):
            self._is_in_loop = True
            answer = await answer
        _check_worked(self._work, answer)

    async def _called_in_thread(self, item: Any) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, "resumable-map")
        call = partial(contextvars.copy_context().run, called, self._work, item)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except RuntimeError as e:
            if "event loop" not in str(e):
                raise
            answer = self._work(item)  # e.g. lambda item: asyncio.ensure_future(load(item)), which needs the loop's thread
            if not inspect.isawaitable(answer):
                raise
            return answer


async def tried(work: Callable[[Any], Awaitable[Any]], tries: int, item: Any) -> None:
    for number in range(1, tries + 1):
        try:
            await work(item)
            return
        except Exception as e:
            if number == tries or ends_all(e):
                raise
            await asyncio.sleep(_pause(number))


def _pause(number: int) -> float:
    """Seconds after the try of an item with this number."""
    return min(2.0 ** (number - 1), 30.0)


def is_coroutine_function(work: Any) -> bool:
    while isinstance(work, partial):
        work = work.func
    call = type(work).__call__
    return inspect.iscoroutinefunction(work) or inspect.iscoroutinefunction(call)


def is_in_a_coroutine() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def ends_all(error: BaseException) -> bool:
    """Whether what an item raises is said of the task: that no other try is wanted, or that it is to be started again later."""
    return host.is_final(error) or host.is_hand_back(error) or isinstance(error, ConfigurationError)
