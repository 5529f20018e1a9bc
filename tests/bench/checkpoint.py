"""
What a checkpoint costs: a plain loop against a checkpointed one, without and with concurrency, on a store that takes 15 ms.

    python -m tests.bench.checkpoint > result.json
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from resumable import Checkpoint
from resumable.checkpoint.done import KeyList, encoded
from resumable.stores import MemoryStore

REQUEST = 0.015
"""Seconds of one request to the task state store of Airflow 3.3 (p50 on LocalExecutor with Postgres)."""


class SlowStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.writes = self.reads = self.written = 0

    def get(self, key: str, default: Any = None) -> Any:
        time.sleep(REQUEST)
        self.reads += 1
        return super().get(key)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        time.sleep(REQUEST)
        self.writes += 1
        self.written += len(json.dumps(value))
        super().set(key, value)


def context(store: SlowStore, number: int = 1) -> dict[str, Any]:
    operator = SimpleNamespace(python_callable=main)
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=number, max_tries=3, task=operator)
    run = SimpleNamespace(clear_number=0, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
    return {"ti": ti, "task": operator, "dag_run": run, "task_state_store": store}


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def compare(items: list[str], plain: Callable[[], Any], checkpointed: Callable[[SlowStore], Any]) -> dict[str, Any]:
    """Of five runs of each, in turn, the fastest: what else the machine does only slows down."""
    without = with_ = float("inf")
    for _ in range(5):
        store = SlowStore()
        without, with_ = min(without, seconds(plain)), min(with_, seconds(lambda: checkpointed(store)))  # noqa: B023
    tracemalloc.start()
    checkpointed(SlowStore())
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "plain_s": round(without, 3),
        "checkpointed_s": round(with_, 3),
        "ratio": round(with_ / without, 2),
        "microseconds_per_item": round((with_ - without) / len(items) * 1e6, 2),
        "of_these_not_waiting_for_the_store": round(
            (with_ - without - REQUEST * (store.reads + store.writes)) / len(items) * 1e6, 2
        ),
        "store_reads": store.reads,
        "store_writes": store.writes,
        "bytes_written": store.written,
        "peak_memory_mb": round(memory / 1e6, 1),
    }


def main() -> None:
    items = [f"bucket/data/2026/file-{n:07}.parquet" for n in range(100_000)]
    seen: set[str] = set()

    def plain() -> None:
        for item in items:
            seen.add(item)

    def loop(store: SlowStore) -> None:
        with Checkpoint("files", context=context(store)) as checkpoint:
            for item in checkpoint.items(items):
                seen.add(item)

    async def work(item: str) -> None:
        seen.add(item)
        await asyncio.sleep(0)

    def plain_async() -> None:
        async def run() -> None:
            todo = iter(items)

            async def worker() -> None:
                for item in todo:
                    await work(item)

            await asyncio.gather(*(worker() for _ in range(20)))

        asyncio.run(run())

    def many(store: SlowStore) -> None:
        async def run() -> None:
            async with Checkpoint("files", context=context(store)) as checkpoint:
                await checkpoint.map(work, items, concurrency=20)

        asyncio.run(run())

    loop(SlowStore())  # imports Airflow's settings
    result: dict[str, Any] = {"sync": compare(items, plain, loop), "async": compare(items, plain_async, many)}

    store = SlowStore()
    loop(store)

    def retry() -> None:
        with Checkpoint("files", context=context(store, 2)) as checkpoint:
            assert next(iter(checkpoint.items([*items, "z"]))) == "z"

    result["retry_to_the_first_undone_of_100000_s"] = round(seconds(retry), 3)
    draw = random.Random(1)
    million = [f"bucket/data/2026/file-{n:07}.parquet" for n in range(1_000_000)]
    kept: dict[str, int] = {"list": len(json.dumps(KeyList(million, limit=64_000).to_json()))}
    for name, chance in (("all done", 1.0), ("1 in 1000 failed", 0.999), ("1 in 100 failed", 0.99), ("half, at random", 0.5)):
        kept[name] = len(json.dumps(encoded(bytearray(draw.random() < chance for _ in million))))
    result["bytes_of_1000000_items"] = kept
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
