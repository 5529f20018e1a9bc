"""
Batch jobs that survive their worker.

Recovery: look up. SubmitJob knows no token, so it is put on the job as a tag and looked up.

Facts on the service (API reference, botocore's service model): ListJobs with a filter by name shows jobs of every status, the
newest first, without tags; DescribeJobs shows tags, for at most 100 jobs, and leaves out those it does not know. A job holds 50
tags. Tags in SubmitJob need the permission ``batch:TagResource``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resumable._extras import provider_import
from resumable.helpers import replaced
from resumable.jobs.decision import Recovery
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.batch import BatchOperator

    from resumable.operators._aws import TAG, AwsCall, chunks

if TYPE_CHECKING:
    pass

__all__ = ["ResumableBatchOperator"]

NAME_LENGTH = 128
JOBS_A_CALL = 100


class BatchJob(AwsCall):
    """One job in a queue."""

    together = "batch"
    service = "batch"
    operation = "SubmitJob"
    status_calls = ("DescribeJobs",)
    recovery = Recovery.LOOK_UP
    settle = 30.0
    wait_argument = "wait_for_completion"
    not_templated = ("share_identifier", "scheduling_priority_override", "submit_job_timeout")
    limits = (Limit("max_retries", "poll_interval"),)
    active = frozenset({"SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"})
    succeeded = frozenset({"SUCCEEDED"})
    failed = frozenset({"FAILED"})
    doubt = "the token is a tag of the job (`resumable-token`) and is looked up among the jobs of its name"
    window = (
        "the submit reaches Batch, or `ListJobs` shows the job, later than 30 seconds after it was sent or its answer was lost"
    )

    def add_token(self, params: dict[str, Any], token: str) -> None:
        if self.mark_in == "tag":
            params["tags"] = {**params.get("tags", {}), TAG: token}
        else:
            params["jobName"] = f"{params['jobName'][: NAME_LENGTH - len(token) - 1]}-{token}"

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"queue": str(params["jobQueue"]), "name": str(params["jobName"])}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"job": self.require_id(response.get("jobId"), "jobId"), "name": str(params["jobName"])}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        job, name = self.ids(handle, "job", "name")
        return {"jobId": job, "jobName": name}

    def state_of(self, handle: JobHandle) -> str | None:
        found = self.hook.conn.describe_jobs(jobs=list(self.ids(handle, "job")))["jobs"]
        return str(found[0]["status"]) if found else None

    def find(self, record: JobRecord) -> JobHandle | None:
        named = {"name": record.place["name"]}
        self.add_token_to_name(named, record.token)
        pages = self.hook.conn.get_paginator("list_jobs").paginate(
            jobQueue=record.place["queue"], filters=[{"name": "JOB_NAME", "values": [named["name"]]}]
        )
        oldest = self.oldest(record).timestamp() * 1000
        for page in pages:
            jobs = [job["jobId"] for job in page["jobSummaryList"] if job["createdAt"] >= oldest]
            for ids in chunks(jobs, JOBS_A_CALL):
                for job in self.hook.conn.describe_jobs(jobs=ids)["jobs"]:
                    if self.mark_in == "name" or job.get("tags", {}).get(TAG) == record.token:
                        return self.handle({"job": job["jobId"], "name": job["jobName"]}, record)
            if len(jobs) < len(page["jobSummaryList"]):
                return None
        return None

    def add_token_to_name(self, named: dict[str, str], token: str) -> None:
        """The name that the job has at the service."""
        if self.mark_in == "name":
            params = {"jobName": named["name"]}
            self.add_token(params, token)
            named["name"] = params["jobName"]

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        with replaced(self.operator, monitor_job=self._show_links):
            yield

    def _show_links(self, context: Any) -> None:
        """Of the provider's ``monitor_job`` only the links that it shows before it waits."""
        if hasattr(self.operator, "_persist_links"):
            self.operator._persist_links(context)

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "terminate_job", {"jobId": self.ids(handle, "job")[0], "reason": "stopped by Airflow"}


@durable_operator(BatchJob)
class ResumableBatchOperator(BatchOperator):
    """
    `BatchOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The job carries the tag ``resumable-token``, by which a submit whose answer was lost is found again. Where jobs may not be
    tagged, a subclass with ``mark_in = "name"`` has the token at the end of the job's name instead. A user's stop terminates the
    job, also while the task is deferred.
    """
