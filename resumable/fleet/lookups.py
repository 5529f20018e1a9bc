"""How a service is asked about many jobs at once: what the poller needs to know of it, as values and small functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from resumable.fleet.budget import Rate
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle

Seen = Mapping[int, Observation]
"""What was seen of the jobs that were asked about, by their position. One that is not in it was not answered."""


class Reached(Protocol):
    """A service as one connection reaches it, for all jobs that share it. Used in threads, several at once."""

    client: Any
    """What the functions of a `Lookup`, and a `Judge`, call: a botocore client, a hook."""

    def is_expired(self, error: BaseException) -> bool:
        """Whether an error says that the credentials are no longer good: the connection is read again then."""


class Judge(Protocol):
    """
    What an operator makes of its own job, where that depends on how the operator was called (until when a cluster is waited for,
    which exit code is no failure). Called in threads; may raise anything, and an error never means that the job failed.
    """

    def observe(self, client: Any, handle: JobHandle) -> Observation:
        """One look at the job by a client that others use as well, as the operator's own."""

    def classify(self, word: str) -> JobState:
        """Where a word of the service's for the job's state belongs."""


Place = Callable[[int, str], JobState]
"""Where the word for the state of a job belongs, by its position among those that were asked about."""


@dataclass(frozen=True, slots=True)
class ById:
    """
    One call for many jobs by their ids.

    Args:
        operation: whose budget it takes from.
        size: ids that one call takes.
        ask: of a client, the handles and where a word belongs: what was seen. A job that the answer leaves out is left out.
    """

    operation: str
    size: int
    ask: Callable[[Any, Sequence[JobHandle], Place], Seen]


@dataclass(frozen=True, slots=True)
class Page:
    """What one page of a list shows of the jobs that were asked about, and what the next call is given; None: the last page."""

    seen: Seen
    following: Any = None


@dataclass(frozen=True, slots=True)
class Listing:
    """
    A list of jobs, other people's among them, page by page. A job that is in it is seen; one that is not may be anything.

    Args:
        operation: whose budget each page takes from.
        size: jobs that one page shows.
        read: of a client, the handles, where a word belongs, and what the page before gave (None for the first): a page.
    """

    operation: str
    size: int
    read: Callable[[Any, Sequence[JobHandle], Place, Any], Page]


def _one_group(_: JobHandle) -> Hashable:
    return ""


def _one_id(_: JobHandle) -> int:
    return 1


@dataclass(frozen=True, slots=True)
class Lookup:
    """
    How the jobs of a service are asked about.

    Args:
        name: of the service, and of what kind of its jobs if it has several.
        operation: of a look at a single job: whose budget it takes from.
        group: the jobs that one call can ask about together have an equal one; None: the job is asked about alone.
        ids: how many ids a job has.
        cost: how many calls a look at a single job takes.
        by_id, listing: the ways to ask about many, if there are any.
        rates: what the service publishes, by operation.
    """

    name: str
    operation: str
    group: Callable[[JobHandle], Hashable | None] = _one_group
    ids: Callable[[JobHandle], int] = _one_id
    cost: Callable[[JobHandle], int] = _one_id
    by_id: ById | None = None
    listing: Listing | None = None
    rates: Mapping[str, Rate] = field(default_factory=dict)


ASSUMED = Rate(10, 20)
"""Of an operation for which the service publishes nothing."""


def alone(name: str, operation: str = "") -> Lookup:
    """Of a service that is asked about one job at a time."""
    return Lookup(name, operation or f"{name}:look", group=lambda _: None)
