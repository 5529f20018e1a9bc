"""All pollers of a process: who waits for a job finds the one that asks about it, or begins it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TypeVar

from asgiref.sync import sync_to_async

from resumable import host
from resumable.errors import ConfigurationError
from resumable.fleet.budget import SHARE, Budgets, Rate, rates_of
from resumable.fleet.lookups import ASSUMED
from resumable.fleet.measures import Measures
from resumable.fleet.poller import Poller, Settings, Threads
from resumable.fleet.waiting import Target
from resumable.jobs.decision import Observation

T = TypeVar("T")


class Fleet:
    """
    The pollers of one event loop: of a triggerer process.

    Args:
        settings: of every poller.
        share: of the published rates, what this process asks at most.
        rates: by operation, those that are taken as they are given.
        measures: what is counted.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        share: float = SHARE,
        rates: Mapping[str, Rate] | None = None,
        measures: Measures | None = None,
    ) -> None:
        self._settings, self._measures = settings or Settings(), measures or Measures()
        self._published: dict[str, Rate] = {}
        clock = asyncio.get_running_loop().time
        self.budgets = Budgets(self._published, default=ASSUMED, clock=clock, share=share, settings=rates)
        self._pollers: dict[Hashable, Poller] = {}

    def __len__(self) -> int:
        return len(self._pollers)

    async def watch(self, target: Target, tell: Callable[[str], None]) -> Observation:
        """
        Wait until a job runs no more.

        Args:
            target: the job.
            tell: called, in the task that waits, with a line for its log when the job cannot be seen, and when it is seen again.

        Returns: what was seen of it. GONE only under the rules of `resumable.jobs.remote`; UNKNOWN once it could not be seen for
            `Settings.lost_after`. FAILING is an end as well: the try fails, whatever parts of the job still run.
        """
        key = (target.lookup.name, target.place, target.connection)
        poller = self._pollers.get(key)
        if poller is None:
            self._published.update(target.lookup.rates)

            def ended() -> None:
                if self._pollers.get(key) is poller:
                    del self._pollers[key]
                self.budgets.forget_rested()

            poller = self._pollers[key] = Poller(
                target, budgets=self.budgets, measures=self._measures, settings=self._settings, ended=ended
            )
        return await poller.wait(target, tell)


_fleets: dict[asyncio.AbstractEventLoop, Fleet] = {}


def current_fleet() -> Fleet:
    """The fleet of the running event loop; made when it is asked for first."""
    loop = asyncio.get_running_loop()
    for ended in [other for other in _fleets if other.is_closed()]:
        del _fleets[ended]
    if loop not in _fleets:
        _fleets[loop] = _configured()
    return _fleets[loop]


def _configured() -> Fleet:
    """As ``[resumable]`` in airflow.cfg wants it. What is no setting is told of once, and not followed."""
    try:
        rates = rates_of(host.setting("fleet_rates") or "")
    except ConfigurationError as e:
        host.say_once(f"airflow.cfg {e} The published rates are taken.")
        rates = {}
    settings = Settings(
        at_once=int(host.number("fleet_threads")),
        lost_after=host.number("lost_sight_after"),
        pool=AirflowThreads,
    )
    return Fleet(settings, share=host.number("fleet_share"), rates=rates, measures=Measures(host.stats()))


class AirflowThreads(Threads):
    """Threads from which Airflow can be asked for a connection, as an operator's own code may: before 3.3 not from any."""

    def run(self, call: Callable[[], T]) -> Awaitable[T]:
        return sync_to_async(call, thread_sensitive=False, executor=self._threads)()
