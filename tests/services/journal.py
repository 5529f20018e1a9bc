"""What a service received and what became of each answer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

Answer = Literal["sent", "dropped", "refused", "held"]


@dataclass(frozen=True)
class Call:
    """
    One received request.

    Attributes:
        time: ``time.time()`` of its arrival.
        operation: the service's name of it, e.g. "runs/submit" or "AddJobFlowSteps".
        body: the parsed request.
        answer: what became of the answer; "held" means that there is none yet.
        status: the HTTP status sent, None if there is no answer (yet).
    """

    time: float
    operation: str
    body: dict[str, Any]
    answer: Answer = "held"
    status: int | None = None


class Journal:
    """The calls in order of arrival; every method may be called from any thread."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._changed = threading.Condition()

    def open(self, operation: str, body: dict[str, Any]) -> int:
        """Enter a call that just arrived and return its number."""
        with self._changed:
            self._calls.append(Call(time.time(), operation, body))
            self._changed.notify_all()
            return len(self._calls) - 1

    def close(self, number: int, answer: Answer, status: int | None = None) -> None:
        """Enter what became of the answer; done before it is sent, so that no client is ahead of us."""
        with self._changed:
            self._calls[number] = replace(self._calls[number], answer=answer, status=status)
            self._changed.notify_all()

    def calls(self, operation: str | None = None) -> list[Call]:
        """Return a copy, of one *operation* or of all."""
        with self._changed:
            return [call for call in self._calls if operation in (None, call.operation)]

    def wait_for(self, operation: str, count: int, timeout: float, *, answered: bool) -> list[Call]:
        """Block until *count* calls were received (with *answered*: also answered or dropped)."""

        def seen() -> list[Call]:
            return [call for call in self.calls(operation) if not answered or call.answer != "held"]

        with self._changed:
            if not self._changed.wait_for(lambda: len(seen()) >= count, timeout):
                raise TimeoutError(f"{len(seen())} of {count} {operation} calls within {timeout} s")
            return seen()
