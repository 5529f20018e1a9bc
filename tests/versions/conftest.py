"""The Airflow and the services of the crash tests, with the DAGs that every version of Airflow runs."""

from pathlib import Path

import pytest

from tests.crash.conftest import airflow, remote, start_airflow  # noqa: F401


@pytest.fixture(scope="session")
def dags() -> Path:
    return Path(__file__).parents[1] / "crash" / "dags"
