"""
What can go wrong between a client and a service, as values that a test hands to ``server.fault(...)``.

A fault acts on one call (or on ``times`` of them); the service behind it stays healthy.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

HOLD_CAP = 120.0
"""Seconds after which a held call goes on by itself, so that a failed test cannot hang its server."""


@dataclass(frozen=True)
class Drop:
    """
    The service does the work, then the connection is closed without a single byte of answer.

    Args:
        before_effect: True closes it without doing the work: the request got lost.
    """

    before_effect: bool = False

    def let_go_dropped(self) -> bool:
        """Return at once that the connection is to be closed."""
        return True


@dataclass(frozen=True)
class Refuse:
    """
    Answer *status* instead of the real answer.

    Args:
        status: the HTTP status.
        body: a JSON body; None gives the service's usual error body for that status.
        after_effect: True does the work first: the service accepted, only the answer says otherwise.
    """

    status: int = 503
    body: dict[str, Any] | str | None = None
    after_effect: bool = False


class Hold:
    """
    Keep the caller waiting for its answer until ``release()``.

    A client that gives up, or dies, while it is held changes nothing for the service: with
    *before_effect* the work is still done after ``release()``, as for a request that was in flight.

    Args:
        before_effect: True waits before the work is done; False (default) waits with the work done.

    Attributes:
        reached_at: time.monotonic() of the first call that was held.
    """

    def __init__(self, *, before_effect: bool = False) -> None:
        self.before_effect = before_effect
        self._is_dropped = False
        self.reached_at = 0.0
        self._reached = threading.Event()
        self._released = threading.Event()

    def wait_reached(self, timeout: float = 10.0) -> None:
        """Block until a call is being held. Raises: TimeoutError: none arrived in *timeout* seconds."""
        if not self._reached.wait(timeout):
            raise TimeoutError(f"no call reached the hold within {timeout} s")

    def release(self, *, drop: bool = False) -> None:
        """
        Let the held call go on; later calls are not held any more.

        Args:
            drop: True closes the connection instead, and leaves undone what was not done yet.
        """
        self._is_dropped = drop
        self._released.set()

    def let_go_dropped(self) -> bool:
        """Wait for the release (called by the server) and return whether the connection is to be closed."""
        self.reached_at = self.reached_at or time.monotonic()
        self._reached.set()
        self._released.wait(HOLD_CAP)
        return self._is_dropped


Fault = Drop | Refuse | Hold
