"""Comprehend jobs that survive their worker: class B. StartPiiEntitiesDetectionJob and CreateDocumentClassifier take a token.

Facts on the service (botocore's service model): a ClientRequestToken holds 64 letters, digits and hyphens; for how long it is
known is not said. A classifier's training is stopped by StopTrainingDocumentClassifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import JobState
from resumable.limits import Limit
from resumable.record import JobHandle, JobRecord

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.comprehend import (
        ComprehendCreateDocumentClassifierOperator,
        ComprehendStartPiiEntitiesDetectionJobOperator,
    )

    from resumable.operators._aws import AwsReplay
    from resumable.operators._aws_names import account_of

__all__ = ["ResumableComprehendCreateDocumentClassifierOperator", "ResumableComprehendStartPiiEntitiesDetectionJobOperator"]


class _Comprehend(AwsReplay):
    service = "comprehend"
    token_member = "ClientRequestToken"
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True
    token_lifetime = 3600.0
    doubt = "the request is repeated with the same `ClientRequestToken`; Comprehend answers with the job it has"
    window = "none known within an hour; an older doubt is refused (Comprehend does not say for how long it knows a token)"

    if TYPE_CHECKING:  # of the provider's operators
        data_access_role_arn: Any
        start_pii_entities_kwargs: Any

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self._resumable_account = account_of(self.data_access_role_arn) or self._resumable_account



class ResumableComprehendStartPiiEntitiesDetectionJobOperator(_Comprehend, ComprehendStartPiiEntitiesDetectionJobOperator):
    """
    `ComprehendStartPiiEntitiesDetectionJobOperator` with ``durable`` and ``resume_policy``; every other argument is the
    provider's.

    The request carries a ``ClientRequestToken``; nothing of it is to be seen. A job without a ``JobName`` is named by 10 hex
    characters, not by the time as the provider's, so that a repeated request is the same. Unlike the provider's, it stops the job
    when a user stops the task.
    """

    operation = "StartPiiEntitiesDetectionJob"
    active = frozenset({"SUBMITTED", "IN_PROGRESS", "STOP_REQUESTED"})
    stopping = frozenset({"STOP_REQUESTED"})
    succeeded = frozenset({"COMPLETED"})
    failed = frozenset({"FAILED", "STOPPED"})
    missing_codes = frozenset({"JobNotFoundException"})

    def before_execute(self, attempt: Attempt) -> None:
        super().before_execute(attempt)
        given = self.start_pii_entities_kwargs
        name = given.get("JobName") or f"start_pii_entities_detection_job-{attempt.token[:10]}"
        self.start_pii_entities_kwargs = {**given, "JobName": name}

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"job": self.wanted(response.get("JobId"), "job's id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"JobId": self.ids(handle, "job")[0]}

    def state_of(self, handle: JobHandle) -> str:
        described = self.hook.conn.describe_pii_entities_detection_job(JobId=self.ids(handle, "job")[0])
        return str(described["PiiEntitiesDetectionJobProperties"]["JobStatus"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_pii_entities_detection_job", {"JobId": self.ids(handle, "job")[0]}


class ResumableComprehendCreateDocumentClassifierOperator(_Comprehend, ComprehendCreateDocumentClassifierOperator):
    """
    `ComprehendCreateDocumentClassifierOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The request carries a ``ClientRequestToken``; nothing of it is to be seen. Names stay as they are: a classifier that failed or
    was stopped keeps its name, so give a ``VersionName`` that varies, or ``on_failed="fail"``; no training is stopped for another
    one of the same name. Unlike the provider's, it stops the training when a user stops the task.
    """

    if TYPE_CHECKING:  # of the provider's operator
        document_classifier_name: Any
        document_classifier_kwargs: Any

    operation = "CreateDocumentClassifier"
    reach_fields = (*AwsReplay.reach_fields, "fail_on_warnings")
    active = frozenset({"SUBMITTED", "TRAINING", "STOP_REQUESTED", "DELETING"})
    stopping = frozenset({"STOP_REQUESTED", "DELETING"})
    succeeded = frozenset({"TRAINED", "TRAINED_WITH_WARNING"})
    failed = frozenset({"IN_ERROR", "STOPPED"})
    missing_codes = frozenset({"ResourceNotFoundException"})

    def place_state(self, word: str) -> JobState:
        if word == "TRAINED_WITH_WARNING" and self.fail_on_warnings:
            return JobState.FAILED
        return super().place_state(word)

    def _resumable_one_job(self, record: JobRecord) -> str:
        version = self.document_classifier_kwargs.get("VersionName")
        name = f"{self.document_classifier_name}/version/{version}" if version else str(self.document_classifier_name)
        if record.handle is not None and self.ids(record.handle, "classifier")[0].endswith(f":document-classifier/{name}"):
            return f"its name {name!r} is your own and unchanged: Comprehend takes one once, that of a stopped training included"
        return super()._resumable_one_job(record)

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"classifier": self.wanted(response.get("DocumentClassifierArn"), "classifier's ARN")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"DocumentClassifierArn": self.ids(handle, "classifier")[0]}

    def state_of(self, handle: JobHandle) -> str:
        described = self.hook.conn.describe_document_classifier(DocumentClassifierArn=self.ids(handle, "classifier")[0])
        return str(described["DocumentClassifierProperties"]["Status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_training_document_classifier", {"DocumentClassifierArn": self.ids(handle, "classifier")[0]}
