"""`Checkpoint`, as a task writes it: its arguments, its loops and `map`, and what it says of an item."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from resumable import host
from resumable.checkpoint.block import Block, entered
from resumable.checkpoint.concurrent import Nothing, is_coroutine_function, is_in_a_coroutine
from resumable.checkpoint.done import Key
from resumable.checkpoint.kept import ObjectFolder
from resumable.checkpoint.loops import Done, Items, Pages
from resumable.checkpoint.map import Map
from resumable.checkpoint.setting import VERSION, Setting, code_text, fingerprint
from resumable.current_task import CurrentTask, checked_name
from resumable.errors import ConfigurationError
from resumable.helpers import takes
from resumable.policy import ResumePolicy

T = TypeVar("T")

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
        with host.final_errors():
            self.name = checked_name("Checkpoint", name, "Nothing was done")
            _check_arguments(name, every, seconds, committed)
            self._policy = ResumePolicy.of(resume_policy)
        self._every, self._spec, self._committed, self._context = every, spec, committed, context
        self._seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        self._block: Block | None = None

    # -- what a task asks ---------------------------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """
        48 hex characters that name this work: the same on every try, others once it has started over.

        To make an item's effect and its record one transaction, write the item's key under this token into the target in the
        same transaction, and give ``committed`` a function that reads those keys: no item is then worked twice.
        """
        return self._entered().work.progress.token

    @property
    def done(self) -> Done:
        """
        Items, or pages, that are done, by earlier attempts as well; and called with an item: this one is done.

        ``checkpoint.done(item)`` is for `items` with ``ack="manual"``, from any thread, in any order. It takes back a `fail`.

        Raises:
            AirflowFailException: the item is in no list, or the loop is over pages.
        """
        return Done(self._block.done if self._block else 0, lambda item: self._entered().item_is_done(item))

    @property
    def total(self) -> int | None:
        """Items in all, None while it is not known."""
        progress = self._block.progress if self._block else None
        return progress.total if progress else None

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
        _check_key(self.name, key)
        return Items(self, items, key, is_manual=_is_ack_manual(self.name, ack))

    def batches(
        self,
        items: Iterable[T] | AsyncIterable[T],
        size: int,
        *,
        key: Callable[[T], Any] | None = None,
        ack: str = "auto",
    ) -> Items[Any]:
        """As `items`, in lists of up to ``size``: the whole list is done when the loop asks for the next one."""
        _check_size(self.name, size)
        _check_key(self.name, key)
        return Items(self, items, key, size, is_manual=_is_ack_manual(self.name, ack))

    def pages(self, fetch: Callable[[Any], Any], *, start: Any = None) -> Pages:
        """
        Pages whose number is not known; ``for``, or with a coroutine function ``async for``.

        A page is done when the loop asks for the next one. There is no passing over one that failed.

        Args:
            fetch: called with a cursor; returns the page and the next one's cursor, None after the last.
            start: the first page's cursor. A cursor is a JSON value.

        Raises (when the loop begins): as `items`.
        """
        _check_fetch(self.name, fetch)
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
        with host.airflow_errors():
            _check_map(work, concurrency, tries, on_error)
            _check_key(self.name, key)
            block = self._entered()
            call = Map(block, work, key, concurrency, tries, goes_on=on_error == "collect")
            if block.is_async:
                return call.in_loop(items)
            if is_in_a_coroutine() or is_coroutine_function(work):
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: map with coroutines, or in one, needs async with. Nothing was done. Write: async "
                    "with Checkpoint(...) as checkpoint: await checkpoint.map(...)"
                )
            call.in_threads(items)
        return Nothing()

    def fail(self, item: Any, error: BaseException) -> None:
        """
        Say that this item failed and go on; the block ends with `ItemsFailedError`, and the next try works it again.

        For any item of a loop over `items`, in any order, from any thread: also for one that counted as done. In a loop over
        `batches` it is one of their items, or a whole batch.

        Raises:
            AirflowFailException: in a loop over `pages`, the page is not done; the item is in no list; ``error`` is no exception.
        """
        with host.airflow_errors():
            work = self._entered().work
        work.fail(item, error)

    # -- the block ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoint:
        with host.airflow_errors():
            self._begun().open(self._committed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """
        Write what is done.

        Raises:
            ItemsFailedError: an item failed, or one that was given with ``ack="manual"`` is neither done nor failed.
        """
        self._entered().close(error)

    async def __aenter__(self) -> Checkpoint:
        with host.airflow_errors():
            await self._begun().open_off_loop(self._committed)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self._entered().close_off_loop(error))

    def _begun(self) -> Block:
        task = CurrentTask.find(self._context)
        block = self._block = Block(self._setting(task), task)
        return block

    def _entered(self) -> Block:
        return entered(self._block, self.name)

    def _setting(self, task: CurrentTask) -> Setting:
        settings = ("on_change", "on_clear")
        left_out: dict[str, Any] = {
            name: None for name in settings if getattr(self._policy, name) is None and not host.is_chosen(name)
        }
        return Setting(
            name=self.name,
            generation=task.generation,
            spec=fingerprint({"spec": self._spec, "code": code_text(_work_of(task.operator))}),
            given=fingerprint({"spec": self._spec}),
            policy=replace(task.policy(self._policy), **left_out),
            try_number=task.try_number,
            value=lambda key, what: task.value(key, what, version=VERSION),
            limit=host.value_limit(),
            log=_log,
            every=self._every,
            seconds=self._seconds,
            item=_item_of(task),
            token=task.identity.token(task.generation, int.from_bytes(self.name.encode(), "big")),
            objects=ObjectFolder.configured(task.identity),
        )


_NOT_OF_ONE = "cannot be called with {}. Nothing was done. Give a function of one argument; functools.partial gives it others."


def _check_arguments(name: str, every: Any, seconds: Any, committed: Any) -> None:
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
    if committed is not None and not takes(committed, ""):
        raise ConfigurationError(f"Checkpoint {name!r}: committed= {_NOT_OF_ONE.format('the token')}")


def _check_size(name: str, size: Any) -> None:
    with host.final_errors():
        if not _is_count(size):
            raise ConfigurationError(f"Checkpoint {name!r}: size={size!r} is no size of a batch. Nothing was done.")


def _check_fetch(name: str, fetch: Any) -> None:
    with host.final_errors():
        if not callable(fetch):
            raise ConfigurationError(
                f"Checkpoint {name!r}: fetch={fetch!r:.100} cannot be called. Nothing was done. Give a function that is called "
                "with a cursor and returns a page and the next cursor."
            )
        if not takes(fetch, None):
            raise ConfigurationError(f"Checkpoint {name!r}: fetch {_NOT_OF_ONE.format('a cursor')}")


def _check_key(name: str, key: Any) -> None:
    with host.final_errors():
        if key is not None and not callable(key):
            raise ConfigurationError(
                f"Checkpoint {name!r}: key={key!r:.100} cannot be called. Nothing was done. Give a function that returns what "
                "names an item, as in key=lambda item: item.path."
            )
        if key is not None and not takes(key, None):
            raise ConfigurationError(f"Checkpoint {name!r}: key= {_NOT_OF_ONE.format('an item')}")


def _is_ack_manual(name: str, ack: str) -> bool:
    with host.final_errors():
        if ack not in ("auto", "manual"):
            raise ConfigurationError(
                f"Checkpoint {name!r}: ack={ack!r} is neither 'auto' nor 'manual'. Nothing was done. Leave it out, or "
                "give ack='manual' and call checkpoint.done(item)."
            )
    return ack == "manual"


def _check_map(work: Any, concurrency: Any, tries: Any, on_error: str) -> None:
    if on_error not in ("fail", "collect"):
        raise ConfigurationError(f"map: on_error={on_error!r} is neither 'fail' nor 'collect'. Nothing was done.")
    if not _is_count(concurrency) or not _is_count(tries):
        say = f"map: concurrency={concurrency!r} and tries={tries!r} must be 1 or more. Nothing was done."
        raise ConfigurationError(say)
    if not callable(work):
        raise ConfigurationError(f"map: work={work!r:.100} cannot be called. Nothing was done. Give a function.")
    if not takes(work, None):
        raise ConfigurationError(f"map: work {_NOT_OF_ONE.format('an item')}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_time(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value > timedelta(0)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value > 0 and value <= sys.float_info.max


def _item_of(task: CurrentTask) -> str | None:
    found: dict[str, Any] = {}
    with suppress(Exception):  # whatever Airflow comes: then only this is not known
        found = host.mapped_item(task.context)
    return fingerprint(found) if found else None


def _work_of(operator: Any) -> Any:
    return getattr(operator, "python_callable", None) or type(operator).execute
