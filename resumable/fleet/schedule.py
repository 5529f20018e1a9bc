"""Which jobs are asked about next, in which way, and when: pure decisions, with the time given by whoever asks.

Jobs that one call can ask about together form a group. When the first of a group is due, those that are due soon are asked
about with it, so that a group comes to few full calls. No call is made in which no job is due.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from resumable.fleet.asks import Ask, How, Job
from resumable.fleet.lookups import Lookup

SOON = 0.5
"""Of its interval, how much earlier a job is asked about because a call goes out anyway."""

JITTER = 0.05
"""Of an interval, by how much it varies: several processes do not fall into step."""

PATIENCE = 64
"""Intervals for which a list that has cost more than it showed is left unread at most."""

LIST_CHANGES = 600.0
"""Seconds for which it is relied upon that a list is as long as it was."""

DARING = 8
"""A list is read on while it has cost no more than an eighth of what single looks at its jobs would. What it has cost in vain is
saved again: until it is read next, its jobs are asked about a little less often."""

THRIFT = 8
"""Calls that earlier readings of a list have saved, and that the next one may cost."""


_Line = list[tuple[float, int, Job]]
"""Jobs by when they are due, as a heap; some may not be waited for any more."""


@dataclass(slots=True)
class _Listed:
    """What is known of the list of one group."""

    pages: int | None = None  # that the last reading took
    read_at: float = 0.0
    saved: int = 0  # calls, by readings so far
    failures: int = 0  # readings in a row that cost more than they showed
    rests_until: float = 0.0
    stretch: float = 1.0  # of the intervals while it rests


@dataclass(slots=True)
class _Group:
    line: _Line = field(default_factory=list)
    members: int = 0
    listed: _Listed = field(default_factory=_Listed)
    denied: set[How] = field(default_factory=set)


class Schedule:
    """
    The jobs of one poller, and what is asked next. More than 250 lines, because
    each decision is about the same lines of jobs.

    Args:
        lookup: of their service.
        random: between 0 and 1, for jitter.
    """

    def __init__(self, lookup: Lookup, random: Callable[[], float]) -> None:
        self._lookup, self._random = lookup, random
        self._groups: dict[Hashable, _Group] = {}
        self._alone: _Line = []
        self._numbers = count()
        self._left = 0
        self.watched = 0

    def enter(self, job: Job, due: float) -> None:
        """Somebody waits for ``job`` from now on."""
        self.watched += 1
        self._group(job.group).members += 1
        self.add(job, due)

    def leave(self, job: Job) -> None:
        """Nobody waits for ``job`` any more."""
        job.is_watched = False
        self.watched -= 1
        group = self._group(job.group)
        group.members -= 1
        if group.members == 0:
            del self._groups[job.group]
        self._left += 1
        if self._left > max(64, self.watched):
            self._left = 0
            for line in (self._alone, *(one.line for one in self._groups.values())):
                line[:] = [entry for entry in line if entry[2].is_watched]
                heapq.heapify(line)

    # -- when ---------------------------------------------------------------------------------------------------------

    def add(self, job: Job, due: float) -> None:
        """Ask about ``job`` once it is ``due``, if it is waited for."""
        if not job.is_watched:
            return
        job.due, job.turn = due, next(self._numbers)
        self._push(job)

    def _push(self, job: Job, *, alone: bool = False) -> None:
        """
        Into its line, where it was: were the order of those that are due together another one each time that a question is put
        back, the question that is found to be next would never be the one that is then taken.
        """
        if job.is_watched:
            line = self._alone if alone or self._goes_alone(job) else self._group(job.group).line
            heapq.heappush(line, (job.due, job.turn, job))

    def again(self, jobs: Sequence[Job], now: float, *, since_seen: bool = False) -> None:
        """
        Ask about jobs that were asked about together once more, each after its interval, and together again.

        Args:
            jobs: which.
            now: the time.
            since_seen: the interval began when each was seen, because that took a while.
        """
        jitter = 1 + JITTER * (2 * self._random() - 1)
        for job in jobs:
            if job.is_watched:
                began = job.seen_at if since_seen and job.seen_at is not None else now
                self.add(job, max(now, began + job.next_pause(now) * jitter * self._stretch(job, now)))

    def _stretch(self, job: Job, now: float) -> float:
        listed = self._group(job.group).listed
        return listed.stretch if now < listed.rests_until else 1.0

    def _goes_alone(self, job: Job) -> bool:
        if job.group is None or job.is_alone or job.is_doubted or job.company == 1:
            return True
        return not self._ways(job)

    def _ways(self, job: Job) -> set[How]:
        """The ways to ask about the job together with others."""
        lookup, denied = self._lookup, self._group(job.group).denied
        ways = set()
        if lookup.by_id is not None and How.BY_ID not in denied and job.ids <= lookup.by_id.size:
            ways.add(How.BY_ID)
        if lookup.listing is not None and How.LIST not in denied and job.misses < 2 and not job.skips_list:
            ways.add(How.LIST)
        return ways

    def _group(self, name: Hashable) -> _Group:
        if name not in self._groups:
            self._groups[name] = _Group()
        return self._groups[name]

    # -- what ---------------------------------------------------------------------------------------------------------

    def next_due(self, *, together: bool) -> float | None:
        """When the first job is due, of those that are asked about ``together`` or of those that are alone; None: never."""
        lines = [group.line for group in self._groups.values()] if together else [self._alone]
        heads = [head for line in lines if (head := _head(line)) is not None]
        return min(heads, default=None)

    def next_operation(self, now: float, *, together: bool) -> tuple[str, int] | None:
        """The operation that `take` would ask with, and its calls; None: nothing is due."""
        ask = self.take(now, together=together)
        if ask is None:
            return None
        self.put_back(ask)
        return self.operation(ask)

    def operation(self, ask: Ask) -> tuple[str, int]:
        """The operation of a question, and how many calls of it go out (of a list: its first page)."""
        if ask.how is How.BY_ID and self._lookup.by_id is not None:
            return self._lookup.by_id.operation, 1
        if ask.how is How.LIST and self._lookup.listing is not None:
            return self._lookup.listing.operation, 1
        return self._lookup.operation, self._lookup.cost(ask.jobs[0].handle)

    def put_back(self, ask: Ask) -> None:
        """A question that was taken is not asked now."""
        for job in ask.jobs:
            self._push(job, alone=ask.how is How.ONE)

    def take(self, now: float, *, together: bool) -> Ask | None:
        """The question to ask now: its jobs are out of the schedule until they are added again. None: nothing is due."""
        if not together:
            head = _head(self._alone)
            if head is None or head > now:
                return None
            job = heapq.heappop(self._alone)[2]
            return Ask(How.ONE, job.group, (job,))
        while (found := self._most_overdue(now)) is not None:
            name, group = found
            jobs = list(self._due(group, now))
            how, chosen = self._choose(group, jobs, now)
            taken = set(chosen)
            for job in jobs:
                if job not in taken:
                    self._push(job)
            if how is not How.ONE:
                return Ask(how, name, tuple(chosen))
            for job in chosen:
                self._push(job, alone=True)
        return None

    def _most_overdue(self, now: float) -> tuple[Hashable, _Group] | None:
        heads = ((head, name) for name, group in self._groups.items() if (head := _head(group.line)) is not None)
        best = min(heads, key=lambda pair: pair[0], default=None)
        return None if best is None or best[0] > now else (best[1], self._groups[best[1]])

    def _due(self, group: _Group, now: float) -> Iterator[Job]:
        """Those that are due, and those that are soon, the most overdue first; no more than a way to ask takes."""
        may_list = self._lookup.listing is not None and How.LIST not in group.denied and now >= group.listed.rests_until
        most = math.inf if may_list or self._lookup.by_id is None else self._lookup.by_id.size
        ids = 0
        while _head(group.line) is not None:
            due, _, job = group.line[0]
            if due > now + SOON * job.next_pause(now) or ids + job.ids > most:
                return
            heapq.heappop(group.line)
            ids += job.ids
            yield job

    def _choose(self, group: _Group, jobs: list[Job], now: float) -> tuple[How, list[Job]]:
        listable = [job for job in jobs if How.LIST in self._ways(job)]
        by_id = [job for job in jobs if How.BY_ID in self._ways(job)]
        first = jobs[0]
        if first in listable and self._is_list_cheaper(group, listable, now):
            return How.LIST, listable + self._all_else(group)
        if first not in by_id:
            return How.ONE, [job for job in jobs if job.due <= now and How.BY_ID not in self._ways(job)]
        company = self._company(by_id)
        return (How.BY_ID, company) if len(company) > 1 else (How.ONE, [first])

    def _all_else(self, group: _Group) -> list[Job]:
        """A list shows those that are not due as well, for nothing: they are due together the next time."""
        line, group.line = group.line, []
        listable = []
        for _, _, job in line:
            if job.is_watched and How.LIST in self._ways(job):
                listable.append(job)
            else:
                self._push(job)
        return listable

    def _company(self, jobs: list[Job]) -> list[Job]:
        """As many of the jobs as one call takes, and as each of them bears."""
        assert self._lookup.by_id is not None
        taken: list[Job] = []
        ids, most = 0, self._lookup.by_id.size
        for job in jobs:
            bears = min((one.company for one in (*taken, job) if one.company is not None), default=most)
            if ids + job.ids <= most and len(taken) < bears:
                taken.append(job)
                ids += job.ids
        return taken

    def _is_list_cheaper(self, group: _Group, jobs: list[Job], now: float) -> bool:
        listing, by_id, listed = self._lookup.listing, self._lookup.by_id, group.listed
        assert listing is not None
        if now < listed.rests_until:
            return False
        # One that is not due yet saves no whole call: it would have been asked about again later than it will be now.
        saves = [1 - max(0.0, job.due - now) / job.next_pause(now) for job in jobs]
        calls = sum(saves)
        if by_id is not None and How.BY_ID not in group.denied:
            calls = sum(job.ids * saved for job, saved in zip(jobs, saves, strict=True)) / by_id.size
        known = listed.pages if now < listed.read_at + LIST_CHANGES else None
        pages = math.ceil(sum(job.ids for job in jobs) / listing.size) if known is None else known
        return len(jobs) > 1 and pages < math.ceil(calls)

    # -- what came of it ----------------------------------------------------------------------------------------------

    def is_worth_reading_on(self, ask: Ask, pages: int, left: int, dry: int) -> bool:
        """
        Whether the next page of a list is read: not when it has cost more calls than the jobs that it has shown would have.

        Args:
            ask: for whose jobs.
            pages: read so far.
            left: jobs that they have not shown.
            dry: the last pages in a row that have shown none.
        """
        saved = self._groups[ask.group].listed.saved if ask.group in self._groups else 0
        found, spare = len(ask.jobs) - left, max(saved, len(ask.jobs) // DARING)
        return left > 0 and pages < found + 1 + spare and dry < max(left, 1)

    def list_was_read(self, ask: Ask, pages: int, found: int, now: float, *, in_vain: bool) -> None:
        """
        Note what the list of a group came to.

        Args:
            ask: for whose jobs.
            pages: read.
            found: jobs that they showed.
            now: the time.
            in_vain: it was not read on, although it had not shown all.
        """
        if ask.group not in self._groups:
            return
        listed = self._groups[ask.group].listed
        listed.saved = max(0, min(THRIFT, listed.saved + found - pages))
        if not in_vain:
            listed.pages, listed.read_at = pages, now
        if found >= pages:
            listed.failures = 0
        else:
            listed.failures += 1
            intervals = min(PATIENCE, 2**listed.failures)
            listed.rests_until = now + intervals * min(job.next_pause(now) for job in ask.jobs)
            listed.stretch = 1 + (pages - found) / (intervals * len(ask.jobs))

    def deny(self, how: How, group: Hashable) -> None:
        """A way to ask about a group is not allowed."""
        if group not in self._groups:
            return
        found = self._groups[group]
        found.denied.add(how)
        line, found.line = found.line, []
        for _, _, job in line:
            self._push(job)

    def allow_all(self) -> None:
        """With another connection, what was not allowed may be."""
        for group in self._groups.values():
            group.denied.clear()

    def split(self, ask: Ask) -> None:
        """A call about many was refused, or has failed again: each of them is asked about with half as many."""
        for job in ask.jobs:
            job.company = max(1, len(ask.jobs) // 2)

    def answered(self, job: Job, how: How) -> None:
        """The job was seen, in that way."""
        if how is How.BY_ID:
            job.company, job.strikes = None, 0
        elif how is How.ONE and job.company == 1:
            job.company, job.strikes = None, job.strikes + 1
            job.is_alone = job.is_alone or job.strikes > 1
        job.skips_list = False
        if how is How.LIST:
            job.misses = 0


def _head(line: _Line) -> float | None:
    """When the first of a line is due, after those that nobody waits for any more were dropped."""
    while line and not line[0][2].is_watched:
        heapq.heappop(line)
    return line[0][0] if line else None
