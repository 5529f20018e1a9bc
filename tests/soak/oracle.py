"""What a soak must have come to: pure, over what users asked for and what the services and Airflow show at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.soak.cloud import Job


@dataclass
class Ledger:
    """
    What was asked of one task instance, and what it came to.

    Attributes:
        asked: jobs asked for: one, and one more for each clear.
        stops: when a user asked to stop a job (by a mark, or by a clear while it ran), by its id as text.
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
    expected: str = "success"
    is_marked: bool = False
    state: str = ""
    tries: int = 0
    result: Any = None
    recorded: Any = None
    stuck: str = ""


def violations(ledger: Ledger, jobs: Sequence[Job]) -> list[str]:
    """Everything that a durable task promises and this one did not keep."""
    found = [f"stuck: {ledger.stuck}"] if ledger.stuck else []
    if len(jobs) != ledger.asked:
        found.append(f"{len(jobs)} jobs submitted, {ledger.asked} asked for")
    if at_once(jobs) > 1:
        found.append(f"{at_once(jobs)} jobs active at once")
    for job in jobs:
        is_stopped = str(job.id) in ledger.stops
        if job.is_active:
            found.append(f"job {job.id} is still running")
        elif job.id in ledger.delivered:
            continue
        elif not is_stopped:
            found.append(f"job {job.id} ended as {job.end}: neither delivered nor stopped by a user")
        elif job.end != "cancelled":
            found.append(f"job {job.id} ended as {job.end} although a user had stopped it")
    if ledger.state != ledger.expected:
        found.append(f"the task ended as {ledger.state}, not as {ledger.expected}")
    last = jobs[-1].id if jobs else None
    if not ledger.is_marked and ledger.result != last:
        found.append(f"the task returned {ledger.result}, its job is {last}")
    if ledger.recorded != last:
        found.append(f"the record has {ledger.recorded}, the last job is {last}")
    return [f"{ledger.name}: {what}" for what in found]


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
    return sum(job.age for job in jobs if job.id not in ledger.delivered and str(job.id) not in ledger.stops)


def late_seconds(ledger: Ledger, jobs: Iterable[Job]) -> float:
    """How long jobs ran on after a user had stopped them."""
    every = ((job, ledger.stops.get(str(job.id))) for job in jobs)
    return sum(max(0.0, job.started + job.age - stop) for job, stop in every if stop is not None)


def uncalled_cancels(ledger: Ledger, jobs: Iterable[Job]) -> int:
    """How many jobs were cancelled although no user wanted it."""
    return sum(job.end == "cancelled" and str(job.id) not in ledger.stops for job in jobs)
