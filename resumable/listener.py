"""
Hears of the tasks and runs that a user ends, and has their jobs stopped where no process of the task can do it.

Airflow calls a listener in the process where the mark is made: the API server, or for ``dagrun_timeout`` the scheduler. Neither
is a place for a provider's code. So a thread of ours waits until the task's own process has had its time, asks the database
whether a record is still open, and only then starts `resumable.sweep` in a process of its own.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from resumable import compat
from resumable.stores.table import RunId, TaskId, TaskStateTable

try:
    from airflow.listeners import hookimpl
except ImportError:  # importing this module must not fail where there is no Airflow
    hookimpl = lambda f: f  # noqa: E731

log = logging.getLogger("resumable.listener")

REPETITIONS = 6
"""Sweeps of one run that are tried again, each after twice as long: for about half an hour with the default delay."""


class Reaper:
    """Has each run swept ``[resumable] sweep_delay`` seconds after it was noted last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[RunId, float] = {}
        self._by_user: set[TaskId] = set()
        self._failures: Counter[RunId] = Counter()
        self._thread: threading.Thread | None = None

    def note(self, run: RunId, task: tuple[str, int] | None = None) -> None:
        """Have ``run`` swept; ``task`` (task_id, map_index) was ended by a user. Returns at once."""
        with self._lock:
            self._due[run] = time.monotonic() + compat.sweep_delay()
            if task is not None:
                self._by_user.add((*run, *task))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="resumable-sweep", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (wait := self._until_due()) is not None:
            time.sleep(wait)
            runs, by_user = self._take_due()
            try:
                is_settled = not any(True for _ in TaskStateTable().ended(runs)) or _sweep(runs, by_user)
            except Exception as e:
                log.warning("resumable: %s not swept: %r", sorted(runs), e)
                is_settled = False
            self._count(runs, by_user, is_settled)

    def _count(self, runs: set[RunId], by_user: set[TaskId], is_settled: bool) -> None:
        """Have what was not settled swept once more, later."""
        with self._lock:
            for run in runs:
                self._failures[run] += not is_settled
                failures = self._failures[run]
                if is_settled or failures > REPETITIONS:
                    del self._failures[run]
                    if not is_settled:
                        log.warning("resumable: %s was not swept; python -m resumable.sweep does it by hand", run)
                    continue
                due = time.monotonic() + compat.sweep_delay() * 2**failures
                self._due[run] = min(due, self._due.get(run, due))
                self._by_user |= {task for task in by_user if task[:2] == run}

    def _until_due(self) -> float | None:
        """Seconds until the first run is due; None, and the thread ends, if there is none."""
        with self._lock:
            if not self._due:
                self._thread = None
                return None
            return max(0.0, min(self._due.values()) - time.monotonic())

    def _take_due(self) -> tuple[set[RunId], set[TaskId]]:
        with self._lock:
            runs = {run for run, due in self._due.items() if due <= time.monotonic()}
            by_user = {task for task in self._by_user if task[:2] in runs}
            self._due = {run: due for run, due in self._due.items() if run not in runs}
            self._by_user -= by_user
        return runs, by_user


def _sweep(runs: set[RunId], by_user: set[TaskId]) -> bool:
    """Sweep in a process of its own; whether every job could be settled."""
    wanted = json.dumps({"runs": sorted(runs), "by_user": sorted(by_user)})
    command = [sys.executable, "-m", "resumable.sweep", "--only"]
    return subprocess.run(command, input=wanted, text=True, check=False, env={**os.environ}).returncode == 0


_reaper = Reaper()


def _hears() -> bool:
    """Whether there are records to look at in this process: a server's, of an Airflow with a task state store."""
    return compat.is_server() and compat.has_task_state()


def _user_ended(previous_state: Any, task_instance: Any) -> None:
    # Only the API server, after a user's mark, says nothing of the state before (None); the task and the scheduler do.
    if previous_state is None and _hears():
        ti = task_instance
        _reaper.note((ti.dag_id, ti.run_id), (ti.task_id, ti.map_index))


def _run_ended(dag_run: Any) -> None:
    if _hears():
        _reaper.note((dag_run.dag_id, dag_run.run_id))


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


@hookimpl
def on_task_instance_skipped(previous_state: Any, task_instance: Any) -> None:
    _user_ended(previous_state, task_instance)


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    _run_ended(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any) -> None:
    _run_ended(dag_run)
