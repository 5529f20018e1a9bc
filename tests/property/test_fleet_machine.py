"""
Whatever the service does, and whoever comes and goes, each end is noticed, by those alone who wait for it, within the budget.

The fleet runs as it is, on a loop whose time is simulated; the service throttles, lags, refuses, denies, is down, slow, wrong for
a moment; ids spoil the calls that they are in; credentials expire; connections cannot be made.

What the claims leave out, in full:

- "In time" is claimed while nothing has gone wrong yet. Later, an end is noticed within two hours after what was wrong is over;
  that a call about many is denied, that an id spoils it, that a list leaves a job out is never over.
- One who waits is told of an outage, of throttling, and of a connection that is not made, as all are; whether these were drawn
  while he waited is looked at, not whether they have reached him.
- "No more calls than one by one" counts an unprofitable look at a list as what it saves later (`DARING`). Once something has gone
  wrong, a quarter and ten more are let pass, and what splitting off an id takes: what is asked about again was asked for in vain.
- Jobs are out of sight for less than the six hours after which sight is lost; see the poller's own tests.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from resumable.fleet.budget import Budget, Rate
from resumable.fleet.measures import Measures
from resumable.fleet.poller import Settings
from resumable.fleet.registry import Fleet
from resumable.fleet.schedule import DARING
from resumable.jobs.decision import JobState, Observation
from tests.life import invariants as inv
from tests.life.script import Told, as_test, step
from tests.support.many_jobs import LIST, MANY, ONE, WORDS, Answer, Client, ManyJobs
from tests.support.simulated_time import EPOCH, Instant, SimulatedLoop

WHICH = st.integers(0, 60)
WAYS = {"by id": (True, False), "by list": (False, True), "both": (True, True), "alone": (False, False)}
ERRORS = {
    "refused": Answer("InvalidParameter", 400),
    "broken": Answer("InternalFailure", 500),
    "no answer": TimeoutError("no answer"),
}
WRONG = [
    "spoils calls",
    "spoils calls",
    "cannot be looked at",
    "is left out by lists",
    "flickers",
    "is forgotten",
    "in a state unheard of",
]
TROUBLE = ["denied", "denied", "throttles", "throttles", "down", "slow 5", "slow 40", "expired credentials", "no connection"]
OPERATIONS = [[ONE], [MANY], [LIST], *[[ONE, MANY, LIST]] * 4]
THEN = st.sampled_from([0.0, 3.0, 30.0, 130.0, 130.0])
LONG = st.sampled_from([3.0, 130.0, 600.0, 600.0])

_whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="")


@dataclass(eq=False)
class Waiting:
    job: str
    interval: float
    began: float
    age: float
    task: asyncio.Task[Observation]
    told: list[str] = field(default_factory=list)
    is_cancelled: bool = False
    ended: float | None = None


class Counted:
    """Metrics, as far as they are looked at."""

    def __init__(self) -> None:
        self.noticed = 0

    def incr(self, stat: str, count: int = 1, *, tags: dict[str, str]) -> None: ...

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None: ...

    def timing(self, stat: str, dt: float, *, tags: dict[str, str]) -> None:
        self.noticed += 1


class Waits(Told):
    """Those who wait for the jobs of one account, over two connections."""

    # -- the world ----------------------------------------------------------------------------------------------------

    @step(
        first=True,
        way=st.sampled_from(["alone", "both", "by id", "by id", "by list", "by list"]),
        rate=st.sampled_from([0.2, 1.0, 20.0]),
        burst=st.one_of(st.integers(1, 2), st.integers(1, 10)),
        size=st.sampled_from([2, 5, 16]),
        page=st.one_of(st.just(2), st.integers(2, 6)),
        at_once=st.integers(1, 4),
        jobs=st.sampled_from([1, 2, 3, 5, 12, 12]),
        interval=st.sampled_from([30.0, 30.0, 120.0]),
        others=st.sampled_from([0, 10, 60]),
        fails=st.sampled_from([0, 0, 0, 2]),
        first_goes=st.sampled_from([False, False, True]),
    )
    def begin(
        self,
        way: str,
        rate: float,
        burst: int,
        size: int,
        page: int,
        at_once: int,
        jobs: int,
        interval: float = 30.0,
        others: int = 0,
        fails: int = 0,
        first_goes: bool = False,
    ) -> None:
        """``first_goes``: who came first is cancelled while it is still waiting for the connection, which the others want too."""
        self.loop = SimulatedLoop()
        self.service = ManyJobs(self.loop.time, size=size, page=page)
        self.way, self.lookup = way, self.service.lookup(by_id=WAYS[way][0], listing=WAYS[way][1])
        self.rate = Rate(rate, float(burst))
        self.pools: list[Instant] = []
        self.latency = 0.1
        self.waiting: list[Waiting] = []
        self.ended_at: dict[str, float] = {}
        self.vanished: set[str] = set()
        self.strange: set[str] = set()
        self.wrong_since: float | None = None
        self.troubled_at = -math.inf
        self.reach_fails, self.clients = 0, 0
        self.contexts: set[str] = set()
        self.throttled: dict[str, deque[float]] = {operation: deque(maxlen=8) for operation in (ONE, MANY, LIST)}
        self.buckets = {operation: Budget(self.rate, 1000.0) for operation in (ONE, MANY, LIST)}
        self.looked_at = 0
        self.metrics = Counted()
        self.number = 0
        called = self.service.called

        def journal(operation: str, ids: Any, client: int = 0) -> None:
            self.contexts.add(_whose.get())
            try:
                called(operation, ids, client)
            except Answer as e:
                if "Throttling" in str(e):
                    self.throttled[operation].append(self.loop.time() + self.latency)
                raise

        self.service.called = journal  # type: ignore[method-assign]

        async def make() -> Fleet:
            made = Settings(pool=self._pool, wall=lambda: EPOCH + self.loop.time() - 1000.0, random=lambda: 0.5, at_once=at_once)
            return Fleet(made, rates=dict.fromkeys((ONE, MANY, LIST), self.rate), measures=Measures(self.metrics))

        self.fleet = self.loop.run_until_complete(make())
        if fails:
            self._is_trouble()
            self.reach_fails = fails
        self._wait_for(jobs, "a", interval, 60.0)
        self._others(others, "a")
        if first_goes:
            self._pass(0.3)
            self.waiting[0].is_cancelled = True
            self.waiting[0].task.cancel()
            self._pass(0.0)
            if self.open and not self.clients:
                self.met("who was to connect goes before that")

    def _pool(self, size: int) -> Instant:
        self.pools.append(Instant(size, lambda: self.latency))
        return self.pools[-1]

    async def _reach(self) -> Client:
        await asyncio.sleep(1.0)
        if self.reach_fails:
            self.reach_fails -= 1
            raise LookupError("no such connection")
        self.clients += 1
        return Client(self.service, self.clients)

    # -- jobs and those who wait --------------------------------------------------------------------------------------

    @step(
        count=st.integers(1, 12),
        group=st.sampled_from("ab"),
        interval=st.sampled_from([10.0, 30.0, 120.0]),
        age=st.sampled_from([0.0, 60.0, 3000.0, 40_000.0]),
        hidden=st.sampled_from([0.0, 0.0, 30.0]),
        then=THEN,
    )
    def jobs_are_waited_for(self, count: int, group: str, interval: float, age: float, hidden: float, then: float) -> None:
        self._wait_for(count, group, interval, 0.0 if hidden else age, hidden)
        self._pass(then)

    def _wait_for(self, count: int, group: str, interval: float, age: float, hidden: float = 0.0) -> None:
        for _ in range(count):
            self.number += 1
            name = self.service.run(f"j{self.number}", group)
            if hidden:
                self._is_wrong()
                self.service.hidden[name] = self.loop.time() + hidden
            self._wait(name, interval, age)

    def _wait(self, name: str, interval: float, age: float) -> None:
        connection = "one" if self.number % 5 else "two"
        target = self.service.target(
            name, self.lookup, reach=self._reach, age=age, interval=interval, connection=connection, visible_after=40.0
        )
        told: list[str] = []
        token = _whose.set(name)
        task = self.loop.create_task(self.fleet.watch(target, told.append))
        _whose.reset(token)
        self.waiting.append(Waiting(name, interval, self.loop.time(), age, task, told))

    @property
    def open(self) -> list[Waiting]:
        return [one for one in self.waiting if not one.task.done() and not one.is_cancelled]

    @step(lambda self: self.open, which=WHICH, others=st.sampled_from([0, 0, 0, 10, 60]), group=st.sampled_from("ab"))
    def others_come(self, which: int, others: int, group: str) -> None:
        """Somebody waits for a job that is waited for already; people who are not ours have jobs as well."""
        one = self.open[which % len(self.open)]
        self._wait(one.job, one.interval, one.age)
        self._others(others, group)
        self._pass(0.0)

    def _others(self, count: int, group: str) -> None:
        for _ in range(count):
            self.number += 1
            self.service.run(f"o{self.number}", group)

    @step(lambda self: self.open, which=WHICH, count=st.integers(1, 8), then=THEN)
    def waiters_are_cancelled(self, which: int, count: int, then: float) -> None:
        for one in (self.open * 2)[which % len(self.open) :][:count]:
            one.is_cancelled = True
            one.task.cancel()
        self._pass(then)

    @step(
        lambda self: self.open,
        which=WHICH,
        count=st.integers(1, 6),
        word=st.sampled_from(["DONE", "BROKEN", "HALF"]),
        then=THEN,
    )
    def jobs_end(self, which: int, count: int, word: str, then: float) -> None:
        self._end({one.job for one in (self.open * 2)[which % len(self.open) :][:count]}, word)
        self._pass(then)

    def _end(self, names: set[str], word: str) -> None:
        for name in sorted(names):
            if name not in self.ended_at and name not in self.vanished:
                self.service.words[name] = word
                self.ended_at[name] = self.loop.time()
                self.strange.discard(name)

    @step(
        lambda self: not self._is_troubled,
        count=st.sampled_from([3, 15]),
        group=st.sampled_from("ab"),
        interval=st.sampled_from([30.0, 120.0]),
        kind=st.sampled_from(["spoils calls", "is left out by lists"]),
        error=st.sampled_from([*ERRORS]),
        then=LONG,
    )
    def jobs_are_waited_for_some_of_which_are_trouble_for_all(
        self, count: int, group: str, interval: float, kind: str, error: str, then: float
    ) -> None:
        self._wait_for(count, group, interval, 60.0)
        self._is_wrong()
        if kind == "spoils calls":
            self.service.poison.add(self.waiting[-1].job)
            self.service.poison_error = ERRORS[error]
        else:
            self.service.unlisted |= {one.job for one in self.waiting[-(2 * count // 3) :]}
        self._pass(then)

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def _is_wrong(self) -> None:
        self.wrong_since = self.loop.time() if self.wrong_since is None else self.wrong_since

    def _is_trouble(self) -> None:
        self._is_wrong()
        self.troubled_at = self.loop.time()

    @step(lambda self: self.open, kind=st.sampled_from(WRONG), which=WHICH, error=st.sampled_from([*ERRORS]), then=LONG)
    def a_job_gives_trouble(self, kind: str, which: int, error: str, then: float) -> None:
        self._is_wrong()
        service, name = self.service, self.open[which % len(self.open)].job
        if kind == "spoils calls":
            service.poison.add(name)
            service.poison_error = ERRORS[error]
        elif kind == "cannot be looked at":
            service.broken[name] = ERRORS[error]
        elif kind == "is left out by lists":
            service.unlisted.add(name)
        elif kind == "flickers":
            service.flickers.add(name)
        elif kind == "is forgotten" and name not in self.ended_at:
            self.vanished.add(name)
            self.strange.discard(name)
            service.words.pop(name, None)
        elif service.words.get(name) == "RUNNING":
            self._is_trouble()
            service.words[name] = "ZOMBIE"
            self.strange.add(name)
        self._pass(then)

    @step(kind=st.sampled_from(TROUBLE), operations=st.sampled_from(OPERATIONS), then=THEN)
    def there_is_trouble(self, kind: str, operations: list[str], then: float) -> None:
        self._is_trouble()
        if kind == "denied":
            self.service.denied |= {*operations} - {ONE}
        elif kind == "throttles":
            self.service.throttles |= {*operations}
        elif kind == "down":
            self.service.is_down = True
        elif kind.startswith("slow"):
            self.latency = float(kind.split()[1])
        else:
            self.service.expired |= set(range(self.clients + 1))
            self.reach_fails = 3 if kind == "no connection" else 0
        self._pass(then)

    @step(lambda self: self._is_troubled, then=THEN)
    def all_is_well_again(self, then: float) -> None:
        self._be_well()
        self._pass(then)

    def _be_well(self) -> None:
        if self.wrong_since is None:
            return
        self._is_trouble()
        self.service.throttles.clear()
        self.service.is_down, self.latency, self.reach_fails = False, 0.1, 0
        for name in self.strange:
            self.service.words[name] = "RUNNING"
        self.strange.clear()
        self.service.broken.clear()

    # -- time, and what must hold -------------------------------------------------------------------------------------

    @step(seconds=st.sampled_from([0.3, 3.0, 20.0, 100.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        until = self.loop.time() + seconds
        while True:
            self.loop.pass_time(min(2.0, max(0.0, until - self.loop.time())))
            self._look()
            if self.loop.time() >= until - 1e-6:
                break

    def _look(self) -> None:
        assert not self.loop.errors, self.loop.errors
        inv.WRONG_CALL.holds(not self.service.violations, str(self.service.violations))
        inv.ERROR_OF_ANOTHER.holds(self.contexts <= {""}, f"a call was made in the context of {self.contexts}")
        now = self.loop.time()
        for one in self.waiting:
            if one.task.done() and not one.is_cancelled and one.ended is None:
                one.ended = now
                self._ended(one, one.task.result())
            if one.ended is None and not one.is_cancelled and one.told:
                is_own = one.job in self.service.broken or one.job in self.strange
                inv.ERROR_OF_ANOTHER.holds(is_own or self.troubled_at >= one.began or self._is_troubled, f"{one.job}: {one.told}")
        if self.wrong_since is None:
            for one in self.open:
                ended = self.ended_at.get(one.job)
                longest = self._longest(one)
                inv.END_UNNOTICED.holds(
                    ended is None or now - max(ended, one.began) <= longest, f"{one.job} ended {now - (ended or 0):.0f} s ago"
                )
        self._look_at_calls()

    @property
    def _is_troubled(self) -> bool:
        return bool(self.service.throttles) or self.service.is_down or self.latency > 1 or self.reach_fails > 0

    def _longest(self, one: Waiting) -> float:
        """Between an end and its notice, where nothing is wrong: the interval, or what the budget allows, and the calls."""
        interval = _pause(one.interval, self.loop.time() - one.began + one.age)
        calls = len(self.open) + len(self.service.words) + 12
        return interval * (1.05 + 1 / DARING) + 4 + calls / self.rate.per_second

    def _ended(self, one: Waiting, seen: Observation) -> None:
        word = self.service.words.get(one.job)
        if seen.state is JobState.GONE:
            inv.END_MADE_UP.holds(one.job in self.vanished, f"{one.job} is gone, and {word}")
            return
        inv.END_MADE_UP.holds(one.job in self.ended_at and WORDS[str(word)] is seen.state, f"{one.job} is {seen}, and {word}")

    def _look_at_calls(self) -> None:
        for call in self.service.sent[self.looked_at :]:
            bucket, operation = self.buckets[call.operation], call.operation
            inv.BUDGET_EXCEEDED.holds(bucket.delay(call.at) <= 1e-6, f"{operation} {bucket.delay(call.at):.2f} s too early")
            bucket.spend(call.at)
            answered = max((at for at in self.throttled[operation] if at < call.at - 1e-6), default=-math.inf)
            inv.BUDGET_EXCEEDED.holds(
                call.at - answered >= 1 / self.rate.per_second - 1e-6, f"{operation} {call.at - answered:.2f} s after throttling"
            )
        self.looked_at = len(self.service.sent)
        now = self.loop.time()
        looks = 0.0
        for one in self.waiting:
            own = 1 + ((one.ended or now) - one.began) / (_pause(one.interval, one.age) * 0.95)
            looks += 4 * own if one.job in self.service.flickers else own  # what is said not to be there is looked at again
        split = 20 * len(self.service.poison)  # twice for each, in halves, until it is asked about alone
        most = looks * (1 + 1 / DARING) + 1 if self.wrong_since is None else 1.25 * looks + 10 + split
        inv.MORE_CALLS.holds(self.service.count() <= most, f"{self.service.count()} calls, {looks:.1f} looks")

    def end(self) -> None:
        if not hasattr(self, "fleet"):
            return
        self._be_well()
        self._end({one.job for one in self.open}, "DONE")
        for _ in range(120):
            if not self.open:
                break
            self.loop.pass_time(60.0)
            self._look()
        for one in self.open:
            inv.END_UNNOTICED.holds(False, f"{one.job}: {self.service.words.get(one.job)}")
        heard = {one.job for one in self.waiting if one.ended is not None and one.job in self.ended_at}
        rewatched = len(self.waiting)
        inv.END_TWICE.holds(len(heard) <= self.metrics.noticed <= rewatched, f"{self.metrics.noticed} of {len(heard)}")
        self.loop.pass_time(1.0)
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        inv.LEFT_BEHIND.holds(not left and not len(self.fleet), f"tasks {left}, pollers {len(self.fleet)}")
        inv.LEFT_BEHIND.holds(all(pool.is_closed and not pool.under_way for pool in self.pools), "calls")
        self.loop.pass_time(700.0)
        assert not self.loop.errors, self.loop.errors

    def clean_up(self) -> None:
        if hasattr(self, "loop"):
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


def _pause(own: float, age: float) -> float:
    return max(own, min(60.0, age / 20))


test_each_end_is_noticed_by_those_who_wait_for_it_and_within_the_budget = as_test(Waits, examples=80, steps=20)
