"""The AWS operators that are repeated by name or by token: one bench for all, a service and a set of arguments for each."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from airflow.providers.amazon.aws.operators.appflow import (
    AppflowRunAfterOperator,
    AppflowRunBeforeOperator,
    AppflowRunDailyOperator,
    AppflowRunFullOperator,
    AppflowRunOperator,
)
from airflow.providers.amazon.aws.operators.bedrock import (
    BedrockBatchInferenceOperator,
    BedrockCreateProvisionedModelThroughputOperator,
    BedrockCustomizeModelOperator,
)
from airflow.providers.amazon.aws.operators.comprehend import (
    ComprehendCreateDocumentClassifierOperator,
    ComprehendStartPiiEntitiesDetectionJobOperator,
)
from airflow.providers.amazon.aws.operators.datasync import DataSyncOperator
from airflow.providers.amazon.aws.operators.glue import (
    GlueDataQualityRuleRecommendationRunOperator,
    GlueDataQualityRuleSetEvaluationRunOperator,
)
from airflow.providers.amazon.aws.operators.mwaa import MwaaTriggerDagRunOperator
from airflow.providers.amazon.aws.operators.quicksight import QuickSightCreateIngestionOperator
from airflow.providers.amazon.aws.operators.rds import (
    RdsCopyDbSnapshotOperator,
    RdsCreateDbSnapshotOperator,
    RdsStartExportTaskOperator,
)
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerAutoMLOperator,
    SageMakerProcessingOperator,
    SageMakerStartPipelineOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.operators.step_function import StepFunctionStartExecutionOperator

from resumable.operators import (
    appflow,
    bedrock,
    comprehend,
    datasync,
    glue_data_quality,
    mwaa,
    quicksight,
    rds,
    sagemaker,
    step_function,
)
from tests.services import aws_jobs as services
from tests.services.aws_jobs import AwsJobs


class JobsBench:
    """
    Args:
        server: the service.
        calls: the operations that submit, look at, and stop a job; the last one is empty where nothing stops it.
        arguments: of the operator, given what an edit changes.
    """

    def __init__(self, server: AwsJobs, calls: tuple[str, str, str], arguments: Callable[[str], dict[str, Any]]) -> None:
        self.server, self._arguments = server, arguments
        self.submit, look, self.stop = calls
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

    @property
    def skip(self) -> Callable[[], None] | None:
        """End the jobs in a way for which the operator skips its task, where there is one."""
        state = getattr(self.server, "skipped", None)
        return None if state is None else lambda: [self.server.finish(job, state) for job in self.server.running()]

    def at_once(self) -> None:
        self.server.duration = 0

    def forget(self) -> None:
        self.server.forget()

    def confuse(self) -> None:
        for job in self.server.running():
            self.server.finish(job, "A_STATE_OF_NEXT_YEAR")

    def another_task(self) -> None:
        """What comes next is another task, with a name of its own: let the one that all have here be free for it."""
        if self.server.author_names:
            self.server.forget()
            for job in self.server.all:
                job.token = ""  # and it has tokens of its own

    def cancels(self) -> int:
        return self.server.count(self.stop)

    @property
    def can_stop(self) -> bool:
        return bool(self.stop)


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


STEP_FUNCTIONS = bench(services.StepFunctions, "StartExecution", "DescribeExecution", "StopExecution", _execution)

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


def _inference(word: str) -> dict[str, Any]:
    uris = {"input_uri": "s3://in/", "output_uri": "s3://out/"}
    return {"job_name": "nightly", "role_arn": ROLE, "model_id": f"model-{len(word)}", **uris, **QUICK}


def _customization(word: str) -> dict[str, Any]:
    uris = {"training_data_uri": "s3://in/", "output_data_uri": "s3://out/"}
    model = {"custom_model_name": "mine", "base_model_id": "amazon.titan-text-lite-v1", "hyperparameters": {"word": word}}
    return {"job_name": "nightly", "role_arn": ROLE, **model, **uris, **QUICK}


def _throughput(word: str) -> dict[str, Any]:
    return {"model_units": len(word), "provisioned_model_name": "mine", "model_id": "model-1", **QUICK}


def _pii(word: str) -> dict[str, Any]:
    uris = {"input_data_config": {"S3Uri": f"s3://in/{word}"}, "output_data_config": {"S3Uri": "s3://out/"}}
    return {"mode": "ONLY_OFFSETS", "data_access_role_arn": ROLE, "language_code": "en", **uris, **QUICK}


def _classifier(word: str) -> dict[str, Any]:
    given = {"document_classifier_name": "mine", "input_data_config": {"S3Uri": f"s3://in/{word}"}, "mode": "MULTI_CLASS"}
    return {**given, "data_access_role_arn": ROLE, "language_code": "en", **QUICK}


def _evaluation(word: str) -> dict[str, Any]:
    return {**_recommendation(word), "rule_set_names": ["rules"]}


def _recommendation(word: str) -> dict[str, Any]:
    table = {"GlueTable": {"DatabaseName": "db", "TableName": word}}
    return {"datasource": table, "role": ROLE, "show_results": False, **QUICK}


def _export(word: str) -> dict[str, Any]:
    source = f"arn:aws:rds:{services.REGION}:{services.ACCOUNT}:snapshot:nightly"
    names = {"s3_bucket_name": "out", "iam_role_arn": ROLE, "kms_key_id": "key", "s3_prefix": word.replace(" ", "-")}
    return {
        "export_task_identifier": "nightly",
        "source_arn": source,
        **names,
        "waiter_interval": 0,
        "waiter_max_attempts": 10**6,
    }


def _snapshot(word: str) -> dict[str, Any]:
    return {"db_type": "instance", "db_identifier": word.replace(" ", "-"), "db_snapshot_identifier": "nightly"}


def _cluster_snapshot(word: str) -> dict[str, Any]:
    return {**_snapshot(word), "db_type": "cluster", "tags": {"team": "data"}}


def _copy(word: str) -> dict[str, Any]:
    source = word.replace(" ", "-")
    return {"db_type": "instance", "source_db_snapshot_identifier": source, "target_db_snapshot_identifier": "copy"}


def _cluster_copy(word: str) -> dict[str, Any]:
    return {**_copy(word), "db_type": "cluster", "tags": {"team": "data"}}


def _ingestion(word: str) -> dict[str, Any]:
    refresh = "FULL_REFRESH" if word == "as written" else "INCREMENTAL_REFRESH"
    return {"data_set_id": "sales", "ingestion_id": "nightly", "ingestion_type": refresh, "check_interval": 0}


def transfer(word: str) -> dict[str, Any]:
    ends = {"source_location_uri": "s3://from", "destination_location_uri": "s3://to"}
    includes = {"Includes": [{"FilterType": "SIMPLE_PATTERN", "Value": f"/{word}"}]}
    waits = {"wait_interval_seconds": 0, "max_iterations": 10**6}
    return {**ends, "update_task_kwargs": {"Name": "nightly"}, "task_execution_kwargs": includes, **waits}


@contextlib.contextmanager
def datasync_with_a_task(environ: Any) -> Iterator[JobsBench]:
    with bench(services.DataSync, *DATASYNC, transfer)(environ) as desk:
        desk.server.seed()
        yield desk


def _flow(word: str) -> dict[str, Any]:
    return {"flow_name": word.replace(" ", "-"), "poll_interval": 0, "max_attempts": 10**6}


def _full_flow(word: str) -> dict[str, Any]:
    return {"flow_name": word.replace(" ", "-"), "poll_interval": 0, "source": "salesforce", "max_attempts": 10**6}


def filtered_flow(word: str) -> dict[str, Any]:
    return {**_full_flow(word), "source_field": "created", "filter_date": "2026-01-01T00:00:00+00:00"}


def _dag_run(word: str) -> dict[str, Any]:
    given = {"env_name": "airflow", "trigger_dag_id": "nightly", "conf": {"word": word}, "airflow_version": 3}
    no_prefix = {"inject_host_prefix": False}  # "env." before 127.0.0.1 is no host
    return {**given, "wait_for_completion": True, "botocore_config": no_prefix, **QUICK}


QUICK = {"waiter_delay": 0, "waiter_max_attempts": 1_000_000}
APPFLOW = ("StartFlow", "DescribeFlowExecutionRecords", "CancelFlowExecutions")
DATASYNC = ("StartTaskExecution", "DescribeTaskExecution", "CancelTaskExecution")
BOTH: tuple[dict[str, Any], ...] = ({}, {"deferrable": True})
DEFERS = "deferrable" in inspect.signature(QuickSightCreateIngestionOperator.__init__).parameters
"""Whether QuickSight's operator of this provider can: the older ones cannot."""

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
    (
        "bedrock-batch-inference",
        bedrock.ResumableBedrockBatchInferenceOperator,
        renamed(BedrockBatchInferenceOperator, job_name="theirs"),
        bench(
            services.BedrockInvocations,
            "CreateModelInvocationJob",
            "GetModelInvocationJob",
            "StopModelInvocationJob",
            _inference,
        ),
        BOTH,
    ),
    (
        "bedrock-customize-model",
        bedrock.ResumableBedrockCustomizeModelOperator,
        renamed(BedrockCustomizeModelOperator, job_name="theirs"),
        bench(
            services.BedrockCustomizations,
            "CreateModelCustomizationJob",
            "GetModelCustomizationJob",
            "StopModelCustomizationJob",
            _customization,
        ),
        BOTH,
    ),
    (
        "bedrock-provisioned-throughput",
        bedrock.ResumableBedrockCreateProvisionedModelThroughputOperator,
        BedrockCreateProvisionedModelThroughputOperator,
        bench(
            services.BedrockThroughputs,
            "CreateProvisionedModelThroughput",
            "GetProvisionedModelThroughput",
            "DeleteProvisionedModelThroughput",
            _throughput,
        ),
        BOTH,
    ),
    (
        "comprehend-pii",
        comprehend.ResumableComprehendStartPiiEntitiesDetectionJobOperator,
        ComprehendStartPiiEntitiesDetectionJobOperator,
        bench(
            services.ComprehendPii,
            "StartPiiEntitiesDetectionJob",
            "DescribePiiEntitiesDetectionJob",
            "StopPiiEntitiesDetectionJob",
            _pii,
        ),
        BOTH,
    ),
    (
        "comprehend-classifier",
        comprehend.ResumableComprehendCreateDocumentClassifierOperator,
        ComprehendCreateDocumentClassifierOperator,
        bench(
            services.ComprehendClassifiers,
            "CreateDocumentClassifier",
            "DescribeDocumentClassifier",
            "StopTrainingDocumentClassifier",
            _classifier,
        ),
        BOTH,
    ),
    (
        "glue-data-quality-evaluation",
        glue_data_quality.ResumableGlueDataQualityRuleSetEvaluationRunOperator,
        GlueDataQualityRuleSetEvaluationRunOperator,
        bench(
            services.GlueQuality,
            "StartDataQualityRulesetEvaluationRun",
            "GetDataQualityRulesetEvaluationRun",
            "CancelDataQualityRulesetEvaluationRun",
            _evaluation,
        ),
        BOTH,
    ),
    (
        "glue-data-quality-recommendation",
        glue_data_quality.ResumableGlueDataQualityRuleRecommendationRunOperator,
        GlueDataQualityRuleRecommendationRunOperator,
        bench(
            services.GlueQuality,
            "StartDataQualityRuleRecommendationRun",
            "GetDataQualityRuleRecommendationRun",
            "CancelDataQualityRuleRecommendationRun",
            _recommendation,
        ),
        BOTH,
    ),
    (
        "rds-export",
        rds.ResumableRdsStartExportTaskOperator,
        renamed(RdsStartExportTaskOperator, export_task_identifier="theirs"),
        bench(services.RdsExports, "StartExportTask", "DescribeExportTasks", "CancelExportTask", _export),
        ({},),
    ),
    (
        "rds-snapshot",
        rds.ResumableRdsCreateDbSnapshotOperator,
        renamed(RdsCreateDbSnapshotOperator, db_snapshot_identifier="theirs"),
        bench(services.RdsSnapshots, "CreateDBSnapshot", "DescribeDBSnapshots", "", _snapshot),
        ({},),
    ),
    (
        "rds-cluster-snapshot",
        rds.ResumableRdsCreateDbSnapshotOperator,
        renamed(RdsCreateDbSnapshotOperator, db_snapshot_identifier="theirs"),
        bench(services.RdsSnapshots, "CreateDBClusterSnapshot", "DescribeDBClusterSnapshots", "", _cluster_snapshot),
        ({},),
    ),
    (
        "rds-copy",
        rds.ResumableRdsCopyDbSnapshotOperator,
        renamed(RdsCopyDbSnapshotOperator, target_db_snapshot_identifier="theirs"),
        bench(services.RdsCopies, "CopyDBSnapshot", "DescribeDBSnapshots", "DeleteDBSnapshot", _copy),
        ({},),
    ),
    (
        "rds-cluster-copy",
        rds.ResumableRdsCopyDbSnapshotOperator,
        renamed(RdsCopyDbSnapshotOperator, target_db_snapshot_identifier="theirs"),
        bench(
            services.RdsCopies,
            "CopyDBClusterSnapshot",
            "DescribeDBClusterSnapshots",
            "DeleteDBClusterSnapshot",
            _cluster_copy,
        ),
        ({},),
    ),
    (
        "quicksight-ingestion",
        quicksight.ResumableQuickSightCreateIngestionOperator,
        renamed(QuickSightCreateIngestionOperator, ingestion_id="theirs"),
        bench(services.QuickSight, "CreateIngestion", "DescribeIngestion", "CancelIngestion", _ingestion),
        BOTH if DEFERS else ({},),
    ),
    ("datasync", datasync.ResumableDataSyncOperator, DataSyncOperator, datasync_with_a_task, ({},)),
    *(
        (
            f"appflow-{name}",
            ours,
            theirs,
            bench(services.Appflow, *APPFLOW, arguments),
            ({},),
        )
        for name, ours, theirs, arguments in (
            ("run", appflow.ResumableAppflowRunOperator, AppflowRunOperator, _flow),
            ("full", appflow.ResumableAppflowRunFullOperator, AppflowRunFullOperator, _full_flow),
            ("before", appflow.ResumableAppflowRunBeforeOperator, AppflowRunBeforeOperator, filtered_flow),
            ("after", appflow.ResumableAppflowRunAfterOperator, AppflowRunAfterOperator, filtered_flow),
            ("daily", appflow.ResumableAppflowRunDailyOperator, AppflowRunDailyOperator, filtered_flow),
        )
    ),
    (
        "mwaa-trigger-dag-run",
        mwaa.ResumableMwaaTriggerDagRunOperator,
        MwaaTriggerDagRunOperator,
        bench(services.Mwaa, "POST dagRuns", "GET dagRuns", "PATCH dagRuns", _dag_run),
        BOTH,
    ),
]
