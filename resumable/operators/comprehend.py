"""
Comprehend jobs that survive their worker.

Recovery: repeat by token. StartPiiEntitiesDetectionJob and CreateDocumentClassifier take a token.

Facts on the service (botocore's service model): a ClientRequestToken holds 64 letters, digits and hyphens; for how long it is
known is not said. A classifier's training is stopped by StopTrainingDocumentClassifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resumable._extras import provider_import
from resumable.helpers import account_of
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle, JobRecord

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.comprehend import (
        ComprehendCreateDocumentClassifierOperator,
        ComprehendStartPiiEntitiesDetectionJobOperator,
    )

    from resumable.operators._aws import AwsCall

__all__ = ["ResumableComprehendCreateDocumentClassifierOperator", "ResumableComprehendStartPiiEntitiesDetectionJobOperator"]


class _Comprehend(AwsCall):
    service = "comprehend"
    token_member = "ClientRequestToken"
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True
    token_lifetime = 3600.0
    doubt = "the request is repeated with the same `ClientRequestToken`; Comprehend answers with the job it has"
    window = "none known within an hour; an older doubt is refused (Comprehend does not say for how long it knows a token)"

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self.known_account = account_of(self.operator.data_access_role_arn) or self.known_account


class PiiEntitiesDetectionJob(_Comprehend):
    """One search of documents for what identifies people."""

    operation = "StartPiiEntitiesDetectionJob"
    not_templated = ("mode", "start_pii_entities_kwargs")
    active = frozenset({"SUBMITTED", "IN_PROGRESS", "STOP_REQUESTED"})
    stopping = frozenset({"STOP_REQUESTED"})
    succeeded = frozenset({"COMPLETED"})
    failed = frozenset({"FAILED", "STOPPED"})
    missing_codes = frozenset({"JobNotFoundException"})

    def before_execute(self, attempt: Attempt) -> None:
        super().before_execute(attempt)
        given = self.operator.start_pii_entities_kwargs
        name = given.get("JobName") or f"start_pii_entities_detection_job-{attempt.token[:10]}"
        self.operator.start_pii_entities_kwargs = {**given, "JobName": name}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"job": self.require_id(response.get("JobId"), "job's id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"JobId": self.ids(handle, "job")[0]}

    def state_of(self, handle: JobHandle) -> str:
        described = self.hook.conn.describe_pii_entities_detection_job(JobId=self.ids(handle, "job")[0])
        return str(described["PiiEntitiesDetectionJobProperties"]["JobStatus"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_pii_entities_detection_job", {"JobId": self.ids(handle, "job")[0]}


@durable_operator(PiiEntitiesDetectionJob)
class ResumableComprehendStartPiiEntitiesDetectionJobOperator(ComprehendStartPiiEntitiesDetectionJobOperator):
    """
    `ComprehendStartPiiEntitiesDetectionJobOperator` with ``durable`` and ``resume_policy``; every other argument is the
    provider's.

    The request carries a ``ClientRequestToken``; nothing of it is to be seen. A job without a ``JobName`` is named by 10 hex
    characters, not by the time as the provider's, so that a repeated request is the same. Unlike the provider's, it stops the job
    when a user stops the task.
    """


class DocumentClassifier(_Comprehend):
    """The training of a classifier."""

    operation = "CreateDocumentClassifier"
    reach_fields = (*AwsCall.reach_fields, "fail_on_warnings")
    active = frozenset({"SUBMITTED", "TRAINING", "STOP_REQUESTED", "DELETING"})
    stopping = frozenset({"STOP_REQUESTED", "DELETING"})
    succeeded = frozenset({"TRAINED", "TRAINED_WITH_WARNING"})
    failed = frozenset({"IN_ERROR", "STOPPED"})
    missing_codes = frozenset({"ResourceNotFoundException"})

    def classify(self, word: str) -> JobState:
        if word == "TRAINED_WITH_WARNING" and self.operator.fail_on_warnings:
            return JobState.FAILED
        return super().classify(word)

    def one_job(self, record: JobRecord) -> str:
        version = self.operator.document_classifier_kwargs.get("VersionName")
        name = str(self.operator.document_classifier_name) + (f"/version/{version}" if version else "")
        if record.handle is not None and self.ids(record.handle, "classifier")[0].endswith(f":document-classifier/{name}"):
            return f"its name {name!r} is your own and unchanged: Comprehend takes one once, that of a stopped training included"
        return super().one_job(record)

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"classifier": self.require_id(response.get("DocumentClassifierArn"), "classifier's ARN")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"DocumentClassifierArn": self.ids(handle, "classifier")[0]}

    def state_of(self, handle: JobHandle) -> str:
        described = self.hook.conn.describe_document_classifier(DocumentClassifierArn=self.ids(handle, "classifier")[0])
        return str(described["DocumentClassifierProperties"]["Status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_training_document_classifier", {"DocumentClassifierArn": self.ids(handle, "classifier")[0]}


@durable_operator(DocumentClassifier)
class ResumableComprehendCreateDocumentClassifierOperator(ComprehendCreateDocumentClassifierOperator):
    """
    `ComprehendCreateDocumentClassifierOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The request carries a ``ClientRequestToken``; nothing of it is to be seen. Names stay as they are: a classifier that failed or
    was stopped keeps its name, so give a ``VersionName`` that varies, or ``on_failed="fail"``; no training is stopped for another
    one of the same name. Unlike the provider's, it stops the training when a user stops the task.
    """
