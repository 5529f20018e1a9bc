"""Databricks operators that survive their worker.

Those that start a run are repeated by token, the service's own; SQL statements carry a mark, and are looked up.
`DatabricksWorkflowTaskGroup` has a module of its own, as it has in the provider: ``databricks_workflow``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resumable._extras import provider_import
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("databricks"):
    from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

    from resumable.operators._databricks_runs import DatabricksRun, run_id_of
    from resumable.operators._databricks_sql import ResumableDatabricksSQLStatementsOperator
    from resumable.operators._databricks_tasks import ResumableDatabricksNotebookOperator, ResumableDatabricksTaskOperator

__all__ = [
    "ResumableDatabricksNotebookOperator",
    "ResumableDatabricksOperator",
    "ResumableDatabricksRunNowOperator",
    "ResumableDatabricksSQLStatementsOperator",
    "ResumableDatabricksSubmitRunOperator",
    "ResumableDatabricksTaskOperator",
]


class SubmittedRun(DatabricksRun):
    """A run of no job."""

    together = "databricks"
    submit_method = "submit_run"


class JobRun(DatabricksRun):
    """A run of a job, which may be repaired."""

    together = "databricks"
    submit_method = "run_now"
    not_templated = ("forward_dag_params",)
    reach_fields = (*DatabricksRun.reach_fields, "repair_run")

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        ours = super().replacements(attempt)
        if not attempt.is_first_submit:
            ours["cancel_all_runs"] = lambda _job_id: None
            job_id = attempt.handle.ids.get("job_id") if attempt.handle else (attempt.recorded_params or {}).get("job_id")
            if job_id is not None:
                ours["find_job_id_by_name"] = lambda _job_name: job_id
        if attempt.handle is not None and self.operator.repair_run and self._is_repaired(attempt.handle):
            self.operator.repair_run = False
        return ours

    def observe(self, handle: JobHandle) -> Observation:
        seen = super().observe(handle)
        if seen.state is JobState.FAILED and self.operator.repair_run and self._is_repairable(handle):
            return Observation(JobState.REPAIRABLE, f"{seen}, to be repaired")
        return seen

    def _is_repairable(self, handle: JobHandle) -> bool:
        reasons = getattr(self.operator, "databricks_repair_reason_new_settings", None)  # no record keeps them
        message = self.hook.get_run(run_id_of(handle))["state"].get("state_message") or ""
        return (not reasons or any(reason in message for reason in reasons)) and not self._is_repaired(handle)

    def _is_repaired(self, handle: JobHandle) -> bool:
        return self.hook.get_latest_repair_id(run_id_of(handle)) is not None


@durable_operator(SubmittedRun)
class ResumableDatabricksSubmitRunOperator(DatabricksSubmitRunOperator):
    """`DatabricksSubmitRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's."""


ResumableDatabricksOperator = ResumableDatabricksSubmitRunOperator
"""A short name for the operator that most people start with."""


@durable_operator(JobRun)
class ResumableDatabricksRunNowOperator(DatabricksRunNowOperator):
    """
    `DatabricksRunNowOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    ``cancel_previous_runs`` cancels before a first submit only, never the run that is being reattached to. ``repair_run`` repairs
    a run once, also when the worker dies meanwhile.
    """
