"""`Watermark`: an incremental load that reads each run from where the last successful one came to."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import Any

from resumable import compat
from resumable.errors import ConfigurationError, StateStoreError
from resumable.identity import Relation
from resumable.intervals import (
    VERSION,
    Interval,
    Mark,
    Proposal,
    Value,
    ValueType,
    give,
    is_missing,
    of_data_interval,
    reached,
    repeat,
)
from resumable.stores.base import SupersededError, outlives_success, retried
from resumable.stores.owned import OwnedValue
from resumable.task import CurrentTask, checked_name

KEY = "resumable.watermark."
"""What the keys of a mark and of a run's interval begin with; the mark's name follows."""

LOOKS = 6
"""How often a change of the mark is looked for, and written if it is not there, while other runs write over it."""

HEADER = 300
"""Bytes that a record needs besides what is in it."""

_log = logging.getLogger("resumable")

_END = object()


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
        with compat.final_errors():
            self.name = checked_name("Watermark", name, "Nothing was read")
            self.kind = ValueType.of(start)
            self.start = self.kind.checked(start, "start")
            self.until = self._checked_until(until)
            self.interval = None if interval is None else self._given(interval, "interval")
            self._check_steps()
        self._context = context
        self._open: list[ReadInterval] = []

    def _checked_until(self, until: Any) -> Any:
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

    def _given(self, interval: Any, what: str) -> tuple[Value, Value]:
        try:
            first, last = interval
        except (TypeError, ValueError):
            raise ConfigurationError(f"Watermark {self.name}: {what}={interval!r} is no pair (since, until).") from None
        since, until = self.kind.checked(first, what), self.kind.checked(last, what)
        if since > until:
            raise ConfigurationError(f"Watermark {self.name}: {what}={interval!r} ends before it begins. Nothing was read.")
        return since, until

    def __getattr__(self, name: str) -> Any:
        if name in ("since", "advance", "is_repeat"):  # of what the block is given
            with compat.airflow_errors():
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
        with compat.airflow_errors():
            opened = _Run(self, CurrentTask.find(self._context)).begin()
        self._open.append(opened)
        return opened

    async def __aenter__(self) -> ReadInterval:
        # In a thread: a request from the loop's own fails while another thread waits for its answer.
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, trace))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Propose the new mark, if the block did not fail. Raises as `__enter__`; the next try then repeats the interval."""
        ended = self._open.pop()
        ended._is_open = False
        if kind is None:
            with compat.airflow_errors():
                ended._run.end(ended)


class ReadInterval:
    """
    What one run reads: values later than ``since``, up to and including ``until``.

    Attributes:
        since: exclusive; the mark less the overlap.
        until: inclusive; None if the interval is open.
        is_repeat: an earlier attempt of this run was given the interval, and may have loaded any part of it.
    """

    def __init__(self, run: _Run, given: Interval, *, is_repeat: bool) -> None:
        self._run, self._interval = run, given
        self.since: Any = given.since
        self.until: Any = given.until
        self.is_repeat = is_repeat
        self._to: Value | None = None
        self._has_advanced = False
        self._is_open = True

    def advance(self, to: Value | None = _END) -> None:
        """
        Say that everything up to ``to`` is loaded; the mark moves there once the task has succeeded.

        Args:
            to: without it, or None, NaN or NaT (there were no rows), the end of the interval; without rows an open one stays.
                What lies beyond the interval counts as its end, and what lies before the mark does not move it.

        Raises:
            ConfigurationError: it is of another type than the mark, or left out of an open interval; or the block has ended.
        """
        with compat.airflow_errors():
            if not self._is_open:
                raise ConfigurationError(
                    f"Watermark {self._run.name}: advance() after the end of its with block, which has decided already. "
                    "The mark stays. Call it inside the block."
                )
            if to is _END and self.until is None:
                raise ConfigurationError(
                    f"Watermark {self._run.name}: advance() of an open interval needs the last value that was loaded. The mark "
                    "stays. Give that value, or give the Watermark until= or lag=."
                )
            value = self.until if to is _END or is_missing(to) else self._run.kind.checked(to, "advance(to)")
        self._to = None if value is None else reached(self._interval, value)
        self._has_advanced = True


class _Run:
    """The running task instance and its two records: its interval in task state, the mark where all runs find it."""

    def __init__(self, watermark: Watermark, task: CurrentTask) -> None:
        self._watermark, self._task = watermark, task
        self.name, self.kind = watermark.name, watermark.kind
        self._identity = replace(task.identity, namespace="")  # as Airflow is asked for its state
        self._beside: int | None = None
        self._proposes = False
        self._own = task.value(KEY + self.name, f"the interval of watermark {self.name!r}", version=VERSION)

    def begin(self) -> ReadInterval:
        data = self._own.load()
        given = None if data is None else Interval.from_json(data, self.kind)
        outside = self._from_outside(given)
        if outside is not None:
            return self._begin_outside(outside, given)
        if given is None:
            return self._begin_new() if self._watermark.moves else self._follow()
        if not given.moves:
            return self._again(given)
        known = self._known_mark(given)
        self._check_alone(known)
        return self._again(repeat(self._refreshed(given), known.value))

    def end(self, read: ReadInterval) -> None:
        given, to = read._interval, read._to
        if not outlives_success(self._task.store):
            self._task.after_success(self._own.delete)
        if not given.moves:
            return
        if to is None or to <= given.mark:
            why = "nothing was loaded" if read._has_advanced else "the block ended without advance()"
            _log.info("resumable: watermark %s stays at %s: %s", self.name, given.mark, why)
            if read._has_advanced:  # for those who follow; it moves nothing
                self._propose(Proposal(self._identity, given.mark, given.since, given.mark))
            return
        # First the write that is refused to a process which Airflow has given up.
        self._save_own(replace(given, proposed=to))
        if self._propose(Proposal(self._identity, given.mark, given.since, to)):
            _log.info("resumable: watermark %s: %s is proposed; it counts once this task has succeeded", self.name, to)
        else:
            _log.info("resumable: watermark %s stays: it has come past %s already", self.name, to)

    # -- this run's interval ------------------------------------------------------------------------------------------

    def _begin_new(self) -> ReadInterval:
        generation = self._task.generation
        begun = self._load_or_begin()
        self._check_alone(begun)
        self._beside = begun.opened_beside(self._identity)
        if self._beside is None and self._identity.map_index >= 0 and self._taken(begun) != begun:
            begun = self._update(self._taken, begun)
        mark = self._committed(begun)
        if (earlier := mark.proposal_of(self._identity)) is not None:  # task state was cleared since
            given = Interval(earlier.mark, earlier.since, earlier.until, earlier.until, generation=generation)
            self._save_own(given)
            return self._again(given)
        if compat.allows_runs_at_once(self._task.context):
            _log.warning(
                "resumable: watermark %s: two runs of this task may work at once and then read the same rows. Give the task "
                "max_active_tis_per_dag=1 or the DAG max_active_runs=1.",
                self.name,
            )
        if self._watermark.asset is not None and not compat.is_inlet(self._task.context, self._watermark.asset):
            _log.warning(
                "resumable: watermark %s: name its asset in the task's inlets too. Airflow deletes the mark of an asset that is "
                "only an outlet when the DAG's file is missing or broken for a while.",
                self.name,
            )
        given = replace(self._new(mark.value), generation=generation)
        self._save_own(given)
        return self._opened(given, "begins at the mark", is_repeat=False)

    def _from_outside(self, given: Interval | None) -> tuple[Value, Value] | None:
        """An interval that was not given to this run yet, by ``interval=`` or because it is a backfill."""
        if self._watermark.interval is not None:
            return self._watermark.interval if given is None else None
        backfill = compat.backfill_interval(self._task.context)
        if backfill is None:
            return None
        first, last = backfill
        has_one = first is not None and last is not None and first < last
        zone = compat.dag_time_zone(self._task.context)
        interval = of_data_interval(first.astimezone(zone), last.astimezone(zone), self.kind) if has_one else None
        if interval is None:
            raise ConfigurationError(
                f"Watermark {self.name}: this is a backfill, and its data interval {backfill} is no interval of {self.kind}. "
                "Nothing was read, the mark stays. Give interval=(since, until), e.g. from the run's params, or use a timetable "
                "with data intervals (CronDataIntervalTimetable)."
            )
        interval = self._watermark._given(interval, "data interval")
        is_known = given is not None and not given.moves and (given.since, given.until) == interval
        return None if is_known else interval

    def _begin_outside(self, outside: tuple[Value, Value], earlier: Interval | None) -> ReadInterval:
        """A backfill may be a run of earlier, made anew: what that one has read counts no more, for this one reads other rows."""
        given = Interval(outside[0], *outside, moves=False, generation=self._task.generation)
        if self._watermark.interval is None and self._watermark.moves:
            data = self._shared().load()
            mark = None if data is None else Mark.from_json(data, self.kind)
            if mark is not None and mark.without(self._identity) != mark:
                self._update(lambda now: now.without(self._identity), mark.without(self._identity))
        self._save_own(given)
        is_repeat = earlier is not None and (earlier.since, earlier.until) == outside
        return self._opened(given, "given from outside; the mark stays", is_repeat=is_repeat)

    def _follow(self) -> ReadInterval:
        """What an earlier task of the same run has read."""
        data = self._shared().load()
        read = None if data is None else Mark.from_json(data, self.kind).in_run(self._identity)
        if read is None:
            raise ConfigurationError(
                f"Watermark {self.name}: no task of this run has said yet what it has read. Nothing was read, the mark stays. "
                "Let this task be downstream of the one that moves the mark, which calls advance() in its block, also if there "
                "were no rows."
            )
        given = Interval(read.mark, read.since, read.until, moves=False, generation=self._task.generation)
        self._save_own(given)
        return self._opened(given, f"as {read.task.task_id} of this run; the mark stays", is_repeat=False)

    def _new(self, mark: Value) -> Interval:
        w = self._watermark
        until = w.until() if callable(w.until) else w.until
        if callable(w.until) and is_missing(until):
            until = mark  # there is no row
        if w.lag is not None:
            until = _now() - w.lag
        until = None if until is None else self.kind.checked(until, "until")
        return give(mark, start=w.start, until=until, overlap=w.overlap, kind=self.kind)

    def _refreshed(self, given: Interval) -> Interval:
        """The interval with a later end, if this attempt is to look for rows that were not there before."""
        refreshes = self._watermark.refresh
        if refreshes is None:
            refreshes = compat.is_sensor(self._task.context)
        if not refreshes or given.proposed is not None or given.until is None:
            return given
        now = self._new(given.mark).until
        if now is None or now <= given.until:
            return given
        renewed = replace(given, until=now)
        self._save_own(renewed)
        return renewed

    def _again(self, given: Interval) -> ReadInterval:
        earlier = given.generation
        is_cleared = earlier is not None and self._task.generation.relation_to(earlier) is Relation.CLEARED
        why = "again, the task was cleared" if is_cleared else "again, an earlier attempt of this run was given it"
        return self._opened(given, why, is_repeat=True)

    def _opened(self, given: Interval, why: str, *, is_repeat: bool) -> ReadInterval:
        until = "the last row" if given.until is None else given.until
        _log.info("resumable: watermark %s: later than %s up to %s: %s", self.name, given.since, until, why)
        return ReadInterval(self, given, is_repeat=is_repeat)

    def _save_own(self, given: Interval) -> None:
        self._own.save(given.to_json(self.kind))

    # -- the mark of all runs -----------------------------------------------------------------------------------------

    def _shared(self) -> OwnedValue:
        context, asset = self._task.context, self._watermark.asset
        store = compat.task_variable_store(context) if asset is None else compat.asset_state_store(context, asset)
        write = uuid.uuid4().hex[:12]  # a new one for each write: what one run wrote twice are two values
        return OwnedValue(store, KEY + self.name, f"watermark {self.name!r}", owner=write, version=VERSION)

    def _load_or_begin(self) -> Mark:
        data = self._shared().load()
        if data is not None:
            return Mark.from_json(data, self.kind)
        start = self._watermark.start
        _log.warning("resumable: watermark %s: there is no mark yet; it begins at %s", self.name, start)
        # that there is none may be believed after a write only
        return self._update(lambda mark: mark, Mark(start, owner=self._owner))

    @property
    def _names(self) -> tuple[str, str]:
        return self._identity.dag_id, self._identity.task_id

    @property
    def _owner(self) -> tuple[str, str] | None:
        return None if self._watermark.shared else self._names

    def _taken(self, mark: Mark) -> Mark:
        """The mark as this task's: of mapped ones the first that opens it in a run. Raises: ConfigurationError."""
        self._check_alone(mark)
        if self._watermark.shared:
            return replace(mark, owner=None, opened=None)
        if self._identity.map_index >= 0 and mark.opened_beside(self._identity) is None:
            mark = replace(mark, opened=(self._identity.part, self._identity.map_index))
        return replace(mark, owner=self._owner)

    def _known_mark(self, given: Interval) -> Mark:
        data = self._shared().load()
        return Mark(given.mark) if data is None else Mark.from_json(data, self.kind)

    def _committed(self, mark: Mark) -> Mark:
        """The mark with what earlier runs have earned since, kept at once: one of them may be cleared before this one ends."""
        waiting = [p.task for p in mark.open_proposals]
        if not waiting:
            return mark
        done = retried(
            lambda: compat.succeeded(self._task.context, waiting),
            "The states of the runs that worked before this one could not be learned",
            "Nothing was read, the mark stays.",
        )
        committed = mark.committed(done)
        if committed.value == mark.value:
            return mark
        _log.info("resumable: watermark %s moved from %s to %s", self.name, mark.value, committed.value)
        return self._update(lambda now: now.committed(done), committed)

    def _propose(self, proposal: Proposal) -> bool:
        self._proposes = True

        def add(mark: Mark) -> Mark:
            mark = self._taken(mark)
            is_there = mark.proposal_of(proposal.task) == proposal
            is_past = mark.value >= proposal.until and proposal.mark < proposal.until
            return mark if is_there or is_past else mark.proposing(proposal)

        mark = self._update(add, Mark(proposal.mark, owner=self._owner))
        return bool(mark.value < proposal.until)

    def _check_alone(self, mark: Mark) -> None:
        """Refuse a mark that another task moves too: what one of them reads, or fails to read, would be skipped by the other."""
        if self._watermark.shared:
            return
        index = mark.mapped_beside(self._identity)
        if index is None and self._proposes:
            index = self._beside
        if index is not None:
            raise ConfigurationError(
                f"Watermark {self.name}: the mapped tasks {index} and {self._identity.map_index} of this run share the "
                "mark, and what one of them fails to read would be skipped when another succeeds. The mark is not moved by this "
                'one. Give each a name of its own, e.g. Watermark(f"orders-{shop}", ...).'
            )
        other = mark.other_owner(self._identity)
        if other is not None:
            raise ConfigurationError(
                f"Watermark {self.name}: the mark is of task {'.'.join(other)}, and {'.'.join(self._names)} opens it too: each "
                "would skip what the other has read. Nothing was read, the mark stays. Give this one a name of its own; or "
                "moves=False, to work on what the other has read in this run; or both shared=True, if they read the same rows. "
                "If the task was renamed, take its old name out of the mark's record."
            )

    def _update(self, change: Callable[[Mark], Mark], if_none: Mark) -> Mark:
        """
        Read, change, write, until the change is seen to be kept.

        There is no compare-and-set. What another run writes between this one's last look and its write is lost, unless that run
        looks once more after this write, as every run does. What gets lost all the same is a proposal or a step of the mark: the
        next run then reads rows again; it never skips any.

        Raises:
            StateStoreError: other runs wrote over it every time.
        """
        for _ in range(LOOKS):
            shared = self._shared()
            data = shared.load()
            mark = if_none if data is None else Mark.from_json(data, self.kind)
            changed = change(mark).fitting(self.kind, compat.value_limit() - HEADER)
            if changed == mark and data is not None:
                return mark
            with suppress(SupersededError):  # another run wrote in between
                shared.save(changed.to_json(self.kind))
        raise StateStoreError(
            f"Watermark {self.name}: other runs wrote over the mark {LOOKS} times while this one wrote it. Give "
            "the task max_active_tis_per_dag=1.",
            next_try="is given the same interval",
        )


def _now() -> datetime:
    return datetime.now(timezone.utc)
