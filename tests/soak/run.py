"""A real Airflow with both services, and a plan carried out on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.airflow.harness import Airflow
from tests.services import DatabricksSimulator
from tests.soak.cloud import Cloud, SoakEmr
from tests.soak.conductor import Conductor, Task
from tests.soak.plan import Plan

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 20
TRIGGERER_SECONDS = 8
"""Without a heartbeat, after which a triggerer's triggers are given to another one."""


@contextmanager
def running(home: Path, plan: Plan, *, look_seconds: float = LOOK_SECONDS) -> Iterator[tuple[Airflow, Cloud]]:
    """Run Airflow with the DAGs of a soak, whose tasks are mapped as often as the plan says."""
    with DatabricksSimulator() as databricks, SoakEmr() as emr:
        cloud = Cloud(databricks, emr)
        env = {
            **cloud.env(),
            "SOAK_COUNTS": json.dumps(plan.counts),
            "SOAK_LOOK_SECONDS": str(look_seconds),
            "SOAK_KINDS": json.dumps(plan.kinds),
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_SECONDS),
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        }
        dags = Path(shutil.copytree(Path(__file__).parent / "dags", home / "dags"))  # to be edited
        with Airflow(home, dags, env=env, triggerer=True) as airflow:
            yield airflow, cloud


def soak(
    airflow: Airflow, cloud: Cloud, plan: Plan, dag_id: str, say: Callable[[str], None], **options: Any
) -> tuple[Conductor, list[Task]]:
    """Carry the plan out; the tasks as they ended."""
    conductor = Conductor(airflow, cloud, plan, dag_id, say, **options)
    return conductor, conductor.run()
