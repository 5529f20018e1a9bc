"""
What a checkpoint adds to a loop, by the time of an item and the time of a write: the 95th percentile of ten runs each.

    python -m tests.bench.overhead_table [--runs 10] [--seconds 1.0] > result.json

``added_percent`` is what a checkpoint took of the loop's thread, in percent of the plain loop's time: the CPU time above that
of a plain loop right before it, and the time that the loop waited for the store, without the read and the three writes that
there always are (the list, the beginning, the end). Other programs on the machine disturb neither much. ``counted_percent`` is
what they do not disturb at all: that CPU time, and the number of the other writes times what a write takes.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from resumable import Checkpoint
from resumable.stores import MemoryStore
from tests.bench.checkpoint import SlowStore, context

ITEMS = (0.0001, 0.001, 0.01)
WRITES = (0.001, 0.015, 0.1, 2.0)


class Store(SlowStore):
    """A write takes ``takes`` seconds."""

    def __init__(self, takes: float) -> None:
        super().__init__()
        self.takes = takes
        self.waited: list[float] = []

    def get(self, key: str, default: Any = None) -> Any:
        return MemoryStore.get(self, key)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        began = time.perf_counter()
        time.sleep(self.takes)
        MemoryStore.set(self, key, value)
        self.waited.append(time.perf_counter() - began)


def timed(call: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall, time.thread_time() - cpu


def measured(each: float, takes: float, runs: int, length: float) -> dict[str, Any]:
    items = range(int(length / each))
    added, counted, writes = [], [], []
    for _ in range(runs):
        store = Store(takes)

        def plain() -> None:
            for _ in items:
                time.sleep(each)

        def checkpointed(store: Store = store) -> None:
            with Checkpoint("files", context=context(store)) as checkpoint:
                for _ in checkpoint.items(items):
                    time.sleep(each)

        (without, cpu_without), (_, cpu_with) = timed(plain), timed(checkpointed)
        more = sum(store.waited[2:-1])  # without the list, the beginning and the end
        added.append(100 * (max(0.0, cpu_with - cpu_without) + more) / without)
        writes.append(len(store.waited))
        counted.append(100 * (max(0.0, cpu_with - cpu_without) + len(store.waited[2:-1]) * takes) / without)
    return {
        "item_ms": each * 1000,
        "write_ms": takes * 1000,
        "added_percent_p95": round(statistics.quantiles(added, n=20)[-1] if runs > 1 else added[0], 2),
        "added_percent_median": round(statistics.median(added), 2),
        "counted_percent_p95": round(statistics.quantiles(counted, n=20)[-1] if runs > 1 else counted[0], 2),
        "writes": max(writes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the plain loop takes")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    measured(0.01, 0.001, 1, 0.1)  # imports Airflow's settings
    rows = [measured(each, takes, given.runs, given.seconds) for each in ITEMS for takes in WRITES]
    sys.stdout.write(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
