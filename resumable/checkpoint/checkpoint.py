"""`Checkpoint`: work on many items inside one task, and go on after the last kept one when the task is started again."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, Generic, TypeVar

from resumable import compat
from resumable.checkpoint.code import code_text
from resumable.checkpoint.done import Key
from resumable.checkpoint.objects import ObjectFolder
from resumable.checkpoint.progress import VERSION, Progress, Setting, spec_text
from resumable.errors import ConfigurationError, ItemsFailedError, ResumableError
from resumable.interruption import Interrupted, Stop
from resumable.policy import ResumePolicy
from resumable.stopping import StopGuard
from resumable.task import CurrentTask, checked_name

T = TypeVar("T")
R = TypeVar("R")

NAMED_FAILURES = 20
"""Failed items that the log names one by one."""

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
        seconds: time between two writes (float or timedelta), more than zero.
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
        if every is not None and not _is_count(every):
            raise ConfigurationError(f"Checkpoint {name!r}: every={every!r} is no count. Nothing was done. Give 1 or more")
        if not _is_time(seconds):
            raise ConfigurationError(
                f"Checkpoint {name!r}: seconds={seconds!r} is no time between two writes. Nothing was done. Give seconds or a "
                "timedelta, more than zero."
            )
        self.name = checked_name("Checkpoint", name, "Nothing was done")
        self._every, self._spec, self._committed, self._context = every, spec, committed, context
        self._seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._policy = ResumePolicy.of(resume_policy)
        self._task: CurrentTask | None = None
        self._progress: Progress | None = None
        self._guard: StopGuard | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._names: _Names | None = None
        self._errors = 0
        self._first_error: BaseException | None = None
        self._is_complete = False

    # -- what a task asks ---------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """
        48 hex characters that name this work: the same on every try, others once it has started over.

        To make an item's effect and its record one transaction, write the item's key under this token into the target in the
        same transaction, and give ``committed`` a function that reads those keys: no item is then worked twice.
        """
        return self._in_progress().token

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
            AirflowFailException: with the words of a `ConfigurationError` or `RefusedError`: no other try can help.
            RecordError, StateStoreError: another one may.
        """
        return Items(self, items, key)

    def batches(self, items: Iterable[T], size: int, *, key: Callable[[T], Key] | None = None) -> Items[Any]:
        """As `items`, in lists of up to ``size``: the whole list is done when the loop asks for the next one."""
        if not _is_count(size):
            raise ConfigurationError(f"Checkpoint {self.name!r}: size={size!r} is no size of a batch. Nothing was done.")
        return Items(self, items, key, size)

    def pages(self, fetch: Callable[[Any], Any], *, start: Any = None) -> Pages:
        """
        Pages whose number is not known; ``for``, or with a coroutine function ``async for``.

        A page is done when the loop asks for the next one. There is no passing over one that failed.

        Args:
            fetch: called with a cursor; returns the page and the next one's cursor, None after the last.
            start: the first page's cursor. A cursor is a JSON value.

        Raises (when the loop begins): as `items`.
        """
        return Pages(self, fetch, start)

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
            AirflowFailException: as `items`; and what ``work`` raises to say that no other try is wanted.
        """
        with compat.airflow_errors():
            if on_error not in ("fail", "collect"):
                raise ConfigurationError(f"map: on_error={on_error!r} is neither 'fail' nor 'collect'. Nothing was done.")
            if not _is_count(concurrency) or not _is_count(tries):
                say = f"map: concurrency={concurrency!r} and tries={tries!r} must be 1 or more. Nothing was done."
                raise ConfigurationError(say)
            listed = await self._off_loop(lambda: self._begin_items(items, key, work))
            attempt = partial(_begun, work) if tries == 1 else partial(_tried, work, tries)
            await self._work_all(listed, attempt, concurrency, goes_on=on_error == "collect")
            if self._guard:
                self._guard.check()
            self._completed()

    async def _work_all(
        self, listed: Sequence[T], work: Callable[[T], Awaitable[Any]], concurrency: int, *, goes_on: bool
    ) -> None:
        progress = self._in_progress()
        undone = iter(progress.undone())
        writing = asyncio.Lock()

        async def worker() -> None:
            for position in undone:
                if self._is_stopping or (self._errors and not goes_on):
                    return
                try:
                    await work(listed[position])
                except Exception as e:
                    if _ends_all(e):
                        raise
                    self._note(listed[position], e)
                else:
                    progress.mark(position)
                    if progress.is_due or writing.locked():
                        await self._written(writing)

        workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def fail(self, item: Any, error: BaseException) -> None:
        """
        In a loop over `items`: this item failed, go on with the others; after the last one `ItemsFailedError` is raised.

        In a loop over `batches` the batch is worked again as a whole.

        Raises:
            AirflowFailException: in a loop over `pages`; the page is not done.
        """
        with compat.airflow_errors():
            if self._in_progress().is_of_pages:
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: fail() in a loop over pages. Only the next page's cursor is kept, so one that "
                    "failed would be lost; it is not done. Let the exception fail the task."
                )
        self._note(item, error)

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoint:
        with compat.airflow_errors():
            setting = self._entering()
            try:
                self._progress = Progress(setting)
            except BaseException:
                self._left()
                raise
        self._forget_in_the_end()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        guard, progress = self._guard, self._progress
        is_stopped = self._is_stopped(error)
        try:
            if progress is not None and progress.is_open:
                progress.finish(is_complete=self._is_complete)
        except ResumableError as e:
            self._unkept(e, is_stopped)
        finally:
            self._left()
        if is_stopped and guard is not None:
            guard.end_of_attempt()

    async def __aenter__(self) -> Checkpoint:
        # Not in the loop's thread: a request there fails while another one of the loop waits for its answer.
        with compat.airflow_errors():
            setting = self._entering()
            self._writer = ThreadPoolExecutor(1, "resumable-checkpoint")
            try:
                self._progress = await self._off_loop(lambda: Progress(setting))
            except BaseException:
                self._left()
                raise
        self._forget_in_the_end()
        return self

    def _entering(self) -> Setting:
        task = CurrentTask.find(self._context)
        setting = self._setting(task)
        self._names = _Names.of(task)
        self._names.enter(self)
        self._task, self._is_complete, self._errors, self._first_error = task, False, 0, None
        self._guard = StopGuard.join(task, self._told_to_stop, interrupts=True)
        return setting

    def _forget_in_the_end(self) -> None:
        """A store that nobody else cleans up keeps nothing of a task that has succeeded."""
        progress, task = self._progress, self._entered()
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
        except ResumableError as e:
            self._unkept(e, is_stopped)
        finally:
            self._left()
        if is_stopped and guard is not None:
            guard.end_of_attempt()

    def _unkept(self, error: ResumableError, is_stopped: bool) -> None:
        """A task that a user has stopped may write no more: that is no failure of its own."""
        if not is_stopped:
            raise error
        _log.info("resumable: checkpoint %r: what was done last could not be kept: %s", self.name, error)

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
            token=task.identity.token(task.generation, int.from_bytes(self.name.encode(), "big")),
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
        progress.begin_items(keys, self._committed)
        return listed

    def _check_loop(self, is_async: bool) -> None:
        if self._writer is not None and not is_async:
            raise ConfigurationError(
                f"Checkpoint {self.name!r}: a plain for in a coroutine would keep its event loop waiting. Nothing was done. "
                "Write: async for ... in checkpoint.items(...)"
            )

    async def _written(self, writing: asyncio.Lock) -> None:
        """Write if it is due; whoever comes meanwhile waits, so that no more than one interval is ever unwritten."""
        progress = self._in_progress()
        async with writing:
            if progress.is_due:
                await self._off_loop(progress.write)

    @property
    def _is_stopping(self) -> bool:
        return self._guard is not None and self._guard.reason is not None

    def _after_item(self) -> None:
        progress, guard = self._progress, self._guard
        if progress is None or self._task is None:
            progress = self._in_progress()  # says what is wrong
        if progress.is_due:
            progress.write()
        if guard is not None and guard.reason is not None:
            guard.check()

    async def _after_item_off_loop(self) -> None:
        progress = self._in_progress()
        if progress.is_due:
            await self._off_loop(progress.write)
        if self._guard is not None:
            self._guard.check()

    def _note(self, item: Any, error: BaseException) -> None:
        self._errors += 1
        self._first_error = self._first_error or error
        self._in_progress().failed.append(str(item)[:100])
        if self._errors <= NAMED_FAILURES:
            more = "; of more failed items only the number is told" if self._errors == NAMED_FAILURES else ""
            _log.warning("resumable: checkpoint %r: %.100s failed: %r%s", self.name, item, error, more)

    def _completed(self) -> None:
        if self._errors:
            progress = self._in_progress()
            raise ItemsFailedError(
                f"{self._errors} items of checkpoint {self.name!r} failed ({', '.join(progress.failed[:5])}), "
                f"{progress.done:,} are done and stay done; the first error was {self._first_error!r}. The next try works the "
                "failed ones and what is left."
            ) from self._first_error
        self._is_complete = True

    def _told_to_stop(self, stop: Stop) -> None:
        progress = self._progress
        if progress is not None and progress.is_open and stop in (Stop.EVICTION, Stop.UNKNOWN):
            progress.write()

    def _is_stopped(self, error: BaseException | None) -> bool:
        """
        Whether the block ends because the task was told to stop; from here on no signal interrupts it again.

        An error of the work counts as such while the worker goes away, which may have taken along what the work needs. If it
        is the work's own, it comes again after the hand-back.
        """
        guard = self._guard
        if guard is None:
            return False
        guard.spare(self._told_to_stop)
        if guard.reason is Stop.EVICTION and isinstance(error, Exception):
            return not (compat.is_final(error) or compat.is_hand_back(error))
        return guard.reason is not None and isinstance(error, Interrupted | asyncio.CancelledError)

    def _left(self) -> None:
        if self._names is not None:
            self._names.leave(self)
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
        with compat.airflow_errors():
            checkpoint._check_loop(is_async=False)
            listed = checkpoint._begin_items(self._items, self._key)
        progress = checkpoint._in_progress()
        yield from self._each(listed, progress) if self._size is None else self._lists(listed, progress)
        checkpoint._completed()

    def _each(self, listed: Sequence[Any], progress: Progress) -> Generator[Any, None, None]:
        # The hot path: with trivial items this loop is what a checkpoint costs (tests/bench/checkpoint.py).
        failed, mark, after_item = progress.failed, progress.mark, self._checkpoint._after_item
        before = 0
        for position in progress.undone():
            yield listed[position]
            if len(failed) == before:
                mark(position)
            before = len(failed)
            after_item()

    def _lists(self, listed: Sequence[Any], progress: Progress) -> Generator[Any, None, None]:
        for positions in self._groups(progress):
            before = len(progress.failed)
            yield self._of(listed, positions)
            if len(progress.failed) == before:
                for position in positions:
                    progress.mark(position)
            self._checkpoint._after_item()

    async def __aiter__(self) -> AsyncIterator[T]:
        checkpoint = self._checkpoint
        with compat.airflow_errors():
            listed = await checkpoint._off_loop(lambda: checkpoint._begin_items(self._items, self._key))
        progress = checkpoint._in_progress()
        for positions in self._groups(progress):
            before = len(progress.failed)
            yield self._of(listed, positions)
            if len(progress.failed) == before:
                for position in positions:
                    progress.mark(position)
            await checkpoint._after_item_off_loop()
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


class Pages:
    """What `Checkpoint.pages` returns: to be looped over once."""

    def __init__(self, checkpoint: Checkpoint, fetch: Callable[[Any], Any], start: Any) -> None:
        self._checkpoint, self._fetch, self._start = checkpoint, fetch, start

    def __iter__(self) -> Generator[Any, None, None]:
        checkpoint = self._checkpoint
        with compat.airflow_errors():
            checkpoint._check_loop(is_async=False)
            progress = self._begun()
        while not progress.has_ended:
            page, following = self._fetch(progress.cursor)
            with compat.airflow_errors():
                progress.check_cursor(following)
            yield page
            progress.turn(following)
            checkpoint._after_item()
        checkpoint._completed()

    async def __aiter__(self) -> AsyncIterator[Any]:
        checkpoint = self._checkpoint
        with compat.airflow_errors():
            progress = await checkpoint._off_loop(self._begun)
        while not progress.has_ended:
            page, following = await self._fetch(progress.cursor)
            with compat.airflow_errors():
                progress.check_cursor(following)
            yield page
            progress.turn(following)
            await checkpoint._after_item_off_loop()
        checkpoint._completed()

    def _begun(self) -> Progress:
        progress = self._checkpoint._begin(self._fetch)
        progress.begin_pages(self._start)
        return progress


class _Names:
    """The names of one attempt's checkpoints. The items of one that is complete are done: it cannot be used for other work."""

    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt
        self._open: list[Checkpoint] = []
        self._completed: dict[str, tuple[Any, ...]] = {}

    @classmethod
    def of(cls, task: CurrentTask) -> _Names:
        attempt = (task.identity, task.generation, task.try_number)
        names: _Names | None = vars(task.operator).get("_resumable_names")
        if names is None or names._attempt != attempt:  # dag.test() runs one operator object again and again
            names = vars(task.operator)["_resumable_names"] = cls(attempt)
        return names

    def enter(self, checkpoint: Checkpoint) -> None:
        """Raises: ConfigurationError."""
        name = checkpoint.name
        if any(other.name == name for other in self._open):
            raise ConfigurationError(
                f"Checkpoint {name!r} is open already in this attempt. What is done is kept. Give this one a name of its own."
            )
        if name in self._completed:
            if self._place() and self._place() != self._completed[name]:
                raise ConfigurationError(
                    f"Checkpoint {name!r} was completed inside another item of checkpoint {self._open[-1].name!r}: items of "
                    "this one with the same keys would be left out. What is done is kept. Give it a name of its own for each "
                    'item of the outer one, e.g. f"rows-{item}".'
                )
            _log.warning(
                "resumable: checkpoint %r was completed earlier in this attempt: items with the same keys are not worked again. "
                "If this is other work, give it a name of its own",
                name,
            )
        self._open.append(checkpoint)

    def leave(self, checkpoint: Checkpoint) -> None:
        if checkpoint in self._open:
            self._open.remove(checkpoint)
            if checkpoint._is_complete:
                self._completed[checkpoint.name] = self._place()

    def _place(self) -> tuple[Any, ...]:
        return tuple((other.name, other.done) for other in self._open)


def _begun(work: Callable[[Any], Awaitable[Any]], item: Any) -> Awaitable[Any]:
    awaitable = work(item)
    if type(awaitable) is not CoroutineType and not inspect.isawaitable(awaitable):
        raise ConfigurationError(
            f"map: {work!r} is no coroutine function. It was called for {item!r:.100}, which is not taken for done, and for few "
            "others. Give an async def, or loop over checkpoint.items()."
        )
    return awaitable


async def _tried(work: Callable[[Any], Awaitable[Any]], tries: int, item: Any) -> None:
    for number in range(1, tries + 1):
        try:
            await _begun(work, item)
            return
        except Exception as e:
            if number == tries or _ends_all(e):
                raise
            await asyncio.sleep(min(2.0 ** (number - 1), 30.0))


def _ends_all(error: Exception) -> bool:
    """Whether an item's failure says that it is of no use to work another one."""
    return compat.is_final(error) or isinstance(error, ConfigurationError)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value > timedelta(0)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _work_of(operator: Any) -> Any:
    return getattr(operator, "python_callable", None) or type(operator).execute
