"""Our operators with ``wait="defer"``; see also ``dags/jobs.py``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.airflow.attempts import note_attempt
from tests.crash.arguments import DATABRICKS, EMR
from tests.crash.dags_defer import MANY
from tests.crash.nightly import NightlyOperator
from tests.support.names import DAG

OURS: dict[str, tuple[Any, dict[str, Any]]] = {
    "databricks_defer": (ResumableDatabricksOperator, DATABRICKS),
    "emr_defer": (ResumableEmrAddStepsOperator, EMR),
    "custom_defer": (NightlyOperator, {"run_name": "{{ run_id }}"}),
}
NOTED: dict[str, Any] = {"pre_execute": note_attempt, "retry_delay": timedelta(seconds=1)}


def make(name: str, suffix: str = "", policy: dict[str, Any] | None = None, **more: Any) -> None:
    ours, arguments = OURS[name]
    with DAG(f"ours_{name}{suffix}", schedule=None) as dag:
        ours(task_id="job", resume_policy={"wait": "defer", **(policy or {})}, **{"retries": 1, **NOTED, **arguments, **more})
    globals()[dag.dag_id] = dag


for name in OURS:
    make(name)
    make(name, "_keep", {"on_clear": "reattach"})
    make(name, "_overdue", {"job_timeout": 40.0})
    make(name, "_timeout", execution_timeout=timedelta(seconds=110), retries=0)

with DAG("ours_many_defer", schedule=None, max_active_tasks=MANY) as many:
    ResumableDatabricksOperator.partial(
        task_id="job", retries=0, polling_period_seconds=5, resume_policy={"wait": "defer"}, **NOTED
    ).expand(json=[{**DATABRICKS["json"], "notebook_task": {"notebook_path": f"/{n}"}} for n in range(MANY)])
