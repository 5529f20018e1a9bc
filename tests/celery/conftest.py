"""A real Airflow on CeleryExecutor, Redis and PostgreSQL: `python3 dev.py celery`, which installs what the others do without."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.services import DatabricksSimulator, EmrService

if find_spec("celery") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def celery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Both services, Redis, PostgreSQL, Airflow; no worker yet."""
    from tests.celery.harness import CeleryAirflow, missing_programs, servers
    from tests.crash.scenarios import Remote

    if missing := missing_programs():
        pytest.fail(f"not on this machine: {', '.join(missing)}. On Debian: apt-get install -y redis-server postgresql")
    home = tmp_path_factory.mktemp("celery")
    with DatabricksSimulator() as databricks, EmrService() as emr, servers() as env:
        remote = Remote(databricks, emr, emr.create_cluster())
        env |= {
            **databricks.env(),
            **emr.env(),
            "TEST_DATABRICKS_JOB": str(databricks.add_job("nightly")),
            "TEST_EMR_CLUSTER": remote.cluster,
            "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        }
        with CeleryAirflow(home, Path(__file__).parents[1] / "crash" / "dags", env=env, triggerer=True) as airflow:
            airflow.remote = remote
            yield airflow
