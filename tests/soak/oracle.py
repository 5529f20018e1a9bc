"""What a soak must have come to: pure, over what users asked for and what the services and Airflow show at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.life import invariants as inv
from tests.life.invariants import Invariant
from tests.soak.cloud import Job


@dataclass
class Ledger:
    """
    What was asked of one task instance, and what it came to.

    Attributes:
        asked: jobs asked for: one, and one more for each clear, each job that failed, and each edit of the author.
        stops: when a user asked to stop a job (by a mark, by a clear while it ran, or by an edit), by its id as text.
        failed: ids, as text, of the jobs that failed by themselves.
        delivered: ids of the jobs whose results were the task's when it became a success.
        expected: the state that the task must end in: what the last mark said, else success.
        is_marked: it is a user's word, and not the job's.
        stuck: what its script waited for in vain.
        state, tries, result, recorded: the end as Airflow has it.
    """

    name: str
    asked: int = 1
    stops: dict[str, float] = field(default_factory=dict)
    delivered: list[Any] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    expected: str = "success"
    is_marked: bool = False
    state: str = ""
    tries: int = 0
    result: Any = None
    recorded: Any = None
    stuck: str = ""


def violations(ledger: Ledger, jobs: Sequence[Job]) -> list[str]:
    """Everything that a durable task promises and this one did not keep, each with the name of the invariant."""
    return [f"{invariant.name}: {ledger.name}: {what}" for invariant, what in _broken(ledger, jobs)]


def by_name(ledgers: Iterable[tuple[Ledger, Sequence[Job]]]) -> Counter[str]:
    """How many times each invariant was broken."""
    return Counter(invariant.name for ledger, jobs in ledgers for invariant, _ in _broken(ledger, jobs))


def _broken(ledger: Ledger, jobs: Sequence[Job]) -> Iterator[tuple[Invariant, str]]:
    if ledger.stuck:
        yield inv.NEVER_ENDS, f"stuck: {ledger.stuck}"
    if len(jobs) > ledger.asked:
        yield inv.JOBS_PER_TRY, f"{len(jobs)} jobs submitted, {ledger.asked} asked for"
    if len(jobs) < ledger.asked:
        yield inv.JOB_MISSING, f"{len(jobs)} jobs submitted, {ledger.asked} asked for"
    if at_once(jobs) > 1:
        yield inv.ONE_AT_ONCE, f"{at_once(jobs)} jobs active at once"
    for job in jobs:
        yield from _broken_by(job, ledger)
    if ledger.state != ledger.expected:
        yield inv.VERDICT, f"the task ended as {ledger.state}, not as {ledger.expected}"
    last = jobs[-1].id if jobs else None
    if not ledger.is_marked and ledger.result != last:
        yield inv.RESULT_STALE, f"the task returned {ledger.result}, its job is {last}"
    if ledger.recorded != last:
        yield inv.RECORD_WRONG, f"the record has {ledger.recorded}, the last job is {last}"


def _broken_by(job: Job, ledger: Ledger) -> Iterator[tuple[Invariant, str]]:
    if job.is_active:
        yield inv.LEFT_UNSAID, f"job {job.id} is still running"
    elif job.id in ledger.delivered or (job.end == "failed" and str(job.id) in ledger.failed):
        return
    elif str(job.id) in ledger.stops:
        if job.end != "cancelled":
            yield inv.STOP_LOST, f"job {job.id} ended as {job.end} although a user had stopped it"
    elif job.end == "cancelled":
        yield inv.CANCELLED_FOR_NOBODY, f"job {job.id} was cancelled: neither delivered nor stopped by a user"
    else:
        yield inv.RESULT_LOST, f"job {job.id} ended as {job.end}: neither delivered nor stopped by a user"


def at_once(jobs: Iterable[Job]) -> int:
    """The most jobs that were active at one moment."""
    moments = [(job.started, 1) for job in jobs] + [(job.ended, -1) for job in jobs if job.ended is not None]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def unwanted_seconds(ledger: Ledger, jobs: Iterable[Job]) -> float:
    """How long jobs ran whose result nobody got and that no user had stopped."""
    known = {*ledger.stops, *ledger.failed}
    return sum(job.age for job in jobs if job.id not in ledger.delivered and str(job.id) not in known)


def late_seconds(ledger: Ledger, jobs: Iterable[Job]) -> float:
    """How long jobs ran on after a user had stopped them."""
    every = ((job, ledger.stops.get(str(job.id))) for job in jobs)
    return sum(max(0.0, job.started + job.age - stop) for job, stop in every if stop is not None)


def uncalled_cancels(ledger: Ledger, jobs: Iterable[Job]) -> int:
    """How many jobs were cancelled although no user wanted it."""
    return sum(job.end == "cancelled" and str(job.id) not in ledger.stops for job in jobs)
