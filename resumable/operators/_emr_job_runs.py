"""
Job runs of EMR on EKS and of EMR Serverless.

Recovery: repeat by token, StartJobRun takes a ``clientToken``. Facts: see `operators.emr`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from resumable import host
from resumable.helpers import account_of
from resumable.jobs.attempt import Attempt
from resumable.jobs.deferral import is_extended
from resumable.jobs.limits import Limit
from resumable.jobs.record import JobHandle, JobRecord
from resumable.operators._aws import HOUR, AwsCall


class EksJobRun(AwsCall):
    """A job run on a virtual cluster."""

    together = "emr-containers"
    service = "emr-containers"
    token_member = "clientToken"
    not_templated = ("tags", "job_retry_max_attempts")
    limits = (Limit("max_polling_attempts", "poll_interval"),)
    operation = "StartJobRun"
    status_calls = ("DescribeJobRun",)
    wait_argument = "wait_for_completion"
    token_lifetime = HOUR
    finds_expired = True
    settle = 30.0
    active = frozenset({"PENDING", "SUBMITTED", "RUNNING", "CANCEL_PENDING"})
    stopping = frozenset({"CANCEL_PENDING"})
    succeeded = frozenset({"COMPLETED"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"ResourceNotFoundException"})  # of the virtual cluster, too
    missing_words = re.compile(r"(?i)job ?run")
    doubt = "the job run is started again with the same `clientToken`; after an hour it is looked up by that token"
    window = "none known"

    def own_token(self, params: Mapping[str, Any]) -> str | None:
        return super().own_token(params) if self.operator.client_request_token else None  # else the provider has made one up

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"cluster": str(params["virtualClusterId"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        self.known_account = account_of(response.get("arn"))
        return {"cluster": str(params["virtualClusterId"]), "run": self.require_id(response.get("id"), "id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        cluster, run = self.ids(handle, "cluster", "run")
        return {"id": run, "virtualClusterId": cluster}

    def state_of(self, handle: JobHandle) -> str | None:
        cluster, run = self.ids(handle, "cluster", "run")
        return str(self.hook.conn.describe_job_run(virtualClusterId=cluster, id=run)["jobRun"]["state"])

    def find(self, record: JobRecord) -> JobHandle | None:
        cluster = record.place["cluster"]
        pages = self.hook.conn.get_paginator("list_job_runs").paginate(virtualClusterId=cluster, createdAfter=self.oldest(record))
        for page in pages:
            for run in page["jobRuns"]:
                if run.get("clientToken") == record.token:
                    return self.handle({"cluster": cluster, "run": run["id"]}, record)
        return None

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        cluster, run = self.ids(handle, "cluster", "run")
        return "cancel_job_run", {"virtualClusterId": cluster, "id": run}


class ServerlessJobRun(AwsCall):
    """A job run of an application."""

    together = "emr-serverless"
    service = "emr-serverless"
    token_member = "clientToken"
    limits = (Limit("waiter_max_attempts", "waiter_delay", default=25),)
    stops = ("CancelJobRun",)
    operation = "StartJobRun"
    status_calls = ("GetJobRun",)
    assumed = {"GetApplication": {"application": {"state": "STARTED"}}}  # the provider starts one that has stopped, for money
    conflicts = frozenset({"ConflictException"})
    wait_argument = "wait_for_completion"
    token_lifetime = HOUR
    active = frozenset({"SUBMITTED", "PENDING", "SCHEDULED", "QUEUED", "RUNNING", "CANCELLING"})
    stopping = frozenset({"CANCELLING"})
    succeeded = frozenset({"SUCCESS"})
    failed = frozenset({"FAILED", "CANCELLED"})
    missing_codes = frozenset({"ResourceNotFoundException"})  # of the application, too
    missing_words = re.compile(r"(?i)job ?run")
    doubt = "the job run is started again with the same `clientToken`; the service answers with the one it has"
    window = "none known within an hour; an older doubt is refused (EMR Serverless does not say for how long it knows a token)"

    def before_execute(self, attempt: Attempt) -> None:
        operator = self.operator
        named_by = self._given_token() or attempt.token
        operator.name = operator.name or operator.config.get("name") or f"emr_serverless_job_airflow_{named_by}"
        operator.config = {key: value for key, value in operator.config.items() if key != "name"}

    def own_token(self, params: Mapping[str, Any]) -> str | None:
        return super().own_token(params) if self._given_token() else None  # else the provider has made one up

    def _given_token(self) -> Any:
        return self.operator.config.get("clientToken") or host.given(self.operator).get("client_request_token")

    def restarts(self, method: str) -> bool:
        return method == "execute"  # the provider had deferred for the start of its application

    def resume(self, method: str, kwargs: Mapping[str, Any], theirs: Callable[[], Any]) -> Any:
        """
        Where the trigger tells a failure, the provider's ``execute_complete`` says that it cancels the job, and fails to read
        which. So it is called only by way of an author's own, who may have a word to say, and it never learns which.
        """
        event = kwargs.get("event")
        if method != "execute_complete" or event is None or event.get("status") == "success":
            return super().resume(method, kwargs, theirs)
        msg = f"EMR Serverless job failed, or waiting for it did: {event}"
        if not is_extended(self.operator):
            raise RuntimeError(msg)
        event.pop("job_details", None)
        try:
            return super().resume(method, kwargs, theirs)
        except KeyError as e:
            raise RuntimeError(msg) from e

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        self.known_account = account_of(response.get("arn"))
        return {"application": str(params["applicationId"]), "run": self.require_id(response.get("jobRunId"), "jobRunId")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        application, run = self.ids(handle, "application", "run")
        return {"applicationId": application, "jobRunId": run}

    def state_of(self, handle: JobHandle) -> str | None:
        application, run = self.ids(handle, "application", "run")
        return str(self.hook.conn.get_job_run(applicationId=application, jobRunId=run)["jobRun"]["state"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        application, run = self.ids(handle, "application", "run")
        return "cancel_job_run", {"applicationId": application, "jobRunId": run}

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)
