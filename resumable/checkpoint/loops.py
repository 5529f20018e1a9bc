"""The loops over a checkpoint: over items, some of them at a time, or pages."""

from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from resumable import host
from resumable.checkpoint.inputs import check_cursor, checked_pair
from resumable.checkpoint.progress import Progress
from resumable.checkpoint.read_ahead import Watch
from resumable.errors import ConfigurationError

if TYPE_CHECKING:
    from resumable.checkpoint.block import Block
    from resumable.checkpoint.checkpoint import Checkpoint
    from resumable.checkpoint.work import Work

T = TypeVar("T")

_log = logging.getLogger("resumable")


class Done(int):
    """How many are done; called with an item: this one is."""

    def __new__(cls, count: int, acknowledge: Callable[[Any], None]) -> Done:
        made = super().__new__(cls, count)
        made._acknowledge = acknowledge
        return made

    _acknowledge: Callable[[Any], None]

    def __call__(self, item: Any) -> None:
        """See `Checkpoint.done`."""
        self._acknowledge(item)

    def __reduce__(self) -> Any:
        return int, (int(self),)


class Watched(Generic[T]):
    """A loop whose consumer is looked at, for whether it reads ahead of its work."""

    _checkpoint: Checkpoint
    _watch: Watch
    _begun_by_next: Generator[T, None, None] | None = None

    def __iter__(self) -> Generator[T, None, None]:
        if self._begun_by_next is not None:
            return self._begun_by_next
        self._watch = watch = Watch()
        generator = self._each(watch)
        watch.is_of(generator)
        return generator

    def __next__(self) -> T:
        """``next(checkpoint.items(...))``, as of a generator; a ``for`` goes on from there."""
        if self._begun_by_next is None:
            self._begun_by_next = iter(self)
        return next(self._begun_by_next)

    def __length_hint__(self) -> int:
        self._watch.hinted(sys._getframe(1))
        return cast("int", NotImplemented)

    def _each(self, watch: Watch) -> Generator[T, None, None]:
        raise NotImplementedError

    def _entered_plainly(self) -> Block:
        """The block that a plain ``for`` is in. Raises: ConfigurationError: it is none, or ``async with``."""
        block = self._checkpoint._entered()
        if block.is_async:
            raise ConfigurationError(
                f"Checkpoint {block.name!r}: a plain for in a coroutine would keep its event loop waiting. Nothing was done. "
                "Write: async for ... in checkpoint.items(...)"
            )
        return block

    @staticmethod
    def _asker(frame: FrameType) -> FrameType:
        return frame.f_back if frame.f_code is Watched.__next__.__code__ and frame.f_back is not None else frame

    def _refuse_ahead(self, watch: Watch, item: Any, frame: FrameType) -> None:
        """
        Raises:
            AirflowFailException: whoever asks for the next item asks ahead of the work; the one before does not count as done.
        """
        found = watch.asked(item, self._asker(frame))
        if found is not None:
            with host.airflow_errors():
                raise ConfigurationError(
                    f"Checkpoint {self._checkpoint.name!r}: {found} takes the next item before the last one can have been "
                    "worked, which would count as done and be left out by the next try. What was done before is kept. Write: for "
                    "item in checkpoint.items(...), or checkpoint.map(work, items, concurrency=...), or "
                    'checkpoint.batches(items, size), or items(..., ack="manual") and checkpoint.done(item) when its work is '
                    "done."
                )


def _note(checkpoint: Checkpoint, asked_for: str) -> None:
    """For the end of the block, where it is said if nobody has iterated."""
    block = checkpoint._block
    if block is not None and not (block.is_left or block.is_beginning):
        block.work.asked_for = asked_for


class Items(Watched[T]):
    """What `Checkpoint.items` and `batches` return: to be looped over once."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        items: Iterable[Any] | AsyncIterable[Any],
        key: Callable[[Any], Any] | None,
        size: int | None = None,
        *,
        is_manual: bool = False,
    ) -> None:
        self._checkpoint, self._items, self._key, self._size, self._is_manual = checkpoint, items, key, size, is_manual
        self._watch = Watch()
        _note(checkpoint, "items()" if size is None else "batches()")

    def _each(self, watch: Watch) -> Generator[Any, None, None]:
        watch.begins(self._asker(sys._getframe(1)))
        with host.airflow_errors():
            block = self._entered_plainly()
            work = block.work
            listed = work.begin_items(listed_items(self._items, block.name), self._key)
        progress = self._begun(work)
        if self._is_manual:
            for positions in self._groups(progress):
                work.given.update(positions)
                yield self._of(work, positions)
                block.after_item()
            say_if_grown(self._items, listed, block.name)
            return
        # The hot path: with trivial items this loop is what a checkpoint costs (tests/bench/checkpoint.py).
        failed, mark, after_item = progress.failed, progress.mark, block.after_item
        with work.looped():
            if self._size is None:
                for position in progress.undone():
                    work.under_way = position
                    yield listed[position]
                    if not watch.is_over:
                        self._refuse_ahead(watch, listed[position], sys._getframe(1))
                    if position not in failed:
                        mark(position)
                    after_item()
            else:
                for positions in self._groups(progress):
                    batch = self._of(work, positions)
                    work.under_way = positions[0]
                    yield batch
                    if not watch.is_over:
                        self._refuse_ahead(watch, batch, sys._getframe(1))
                    self._mark(progress, positions)
                    after_item()
        say_if_grown(self._items, listed, block.name)
        work.completed()

    async def __aiter__(self) -> AsyncIterator[T]:
        watch = Watch()
        with host.airflow_errors():
            block = self._checkpoint._entered()
            work = block.work
            listed = await block.begin_items(self._items, self._key)
        progress = self._begun(work)
        with work.looped():
            for positions in self._groups(progress):
                given = self._of(work, positions)
                if self._is_manual:
                    work.given.update(positions)
                else:
                    work.under_way = positions[0]
                yield given
                if not self._is_manual:
                    if not watch.is_over:
                        self._refuse_ahead(watch, given, sys._getframe(1))
                    self._mark(progress, positions)
                await block.after_item_off_loop()
        say_if_grown(self._items, listed, block.name)
        if not self._is_manual:
            work.completed()

    def _begun(self, work: Work) -> Progress:
        work.is_batched, work.is_manual = self._size is not None, self._is_manual
        return work.progress

    def _mark(self, progress: Progress, positions: Sequence[int]) -> None:
        """A batch is done as a whole, or not at all."""
        if not any(position in progress.failed for position in positions):
            for position in positions:
                progress.mark(position)

    def _groups(self, progress: Progress) -> Iterator[Sequence[int]]:
        if self._size is None:
            for position in progress.undone():
                yield (position,)
            return
        group: list[int] = []
        for position in progress.undone():
            group.append(position)
            if len(group) == self._size:
                yield group
                group = []
        if group:
            yield group

    def _of(self, work: Work, positions: Sequence[int]) -> Any:
        return work.listed[positions[0]] if self._size is None else work.batch(positions)


class Pages(Watched[Any]):
    """What `Checkpoint.pages` returns: to be looped over once."""

    def __init__(self, checkpoint: Checkpoint, fetch: Callable[[Any], Any], start: Any) -> None:
        self._checkpoint, self._fetch, self._start = checkpoint, fetch, start
        self._watch = Watch()
        _note(checkpoint, "pages()")
        self._seen, self._steps, self._most_steps, self._has_warned = start, 0, 1, False

    def _each(self, watch: Watch) -> Generator[Any, None, None]:
        watch.begins(self._asker(sys._getframe(1)))
        with host.airflow_errors():
            block = self._entered_plainly()
            progress = self._begun(block.work)
        with block.work.looped():
            while not progress.has_ended:
                page, following = self._pair(progress, self._fetch(copy.deepcopy(progress.cursor)))
                block.work.under_way = 0
                yield page
                if not watch.is_over:
                    self._refuse_ahead(watch, page, sys._getframe(1))
                progress.turn(following)
                block.after_item()
        block.work.completed()

    async def __aiter__(self) -> AsyncIterator[Any]:
        watch = Watch()
        with host.airflow_errors():
            block = self._checkpoint._entered()
            progress = await block.off_loop(lambda: self._begun(block.work))
        with block.work.looped():
            while not progress.has_ended:
                answer = self._fetch(copy.deepcopy(progress.cursor))
                page, following = self._pair(progress, await answer if inspect.isawaitable(answer) else answer)
                block.work.under_way = 0
                yield page
                if not watch.is_over:
                    self._refuse_ahead(watch, page, sys._getframe(1))
                progress.turn(following)
                await block.after_item_off_loop()
        block.work.completed()

    def _pair(self, progress: Progress, answer: Any) -> tuple[Any, Any]:
        """The page and the next cursor: a copy, for fetch may change the object while the page is worked."""
        with host.airflow_errors():
            page, following = checked_pair(answer, progress.setting)
            check_cursor(following, progress.setting)
        if following is not None and not self._has_warned:
            self._say_if_again(following, progress.cursor)
        return page, copy.deepcopy(following)

    def _say_if_again(self, following: Any, cursor: Any) -> None:
        """Cursors that go in a circle come to the one that is kept, whatever its length: it is replaced ever more rarely."""
        if following in (cursor, self._seen):
            self._has_warned = True
            _log.warning(
                "resumable: checkpoint %r: fetch returned %s as the next page's: if it goes on doing so, the loop never ends. "
                "After the last page it is to return None",
                self._checkpoint.name,
                "the cursor that it was called with" if following == cursor else "a cursor that it has returned before",
            )
        self._steps += 1
        if self._steps == self._most_steps:
            self._seen, self._steps, self._most_steps = copy.deepcopy(following), 0, 2 * self._most_steps

    def _begun(self, work: Work) -> Progress:
        if work.committed is not None:
            raise ConfigurationError(
                f"Checkpoint {work.name!r}: committed= is of items, and pages have none. Nothing was done. Leave it "
                "out, or write the cursor of the next page in the transaction of each."
            )
        progress = work.begin(self._fetch)
        progress.begin_pages(self._start)
        return progress


def listed_items(items: Any, name: str) -> Sequence[Any]:
    """
    All items, as they are now: a list that the loop itself changes must not move the ones that are not done yet.

    Raises:
        ConfigurationError: these are no items.
    """
    if isinstance(items, tuple):
        return items
    if isinstance(items, str | bytes):
        raise ConfigurationError(f"Checkpoint {name!r}: its items are one text. Nothing was done. Give a list of items.")
    if isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
        raise ConfigurationError(
            f"Checkpoint {name!r}: its items come from an asynchronous iterator. Nothing was done. Write: async with "
            "Checkpoint(...) as checkpoint, and async for, or await checkpoint.map(...)"
        )
    if not isinstance(items, Iterable):
        raise ConfigurationError(f"Checkpoint {name!r}: {type(items).__name__} is no list of items. Nothing was done. Give one.")
    return list(items)


def say_if_grown(items: Any, listed: Sequence[Any], name: str) -> None:
    """What the work itself has added to the list is nobody's: the loop that Python would go on with has ended."""
    if isinstance(items, list | set | dict | deque) and len(items) > len(listed):
        _log.warning(
            "resumable: checkpoint %r: the list of its items had %s when the loop began and has %s now. Those that were added "
            "are not worked. Write pages, or a checkpoint of their own for them",
            name,
            f"{len(listed):,}",
            f"{len(items):,}",
        )
