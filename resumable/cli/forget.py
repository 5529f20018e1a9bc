"""``forget``: have the next attempt of a task submit a job, as if this one had never been."""

from __future__ import annotations

import argparse
import time

from resumable import host
from resumable.cli.jobs import look_at
from resumable.cli.live import Live, one_of
from resumable.cli.output import DONE, TROUBLE, Refused, confirmed, say
from resumable.jobs.decision import JobState, Recovery


def run(given: argparse.Namespace) -> int:
    one = one_of(given.task, given.run)
    _check(one, says_there_is_none=given.no_job)
    beside = host.beside()
    if one.record is None:
        what = f"The record of {one.task}, run {one.run_id}, is deleted ({one.problem}): the next attempt submits a job."
        if not confirmed(what, yes=given.yes):
            return TROUBLE
        is_done = beside.remove(one.kept)
    else:
        what = f"{one.job} of {one.task}, run {one.run_id} ({one.state}) is forgotten: the next attempt submits another job."
        if not confirmed(what, yes=given.yes):
            return TROUBLE
        is_done = beside.write(one.kept, one.record.forgotten(beside.user(), time.time()).to_json())
    if not is_done:
        raise Refused("The record has changed meanwhile. Nothing was done; look again.")
    say("Done.")
    return DONE


def _check(one: Live, *, says_there_is_none: bool) -> None:
    """
    Raises:
        Refused: the next attempt might start a second job beside one that runs.
    """
    if one.is_watched:
        raise Refused(
            f"{one.task}, run {one.run_id}, is at work on {one.job if one.record else 'it'} ({one.watcher}). `cancel` it, or "
            "wait for the task's end."
        )
    if one.kept.row.is_elsewhere:
        raise Refused(f"The record of {one.task} cannot be forgotten here: {one.problem}. Delete it there.")
    if one.record is None:
        if not says_there_is_none:
            raise Refused(
                f"The job of {one.task} is not known, and may run: {one.problem}. Look in the service; if there is none, give "
                "--no-job."
            )
        return
    if not one.is_open:
        return
    if one.record.handle is None:
        _check_doubt(one, says_there_is_none)
        return
    seen = look_at(one)
    if seen is None or seen.state not in (JobState.FAILED, JobState.SUCCEEDED, JobState.GONE):
        raise Refused(f"{one.job} is not seen to have ended ({seen or one.seen}). `cancel` it first.")


def _check_doubt(one: Live, says_there_is_none: bool) -> None:
    from resumable.cleanup.reach import adapter_of

    assert one.record is not None
    if says_there_is_none:
        return
    adapter = adapter_of(one.record.reach)
    hint = "A clear looks it up by its token." if adapter is not None and adapter.recovery is Recovery.LOOK_UP else ""
    raise Refused(
        f"Its submit was not answered: a job with token {one.record.token} may run in {one.service}. Look there; if there is "
        f"none, give --no-job. {hint}".rstrip()
    )
