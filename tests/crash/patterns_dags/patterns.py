"""What people really write with a checkpoint, a watermark and `once`: see test_patterns.py."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseSensorOperator, CronDataIntervalTimetable, get_current_context, task

from resumable import Checkpoint, Watermark, once
from tests.airflow.attempts import note_attempt
from tests.crash.effects import effect

ITEMS = [f"file-{n:04}" for n in range(100)]
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
RETRY: dict[str, Any] = {"pre_execute": note_attempt, "retries": 3, "retry_delay": timedelta(seconds=5)}
FOLDER = Path(os.environ["TEST_TARGET"])


def wait_for(name: str, seconds: float = 90) -> None:
    """Until the test makes this file."""
    deadline = time.monotonic() + seconds
    while not (FOLDER / name).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.05)


with DAG("stages", schedule=None):

    @task(task_id="job", **RETRY)
    def stages() -> None:
        ti = get_current_context()["ti"]
        with Checkpoint("first") as first:
            effect(f"token {first.token}")
            for item in first.items(ITEMS):
                effect(f"first {item}")
        with Checkpoint("second", every=1) as second:
            for item in second.items(ITEMS):
                if item == ITEMS[50] and ti.try_number == 1:
                    raise RuntimeError("the second stage fails")
                effect(f"second {item}")

    @task(task_id="sibling")
    def sibling() -> None: ...

    stages()
    sibling()


with DAG("threads", schedule=None):

    @task(task_id="job", **{**RETRY, "retries": 0})
    def threads() -> None:
        def work(item: str) -> None:
            effect(item)
            time.sleep(0.3)

        with Checkpoint("files", every=5) as checkpoint:
            checkpoint.map(work, ITEMS, concurrency=4)

    threads()


with DAG("slow_store", schedule=None):

    @task(task_id="job", **{**RETRY, "retries": 0})
    def slow_store() -> float:
        began = time.monotonic()
        with Checkpoint("files", seconds=0.2) as checkpoint:
            for _ in checkpoint.items(range(300)):
                time.sleep(0.01)
        return time.monotonic() - began

    slow_store()


with DAG("reads_ahead", schedule=None):

    @task(task_id="job", **RETRY)
    def reads_ahead() -> None:
        with Checkpoint("files") as checkpoint:
            for item in list(checkpoint.items(ITEMS)):
                effect(item)

    reads_ahead()


with DAG("in_use", schedule=None):

    def make(token: str) -> str:
        effect(f"made {token}")
        return f"cluster-{token}"

    def remove(cluster: str) -> None:
        effect(f"removed {cluster}")

    @task(task_id="job", **RETRY)
    def in_use() -> None:
        context = get_current_context()
        cluster = once("cluster", make, cleanup=remove)
        effect(f"use {context['ti'].try_number} {cluster}")
        wait_for(f"{context['dag_run'].run_id}-{context['ti'].try_number}")

    in_use()


DAILY = Asset("daily")

with DAG(
    "daily",
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=START,
    end_date=START + timedelta(days=2),
    catchup=True,
    max_active_runs=1,
):

    @task(task_id="job", inlets=[DAILY], outlets=[DAILY], **RETRY)
    def daily() -> list[str]:
        with Watermark("daily", asset=DAILY, start=START - timedelta(days=9), lag=timedelta(0)) as mark:
            mark.advance()
        days = [START + timedelta(days=n) for n in range(-9, 400)]
        return [day.date().isoformat() for day in days if mark.since < day <= mark.until]

    daily()


SHARED, SHOPS, BOTH = Asset("shared"), Asset("shops"), Asset("both")

with DAG("two_tasks", schedule=None, max_active_runs=1):

    @task(inlets=[SHARED], retries=3)
    def load_eu() -> list[int]:
        with Watermark("orders", asset=SHARED, start=0, until=10) as mark:
            mark.advance()
        return [mark.since, mark.until]

    @task(inlets=[SHARED], retries=3)
    def load_us() -> list[int]:
        with Watermark("orders", asset=SHARED, start=0, until=10) as mark:
            mark.advance()
        return [mark.since, mark.until]

    @task(inlets=[SHARED])
    def follow() -> list[int]:
        with Watermark("orders", asset=SHARED, start=0, moves=False) as mark:
            return [mark.since, mark.until]

    first = load_eu()
    first >> load_us()
    first >> follow()


with DAG("shops", schedule=None, max_active_runs=1):

    @task
    def list_shops() -> list[str]:
        listed: list[str] = get_current_context()["dag_run"].conf["shops"]
        return listed

    @task
    def shop(name: str) -> list[Any]:
        conf = get_current_context()["dag_run"].conf
        with Watermark(f"orders-{name}", start=0, until=conf["until"]) as mark:
            if name == conf.get("fails"):
                raise RuntimeError("the shop is down")
            mark.advance()
        return [name, mark.since, mark.until]

    shop.expand(name=list_shops())


class Wait(BaseSensorOperator):
    """Waits until a row lies beyond the mark."""

    def poke(self, context: Any) -> bool:
        with Watermark("arrivals", start=START, lag=timedelta(0)) as mark:
            has_come = datetime.fromtimestamp(context["dag_run"].conf["row"], timezone.utc) <= mark.until
            if has_come:
                mark.advance()
        return has_come


with DAG("sensor", schedule=None, max_active_runs=1):
    Wait(task_id="poking", poke_interval=1, timeout=60)
    Wait(task_id="rescheduled", mode="reschedule", poke_interval=1, timeout=60)


with DAG("at_once", schedule=None, max_active_runs=2):

    @task(task_id="job", inlets=[BOTH], **{**RETRY, "retries": 1})
    def at_once() -> list[int]:
        run = get_current_context()["dag_run"]
        with Watermark("rows", asset=BOTH, start=0, until=run.conf["until"]) as mark:
            effect(f"given {mark.since} {mark.until}")
            wait_for(f"{run.run_id}-go")
            if run.conf.get("fails"):
                raise RuntimeError("the source is down")
            mark.advance()
        return [mark.since, mark.until]

    at_once()
