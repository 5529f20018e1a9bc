"""Six mapped tasks, ours and the provider's own with the same arguments: two services, three ways to wait."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk import DAG

from resumable import ResumePolicy
from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.airflow.attempts import note_attempt
from tests.soak.plan import Key

COUNTS: dict[str, int] = json.loads(os.environ["SOAK_COUNTS"])
COMMON: dict[str, Any] = {"retries": 40, "retry_delay": timedelta(seconds=1), "pre_execute": note_attempt}
MODES: dict[str, dict[str, Any]] = {
    "poll": {},
    "deferrable": {"deferrable": True},
    "reschedule": {"resume_policy": ResumePolicy(wait="reschedule", wait_interval=float(os.environ["SOAK_LOOK_SECONDS"]))},
}


def databricks(dag_id: str, operator: Any, name: str, count: int, **arguments: Any) -> None:
    operator.partial(task_id=name, polling_period_seconds=1, **COMMON, **arguments).expand(
        json=[
            {"run_name": Key(name, i).job_name(dag_id), "notebook_task": {"notebook_path": "/n"}, "existing_cluster_id": "c"}
            for i in range(count)
        ]
    )


def emr(dag_id: str, operator: Any, name: str, count: int, **arguments: Any) -> None:
    operator.partial(
        task_id=name,
        job_flow_id=os.environ["SOAK_EMR_CLUSTER"],
        wait_for_completion=True,
        waiter_delay=1,
        waiter_max_attempts=2000,
        aws_conn_id=None,
        **COMMON,
        **arguments,
    ).expand(
        steps=[
            [
                {
                    "Name": f"{Key(name, i).job_name(dag_id)} {part}",
                    "ActionOnFailure": "CONTINUE",
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", f"{part}.py"]},
                }
                for part in ("load", "count")
            ]
            for i in range(count)
        ]
    )


OURS = {"databricks": ResumableDatabricksOperator, "emr": ResumableEmrAddStepsOperator}
THEIRS = {"databricks": DatabricksSubmitRunOperator, "emr": EmrAddStepsOperator}
DAGS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "ours": (OURS, COUNTS),
    "theirs": (THEIRS, COUNTS),
    "slots": (OURS, dict.fromkeys(COUNTS, 1)),
}

for dag_id, (operators, counts) in DAGS.items():
    with DAG(dag_id, schedule=None, max_active_tasks=64) as dag:
        for task_id, count in counts.items():
            service, mode = task_id.split("_")
            # the provider's operators have no way to wait by rescheduling: they poll instead
            arguments = {} if operators is THEIRS and mode == "reschedule" else MODES[mode]
            {"databricks": databricks, "emr": emr}[service](dag_id, operators[service], task_id, count, **arguments)
    globals()[dag_id] = dag
