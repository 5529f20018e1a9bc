"""
SageMaker jobs that survive their worker.

Recovery: repeat by name, a job's name is unique in its account and region; pipelines; recovery: repeat by token.

Facts on the service (botocore's service model): names of training, processing and transform jobs hold 63 characters, those of
tuning and AutoML jobs 32; a name that is taken is answered with ResourceInUse until the job is deleted. A Describe of an unknown
job is answered with ValidationException or ResourceNotFound. StartPipelineExecution takes a ClientRequestToken of 32 to 128
characters.

More than 400 lines, because the provider has its six SageMaker operators in one module.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from resumable._extras import provider_import
from resumable.helpers import account_of, replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.sagemaker import (
        SageMakerAutoMLOperator,
        SageMakerProcessingOperator,
        SageMakerStartPipelineOperator,
        SageMakerTrainingOperator,
        SageMakerTransformOperator,
        SageMakerTuningOperator,
    )
    from airflow.providers.amazon.aws.triggers.sagemaker import SageMakerPipelineTrigger
    from botocore import xform_name
    from botocore.exceptions import BotoCoreError, ClientError

    from resumable.operators._aws import HOUR, AwsCall
    from resumable.operators._aws.names import AwsOwnNamedJob, named

__all__ = [
    "ResumableSageMakerAutoMLOperator",
    "ResumableSageMakerPipelineTrigger",
    "ResumableSageMakerProcessingOperator",
    "ResumableSageMakerStartPipelineOperator",
    "ResumableSageMakerTrainingOperator",
    "ResumableSageMakerTransformOperator",
    "ResumableSageMakerTuningOperator",
]

LONG_NAME, SHORT_NAME = 63, 32
_SECONDS, _LOOKS = Limit("max_ingestion_time"), Limit("max_attempts", "check_interval", default=60, deferred_only=True)
_NOT_THERE = re.compile(r"(?i)not found|(could not|can't|cannot|unable to) find|not exist")


class _SageMaker(AwsCall):
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

    _last_status: str | None = None

    def is_missing(self, error: ClientError) -> bool:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        return code == "ResourceNotFound" or (code == "ValidationException" and bool(_NOT_THERE.search(message)))

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with super().intercept(attempt), self.noting(self.describe, self._note_status):
            yield

    def _note_status(self, parsed: Mapping[str, Any], **_: Any) -> None:
        self._last_status = parsed.get(self.status_key, self._last_status)

    def execute(self, theirs: Callable[[], Any]) -> Any:
        self._last_status = None
        result = super().execute(theirs)
        # The provider takes a job that was stopped for a success.
        if self.waits() and self._last_status == "Stopped":
            raise RuntimeError(f"{self.attempt.handle} was stopped before it was complete.")
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

    checks_if_job_exists: ClassVar[bool] = False
    """Whether the operator looks for a job of the name, where it has no ``check_if_job_exists``."""

    _is_taken = False

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        theirs, check = self.operator.config, self.hook.check_s3_url

        def check_if_needed(url: str) -> Any:  # a job that exists, or may, does not fail because its input is gone
            return not attempt.is_first_submit or check(url)

        self.operator.config = copy.deepcopy(theirs)  # what is put into it is this attempt's
        try:
            with (
                replaced(self.hook, check_s3_url=check_if_needed),
                replaced(self.operator, **self.unique_names()),
                super().intercept(attempt),
            ):
                yield
        except BaseException:
            self.operator.config = theirs
            raise

    def unique_names(self) -> dict[str, Callable[..., Any]]:
        """The operator's methods that rename or refuse what exists, as they are to be while its ``execute`` runs."""
        theirs = self.operator._get_unique_job_name

        def unless_taken(proposed_name: str, *args: Any, **kwargs: Any) -> Any:  # they are asked once the service has said so
            return theirs(proposed_name, *args, **kwargs) if self._is_taken else proposed_name

        return {"_get_unique_job_name": unless_taken}

    def author_name(self) -> Any:
        return self.job_config().get(self.name_param)

    def use_name(self, name: Any) -> None:
        self.job_config()[self.name_param] = name

    def job_config(self) -> dict[str, Any]:
        """The part of the config that holds the job's name."""
        config: dict[str, Any] = self.operator.config
        return config

    def role(self) -> Any:
        """The role of the job, whose ARN names the account."""
        return self.operator.config.get("RoleArn")

    def before_execute(self, attempt: Attempt) -> None:
        self.known_account = account_of(self.role()) or self.known_account
        if not attempt.is_first_submit or self._is_taken:
            self.operator.config.pop("S3Operations", None)  # uploads that were made before the submit, answered or not

    def add_token(self, params: dict[str, Any], token: str) -> None:
        """The name is in the config already."""

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        arn = next((v for k, v in response.items() if k.endswith("Arn")), None)
        self.known_account = account_of(arn) or self.known_account
        return self._name_of(params)

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:  # noqa: ARG002
        ids = self._name_of(params)
        ours = self.may_be_ours(error, self._described(self.handle(ids)).get("CreationTime"))
        return ids if ours else None

    def _name_of(self, params: Mapping[str, Any]) -> dict[str, str]:
        return {"name": self.require_id(params[self.name_param], "job's name")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:  # noqa: ARG002
        return {}  # the provider reads the job by its name

    def state_of(self, handle: JobHandle) -> str:
        return str(self._described(handle)[self.status_key])

    def _described(self, handle: JobHandle) -> Mapping[str, Any]:
        call = getattr(self.hook.conn, xform_name(self.describe))
        described: Mapping[str, Any] = call(**{self.name_param: self.ids(handle, "name")[0]})
        return described

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return self.stop, {self.name_param: self.ids(handle, "name")[0]}

    def execute(self, theirs: Callable[[], Any]) -> Any:
        self._is_taken = False
        try:
            return super().execute(theirs)
        except ClientError as e:
            taken = e.response["Error"]["Code"] in self.conflicts and self.is_anothers(e.response)
            checks = getattr(self.operator, "check_if_job_exists", self.checks_if_job_exists)
            if not (taken and checks and self.attempt.in_doubt):
                raise
        self.attempt.rejected()
        self._is_taken = True
        return super().execute(theirs)


class TrainingJob(_NamedJob):
    """One training job."""

    together = "sagemaker-TrainingJob"
    limits = (_SECONDS, _LOOKS)
    operation, describe, stop = "CreateTrainingJob", "DescribeTrainingJob", "stop_training_job"
    name_param, status_key = "TrainingJobName", "TrainingJobStatus"

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)


@durable_operator(TrainingJob)
class ResumableSageMakerTrainingOperator(SageMakerTrainingOperator):
    """
    `SageMakerTrainingOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``TrainingJobName`` given, or the one that ``action_if_job_exists`` makes of it where
    that is taken; one that follows it, after a failure or a clear, has 8 hex characters more. Unlike the provider's, it stops the
    job when a user stops the task.
    """


class ProcessingJob(_NamedJob):
    """One processing job."""

    together = "sagemaker-ProcessingJob"
    limits = (_SECONDS, _LOOKS)
    checks_if_job_exists = True
    operation, describe, stop = "CreateProcessingJob", "DescribeProcessingJob", "stop_processing_job"
    name_param, status_key = "ProcessingJobName", "ProcessingJobStatus"

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        with replaced(self.operator, output_files_to_xcom=None), super().not_waiting():  # no files yet: it asks for a wait
            yield


@durable_operator(ProcessingJob)
class ResumableSageMakerProcessingOperator(SageMakerProcessingOperator):
    """
    `SageMakerProcessingOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The names of jobs are as with `ResumableSageMakerTrainingOperator`. Unlike the provider's, it stops the job when a user stops
    the task, and fails when the job was stopped before its end.
    """


class TransformJob(_NamedJob):
    """One batch transform job, and the model that is made for it."""

    together = "sagemaker-TransformJob"
    limits = (_SECONDS, _LOOKS)
    operation, describe, stop = "CreateTransformJob", "DescribeTransformJob", "stop_transform_job"
    name_param, status_key = "TransformJobName", "TransformJobStatus"
    setup_calls = ("CreateModel",)
    _own_model: Mapping[str, Any] | None = None
    """The model that is made under the author's name."""

    def waits(self) -> bool:
        return bool(self.operator.wait_for_completion)

    def job_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.operator.config.get("Transform", self.operator.config)
        return config

    def role(self) -> Any:
        return self.operator.config.get("Model", {}).get("ExecutionRoleArn")

    def before_execute(self, attempt: Attempt) -> None:
        super().before_execute(attempt)
        if model := self.operator.config.get("Model"):
            made = attempt.handle.ids.get("model") if attempt.handle is not None else None
            model["ModelName"] = made or self._name_of_model(attempt, model)
            self.operator.config["Transform"]["ModelName"] = model["ModelName"]

    def _name_of(self, params: Mapping[str, Any]) -> dict[str, str]:
        return {**super()._name_of(params), "model": str(params["ModelName"])}

    def _name_of_model(self, attempt: Attempt, model: Mapping[str, Any]) -> str:
        """The author's, where others look for it, if it is free or names the model that is wanted; else one that no other has."""
        given = str(model["ModelName"])
        self._own_model = model if self._is_free_or_same(given, model) else None
        return given if self._own_model else named(given, _digest(attempt.token, model), LONG_NAME)

    def _is_free_or_same(self, name: str, model: Mapping[str, Any]) -> bool:
        try:
            there = self.hook.conn.describe_model(ModelName=name)
        except ClientError as e:
            return bool(_NOT_THERE.search(e.response["Error"].get("Message", "")))
        except BotoCoreError:
            return False
        return _is_part({k: v for k, v in model.items() if k not in ("ModelName", "Tags")}, there)

    def setup_exists(self, operation: str, error: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """A name that is not the author's holds a digest of what the model is made of: one that exists is the one wanted."""
        answer = error.get("Error", {})
        is_taken = answer.get("Code") in ("ValidationException", "ResourceInUse") and "already exist" in answer.get("Message", "")
        return is_taken and (not self._own_model or self._is_free_or_same(self._own_model["ModelName"], self._own_model))

    def unique_names(self) -> dict[str, Callable[..., Any]]:
        return {**super().unique_names(), "_get_unique_model_name": lambda proposed_name, *_, **__: proposed_name}


@durable_operator(TransformJob)
class ResumableSageMakerTransformOperator(SageMakerTransformOperator):
    """
    `SageMakerTransformOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The names of jobs are as with `ResumableSageMakerTrainingOperator`. If the config has a model, it has the name given if that
    is free or names the same model; else 38 characters of it and 24 hex characters that stand for what it is made of. So
    ``check_if_model_exists`` has nothing to guard: one model is made for a job, also when a worker dies between the two. Unlike
    the provider's, it stops the job when a user stops the task, and fails when the job was stopped before its end.
    """


class TuningJob(_NamedJob):
    """One hyperparameter tuning job."""

    together = "sagemaker-HyperParameterTuningJob"
    limits = (_SECONDS,)
    operation, describe = "CreateHyperParameterTuningJob", "DescribeHyperParameterTuningJob"
    name_param, status_key = "HyperParameterTuningJobName", "HyperParameterTuningJobStatus"
    stop = "stop_hyper_parameter_tuning_job"
    name_length = SHORT_NAME

    def role(self) -> Any:
        return self.operator.config.get("TrainingJobDefinition", {}).get("RoleArn")


@durable_operator(TuningJob)
class ResumableSageMakerTuningOperator(SageMakerTuningOperator):
    """
    `SageMakerTuningOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``HyperParameterTuningJobName`` given, one that follows it 8 hex characters more, so
    a retry does not fail because the name is taken. Unlike the provider's, it stops the job when a user stops the task, and
    fails when the job was stopped before its end.
    """


class AutoMLJob(_NamedJob):
    """One AutoML job."""

    together = "sagemaker-AutoMLJob"
    operation, describe, stop = "CreateAutoMLJob", "DescribeAutoMLJob", "stop_auto_ml_job"
    name_param, status_key = "AutoMLJobName", "AutoMLJobStatus"
    name_length = SHORT_NAME

    def role(self) -> Any:
        return self.operator.role_arn

    def author_name(self) -> Any:
        return self.operator.job_name

    def use_name(self, name: Any) -> None:
        self.operator.job_name = name


@durable_operator(AutoMLJob)
class ResumableSageMakerAutoMLOperator(SageMakerAutoMLOperator):
    """
    `SageMakerAutoMLOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first job of a task instance has the ``job_name`` given, one that follows it 8 hex characters more. Unlike the provider's,
    it stops the job when a user stops the task, and fails when the job was stopped before its end.
    """


_PIPELINE_DONE, _PIPELINE_FAILED = ("Succeeded", "CompletedWithFailures"), ("Failed", "Stopped")


class ResumableSageMakerPipelineTrigger(SageMakerPipelineTrigger):
    """The provider's trigger, which also ends when the execution has completed with failures: the provider's waits on."""

    def __init__(self, waiter_type: Any, **kwargs: Any) -> None:
        super().__init__(waiter_type=self.Type(waiter_type), **kwargs)  # earlier providers' cannot be serialised with a number

    def hook(self) -> Any:
        hook = super().hook()
        ends = dict.fromkeys(_PIPELINE_DONE, "success") | dict.fromkeys(_PIPELINE_FAILED, "failure")
        status = {"matcher": "path", "argument": "PipelineExecutionStatus"}
        acceptors = [{**status, "expected": word, "state": end} for word, end in ends.items()]
        hook.get_waiter = functools.partial(hook.get_waiter, config_overrides={"acceptors": acceptors})
        return hook


class PipelineExecution(_SageMaker):
    """One execution of a pipeline."""

    operation, describe = "StartPipelineExecution", "DescribePipelineExecution"
    token_member = "ClientRequestToken"
    limits = (Limit("waiter_max_attempts", "check_interval"),)
    token_lifetime = HOUR
    goes_on_undeferred = True
    doubt = "the start is repeated with the same `ClientRequestToken`; SageMaker answers with the execution it has"
    window = "none known within an hour; an older doubt is refused (SageMaker does not say for how long it knows a token)"
    status_key = "PipelineExecutionStatus"
    active = frozenset({"Executing", "Stopping"})
    stopping = frozenset({"Stopping"})
    succeeded = frozenset(_PIPELINE_DONE)  # both are a success to the provider
    failed = frozenset(_PIPELINE_FAILED)
    own_trigger = ResumableSageMakerPipelineTrigger

    def is_missing(self, error: ClientError) -> bool:
        return super().is_missing(error) and "execution" in error.response["Error"].get("Message", "").lower()  # not the pipeline

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        arn = self.require_id(response.get("PipelineExecutionArn"), "execution's ARN")
        self.known_account = account_of(arn) or self.known_account
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


@durable_operator(PipelineExecution)
class ResumableSageMakerStartPipelineOperator(SageMakerStartPipelineOperator):
    """
    `SageMakerStartPipelineOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientRequestToken``; nothing of it is to be seen. Unlike the provider's, it stops the execution when a
    user stops the task that waits for it, and fails when the execution was stopped before its end.
    """


def _digest(token: str, model: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{token}{json.dumps(model, sort_keys=True, default=str)}".encode()).hexdigest()


def _is_part(given: Any, there: Any) -> bool:
    """Whether all that was given is ``there``, beside what the service adds. A role may be given by the end of its ARN."""
    if isinstance(given, Mapping):
        return isinstance(there, Mapping) and all(_is_part(value, there.get(key)) for key, value in given.items())
    if isinstance(given, list | tuple):
        pairs = isinstance(there, list) and len(there) == len(given) and zip(given, there, strict=True)
        return pairs is not False and all(_is_part(one, other) for one, other in pairs)
    return bool(given == there) or (isinstance(there, str) and there.startswith("arn:") and there.endswith(f"/{given}"))
