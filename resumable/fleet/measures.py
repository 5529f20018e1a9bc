"""What is seen of the fleet from outside: metrics ``resumable_fleet.*``, and a line a minute in the log of whoever is busy.

======================================  =========================================================================
``resumable_fleet.jobs``                gauge: jobs that are waited for
``resumable_fleet.calls``               counter: status calls
``resumable_fleet.jobs_per_call``       gauge: jobs seen in the last minute, by the calls that it took
``resumable_fleet.throttled``           counter: calls that were answered with "too many"
``resumable_fleet.notice_lag``          timer: from the last look at which a job ran to the one at which it did not;
                                        the time since its end is less
======================================  =========================================================================

Each has the tag ``poller``: service and place. They are sent once a minute, the timer at once.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

_log = logging.getLogger("resumable.fleet")

MINUTE = 60.0

BUSY_JOBS, BUSY_CALLS = 100, 30
"""From so many jobs, or calls in a minute, on, a poller has a line in the log; and where it was throttled."""


class Sink(Protocol):
    """Airflow's ``Stats``, as far as it is used."""

    def incr(self, stat: str, count: int = 1, *, tags: dict[str, str]) -> Any: ...

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> Any: ...

    def timing(self, stat: str, dt: float, *, tags: dict[str, str]) -> Any: ...


@dataclass(slots=True)
class _Minute:
    began: float
    watched: int = 0
    calls: int = 0
    jobs: int = 0
    throttled: int = 0
    noticed: int = 0
    longest: float = 0.0


class Measures:
    """
    Args:
        sink: takes the metrics; an error of it changes nothing. None: nobody does.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._minutes: dict[str, _Minute] = {}

    def called(self, poller: str, now: float, *, calls: int, watched: int) -> None:
        """``calls`` go out, while ``watched`` jobs are waited for."""
        minute = self._minutes.setdefault(poller, _Minute(now))
        if now - minute.began >= MINUTE:
            self._send(poller, minute, now)
            minute = self._minutes[poller] = _Minute(now)
        minute.calls += calls
        minute.watched = watched

    def answered(self, poller: str, jobs: int) -> None:
        """They were answered, and have shown so many jobs."""
        if (minute := self._minutes.get(poller)) is not None:
            minute.jobs += jobs

    def throttled(self, poller: str) -> None:
        if (minute := self._minutes.get(poller)) is not None:
            minute.throttled += 1

    def noticed(self, poller: str, lag: float) -> None:
        """A job was seen to have ended, ``lag`` seconds after it had been seen to run."""
        if (minute := self._minutes.get(poller)) is not None:
            minute.noticed += 1
            minute.longest = max(minute.longest, lag)
        if self._sink is not None:
            with suppress(Exception):
                self._sink.timing("resumable_fleet.notice_lag", lag * 1000, tags={"poller": poller})

    def ended(self, poller: str) -> None:
        """Nobody waits for a job of this poller any more."""
        if (minute := self._minutes.pop(poller, None)) is not None:
            minute.watched = 0
            self._emit(poller, minute)

    def _send(self, poller: str, minute: _Minute, now: float) -> None:
        self._emit(poller, minute)
        if minute.watched < BUSY_JOBS and minute.calls < BUSY_CALLS and not minute.throttled:
            return
        _log.info(
            "resumable fleet: %s: %d jobs, %d status calls in %.0f s, %.1f jobs a call, %d throttled, %d ends noticed, at most "
            "%.0f s late",
            poller,
            minute.watched,
            minute.calls,
            now - minute.began,
            minute.jobs / max(1, minute.calls),
            minute.throttled,
            minute.noticed,
            minute.longest,
        )

    def _emit(self, poller: str, minute: _Minute) -> None:
        if self._sink is None:
            return
        tags = {"poller": poller}
        with suppress(Exception):
            self._sink.gauge("resumable_fleet.jobs", minute.watched, tags=tags)
            self._sink.gauge("resumable_fleet.jobs_per_call", minute.jobs / max(1, minute.calls), tags=tags)
            self._sink.incr("resumable_fleet.calls", minute.calls, tags=tags)
            if minute.throttled:
                self._sink.incr("resumable_fleet.throttled", minute.throttled, tags=tags)
