"""Fixtures for tests on a real Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from resumable import host
from tests.airflow.harness import Airflow
from tests.airflow.harness2 import Airflow2


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, so that these tests also run where the project's settings are not read."""
    config.addinivalue_line("markers", "airflow: needs a real Airflow and starts it")


@pytest.fixture(scope="session")
def start_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Airflow]]:
    """Return a function like `Airflow` without `home`; what it starts is kept for the session."""
    kind = Airflow if host.has_sdk() else Airflow2
    with ExitStack() as stack:
        started: dict[str, Airflow] = {}

        def start(dags: Path, **options: Any) -> Airflow:
            key = repr((dags, sorted(options.items())))
            if key not in started:
                home = tmp_path_factory.mktemp("airflow")
                started[key] = stack.enter_context(kind(home, dags, **options))
            return started[key]

        yield start
