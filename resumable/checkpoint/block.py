"""The ``with`` block of a checkpoint in one attempt: its beginning, its writes, being told to stop, its end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from resumable import host
from resumable.checkpoint.done import Key
from resumable.checkpoint.loops import listed_items
from resumable.checkpoint.names import Names, outer_name, place_here
from resumable.checkpoint.progress import Progress
from resumable.checkpoint.setting import Setting
from resumable.checkpoint.work import Work
from resumable.current_task import CurrentTask
from resumable.errors import ConfigurationError, ResumableError
from resumable.helpers import called
from resumable.stop.sigterm import Interrupted, Stop
from resumable.stop.watch import StopGuard
from resumable.stores.base import outlives_success

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger("resumable")


class Block:
    """
    One block, from its first line to its last. It is plain, or ``async with``: then what asks the store runs beside the loop.

    Args:
        setting: what the attempt brings along.
        task: the running one.

    Raises:
        ConfigurationError: the name is in use.
    """

    def __init__(self, setting: Setting, task: CurrentTask) -> None:
        self.name = setting.name
        self._setting = replace(setting, place=place_here(), outer=outer_name())
        self._task: CurrentTask | None = task
        self._work: Work | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self.place: Hashable = ()
        """The item of another checkpoint that this one was opened in; see `resumable.checkpoint.names`."""
        self._names = Names.of(task)
        self._names.enter(self)
        self._guard: StopGuard | None = StopGuard.join(task, self._told_to_stop, interrupts=True)

    # -- the beginning ------------------------------------------------------------------------------------------------

    def open(self, committed: Callable[[str], Iterable[Key]] | None) -> None:
        """Read what is kept. Raises as `Progress`."""
        try:
            progress = Progress(self._setting)
        except BaseException:
            self._leave()
            raise
        self._opened(progress, committed)

    async def open_off_loop(self, committed: Callable[[str], Iterable[Key]] | None) -> None:
        """As `open`, in a coroutine."""
        # Not in the loop's thread: a request there fails while another one of the loop waits for its answer.
        self._writer = ThreadPoolExecutor(1, "resumable-checkpoint")
        try:
            progress = await self.off_loop(lambda: Progress(self._setting))
        except BaseException:
            self._leave()
            raise
        self._opened(progress, committed)

    def _opened(self, progress: Progress, committed: Callable[[str], Iterable[Key]] | None) -> None:
        assert self._task is not None
        self._work = Work(self.name, progress, self._task.context, committed)
        if not outlives_success(self._task.store):
            # A store that nobody else cleans up keeps nothing of a task that has succeeded.
            self._task.after_success(progress.forget)

    @property
    def is_async(self) -> bool:
        """The block is ``async with``."""
        return self._writer is not None

    @property
    def is_left(self) -> bool:
        """The block has come to its end."""
        return self._task is None

    @property
    def is_beginning(self) -> bool:
        """What is kept is not read yet."""
        return self._work is None

    @property
    def work(self) -> Work:
        """What is worked in the block. Raises: ConfigurationError: it has been left."""
        if self._task is None:
            raise not_open(self.name)
        assert self._work is not None
        return self._work

    @property
    def progress(self) -> Progress | None:
        """Of the work; also when the block has been left, None before it is known."""
        return None if self._work is None else self._work.progress

    @property
    def done(self) -> int:
        """Items or pages that are done, by earlier attempts as well."""
        return 0 if self._work is None else self._work.progress.done

    @property
    def is_complete(self) -> bool:
        """All is done."""
        return self._work is not None and self._work.is_complete

    async def begin_items(
        self, items: Iterable[T] | AsyncIterable[T], key: Callable[[T], Any] | None, work: Any = None
    ) -> Sequence[T]:
        """As `Work.begin_items`, off the event loop."""
        if isinstance(items, AsyncIterable) and not isinstance(items, Iterable):
            listed: Sequence[T] = [item async for item in items]
        else:
            listed = await self.off_loop(lambda: listed_items(items, self.name))
        return await self.off_loop(lambda: self.work.begin_items(listed, key, work))

    # -- between two items --------------------------------------------------------------------------------------------

    def after_item(self) -> None:
        """
        Write if it is due, and stop if the task is told to.

        Raises:
            SupersededError: another attempt has taken over. Interrupted: see `StopGuard`.
        """
        work, guard = self._work, self._guard
        if work is None or self._task is None:
            with host.airflow_errors():
                work = self.work  # says what is wrong
        progress = work.progress
        if progress.is_due:
            progress.write()
        if guard is not None and guard.reason is not None:
            guard.check()

    async def after_item_off_loop(self) -> None:
        """As `after_item`, in a coroutine."""
        with host.airflow_errors():
            progress = self.work.progress
        if self._writing is not None and self._writing.done():
            self._written_off_loop()
        if progress.is_due and self._writing is None:
            await self.off_loop(progress.write)
        self.check_stop()

    def item_is_done(self, item: Any) -> None:
        """The task says so, in any thread; see `Checkpoint.done`."""
        self.work.done(item)
        progress = self.work.progress
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

    async def off_loop(self, call: Callable[[], R]) -> R:
        """What ``call`` returns, in the one thread that asks the store. Raises: ConfigurationError: no ``async with``."""
        if self._writer is None:
            if self._task is None:
                raise not_open(self.name)
            raise ConfigurationError(f"Checkpoint {self.name!r}: in a coroutine write: async with Checkpoint(...) as checkpoint:")
        return await asyncio.get_running_loop().run_in_executor(self._writer, called, call)

    # -- being told to stop -------------------------------------------------------------------------------------------

    @property
    def is_stopping(self) -> bool:
        """The task is told to stop."""
        return self._guard is not None and self._guard.reason is not None

    def check_stop(self) -> None:
        """Raises: Interrupted: the task is told to stop."""
        if self._guard:
            self._guard.check()

    def _told_to_stop(self, stop: Stop) -> None:
        progress = self.progress
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
            return not (host.is_final(error) or host.is_hand_back(error))
        return guard.reason is not None and isinstance(error, Interrupted | asyncio.CancelledError)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self, raised: BaseException | None) -> None:
        """Write what is done, at the end of the block, or when ``raised`` came out of it. Raises as `Checkpoint.__exit__`."""
        end = _End(self, raised)
        try:
            if end.is_begun:
                end.write()
        except ResumableError as e:
            end.unrecorded_params(e)
        finally:
            self._leave()
        end.tell()

    async def close_off_loop(self, raised: BaseException | None) -> None:
        """As `close`, in a coroutine."""
        end = _End(self, raised)
        try:
            if end.is_begun:
                await self.off_loop(end.write)
        except ResumableError as e:
            end.unrecorded_params(e)
        finally:
            self._leave()
        end.tell()

    def _leave(self) -> None:
        self._names.leave(self)
        if self._guard is not None:
            self._guard.leave(self._told_to_stop)
        if self._writer is not None:
            self._writer.shutdown(wait=False)
        self._task = self._guard = self._writer = None


class _End:
    """How a block ends: with what came out of it, with what it leaves undone, or because the task was told to stop."""

    def __init__(self, block: Block, raised: BaseException | None) -> None:
        error = decisive(raised)
        self._name, self._work = block.name, block.work
        try:
            left = self._work.left_undone(error)
        except Exception as e:  # what is done is to be written all the same
            left = e
        self._is_stopped = block._is_stopped(error or left)
        self._guard = block._guard if self._is_stopped else None
        # What Airflow acts upon by its type, and would not see inside of a group.
        out_of_a_group = None if error is raised or isinstance(error, Interrupted) else error
        self._error = left or out_of_a_group
        self.is_begun = self._work.progress.is_open

    def write(self) -> None:
        self._work.progress.finish(is_complete=self._work.is_complete)

    def unrecorded_params(self, error: ResumableError) -> None:
        """A task that a user has stopped may write no more: that is no failure of its own."""
        if not self._is_stopped:
            raise error
        _log.info("resumable: checkpoint %r: what was done last could not be kept: %s", self._name, error)

    def tell(self) -> None:
        if self._guard is not None:
            self._guard.end_of_attempt()
        if self._error is not None:
            with host.airflow_errors():
                raise self._error


def not_open(name: str) -> ConfigurationError:
    """The error of what is asked outside of a block."""
    return ConfigurationError(f"Checkpoint {name!r} is not open. Write: with Checkpoint(...) as checkpoint:")


def entered(block: Block | None, name: str) -> Block:
    """The block, which is open. Raises: AirflowFailException: it is not."""
    if block is None or block.is_left:
        with host.airflow_errors():
            raise not_open(name)
    return block


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
    for is_one in (lambda one: isinstance(one, Interrupted), host.is_final, host.is_hand_back):
        found = next(filter(is_one, several), None)
        if found is not None:
            return found
    return error
