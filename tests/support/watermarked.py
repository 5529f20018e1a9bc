"""Runs that read with a `Watermark`. Import the fixtures by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from resumable import Watermark
from resumable.watermark import run as watermark
from tests.support.incremental import ASSET, Accessor, Deployment, Run
from tests.support.refusals import answer_of_server  # noqa: F401

KEY = "resumable.watermark.orders"

HOUR = timedelta(hours=1)


@pytest.fixture
def airflow() -> Deployment:
    return Deployment()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    return lambda moment: monkeypatch.setattr(watermark, "_now", lambda: moment)


def opened(airflow: Deployment, run: Run, **more: Any) -> Watermark:
    arguments = {"start": 0, "asset": ASSET, **more}
    return Watermark("orders", context=airflow.context(run), **arguments)


def work(airflow: Deployment, run_id: str, to: Any = ..., state: str = "success", **more: Any) -> tuple[Any, Any]:
    """One attempt of a run; what it was given to read."""
    run = airflow.run(run_id)
    run.state = "running"
    with opened(airflow, run, **more) as mark:
        mark.advance() if to is ... else mark.advance(to)
    run.state = state
    return mark.since, mark.until


class Named:
    """Variables over an accessor."""

    def __init__(self, kept: Accessor) -> None:
        self.get, self.delete = kept.get, kept.delete
        self.set = lambda name, text, description: kept.set(name, text)
