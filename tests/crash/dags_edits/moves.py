"""Jobs whose name the file makes anew at each parse, as people do to be unique."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from resumable.operators.databricks import ResumableDatabricksOperator
from tests.airflow.attempts import note_attempt
from tests.support.names import DAG

MODES: dict[str, dict[str, Any]] = {
    "": {"retries": 3},
    "_deferrable": {"retries": 3, "deferrable": True},
    "_reschedule": {"retries": 0, "resume_policy": {"wait": "reschedule", "wait_interval": 10}},
    "_r0": {"retries": 0},
}
for mode, arguments in MODES.items():
    with DAG(f"ours_databricks_moves{mode}", schedule=None) as dag:
        ResumableDatabricksOperator(
            task_id="job",
            json={
                "run_name": f"nightly-{datetime.now(timezone.utc)}",
                "notebook_task": {"notebook_path": "/x", "base_parameters": {"run": "{{ run_id }}", "id": str(uuid.uuid4())}},
                "existing_cluster_id": "c",
            },
            polling_period_seconds=1,
            retry_delay=timedelta(seconds=1),
            pre_execute=note_attempt,
            **arguments,
        )
    globals()[dag.dag_id] = dag
