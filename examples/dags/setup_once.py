"""A resource that is costly to make: made by the first try, used again by retries, removed when the task ends for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.sdk import DAG, task

from resumable import Checkpoint, once

CLUSTER: dict[str, Any] = {"Name": "nightly", "ReleaseLabel": "emr-7.9.0", "Instances": {"InstanceCount": 3}}
TABLES = ["customers", "orders", "payments"]


def create_cluster() -> str:
    return str(EmrHook(aws_conn_id="aws_default").create_job_flow(CLUSTER)["JobFlowId"])


def delete_cluster(cluster: str) -> None:
    EmrHook(aws_conn_id="aws_default").get_conn().terminate_job_flows(JobFlowIds=[cluster])


def load(table: str, cluster: str) -> None:
    print(f"load {table} on {cluster}")


with DAG("setup_once", schedule="@daily", catchup=False, doc_md=__doc__):

    @task(retries=3, retry_delay=timedelta(minutes=1))
    def load_tables() -> None:
        cluster = once("cluster", create_cluster, cleanup=delete_cluster)
        with Checkpoint("tables") as checkpoint:
            for table in checkpoint.items(TABLES):
                load(table, cluster)

    load_tables()
