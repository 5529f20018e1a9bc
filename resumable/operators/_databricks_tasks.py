"""Databricks notebook and task operators: a run of their own, or one task of a workflow's run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from resumable._extras import provider_import
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Observation, Reattach
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord
from resumable.policy import OnClear, ResumePolicy
from resumable.stores.base import RecordStore
from resumable.stores.memory import MemoryStore

with provider_import("databricks"):
    from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator, DatabricksTaskOperator

    from resumable.operators._databricks_runs import DatabricksRun, observation_of

CLUSTER = ("existing_cluster_id", "job_cluster_key", "new_cluster")
RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")


class TaskRun(DatabricksRun):
    """
    Outside of a workflow: a run of its own, submitted once.

    Inside a ``DatabricksWorkflowTaskGroup`` it submits nothing. It watches its task in the run that the group's ``launch`` task
    started and keeps no record: what to watch is told by ``launch``. An eviction leaves the task of the run alone, a user's mark
    cancels it. A clear of this task alone watches the same run again; clear ``launch`` to have the workflow run anew.
    ``job_timeout`` counts from the start of each attempt there.
    """

    submit_method = "submit_run"
    joins_workflows = True

    def __init__(self, operator: Any) -> None:
        super().__init__(operator)
        self._is_member = getattr(operator, "_databricks_workflow_task_group", None) is not None

    def begin(self) -> None:
        if not self._is_member:
            return
        operator = self.operator
        if not operator.workflow_run_metadata:
            launch = next(task_id for task_id in operator.upstream_task_ids if task_id.endswith(".launch"))
            operator.workflow_run_metadata = self.run.context["ti"].xcom_pull(task_ids=launch)
        operator.databricks_conn_id = operator.workflow_run_metadata["conn_id"]

    def records(self) -> RecordStore | None:
        return RecordStore(MemoryStore()) if self._is_member else None

    def policy_of(self, policy: ResumePolicy) -> ResumePolicy:
        return replace(policy, on_clear=OnClear.REATTACH) if self._is_member else policy

    def execute(self, theirs: Callable[[], Any]) -> Any:
        if self._is_member and self.attempt.handle is None:
            self._watch(self.attempt)
        return super().execute(theirs)

    def _watch(self, attempt: Attempt) -> None:
        operator = self.operator
        ids = {"run_id": operator.workflow_run_metadata["run_id"], "task": operator.databricks_task_key}
        handle, now = self.handle(ids), time.time()
        attempt.record = JobRecord(
            service=self.service,
            token="",
            generation=attempt.claim.generation,
            submission=0,
            owner=attempt.owner,
            attempt=1,
            intended_at=now,
            handle=handle,
            submitted_at=now,
        )
        attempt.plan = Reattach("the workflow's launch task started it")
        self.log.info("resumable: watching %s, which the workflow's launch task started", handle)

    def _task_run(self, handle: JobHandle) -> Mapping[str, Any]:
        """The latest run of this task in the workflow's run."""
        runs = self.hook.get_run(handle.ids["run_id"]).get("tasks", [])
        mine = [run for run in runs if run["task_key"] == handle.ids["task"]]
        if not mine:
            raise RuntimeError(f"run {handle.ids['run_id']} shows no task {handle.ids['task']} (yet)")
        return max(mine, key=lambda run: (run["start_time"], run.get("attempt_number", 0)))

    def observe(self, handle: JobHandle) -> Observation:
        return observation_of(self._task_run(handle)["state"]) if _is_of_a_workflow(handle) else super().observe(handle)

    def cancel(self, handle: JobHandle) -> None:
        if _is_of_a_workflow(handle):
            self.hook.cancel_run(self._task_run(handle)["run_id"])
        else:
            super().cancel(handle)


def _is_of_a_workflow(handle: JobHandle) -> bool:
    """Whether the run is everybody's, and the job the task of it that is named. A trigger knows this of the handle alone."""
    return isinstance(handle.ids, Mapping) and "task" in handle.ids


@durable_operator(TaskRun)
class ResumableDatabricksNotebookOperator(DatabricksNotebookOperator):
    """
    `DatabricksNotebookOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    As a task of a ``ResumableDatabricksWorkflowTaskGroup`` it submits nothing and watches its task in the workflow's run.
    """

    spec_fields = ("notebook_path", "source", "notebook_params", "notebook_packages", *CLUSTER, *RETRIES)


@durable_operator(TaskRun)
class ResumableDatabricksTaskOperator(DatabricksTaskOperator):
    """
    `DatabricksTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    As a task of a ``ResumableDatabricksWorkflowTaskGroup`` it submits nothing and watches its task in the workflow's run.
    """

    spec_fields = ("task_config", *CLUSTER, *RETRIES)
