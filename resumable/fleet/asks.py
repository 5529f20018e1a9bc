"""What is asked: a job, the pause between two looks at it, a question about some of them; when an answer is believed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from resumable.fleet.lookups import Judge
from resumable.jobs.record import JobHandle
from resumable.jobs.remote import ABSENT_ANSWERS, ABSENT_SECONDS

LONGEST = 60.0
"""Seconds between two looks, to which the interval of a job grows with its age."""

GROWTH = 20
"""A job's end is noticed later by a twentieth of its age at most: its interval grows to that."""


class How(Enum):
    """A way to ask."""

    ONE = "one by one"
    BY_ID = "many by id"
    LIST = "by list"


def pause(own: float, age: float) -> float:
    """
    Seconds until the next look at a job.

    Args:
        own: the operator's interval. A longer one than `LONGEST` stays as it is.
        age: seconds since the job was submitted.
    """
    return max(own, min(LONGEST, age / GROWTH))


@dataclass(eq=False, slots=True)
class Job:
    """
    A job that somebody waits for.

    Args:
        handle: the job.
        judge: what its operator makes of it.
        own: the operator's interval in seconds.
        born: when it was submitted, on the poller's clock; before the poller's beginning as a rule.
        group: see `Lookup`.
        ids: see `Lookup`.
        absence: whether an answer that there is no such job is believed.
    """

    handle: JobHandle
    judge: Judge
    own: float
    born: float
    absence: Absence
    group: Hashable | None = ""
    ids: int = 1
    due: float = 0.0
    turn: int = 0
    """Among those that are due at the same time: it keeps its own when a question is put back."""
    is_watched: bool = True
    is_alone: bool = False
    """It has spoilt calls that asked about others as well."""
    company: int | None = None
    """With how many it is asked about at most, because a call with more has failed."""
    strikes: int = 0
    misses: int = 0
    """How often in a row the list, read to its end, has not shown it, although it runs."""
    skips_list: bool = False
    """The list has just not shown it, or was not read on: it is asked about by id, or alone."""
    is_doubted: bool = False
    """A call about many has not answered for it, or a single one said that it is not there: it is asked about alone."""
    failures: int = 0
    unseen_since: float | None = None
    seen_at: float | None = None
    watch: Any = None
    """Those who wait for it."""

    def next_pause(self, now: float) -> float:
        return pause(self.own, now - self.born)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: about which jobs, in which way. With `How.LIST` it may take several calls."""

    how: How
    group: Hashable | None
    jobs: tuple[Job, ...]


@dataclass(slots=True)
class Absence:
    """
    When an answer that there is no such job is believed: the rules of `resumable.jobs.remote`, for looks that are planned ahead.

    Counts single looks that were answered with "no such job", one after the other.

    Args:
        visible_at: on the poller's clock, when the service is sure to show the job.
    """

    visible_at: float
    answers: int = 0
    first_at: float = 0.0

    @classmethod
    def of(cls, now: float, wall: float, submitted_at: float, lag: float) -> Absence:
        """
        Args:
            now: on the poller's clock.
            wall: the same moment, in seconds since the epoch.
            submitted_at: in seconds since the epoch, by the clock of whoever submitted, which may have been ahead.
            lag: seconds after its submit before "there is no such job" is believed.
        """
        return cls(now + max(0.0, min(lag, submitted_at + lag - wall)))

    def forget(self) -> None:
        self.answers = 0

    def is_believed(self, now: float) -> bool:
        """Count one more such answer: whether it is believed."""
        if self.answers == 0:
            self.first_at = now
        self.answers += 1
        return self.answers >= ABSENT_ANSWERS and now - self.first_at >= ABSENT_SECONDS and now >= self.visible_at

    def pause(self, now: float, interval: float) -> float:
        """Seconds until it is worth asking again, where ``interval`` seconds are between two looks at a job that is seen."""
        return max(ABSENT_SECONDS / (ABSENT_ANSWERS - 1), min(self.visible_at - now, interval))
