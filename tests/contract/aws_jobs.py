"""The AWS operators of classes A and B under contract: one bench for all, a service and a set of arguments for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerAutoMLOperator,
    SageMakerProcessingOperator,
    SageMakerStartPipelineOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.operators.step_function import StepFunctionStartExecutionOperator

from resumable.operators import sagemaker, step_function
from tests.services import aws_jobs as services
from tests.services.aws_jobs import AwsJobs


class JobsBench:
    """
    Args:
        server: the service.
        calls: the operations that submit, look at, and stop a job.
        arguments: of the operator, given what an edit changes.
    """

    def __init__(self, server: AwsJobs, calls: tuple[str, str, str], arguments: Callable[[str], dict[str, Any]]) -> None:
        self.server, self._arguments = server, arguments
        self.submit, look, self._stop = calls
        self.status = (look,)

    def arguments(self) -> dict[str, Any]:
        return {"aws_conn_id": None, **self._arguments("as written")}

    def other_arguments(self) -> dict[str, Any]:
        return {"aws_conn_id": None, **self._arguments("edited")}

    def jobs(self) -> int:
        return len(self.server.all)

    def active(self) -> int:
        return len(self.server.running())

    def finish(self, *, ok: bool = True) -> None:
        for job in self.server.running():
            self.server.finish(job, self.server.succeeded if ok else self.server.failed, "" if ok else "boom")

    def at_once(self) -> None:
        self.server.duration = 0

    def forget(self) -> None:
        self.server.forget()

    def confuse(self) -> None:
        for job in self.server.running():
            self.server.finish(job, "A_STATE_OF_NEXT_YEAR")

    def cancels(self) -> int:
        return self.server.count(self._stop)


def bench(
    service: type[AwsJobs], submit: str, look: str, stop: str, arguments: Callable[[str], dict[str, Any]], **patches: Any
) -> Callable[[Any], contextlib.AbstractContextManager[Any]]:
    """A case's ``bench``: the service runs, and the environment points at it."""

    @contextlib.contextmanager
    def run(environ: Any) -> Iterator[JobsBench]:
        with service() as server:
            for name, value in server.env().items():
                environ.setenv(name, value)
            for target, value in patches.items():
                environ.setattr(f"resumable.operators.{target.replace('__', '.')}", value)
            yield JobsBench(server, (submit, look, stop), arguments)

    return run


def renamed(theirs: type[Any], **names: Any) -> Callable[..., Any]:
    """The provider's operator under another name than ours: beside ours with ``durable=False`` the same would be taken."""

    def make(**arguments: Any) -> Any:
        return theirs(**{**arguments, **{k: v(arguments[k]) if callable(v) else v for k, v in names.items()}})

    return make


def _execution(word: str) -> dict[str, Any]:
    return {
        "state_machine_arn": services.StepFunctions.machine,
        "name": "nightly",
        "state_machine_input": {"word": word},
        "waiter_delay": 0,
    }


STEP_FUNCTIONS = bench(
    services.StepFunctions, "StartExecution", "DescribeExecution", "StopExecution", _execution, step_function__VISIBLE_AFTER=0
)

ROLE = f"arn:aws:iam::{services.ACCOUNT}:role/me"


def in_config(key: str, *, inside: str = "", **more: Any) -> Callable[..., Any]:
    """Rename the job in a SageMaker config."""

    def rename(config: dict[str, Any]) -> dict[str, Any]:
        part = {**(config[inside] if inside else config), key: "theirs", **more}
        return {**config, inside: part} if inside else part

    return rename


def _training(word: str) -> dict[str, Any]:
    config = {
        "TrainingJobName": "train",
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": word, "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://out/"},
        "ResourceConfig": {"InstanceCount": "1", "InstanceType": "ml.m5.large", "VolumeSizeInGB": "1"},
        "StoppingCondition": {"MaxRuntimeInSeconds": "3600"},
    }
    return {"config": config, "print_log": False, "check_interval": 0}


def _processing(word: str) -> dict[str, Any]:
    cluster = {"InstanceCount": "1", "InstanceType": "ml.m5.large", "VolumeSizeInGB": "1"}
    config = {
        "ProcessingJobName": "process",
        "RoleArn": ROLE,
        "AppSpecification": {"ImageUri": word},
        "ProcessingResources": {"ClusterConfig": cluster},
    }
    return {"config": config, "check_interval": 0}


def transform(word: str) -> dict[str, Any]:
    job = {
        "TransformJobName": "transform",
        "ModelName": "model",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://in/x"}}, "ContentType": word},
        "TransformOutput": {"S3OutputPath": "s3://out/"},
        "TransformResources": {"InstanceCount": "1", "InstanceType": "ml.m5.large"},
        "MaxConcurrentTransforms": "1",
        "MaxPayloadInMB": "1",
    }
    model = {"ModelName": "model", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "image"}}
    return {"config": {"Model": model, "Transform": job}, "check_interval": 0}


def _tuning(word: str) -> dict[str, Any]:
    resources = {"InstanceCount": "1", "InstanceType": "ml.m5.large", "VolumeSizeInGB": "1"}
    files = {"FileSystemId": "fs-0123456789a", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/in"}
    limits = {"MaxNumberOfTrainingJobs": "2", "MaxParallelTrainingJobs": "1"}
    config = {
        "HyperParameterTuningJobName": "tune-something-long",
        "HyperParameterTuningJobConfig": {"Strategy": "Bayesian", "ResourceLimits": limits},
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {"TrainingImage": word, "TrainingInputMode": "File"},
            "InputDataConfig": [{"ChannelName": "train", "DataSource": {"FileSystemDataSource": files}}],
            "OutputDataConfig": {"S3OutputPath": "s3://out/"},
            "ResourceConfig": resources,
            "RoleArn": ROLE,
            "StoppingCondition": {"MaxRuntimeInSeconds": "3600"},
        },
    }
    return {"config": config, "check_interval": 0, "wait_for_completion": True}


def _auto_ml(word: str) -> dict[str, Any]:
    given = {"job_name": "auto", "s3_input": "s3://in/", "target_attribute": word, "s3_output": "s3://out/", "role_arn": ROLE}
    return {**given, "check_interval": 0}


def _pipeline(word: str) -> dict[str, Any]:
    waits = {"wait_for_completion": True, "check_interval": 0, "waiter_max_attempts": 1_000_000}
    return {"pipeline_name": "nightly", "pipeline_params": {"word": word}, **waits}


BOTH: tuple[dict[str, Any], ...] = ({}, {"deferrable": True})

CASES: list[tuple[str, type[Any], Any, Any, tuple[dict[str, Any], ...]]] = [
    (
        "step-functions",
        step_function.ResumableStepFunctionStartExecutionOperator,
        renamed(StepFunctionStartExecutionOperator, name="theirs"),
        STEP_FUNCTIONS,
        ({"deferrable": True},),  # without, the provider's does not wait
    ),
    (
        "sagemaker-training",
        sagemaker.ResumableSageMakerTrainingOperator,
        renamed(SageMakerTrainingOperator, config=in_config("TrainingJobName")),
        bench(services.SageMakerTraining, "CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", _training),
        BOTH,
    ),
    (
        "sagemaker-processing",
        sagemaker.ResumableSageMakerProcessingOperator,
        renamed(SageMakerProcessingOperator, config=in_config("ProcessingJobName")),
        bench(services.SageMakerProcessing, "CreateProcessingJob", "DescribeProcessingJob", "StopProcessingJob", _processing),
        BOTH,
    ),
    (
        "sagemaker-transform",
        sagemaker.ResumableSageMakerTransformOperator,
        renamed(
            SageMakerTransformOperator,
            config=lambda config: in_config("TransformJobName", inside="Transform", ModelName="theirs")(
                in_config("ModelName", inside="Model")(config)
            ),
        ),
        bench(services.SageMakerTransform, "CreateTransformJob", "DescribeTransformJob", "StopTransformJob", transform),
        BOTH,
    ),
    (
        "sagemaker-tuning",
        sagemaker.ResumableSageMakerTuningOperator,
        renamed(SageMakerTuningOperator, config=in_config("HyperParameterTuningJobName")),
        bench(
            services.SageMakerTuning,
            "CreateHyperParameterTuningJob",
            "DescribeHyperParameterTuningJob",
            "StopHyperParameterTuningJob",
            _tuning,
        ),
        BOTH,
    ),
    (
        "sagemaker-auto-ml",
        sagemaker.ResumableSageMakerAutoMLOperator,
        renamed(SageMakerAutoMLOperator, job_name="theirs"),
        bench(services.SageMakerAutoML, "CreateAutoMLJob", "DescribeAutoMLJob", "StopAutoMLJob", _auto_ml),
        ({},),
    ),
    (
        "sagemaker-pipeline",
        sagemaker.ResumableSageMakerStartPipelineOperator,
        SageMakerStartPipelineOperator,
        bench(
            services.SageMakerPipelines,
            "StartPipelineExecution",
            "DescribePipelineExecution",
            "StopPipelineExecution",
            _pipeline,
        ),
        BOTH,
    ),
]
