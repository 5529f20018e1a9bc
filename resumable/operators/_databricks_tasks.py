"""Databricks notebook and task operators: a run of their own, or one task of a workflow's run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import Observation, Reattach
from resumable.policy import OnClear
from resumable.record import JobHandle, JobRecord
from resumable.stores.base import RecordStore
from resumable.stores.memory import MemoryStore

with provider_import("databricks"):
    from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator, DatabricksTaskOperator

    from resumable.operators._databricks_runs import DatabricksRunReplay, job_state_of

_CLUSTER = ("existing_cluster_id", "job_cluster_key", "new_cluster")
_RETRIES = ("max_retries", "min_retry_interval_millis", "retry_on_timeout")


class DatabricksTaskReplay(DatabricksRunReplay):
    """
    Outside of a workflow: a run of its own, submitted once.

    Inside a ``DatabricksWorkflowTaskGroup`` it submits nothing. It watches its task in the run that the group's ``launch`` task
    started and keeps no record: what to watch is told by ``launch``. An eviction leaves the task of the run alone, a user's mark
    cancels it. A clear of this task alone watches the same run again; clear ``launch`` to have the workflow run anew.
    ``job_timeout`` counts from the start of each attempt there.
    """

    submit_method = "submit_run"

    if TYPE_CHECKING:  # of the provider's operator
        databricks_conn_id: str
        databricks_task_key: str
        workflow_run_metadata: Any
        upstream_task_ids: set[str]
        _databricks_workflow_task_group: Any

    @property
    def _resumable_is_member(self) -> bool:
        return self._databricks_workflow_task_group is not None

    def execute(self, context: Any, **_: Any) -> Any:
        if self._resumable_is_durable and self._resumable_is_member:
            if not self.workflow_run_metadata:
                launch = next(task_id for task_id in self.upstream_task_ids if task_id.endswith(".launch"))
                self.workflow_run_metadata = context["ti"].xcom_pull(task_ids=launch)
            self.databricks_conn_id = self.workflow_run_metadata["conn_id"]
        return super().execute(context)

    def _resumable_records(self, context: Any) -> RecordStore:
        return RecordStore(MemoryStore()) if self._resumable_is_member else super()._resumable_records(context)

    def _resumable_new_attempt(self, context: Any) -> Attempt:
        attempt = super()._resumable_new_attempt(context)
        if self._resumable_is_member:
            attempt.policy = replace(attempt.policy, on_clear=OnClear.REATTACH)
        return attempt

    def _resumable_execute_through_seam(self, context: Any, attempt: Attempt) -> Any:
        if self._resumable_is_member and attempt.handle is None:
            self._resumable_watch(attempt)
        return super()._resumable_execute_through_seam(context, attempt)

    def _resumable_watch(self, attempt: Attempt) -> None:
        ids = {"run_id": self.workflow_run_metadata["run_id"], "task": self.databricks_task_key}
        handle, now = JobHandle(self.service, ids, self.place()), time.time()
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

    def _resumable_task_run(self, handle: JobHandle) -> Mapping[str, Any]:
        """The latest run of this task in the workflow's run."""
        runs = self._hook.get_run(handle.ids["run_id"]).get("tasks", [])
        mine = [run for run in runs if run["task_key"] == handle.ids["task"]]
        if not mine:
            raise RuntimeError(f"run {handle.ids['run_id']} shows no task {handle.ids['task']} (yet)")
        return max(mine, key=lambda run: (run["start_time"], run.get("attempt_number", 0)))

    def observe(self, handle: JobHandle) -> Observation:
        if not self._resumable_is_member:
            return super().observe(handle)
        state = self._resumable_task_run(handle)["state"]
        life, result = state.get("life_cycle_state"), state.get("result_state") or ""
        return Observation(job_state_of(life, result), f"{life} {result}".strip())

    def cancel(self, handle: JobHandle) -> None:
        if self._resumable_is_member:
            self._hook.cancel_run(self._resumable_task_run(handle)["run_id"])
        else:
            super().cancel(handle)


class ResumableDatabricksNotebookOperator(DatabricksTaskReplay, DatabricksNotebookOperator):
    """
    `DatabricksNotebookOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    As a task of a ``ResumableDatabricksWorkflowTaskGroup`` it submits nothing and watches its task in the workflow's run.
    """

    spec_fields = ("notebook_path", "source", "notebook_params", "notebook_packages", *_CLUSTER, *_RETRIES)


class ResumableDatabricksTaskOperator(DatabricksTaskReplay, DatabricksTaskOperator):
    """
    `DatabricksTaskOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    As a task of a ``ResumableDatabricksWorkflowTaskGroup`` it submits nothing and watches its task in the workflow's run.
    """

    spec_fields = ("task_config", *_CLUSTER, *_RETRIES)


