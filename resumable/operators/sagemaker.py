"""SageMaker jobs that survive their worker: class A, a job's name is unique in its account and region; pipelines: class B.

Facts on the service (botocore's service model): names of training, processing and transform jobs hold 63 characters, those of
tuning and AutoML jobs 32; a name that is taken is answered with ResourceInUse until the job is deleted. A Describe of an unknown
job is answered with ValidationException or ResourceNotFound. StartPipelineExecution takes a ClientRequestToken of 32 to 128
characters.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.lifecycle import Deliver
from resumable.limits import Limit
from resumable.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.sagemaker import (
        SageMakerAutoMLOperator,
        SageMakerProcessingOperator,
        SageMakerStartPipelineOperator,
        SageMakerTrainingOperator,
        SageMakerTransformOperator,
        SageMakerTuningOperator,
    )
    from botocore.exceptions import ClientError

    from resumable.operators._aws import AwsReplay
    from resumable.operators._aws_names import AwsOwnNamedJob, account_of, named

__all__ = [
    "ResumableSageMakerAutoMLOperator",
    "ResumableSageMakerProcessingOperator",
    "ResumableSageMakerStartPipelineOperator",
    "ResumableSageMakerTrainingOperator",
    "ResumableSageMakerTransformOperator",
    "ResumableSageMakerTuningOperator",
]

LONG_NAME, SHORT_NAME = 63, 32
_SECONDS, _LOOKS = Limit("max_ingestion_time"), Limit("max_attempts", "check_interval", default=60, deferred_only=True)
_NOT_THERE = re.compile(r"(?i)not found|(could not|can't|cannot|unable to) find|not exist")


class _SageMaker(AwsReplay):
    """What jobs and pipelines share."""

    service = "sagemaker"
    wait_argument = "wait_for_completion"
    active = frozenset({"InProgress", "Stopping"})
    stopping = frozenset({"Stopping"})
    succeeded = frozenset({"Completed"})
    failed = frozenset({"Failed", "Stopped"})

    describe: ClassVar[str]
    """The API call that looks at the job."""
    status_key: ClassVar[str]

    _resumable_last_status: str | None = None

    def is_missing(self, error: ClientError) -> bool:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        return code == "ResourceNotFound" or (code == "ValidationException" and bool(_NOT_THERE.search(message)))

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        event = f"after-call.{self.service_event}.{self.describe}"
        with super().seam(attempt):
            self.hook.conn.meta.events.register(event, self._resumable_note_status)
            try:
                yield
            finally:
                self.hook.conn.meta.events.unregister(event, self._resumable_note_status)

    def _resumable_note_status(self, parsed: Mapping[str, Any], **_: Any) -> None:
        self._resumable_last_status = parsed.get(self.status_key, self._resumable_last_status)

    def _resumable_execute_through_seam(self, context: Any, attempt: Attempt) -> Any:
        self._resumable_last_status = None
        result = super()._resumable_execute_through_seam(context, attempt)
        # The provider takes a job that was stopped for a success.
        if self._resumable_waits() and self._resumable_last_status == "Stopped":
            raise RuntimeError(f"{attempt.handle} was stopped before it was complete.")
        return result


class _NamedJob(AwsOwnNamedJob, _SageMaker):
    """A job whose name is put into the config before the provider's code reads it."""

    operation: ClassVar[str]
    conflicts = frozenset({"ResourceInUse"})
    doubt = "the submit is repeated under the same name; a job of that name, created since, is taken up"
    window = (
        "none known, unless somebody deletes the job before its answer is known; a job that somebody else creates under the same "
        "name while a submit is in doubt, or in the 15 minutes before, is taken for ours"
    )
    stop: ClassVar[str]
    name_length = LONG_NAME

    if TYPE_CHECKING:  # of the provider's operator
        config: Any

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        theirs, hook, check = self.config, self.hook, self.hook.check_s3_url
        self.config = copy.deepcopy(theirs)  # what is put into it is this attempt's
        hook.check_s3_url = lambda url: attempt.replays or check(url)  # a job that exists does not fail because its input is gone
        try:
            with super().seam(attempt):
                yield
        except BaseException:
            self.config = theirs
            raise
        finally:
            del hook.check_s3_url

    def author_name(self) -> Any:
        return self.job_config().get(self.name_param)

    def use_name(self, name: Any) -> None:
        self.job_config()[self.name_param] = name

    def job_config(self) -> dict[str, Any]:
        """The part of the config that holds the job's name."""
        config: dict[str, Any] = self.config
        return config

    def role(self) -> Any:
        """The role of the job, whose ARN names the account."""
        return self.config.get("RoleArn")

    def before_execute(self, attempt: Attempt) -> None:
        self._resumable_account = account_of(self.role()) or self._resumable_account
        if attempt.replays or self._resumable_is_taken:
            self.config.pop("S3Operations", None)  # uploads that were made before the submit

    def stamp(self, params: dict[str, Any], token: str) -> None:
        """The name is in the config already."""

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        arn = next((v for k, v in response.items() if k.endswith("Arn")), None)
        self._resumable_account = account_of(arn) or self._resumable_account
        return self._resumable_name_of(params)

    def adopted(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        ids = self._resumable_name_of(params)
        ours = self.may_be_ours(error, self._resumable_described(self.handle(ids)).get("CreationTime"))
        return ids if ours else None

    def _resumable_name_of(self, params: Mapping[str, Any]) -> dict[str, str]:
        return {"name": self.wanted(params[self.name_param], "job's name")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:  # noqa: ARG002
        return {}  # the provider reads the job by its name

    def state_of(self, handle: JobHandle) -> str:
        return str(self._resumable_described(handle)[self.status_key])

    def _resumable_described(self, handle: JobHandle) -> Mapping[str, Any]:
        call = getattr(self.hook.conn, _snake(self.describe))
        described: Mapping[str, Any] = call(**{self.name_param: self.ids(handle, "name")[0]})
        return described

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return self.stop, {self.name_param: self.ids(handle, "name")[0]}

    def _get_unique_job_name(self, proposed_name: str, *args: Any, **kwargs: Any) -> Any:
        """The provider's, which renames or refuses a job that exists: once the service has said that one does, not ours."""
        if self._resumable_is_durable and not self._resumable_is_taken:
            return proposed_name
        return super()._get_unique_job_name(proposed_name, *args, **kwargs)  # type: ignore[misc]

    check_if_job_exists = False
    _resumable_is_taken = False

    def _resumable_execute_through_seam(self, context: Any, attempt: Attempt) -> Any:
        self._resumable_is_taken = False
        try:
            return super()._resumable_execute_through_seam(context, attempt)
        except ClientError as e:
            taken = e.response["Error"]["Code"] in self.conflicts and self._resumable_is_anothers(e.response)
            if not (taken and self.check_if_job_exists and attempt.in_doubt):
                raise
        attempt.rejected()
        self._resumable_is_taken = True
        return super()._resumable_execute_through_seam(context, attempt)


class ResumableSageMakerTrainingOperator(_NamedJob, SageMakerTrainingOperator):
    """
    `SageMakerTrainingOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``TrainingJobName`` given, or the one that ``action_if_job_exists`` makes of it where
    that is taken; one that follows it, after a failure or a clear, has 8 hex characters more. Unlike the provider's, it stops the
    job when a user stops the task.
    """

    limits = (_SECONDS, _LOOKS)
    operation, describe, stop = "CreateTrainingJob", "DescribeTrainingJob", "stop_training_job"
    name_param, status_key = "TrainingJobName", "TrainingJobStatus"

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion)


class ResumableSageMakerProcessingOperator(_NamedJob, SageMakerProcessingOperator):
    """
    `SageMakerProcessingOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The names of jobs are as with `ResumableSageMakerTrainingOperator`. Unlike the provider's, it stops the job when a user stops
    the task, and fails when the job was stopped before its end.
    """

    limits = (_SECONDS, _LOOKS)
    check_if_job_exists = True  # the provider always does
    operation, describe, stop = "CreateProcessingJob", "DescribeProcessingJob", "stop_processing_job"
    name_param, status_key = "ProcessingJobName", "ProcessingJobStatus"

    if TYPE_CHECKING:  # of the provider's operator
        output_files_to_xcom: Any

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion)

    @contextmanager
    def _resumable_not_waiting(self) -> Iterator[None]:
        files = self.output_files_to_xcom
        self.output_files_to_xcom = None  # there are none yet, and the provider asks for a wait
        try:
            with super()._resumable_not_waiting():
                yield
        finally:
            self.output_files_to_xcom = files


class ResumableSageMakerTransformOperator(_NamedJob, SageMakerTransformOperator):
    """
    `SageMakerTransformOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The names of jobs are as with `ResumableSageMakerTrainingOperator`. If the config has a model, its name is the one given (38
    characters of it) and 24 hex characters that stand for what it is made of, so ``check_if_model_exists`` has nothing to guard:
    one model is made for a job, also when a worker dies between the two. Unlike the provider's, it stops the job when a user
    stops the task, and fails when the job was stopped before its end.
    """

    limits = (_SECONDS, _LOOKS)
    operation, describe, stop = "CreateTransformJob", "DescribeTransformJob", "stop_transform_job"
    name_param, status_key = "TransformJobName", "TransformJobStatus"
    setup = ("CreateModel",)

    def _resumable_waits(self) -> bool:
        return bool(self.wait_for_completion)

    def job_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.config.get("Transform", self.config)
        return config

    def role(self) -> Any:
        return self.config.get("Model", {}).get("ExecutionRoleArn")

    def before_execute(self, attempt: Attempt) -> None:
        super().before_execute(attempt)
        if model := self.config.get("Model"):
            made = attempt.handle.ids.get("model") if attempt.handle is not None else None
            model["ModelName"] = made or named(model["ModelName"], _digest(attempt.token, model), LONG_NAME)
            self.config["Transform"]["ModelName"] = model["ModelName"]

    def _resumable_name_of(self, params: Mapping[str, Any]) -> dict[str, str]:
        return {**super()._resumable_name_of(params), "model": str(params["ModelName"])}

    def setup_exists(self, operation: str, error: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """The model's name holds a digest of what it is made of: one that exists is the one wanted."""
        answer = error.get("Error", {})
        return answer.get("Code") in ("ValidationException", "ResourceInUse") and "already exist" in answer.get("Message", "")

    def _get_unique_model_name(self, proposed_name: str, *_: Any, **__: Any) -> str:
        return proposed_name if self._resumable_attempt is not None else super()._get_unique_model_name(proposed_name, *_, **__)


class ResumableSageMakerTuningOperator(_NamedJob, SageMakerTuningOperator):
    """
    `SageMakerTuningOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``HyperParameterTuningJobName`` given, one that follows it 8 hex characters more, so
    a retry does not fail because the name is taken. Unlike the provider's, it stops the job when a user stops the task, and
    fails when the job was stopped before its end.
    """

    limits = (_SECONDS,)
    operation, describe = "CreateHyperParameterTuningJob", "DescribeHyperParameterTuningJob"
    name_param, status_key = "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"
    stop = "stop_hyper_parameter_tuning_job"
    name_length = SHORT_NAME

    def role(self) -> Any:
        return self.config.get("TrainingJobDefinition", {}).get("RoleArn")


class ResumableSageMakerAutoMLOperator(_NamedJob, SageMakerAutoMLOperator):
    """
    `SageMakerAutoMLOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``job_name`` given, one that follows it 8 hex characters more. Unlike the provider's,
    it stops the job when a user stops the task, and fails when the job was stopped before its end.
    """

    operation, describe, stop = "CreateAutoMLJob", "DescribeAutoMLJob", "stop_auto_ml_job"
    name_param, status_key = "AutoMLJobName", "AutoMLJobStatus"
    name_length = SHORT_NAME

    if TYPE_CHECKING:  # of the provider's operator
        job_name: Any

    def role(self) -> Any:
        return self.role_arn

    def author_name(self) -> Any:
        return self.job_name

    def use_name(self, name: Any) -> None:
        self.job_name = name


class ResumableSageMakerStartPipelineOperator(_SageMaker, SageMakerStartPipelineOperator):
    """
    `SageMakerStartPipelineOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientRequestToken``; nothing of it is to be seen. Unlike the provider's, it stops the execution when a
    user stops the task that waits for it, and fails when the execution was stopped before its end.
    """

    operation, describe = "StartPipelineExecution", "DescribePipelineExecution"
    token_member = "ClientRequestToken"
    limits = (Limit("waiter_max_attempts", "check_interval"),)
    token_lifetime = 3600.0
    doubt = "the start is repeated with the same `ClientRequestToken`; SageMaker answers with the execution it has"
    window = "none known within an hour; an older doubt is refused (SageMaker does not say for how long it knows a token)"
    status_key = "PipelineExecutionStatus"
    active = frozenset({"Executing", "Stopping"})
    stopping = frozenset({"Stopping"})
    succeeded = frozenset({"Succeeded", "CompletedWithFailures"})  # the latter is a success to the provider

    def is_missing(self, error: ClientError) -> bool:
        return super().is_missing(error) and "execution" in error.response["Error"].get("Message", "").lower()  # not the pipeline

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        arn = self.wanted(response.get("PipelineExecutionArn"), "execution's ARN")
        self._resumable_account = account_of(arn) or self._resumable_account
        return {"execution": arn}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"PipelineExecutionArn": self.ids(handle, "execution")[0]}

    def state_of(self, handle: JobHandle) -> str:
        described = self.hook.conn.describe_pipeline_execution(PipelineExecutionArn=self.ids(handle, "execution")[0])
        return str(described[self.status_key])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        arn = self.ids(handle, "execution")[0]
        token = hashlib.sha256(arn.encode()).hexdigest()  # of 32 to 128 characters; one stop of one execution
        return "stop_pipeline_execution", {"PipelineExecutionArn": arn, "ClientRequestToken": token}

    def defer(self, **kwargs: Any) -> Any:
        if self._resumable_attempt is not None and isinstance(self._resumable_attempt.plan, Deliver):
            return None  # nothing to wait for: the provider's execute goes on and returns the ARN
        return super().defer(**kwargs)


def _digest(token: str, model: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{token}{json.dumps(model, sort_keys=True, default=str)}".encode()).hexdigest()


def _snake(operation: str) -> str:
    from botocore import xform_name

    return str(xform_name(operation))
