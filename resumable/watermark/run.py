"""The interval of one run: given at its first attempt, the same on every later one, and what it proposes at its end."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.current_task import CurrentTask
from resumable.errors import ConfigurationError
from resumable.identity import Relation
from resumable.stores.base import outlives_success
from resumable.watermark.intervals import KEY, VERSION, Interval, Mark, Proposal, give, of_data_interval, reached, repeat
from resumable.watermark.shared import SharedMark
from resumable.watermark.values import Value, is_missing

if TYPE_CHECKING:
    from resumable.watermark.mark import Watermark

_log = logging.getLogger("resumable")

_END = object()


class ReadInterval:
    """
    What one run reads: values later than ``since``, up to and including ``until``.

    Attributes:
        since: exclusive; the mark less the overlap.
        until: inclusive; None if the interval is open.
        is_repeat: an earlier attempt of this run was given the interval, and may have loaded any part of it.
    """

    def __init__(self, run: Run, given: Interval, *, is_repeat: bool) -> None:
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
            to: without it, or None, NaN or NaT (there were no rows), the end of the interval; without rows an open one stays
                where an earlier call, if any, has said.
                What lies beyond the interval counts as its end, and what lies before the mark does not move it.

        Raises:
            ConfigurationError: it is of another type than the mark, or left out of an open interval; or the block has ended.
        """
        with host.airflow_errors():
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
        if value is not None:  # no rows take nothing back: the last page of many may be empty
            self._to = reached(self._interval, value)
        self._has_advanced = True


class Run:
    """The running task instance: its interval, which it keeps in its task state, and the mark of all runs, which it may move."""

    def __init__(self, watermark: Watermark, task: CurrentTask) -> None:
        self._watermark, self._task = watermark, task
        self.name, self.kind = watermark.name, watermark.kind
        self._identity = replace(task.identity, namespace="")  # as Airflow is asked for its state
        self._shared = SharedMark(watermark, task, self._identity)
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
        known = self._shared.load() or Mark(given.mark)
        self._shared.check_alone(known)
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
                self._shared.propose(Proposal(self._identity, given.mark, given.since, given.mark))
            return
        # First the write that is refused to a process which Airflow has given up.
        self._save_own(replace(given, proposed=to))
        if self._shared.propose(Proposal(self._identity, given.mark, given.since, to)):
            _log.info("resumable: watermark %s: %s is proposed; it counts once this task has succeeded", self.name, to)
        else:
            _log.info("resumable: watermark %s stays: it has come past %s already", self.name, to)

    # -- this run's interval ------------------------------------------------------------------------------------------

    def _begin_new(self) -> ReadInterval:
        generation = self._task.generation
        mark = self._shared.open()
        if (earlier := mark.proposal_of(self._identity)) is not None:  # task state was cleared since
            given = Interval(earlier.mark, earlier.since, earlier.until, earlier.until, generation=generation)
            self._save_own(given)
            return self._again(given)
        if host.allows_runs_at_once(self._task.context):
            _log.warning(
                "resumable: watermark %s: two runs of this task may work at once and then read the same rows. Give the task "
                "max_active_tis_per_dag=1 or the DAG max_active_runs=1.",
                self.name,
            )
        if self._watermark.asset is not None and not host.is_inlet(self._task.context, self._watermark.asset):
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
        backfill = host.backfill_interval(self._task.context)
        if backfill is None:
            return None
        first, last = backfill
        has_one = first is not None and last is not None and first < last
        zone = host.dag_time_zone(self._task.context)
        interval = of_data_interval(first.astimezone(zone), last.astimezone(zone), self.kind) if has_one else None
        if interval is None:
            raise ConfigurationError(
                f"Watermark {self.name}: this is a backfill, and its data interval {backfill} is no interval of {self.kind}. "
                "Nothing was read, the mark stays. Give interval=(since, until), e.g. from the run's params, or use a timetable "
                "with data intervals (CronDataIntervalTimetable)."
            )
        interval = self._watermark.checked_pair(interval, "data interval")
        is_known = given is not None and not given.moves and (given.since, given.until) == interval
        return None if is_known else interval

    def _begin_outside(self, outside: tuple[Value, Value], earlier: Interval | None) -> ReadInterval:
        """A backfill may be a run of earlier, made anew: what that one has read counts no more, for this one reads other rows."""
        given = Interval(outside[0], *outside, moves=False, generation=self._task.generation)
        if self._watermark.interval is None and self._watermark.moves:
            self._shared.take_back()
        self._save_own(given)
        is_repeat = earlier is not None and (earlier.since, earlier.until) == outside
        return self._opened(given, "given from outside; the mark stays", is_repeat=is_repeat)

    def _follow(self) -> ReadInterval:
        """What an earlier task of the same run has read."""
        mark = self._shared.load()
        read = None if mark is None else mark.in_run(self._identity)
        if read is None:
            if self._watermark.asset is None:
                raise ConfigurationError(
                    f"Watermark {self.name}: moves=False finds nothing in this task's own Variable, where a mark without asset= "
                    "is kept. Nothing was read, the mark stays. Give this task, and the one whose interval it is to follow, the "
                    "same asset=; or hand the two ends of the interval on by XCom."
                )
            raise ConfigurationError(
                f"Watermark {self.name}: no task of this run has said yet what it has read. Nothing was read, the mark stays. "
                "Let this task be downstream of the one that moves the mark, which calls advance() in its block, also if there "
                "were no rows. If that one was given interval=, give this one the same."
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
            until = self.kind.minus(_now(), w.lag, least=mark)
        until = None if until is None else self.kind.checked(until, "until")
        return give(mark, start=w.start, until=until, overlap=w.overlap, kind=self.kind)

    def _refreshed(self, given: Interval) -> Interval:
        """The interval with a later end, if this attempt is to look for rows that were not there before."""
        refreshes = self._watermark.refresh
        if refreshes is None:
            refreshes = host.is_sensor(self._task.context)
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


def _now() -> datetime:
    return datetime.now(timezone.utc)
