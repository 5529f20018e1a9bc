"""A task that works through items with a `Checkpoint`, or holds what `once` made. Import the fixtures by name."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from resumable import Checkpoint, host
from resumable.stores.variables import VariableStore
from tests.support.runner import Effects, StateStoreDouble

KEY = "resumable.checkpoint.files"


class Task:
    """One task instance, its state, and the context of one attempt after the other."""

    def __init__(self):
        self.data, self.try_number, self.max_tries, self.clears = {}, 0, 3, 0
        self.code, self.down = (lambda: None), False
        self.operator = None

    def context(self):
        self.try_number += 1
        self.operator = SimpleNamespace(python_callable=self.code)
        ti = SimpleNamespace(
            dag_id="d",
            run_id="r",
            task_id="t",
            map_index=-1,
            try_number=self.try_number,
            max_tries=self.max_tries,
            task=self.operator,
        )
        run = SimpleNamespace(clear_number=self.clears, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
        store = StateStoreDouble(self.data, Effects(), lambda verb: self.down)
        return {"ti": ti, "task": self.operator, "dag_run": run, "task_state_store": store}

    def clear(self):
        self.max_tries = self.try_number + 3
        self.clears += 1

    def end(self, kind="on_success_callback"):
        for callback in getattr(self.operator, kind, []):
            callback({})

    def checkpoint(self, **arguments):
        return Checkpoint("files", context=self.context(), **{"every": 10, **arguments})

    def run(self, items, *, stop_after=None, **arguments):
        """One attempt; returns what it worked."""
        worked = []
        with self.checkpoint(**arguments) as checkpoint:
            for item in checkpoint.items(items):
                if len(worked) == stop_after:
                    raise WorkError
                worked.append(item)
        return worked

    def stopped(self, items, after, **arguments):
        with pytest.raises(WorkError):
            self.run(items, stop_after=after, **arguments)


class WorkError(Exception):
    pass


@pytest.fixture
def task():
    return Task()


ITEMS = [f"f{n:03}" for n in range(100)]


def amap(task, work, items=ITEMS, **arguments):
    async def run():
        async with task.checkpoint() as checkpoint:
            await checkpoint.map(work, items, **arguments)

    asyncio.run(run())


class Cloud:
    def __init__(self):
        self.made, self.removed, self.dies = [], [], False

    def create(self, token):
        if token not in self.made:
            self.made.append(token)
        if self.dies:
            raise WorkError
        return f"cluster {token}"

    def remove(self, value):
        self.removed.append(value)


@pytest.fixture
def variables(task, monkeypatch):
    """The task's state in Airflow Variables, on an Airflow 3 that has taken note of its success; `state` says otherwise."""
    if not host.has_sdk():
        pytest.skip("Airflow 2 tells a listener of the success: tests/versions")

    class Names(dict):
        state = "success"

        def set(self, name, text, description):
            self[name] = text

        def delete(self, name):
            self.pop(name, None)

    names = Names()
    monkeypatch.setattr(host, "state_store", lambda context: VariableStore(host.task_identity(context), names))
    monkeypatch.setattr(host, "own_state", lambda context: names.state)
    return names


@pytest.fixture
def stopped_task(task, monkeypatch):
    """A task whose process gets real signals, handled as Airflow's task runner does; `state` is what Airflow says of it."""
    task.state = "running"
    task.own_on_kill = []
    lock = threading.Lock()
    monkeypatch.setattr("resumable.host.own_state", lambda context: task.state)
    monkeypatch.setattr("resumable.host.request_lock", lambda: lock)
    monkeypatch.setattr("resumable.host.ending.SIGKILL_GRACE_SECONDS", 0)
    monkeypatch.setenv("AIRFLOW__CORE__KILLED_TASK_CLEANUP_TIME", "0")
    monkeypatch.setattr("resumable.stop.watch.ITEM_GRACE_SECONDS", 0.2)
    context_of = task.context

    def context():
        made = context_of()

        class Operator:
            python_callable = staticmethod(task.code)

            def on_kill(self):
                task.own_on_kill.append(1)

        task.operator = made["ti"].task = made["task"] = Operator()
        return made

    task.context = context
    before = signal.signal(signal.SIGTERM, lambda *_: task.operator.on_kill())
    yield task
    signal.signal(signal.SIGTERM, before)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
