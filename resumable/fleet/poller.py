"""The one who asks: about all jobs of one service, account and connection, for everybody in the process who waits for one.

What is asked next is decided in `resumable.fleet.schedule`, how often in `resumable.fleet.budget`, what follows from an answer in
`resumable.fleet.jobs`; here are the tasks and threads. The poller's own tasks begin in an empty context, so that what they log
belongs to none of those who wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import random
from typing import Any, Protocol, TypeVar

from resumable.fleet.asks import Ask, How, Job
from resumable.fleet.budget import Budgets, Turns
from resumable.fleet.connecting import Connection
from resumable.fleet.jobs import Jobs
from resumable.fleet.lookups import Place, Reached
from resumable.fleet.measures import Measures
from resumable.fleet.waiting import Errand, Target
from resumable.jobs.decision import Observation

T = TypeVar("T")

_log = logging.getLogger("resumable.fleet")

RENEWAL = 300.0
"""
Seconds after which a connection is read again for an operation of which no call was answered since: the new credentials may have
been no good either, but some services say the same of what is not allowed.
"""


class Pool(Protocol):
    """Where the calls run."""

    def run(self, call: Callable[[], T]) -> Awaitable[T]: ...

    def close(self) -> None: ...


class Threads:
    """Calls in threads, so many at once."""

    def __init__(self, size: int) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="resumable-fleet")

    def run(self, call: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Settings:
    """
    Args:
        at_once: calls of one poller at once.
        lost_after: seconds for which a job cannot be seen before whoever waits is woken.
        retry: seconds between two tries to connect: the first and the longest pause.
        pool: makes the place where calls run, so many at once.
        wall: seconds since the epoch.
        random: between 0 and 1.
    """

    at_once: int = 8
    lost_after: float = 6 * 3600.0
    retry: tuple[float, float] = (5.0, 60.0)
    pool: Callable[[int], Pool] = Threads
    wall: Callable[[], float] = time.time
    random: Callable[[], float] = field(default=random)


class _Alarm:
    """Rings at a time that may be moved."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._bell = loop, asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def set_for(self, when: float | None) -> None:
        """Ring at ``when``; None: not at all."""
        self.stop()
        self._bell.clear()
        if when is not None and when <= self._loop.time():
            self._bell.set()
        elif when is not None:
            self._timer = self._loop.call_at(when, self._bell.set)

    def no_later_than(self, when: float) -> None:
        if not self._bell.is_set() and (self._timer is None or self._timer.when() > when):
            self.set_for(when)

    async def rings(self) -> None:
        await self._bell.wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Poller:
    """
    Args:
        target: any of its jobs.
        budgets: of the process.
        measures: of the process.
        settings: see there.
        ended: called when the last of those who wait has gone.
    """

    def __init__(
        self, target: Target, *, budgets: Budgets, measures: Measures, settings: Settings, ended: Callable[[], None]
    ) -> None:
        self.name = " ".join((target.lookup.name, *(value for _, value in target.place)))
        self._lookup, self._account, self._ended = target.lookup, target.account, ended
        self._budgets, self._measures, self._settings = budgets, measures, settings
        self._loop = asyncio.get_running_loop()
        self._jobs = Jobs(
            self.name,
            self._lookup,
            clock=self._loop.time,
            wall=settings.wall,
            random=settings.random,
            lost_after=settings.lost_after,
            turns=self._turns,
            measures=measures,
        )
        self._connection = Connection(
            self.name,
            self._loop,
            settings.retry,
            any_waiter=self._jobs.any_waiter,
            made=self._connected,
            failed=self._jobs.all_unseen,
        )
        self._pool = settings.pool(settings.at_once)
        self._slots = asyncio.Semaphore(settings.at_once)
        self._alarms = {together: _Alarm(self._loop) for together in (True, False)}
        self._renewed_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for together in self._alarms:
            self._start(self._ask_for_ever(together=together))

    # -- those who wait -----------------------------------------------------------------------------------------------

    async def wait(self, target: Target, tell: Callable[[str], None]) -> Observation:
        """
        Wait until the job is seen to run no more, is believed to be gone, or was lost sight of (UNKNOWN).

        Args:
            target: the job.
            tell: hears, in this task, when the job cannot be seen, and when it is seen again.
        """
        waiter = self._jobs.enter(target)
        self._connection.need()
        for alarm in self._alarms.values():
            alarm.no_later_than(waiter.watch.job.due)
        try:
            while not isinstance(news := await waiter.hear(), Observation):
                if news is Errand.CONNECT:
                    await self._connection.make(waiter)
                else:
                    tell(str(news))
            return news
        finally:
            self._jobs.leave(waiter)
            if len(self._jobs):
                self._connection.left(waiter)
            else:
                self._end()

    def _end(self) -> None:
        self._connection.close()
        for alarm in self._alarms.values():
            alarm.stop()
        for task in self._tasks:
            task.cancel()
        self._pool.close()
        self._measures.ended(self.name)
        self._ended()

    def _connected(self) -> None:
        self._jobs.schedule.allow_all()
        self._ring()

    # -- asking -------------------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = contextvars.Context().run(self._loop.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ring(self) -> None:
        for together, alarm in self._alarms.items():
            alarm.set_for(self._jobs.schedule.next_due(together=together) if self._connection.reached else None)

    async def _ask_for_ever(self, *, together: bool) -> None:
        """One line of questions: those about many jobs, or those about one. Neither waits for the other's budget."""
        while True:
            self._ring()
            await self._alarms[together].rings()
            await self._slots.acquire()
            ask = None
            try:
                ask = await self._next(together=together)
            except Exception:
                _log.exception("resumable fleet: %s: what to ask next was not found, a fault of this library", self.name)
                await asyncio.sleep(self._settings.retry[0])
            finally:
                if ask is None:
                    self._slots.release()
            if ask is not None:
                self._start(self._ask(ask))

    async def _next(self, *, together: bool) -> Ask | None:
        """The question whose turn it is: what it is about is chosen when it may go out, and not before."""
        schedule = self._jobs.schedule
        while self._connection.reached and (wanted := schedule.next_operation(self._loop.time(), together=together)):
            operation, cost = wanted
            await self._turns(operation).take(cost)
            ask = schedule.take(self._loop.time(), together=together)
            if ask is not None and self._connection.reached and schedule.operation(ask) == wanted:
                return ask
            self._turns(operation).give_back(cost)
            if ask is not None:
                schedule.put_back(ask)
        return None

    def _turns(self, operation: str) -> Turns:
        return self._budgets.of(operation, self._account)

    async def _ask(self, ask: Ask) -> None:
        reached = self._connection.reached
        left = dict(enumerate(ask.jobs))
        try:
            if reached is not None:
                await (self._read_list(ask, reached, left) if ask.how is How.LIST else self._look(ask, reached, left))
            self._jobs.at_once(tuple(left.values()))
        except Exception as e:
            if left:
                self._failed(Ask(ask.how, ask.group, tuple(left.values())), e, reached)
            else:
                _log.exception("resumable fleet: %s: an answer was not understood, a fault of this library", self.name)
        finally:
            self._slots.release()
            self._ring()

    def _failed(self, ask: Ask, error: Exception, reached: Reached | None) -> None:
        operation = self._jobs.schedule.operation(ask)[0]
        now, renewed_at = self._loop.time(), self._renewed_at.get(operation, -math.inf)
        if reached is not None and now - renewed_at >= RENEWAL and reached.is_expired(error):
            self._renewed_at[operation] = now
            self._connection.expired(reached, error)
            self._jobs.at_once(ask.jobs)
        else:
            self._jobs.failed(ask, error)

    async def _look(self, ask: Ask, reached: Reached, left: dict[int, Job]) -> None:
        handles, by_id = [job.handle for job in ask.jobs], self._lookup.by_id
        operation, cost = self._jobs.schedule.operation(ask)
        if ask.how is How.BY_ID and by_id is not None:
            seen = await self._call(operation, lambda: by_id.ask(reached.client, handles, _placing(ask)))
        else:
            look = ask.jobs[0].judge.observe
            seen = await self._call(operation, lambda: {0: look(reached.client, handles[0])}, calls=cost)
        left.clear()
        self._measures.answered(self.name, len(seen))
        self._jobs.heard(ask, seen)

    async def _read_list(self, ask: Ask, reached: Reached, left: dict[int, Job]) -> None:
        """
        Args:
            ask: about which jobs.
            reached: whom to ask.
            left: by their position, those of them that are still to be seen, also when it ends with an error.
        """
        listing, schedule = self._lookup.listing, self._jobs.schedule
        assert listing is not None
        running: list[Job] = []
        cursor, pages, dry, reads_on = None, 0, 0, True
        try:
            while reads_on:
                page = await self._call(listing.operation, _reading(listing.read, reached, ask, cursor))
                shown = [(left.pop(i), seen) for i, seen in page.seen.items() if i in left]
                running += self._jobs.listed(shown)
                self._measures.answered(self.name, len(shown))
                for i in [i for i, job in left.items() if not job.is_watched]:
                    del left[i]
                cursor, pages, dry = page.following, pages + 1, 0 if shown else dry + 1
                if cursor is None or not left:
                    break
                reads_on = schedule.is_worth_reading_on(ask, pages, len(left), dry)
                if reads_on:
                    await self._turns(listing.operation).take()
        finally:
            schedule.again(running, self._loop.time(), since_seen=True)
        schedule.list_was_read(ask, pages, len(ask.jobs) - len(left), self._loop.time(), in_vain=not reads_on)
        self._jobs.not_listed(tuple(left.values()), to_its_end=reads_on)
        left.clear()

    async def _call(self, operation: str, call: Callable[[], T], *, calls: int = 1) -> T:
        self._measures.called(self.name, self._loop.time(), calls=calls, watched=len(self._jobs))
        answer = await self._pool.run(call)
        self._turns(operation).answered()
        self._renewed_at.pop(operation, None)
        return answer


def _placing(ask: Ask) -> Place:
    return lambda position, word: ask.jobs[position].judge.classify(word)


def _reading(read: Callable[..., T], reached: Reached, ask: Ask, cursor: Any) -> Callable[[], T]:
    return lambda: read(reached.client, [job.handle for job in ask.jobs], _placing(ask), cursor)
