"""Tasks that note every effect of every item in a file, for tests that kill them."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from resumable import Checkpoint, once
from tests.airflow.attempts import note_attempt

TARGET = Path(os.environ.get("TEST_TARGET", "/tmp"))
COUNT = 400
EVERY = 25
ITEMS = [f"file-{n:04}" for n in range(COUNT)]
COMMON: dict[str, Any] = {"pre_execute": note_attempt, "retries": 3, "retry_delay": timedelta(seconds=1)}


def effect(what: str) -> None:
    """One line of one write: it is there as a whole or not at all."""
    context = get_current_context()
    line = f"{context['ti'].dag_id} {context['ti'].run_id} {what}\n"
    with (TARGET / "effects").open("a", buffering=1) as file:
        file.write(line)


def work(item: str) -> None:
    effect(item)
    time.sleep(0.02)


async def awork(item: str) -> None:
    effect(item)
    await asyncio.sleep(0.1)


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

    @task(task_id="job", **COMMON)
    async def many() -> None:
        async with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            await checkpoint.map(awork, ITEMS, concurrency=5)

    many()

with DAG("many_r0", schedule=None):

    @task(task_id="job", **{**COMMON, "retries": 0})
    async def many_r0() -> None:
        async with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            await checkpoint.map(awork, ITEMS, concurrency=5)

    many_r0()

with DAG("resource", schedule=None):

    @task(task_id="job", **COMMON)
    def resource() -> None:
        cluster = once("cluster", make, cleanup=remove)
        with Checkpoint("files", every=EVERY, seconds=60) as checkpoint:
            for item in checkpoint.items(ITEMS):
                work(f"{item}@{cluster}")

    resource()
