"""Which rows a run reads, and how far the mark has come: pure decisions about intervals, no Airflow, no I/O.

A mark moves in two phases. A run whose work is done *proposes* its interval; the proposal is committed by the next run, once
Airflow says that the task instance which made it succeeded. Every new run begins at the committed mark, so a run that failed
leaves no gap behind: whoever comes next begins where it began.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from resumable.errors import RecordError
from resumable.identity import Generation, TaskIdentity
from resumable.watermark.values import Value, ValueType

T = TypeVar("T")

KEY = "resumable.watermark."
"""What the keys of a mark and of a run's interval begin with; the mark's name follows."""

VERSION = 1
"""Schema version of both records."""

KEPT_RUNS = 20
"""Proposals that the mark's record keeps, the newest ones: what a person sees, and what a cleared run finds its interval in."""

_RESOLUTION = timedelta(microseconds=1)


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
    owner: tuple[str, str] | None = None
    """dag_id and task_id of the task whose mark it is; None if that was never said, or several share it."""
    opened: tuple[str, int] | None = None
    """The run (in a loop with the iteration) and the map_index of the mapped task that has opened it last."""

    def other_owner(self, task: TaskIdentity) -> tuple[str, str] | None:
        """dag_id and task_id of another task than ``task`` that moves the mark, None if there is none."""
        known = [self.owner, *((p.task.dag_id, p.task.task_id) for p in reversed(self.proposals))]
        return next((one for one in known if one is not None and one != (task.dag_id, task.task_id)), None)

    def mapped_beside(self, task: TaskIdentity) -> int | None:
        """The map_index of another mapped task of the same run that moves the mark."""
        return next((p.task.map_index for p in self.proposals if p.task.is_mapped_beside(task)), None)

    def opened_beside(self, task: TaskIdentity) -> int | None:
        """The map_index of another mapped task of the same run that has opened the mark, and may have failed since."""
        if task.map_index < 0 or self.opened is None or self.opened[0] != task.part or self.opened[1] == task.map_index:
            return None
        return self.opened[1]

    def in_run(self, task: TaskIdentity) -> Proposal | None:
        """The newest proposal of any task in the run of ``task``."""
        of_run = (p for p in reversed(self.proposals) if (p.task.dag_id, p.task.run_id) == (task.dag_id, task.run_id))
        return next(of_run, None)

    def without(self, task: TaskIdentity) -> Mark:
        """The same without what ``task`` has proposed and has not earned yet."""
        return replace(self, proposals=tuple(p for p in self.proposals if p.is_settled or not _is_same_run(p.task, task)))

    def fitting(self, kind: ValueType, limit: int) -> Mark:
        """The same with as many of the newest proposals as ``limit`` bytes of JSON take; of others rows may be read again."""
        mark = self
        while mark.proposals and len(json.dumps(mark.to_json(kind))) > limit:
            rest = mark.proposals[:-1]
            drop = next((p for p in rest if p.is_settled), mark.proposals[0])
            mark = replace(mark, proposals=tuple(p for p in mark.proposals if p is not drop))
        return mark

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
        settled = tuple(replace(p, is_settled=p.is_settled or bool(p.until <= value)) for p in self.proposals)
        return replace(self, value=value, proposals=settled)

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
                    **({"iteration": p.task.iteration, "region": p.task.region} if p.task.is_in_loop else {}),
                    **{name: kind.to_json(getattr(p, name)) for name in ("mark", "since", "until")},
                    "settled": p.is_settled,
                }
                for p in self.proposals
            ],
            **({} if self.owner is None else {"belongs_to": {"dag": self.owner[0], "task": self.owner[1]}}),
            **({} if self.opened is None else {"opened": {"run": self.opened[0], "map_index": self.opened[1]}}),
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
                    TaskIdentity(
                        str(p["dag"]),
                        str(p["run"]),
                        str(p["task"]),
                        int(p["map_index"]),
                        iteration=int(p.get("iteration", -1)),
                        region=str(p.get("region", "")),
                    ),
                    **{name: kind.from_json(p[name]) for name in ("mark", "since", "until")},
                    is_settled=bool(p["settled"]),
                )
                for p in data.get("proposed", ())
            )
            owner, opened = data.get("belongs_to"), data.get("opened")
            return cls(
                kind.from_json(data["mark"]),
                proposals,
                None if owner is None else (str(owner["dag"]), str(owner["task"])),
                None if opened is None else (str(opened["run"]), int(opened["map_index"])),
            )

        return _readable(data, kind, "mark", build)


def _is_same_run(one: TaskIdentity, other: TaskIdentity) -> bool:
    return replace(one, namespace="") == replace(other, namespace="")


def _readable(data: Any, kind: ValueType, what: str, build: Callable[[], T]) -> T:
    try:
        names = data["type"]
        found = ValueType(tuple(map(str, names)), is_tuple=True) if isinstance(names, list) else ValueType((str(names),))
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


def of_data_interval(first: datetime, last: datetime, kind: ValueType) -> tuple[Value, Value] | None:
    """
    Airflow's data interval, from ``first`` up to but without ``last``, as later than the one and up to the other of two values.

    Args:
        first: its beginning, in the time zone of the DAG.
        last: its end, in the time zone of the DAG.
        kind: of the mark.

    Returns: None if no values of this kind are the same interval: of dates, if it does not begin and end at midnight.
    """
    if kind == ValueType(("datetime",)):
        return first - _RESOLUTION, last - _RESOLUTION
    if kind == ValueType(("date",)) and all(moment.time() == moment.min.time() for moment in (first, last)):
        return first.date() - timedelta(days=1), last.date() - timedelta(days=1)
    return None
