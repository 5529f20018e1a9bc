"""
What a checkpoint adds to a loop, by the time of an item and the time of a write: the 95th percentile of ten runs each.

    python -m tests.bench.overhead_table [--runs 10] [--seconds 1.0] > result.json

``added_percent`` is what the run took longer than a plain loop right before it, without the read and the three writes that there
always are (the list, the beginning, the end), in percent of the plain loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from resumable import Checkpoint
from resumable.stores import MemoryStore
from tests.bench.checkpoint import SlowStore, context, seconds

ITEMS = (0.0001, 0.001, 0.01)
WRITES = (0.001, 0.015, 0.1, 2.0)


class Store(SlowStore):
    """A write takes ``takes`` seconds, a read as long, but not more than 15 ms."""

    def __init__(self, takes: float) -> None:
        super().__init__()
        self.takes = takes

    def get(self, key: str, default: Any = None) -> Any:
        time.sleep(min(self.takes, 0.015))
        self.reads += 1
        return MemoryStore.get(self, key)

    def set(self, key: str, value: Any) -> None:
        time.sleep(self.takes)
        self.writes += 1
        MemoryStore.set(self, key, value)


def work(takes: float) -> None:
    if takes >= 0.001:
        time.sleep(takes)
        return
    until = time.perf_counter() + takes  # a sleep this short is not
    while time.perf_counter() < until:
        pass


def measured(each: float, takes: float, runs: int, length: float) -> dict[str, Any]:
    items = range(int(length / each))
    added, writes = [], []
    for _ in range(runs):
        store = Store(takes)

        def plain() -> None:
            for _ in items:
                work(each)

        def checkpointed(store: Store = store) -> None:
            with Checkpoint("files", context=context(store)) as checkpoint:
                for _ in checkpoint.items(items):
                    work(each)

        without = seconds(plain)
        with_ = seconds(checkpointed)
        always = 3 * takes + store.reads * min(takes, 0.015)
        added.append(100 * (with_ - without - always) / without)
        writes.append(store.writes)
    return {
        "item_ms": each * 1000,
        "write_ms": takes * 1000,
        "added_percent_p95": round(statistics.quantiles(added, n=20)[-1] if runs > 1 else added[0], 1),
        "added_percent_median": round(statistics.median(added), 1),
        "writes": max(writes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long the plain loop takes")
    given = parser.parse_args()
    measured(0.01, 0.001, 1, 0.1)  # imports Airflow's settings
    rows = [measured(each, takes, given.runs, given.seconds) for each in ITEMS for takes in WRITES]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
