"""`Watermark`, as a task writes it: its arguments and their checks, and the block that it opens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

from resumable import host
from resumable.current_task import CurrentTask, checked_name
from resumable.errors import ConfigurationError
from resumable.helpers import called, is_pair, takes
from resumable.watermark.run import ReadInterval, Run
from resumable.watermark.values import Value, ValueType, is_missing


class Watermark:
    """
    The interval that this run reads, and the mark that moves to its end once the task has succeeded.

    ::

        with Watermark("orders", asset=ORDERS, start=datetime(2026, 1, 1, tzinfo=timezone.utc), lag=timedelta(minutes=5)) as mark:
            rows = read(after=mark.since, up_to=mark.until)
            load(rows)                  # replaces what an earlier try of this run loaded, e.g. by an upsert
            mark.advance()

    Each run is given its interval at its first attempt, and every later one, a retry as well as a clear, is given the same. The
    end of the block *proposes* the new mark; the next run commits it if Airflow has the task instance in state success. Until
    then, and after any failure, the next run reads from the old mark: rows may be read again, none is skipped.
    In a coroutine write ``async with``.

    A mark belongs to one task. Another one that opens it is an error, because each would skip what the other has read; a task
    that works on what an earlier one of its run has read opens it with ``moves=False``.

    Args:
        name: of the mark; one asset, or one task, may have several.
        start: where the first run begins, exclusive. Its type is the type of all values: an aware datetime, a date, an int, a str
            (compared by code points), or a tuple of these.
        asset: whose state store keeps the mark (Airflow 3.3 and later); the task names it in ``inlets``, and in ``outlets`` if it
            makes its events. Without one the mark is kept in an Airflow Variable. Mapped tasks give each a name of its own:
            ``f"orders-{shop}"``.
        until: the end of the interval, inclusive: a value, or a callable that is asked once in each run; what it gives where
            there is no row (None, NaN, NaT) means that there is nothing to read. Without it and without ``lag`` the interval is
            open, and ``advance`` has to say how far the run has come.
        lag: for a mark of datetimes, ``until`` is now, by the worker's clock, less this timedelta. Give it the time that a row
            may take from its timestamp to its commit: a row that becomes visible later than that is never read.
        overlap: how far before the mark each run begins, for rows that come late: a timedelta or an int. Its rows are read again.
        interval: ``(since, until)`` to read in this run instead. Such a run does not move the mark, nor does a backfill, whose
            interval is its data interval.
        moves: False reads what an earlier task of this run was given and has proposed, and moves nothing.
        shared: True lets several tasks move the mark, each of which reads all there is from one source.
        refresh: whether a later attempt, as long as nothing was advanced, ends where ``until`` or ``lag`` say by then: by default
            in a sensor, whose pokes wait for rows that are not there yet.
        context: the task's context; the running task's by default.

    Raises:
        ConfigurationError: a wrong argument.
    """

    def __init__(
        self,
        name: str,
        *,
        start: Value,
        asset: Any = None,
        until: Value | Callable[[], Value] | None = None,
        lag: timedelta | None = None,
        overlap: timedelta | int | None = None,
        interval: tuple[Value, Value] | None = None,
        moves: bool = True,
        shared: bool = False,
        refresh: bool | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self.asset, self.lag, self.overlap = asset, lag, overlap
        self.moves, self.shared, self.refresh = moves, shared, refresh
        with host.final_errors():
            self.name = checked_name("Watermark", name, "Nothing was read")
            self.kind = ValueType.of(start)
            self.start = self.kind.checked(start, "start")
            self.until = self._checked_until(until)
            self.interval = None if interval is None else self.checked_pair(interval, "interval")
            self._check_steps()
            self._check_flags()
        self._context = context
        self._open: list[ReadInterval] = []

    def _checked_until(self, until: Any) -> Any:
        if callable(until) and not takes(until):
            raise ConfigurationError(
                f"Watermark {self.name}: until= cannot be called without an argument. Nothing was read. Give a function of none, "
                "for example lambda: newest(...)"
            )
        if until is None or callable(until):
            return until
        return (lambda: None) if is_missing(until) else self.kind.checked(until, "until")

    def _check_steps(self) -> None:
        if self.lag is not None and (self.until is not None or self.kind != ValueType(("datetime",))):
            raise ConfigurationError(
                f"Watermark {self.name}: lag= sets until= of a mark of datetimes. Nothing was read. Give one of them, and "
                "lag= only if start= is a datetime."
            )
        steps: dict[str, Any] = {"lag": self.lag, "overlap": self.overlap}
        for which, step in steps.items():
            if step is not None and not (self.kind.accepts_step(step) and step >= type(step)(0)):
                raise ConfigurationError(
                    f"Watermark {self.name}: {which}={step!r} cannot be taken off a {self.kind}. Nothing was read. Give a "
                    "timedelta for datetimes, one of whole days for dates, a whole number for ints, not less than zero."
                )

    def _check_flags(self) -> None:
        flags: dict[str, Any] = {"moves": self.moves, "shared": self.shared}
        if self.refresh is not None:
            flags["refresh"] = self.refresh
        for which, flag in flags.items():
            if not isinstance(flag, bool):
                raise ConfigurationError(
                    f"Watermark {self.name}: {which}={flag!r:.100} is neither True nor False. Nothing was read. Give a bool."
                )

    def checked_pair(self, interval: Any, what: str) -> tuple[Value, Value]:
        """``(since, until)`` as values of the mark. Raises: ConfigurationError."""
        if not is_pair(interval):
            raise ConfigurationError(
                f"Watermark {self.name}: {what}={interval!r:.100} is no pair (since, until). Nothing was read. Give a tuple."
            )
        first, last = interval
        since, until = self.kind.checked(first, what), self.kind.checked(last, what)
        if since > until:
            raise ConfigurationError(f"Watermark {self.name}: {what}={interval!r} ends before it begins. Nothing was read.")
        return since, until

    def __getattr__(self, name: str) -> Any:
        if name in ("since", "advance", "is_repeat"):  # of what the block is given
            with host.airflow_errors():
                raise ConfigurationError(
                    f"Watermark {self.name!r}: {name} is of the interval, which is known inside of its block. Nothing was read. "
                    "Write: with Watermark(...) as mark:"
                )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __enter__(self) -> ReadInterval:
        """
        The interval of this run.

        Raises:
            StateStoreError: a store did not answer; the next try may work.
            RecordError: a record cannot be read. ConfigurationError: the mark is of another type, the asset is not the task's.
        """
        with host.airflow_errors():
            opened = Run(self, CurrentTask.find(self._context)).begin()
        self._open.append(opened)
        return opened

    async def __aenter__(self) -> ReadInterval:
        # In a thread: a request from the loop's own fails while another thread waits for its answer.
        return await asyncio.to_thread(called, self.__enter__)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Propose the new mark, if the block did not fail. Raises as `__enter__`; the next try then repeats the interval."""
        ended = self._open.pop()
        ended._is_open = False
        if kind is None:
            with host.airflow_errors():
                ended._run.end(ended)
