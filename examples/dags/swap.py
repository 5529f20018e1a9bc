"""
A nightly load on Databricks and a report on EMR, made resumable by their two import lines.

Variables: `databricks_cluster`, `emr_cluster`, `bucket`; connections: `databricks_default`, `aws_default`.
"""

from __future__ import annotations

import os

from airflow.sdk import DAG

# The swap: with the provider's own operators these two lines would be
#     from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
#     from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
# and nothing else in this file would differ.
from resumable.operators.databricks import ResumableDatabricksOperator as DatabricksSubmitRunOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator as EmrAddStepsOperator

POLL_SECONDS = int(os.environ.get("NIGHTLY_POLL_SECONDS", "30"))

with DAG("nightly", schedule=None, default_args={"retries": 3}, doc_md=__doc__):
    DatabricksSubmitRunOperator(
        task_id="load",
        json={
            "run_name": "load {{ run_id }}",
            "existing_cluster_id": "{{ var.value.get('databricks_cluster', '0101-120000-abcdefgh') }}",
            "notebook_task": {"notebook_path": "/Shared/load"},
        },
        polling_period_seconds=POLL_SECONDS,
    )
    EmrAddStepsOperator(
        task_id="report",
        job_flow_id="{{ var.value.get('emr_cluster', 'j-2AXXXXXXGAPLF') }}",
        steps=[
            {
                "Name": "report {{ run_id }}",
                "ActionOnFailure": "CONTINUE",
                "HadoopJarStep": {
                    "Jar": "command-runner.jar",
                    "Args": ["spark-submit", "s3://{{ var.value.get('bucket', 'my-bucket') }}/report.py"],
                },
            }
        ],
        wait_for_completion=True,
        waiter_delay=POLL_SECONDS,
        waiter_max_attempts=480,
    )
