"""Two triggerers of the harness's Airflow, of which one can be made to stand still."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.airflow.harness import Airflow
from tests.airflow.processes import kill, with_children


def free_to_write(airflow: Airflow) -> bool:
    """Whether no process holds the lock of the database, as one may that was just frozen."""
    with sqlite3.connect(airflow.home / "airflow" / "airflow.db", timeout=3, isolation_level=None) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


@contextmanager
def frozen(airflow: Airflow) -> Iterator[None]:
    """The triggerer stands still, with all its processes."""

    def send(sig: int) -> None:
        for process in with_children([psutil.Process(airflow._services._running["triggerer"].pid)]):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sig)

    send(signal.SIGSTOP)
    try:
        while not free_to_write(airflow):
            send(signal.SIGCONT)
            time.sleep(0.3)
            send(signal.SIGSTOP)
        yield
    finally:
        send(signal.SIGCONT)


def has_let_go(airflow: Airflow) -> bool:
    """Whether the triggerer has said that its triggers are another one's now: 3.4 then drops them, and tells them nothing."""
    return "reassigned to another triggerer" in (airflow.home / "logs-triggerer.txt").read_text()


@contextmanager
def another_triggerer(airflow: Airflow) -> Iterator[None]:
    log = airflow.home / "logs-triggerer-2.txt"
    process = airflow._services.spawn(["triggerer", "--skip-serve-logs"], log, {})
    try:
        yield
    finally:
        kill([process])
