"""The fleet of this process as ``[resumable]`` in airflow.cfg wants it. What is no setting is told of once, and not followed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from asgiref.sync import sync_to_async

from resumable import host
from resumable.errors import ConfigurationError
from resumable.fleet.budget import rates_of
from resumable.fleet.measures import Measures
from resumable.fleet.poller import Settings, Threads
from resumable.fleet.registry import Fleet, current_fleet

T = TypeVar("T")


class AirflowThreads(Threads):
    """Threads from which Airflow can be asked for a connection, as an operator's own code may: before 3.3 not from any."""

    def run(self, call: Callable[[], T]) -> Awaitable[T]:
        return sync_to_async(call, thread_sensitive=False, executor=self._threads)()


def fleet() -> Fleet:
    """The fleet of the running event loop."""
    return current_fleet(_make)


def _make() -> Fleet:
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
