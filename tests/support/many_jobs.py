"""A service with many jobs that is asked about one, about some by id, or for a list; it fails in the ways that it is told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from resumable.fleet.budget import Rate
from resumable.fleet.lookups import ById, Listing, Lookup, Page, Place
from resumable.fleet.waiting import Target
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle

from .simulated_time import EPOCH

WORDS = {"RUNNING": JobState.ACTIVE, "DONE": JobState.SUCCEEDED, "BROKEN": JobState.FAILED, "HALF": JobState.FAILING}
ONE, MANY, LIST = "many:DescribeJob", "many:DescribeJobs", "many:ListJobs"


class Answer(Exception):
    """An error as botocore's clients have them."""

    def __init__(self, code: str, status: int, text: str = "") -> None:
        super().__init__(f"An error occurred ({code}): {text}")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@dataclass
class Sent:
    at: float
    operation: str
    ids: tuple[str, ...]
    is_answered: bool = True


@dataclass
class ManyJobs:
    """
    Args:
        clock: seconds.
        size: ids that a call about many takes.
        page: jobs that a page of the list shows.
        limits: what is enforced, by operation.
    """

    clock: Callable[[], float]
    size: int = 10
    page: int = 5
    limits: dict[str, Rate] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    hidden: dict[str, float] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    poison_error: Exception = field(default_factory=lambda: Answer("InvalidParameter", 400, "one of the ids is none"))
    broken: dict[str, Exception] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    is_down: bool = False
    throttles: set[str] = field(default_factory=set)
    expired: set[int] = field(default_factory=set)
    flickers: set[str] = field(default_factory=set)
    """Jobs that are said not to be there in two looks of three of a client, not in its first: never more than twice in a row."""
    _looks: Counter[tuple[str, Any]] = field(default_factory=Counter)
    unlisted: set[str] = field(default_factory=set)
    sent: list[Sent] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self, name: str, group: str = "") -> str:
        self.words[name], self.groups[name] = "RUNNING", group
        return name

    def count(self, operation: str = "") -> int:
        return sum(1 for sent in self.sent if not operation or sent.operation == operation)

    # -- as it is asked -----------------------------------------------------------------------------------------------

    def called(self, operation: str, ids: Sequence[str], client: int = 0) -> None:
        sent = Sent(self.clock(), operation, tuple(ids), is_answered=False)
        self.sent.append(sent)
        if self.is_down:
            raise ConnectionResetError("down")
        if not self._is_within_limits(operation) or operation in self.throttles:
            raise Answer("ThrottlingException", 400, "Rate exceeded")
        if client in self.expired:
            raise Answer("ExpiredTokenException", 403)
        if operation in self.denied:
            raise Answer("AccessDeniedException", 403, "not authorized to perform")
        sent.is_answered = True

    def _is_within_limits(self, operation: str) -> bool:
        limit = self.limits.get(operation)
        if limit is None:
            return True
        calls, at = self._buckets.get(operation, (limit.burst, self.clock()))
        calls = min(limit.burst, calls + (self.clock() - at) * limit.per_second)
        self._buckets[operation] = (calls - 1 if calls >= 1 - 1e-6 else calls, self.clock())
        return calls >= 1 - 1e-6

    def _shows(self, name: str) -> bool:
        return name in self.words and self.clock() >= self.hidden.get(name, -math.inf)

    def by_id(self, client: Any, handles: Sequence[JobHandle], place: Place) -> dict[int, Observation]:
        names = [handle.ids["job"] for handle in handles]
        if len(names) > self.size or len({handle.ids["group"] for handle in handles}) > 1 or len(set(names)) < len(names):
            self.violations.append(f"one call about {names}")
        self.called(MANY, names, client)
        if self.poison & set(names):
            raise self.poison_error
        return {i: self._seen(i, name, place) for i, name in enumerate(names) if self.shows_now(name, client)}

    def listed(self, client: Any, handles: Sequence[JobHandle], place: Place, cursor: Any) -> Page:
        wanted = {handle.ids["job"]: i for i, handle in enumerate(handles)}
        self.called(LIST, (), client)
        group = self.groups[next(iter(wanted))]
        names = [
            name
            for name, word in reversed(self.words.items())
            if word == "RUNNING" and self._shows(name) and name not in self.unlisted and self.groups[name] == group
        ]
        start = cursor or 0
        page = names[start : start + self.page]
        seen = {wanted[name]: self._seen(wanted[name], name, place) for name in page if name in wanted}
        return Page(seen, start + self.page if start + self.page < len(names) else None)

    def shows_now(self, name: str, client: Any) -> bool:
        if name in self.flickers:
            self._looks[name, client] += 1
            return self._shows(name) and self._looks[name, client] % 3 == 1
        return self._shows(name)

    def _seen(self, position: int, name: str, place: Place) -> Observation:
        return Observation(place(position, self.words[name]), self.words[name])

    def lookup(self, *, by_id: bool = True, listing: bool = False, rates: dict[str, Rate] | None = None) -> Lookup:
        return Lookup(
            "many",
            ONE,
            group=(lambda handle: handle.ids["group"]) if by_id or listing else (lambda _: None),
            by_id=ById(MANY, self.size, self.by_id) if by_id else None,
            listing=Listing(LIST, self.page, self.listed) if listing else None,
            rates=rates or {},
        )

    def target(self, name: str, lookup: Lookup, *, reach: Any, age: float = 60.0, interval: float = 30.0, **more: Any) -> Target:
        handle = JobHandle("many", {"job": name, "group": self.groups.get(name, "")}, {"region": "here", "account": "1"})
        submitted = EPOCH + self.clock() - 1000.0 - age
        return Target(handle, lookup, Judge(self), more.pop("connection", "default"), reach, submitted, interval, **more)


class Client:
    """`resumable.fleet.lookups.Reached` of it."""

    def __init__(self, service: ManyJobs, number: int = 0) -> None:
        self.service, self.client = service, number

    def is_expired(self, error: BaseException) -> bool:
        return "ExpiredToken" in str(error)


@dataclass
class Judge:
    """`resumable.fleet.lookups.Judge` of its jobs."""

    service: ManyJobs

    def observe(self, client: int, handle: JobHandle) -> Observation:
        name = handle.ids["job"]
        self.service.called(ONE, [name], client)
        if name in self.service.broken:
            raise self.service.broken[name]
        if not self.service.shows_now(name, client):
            return Observation(JobState.GONE, "no such job")
        return Observation(self.classify(self.service.words[name]), self.service.words[name])

    def classify(self, word: str) -> JobState:
        return WORDS.get(word, JobState.UNKNOWN)
