"""One real Airflow and one of each service, for all tests in this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.airflow.conftest import start_airflow  # noqa: F401
from tests.airflow.harness import Airflow
from tests.crash.scenarios import Remote
from tests.services import DatabricksSimulator, EmrService


@pytest.fixture(scope="session")
def remote() -> Iterator[Remote]:
    with DatabricksSimulator() as databricks, EmrService() as emr:
        yield Remote(databricks, emr, emr.create_cluster())


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAGs that every version of Airflow runs (`tests.versions`), and those of this folder alone."""
    folder, here = tmp_path_factory.mktemp("dags"), Path(__file__).parent
    for file in (here / "dags" / "jobs.py", here / "dags_modes" / "modes.py", *(here / "dags_edits").glob("*.py")):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def airflow(start_airflow: Callable[..., Airflow], remote: Remote, dags: Path) -> Airflow:  # noqa: F811
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__CORE__PARALLELISM": "24",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__RESUMABLE__SWEEP_MODULES": "tests.crash.nightly",
        "TEST_TIMEOUT_SECONDS": "15",  # a retry has to reattach, and its job to be ended, within it
    }
    return start_airflow(dags, env=env, triggerer=True)
