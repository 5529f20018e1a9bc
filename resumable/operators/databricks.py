"""Databricks operators that survive their worker.

Those that start a run are class B, the service's own idempotency token; SQL statements are class C, a mark that is looked up.
`DatabricksWorkflowTaskGroup` has a module of its own, as it has in the provider: ``databricks_workflow``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import JobState, Observation
from resumable.record import JobHandle

with provider_import("databricks"):
    from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

    from resumable.operators._databricks_runs import DatabricksRunReplay, run_id_of
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


class ResumableDatabricksOperator(DatabricksRunReplay, DatabricksSubmitRunOperator):
    """`DatabricksSubmitRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's."""

    submit_method = "submit_run"


ResumableDatabricksSubmitRunOperator = ResumableDatabricksOperator


class ResumableDatabricksRunNowOperator(DatabricksRunReplay, DatabricksRunNowOperator):
    """
    `DatabricksRunNowOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    ``cancel_previous_runs`` cancels before a first submit only, never the run that is being reattached to. ``repair_run`` repairs
    a run once, also when the worker dies meanwhile.
    """

    submit_method = "run_now"
    reach_fields = (*DatabricksRunReplay.reach_fields, "repair_run")
    repair_run: bool

    def _resumable_guards(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        guards: dict[str, Callable[..., Any]] = {}
        if not attempt.is_first_submit:
            guards["cancel_all_runs"] = lambda _job_id: None
            job_id = attempt.handle.ids.get("job_id") if attempt.handle else (attempt.recorded_params or {}).get("job_id")
            if job_id is not None:
                guards["find_job_id_by_name"] = lambda _job_name: job_id
        if attempt.handle is not None and self.repair_run and self._resumable_is_repaired(attempt.handle):
            self.repair_run = False
        return guards

    def observe(self, handle: JobHandle) -> Observation:
        seen = super().observe(handle)
        if seen.state is JobState.FAILED and self.repair_run and self._resumable_is_repairable(handle):
            return Observation(JobState.REPAIRABLE, f"{seen}, to be repaired")
        return seen

    def _resumable_is_repairable(self, handle: JobHandle) -> bool:
        reasons = self.databricks_repair_reason_new_settings
        message = self._hook.get_run(run_id_of(handle))["state"].get("state_message") or ""
        return (not reasons or any(reason in message for reason in reasons)) and not self._resumable_is_repaired(handle)

    def _resumable_is_repaired(self, handle: JobHandle) -> bool:
        return self._hook.get_latest_repair_id(run_id_of(handle)) is not None
