"""``cancel``: stop the job of a task."""

from __future__ import annotations

import argparse
import time

from resumable import host
from resumable.cli.jobs import look_at
from resumable.cli.live import Live, all_live, one_of
from resumable.cli.output import DONE, TROUBLE, Refused, confirmed, say
from resumable.jobs.decision import JobState
from resumable.jobs.record import Outcome

LOOK = 5.0
"""Seconds between two looks at the job itself."""

PAUSE = 1.0
"""Seconds between two looks at the record of a task that was marked failed."""

HELD = frozenset({"running", "deferred", "queued", "restarting"})
"""States in which a process or a trigger has the task, or is about to, and stops its job."""

_sleep = time.sleep


def run(given: argparse.Namespace) -> int:
    """
    A job that a task watches is stopped by marking the task failed through Airflow, so that its own stop does it; only what
    nobody watches, or nobody has stopped in time, is cancelled directly.
    """
    one = one_of(given.task, given.run)
    if one.record is None:
        raise Refused(f"The record of {one.task} cannot be read, so its job is not known: {one.problem}")
    if not one.is_open:
        raise Refused(f"{one.job} has ended ({one.state}): there is nothing to cancel.")
    if not confirmed(_question(one), yes=given.yes):
        return TROUBLE
    who = host.beside().user()
    if one.is_watched:
        _mark_failed(one)
        one = _wait(one, given.wait if one.kept.row.state in HELD else 0.0)
        if not one.is_open:
            return _told(one, who)
        if _has_stopped(one):
            return _close(one, who)
        say(f"{one.job} was not seen to be stopped by its task: it is cancelled directly.")
    return _cancel(one, who)


def _question(one: Live) -> str:
    age = f"{one.job} of {one.task}, run {one.run_id} (state {one.state})"
    if one.is_watched:
        return f"{age} is watched: {one.watcher}. The task is marked failed through Airflow, and whatever has it stops the job."
    return f"{age} is watched by {one.watcher}. It is cancelled in {one.service}."


def _mark_failed(one: Live) -> None:
    try:
        host.beside().mark_failed(one.kept.row.task)
    except LookupError as e:
        raise Refused(f"{e}: it cannot be marked failed. Nothing was done. Mark it in the UI.") from e
    say(f"Marked failed: {one.task}, run {one.run_id}.")


def _wait(one: Live, seconds: float) -> Live:
    """The record when it is closed, when the job is seen to have stopped, or when the time is over."""
    until, looks_at = time.monotonic() + seconds, time.monotonic() + LOOK
    while True:
        now = again(one)
        if now is None:
            raise Refused(f"The record of {one.task} is gone meanwhile: what became of {one.job} is not known. Look there.")
        if not now.is_open or time.monotonic() >= until:
            return now
        if time.monotonic() >= looks_at:  # a trigger stops the job and writes nothing
            if _has_stopped(now):
                return now
            looks_at = time.monotonic() + LOOK
        _sleep(PAUSE)


def _has_stopped(one: Live) -> bool:
    """One look: whether the job is seen to have ended without success."""
    seen = look_at(one) if one.record is not None and one.record.handle is not None else None
    return seen is not None and seen.state in (JobState.FAILED, JobState.GONE)


def _close(one: Live, who: str) -> int:
    assert one.record is not None
    closed = one.record.ended(Outcome.CANCELLED, time.time(), f"by {who}, through its task")
    if not host.beside().write(one.kept, closed.to_json()):
        raise Refused(f"{one.job} has stopped; its record has changed meanwhile: look again.")
    say(f"{one.job}: cancelled by its task.")
    return DONE


def again(one: Live) -> Live | None:
    """The same record as it is now; None if it is gone."""
    row = one.kept.row
    found = all_live(f"{row.dag_id}.{row.task_id}", row.run_id, only_open=False)
    return next((now for now in found if now.kept.row.map_index == row.map_index), None)


def _told(one: Live, who: str) -> int:
    """The task has dealt with its job: note who asked for it."""
    assert one.record is not None
    by = one.record.noting("cancelled by", time.time(), who)
    host.beside().write(one.kept, by.to_json())
    say(f"{one.job}: {one.state}.")
    return DONE if one.record.outcome is not None else TROUBLE


def _cancel(one: Live, who: str) -> int:
    from resumable.cleanup.sweep import Sweep

    assert one.record is not None
    try:
        how = Sweep(host.beside().Records([one.kept]), who=who).stop(one.kept.row, one.record)
    except Exception as e:  # a service, or somebody's operator, may raise anything
        raise Refused(f"{one.job} was not cancelled: {e!r}. Stop it in {one.service}.") from e
    words = {
        "stopped": "cancelled",
        "ended": "it had ended by itself",
        "stopping": "told to stop, and not seen to yet: `sweep` looks again",
    }
    if how not in words:
        doubt = "no job of its token is to be seen" if one.record.handle is None else "there is no way to it from here"
        raise Refused(f"{one.job} was not cancelled: {doubt}. Look in {one.service}, and stop it there.")
    say(f"{one.job}: {words[how]}.")
    if (now := again(one)) is not None and now.record is not None and now.record.outcome is Outcome.CANCELLED:
        return DONE
    return DONE if how == "ended" else TROUBLE
