"""`Checkpoint`: work on many items inside one task, and go on after the last kept one when the task is started again."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import FrameType, TracebackType
from typing import Any, TypeVar

from resumable import compat
from resumable.checkpoint.code import code_text
from resumable.checkpoint.concurrent import (
    Caller,
    Nothing,
    Threads,
    ends_all,
    is_coroutine_function,
    is_in_a_coroutine,
    tried,
    tried_in_thread,
)
from resumable.checkpoint.done import Key
from resumable.checkpoint.failures import error_text, label
from resumable.checkpoint.loops import Done, Items, Pages, Watched, listed_items
from resumable.checkpoint.names import Names
from resumable.checkpoint.objects import ObjectFolder
from resumable.checkpoint.progress import VERSION, Progress, Setting, spec_text
from resumable.checkpoint.read_ahead import Watch
from resumable.errors import ConfigurationError, ItemsFailedError, ResumableError
from resumable.interruption import Interrupted, Stop
from resumable.policy import ResumePolicy
from resumable.stopping import StopGuard
from resumable.stores.base import outlives_success
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

    An item is done when the loop asks for the next one; for work that is handed on to a pool or to tasks see `map`, or `items`
    with ``ack="manual"``. What is done is written about every ``seconds``, or sooner if much is, when the block ends, and on
    SIGTERM; writing takes no more than a twentieth of the time, whatever the store. So each item is worked at least once, and
    after a SIGKILL those since the last write, and the one under way, are worked again: let ``load`` replace what it did before,
    or give ``committed``.

    Args:
        name: of the checkpoint; a task may have several.
        every: items after which it is written whatever that takes; by default no number, but 5 % of them (at least 100) as far
            as the store is quick enough.
        seconds: time between two writes (float or timedelta), more than zero; longer where 30 writes take longer.
        spec: anything else that the work depends on (a version, a query, a target), as JSON: if it changes, all is done again, or
            what ``on_change`` of the policy says.
        resume_policy: as of a durable operator: ``on_change``, of ``spec`` or of the code of the task's function, and
            ``on_clear``. ``restart`` does all items again, ``reattach`` goes on, ``fail`` (a change) fails. By default, after a
            clear or a change of the code, an unfinished checkpoint goes on and a finished one starts over.
        committed: called with `token`; returns the keys of the items whose effect is known to be there. See `token`.
        context: the task's context; the running task's by default.

    Raises:
        ConfigurationError: a wrong argument. It is an `AirflowFailException` too: no other try is made.
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
        with compat.final_errors():
            self.name = checked_name("Checkpoint", name, "Nothing was done")
            if every is not None and not _is_count(every):
                raise ConfigurationError(f"Checkpoint {name!r}: every={every!r} is no count. Nothing was done. Give 1 or more")
            if not _is_time(seconds):
                raise ConfigurationError(
                    f"Checkpoint {name!r}: seconds={seconds!r} is no time between two writes. Nothing was done. Give seconds or "
                    "a timedelta, more than zero."
                )
            if committed is not None and not callable(committed):
                raise ConfigurationError(
                    f"Checkpoint {name!r}: committed= is a {type(committed).__name__}. Nothing was done. Give a function that is "
                    "called with the token and returns keys."
                )
            self._policy = ResumePolicy.of(resume_policy)
        self._every, self._spec, self._committed, self._context = every, spec, committed, context
        self._seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._task: CurrentTask | None = None
        self._progress: Progress | None = None
        self._guard: StopGuard | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._names: Names | None = None
        self._begin_block()

    def _begin_block(self) -> None:
        self._key: Callable[[Any], Any] | None = None
        self._is_batched = self._is_manual = self._is_complete = self._has_said_it_failed = False
        self._given: set[int] = set()
        self._first_error: BaseException | None = None
        self._noted = self._maps = 0

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
    def done(self) -> Done:
        """
        Items, or pages, that are done, by earlier attempts as well; and called with an item: this one is done.

        ``checkpoint.done(item)`` is for `items` with ``ack="manual"``, from any thread, in any order. It takes back a `fail`.

        Raises:
            AirflowFailException: the item is in no list, or the loop is over pages.
        """
        return Done(self._progress.done if self._progress else 0, self._acknowledge)

    @property
    def total(self) -> int | None:
        """Items in all, None while it is not known."""
        return self._progress.total if self._progress else None

    def items(
        self, items: Iterable[T] | AsyncIterable[T], *, key: Callable[[T], Any] | None = None, ack: str = "auto"
    ) -> Items[T]:
        """
        The items that are not done yet, in their order; ``for`` or ``async for``.

        Args:
            items: all of them. An iterator, or an asynchronous one, is read to its end first.
            key: what names an item on every try; by default the item itself. A str or an int, or what stands for one: a number
                or a text of numpy or a database, a date, a UUID, a path; or a tuple of these. No two items may have the same.
            ack: ``auto``: an item is done when the loop asks for the next one. Asking ahead of the work, as ``list()`` or a pool
                does, is an error where it can be told. ``manual``: an item is done when `done` is called with it, so that its
                work may be handed on; the block must not end before each is done or failed.

        Raises (when the loop begins):
            AirflowFailException: with the words of a `ConfigurationError` or `RefusedError`: no other try can help.
            RecordError, StateStoreError: another one may.
        """
        return Items(self, items, key, is_manual=self._is_ack_manual(ack))

    def batches(
        self,
        items: Iterable[T] | AsyncIterable[T],
        size: int,
        *,
        key: Callable[[T], Any] | None = None,
        ack: str = "auto",
    ) -> Items[Any]:
        """As `items`, in lists of up to ``size``: the whole list is done when the loop asks for the next one."""
        with compat.final_errors():
            if not _is_count(size):
                raise ConfigurationError(f"Checkpoint {self.name!r}: size={size!r} is no size of a batch. Nothing was done.")
        return Items(self, items, key, size, is_manual=self._is_ack_manual(ack))

    def _is_ack_manual(self, ack: str) -> bool:
        with compat.final_errors():
            if ack not in ("auto", "manual"):
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: ack={ack!r} is neither 'auto' nor 'manual'. Nothing was done. Leave it out, or "
                    "give ack='manual' and call checkpoint.done(item)."
                )
        return ack == "manual"

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

    def map(
        self,
        work: Callable[[T], Any],
        items: Iterable[T] | AsyncIterable[T],
        *,
        key: Callable[[T], Any] | None = None,
        concurrency: int = 10,
        tries: int = 1,
        on_error: str = "fail",
    ) -> Awaitable[None]:
        """
        ``work(item)`` for every item that is not done yet, ``concurrency`` at a time; when it returns, the item is done.

        ::

            with Checkpoint("files") as checkpoint:
                checkpoint.map(load, files, concurrency=20)             # a plain function, in threads

            async with Checkpoint("files") as checkpoint:
                await checkpoint.map(load, files, concurrency=20)       # a coroutine function; a plain one is called in threads

        Args:
            work: a function or a coroutine function.
            items: as of `items`.
            key: as of `items`.
            concurrency: how many at once.
            tries: of one item in this attempt, with growing pauses (1, 2, 4 ... up to 30 s).
            on_error: ``fail``: after an item failed no other one is begun. ``collect``: the others are worked first.

        Returns: something to await in ``async with``; nothing of interest in ``with``, where all is done by then. What ``work``
            returns is not kept.

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
            if not callable(work):
                raise ConfigurationError(f"map: work={work!r:.100} cannot be called. Nothing was done. Give a function.")
            self._entered()
            goes_on = on_error == "collect"
            if self._writer is not None:
                self._maps += 1
                return self._map(work, items, key, concurrency, tries, goes_on=goes_on)
            if is_in_a_coroutine() or is_coroutine_function(work):
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: map with coroutines, or in one, needs async with. Nothing was done. Write: async "
                    "with Checkpoint(...) as checkpoint: await checkpoint.map(...)"
                )
            listed = self._begin_items(listed_items(items, self.name), key, work)
            self._work_in_threads(listed, work, concurrency, tries, goes_on=goes_on)
            if self._guard:
                self._guard.check()
            self._mapped()
        return Nothing()

    async def _map(
        self,
        work: Callable[[T], Any],
        items: Iterable[T] | AsyncIterable[T],
        key: Callable[[T], Any] | None,
        concurrency: int,
        tries: int,
        *,
        goes_on: bool,
    ) -> None:
        with compat.airflow_errors():
            try:
                listed = await self._begin_items_off_loop(items, key, work)
                with Caller(work, concurrency) as called:
                    attempt = called if tries == 1 else partial(tried, called, tries)
                    await self._work_all(listed, attempt, concurrency, goes_on=goes_on)
            finally:
                self._maps -= 1
            if self._guard:
                self._guard.check()
            self._mapped()

    async def _work_all(
        self, listed: Sequence[T], work: Callable[[T], Awaitable[Any]], concurrency: int, *, goes_on: bool
    ) -> None:
        progress = self._in_progress()
        undone = iter(progress.undone())
        has_ended, is_writing = False, False

        async def worker() -> None:
            nonlocal has_ended, is_writing
            for position in undone:
                if has_ended or self._is_stopping or (progress.failed and not goes_on):
                    return
                try:
                    await work(listed[position])
                except Exception as e:
                    if ends_all(e):
                        raise
                    self._note(position, listed[position], e)
                else:
                    if position not in progress.failed:  # by checkpoint.fail()
                        progress.mark(position)
                    if not is_writing and progress.is_due:
                        is_writing = True
                        try:
                            await self._off_loop(progress.write)
                        finally:
                            is_writing = False

        workers = [asyncio.ensure_future(worker()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            has_ended = True  # also for work that lets no cancel through
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def _work_in_threads(
        self, listed: Sequence[T], work: Callable[[T], Any], concurrency: int, tries: int, *, goes_on: bool
    ) -> None:
        progress = self._in_progress()

        def work_at(position: int) -> None:
            tried_in_thread(work, listed[position], tries, threads.ended)
            if position not in progress.failed:  # by checkpoint.fail()
                progress.mark(position)

        threads = Threads(
            work_at,
            iter(progress.undone()),
            min(concurrency, max(1, len(listed))),
            is_over=lambda: self._is_stopping or (bool(progress.failed) and not goes_on),
            failed=lambda position, error: self._note(position, listed[position], error),
        )
        threads.run(lambda: progress.write() if progress.is_due else None)

    def fail(self, item: Any, error: BaseException) -> None:
        """
        Say that this item failed and go on; the block ends with `ItemsFailedError`, and the next try works it again.

        For any item of a loop over `items`, in any order, from any thread: also for one that counted as done. In a loop over
        `batches` it is one of their items, or a whole batch.

        Raises:
            AirflowFailException: in a loop over `pages`, the page is not done; or the item is in no list.
        """
        for position, one in self._found(item, "fail"):
            self._note(position, one, error)

    def _acknowledge(self, item: Any) -> None:
        progress = self._in_progress()
        for position, _ in self._found(item, "done"):
            progress.failed.pop(position, None)
            progress.mark(position)
            self._given.discard(position)
        if not progress.is_due:
            pass
        elif self._writer is None:
            progress.write()
        elif self._writing is None or self._writing.done():
            self._written_off_loop()
            self._writing = self._writer.submit(progress.write)
        if self._guard is not None and self._writer is None and threading.current_thread() is threading.main_thread():
            self._guard.check()

    def _written_off_loop(self) -> None:
        """What the last write that `done` began in a coroutine came to. Raises: SupersededError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _key_of(self, item: Any, what: str) -> Any:
        try:
            return item if self._key is None else self._key(item)
        except Exception as e:
            raise ConfigurationError(
                f"Checkpoint {self.name!r}: {what}() of a {type(item).__name__} for which key= raises {type(e).__name__}. What "
                "is done is kept. Give it the item as the loop gave it."
            ) from e

    def _found(self, item: Any, what: str) -> list[tuple[int, Any]]:
        """The positions of an item, or of the items of a batch, with the items."""
        with compat.airflow_errors():
            progress = self._in_progress()
            if progress.is_of_pages:
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: {what}() in a loop over pages. Only the next page's cursor is kept, so one that "
                    "failed would be lost; it is not done. Let the exception fail the task."
                )
            several = item if self._is_batched and isinstance(item, list) else [item]
            found = []
            for one in several:
                position = progress.position(self._key_of(one, what)) if progress.is_open else None
                if position is None:
                    raise ConfigurationError(
                        f"Checkpoint {self.name!r}: {what}() of a {type(one).__name__} that is no item of its loop. What is done "
                        "is kept. Give it the item as the loop gave it."
                    )
                found.append((position, one))
            return found

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
        """
        Write what is done.

        Raises:
            ItemsFailedError: an item failed, or one that was given with ``ack="manual"`` is neither done nor failed.
        """
        guard, progress, raised, error = self._guard, self._progress, error, decisive(error)
        left = self._what_is_left(error)
        is_stopped = self._is_stopped(error or left)
        try:
            if progress is not None and progress.is_open:
                progress.finish(is_complete=self._is_complete)
        except ResumableError as e:
            self._unkept(e, is_stopped)
        finally:
            self._left()
        self._end(left or self._out_of_a_group(error, raised), guard if is_stopped else None)

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
        self._names = Names.of(task)
        self._names.enter(self)
        self._begin_block()
        self._task = task
        self._guard = StopGuard.join(task, self._told_to_stop, interrupts=True)
        return setting

    def _forget_in_the_end(self) -> None:
        """A store that nobody else cleans up keeps nothing of a task that has succeeded."""
        progress, task = self._progress, self._entered()
        if progress is not None and not outlives_success(task.store):
            task.after_success(progress.forget)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self._exit_off_loop(error))

    async def _exit_off_loop(self, error: BaseException | None) -> None:
        guard, progress, raised, error = self._guard, self._progress, error, decisive(error)
        left = self._what_is_left(error)
        is_stopped = self._is_stopped(error or left)
        try:
            if progress is not None and progress.is_open:
                await self._off_loop(lambda: progress.finish(is_complete=self._is_complete))
        except ResumableError as e:
            self._unkept(e, is_stopped)
        finally:
            self._left()
        self._end(left or self._out_of_a_group(error, raised), guard if is_stopped else None)

    def _what_is_left(self, error: BaseException | None) -> BaseException | None:
        """At the end of a block without an error: the one that it has earned by what it leaves undone."""
        progress = self._progress
        if progress is None or not progress.is_open:
            if self._maps and error is None:
                return ConfigurationError(
                    f"Checkpoint {self.name!r}: map() was not awaited. Nothing was done. Write: await checkpoint.map(...)"
                )
            return None
        if progress.failed or self._given or self._maps:
            self._is_complete = False
        elif self._is_manual and progress.done == progress.total:
            self._is_complete = True
        if error is not None or self._is_complete:
            return None
        if self._maps:
            return ConfigurationError(
                f"Checkpoint {self.name!r}: the block ends while map() is at work. What is done is kept. Write: await "
                "checkpoint.map(...)"
            )
        if progress.failed:
            return None if self._has_said_it_failed else self._items_failed()
        if self._given:
            error = ItemsFailedError(
                f"{len(self._given):,} items of checkpoint {self.name!r} were given out and are neither done nor failed, "
                f"{progress.done:,} are done and stay done. Call checkpoint.done(item), or checkpoint.fail(item, error), for "
                "each before the block ends.",
                next_try="works them again",
            )
            compat.say_if_last(error, self._entered().context)
            return error
        _log.warning(
            "resumable: checkpoint %r was left before its end: %s%s done. If the task succeeds, nobody works the others",
            self.name,
            f"{progress.done:,}",
            "" if progress.total is None else f" of {progress.total:,}",
        )
        return None

    @staticmethod
    def _out_of_a_group(error: BaseException | None, raised: BaseException | None) -> BaseException | None:
        """What Airflow acts upon by its type, and would not see inside of a group."""
        return None if error is raised or isinstance(error, Interrupted) else error

    def _end(self, left: BaseException | None, stopped: StopGuard | None) -> None:
        if stopped is not None:
            stopped.end_of_attempt()
        if left is not None:
            with compat.airflow_errors():
                raise left

    def _unkept(self, error: ResumableError, is_stopped: bool) -> None:
        """A task that a user has stopped may write no more: that is no failure of its own."""
        if not is_stopped:
            raise error
        _log.info("resumable: checkpoint %r: what was done last could not be kept: %s", self.name, error)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _setting(self, task: CurrentTask) -> Setting:
        settings = ("on_change", "on_clear")
        left_out: dict[str, Any] = {
            name: None for name in settings if getattr(self._policy, name) is None and not compat.is_chosen(name)
        }
        return Setting(
            name=self.name,
            generation=task.generation,
            spec=spec_text({"spec": self._spec, "code": code_text(_work_of(task.operator))}),
            given=spec_text({"spec": self._spec}),
            policy=replace(task.policy(self._policy), **left_out),
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

    def _begin_items(self, listed: Sequence[T], key: Callable[[T], Any] | None, work: Any = None) -> Sequence[T]:
        progress = self._begin(work)
        self._key = key
        keys: Any = listed if key is None else list(map(key, listed))
        progress.begin_items(keys, self._committed)
        return listed

    async def _begin_items_off_loop(
        self, items: Iterable[T] | AsyncIterable[T], key: Callable[[T], Any] | None, work: Any = None
    ) -> Sequence[T]:
        if isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
            listed: Sequence[T] = [item async for item in items]
        else:
            listed = await self._off_loop(lambda: listed_items(items, self.name))
        return await self._off_loop(lambda: self._begin_items(listed, key, work))

    def _check_loop(self, is_async: bool) -> None:
        if self._writer is not None and not is_async:
            raise ConfigurationError(
                f"Checkpoint {self.name!r}: a plain for in a coroutine would keep its event loop waiting. Nothing was done. "
                "Write: async for ... in checkpoint.items(...)"
            )

    def _refuse_ahead(self, watch: Watch, item: Any, frame: FrameType) -> None:
        """
        Raises:
            AirflowFailException: whoever asks for the next item asks ahead of the work; the one before does not count as done.
        """
        if frame.f_code is Watched.__next__.__code__ and frame.f_back is not None:
            frame = frame.f_back
        found = watch.asked(item, frame)
        if found is not None:
            with compat.airflow_errors():
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: {found} takes the next item before the last one can have been worked, which "
                    "would count as done and be left out by the next try. What was done before is kept. Write: for item in "
                    "checkpoint.items(...), or checkpoint.map(work, items, concurrency=...), or checkpoint.batches(items, size), "
                    'or items(..., ack="manual") and checkpoint.done(item) when its work is done.'
                )

    @property
    def _is_stopping(self) -> bool:
        return self._guard is not None and self._guard.reason is not None

    def _after_item(self) -> None:
        progress, guard = self._progress, self._guard
        if progress is None or self._task is None:
            with compat.airflow_errors():
                progress = self._in_progress()  # says what is wrong
        if progress.is_due:
            progress.write()
        if guard is not None and guard.reason is not None:
            guard.check()

    async def _after_item_off_loop(self) -> None:
        with compat.airflow_errors():
            progress = self._in_progress()
        if self._writing is not None and self._writing.done():
            self._written_off_loop()
        if progress.is_due and self._writing is None:
            await self._off_loop(progress.write)
        if self._guard is not None:
            self._guard.check()

    def _note(self, position: int, item: Any, error: BaseException) -> None:
        name, progress = label(item if self._key is None else self._key_of(item, "fail")), self._in_progress()
        progress.fail(position, name)
        self._given.discard(position)
        self._first_error = self._first_error or error
        self._first_error_text = error_text(self._first_error, item) if self._first_error is error else self._first_error_text
        self._noted += 1
        if self._noted <= NAMED_FAILURES:
            more = "; of more failed items only the number is told" if self._noted == NAMED_FAILURES else ""
            _log.warning("resumable: checkpoint %r: %s failed: %s%s", self.name, name, error_text(error, item), more)

    _first_error_text = ""

    def _items_failed(self) -> ItemsFailedError:
        progress = self._in_progress()
        self._has_said_it_failed = True
        names = list(progress.failed.values())
        error = ItemsFailedError(
            f"{len(names)} items of checkpoint {self.name!r} failed ({', '.join(names[:5])}), "
            f"{progress.done:,} are done and stay done; the first error was {self._first_error_text}.",
            next_try="works the failed ones and what is left",
        )
        compat.say_if_last(error, self._entered().context)
        if self._first_error_text == repr(self._first_error):  # else a traceback would show what is hidden here
            error.__cause__ = self._first_error
        return error

    def _completed(self) -> None:
        """All were given. What failed is told at the end of the block: until then more of them may be said to have failed."""
        self._is_complete = not self._in_progress().failed

    def _mapped(self) -> None:
        self._completed()
        if not self._is_complete:
            raise self._items_failed()

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


def decisive(error: BaseException | None) -> BaseException | None:
    """
    What becomes of the task is decided by one of the errors that a group (of an ``asyncio.TaskGroup``, say) holds: that the task
    is told to stop, or that no other try is wanted, or that it is to be started again later. Any other group is as it is.
    """
    several, todo = [], [error]
    while todo:
        one = todo.pop()
        inside = getattr(one, "exceptions", None)
        if isinstance(inside, tuple) and all(isinstance(part, BaseException) for part in inside):
            todo.extend(reversed(inside))
        elif one is not None:
            several.append(one)
    for is_one in (lambda one: isinstance(one, Interrupted), compat.is_final, compat.is_hand_back):
        found = next(filter(is_one, several), None)
        if found is not None:
            return found
    return error


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value > timedelta(0)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _work_of(operator: Any) -> Any:
    return getattr(operator, "python_callable", None) or type(operator).execute
