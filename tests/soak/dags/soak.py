"""
Six mapped tasks, ours and the provider's own with the same arguments: two services, three ways to wait.

With values that move at each parse, and items that their author edits; some are a subclass with an ``execute`` of its own, some
have a retry policy.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.sdk import DAG
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from resumable import ResumePolicy
from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.airflow.attempts import note_attempt
from tests.soak.plan import Key

KINDS: dict[str, list[str]] = json.loads(os.environ["SOAK_KINDS"])
EDITED: dict[str, str] = {}
"""What the author has edited, by the task's name: this line is written anew."""

NOW = datetime.now(timezone.utc).isoformat()
RETRY_POLICY = ExceptionRetryPolicy(
    [RetryRule(exception="builtins.Exception", action=RetryAction.RETRY, retry_delay=timedelta(seconds=2), reason="any")]
)
COUNTS: dict[str, int] = json.loads(os.environ["SOAK_COUNTS"])
COMMON: dict[str, Any] = {"retries": 40, "retry_delay": timedelta(seconds=1), "pre_execute": note_attempt}
MODES: dict[str, dict[str, Any]] = {
    "poll": {},
    "deferrable": {"deferrable": True},
    "reschedule": {"resume_policy": ResumePolicy(wait="reschedule", wait_interval=float(os.environ["SOAK_LOOK_SECONDS"]))},
}


def version(text: str, name: str, index: int) -> str:
    """As the author has edited it last."""
    return EDITED.get(str(Key(name, index)), text)


class _Audited:
    """An operator of the author's own, as many have it around the provider's."""

    def execute(self, context: Any) -> Any:
        self.log.info("begins")  # type: ignore[attr-defined]
        result = super().execute(context)  # type: ignore[misc]
        context["ti"].xcom_push("audited", True)
        return result


class AuditedDatabricks(_Audited, ResumableDatabricksOperator): ...


class AuditedEmr(_Audited, ResumableEmrAddStepsOperator): ...


class TheirAuditedDatabricks(_Audited, DatabricksSubmitRunOperator): ...


class TheirAuditedEmr(_Audited, EmrAddStepsOperator): ...


AUDITED = {
    ResumableDatabricksOperator: AuditedDatabricks,
    ResumableEmrAddStepsOperator: AuditedEmr,
    DatabricksSubmitRunOperator: TheirAuditedDatabricks,
    EmrAddStepsOperator: TheirAuditedEmr,
}


def databricks(dag_id: str, operator: Any, name: str, count: int, **arguments: Any) -> None:
    operator.partial(task_id=name, polling_period_seconds=1, **COMMON, **arguments).expand(
        json=[
            {
                "run_name": Key(name, i).job_name(dag_id),
                "notebook_task": {"notebook_path": version("/n", name, i), "base_parameters": {"parsed_at": NOW}},
                "existing_cluster_id": "c",
            }
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
                    "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", version(part, name, i), NOW]},
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
            particular = KINDS.get(task_id, ())
            operator = AUDITED[operators[service]] if "subclass" in particular else operators[service]
            arguments = {**arguments, **({"retry_policy": RETRY_POLICY} if "retry_policy" in particular else {})}
            {"databricks": databricks, "emr": emr}[service](dag_id, operator, task_id, count, **arguments)
    globals()[dag_id] = dag
