"""Bedrock jobs that survive their worker: names and tokens, repeat by name and by token.

Facts on the service (botocore's service model): job names are unique and hold 63 characters; a clientRequestToken that was used
before makes the service ignore the request, "but does not return an error", and what it answers instead is not said; a name that
is taken is answered with ConflictException, or with a ValidationException that says "The provided job name is currently in use."
(the provider's tests; quoted answers of CreateModelImportJob).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from resumable._extras import provider_import
from resumable.helpers import account_of, replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.bedrock import (
        BedrockBatchInferenceOperator,
        BedrockCreateProvisionedModelThroughputOperator,
        BedrockCustomizeModelOperator,
    )
    from botocore.exceptions import ClientError

    from resumable.operators._aws import AwsCall
    from resumable.operators._aws.names import AwsOwnNamedJob

__all__ = [
    "ResumableBedrockBatchInferenceOperator",
    "ResumableBedrockCreateProvisionedModelThroughputOperator",
    "ResumableBedrockCustomizeModelOperator",
]

_TAKEN = "name is currently in use"


class _Bedrock(AwsCall):
    service = "bedrock"
    token_member = "clientRequestToken"
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True

    missing_codes = frozenset({"ResourceNotFoundException"})


class _BedrockJob(_Bedrock, AwsOwnNamedJob):
    doubt = "the submit is repeated with the same name and `clientRequestToken`; a job of that name, begun since, is taken up"
    window = (
        "none known; where Bedrock has forgotten the token, a job that somebody else begins under the same name while a submit "
        "is in doubt, or in the 15 minutes before, is taken for ours"
    )
    began_member: ClassVar[str] = "creationTime"
    name_param = "jobName"
    name_length = 63
    conflicts = frozenset({"ConflictException"})
    name_argument = "job_name"
    active = frozenset({"Submitted", "Validating", "Scheduled", "InProgress", "Stopping"})
    stopping = frozenset({"Stopping"})
    succeeded = frozenset({"Completed"})
    failed = frozenset({"Failed", "Stopped", "Expired", "PartiallyCompleted"})

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        arn = response.get("jobArn") or self.arn_of(params["jobName"])
        self.known_account = account_of(arn) or self.known_account
        return {"name": params["jobName"], "arn": self.require_id(arn, "job's ARN")}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        arn = self.arn_of(params["jobName"])
        ours = arn is not None and self.may_be_ours(error, self.described(arn).get(self.began_member))
        return {"name": params["jobName"], "arn": str(arn)} if ours else None

    def described(self, arn: str) -> Mapping[str, Any]:
        raise NotImplementedError

    def state_of(self, handle: JobHandle) -> str:
        return str(self.described(self.ids(handle, "arn")[0])["status"])

    def is_conflict(self, error: Mapping[str, Any]) -> bool:
        return super().is_conflict(error) or _TAKEN in str(error.get("Message"))

    def arn_of(self, name: str) -> str | None:
        """The ARN of the job of this name, None if none is to be seen."""
        raise NotImplementedError

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"jobArn": self.ids(handle, "arn")[0]}


class BatchInferenceJob(_BedrockJob):
    """One invocation of a model on many records."""

    operation = "CreateModelInvocationJob"
    began_member = "submitTime"

    def arn_of(self, name: str) -> str | None:
        pages = self.hook.conn.get_paginator("list_model_invocation_jobs").paginate(nameContains=name)
        jobs = (job for page in pages for job in page.get("invocationJobSummaries", ()))
        return next((job["jobArn"] for job in jobs if job["jobName"] == name), None)

    def described(self, arn: str) -> Mapping[str, Any]:
        return dict(self.hook.conn.get_model_invocation_job(jobIdentifier=arn))

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_model_invocation_job", {"jobIdentifier": self.ids(handle, "arn")[0]}


@durable_operator(BatchInferenceJob)
class ResumableBedrockBatchInferenceOperator(BedrockBatchInferenceOperator):
    """
    `BedrockBatchInferenceOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``job_name`` given, one that follows it 8 hex characters more. Unlike the provider's,
    it stops the job when a user stops the task.
    """


class CustomizationJob(_BedrockJob):
    """One training that makes a model of its own of a base model."""

    operation = "CreateModelCustomizationJob"
    http_status = 201
    not_templated = ("training_data_config", "output_data_config")

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        renames = self.operator.ensure_unique_job_name and attempt.is_first_submit  # in doubt, "taken" may mean our own job
        with replaced(self.operator, ensure_unique_job_name=renames), super().intercept(attempt):
            yield

    def arn_of(self, name: str) -> str | None:
        try:
            return str(self.hook.conn.get_model_customization_job(jobIdentifier=name)["jobArn"])
        except ClientError as e:
            if self.is_missing(e):
                return None
            raise

    def described(self, arn: str) -> Mapping[str, Any]:
        return dict(self.hook.conn.get_model_customization_job(jobIdentifier=arn))

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_model_customization_job", {"jobIdentifier": self.ids(handle, "arn")[0]}


@durable_operator(CustomizationJob)
class ResumableBedrockCustomizeModelOperator(BedrockCustomizeModelOperator):
    """
    `BedrockCustomizeModelOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``job_name`` given, or the one that ``ensure_unique_job_name`` makes of it where that
    is taken; one that follows it has 8 hex characters more. The model's name stays as it is. Unlike the provider's, it stops the
    job when a user stops the task.
    """


class ProvisionedThroughput(_Bedrock):
    """A throughput that is bought for a model, until it is in service."""

    operation = "CreateProvisionedModelThroughput"
    http_status = 201
    not_templated = ("create_throughput_kwargs",)
    token_lifetime = 3600.0
    doubt = (
        "the request is repeated with the same `clientRequestToken`; Bedrock ignores it, the throughput of that name is taken up"
    )
    window = "none known within an hour; an older doubt is refused (Bedrock does not say for how long it knows a token)"
    active = frozenset({"Creating", "Updating"})
    succeeded = frozenset({"InService"})
    failed = frozenset({"Failed"})
    look_path = "status"
    stop_deletes = True

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        arn = response.get("provisionedModelArn")
        if not arn:  # the answer to a repetition is not specified
            name = params["provisionedModelName"]
            arn = self.hook.conn.get_provisioned_model_throughput(provisionedModelId=name)["provisionedModelArn"]
        self.known_account = account_of(arn) or self.known_account
        return {"throughput": self.require_id(arn, "throughput's ARN")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"provisionedModelArn": self.ids(handle, "throughput")[0]}

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "get_provisioned_model_throughput", {"provisionedModelId": self.ids(handle, "throughput")[0]}

    def state_of(self, handle: JobHandle) -> str:
        method, arguments = self.look_call(handle)
        return str(getattr(self.hook.conn, method)(**arguments)["status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "delete_provisioned_model_throughput", {"provisionedModelId": self.ids(handle, "throughput")[0]}


@durable_operator(ProvisionedThroughput)
class ResumableBedrockCreateProvisionedModelThroughputOperator(BedrockCreateProvisionedModelThroughputOperator):
    """
    `BedrockCreateProvisionedModelThroughputOperator` with ``durable`` and ``resume_policy``; every other argument is the
    provider's.

    The request carries a ``clientRequestToken``; nothing of it is to be seen. A throughput is billed while it exists: when a user
    stops the task before it is in service, it is deleted, unlike with the provider's.
    """
