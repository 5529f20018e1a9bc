"""A resource that is costly to make: made by the first try, used again by retries, removed when the task ends for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.hooks.emr import EmrHook
from airflow.sdk import DAG, task

from resumable import Checkpoint, once

CLUSTER: dict[str, Any] = {
    "ReleaseLabel": "emr-7.9.0",
    "Applications": [{"Name": "Spark"}],
    "Instances": {
        "MasterInstanceType": "m5.xlarge",
        "SlaveInstanceType": "m5.xlarge",
        "InstanceCount": 3,
        "KeepJobFlowAliveWhenNoSteps": True,
    },
    "JobFlowRole": "EMR_EC2_DefaultRole",
    "ServiceRole": "EMR_DefaultRole",
}
ALIVE = ["STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING"]
TABLES = ["customers", "orders", "payments"]


def create_cluster(token: str) -> str:
    """EMR has no idempotency token, so it is in the name: a try that died before the answer came is made up for by a look."""
    emr = EmrHook(aws_conn_id="aws_default")
    name = f"nightly-{token}"
    return emr.get_cluster_id_by_name(name, ALIVE) or str(emr.create_job_flow({**CLUSTER, "Name": name})["JobFlowId"])


def delete_cluster(cluster: str) -> None:
    """It may be gone already: EMR does not mind."""
    EmrHook(aws_conn_id="aws_default").get_conn().terminate_job_flows(JobFlowIds=[cluster])


def is_alive(cluster: str) -> bool:
    """Asked by a retry: somebody may have ended the cluster meanwhile."""
    found = EmrHook(aws_conn_id="aws_default").get_conn().describe_cluster(ClusterId=cluster)
    return found["Cluster"]["Status"]["State"] in ALIVE


def load(table: str, cluster: str) -> None:
    print(f"load {table} on {cluster}")


with DAG("setup_once", schedule="@daily", catchup=False, doc_md=__doc__) as dag:

    @task(retries=3, retry_delay=timedelta(minutes=1))
    def load_tables() -> None:
        cluster = once("cluster", create_cluster, cleanup=delete_cluster, alive=is_alive)
        with Checkpoint("tables") as checkpoint:
            for table in checkpoint.items(TABLES):
                load(table, cluster)

    load_tables()
