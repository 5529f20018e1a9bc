"""One DAG per operator, ours and the provider's own with the same arguments."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

from resumable import ResumePolicy
from resumable.operators.databricks import ResumableDatabricksOperator, ResumableDatabricksRunNowOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.airflow.attempts import note_attempt
from tests.crash.arguments import DATABRICKS, EMR, RUN_NOW
from tests.support.names import DAG

OPERATORS = (
    ("databricks", ResumableDatabricksOperator, DatabricksSubmitRunOperator, DATABRICKS),
    ("databricks_deferrable", ResumableDatabricksOperator, DatabricksSubmitRunOperator, {**DATABRICKS, "deferrable": True}),
    ("run_now", ResumableDatabricksRunNowOperator, DatabricksRunNowOperator, RUN_NOW),
    ("emr", ResumableEmrAddStepsOperator, EmrAddStepsOperator, EMR),
    ("emr_deferrable", ResumableEmrAddStepsOperator, EmrAddStepsOperator, {**EMR, "deferrable": True}),
)
TIMEOUT = timedelta(seconds=float(os.environ.get("TEST_TIMEOUT_SECONDS", "6")))
NOTED: dict[str, Any] = {"pre_execute": note_attempt, "retry_delay": timedelta(seconds=1)}

for name, ours, theirs, arguments in OPERATORS:
    for whose, operator in (("ours", ours), ("theirs", theirs)):
        with DAG(f"{whose}_{name}", schedule=None) as dag:
            operator(task_id="job", retries=3, **NOTED, **arguments)
        globals()[dag.dag_id] = dag
    with DAG(f"ours_{name}_r0", schedule=None) as dag:
        ours(task_id="job", retries=0, **NOTED, **arguments)
    globals()[dag.dag_id] = dag

with DAG("ours_mapped", schedule=None) as mapped:
    ResumableDatabricksOperator.partial(task_id="job", retries=0, polling_period_seconds=1, **NOTED).expand(
        json=[
            {"run_name": "{{ run_id }}", "notebook_task": {"notebook_path": path}, "existing_cluster_id": "c"}
            for path in ("/a", "/b")
        ]
    )

RESCHEDULE = ResumePolicy(wait="reschedule", wait_interval=10)
for name, ours, _, arguments in OPERATORS:
    if name in ("databricks", "emr"):
        with DAG(f"ours_{name}_reschedule", schedule=None) as dag:
            ours(task_id="job", retries=0, resume_policy=RESCHEDULE, **NOTED, **arguments)
        globals()[dag.dag_id] = dag
        with DAG(f"ours_{name}_not_waiting", schedule=None) as dag:
            no_wait = {"wait_for_termination" if name == "databricks" else "wait_for_completion": False}
            ours(task_id="job", retries=0, **NOTED, **{**arguments, **no_wait})
        globals()[dag.dag_id] = dag
        with DAG(f"ours_{name}_timeout", schedule=None) as dag:
            ours(task_id="job", retries=0, execution_timeout=TIMEOUT, **NOTED, **arguments)
        globals()[dag.dag_id] = dag
        with DAG(f"ours_{name}_timeout_detach", schedule=None) as dag:
            detach = ResumePolicy(on_timeout="detach")
            ours(task_id="job", retries=1, resume_policy=detach, execution_timeout=TIMEOUT, **NOTED, **arguments)
        globals()[dag.dag_id] = dag
        with DAG(f"ours_{name}_dagrun_timeout", schedule=None, dagrun_timeout=TIMEOUT + timedelta(seconds=2)) as dag:
            ours(task_id="job", retries=0, **NOTED, **arguments)
        globals()[dag.dag_id] = dag
