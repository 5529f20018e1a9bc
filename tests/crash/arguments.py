"""What the operators under test are given; the run's id names its jobs at the service."""

from __future__ import annotations

import os
from typing import Any

DATABRICKS: dict[str, Any] = {
    "json": {"run_name": "{{ run_id }}", "notebook_task": {"notebook_path": "/nightly"}, "existing_cluster_id": "c"},
    "polling_period_seconds": 1,
}
RUN_NOW: dict[str, Any] = {
    "json": {"job_id": int(os.environ["TEST_DATABRICKS_JOB"]), "notebook_params": {"run": "{{ run_id }}"}},
    "polling_period_seconds": 1,
}
EMR: dict[str, Any] = {
    "job_flow_id": os.environ["TEST_EMR_CLUSTER"],
    "steps": [
        {
            "Name": f"{{{{ run_id }}}} {part}",
            "ActionOnFailure": "CONTINUE",
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", f"{part}.py"]},
        }
        for part in ("load", "count")
    ],
    "wait_for_completion": True,
    "waiter_delay": 1,
    "waiter_max_attempts": 600,
    "aws_conn_id": None,
}
