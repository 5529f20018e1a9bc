"""What happened to a task's jobs, in a few short events that are kept in the record: for people, never for a decision."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

MAX_EVENTS = 12
"""The first and the latest ones are kept."""

MAX_NOTE = 80
"""Characters of what an event says besides."""

SUBMITTED = "submitted"
HANDED_BACK = "handed back"
WORKER_LOST = "worker lost"
TRY_FAILED = "try failed"
CLEARED = "cleared"
REATTACHED = "reattached"
DELIVERED = "delivered"
TOLD_TO_STOP = "told to stop"
STOPPED = "stopped"
LEFT = "left running"


@dataclass(frozen=True, slots=True)
class Event:
    """
    One thing that happened.

    Args:
        at: when it was noted, in seconds since 1970; kept to the second.
        what: one of the words of this module, or the value of a `resumable.jobs.record.Outcome`.
        try_number: the try of the task that noted it, or that was the last one when somebody else did.
        note: which job, why, by whom: one short line.
    """

    at: float
    what: str
    try_number: int
    note: str = ""

    def to_json(self) -> list[Any]:
        """As the record has it: when, what, in which try, what besides."""
        when = datetime.fromtimestamp(self.at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [when, self.what, self.try_number, *([self.note] if self.note else [])]


def extended(events: tuple[Event, ...], at: float, what: str, try_number: int, note: object = "") -> tuple[Event, ...]:
    """``events`` and one more; of too many the second is left out, and so on."""
    text = " ".join(str(note).split())
    text = text if len(text) <= MAX_NOTE else text[: MAX_NOTE - 1] + "…"
    return _shortened((*events, Event(float(math.floor(at)), what, try_number, text)), MAX_EVENTS)


def _shortened(events: tuple[Event, ...], most: int) -> tuple[Event, ...]:
    if len(events) <= most:
        return events
    return (events[0], *events[len(events) - most + 1 :]) if most > 1 else events[-1:]


def to_json(events: tuple[Event, ...], room: int) -> list[list[Any]]:
    """As many events as ``room`` bytes of JSON take: what a decision needs goes first."""
    for most in range(len(events), 0, -1):
        data = [event.to_json() for event in _shortened(events, most)]
        if len(json.dumps(data)) <= room:
            return data
    return []


def from_json(data: Any) -> tuple[Event, ...]:
    """What can be read of it. Never an error: no decision depends on it."""
    return tuple(event for one in _items(data) if (event := _event(one)) is not None)[-MAX_EVENTS:]


def _items(data: Any) -> Iterable[Any]:
    return data if isinstance(data, list) else ()


def _event(data: Any) -> Event | None:
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) < 3:
        return None
    try:
        at = datetime.fromisoformat(str(data[0]).replace("Z", "+00:00")).timestamp()
        return Event(at, str(data[1]), int(data[2]), str(data[3]) if len(data) > 3 else "")
    except (ValueError, TypeError, OverflowError):
        return None
