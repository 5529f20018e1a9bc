"""Who waits for a job, for what, and what they hear of it meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from resumable.fleet.asks import Job
from resumable.fleet.lookups import Judge, Lookup, Reached
from resumable.jobs.decision import Observation
from resumable.jobs.record import JobHandle
from resumable.jobs.remote import VISIBLE_AFTER


@dataclass(frozen=True, slots=True)
class Target:
    """
    A job that is waited for.

    Args:
        handle: the job.
        lookup: how its service is asked.
        judge: what its operator makes of it.
        connection: what tells one way to reach the service from another: the connection's id, what else the client is made of.
        reach: makes the client. It is called in the task of somebody who waits, once for all that share the connection, and
            again when the credentials have expired or it has failed; it may raise anything.
        submitted_at: seconds since the epoch.
        interval: the operator's, in seconds.
        visible_after: seconds after its submit before "there is no such job" is believed.
    """

    handle: JobHandle
    lookup: Lookup
    judge: Judge
    connection: Hashable
    reach: Callable[[], Awaitable[Reached]]
    submitted_at: float
    interval: float
    visible_after: float = VISIBLE_AFTER

    @property
    def place(self) -> tuple[tuple[str, str], ...]:
        """Where the job lives, as the account's limits are counted there."""
        return tuple(sorted((str(name), str(value)) for name, value in self.handle.place.items()))

    @property
    def account(self) -> Hashable:
        """What the service counts calls by; the connection stands for an account that is not known."""
        known = dict(self.place)
        where = tuple((name, known[name]) for name in ("region", "workspace", "host") if name in known)
        return (known.get("account") or ("" if "workspace" in known else self.connection), where)

    @property
    def key(self) -> str:
        """What tells the job from the others of its service."""
        return json.dumps(self.handle.ids, sort_keys=True)


class Errand(Enum):
    """What a poller asks of somebody who waits."""

    CONNECT = "make the client"


class Waiter:
    """Somebody who waits. What is put in is heard in the waiter's own task."""

    __slots__ = ("_bell", "_news", "target", "watch")

    def __init__(self, target: Target, watch: Watch) -> None:
        self.target, self.watch = target, watch
        self._news: deque[Observation | Errand | str] = deque()
        self._bell: asyncio.Future[None] | None = None

    def put(self, news: Observation | Errand | str) -> None:
        self._news.append(news)
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def hear(self) -> Observation | Errand | str:
        while not self._news:
            self._bell = asyncio.get_running_loop().create_future()
            await self._bell
        return self._news.popleft()


@dataclass(eq=False, slots=True)
class Watch:
    """A job, those who wait for it, and whether they know that it cannot be seen."""

    job: Job
    key: str
    waiters: list[Waiter]
    is_told: bool = False

    def tell(self, news: Any) -> None:
        for waiter in self.waiters:
            waiter.put(news)
