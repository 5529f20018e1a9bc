"""A home for Airflow that is this test run's own, set before anything imports Airflow."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import waits

_HOME = tempfile.mkdtemp(prefix="resumable-tests-")
os.environ.setdefault("AIRFLOW_HOME", _HOME)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no core waits for them at the end."""
    items.sort(key=lambda item: "/property/" not in item.nodeid)


@pytest.fixture(autouse=True)
def log_locks() -> Iterator[None]:
    """
    New locks for the log handlers after each test.

    A signal that raises in the main thread right after a handler's ``acquire()`` leaves it locked for every other thread: a
    window of Python's own, and the next test's watcher would wait in it for ever (seen on 2.11).
    """
    yield
    for of in list(logging._handlerList):
        if (handler := of()) is not None:
            handler.createLock()


@pytest.fixture(autouse=True, scope="session")
def models_are_read_once() -> Iterator[None]:
    """A client of botocore's takes a tenth of the time. Some tests make a dozen of them."""
    from tests.support.clients import reading_once

    with reading_once():
        yield


@pytest.fixture(autouse=True)
def no_watch_outlives_its_process() -> Iterator[None]:
    """A process that ``once`` watches for signals has one such thread to its end. Here each ends with its test."""
    yield
    if (stopping := sys.modules.get("resumable.stop.watch")) is not None:
        for guard in list(stopping.StopGuard._of.values()):
            for told in list(guard._members):
                guard.leave(told)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of this test take 2 ms, in every thread."""
    waits.shorten(monkeypatch)


@pytest.fixture
def no_waiting_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of the main thread of this test, which is the task's, take 2 ms."""
    waits.shorten_those_of_the_task(monkeypatch)


@pytest.fixture
def kind_of_workspace() -> Any:
    """The class of `workspace`, for a module that needs another."""
    from tests.services import DatabricksSimulator

    return DatabricksSimulator


@pytest.fixture
def workspace(kind_of_workspace: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A simulated Databricks workspace, which the default connection leads to."""
    with kind_of_workspace() as simulator:
        for name, value in simulator.env().items():
            monkeypatch.setenv(name, value)
        yield simulator


@pytest.fixture
def bench(case: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The simulated service of an operator's ``case``, see ``tests.contract.cases``."""
    with case.bench(monkeypatch) as bench:
        yield bench
