"""A task group that the new version of its DAG puts into a loop, as soon as Airflow has loops."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import task_group

from resumable.operators.databricks import ResumableDatabricksOperator
from tests.airflow.attempts import note_attempt
from tests.support.names import DAG


@task_group(group_id="rounds")
def rounds() -> None:
    ResumableDatabricksOperator(
        task_id="job",
        json={"run_name": "{{ run_id }}", "notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"},
        polling_period_seconds=1,
        retries=3,
        retry_delay=timedelta(seconds=1),
        pre_execute=note_attempt,
    )


with DAG("becomes_loop", schedule=None) as becomes_loop:
    if hasattr(rounds, "loop"):
        rounds.loop(max_iterations=2)
    else:
        rounds()
