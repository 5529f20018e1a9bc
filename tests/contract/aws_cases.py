"""The AWS operators that are told by a token or a mark, under contract: a service and a set of arguments for each."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.batch import BatchOperator
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import (
    EmrContainerOperator,
    EmrCreateJobFlowOperator,
    EmrServerlessStartJobOperator,
    EmrStartNotebookExecutionOperator,
)
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator

from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.batch import ResumableBatchOperator
from resumable.operators.ecs import ResumableEcsRunTaskOperator
from resumable.operators.emr import (
    ResumableEmrContainerOperator,
    ResumableEmrCreateJobFlowOperator,
    ResumableEmrServerlessStartJobOperator,
    ResumableEmrStartNotebookExecutionOperator,
)
from resumable.operators.glue import ResumableGlueJobOperator
from resumable.operators.redshift_data import ResumableRedshiftDataOperator
from tests.contract.aws_jobs import bench
from tests.services import aws_tokens as services

BOTH: tuple[dict[str, Any], ...] = ({}, {"deferrable": True})


def _athena(word: str) -> dict[str, Any]:
    return {"query": f"SELECT '{word}'", "database": "db", "output_location": "s3://out/", "sleep_time": 0}


def _batch(word: str) -> dict[str, Any]:
    command = {"command": ["echo", word]}
    return {
        "job_name": "nightly",
        "job_queue": "queue",
        "job_definition": "definition",
        "container_overrides": command,
        "poll_interval": 0,
        "max_retries": 10**6,
    }


def _glue(word: str) -> dict[str, Any]:
    return {"job_name": "nightly", "script_args": {"--word": word}, "job_poll_interval": 0, "waiter_delay": 0}


def _container(word: str) -> dict[str, Any]:
    return {
        "name": "nightly",
        "virtual_cluster_id": "vc",
        "execution_role_arn": "arn:aws:iam::123456789012:role/job",
        "release_label": "emr-7.0.0-latest",
        "job_driver": {"sparkSubmitJobDriver": {"entryPoint": f"{word}.py"}},
        "poll_interval": 0,
    }


def _serverless(word: str) -> dict[str, Any]:
    return {
        "application_id": "app",
        "execution_role_arn": "arn:aws:iam::123456789012:role/job-runs",
        "job_driver": {"sparkSubmit": {"entryPoint": f"{word}.py"}},
        "waiter_delay": 0,
        "waiter_max_attempts": 10**6,
    }


def _cluster(word: str) -> dict[str, Any]:
    overrides = {"Name": "nightly", "LogUri": word, "Instances": {"InstanceCount": 1}}
    return {"job_flow_overrides": overrides, "wait_for_completion": True, "waiter_delay": 1, "emr_conn_id": None}


def _notebook(word: str) -> dict[str, Any]:
    given = {"editor_id": "e-1", "relative_path": f"{word}.ipynb", "cluster_id": "j-1", "service_role": "EMR_Notebooks"}
    return {**given, "wait_for_completion": True, "waiter_delay": 1, "waiter_max_attempts": 10**6}


def _ecs(word: str) -> dict[str, Any]:
    overrides = {"containerOverrides": [{"name": "main", "command": ["echo", word]}]}
    given = {"task_definition": "nightly", "cluster": "cluster", "overrides": overrides}
    return {**given, "waiter_delay": 0, "skip_on_exit_code": 99}


def _redshift(word: str) -> dict[str, Any]:
    return {"sql": f"SELECT '{word}'", "database": "db", "workgroup_name": "group", "poll_interval": 1}


CASES: list[tuple[str, type[Any], Any, Any, tuple[dict[str, Any], ...]]] = [
    (
        "athena",
        ResumableAthenaOperator,
        AthenaOperator,
        bench(services.Athena, "StartQueryExecution", "GetQueryExecution", "StopQueryExecution", _athena),
        BOTH,
    ),
    (
        "batch",
        ResumableBatchOperator,
        BatchOperator,
        bench(services.Batch, "SubmitJob", "DescribeJobs", "TerminateJob", _batch),
        BOTH,
    ),
    (
        "glue",
        ResumableGlueJobOperator,
        GlueJobOperator,
        bench(services.Glue, "StartJobRun", "GetJobRun", "BatchStopJobRun", _glue),
        BOTH,
    ),
    (
        "emr-eks",
        ResumableEmrContainerOperator,
        EmrContainerOperator,
        bench(services.EmrContainers, "StartJobRun", "DescribeJobRun", "CancelJobRun", _container),
        BOTH,
    ),
    (
        "emr-serverless",
        ResumableEmrServerlessStartJobOperator,
        EmrServerlessStartJobOperator,
        bench(services.EmrServerless, "StartJobRun", "GetJobRun", "CancelJobRun", _serverless),
        BOTH,
    ),
    (
        "emr-cluster",
        ResumableEmrCreateJobFlowOperator,
        EmrCreateJobFlowOperator,
        bench(services.EmrClusters, "RunJobFlow", "DescribeCluster", "TerminateJobFlows", _cluster),
        BOTH,
    ),
    (
        "emr-notebook",
        ResumableEmrStartNotebookExecutionOperator,
        EmrStartNotebookExecutionOperator,
        bench(services.EmrNotebooks, "StartNotebookExecution", "DescribeNotebookExecution", "StopNotebookExecution", _notebook),
        ({},),
    ),
    (
        "ecs",
        ResumableEcsRunTaskOperator,
        EcsRunTaskOperator,
        bench(services.Ecs, "RunTask", "DescribeTasks", "StopTask", _ecs),
        BOTH,
    ),
    (
        "redshift-data",
        ResumableRedshiftDataOperator,
        RedshiftDataOperator,
        bench(services.RedshiftData, "ExecuteStatement", "DescribeStatement", "CancelStatement", _redshift),
        BOTH,
    ),
]
