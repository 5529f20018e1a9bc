"""The jobs of one poller, and what follows from what is heard of them. It waits for nothing, and asks nobody.

An answer is about the jobs that it names, an error about those that were asked about: no other job hears of either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from resumable.errors import ResumableError
from resumable.fleet.asks import Absence, Ask, How, Job
from resumable.fleet.budget import Turns
from resumable.fleet.faults import Fault, fault_of
from resumable.fleet.lookups import Lookup, Seen
from resumable.fleet.measures import Measures
from resumable.fleet.schedule import Schedule
from resumable.fleet.waiting import Target, Waiter, Watch
from resumable.jobs.decision import JobState, Observation

_log = logging.getLogger("resumable.fleet")

GATHER = 1.0
"""Seconds that a new job waits for others that come with it: those of a triggerer that begins are asked about together."""

UNSEEN_LOOKS, UNSEEN_SECONDS = 3, 300.0
"""Looks in a row that have failed, and over how long, before whoever waits is told; sight of a job is lost no sooner either."""


class Jobs:
    """
    Args:
        name: of the poller, for the log.
        lookup: of their service.
        clock: the poller's, in seconds.
        wall: seconds since the epoch.
        random: between 0 and 1.
        lost_after: seconds for which a job cannot be seen before whoever waits is woken.
        turns: the budget of an operation.
        measures: of the process.
    """

    def __init__(
        self,
        name: str,
        lookup: Lookup,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
        lost_after: float,
        turns: Callable[[str], Turns],
        measures: Measures,
    ) -> None:
        self._name, self._lookup, self._clock, self._wall, self._lost_after = name, lookup, clock, wall, lost_after
        self._turns, self._measures = turns, measures
        self.schedule = Schedule(lookup, random)
        self._watches: dict[str, Watch] = {}
        self._reported: set[str] = set()

    def __len__(self) -> int:
        return len(self._watches)

    # -- those who wait -----------------------------------------------------------------------------------------------

    def enter(self, target: Target) -> Waiter:
        """Somebody waits for a job; several may wait for the same one."""
        watch = self._watches.get(target.key)
        if watch is None:
            watch = self._begin(target)
        watch.job.own = min(watch.job.own, target.interval)
        waiter = Waiter(target, watch)
        watch.waiters.append(waiter)
        return waiter

    def _begin(self, target: Target) -> Watch:
        now, wall = self._clock(), self._wall()
        job = Job(
            target.handle,
            target.judge,
            target.interval,
            born=now - max(0.0, wall - target.submitted_at),
            absence=Absence.of(now, wall, target.submitted_at, target.visible_after),
            group=self._lookup.group(target.handle),
            ids=self._lookup.ids(target.handle),
        )
        watch = self._watches[target.key] = Watch(job, target.key, [])
        self.schedule.enter(job, now + GATHER)
        job.watch = watch
        return watch

    def leave(self, waiter: Waiter) -> None:
        """Somebody waits no more; with the last of those who wait for it a job is forgotten."""
        watch = waiter.watch
        watch.waiters.remove(waiter)
        if not watch.waiters and watch.job.is_watched:
            self._forget(watch)

    def _forget(self, watch: Watch) -> None:
        del self._watches[watch.key]
        self.schedule.leave(watch.job)

    def any_waiter(self) -> Waiter | None:
        return next((waiter for watch in self._watches.values() for waiter in watch.waiters), None)

    # -- what is heard ------------------------------------------------------------------------------------------------

    def heard(self, ask: Ask, seen: Seen) -> None:
        """The answer to a question about jobs by their ids, or about one."""
        running = []
        for i, job in enumerate(ask.jobs):
            if i in seen and (seen[i].state is not JobState.GONE or ask.how is How.ONE):
                running += [job] if self._goes_on(job, seen[i], ask.how) else []
            else:
                self._doubt(job)
        self.schedule.again(running, self._clock())

    def listed(self, jobs: Sequence[tuple[Job, Observation]]) -> list[Job]:
        """What a page of a list shows. Returns: those that run, to be asked about `Schedule.again` together."""
        return [job for job, seen in jobs if self._goes_on(job, seen, How.LIST)]

    def not_listed(self, jobs: Sequence[Job], *, to_its_end: bool) -> None:
        """A list has not shown these: that says nothing. They are asked about by id, or alone, before others that are due."""
        for job in jobs:
            job.skips_list = True
            job.misses += to_its_end
            self.schedule.add(job, min(job.due, self._clock()))

    def _goes_on(self, job: Job, seen: Observation, how: How) -> bool:
        """What was seen of a job: whether it is asked about again after its interval."""
        if not job.is_watched:
            return False
        now = self._clock()
        self.schedule.answered(job, how)
        if seen.state is JobState.GONE:
            if job.absence.is_believed(now):
                self._finish(job, seen)
            else:
                self._doubt(job)
            return False
        job.absence.forget()
        job.is_doubted = False
        if seen.state in (JobState.UNKNOWN, JobState.FOREIGN):
            self._unseen(job, str(seen))
            return job.is_watched
        self._is_seen(job, now)
        if seen.state is JobState.ACTIVE:
            job.seen_at = now
            return True
        self._measures.noticed(self._name, 0.0 if job.seen_at is None else now - job.seen_at)
        self._finish(job, seen)
        return False

    def _doubt(self, job: Job) -> None:
        """Nothing, or nothing that is believed yet, was heard: the job is asked about alone, soon."""
        if job.is_watched:
            job.is_doubted = True
            now = self._clock()
            self.schedule.add(job, now + job.absence.pause(now, job.next_pause(now)))

    def failed(self, ask: Ask, error: Exception) -> None:
        """A call about these jobs had no answer, or none about a job."""
        now, operation = self._clock(), self.schedule.operation(ask)[0]
        fault = fault_of(error)
        if fault is Fault.THROTTLED:
            self._turns(operation).throttled()
            self._measures.throttled(self._name)
        if isinstance(error, ResumableError) and ask.how is How.ONE:
            self._finish(ask.jobs[0], Observation(JobState.UNKNOWN, str(error)))
        elif self._goes_another_way(ask, fault, error):
            self.at_once(ask.jobs)
        else:
            for job in ask.jobs:
                job.skips_list = job.skips_list or (ask.how is How.LIST and job.failures > 0)
                self._unseen(job, f"{type(error).__name__}: {error}", is_its_own=ask.how is How.ONE or fault is Fault.THROTTLED)
            self.schedule.again(ask.jobs, now)

    def at_once(self, jobs: Sequence[Job]) -> None:
        """Ask about these jobs as soon as it is possible."""
        for job in jobs:
            self.schedule.add(job, self._clock())

    def _goes_another_way(self, ask: Ask, fault: Fault, error: Exception) -> bool:
        """Whether the same jobs are asked about at once in another way: one by one, or fewer together."""
        if ask.how is How.ONE:
            return False
        if fault is Fault.DENIED or (fault is Fault.REFUSED and ask.how is How.LIST):
            self.schedule.deny(ask.how, ask.group)
            self._report(self.schedule.operation(ask)[0], error)
            return True
        has_failed_before = fault is Fault.TROUBLE and any(job.failures for job in ask.jobs)
        if ask.how is How.BY_ID and (fault is Fault.REFUSED or has_failed_before):
            self.schedule.split(ask)
        return ask.how is How.BY_ID and fault is Fault.REFUSED

    def _report(self, operation: str, error: Exception) -> None:
        if operation in self._reported:
            return
        self._reported.add(operation)
        _log.warning(
            "resumable fleet: %s: %s, which asks about many jobs with one call, is not allowed (%s). They are asked about one "
            "by one, which takes more calls. To change that, allow it",
            self._name,
            operation,
            error,
        )

    # -- what those who wait hear -------------------------------------------------------------------------------------

    def _finish(self, job: Job, seen: Observation) -> None:
        if job.is_watched:
            watch = job.watch
            self._forget(watch)
            watch.tell(seen)

    def all_unseen(self, error: Exception) -> None:
        """None of the jobs can be asked about."""
        for watch in list(self._watches.values()):
            self._unseen(watch.job, f"the connection cannot be made: {type(error).__name__}: {error}")

    def _unseen(self, job: Job, why: str, *, is_its_own: bool = True) -> None:
        """
        Args:
            job: what was not seen.
            why: the error.
            is_its_own: False if the call was about others as well, one of which may be the reason: nobody is told of that.
        """
        if not job.is_watched:
            return
        now = self._clock()
        job.failures += 1
        job.unseen_since = now if job.unseen_since is None else job.unseen_since
        since = _utc(self._wall() - (now - job.unseen_since))
        watch = job.watch
        if job.failures < UNSEEN_LOOKS or not is_its_own:
            return
        if now - job.unseen_since >= self._lost_after:
            self._finish(job, Observation(JobState.UNKNOWN, f"not seen since {since}: {why}"))
        elif now - job.unseen_since >= UNSEEN_SECONDS and not watch.is_told:
            watch.is_told = True
            watch.tell(
                f"resumable: waiting for {job.handle}, which cannot be seen since {since} ({why}). It is left alone, and asked "
                f"about again; the task stays deferred, and is woken {self._lost_after / 3600:.3g} h after that time"
            )

    def _is_seen(self, job: Job, now: float) -> None:
        watch, since = job.watch, job.unseen_since
        job.failures, job.unseen_since = 0, None
        if watch.is_told and since is not None:
            watch.is_told = False
            watch.tell(f"resumable: {job.handle} is seen again, after {now - since:.0f} s")


def _utc(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
