"""
Glue job runs that survive their worker.

Recovery: look up. StartJobRun knows no token, so it is a job argument, and is looked up.

Facts on the service (API reference, botocore's service model): a run's ``Arguments`` are shown by GetJobRuns, the newest run
first, 200 a page; runs are known for 365 days. States are STARTING, RUNNING, STOPPING, WAITING; SUCCEEDED; STOPPED, FAILED,
TIMEOUT, ERROR, EXPIRED.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from resumable import host
from resumable._extras import provider_import
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Recovery
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
    from airflow.providers.amazon.aws.triggers.glue import GlueJobCompleteTrigger
    from botocore.exceptions import ClientError

    from resumable.operators._aws import AwsCall

__all__ = ["ResumableGlueJobCompleteTrigger", "ResumableGlueJobOperator"]

ARGUMENT = "--resumable_token"
_ENDLESS = ("ERROR", "EXPIRED")
"""Ends of a run that the provider's waits do not know: in the task neither, in the trigger the second one."""


class ResumableGlueJobCompleteTrigger(GlueJobCompleteTrigger):
    """The provider's trigger, which also ends when the run expired in its queue: the provider's waits on."""

    def hook(self) -> Any:
        hook = super().hook()
        connect = hook.get_async_conn

        @asynccontextmanager
        async def seeing_every_end(opened: Any) -> AsyncIterator[Any]:
            async with opened as client:
                client.meta.events.register("after-call.glue.GetJobRun", _note_end)
                yield client

        async def get_async_conn(*args: Any, **kwargs: Any) -> Any:
            return seeing_every_end(await connect(*args, **kwargs))

        hook.get_async_conn = get_async_conn
        return hook


def _note_end(parsed: Mapping[str, Any], **_: Any) -> None:
    run = parsed.get("JobRun", {})
    if run.get("JobRunState") in _ENDLESS:
        run["JobRunState"] = "FAILED"


def _run_with(argument: str, value: str, page: Mapping[str, Any]) -> str | None:
    """The id of the first run of a page of GetJobRuns that has this job argument."""
    return next((str(run["Id"]) for run in page["JobRuns"] if run.get("Arguments", {}).get(argument) == value), None)


class GlueJobRun(AwsCall):
    """One run of a job."""

    together = "glue"
    service = "glue"
    operation = "StartJobRun"
    limits = (Limit("waiter_max_attempts", "waiter_delay", deferred_only=True),)
    status_calls = ("GetJobRun",)
    own_trigger = ResumableGlueJobCompleteTrigger
    setup_calls = ("CreateJob", "UpdateJob", "TagResource", "UntagResource")
    recovery = Recovery.LOOK_UP
    settle = 30.0
    wait_argument = "wait_for_completion"
    not_templated = ("num_of_dpus",)
    active = frozenset({"STARTING", "RUNNING", "STOPPING", "WAITING"})
    stopping = frozenset({"STOPPING"})
    succeeded = frozenset({"SUCCEEDED"})
    failed = frozenset({"STOPPED", "FAILED", "TIMEOUT", "ERROR", "EXPIRED"})
    missing_codes = frozenset({"EntityNotFoundException"})  # of the job definition, too
    missing_words = re.compile(r"(?i)job ?run|\bjr_|^entity not found")
    doubt = "the token is an argument of the run (`--resumable_token`) and is looked up among the runs of the job"
    window = (
        "the submit reaches Glue, or `GetJobRuns` shows the run, later than 30 seconds after it was sent or its answer was lost"
    )

    def add_token(self, params: dict[str, Any], token: str) -> None:
        params["Arguments"] = {**params.get("Arguments", {}), ARGUMENT: token}

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"job": str(params["JobName"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"job": str(params["JobName"]), "run": self.require_id(response.get("JobRunId"), "JobRunId")}

    def handle_of(self, external_id: Any) -> JobHandle:
        self.account()
        return self.handle({"job": str(self.operator.job_name), "run": str(external_id)})

    def marked_by_operator(self, context: Mapping[str, Any]) -> str | None:
        """
        The newest run with the mark of the provider's own durability, which keeps no id where it defers, nor before Airflow 3.3:
        its next try looks for that argument, among as many runs.
        """
        operator, ti = self.operator, context["ti"]
        marks = operator._resumable.their_durable and (operator.deferrable or not host.has_task_state())
        name = getattr(operator, "TASK_UUID_ARG", None)
        if not marks or name is None:
            return None
        map_index = -1 if ti.map_index is None else ti.map_index
        mark = operator.script_args.get(name, f"{ti.dag_id}:{ti.task_id}:{ti.run_id}:{map_index}")
        try:
            pages = self.hook.conn.get_paginator("get_job_runs").paginate(
                JobName=operator.job_name, PaginationConfig={"MaxItems": 2000}
            )
            return next((run for page in pages if (run := _run_with(name, str(mark), page))), None)
        except ClientError as e:
            if e.response["Error"]["Code"] not in self.missing_codes:  # of the job's definition, too
                raise
            return None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"JobRunId": self.ids(handle, "run")[0]}

    def setup_response(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:
        name = params.get("JobName") or params.get("Name")
        return {"CreateJob": {"Name": name}, "UpdateJob": {"JobName": name}}.get(operation, {})

    def state_of(self, handle: JobHandle) -> str | None:
        job, run = self.ids(handle, "job", "run")
        return str(self.hook.conn.get_job_run(JobName=job, RunId=run)["JobRun"]["JobRunState"])

    def find(self, record: JobRecord) -> JobHandle | None:
        job, oldest = record.place["job"], self.oldest(record)
        for page in self.hook.conn.get_paginator("get_job_runs").paginate(JobName=job):
            if run := _run_with(ARGUMENT, record.token, page):
                return self.handle({"job": job, "run": run}, record)
            began = [one.get("StartedOn") for one in page["JobRuns"]]  # none of a run that waits for others
            if began and all(at is not None and at < oldest for at in began):
                return None
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        job, run = self.ids(handle, "job", "run")
        return "batch_stop_job_run", {"JobName": job, "JobRunIds": [run]}

    # -- the provider's own ways --------------------------------------------------------------------------------------

    _may_upload = False

    @property
    def hook(self) -> Any:
        """The operator's. When the provider makes one it uploads a local script: see `_upload`."""
        if self._own_hook is not None or self.hook_name in vars(self.operator):
            return super().hook
        with replaced(self.operator, upload_etl_script_to_s3=self._upload):
            return super().hook

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with replaced(self.operator, upload_etl_script_to_s3=self._upload), super().intercept(attempt):
            yield

    def resume(self, method: str, kwargs: Mapping[str, Any], theirs: Callable[[], Any]) -> Any:
        with replaced(self.operator, upload_etl_script_to_s3=self._upload):
            return super().resume(method, kwargs, theirs)

    def _upload(self) -> None:
        """
        The provider's, which uploads a local script whenever its hook is made: here only where a run is to be started. Where one
        is there already nothing is changed, neither the script nor the job's definition, which holds its place.
        """
        if self._may_upload:
            type(self.operator).upload_etl_script_to_s3(self.operator)
        else:
            self.operator.s3_script_location = self.operator.script_location

    def before_execute(self, attempt: Attempt) -> None:
        operator = self.operator
        if attempt.is_first_submit and operator.s3_script_location == operator.script_location and self._is_local():
            vars(operator).pop(self.hook_name, None)  # made to look for a run
            operator.s3_script_location = None
        self._may_upload = attempt.is_first_submit
        look = type(self.hook).get_job_state

        def state(job_name: str, run_id: str) -> str:
            word = look(self.hook, job_name, run_id)
            return "FAILED" if word in _ENDLESS else word  # the provider's wait knows neither, and would never end

        vars(self.hook)["get_job_state"] = state

    def _is_local(self) -> bool:
        script = self.operator.script_location
        return bool(script) and not str(script).startswith(self.operator.s3_protocol)


@durable_operator(GlueJobRun)
class ResumableGlueJobOperator(GlueJobOperator):
    """
    `GlueJobOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The run has the job argument ``--resumable_token``, by which a submit whose answer was lost is found again: Glue has no less
    visible place. ``getResolvedOptions`` does not mind it; a script that refuses arguments it does not know needs
    ``durable=False``. A user's stop stops the run whatever ``stop_job_run_on_kill`` says, also while the task is deferred. A
    reattachment changes no job definition. The provider's own ``durable`` and ``resume_glue_job_on_retry`` are not in effect.
    """
