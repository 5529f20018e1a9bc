"""
Stop the jobs that a user's stop could not reach, because no process held the task at that moment.

A task is in nobody's hands between two looks of ``wait="reschedule"``, after a hand-back, before its trigger has begun to look,
or when its worker died together with the user's click. The sweep goes through the open records of task instances that have
ended, stops the jobs of those that a user or ``dagrun_timeout`` is known to have ended, and reports the others.
`resumable.cleanup.listener` has it started for the tasks and runs that a user ends; to see what is left beside that, run it now
and then where Airflow's database can be reached, next to the scheduler::

    python -m resumable.sweep [--dry-run] [--ended-by-user DAG_ID RUN_ID TASK_ID]...

By hand it knows of no user: it finishes what a task had told to stop, looks which jobs have ended meanwhile, and reports the
rest; ``--ended-by-user`` (any number of times, a mapped task as ``TASK_ID[7]``) says which of those it may stop.

It never touches a job that its task left running on purpose, nor one that it cannot reach for certain. It runs with the rights
of whoever starts it, on what tasks have written: so it takes an operator from ``resumable.operators`` and from the modules that
``[resumable] sweep_modules`` names, and from a record the job's ids and the name of a connection.

What `once` made for such a task is cleaned up as well, by functions of the modules that ``[resumable] cleanup_modules`` names.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from resumable import host
from resumable.cleanup.ended import Asked, Ended, Verdict, job_of, judged, shown
from resumable.cleanup.reach import adapter_of, cleanup_of, connection_names, why_out_of_reach
from resumable.cleanup.side_by_side import side_by_side
from resumable.cleanup.table import Row, RunId, TaskStateTable
from resumable.errors import RecordError
from resumable.helpers import check_done
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.record import JobRecord, Outcome
from resumable.jobs.remote import JobAdapter, Remote, is_stopping

LOOKUPS = 2
"""Tries to look an unanswered submit up: other jobs wait for the sweep, and the next one tries again."""

WORKERS = 8
"""Rows that are settled side by side."""

ROW_SECONDS = 120.0
"""What one row may take. A service, or somebody's operator, that does not answer is left to the next sweep."""

MAX_STOP_LOOKS = 4
"""Looks at a job that was told to stop, with a second or two between; whether it has stopped later, the next sweep sees."""

LOOK_PAUSE = 2.0

_OUTCOMES = {
    JobState.SUCCEEDED: Outcome.SUCCEEDED,
    JobState.FAILED: Outcome.FAILED,
    JobState.REPAIRABLE: Outcome.FAILED,  # by the task, which is no more
    JobState.GONE: Outcome.GONE,
}

_UNSETTLED = frozenset({"failed", "stopping"})


_sleep = time.sleep


class Sweep:
    """
    One pass over the open records of ended task instances.

    Args:
        table: where the records are.
        log: a logger.
        dry_run: say what would be done, and do nothing.
        row_seconds: what one row may take.
        who: stops jobs, for their records' history.
    """

    def __init__(
        self,
        table: TaskStateTable | None = None,
        *,
        log: Any = None,
        dry_run: bool = False,
        row_seconds: float = ROW_SECONDS,
        who: str = "the sweep",
    ) -> None:
        self._table, self._dry_run, self._row_seconds = table or TaskStateTable(), dry_run, row_seconds
        self._who = who
        self._log = log or logging.getLogger("resumable.sweep")
        self._adapters = threading.local()
        self.unsettled: set[RunId] = set()
        """Runs with a row that another sweep has to look at."""

    def run(
        self,
        runs: Collection[RunId] | None = None,
        by_user: Collection[Any] = (),
        *,
        ended_runs: Collection[RunId] = (),
        deleted: Collection[Row] = (),
        only: Collection[int] | None = None,
    ) -> Counter[str]:
        """
        Sweep ``runs``, or everything.

        Args:
            runs: the DAG runs.
            by_user: the tasks that a user is known to have ended, see `resumable.cleanup.ended.Ended`.
            ended_runs: the runs that a user or ``dagrun_timeout`` is known to have ended.
            deleted: rows of runs that a user has deleted since.
            only: the ids of the rows that are meant, of those of ``runs``.

        Returns:
            How many records came to which end: ``stopped``, ``stopping`` (told to, not seen to yet), ``ended`` (the job was no
            longer running), ``cleaned up``, ``left``, ``unreadable`` (nothing of ours, or damaged), ``failed``.
        """
        ended = Ended.of(by_user, ended_runs)
        rows = [row for row in self._table.ended(runs) if only is None or row.id in only] + list(deleted)
        counts: Counter[str] = Counter()
        elsewhere = 0
        to_settle = []
        for row in rows:
            try:
                found, record = judged(row, ended)
            except RecordError as e:
                counts["unreadable"] += 1
                self._log.warning("resumable: %s is left alone, its key %s: %s", shown(row), shown(row.key), shown(e))
                continue
            if found is Verdict.ELSEWHERE:
                elsewhere += 1
            elif found is Verdict.LEFT:
                counts["left"] += 1
            elif found is not Verdict.CLOSED:
                to_settle.append((row, record, found))
        if elsewhere:
            counts["left"] += elsewhere
            self._log.warning(
                "resumable: %d records are kept by [workers] state_store_backend, where the sweep cannot read: their jobs are "
                "left to their tasks",
                elsewhere,
            )
        for (row, *_), settled in side_by_side(to_settle, self._settled, workers=WORKERS, seconds=self._row_seconds):
            if (how := settled) is None:
                say = "resumable: the job of %s (%s) was not settled in %.0f s, the next sweep tries again"
                self._log.warning(say, row, row.state, self._row_seconds)
                how = "failed"
            counts[how] += 1
            if how in _UNSETTLED:
                self.unsettled.add(row.run)
        return counts

    def stop(self, row: Row, record: JobRecord) -> str:
        """Stop the job of one row, also one that its task left running on purpose. Returns how it ended, as `run` counts it."""
        with host.connections_of(row.dag_id, connection_names(record.reach)):
            known = record if record.handle is not None else self._looked_up(row, record)
            return "left" if known is None else self._stop(row, replace(known, left=None))

    # -- one row ------------------------------------------------------------------------------------------------------

    def _settled(self, work: tuple[Row, JobRecord | None, Verdict]) -> str:
        """What became of a row; it never fails."""
        row, record, found = work
        try:
            if record is None:
                return self._clean_up(row)
            with host.connections_of(row.dag_id, connection_names(record.reach)):
                return self._settle(row, record, found)
        except BaseException as e:  # somebody's operator may raise anything, SystemExit too
            say = "resumable: the job of %s (%s) was not settled, the next sweep tries again: %s"
            self._log.warning(say, row, row.state, shown(repr(e)))
            return "failed"

    def _settle(self, row: Row, record: JobRecord, found: Verdict) -> str:
        if found is Verdict.IN_DOUBT and (known := self._looked_up(row, record)) is not None:
            return self._stop(row, known)
        if found is Verdict.STOP:
            return self._stop(row, record)
        if found in (Verdict.UNEXPLAINED, Verdict.LOST) and record.handle is not None and self._has_ended(row, record):
            return "ended"
        advice = "Look in the service."
        if found is Verdict.UNEXPLAINED and record.handle is not None:
            advice = "If it is not wanted, stop it in the service, or have it stopped: --ended-by-user."
        say = "resumable: %s of %s (%s) may be running: %s. %s"
        self._log.warning(say, job_of(record), row, row.state, found.value, advice)
        return "left"

    def _has_ended(self, row: Row, record: JobRecord) -> bool:
        """A look at a job that is not to be stopped: one that has ended needs no report. Never fails."""
        try:
            adapter = self._adapter(row, record)
            if adapter is None:
                return False
            seen = self._seen(self._remote(adapter), record)
        except Exception as e:
            self._log.info("resumable: %s cannot be looked at: %s", job_of(record), shown(repr(e)))
            return False
        outcome = _OUTCOMES.get(seen.state)
        if outcome is not None:
            self._write(row, record.ended(outcome, time.time(), "seen by the sweep"))
        return outcome is not None

    def _looked_up(self, row: Row, record: JobRecord) -> JobRecord | None:
        """The record with the job of its unanswered submit, if the service can be asked for the token and has one."""
        adapter = self._adapter(row, record)
        if adapter is None or adapter.recovery is not Recovery.LOOK_UP:
            return None
        remote = self._remote(adapter)
        if (moved := remote.location_mismatch(record)) is not None:
            raise RuntimeError(f"the connection points elsewhere: {moved}")
        found = remote.find(record, min(record.intended_at, time.time()), LOOKUPS)
        return None if found is None else record.submitted(found, record.intended_at, "found by its token")

    def _stop(self, row: Row, record: JobRecord) -> str:
        assert record.handle is not None
        adapter = self._adapter(row, record)
        if adapter is None:
            self._log.warning(
                "resumable: %s of %s (%s) may be running, and the sweep has no way to it (%s). Stop it in the service.",
                job_of(record),
                row,
                row.state,
                why_out_of_reach(record.reach),
            )
            return "left"
        remote = self._remote(adapter)
        seen = self._seen(remote, record)
        if outcome := _OUTCOMES.get(seen.state):
            self._write(row, record.ended(record.outcome or outcome, time.time(), "seen by the sweep"))
            return "ended"
        if seen.state not in (JobState.ACTIVE, JobState.FAILING):
            raise RuntimeError(f"{job_of(record)} cannot be placed: {shown(seen)}")
        if self._dry_run or not self._table.is_unchanged(row):  # a user may have cleared the task in the meantime
            self._log.info("resumable: not stopped %s of %s (%s, state %s)", job_of(record), row, row.state, shown(seen))
            return "left"
        if record.outcome is not Outcome.CANCELLED or not is_stopping(adapter, seen):
            try:
                adapter.cancel(record.handle)
            except NotImplementedError as e:
                say = "resumable: %s of %s (%s) runs on, nothing can stop it: %s"
                self._log.warning(say, job_of(record), row, row.state, shown(e))
                return "left"
        return self._told(row, record, remote)

    def _told(self, row: Row, record: JobRecord, remote: Remote) -> str:
        """After a cancel that the service took: it counts when the job is seen to stop."""
        assert record.handle is not None
        told = record.ended(Outcome.CANCELLED, time.time(), self._by(row))
        seen = Observation(JobState.UNKNOWN)
        for look in range(MAX_STOP_LOOKS):
            if look:
                _sleep(LOOK_PAUSE)
            stops, seen = remote.stopping(record.handle)
            if stops:
                self._log.info("resumable: cancelled %s of %s: the task is %s", job_of(record), row, row.state)
                self._write(row, told)
                return "stopped"
        say = "resumable: %s of %s (%s) was told to stop and is not seen to yet (state %s); the next sweep looks again"
        self._log.warning(say, job_of(record), row, row.state, shown(seen))
        self._write(row, replace(told, closed_at=None))
        return "stopping"

    def _by(self, row: Row) -> str:
        """Who stops the job, and why, for the record's history."""
        return f"by {self._who}: the task is {row.state}"

    def _seen(self, remote: Remote, record: JobRecord) -> Observation:
        """One look; more of them where the service says that there is no such job."""
        assert record.handle is not None
        if (moved := remote.location_mismatch(record)) is not None:
            return moved
        seen = remote.adapter.observe(record.handle)
        return remote.look(record.handle, record.submitted_at or record.intended_at) if seen.state is JobState.GONE else seen

    def _remote(self, adapter: JobAdapter) -> Remote:
        return Remote(adapter, log=self._log, clock=time.time, sleep=_sleep)

    def _adapter(self, row: Row, record: JobRecord) -> JobAdapter | None:
        """One for each connection and thread: most of the cost of a look is the making of a client."""
        kept: dict[str, JobAdapter | None] = vars(self._adapters).setdefault("kept", {})
        name = json.dumps([record.reach, host.team_of(row.dag_id)], sort_keys=True, default=repr)
        if name not in kept:
            kept[name] = adapter_of(record.reach)
        return kept[name]

    def _clean_up(self, row: Row) -> str:
        kept = row.data
        made = f"{shown(repr(kept['value']))}, which once made for {row} (key {row.key!r})"
        cleanup = cleanup_of(kept["cleanup"])
        if cleanup is None:
            self._log.warning(
                "resumable: %s is still there: the task is %s, no process cleaned up, and the sweep may not call %s. Remove it "
                "by hand, or put the clean-up into a module that [resumable] cleanup_modules names",
                made,
                row.state,
                shown(kept["cleanup"]),
            )
            return "left"
        if self._dry_run or not self._table.is_unchanged(row):
            self._log.info("resumable: not cleaned up %s (%s)", made, row.state)
            return "left"
        check_done(cleanup(kept["value"]))
        self._log.info("resumable: cleaned up %s: the task is %s", made, row.state)
        self._table.write(row, {**kept, "state": "cleaned up"})
        return "cleaned up"

    def _write(self, row: Row, record: JobRecord) -> None:
        if not self._dry_run:
            self._table.write(row, record.to_json())


def main(
    arguments: list[str] | None = None, standard_input: Iterable[str] = sys.stdin, say: Callable[[str], None] = print
) -> int:
    """The command; ``say`` has its answer. Returns 0, 1 if a row has to be looked at again, 2 if records cannot be read here."""
    with suppress(ValueError):  # `python -m` puts the working directory first, and there may be anything in it
        if not getattr(sys.flags, "safe_path", False) and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - as sys.path has it
            del sys.path[0]
    parser = argparse.ArgumentParser(prog="python -m resumable.sweep", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--ended-by-user",
        nargs=3,
        action="append",
        default=[],
        metavar=("DAG_ID", "RUN_ID", "TASK_ID"),
        help="a user has ended this task: its job may be stopped; a mapped one as TASK_ID[7]",
    )
    parser.add_argument("--only", action="store_true", help="for the listener: what to sweep comes from standard input, as JSON")
    given = parser.parse_args(arguments)
    if not host.has_task_state():
        parser.exit(2, "resumable: this Airflow has no task state store to sweep (3.3 and later do). Nothing was done.\n")
    host.be_a_server()
    if (where := host.records_are_elsewhere()) is not None:
        parser.exit(2, f"resumable: {where}: the sweep cannot read the records there. Nothing was done.\n")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("resumable").setLevel(logging.INFO)
    sweep = Sweep(dry_run=given.dry_run)
    if given.only:
        asked = Asked.from_json("".join(standard_input))
        counts = sweep.run(asked.runs, asked.by_user, ended_runs=asked.ended_runs, deleted=asked.deleted, only=asked.only)
        print(json.dumps({"counts": counts, "again": sorted(sweep.unsettled)}))
    else:
        counts = sweep.run(by_user=[_task_of(*one) for one in given.ended_by_user])
        say(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing to settle")
    return 1 if counts["failed"] else 0


def _task_of(dag_id: str, run_id: str, task_id: str) -> tuple[str, str, str, int]:
    name, _, index = task_id.removesuffix("]").partition("[")
    return (dag_id, run_id, name, int(index)) if task_id.endswith("]") and index.isdigit() else (dag_id, run_id, task_id, -1)
