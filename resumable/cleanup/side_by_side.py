"""
Many rows at once, each in a thread of its own, so that none waits for one that takes too long.

A thread cannot be ended: one that hangs in a service, or in somebody's operator, is left, and another one takes its place.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


def side_by_side(
    work: Sequence[Work], settle: Callable[[Work], Result], *, workers: int, seconds: float
) -> Iterator[tuple[Work, Result | None]]:
    """
    Each piece of ``work`` with what ``settle`` has returned for it, in the order in which they are done.

    Args:
        work: what there is to do.
        settle: does a piece of it, and raises nothing.
        workers: threads.
        seconds: a piece that takes longer comes with None.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result]] = queue.SimpleQueue()
    began: dict[int, float] = {}
    for number in range(len(work)):
        waiting.put(number)

    def serve() -> None:
        with suppress(queue.Empty):
            while True:
                number = waiting.get_nowait()
                began[number] = time.monotonic()
                done.put((number, settle(work[number])))

    def hire() -> None:
        threading.Thread(target=serve, name="resumable-sweep-row", daemon=True).start()

    def done_or_late() -> list[tuple[int, Result | None]]:
        with suppress(queue.Empty):
            number, result = done.get(timeout=0.5)
            return [(number, result)] if number in open_ else []
        now = time.monotonic()
        return [(n, None) for n in open_ if n in began and now - began[n] > seconds]

    for _ in range(min(workers, len(work))):
        hire()
    open_ = set(range(len(work)))
    while open_:
        for number, result in done_or_late():
            open_.discard(number)
            if result is None:
                hire()  # in the place of the one that hangs
            yield work[number], result
