"""The providers' own operators, imported from the providers: airflow.cfg alone makes them durable."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

from tests.airflow.attempts import note_attempt
from tests.crash.arguments import DATABRICKS, EMR
from tests.support.names import DAG

NOTED: dict[str, Any] = {"pre_execute": note_attempt, "retry_delay": timedelta(seconds=1)}

for name, operator, arguments in (
    ("databricks", DatabricksSubmitRunOperator, DATABRICKS),
    ("databricks_deferrable", DatabricksSubmitRunOperator, {**DATABRICKS, "deferrable": True}),
    ("emr", EmrAddStepsOperator, EMR),
    ("emr_deferrable", EmrAddStepsOperator, {**EMR, "deferrable": True}),
):
    with DAG(f"ours_{name}", schedule=None) as dag:
        operator(task_id="job", retries=3, **NOTED, **arguments)
    globals()[dag.dag_id] = dag

with DAG("ours_mapped", schedule=None) as mapped:
    DatabricksSubmitRunOperator.partial(task_id="job", retries=1, polling_period_seconds=1, **NOTED).expand(
        json=[
            {"run_name": "{{ run_id }}", "notebook_task": {"notebook_path": path}, "existing_cluster_id": "c"}
            for path in ("/a", "/b")
        ]
    )
