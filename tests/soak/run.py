"""A real Airflow with both services, and a plan carried out on it."""

from __future__ import annotations

import json
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


@contextmanager
def running(home: Path, plan: Plan, *, look_seconds: float = LOOK_SECONDS) -> Iterator[tuple[Airflow, Cloud]]:
    """Run Airflow with the DAGs of a soak, whose tasks are mapped as often as the plan says."""
    with DatabricksSimulator() as databricks, SoakEmr() as emr:
        cloud = Cloud(databricks, emr)
        env = {
            **cloud.env(),
            "SOAK_COUNTS": json.dumps(plan.counts),
            "SOAK_LOOK_SECONDS": str(look_seconds),
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        }
        with Airflow(home, Path(__file__).parent / "dags", env=env, triggerer=True) as airflow:
            yield airflow, cloud


def soak(
    airflow: Airflow, cloud: Cloud, plan: Plan, dag_id: str, say: Callable[[str], None], **options: Any
) -> tuple[Conductor, list[Task]]:
    """Carry the plan out; the tasks as they ended."""
    conductor = Conductor(airflow, cloud, plan, dag_id, say, **options)
    return conductor, conductor.run()
