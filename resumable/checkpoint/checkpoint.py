"""`Checkpoint`: work on many items inside one task, and go on after the last kept one when the task is started again."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, TypeVar

from resumable import compat
from resumable.checkpoint.code import code_text
from resumable.checkpoint.done import Key
from resumable.checkpoint.objects import ObjectFolder
from resumable.checkpoint.progress import VERSION, Progress, Setting, spec_text
from resumable.errors import ConfigurationError, ItemsFailedError
from resumable.interruption import Interrupted, Stop
from resumable.policy import ResumePolicy
from resumable.stopping import StopGuard
from resumable.task import CurrentTask

T = TypeVar("T")
R = TypeVar("R")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_log = logging.getLogger("resumable")


class Checkpoint:
    """
    Keeps how far a task has come with many items: a retry, a reschedule or an eviction goes on from there.

    ::

        with Checkpoint("files") as checkpoint:
            for file in checkpoint.items(files, key=lambda f: f.path):
                load(file)

    An item is done when the loop asks for the next one. What is done is written every ``every`` items or ``seconds``, whichever
    comes first, when the block ends, and on SIGTERM. So each item is worked at least once, and after a SIGKILL those since the
    last write, and the one under way, are worked again: let ``load`` replace what it did before, or give ``committed``.

    Args:
        name: of the checkpoint; a task may have several.
        every: items between two writes; by default 5 % of them, at least 100.
        seconds: time between two writes (float or timedelta).
        spec: anything else that the work depends on (a version, a query, a target), as JSON: if it changes, or the code of the
            task's function does, ``on_change`` of the policy decides.
        resume_policy: as of a durable operator. ``on_change``: ``restart`` (default) does all items again, ``reattach`` goes on,
            ``fail`` fails. ``on_clear``: ``restart`` (default) or ``reattach``.
        committed: called with `token`; returns the keys of the items whose effect is known to be there. See `token`.
        context: the task's context; the running task's by default.

    Raises:
        ConfigurationError: a wrong argument.
    """

    def __init__(
        self,
        name: str,
        *,
        every: int | None = None,
        seconds: float | timedelta = 10.0,
        spec: Any = None,
        resume_policy: ResumePolicy | Mapping[str, Any] | None = None,
        committed: Callable[[str], Iterable[Key]] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(f"Checkpoint: name={name!r} is no name. Nothing was done. Give letters, digits, _ . -")
        if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
            raise ConfigurationError(f"Checkpoint {name!r}: every={every!r} is no count. Nothing was done. Give 1 or more")
        self.name = name
        self._every, self._spec, self._committed, self._context = every, spec, committed, context
        self._seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._policy = ResumePolicy.of(resume_policy)
        self._task: CurrentTask | None = None
        self._progress: Progress | None = None
        self._guard: StopGuard | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._failure: BaseException | None = None
        self._errors: dict[Any, BaseException] = {}
        self._is_complete = False

    # -- what a task asks ---------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """
        48 hex characters that name this work: the same on every try, others after a clear.

        To make an item's effect and its record one transaction, write the item's key under this token into the target in the
        same transaction, and give ``committed`` a function that reads those keys: no item is then worked twice.
        """
        task = self._entered()
        return task.identity.token(task.generation, int.from_bytes(self.name.encode(), "big"))

    @property
    def done(self) -> int:
        """Items, or pages, that are done, by earlier attempts as well."""
        return self._progress.done if self._progress else 0

    @property
    def total(self) -> int | None:
        """Items in all, None while it is not known."""
        return self._progress.total if self._progress else None

    def items(self, items: Iterable[T], *, key: Callable[[T], Key] | None = None) -> Items[T]:
        """
        The items that are not done yet, in their order; ``for`` or ``async for``.

        Args:
            items: all of them. An iterator is read to its end first.
            key: what names an item on every try; by default the item itself, a str or an int. No two items may have the same.

        Raises (when the loop begins):
            ConfigurationError, RefusedError, RecordError, StateStoreError.
        """
        return Items(self, items, key)

    def batches(self, items: Iterable[T], size: int, *, key: Callable[[T], Key] | None = None) -> Items[Any]:
        """As `items`, in lists of up to ``size``: the whole list is done when the loop asks for the next one."""
        if not isinstance(size, int) or size < 1:
            raise ConfigurationError(f"Checkpoint {self.name!r}: size={size!r} is no size of a batch. Nothing was done.")
        return Items(self, items, key, size)

    def pages(self, fetch: Callable[[Any], tuple[Any, Any]], *, start: Any = None) -> Iterator[Any]:
        """
        Pages whose number is not known: ``fetch(cursor)`` returns one and the next one's cursor, None after the last.

        A page is done when the loop asks for the next one. Cursors are JSON values.

        Raises:
            RefusedError, RecordError, StateStoreError.
        """
        progress = self._begin(fetch)
        cursor = progress.begin_pages(start)
        while not progress.has_ended:
            page, following = fetch(cursor)
            yield page
            progress.turn(following, is_last=following is None)
            cursor = following
            if progress.has_ended:
                break
            self._after_item()
        self._completed()

    async def map(
        self,
        work: Callable[[T], Awaitable[Any]],
        items: Iterable[T],
        *,
        key: Callable[[T], Key] | None = None,
        concurrency: int = 10,
        tries: int = 1,
        on_error: str = "fail",
    ) -> None:
        """
        ``await work(item)`` for every item that is not done yet, ``concurrency`` at a time; when it returns, the item is done.

        Args:
            work: a coroutine function.
            items: as of `items`.
            key: as of `items`.
            concurrency: how many at once.
            tries: of one item in this attempt, with growing pauses (1, 2, 4 ... up to 30 s).
            on_error: ``fail``: after an item failed no other one is begun. ``collect``: the others are worked first.

        Raises:
            ItemsFailedError: some items failed; they are worked again by the next try.
        """
        if on_error not in ("fail", "collect"):
            raise ConfigurationError(f"map: on_error={on_error!r} is neither 'fail' nor 'collect'. Nothing was done.")
        if concurrency < 1 or tries < 1:
            raise ConfigurationError(f"map: concurrency={concurrency!r} and tries={tries!r} must be 1 or more. Nothing was done.")
        listed = await self._off_loop(lambda: self._begin_items(items, key, work))
        progress = self._in_progress()
        undone = iter(progress.undone())
        writing = asyncio.Lock()

        async def worker() -> None:
            for position in undone:
                if self._is_stopping or (self._errors and on_error == "fail"):
                    return
                try:
                    await _tried(work, listed[position], tries)
                except Exception as e:
                    self._note(listed[position], e)
                else:
                    progress.mark(position)
                    await self._written(writing)

        workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        if self._guard:
            self._guard.check()
        self._completed()

    def fail(self, item: Any, error: BaseException) -> None:
        """In a loop over `items`: this item failed, go on with the others; after the last one `ItemsFailedError` is raised."""
        self._note(item, error)

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoint:
        self._task = CurrentTask.find(self._context)
        self._guard = StopGuard.join(self._task, self._told_to_stop, interrupts=True)
        try:
            self._progress = Progress(self._setting(self._task))
        except BaseException:
            self._left()
            raise
        self._forget_in_the_end(self._task)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        guard, progress = self._guard, self._progress
        is_stopped = self._is_stopped(error)
        try:
            if progress is not None and progress.is_open:
                progress.finish(is_complete=self._is_complete)
        finally:
            self._left()
        if is_stopped and guard is not None:
            guard.end_of_attempt()

    async def __aenter__(self) -> Checkpoint:
        # Not in the loop's thread: a request there fails while another one of the loop waits for its answer.
        self._writer = ThreadPoolExecutor(1, "resumable-checkpoint")
        self._task = CurrentTask.find(self._context)
        self._guard = StopGuard.join(self._task, self._told_to_stop, interrupts=True)
        setting = self._setting(self._task)
        try:
            self._progress = await self._off_loop(lambda: Progress(setting))
        except BaseException:
            self._left()
            raise
        self._forget_in_the_end(self._task)
        return self

    def _forget_in_the_end(self, task: CurrentTask) -> None:
        """A store that nobody else cleans up keeps nothing of a task that has succeeded."""
        progress = self._progress
        if progress is not None and not getattr(task.store, "outlives_success", True):
            task.after_success(progress.forget)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self._exit_off_loop(error))

    async def _exit_off_loop(self, error: BaseException | None) -> None:
        guard, progress = self._guard, self._progress
        is_stopped = self._is_stopped(error)
        try:
            if progress is not None and progress.is_open:
                await self._off_loop(lambda: progress.finish(is_complete=self._is_complete))
        finally:
            self._left()
        if is_stopped and guard is not None:
            guard.end_of_attempt()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _setting(self, task: CurrentTask) -> Setting:
        return Setting(
            name=self.name,
            generation=task.generation,
            spec=spec_text({"spec": self._spec, "code": code_text(_work_of(task.operator))}),
            policy=task.policy(self._policy),
            try_number=task.try_number,
            value=lambda key, what: task.value(key, what, version=VERSION),
            limit=compat.value_limit(),
            log=_log,
            every=self._every,
            seconds=self._seconds,
            objects=ObjectFolder.configured(task.identity),
        )

    def _entered(self) -> CurrentTask:
        if self._task is None:
            raise ConfigurationError(f"Checkpoint {self.name!r} is not open. Write: with Checkpoint(...) as checkpoint:")
        return self._task

    def _in_progress(self) -> Progress:
        self._entered()
        assert self._progress is not None
        return self._progress

    def _begin(self, work: Any = None) -> Progress:
        progress = self._in_progress()
        if progress.is_open:
            raise ConfigurationError(
                f"Checkpoint {self.name!r} is of one loop, and this is its second. What is done is kept. Give the other loop a "
                "checkpoint with a name of its own."
            )
        if work is not None:
            progress.works_by(code_text(work))
        return progress

    def _begin_items(self, items: Iterable[T], key: Callable[[T], Key] | None, work: Any = None) -> Sequence[T]:
        progress = self._begin(work)
        listed = items if isinstance(items, list | tuple) else list(items)
        keys: Any = listed if key is None else list(map(key, listed))
        progress.begin_items(keys, self._committed(self.token) if self._committed else ())
        return listed

    async def _written(self, writing: asyncio.Lock) -> None:
        """Write if it is due; whoever comes meanwhile waits, so that no more than one interval is ever unwritten."""
        progress = self._in_progress()
        if writing.locked() or progress.is_due:
            async with writing:
                if progress.is_due:
                    await self._off_loop(progress.write)

    @property
    def _is_stopping(self) -> bool:
        return self._guard is not None and self._guard.reason is not None

    def _after_item(self) -> None:
        progress = self._in_progress()
        if progress.is_due:
            progress.write()
        if self._guard is not None and self._guard.reason is not None:
            self._guard.check()

    def _note(self, item: Any, error: BaseException) -> None:
        self._errors[len(self._errors)] = error
        self._in_progress().failed.append(str(item)[:100])
        _log.warning("resumable: checkpoint %r: %.100s failed: %r", self.name, item, error)

    def _completed(self) -> None:
        if self._errors:
            progress = self._in_progress()
            first = next(iter(self._errors.values()))
            raise ItemsFailedError(
                f"{len(self._errors)} items of checkpoint {self.name!r} failed ({', '.join(progress.failed[:5])}), "
                f"{progress.done:,} are done and stay done; the first error was {first!r}. The next try works the failed "
                "ones and what is left."
            ) from first
        self._is_complete = True

    def _told_to_stop(self, stop: Stop) -> None:
        progress = self._progress
        if progress is not None and progress.is_open and stop in (Stop.EVICTION, Stop.UNKNOWN):
            progress.write()

    def _is_stopped(self, error: BaseException | None) -> bool:
        """Whether the block ends because the task was told to stop; from here on no signal interrupts it again."""
        guard = self._guard
        if guard is None:
            return False
        guard.spare(self._told_to_stop)
        return guard.reason is not None and isinstance(error, Interrupted | asyncio.CancelledError)

    def _left(self) -> None:
        if self._guard is not None:
            self._guard.leave(self._told_to_stop)
        if self._writer is not None:
            self._writer.shutdown(wait=False)
        self._task = self._guard = self._writer = None

    async def _off_loop(self, call: Callable[[], R]) -> R:
        if self._writer is None:
            self._entered()
            raise ConfigurationError(f"Checkpoint {self.name!r}: in a coroutine write: async with Checkpoint(...) as checkpoint:")
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)


class Items(Generic[T]):
    """What `Checkpoint.items` and `batches` return: to be looped over once."""

    def __init__(
        self, checkpoint: Checkpoint, items: Iterable[Any], key: Callable[[Any], Key] | None, size: int | None = None
    ) -> None:
        self._checkpoint, self._items, self._key, self._size = checkpoint, items, key, size

    def __iter__(self) -> Generator[T, None, None]:
        checkpoint = self._checkpoint
        listed = checkpoint._begin_items(self._items, self._key)
        progress = checkpoint._in_progress()
        failed = progress.failed
        for positions in self._groups(progress):
            before = len(failed)
            yield self._of(listed, positions)
            if len(failed) == before:
                for position in positions:
                    progress.mark(position)
            checkpoint._after_item()
        checkpoint._completed()

    async def __aiter__(self) -> AsyncIterator[T]:
        checkpoint = self._checkpoint
        listed = await checkpoint._off_loop(lambda: checkpoint._begin_items(self._items, self._key))
        progress = checkpoint._in_progress()
        for positions in self._groups(progress):
            before = len(progress.failed)
            yield self._of(listed, positions)
            if len(progress.failed) == before:
                for position in positions:
                    progress.mark(position)
            if progress.is_due:
                await checkpoint._off_loop(progress.write)
            if checkpoint._guard is not None:
                checkpoint._guard.check()
        checkpoint._completed()

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

    def _of(self, listed: Sequence[Any], positions: Sequence[int]) -> Any:
        return listed[positions[0]] if self._size is None else [listed[position] for position in positions]


async def _tried(work: Callable[[Any], Awaitable[Any]], item: Any, tries: int) -> None:
    for number in range(1, tries + 1):
        try:
            await work(item)
            return
        except Exception:
            if number == tries:
                raise
            await asyncio.sleep(min(2.0 ** (number - 1), 30.0))


def _work_of(operator: Any) -> Any:
    return getattr(operator, "python_callable", None) or type(operator).execute
