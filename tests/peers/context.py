"""What a unit test leaves out of Airflow's context, for our part alone: the provider's code is given the test's own."""

from __future__ import annotations

import socket
import sys
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from resumable.jobs.operator import DurableTask
from resumable.jobs.record import KEY
from resumable.jobs.run import JobRun


class MemoryTaskState:
    """``context["task_state_store"]`` for our own keys; for the provider's, what the test has put there, if anything."""

    def __init__(self, theirs: Any = None) -> None:
        self.data: dict[str, Any] = {}
        self.theirs = theirs

    def get(self, key: str, default: Any = None) -> Any:
        if self.theirs is not None and not key.startswith(KEY):
            return self.theirs.get(key)
        return self.data.get(key, default)

    def set(self, key: str, value: Any, **_: Any) -> None:
        self.data[key] = value

    def delete(self, key: str) -> None:
        self.data.pop(key, None)


def completed(context: Any, operator: Any) -> dict[str, Any]:
    """``context`` with what our part needs; where the test has given a task state store, of a second try, which looks into it."""
    given = context if isinstance(context, Mapping) else {}
    theirs = given.get("task_state_store")
    ti = types.SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id=operator.task_id,
        map_index=-1,
        try_number=1 if theirs is None else 2,
        max_tries=0,
        start_date=None,
        get_task_states=lambda **_: {"run": {operator.task_id: "running"}},
    )
    run = types.SimpleNamespace(run_id="run", clear_number=0, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))
    ours = {"ti": ti, "task_instance": ti, "dag_run": run, "task": operator, "task_state_store": MemoryTaskState(theirs)}
    return {**given, **ours}


@contextmanager
def contexts_completed() -> Iterator[None]:
    """While it is open, an operator's own part runs on a completed context."""
    execute, call_theirs = DurableTask.execute, JobRun.call_theirs
    given: dict[int, Any] = {}

    def execute_completed(self: Any, context: Any, theirs: Any) -> Any:
        operator = self.operator
        if not self.is_durable or id(operator) in given:
            return execute(self, context, theirs)
        given[id(operator)] = context
        try:
            return execute(self, completed(context, operator), theirs)
        finally:
            del given[id(operator)]

    def call_theirs_as_given(self: Any, theirs: Any) -> Any:
        self.given_context = given.get(id(self.operator), self.given_context)
        return call_theirs(self, theirs)

    DurableTask.execute, JobRun.call_theirs = execute_completed, call_theirs_as_given  # type: ignore[method-assign]
    try:
        yield
    finally:
        DurableTask.execute, JobRun.call_theirs = execute, call_theirs  # type: ignore[method-assign]


@contextmanager
def without_pauses() -> Iterator[None]:
    """While it is open, our own modules, and botocore's repetitions, sleep for a moment only: a mock has no state to wait for."""
    hasty = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: time.sleep(min(seconds, 0.001))})
    ours = [
        vars(module)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "resumable" or name == "botocore.endpoint"
    ]
    sleepers = [names for names in ours if names.get("time") is time]
    for names in sleepers:
        names["time"] = hasty
    try:
        yield
    finally:
        for names in sleepers:
            names["time"] = time


@contextmanager
def without_network() -> Iterator[None]:
    """While it is open, no host has an address, at once: what a test has not mocked asks nobody, and waits for no name server."""

    def none(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no network in these tests")

    getaddrinfo, socket.getaddrinfo = socket.getaddrinfo, none
    try:
        yield
    finally:
        socket.getaddrinfo = getaddrinfo
