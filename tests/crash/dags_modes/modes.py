"""Our operators with every policy and in every way to wait; see also ``dags/jobs.py``."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowSkipException

from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.airflow.attempts import note_attempt
from tests.crash.arguments import DATABRICKS, EMR
from tests.crash.nightly import NightlyOperator
from tests.support.names import DAG

EVERY: dict[str, tuple[Any, dict[str, Any]]] = {
    "databricks": (ResumableDatabricksOperator, DATABRICKS),
    "databricks_deferrable": (ResumableDatabricksOperator, {**DATABRICKS, "deferrable": True}),
    "emr": (ResumableEmrAddStepsOperator, EMR),
    "emr_deferrable": (ResumableEmrAddStepsOperator, {**EMR, "deferrable": True}),
    "custom": (NightlyOperator, {"run_name": "{{ run_id }}"}),
}
POLLING, DEFERRABLE = ("databricks", "emr", "custom"), ("databricks_deferrable", "emr_deferrable")
RESCHEDULE: dict[str, Any] = {"wait": "reschedule", "wait_interval": 10}
OVERDUE = {"job_timeout": 12.0}
TIMEOUT, LONG = timedelta(seconds=15), timedelta(seconds=45)
"""LONG: a run whose task has to have reached the triggerer, or its second look, by then."""
NOTED: dict[str, Any] = {"pre_execute": note_attempt, "retry_delay": timedelta(seconds=1)}


Settings = dict[str, Any] | None
GIVES_UP = ExceptionRetryPolicy(rules=[RetryRule(exception=LookupError, action=RetryAction.FAIL)])
"""What the custom operator's wait fails with ends its task, whatever tries are left."""


def make(name: str, suffix: str = "", policy: Settings = None, dag: Settings = None, **more: Any) -> None:
    """One DAG more, of our operator."""
    ours, arguments = EVERY[name]
    with DAG(f"ours_{name}{suffix}", schedule=None, **(dag or {})) as made:
        ours(task_id="job", resume_policy=policy, **{"retries": 0, **NOTED, **arguments, **more})
    globals()[made.dag_id] = made


def note_and_dawdle(context: Any) -> None:
    """Give a test the time to stop a task whose ``execute`` has not begun."""
    note_attempt(context)
    time.sleep(5)


def note_and_skip_a_retry(context: Any) -> None:
    """Code around the operator that ends the task in a later try, with the job of an earlier one running."""
    note_attempt(context)
    if context["ti"].try_number > 1:
        raise AirflowSkipException("nothing to do")


make("databricks", "_dawdles", pre_execute=note_and_dawdle)
make("emr", "_dawdles", pre_execute=note_and_dawdle)
make("custom", retries=3)
make("custom", "_r0")
make("custom", "_gives_up", {"on_final_failure": "leave"}, gives_up=True)
make("custom", "_gives_up_cancel", {"on_final_failure": "cancel"}, gives_up=True)
make("databricks", "_cli", retries=3)
make("custom", "_policy", gives_up=True, retries=3, retry_policy=GIVES_UP)
make("databricks", "_skips", pre_execute=note_and_skip_a_retry, retries=3)
make("databricks", "_deletable", RESCHEDULE)

make("custom", "_reschedule", RESCHEDULE)
for name in POLLING:
    make(name, "_reschedule_r1", RESCHEDULE, retries=1)
for name in (*POLLING, *DEFERRABLE):
    make(name, "_r1", retries=1)
make("custom", "_timeout", execution_timeout=TIMEOUT)
make("custom", "_dagrun_timeout", None, {"dagrun_timeout": LONG})
make("custom", "_timeout_detach", {"on_timeout": "detach"}, retries=1, execution_timeout=TIMEOUT)
for name in POLLING:
    make(name, "_reschedule_keep", {**RESCHEDULE, "on_clear": "reattach"})
    make(name, "_reschedule_overdue", {**RESCHEDULE, **OVERDUE}, retries=2)
    make(name, "_reschedule_dagrun_timeout", RESCHEDULE, {"dagrun_timeout": LONG})
for name in (*POLLING, *DEFERRABLE):
    make(name, "_keep", {"on_clear": "reattach"}, retries=1)
    make(name, "_overdue", OVERDUE, retries=2)
for name in DEFERRABLE:
    make(name, "_dagrun_timeout", None, {"dagrun_timeout": LONG})
for name in ("emr", "emr_deferrable"):
    make(name, "_short_waiter", retries=1, waiter_delay=6, waiter_max_attempts=5)

with DAG("ours_databricks_upstream", schedule=None) as upstream:
    EmptyOperator(task_id="before") >> ResumableDatabricksOperator(task_id="job", retries=1, **NOTED, **DATABRICKS)

with DAG("ours_mapped_reschedule", schedule=None) as mapped_reschedule:
    ResumableDatabricksOperator.partial(
        task_id="job", retries=0, polling_period_seconds=1, resume_policy=RESCHEDULE, **NOTED
    ).expand(json=[{**DATABRICKS["json"], "notebook_task": {"notebook_path": path}} for path in ("/a", "/b")])

MANY = 200

with DAG("ours_many", schedule=None, max_active_tasks=MANY) as many:
    ResumableDatabricksOperator.partial(
        task_id="job", retries=0, polling_period_seconds=1, resume_policy={"wait": "reschedule", "wait_interval": 3600}, **NOTED
    ).expand(json=[{**DATABRICKS["json"], "notebook_task": {"notebook_path": f"/{n}"}} for n in range(MANY)])
