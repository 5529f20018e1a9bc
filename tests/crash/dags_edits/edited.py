"""A job that a test edits while it runs: ``/before`` becomes ``/after``. Its name is another one at each parse."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from resumable.operators.databricks import ResumableDatabricksOperator
from tests.airflow.attempts import note_attempt
from tests.support.names import DAG

with DAG("ours_databricks_edited", schedule=None) as dag:
    ResumableDatabricksOperator(
        task_id="job",
        json={
            "run_name": f"nightly-{datetime.now(timezone.utc)}",
            "notebook_task": {"notebook_path": "/before", "base_parameters": {"run": "{{ run_id }}"}},
            "existing_cluster_id": "c",
        },
        polling_period_seconds=1,
        retries=3,
        retry_delay=timedelta(seconds=1),
        pre_execute=note_attempt,
    )
