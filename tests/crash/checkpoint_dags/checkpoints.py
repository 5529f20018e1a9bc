"""Tasks that note every effect of every item in a file, for tests that kill them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from resumable import Checkpoint, host, once
from tests.airflow.attempts import note_attempt
from tests.crash.effects import effect, remove_anywhere
from tests.support.names import DAG, task

COUNT = 400
EVERY = 25
ITEMS = [f"file-{n:04}" for n in range(COUNT)]
COMMON: dict[str, Any] = {"pre_execute": note_attempt, "retries": 3, "retry_delay": timedelta(seconds=1)}


def work(item: str) -> None:
    effect(item)
    time.sleep(0.02)


async def awork(item: str) -> None:
    effect(item)
    await asyncio.sleep(0.1)


async def many() -> None:
    async with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
        await checkpoint.map(awork, ITEMS, concurrency=5)


def many_of_its_own_loop() -> None:
    """Before 3.2 an asynchronous task makes its event loop itself."""
    asyncio.run(many())


amap = many if host.has_task_state() else many_of_its_own_loop


def make() -> str:
    effect("made")
    return "cluster-1"


def remove(cluster: str) -> None:
    effect(f"removed {cluster}")


with DAG("loop", schedule=None):

    @task(task_id="job", **COMMON)
    def loop() -> None:
        with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            for item in checkpoint.items(ITEMS):
                work(item)

    loop()

with DAG("loop_r0", schedule=None):

    @task(task_id="job", **{**COMMON, "retries": 0})
    def loop_r0() -> None:
        with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            for item in checkpoint.items(ITEMS):
                work(item)

    loop_r0()

with DAG("many", schedule=None):
    task(task_id="job", **COMMON)(amap)()

with DAG("many_r0", schedule=None):
    task(task_id="job", **{**COMMON, "retries": 0})(amap)()

with DAG("resource", schedule=None):

    @task(task_id="job", **COMMON)
    def resource() -> None:
        cluster = once("cluster", make, cleanup=remove)
        with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            for item in checkpoint.items(ITEMS):
                work(f"{item}@{cluster}")

    resource()

with DAG("resource_r0", schedule=None):

    @task(task_id="job", **{**COMMON, "retries": 0})
    def resource_r0() -> None:
        once("cluster", make, cleanup=remove_anywhere)
        time.sleep(600)

    resource_r0()
