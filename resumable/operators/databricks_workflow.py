"""A Databricks workflow whose ``launch`` task starts one run, however often it is tried."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable._extras import provider_import
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import Outcome
from resumable.jobs.spec import spec_values
from resumable.policy import ResumePolicy

with provider_import("databricks"):
    from airflow.providers.databricks.operators import databricks_workflow as theirs

    from resumable.operators._databricks_runs import DatabricksRun
    from resumable.operators._databricks_tasks import CLUSTER, RETRIES

__all__ = ["ResumableDatabricksWorkflowTaskGroup"]

START_LOOK_SECONDS = 5.0
"""Seconds between two looks at a run that is queued."""

_NEVER_RAN = ("SKIPPED", "INTERNAL_ERROR")
_STARTED = ("TERMINATING", "TERMINATED")
_swapping = threading.RLock()


class WorkflowRun(DatabricksRun):
    """
    The run of a workflow, whose job is made or reset before a first submit only. A run that never began (skipped, internal error)
    is followed by another.
    """

    submit_method = "run_now"

    def waits(self) -> bool:
        return False  # the run goes on when launch is done

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        ours = super().replacements(attempt)
        known: Any = attempt.handle.ids if attempt.handle else attempt.recorded_params
        if not attempt.is_first_submit and isinstance(known, Mapping) and "job_id" in known:
            ours["list_jobs"] = lambda *_, **__: [{"job_id": known["job_id"]}]
            ours["reset_job"] = lambda *_, **__: None
        return ours

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with replaced(self.operator, _wait_for_job_to_start=self._wait_for_start), super().intercept(attempt):
            yield

    def _wait_for_start(self, run_id: int) -> None:
        """As the provider's, which takes a run that is queued, or has ended already, for one that could not start."""
        while (life := self.hook.get_run(run_id)["state"].get("life_cycle_state")) == "QUEUED":
            self.log.info("The workflow's run %s is queued", run_id)
            time.sleep(START_LOOK_SECONDS)
        if life not in _STARTED:
            type(self.operator)._wait_for_job_to_start(self.operator, run_id)

    def note_failure(self, attempt: Attempt, seen: Observation) -> None:
        if seen.state is JobState.FAILED and seen.detail.startswith(_NEVER_RAN):
            attempt.close(Outcome.FAILED)

    @classmethod
    def spec_values(cls, operator: Any) -> dict[str, Any]:
        tasks = {key: _written_of(task) for key, task in operator.tasks_to_convert.items()}
        of_group = spec_values(operator.task_group, ["notebook_packages"])
        return {**super().spec_values(operator), **of_group, "tasks": tasks}


@durable_operator(WorkflowRun)
class LaunchOperator(theirs._CreateDatabricksWorkflowOperator):
    """
    The ``launch`` task of a workflow: done when the run has begun. A retry of it takes up the run that an earlier try started,
    whether that still runs or has ended; the tasks of the group tell how their parts ended.

    A clear while the run is active cancels it and waits until it has stopped, as ``on_clear`` says.
    """


def _written_of(task: Any) -> Any:
    """What makes up a task of the workflow; by its template fields, if it is no Databricks operator that tells."""
    try:
        itself = dict(task._get_task_base_json())
    except Exception:  # a user's own, which may be anything that the group takes
        return spec_values(task)
    beside = spec_values(task, (*CLUSTER, *RETRIES, "trigger_rule"))
    return {**itself, **{name: value for name, value in beside.items() if value not in (None, "all_success")}}


class ResumableDatabricksWorkflowTaskGroup(theirs.DatabricksWorkflowTaskGroup):
    """
    `DatabricksWorkflowTaskGroup` whose ``launch`` task starts one run; every other argument is the provider's.

    Use the resumable notebook and task operators inside: they watch their part of that run, and an eviction does not cancel it.

    Args:
        durable: of the ``launch`` task; False: exactly the provider's.
        resume_policy: of the ``launch`` task.

    Raises:
        ConfigurationError: a wrong policy, when the group is made.
    """

    def __init__(
        self,
        *args: Any,
        durable: bool | None = None,
        resume_policy: ResumePolicy | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        ResumePolicy.of(resume_policy)  # a wrong one is told here: the provider's group cannot be left cleanly later
        super().__init__(*args, **kwargs)
        given: dict[str, Any] = {"durable": durable, "resume_policy": resume_policy}
        self._launch_arguments = {name: value for name, value in given.items() if value is not None}

    def __exit__(self, *exc: Any) -> None:
        with _launching_with(functools.partial(LaunchOperator, **self._launch_arguments)):
            super().__exit__(*exc)


@contextmanager
def _launching_with(operator: Any) -> Iterator[None]:
    """The provider's group names the class of its launch task itself, as a global of its module."""
    with _swapping:
        before = theirs._CreateDatabricksWorkflowOperator
        theirs._CreateDatabricksWorkflowOperator = operator
        try:
            yield
        finally:
            theirs._CreateDatabricksWorkflowOperator = before
