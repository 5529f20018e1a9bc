"""
Stop the jobs that a user's stop could not reach, because no process held the task at that moment.

A task is in nobody's hands between two looks of ``wait="reschedule"``, after a hand-back, before its trigger has begun to look,
or when its worker died together with the user's click. The sweep goes through the open records of task instances that have
ended, and cancels what still runs. `resumable.listener` has it started for the tasks and runs that a user ends; to catch what
that misses (the API server died just then), run it now and then where Airflow's database can be reached, next to the scheduler::

    python -m resumable.sweep [--dry-run]

It never touches a job that its task left running on purpose, nor one that it cannot reach for certain.

What `once` made for such a task is cleaned up as well, by functions of the modules that ``[resumable] cleanup_modules`` names.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import Any

from resumable import compat
from resumable.errors import RecordError
from resumable.importing import found_at
from resumable.lifecycle import Certainty, JobState
from resumable.mixin import DurableBase
from resumable.record import KEY, JobRecord, Outcome
from resumable.remote import JobAdapter, Remote
from resumable.stores.table import Row, RunId, TaskId, TaskStateTable

LOOKUPS = 2
"""Tries to look an unanswered submit up: other jobs wait for the sweep, and the next one tries again."""

_OUTCOMES = {JobState.SUCCEEDED: Outcome.SUCCEEDED, JobState.FAILED: Outcome.FAILED, JobState.GONE: Outcome.GONE}


class Verdict(Enum):
    """What the sweep does about one open record."""

    STOP = "the task was ended"
    LEFT = "left running on purpose"
    LOST = "the last try was lost, on_final_failure=leave"
    IN_DOUBT = "its submit was not answered"


def verdict(record: JobRecord, state: str, *, has_tries_left: bool, by_user: bool) -> Verdict:
    """
    What becomes of the job of a task instance that has ended.

    A task that ends by itself closes its record, or notes why it leaves the job. So an open record means that somebody else
    ended the task: a user or ``dagrun_timeout``; or that the process of the last try was lost, which alone ends in ``failed``
    with no try left, and which is the business of ``on_final_failure``.

    Args:
        record: an open one.
        state: of the task instance, an ended one.
        has_tries_left: Airflow would have started another try.
        by_user: a user is known to have ended it.
    """
    if record.outcome is Outcome.CANCELLED and record.handle is not None:
        return Verdict.STOP  # it was told to, and was not seen to
    if record.left:
        return Verdict.LEFT
    if state == "failed" and not (has_tries_left or by_user or record.cancel_if_lost):
        return Verdict.LOST
    return Verdict.IN_DOUBT if record.handle is None else Verdict.STOP


class Sweep:
    """
    One pass over the open records of ended task instances.

    Args:
        table: where the records are.
        log: a logger.
        dry_run: say what would be done, and do nothing.
    """

    def __init__(self, table: TaskStateTable | None = None, *, log: Any = None, dry_run: bool = False) -> None:
        self._table, self._dry_run = table or TaskStateTable(), dry_run
        self._log = log or logging.getLogger("resumable.sweep")

    def run(self, runs: Collection[RunId] | None = None, by_user: Collection[TaskId] = ()) -> Counter[str]:
        """
        Sweep ``runs``, or everything; ``by_user`` are the tasks that a user is known to have ended.

        Returns:
            How many records came to which end: ``stopped``, ``ended`` (the job was no longer running), ``cleaned up``, ``left``,
            ``failed``.
        """
        counts: Counter[str] = Counter()
        for row in list(self._table.ended(runs)):
            try:
                counts[self._settle(row, (row.dag_id, row.run_id, row.task_id, row.map_index) in by_user)] += 1
            except Exception as e:
                counts["failed"] += 1
                say = "resumable: the job of %s (%s) was not settled, the next sweep tries again: %r"
                self._log.warning(say, row, row.state, e)
        return counts

    def _settle(self, row: Row, by_user: bool) -> str:
        if row.key != KEY:
            return self._clean_up(row)
        record = _record(row)
        found = verdict(record, row.state, has_tries_left=row.has_tries_left, by_user=by_user)
        if found is Verdict.IN_DOUBT and (known := self._looked_up(record)) is not None:
            return self._stop(row, known)
        job = record.handle or f"{record.service} job with token {record.token}"
        if found is Verdict.LEFT:
            self._log.debug("resumable: %s of %s (%s): %s", job, row, row.state, record.left)
            return "left"
        if found is not Verdict.STOP:
            say = "resumable: %s of %s (%s) may be running: %s. Look in the service."
            self._log.warning(say, job, row, row.state, found.value)
            return "left"
        return self._stop(row, record)

    def _looked_up(self, record: JobRecord) -> JobRecord | None:
        """The record with the job of its unanswered submit, if the service can be asked for the token and has one."""
        adapter = adapter_of(record.reach)
        if adapter is None or adapter.certainty is not Certainty.FIND:
            return None
        remote = Remote(adapter, log=self._log, clock=time.time, sleep=time.sleep)
        if (moved := remote.elsewhere(record)) is not None:
            raise RuntimeError(f"the connection points elsewhere: {moved}")
        found = remote.find(record, record.intended_at, LOOKUPS)
        return None if found is None else record.with_handle(found, record.intended_at)

    def _stop(self, row: Row, record: JobRecord) -> str:
        assert record.handle is not None
        adapter = adapter_of(record.reach)
        if adapter is None:
            self._log.warning(
                "resumable: %s of %s (%s) may be running, and its operator cannot be had here (%s). Stop it in the service.",
                record.handle,
                row,
                row.state,
                record.reach or "it has no reach_fields",
            )
            return "left"
        remote = Remote(adapter, log=self._log, clock=time.time, sleep=time.sleep)
        seen = remote.elsewhere(record) or adapter.observe(record.handle)
        if outcome := _OUTCOMES.get(seen.state):
            self._write(row, record, outcome)
            return "ended"
        if seen.state not in (JobState.ACTIVE, JobState.FAILING, JobState.REPAIRABLE):
            raise RuntimeError(f"{record.handle} cannot be placed: {seen}")
        if self._dry_run or not self._table.is_unchanged(row):  # a user may have cleared the task in the meantime
            self._log.info("resumable: not stopped %s of %s (%s, state %s)", record.handle, row, row.state, seen)
            return "left"
        try:
            adapter.cancel(record.handle)
        except NotImplementedError as e:
            self._log.warning("resumable: %s of %s (%s) runs on, nothing can stop it: %s", record.handle, row, row.state, e)
            return "left"
        self._log.info("resumable: cancelled %s of %s: the task is %s and nothing watches it", record.handle, row, row.state)
        self._write(row, record, Outcome.CANCELLED)
        return "stopped"

    def _clean_up(self, row: Row) -> str:
        kept = row.data
        made = f"{kept['value']!r:.200}, which once made for {row} (key {row.key!r})"
        cleanup = cleanup_of(kept["cleanup"])
        if cleanup is None:
            self._log.warning(
                "resumable: %s is still there: the task is %s, no process cleaned up, and the sweep may not call %s. Remove it "
                "by hand, or put the clean-up into a module that [resumable] cleanup_modules names",
                made,
                row.state,
                kept["cleanup"],
            )
            return "left"
        if self._dry_run or not self._table.is_unchanged(row):
            self._log.info("resumable: not cleaned up %s (%s)", made, row.state)
            return "left"
        cleanup(kept["value"])
        self._log.info("resumable: cleaned up %s: the task is %s", made, row.state)
        self._table.write(row, {**kept, "state": "cleaned up"})
        return "cleaned up"

    def _write(self, row: Row, record: JobRecord, outcome: Outcome) -> None:
        if not self._dry_run:
            self._table.write(row, record.closed(outcome, time.time()).to_json())


def _record(row: Row) -> JobRecord:
    try:
        return JobRecord.from_json(row.data)
    except ValueError as e:
        raise RecordError(f"the record is no JSON: {e}") from e


def adapter_of(reach: Mapping[str, Any] | None) -> JobAdapter | None:
    """The adapter of the operator that the record names; None if it cannot be imported here."""
    if not reach:
        return None
    found = found_at(str(reach["operator"]))
    return found.at_a_distance(reach) if isinstance(found, type) and issubclass(found, DurableBase) else None


def cleanup_of(path: str) -> Callable[[Any], Any] | None:
    """
    The clean-up that a record of `once` names; None if it cannot be imported here, or is of no module that airflow.cfg names.

    A task can write any name into its state, and this process may do more than a task may: so the deployment says which.
    """
    module = path.partition(":")[0]
    allowed = [one.strip() for one in (compat.setting("cleanup_modules") or "").split(",")]
    if not any(one and (module == one or module.startswith(f"{one}.")) for one in allowed):
        return None
    found = found_at(path)
    return found if callable(found) else None


def main(arguments: list[str] | None = None, standard_input: Iterable[str] = sys.stdin) -> int:
    parser = argparse.ArgumentParser(prog="python -m resumable.sweep", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--only", action="store_true", help="read runs from standard input: JSON {runs: [], by_user: []}")
    given = parser.parse_args(arguments)
    if not compat.has_task_state():
        parser.exit(2, "resumable: this Airflow has no task state store to sweep (3.3 and later do). Nothing was done.\n")
    compat.be_a_server()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("resumable").setLevel(logging.INFO)
    wanted = json.loads("".join(standard_input)) if given.only else {}
    runs = [(dag, run) for dag, run in wanted["runs"]] if given.only else None
    counts = Sweep(dry_run=given.dry_run).run(runs, {(dag, run, task, i) for dag, run, task, i in wanted.get("by_user", [])})
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing to settle")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
