"""`Checkpoint.map`: the work on the items of a list, several at a time, and what of it is marked and written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from resumable import host
from resumable.checkpoint.block import Block
from resumable.checkpoint.concurrent import Caller, Threads, ends_all, tried, tried_in_thread
from resumable.checkpoint.loops import listed_items, say_if_grown
from resumable.checkpoint.names import mapped

T = TypeVar("T")


class Map(Generic[T]):
    """
    One call of `Checkpoint.map`.

    Args:
        block: it is called in.
        work: called with an item; what it returns is not kept.
        key: of an item, as of `Checkpoint.items`.
        concurrency: how many items at once.
        tries: of one item.
        goes_on: other items are begun after one has failed.
    """

    def __init__(
        self,
        block: Block,
        work: Callable[[T], Any],
        key: Callable[[T], Any] | None,
        concurrency: int,
        tries: int,
        *,
        goes_on: bool,
    ) -> None:
        self._block, self._work, self._key = block, work, key
        self._concurrency, self._tries, self._goes_on = concurrency, tries, goes_on
        self._progress = block.work.progress
        self._has_ended = self._is_writing = False

    def in_threads(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        """Work all items. Raises as `Checkpoint.map`."""
        block, progress, of = self._block, self._progress, self._block.work
        listed = of.begin_items(listed_items(items, block.name), self._key, self._work)

        def work_at(position: int) -> None:
            with mapped(of, position):
                tried_in_thread(self._work, listed[position], self._tries, threads.ended)
            self._mark(position)

        threads = Threads(
            work_at,
            iter(progress.undone()),
            min(self._concurrency, max(1, len(listed))),
            is_over=self._is_over,
            failed=lambda position, error: self._note(position, listed[position], error),
        )
        threads.run(lambda: progress.write() if progress.is_due else None)
        block.check_stop()
        say_if_grown(items, listed, block.name)
        block.work.mapped()

    def in_loop(self, items: Iterable[T] | AsyncIterable[T]) -> Awaitable[None]:
        """To be awaited: works all items in the event loop. Raises as `Checkpoint.map`."""
        self._block.work.maps += 1
        return self._worked_in_loop(items)

    async def _worked_in_loop(self, items: Iterable[T] | AsyncIterable[T]) -> None:
        block, work = self._block, self._block.work
        with host.airflow_errors():
            try:
                listed = await block.begin_items(items, self._key, self._work)
                with Caller(self._work, self._concurrency) as called:
                    attempt = called if self._tries == 1 else partial(tried, called, self._tries)
                    await self._all(listed, attempt)
            finally:
                work.maps -= 1
            block.check_stop()
            say_if_grown(items, listed, block.name)
            work.mapped()

    async def _all(self, listed: Sequence[T], attempt: Callable[[T], Awaitable[Any]]) -> None:
        undone, work = iter(self._progress.undone()), self._block.work

        async def worker() -> None:
            for position in undone:
                if self._has_ended or self._is_over():
                    return
                try:
                    with mapped(work, position):
                        await attempt(listed[position])
                except (Exception, asyncio.CancelledError) as e:
                    if ends_all(e) or (isinstance(e, asyncio.CancelledError) and _is_cancelled()):
                        raise
                    self._note(position, listed[position], e)
                else:
                    self._mark(position)
                    await self._write()

        workers = [asyncio.ensure_future(worker()) for _ in range(self._concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            self._has_ended = True  # also for work that lets no cancel through
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _write(self) -> None:
        if not self._is_writing and self._progress.is_due:
            self._is_writing = True
            try:
                await self._block.off_loop(self._progress.write)
            finally:
                self._is_writing = False

    def _mark(self, position: int) -> None:
        if position not in self._progress.failed:  # by checkpoint.fail()
            self._progress.mark(position)

    def _note(self, position: int, item: T, error: BaseException) -> None:
        self._block.work.note(position, item, error)  # of a block that was left, which a thread may outlive: an error

    def _is_over(self) -> bool:
        return self._block.is_stopping or (bool(self._progress.failed) and not self._goes_on)


def _is_cancelled() -> bool:
    """Whether the running task of asyncio itself is cancelled; what an item awaits may be, alone. Python 3.10 does not tell."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is None or cancelling() > 0
