"""Which rows a run reads, and how far the mark has come: pure decisions about intervals, no Airflow, no I/O.

A mark moves in two phases. A run whose work is done *proposes* its interval; the proposal is committed by the next run, once
Airflow says that the task instance which made it succeeded. Every new run begins at the committed mark, so a run that failed
leaves no gap behind: whoever comes next begins where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from numbers import Integral
from typing import Any, TypeVar

from resumable.errors import ConfigurationError, RecordError
from resumable.identity import Generation, TaskIdentity

T = TypeVar("T")

VERSION = 1
"""Schema version of both records."""

KEPT_RUNS = 20
"""Proposals that the mark's record keeps, the newest ones: what a person sees, and what a cleared run finds its interval in."""

Value = Any
"""A mark: an aware datetime, a date, an int, a str, or a tuple of these. Values of one mark are of one type, and ordered."""

_NAMES = "an aware datetime, a date, an int, a str, or a tuple of these"


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of a mark's values: their check, their text in a record, what may be subtracted from them."""

    names: tuple[str, ...]
    is_tuple: bool = False

    @classmethod
    def of(cls, value: Value) -> ValueType:
        """
        The type of ``value``.

        Raises:
            ConfigurationError: it can be no mark.
        """
        if isinstance(value, tuple) and value:
            return cls(tuple(_scalar_name(part) for part in value), is_tuple=True)
        return cls((_scalar_name(value),))

    def checked(self, value: Value, what: str) -> Value:
        """
        ``value`` in its plainest form: UTC, whole microseconds (cut off, so that nothing is skipped), no subclass.

        Raises:
            ConfigurationError: it is of another type.
        """
        try:
            same = ValueType.of(value) == self
        except ConfigurationError as e:
            raise ConfigurationError(f"{what}: {e}") from None
        if not same:
            raise ConfigurationError(
                f"{what}={value!r} is a {ValueType.of(value)}, but the mark is a {self}, as start= says. The mark stays. "
                "Give all values of one mark the same type."
            )
        return tuple(_plain(part) for part in value) if self.is_tuple else _plain(value)

    def to_name(self) -> Any:
        return list(self.names) if self.is_tuple else self.names[0]

    def to_json(self, value: Value) -> Any:
        return [_to_text(part) for part in value] if self.is_tuple else _to_text(value)

    def from_json(self, data: Any) -> Value:
        if not self.is_tuple:
            return _READERS[self.names[0]](data)
        return tuple(_READERS[name](part) for name, part in zip(self.names, data, strict=True))

    def minus(self, value: Value, step: Any, *, least: Value) -> Value:
        """``value`` less ``step``, but not less than ``least``."""
        try:
            return max(least, value - step)
        except OverflowError:  # before the year 1
            return least

    def accepts_step(self, step: Any) -> bool:
        """Whether ``step`` can be subtracted: a timedelta from datetimes, whole days from dates, a whole number from ints."""
        if self.is_tuple:
            return False
        if self.names[0] == "date":
            return isinstance(step, timedelta) and step == timedelta(days=step.days)  # Python cuts off the rest
        if self.names[0] == "datetime":
            return isinstance(step, timedelta)
        return self.names[0] == "int" and isinstance(step, Integral) and not isinstance(step, bool)

    def __str__(self) -> str:
        return f"({', '.join(self.names)})" if self.is_tuple else self.names[0]


def _scalar_name(value: Any) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{value!r} has no time zone. The mark stays. Give it one, e.g. tzinfo=timezone.utc.")
        return "datetime"
    if isinstance(value, date):
        return "date"
    if isinstance(value, Integral) and not isinstance(value, bool):
        return "int"
    if isinstance(value, str):
        return "str"
    raise ConfigurationError(f"{value!r} ({type(value).__name__}) can be no mark. The mark stays. Give {_NAMES}.")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        utc = value.astimezone(timezone.utc)
        return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, timezone.utc)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    return int(value) if isinstance(value, Integral) else str(value)


def _to_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:
        if type(data) is not kind:
            raise TypeError(f"{data!r} is no {kind.__name__}")
        return data

    return read


def _read_datetime(data: str) -> datetime:
    value = datetime.fromisoformat(data.replace("Z", "+00:00"))  # Python 3.10 does not read the Z that a person may write
    if value.tzinfo is None:
        raise ValueError(f"{data!r} has no time zone")
    return value.astimezone(timezone.utc)


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "int": _exactly(int),
    "str": _exactly(str),
}


@dataclass(frozen=True, slots=True)
class Interval:
    """
    What one run reads: later than ``since``, up to and including ``until``.

    Kept in the run's own task state from its first attempt on, so that every later one, a retry or a clear, reads the same.

    Args:
        mark: the mark when the interval was given.
        since: the mark less the overlap.
        until: the end; None if it is open, then the run says at its end how far it came.
        proposed: how far the run has come, once its work was done.
        moves: False for a run that was given its interval from outside (a backfill): it never moves the mark.
        generation: of the attempt that it was given to; tells a person, and the log, a clear from a retry.
    """

    mark: Value
    since: Value
    until: Value | None = None
    proposed: Value | None = None
    moves: bool = True
    generation: Generation | None = None

    def to_json(self, kind: ValueType) -> dict[str, Any]:
        data: dict[str, Any] = {"type": kind.to_name()}
        for name in ("mark", "since", "until", "proposed"):
            value = getattr(self, name)
            data[name] = None if value is None else kind.to_json(value)
        generation = None if self.generation is None else self.generation.to_json()
        return {**data, "moves": self.moves, "generation": generation}

    @classmethod
    def from_json(cls, data: Any, kind: ValueType) -> Interval:
        def build() -> Interval:
            read = {
                name: None if data[name] is None else kind.from_json(data[name])
                for name in ("mark", "since", "until", "proposed")
            }
            if read["mark"] is None or read["since"] is None:
                raise ValueError("no mark")
            generation = None if data["generation"] is None else Generation.from_json(data["generation"])
            return cls(moves=bool(data["moves"]), generation=generation, **read)

        return _readable(data, kind, "interval of this run", build)


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    ``task`` has done its work on (``since``, ``until``], given to it when the mark stood at ``mark``.

    ``is_settled`` once the mark has come to ``until``: it is history then, also if someone sets the mark back.
    """

    task: TaskIdentity
    mark: Value
    since: Value
    until: Value
    is_settled: bool = False

    def counts_at(self, mark: Value) -> bool:
        """Whether it would move the mark: not across what nobody has read, and not back."""
        return not self.is_settled and bool(self.mark <= mark < self.until)


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark that runs share, as far as it is known to have come, and the newest proposals."""

    value: Value
    proposals: tuple[Proposal, ...] = ()

    @property
    def open_proposals(self) -> tuple[Proposal, ...]:
        """Those that would move the mark if their run succeeded."""
        return tuple(p for p in self.proposals if p.counts_at(self.value))

    def proposal_of(self, task: TaskIdentity) -> Proposal | None:
        return next((p for p in self.proposals if _is_same_run(p.task, task)), None)

    def committed(self, succeeded: Collection[TaskIdentity]) -> Mark:
        """The mark after the proposals of ``succeeded`` runs."""
        value = self.value
        for p in sorted(self.proposals, key=lambda p: p.until):
            if p.task in succeeded and p.counts_at(value):
                value = p.until
        return Mark(value, tuple(replace(p, is_settled=p.is_settled or bool(p.until <= value)) for p in self.proposals))

    def proposing(self, proposal: Proposal) -> Mark:
        """The same with the run's proposal in the place of its earlier one; of the others, those that are settled go first."""
        others = [p for p in self.proposals if not _is_same_run(p.task, proposal.task)]
        others.sort(key=lambda p: not p.is_settled)
        return replace(self, proposals=tuple([*others, proposal][-KEPT_RUNS:]))

    def to_json(self, kind: ValueType) -> dict[str, Any]:
        return {
            "type": kind.to_name(),
            "mark": kind.to_json(self.value),
            "proposed": [
                {
                    "dag": p.task.dag_id,
                    "run": p.task.run_id,
                    "task": p.task.task_id,
                    "map_index": p.task.map_index,
                    **{name: kind.to_json(getattr(p, name)) for name in ("mark", "since", "until")},
                    "settled": p.is_settled,
                }
                for p in self.proposals
            ],
        }

    @classmethod
    def from_json(cls, data: Any, kind: ValueType) -> Mark:
        """
        Read a mark's record; one that a person wrote needs no ``proposed``.

        Raises:
            RecordError: it is damaged, or its type is another.
        """

        def build() -> Mark:
            proposals = tuple(
                Proposal(
                    TaskIdentity(str(p["dag"]), str(p["run"]), str(p["task"]), int(p["map_index"])),
                    **{name: kind.from_json(p[name]) for name in ("mark", "since", "until")},
                    is_settled=bool(p["settled"]),
                )
                for p in data.get("proposed", ())
            )
            return cls(kind.from_json(data["mark"]), proposals)

        return _readable(data, kind, "mark", build)


def _is_same_run(one: TaskIdentity, other: TaskIdentity) -> bool:
    return replace(one, namespace="") == replace(other, namespace="")


def _readable(data: Any, kind: ValueType, what: str, build: Callable[[], T]) -> T:
    try:
        names = data["type"]
        found = ValueType(tuple(names), is_tuple=True) if isinstance(names, list) else ValueType((str(names),))
        if found == kind:
            return build()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise RecordError(
            f"The record of the {what} cannot be read ({type(e).__name__}: {e}). Nothing was read, the mark stays. "
            f"Mend the record, or delete it to begin at start= again. Record: {data!r}"
        ) from e
    raise RecordError(
        f"The record of the {what} holds a {found}, but start= is a {kind}. Nothing was read, the mark stays. Give "
        f"the new mark another name, or set the record to a value of the new type. Record: {data!r}"
    )


def give(mark: Value, *, start: Value, until: Value | None, overlap: Any, kind: ValueType) -> Interval:
    """
    The interval of a run that has none yet: it begins at the mark, less the overlap, but not before ``start``.

    It never begins later than the mark, whatever ``start`` was changed to, and never ends before it.
    """
    since = mark if overlap is None else min(mark, kind.minus(mark, overlap, least=start))
    return Interval(mark, since, None if until is None else max(until, mark))


def repeat(given: Interval, mark: Value) -> Interval:
    """
    The interval of a later attempt of the same run: the one it was given.

    An open one ends where the run said that its work ended; if it never did and others have gone past, at the mark: what lies
    beyond is theirs or the next run's.
    """
    if given.proposed is not None:
        return replace(given, until=given.proposed)
    if given.until is None and mark > given.mark:
        return replace(given, until=mark)
    return given


def reached(given: Interval, value: Value) -> Value:
    """How far the mark may go for ``value``: not beyond the interval, whatever else was read."""
    return value if given.until is None else min(value, given.until)
