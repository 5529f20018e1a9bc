"""``cancel``: stop the job of a task."""

from __future__ import annotations

import argparse
import time

from resumable import host
from resumable.cli.jobs import look_at
from resumable.cli.live import Live, again, one_of
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
    _require_open(one)
    if not confirmed(_question(one), yes=given.yes):
        return TROUBLE
    one = _as_it_is_now(one)
    who = host.beside().user()
    if one.is_watched:
        is_marked = _mark_failed(one)
        one = _wait(one, given.wait if _is_held(one) else 0.0)
        if not one.is_open:
            return _told(one, who)
        if is_marked and _has_stopped(one):
            return _close(one, who)
        say(f"{one.job} was not seen to be stopped by its task: it is cancelled directly.")
    return _cancel(one, who)


def _require_open(one: Live) -> None:
    """
    Raises:
        Refused: there is no job to cancel, or it is not known.
    """
    if one.record is None:
        raise Refused(
            f"The job of {one.task} is not known: {one.problem}. Nothing was done. Look for the job in its service, and stop it "
            "there."
        )
    if not one.is_open:
        raise Refused(f"{one.job} has ended ({one.state}): there is nothing to cancel.")


def _as_it_is_now(one: Live) -> Live:
    """
    The record after somebody has thought about the question, which may take any time.

    Raises:
        Refused: the job has ended meanwhile, or is another one.
    """
    now = again(one)
    if now is None:
        raise Refused(
            f"The record of {one.task} is gone meanwhile. Nothing was done. Look in {one.service} what became of {one.job}."
        )
    _require_open(now)
    if now.job != one.job and not one.is_in_doubt:
        raise Refused(f"{one.task} has another job meanwhile: {now.job}. Nothing was done; look again.")
    return now


def _is_held(one: Live) -> bool:
    """Whether there is a process or a trigger that stops the job when its task is marked failed."""
    state = one.kept.row.state
    if state == "deferred" and not host.beside().is_alive("Triggerer"):
        say("No triggerer is alive, so none stops the job.")
        return False
    return state in HELD


def _question(one: Live) -> str:
    age = f"{one.job} of {one.task}, run {one.run_id} (state {one.state})"
    if one.is_watched:
        return f"{age} is watched: {one.watcher}. The task is marked failed through Airflow, and whatever has it stops the job."
    return f"{age} is watched by {one.watcher}. It is cancelled in {one.service}."


def _mark_failed(one: Live) -> bool:
    try:
        is_marked = bool(host.beside().mark_failed(one.kept.row.task, one.kept.row.ti_id))
    except LookupError as e:
        raise Refused(
            f"{e}: it cannot be marked failed, and whatever has it would go on. Nothing was done. Stop {one.job} in "
            f"{one.service}; without its DAG, the task is not tried again."
        ) from e
    say(f"Marked failed: {one.task}, run {one.run_id}." if is_marked else f"{one.task}, run {one.run_id}, has ended meanwhile.")
    return is_marked


def _wait(one: Live, seconds: float) -> Live:
    """The record when it is closed, when the job is seen to have stopped, or when the time is over."""
    until, looks_at = time.monotonic() + seconds, time.monotonic() + LOOK
    while True:
        now = again(one)
        if now is None:
            seen = look_at(one)
            raise Refused(f"The record of {one.task} is gone meanwhile. {one.job}: {seen or one.seen}. Look in {one.service}.")
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


def _told(one: Live, who: str) -> int:
    """The task has dealt with its job: note who asked for it, if it was for that."""
    assert one.record is not None
    if one.record.outcome is Outcome.CANCELLED:
        by = one.record.noting("cancelled by", time.time(), who)
        host.beside().write(one.kept, by.to_json())
    say(f"{one.job}: {one.state}.")
    return DONE


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
    now = again(one)
    if how not in words:
        return _not_cancelled(one, now)
    say(f"{one.job}: {words[how]}.")
    return DONE if how == "ended" or (now is not None and not now.is_open) else TROUBLE


def _not_cancelled(one: Live, now: Live | None) -> int:
    """
    Raises:
        Refused: the job may run on.
    """
    if now is not None and now.record is not None and now.record.outcome is Outcome.CANCELLED and not now.is_open:
        last = now.record.history[-1] if now.record.history else None
        say(f"{one.job}: cancelled meanwhile{f' ({last.what} {last.note})' if last else ''}.")
        return DONE
    if now is None or now.kept.row != one.kept.row:
        raise Refused(f"{one.job} was not cancelled: its record or its task has changed meanwhile. Look again.")
    doubt = (
        "whether there is a job of its token cannot be seen from here" if one.is_in_doubt else "there is no way to it from here"
    )
    raise Refused(f"{one.job} was not cancelled: {doubt}. Look in {one.service}, and stop it there.")
