"""One Databricks run per country: every mapped task has a record, and a job, of its own."""

from __future__ import annotations

from airflow.sdk import DAG

from resumable import ResumePolicy
from resumable.operators.databricks import ResumableDatabricksOperator

COUNTRIES = ["at", "be", "ch"]


def notebook_run(country: str) -> dict[str, object]:
    return {
        "run_name": f"load {country} {{{{ ds }}}}",
        "existing_cluster_id": "{{ var.value.get('databricks_cluster', '0101-120000-abcdefgh') }}",
        "notebook_task": {"notebook_path": "/Shared/load", "base_parameters": {"country": country}},
    }


with DAG("mapped", schedule="@daily", catchup=False, doc_md=__doc__):
    ResumableDatabricksOperator.partial(
        task_id="load",
        retries=3,
        # A clear of a running task keeps its run, and an execution_timeout leaves it to the retry.
        # Whatever is not named here follows [resumable] in airflow.cfg, then the defaults.
        resume_policy=ResumePolicy(on_clear="reattach", on_timeout="detach"),
    ).expand(json=[notebook_run(country) for country in COUNTRIES])
