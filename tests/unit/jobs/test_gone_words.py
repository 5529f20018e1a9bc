"""What of a service's errors is believed to mean that the job is gone: its own words about this very job, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from resumable.operators import (
    appflow,
    athena,
    batch,
    bedrock,
    comprehend,
    datasync,
    ecs,
    emr,
    glue,
    glue_data_quality,
    quicksight,
    rds,
    redshift_data,
    sagemaker,
    step_function,
)
from resumable.operators._databricks_runs import is_missing
from resumable.operators.mwaa import _is_missing

GLUE = glue.ResumableGlueJobOperator
QUALITY = glue_data_quality.ResumableGlueDataQualityRuleSetEvaluationRunOperator
EKS, SERVERLESS = emr.ResumableEmrContainerOperator, emr.ResumableEmrServerlessStartJobOperator
NOTEBOOK = emr.ResumableEmrStartNotebookExecutionOperator
PII = comprehend.ResumableComprehendStartPiiEntitiesDetectionJobOperator
CLASSIFIER = comprehend.ResumableComprehendCreateDocumentClassifierOperator
PIPELINE = sagemaker.ResumableSageMakerStartPipelineOperator
TRAINING = sagemaker.ResumableSageMakerTrainingOperator
REDSHIFT = redshift_data.ResumableRedshiftDataOperator

OWN_WORDS = [
    (athena.ResumableAthenaOperator, "InvalidRequestException", "QueryExecution 0f1 was not found"),
    (GLUE, "EntityNotFoundException", "Job Run not found"),
    (GLUE, "EntityNotFoundException", "JobRun jr_0123 for job nightly does not exist"),
    (GLUE, "EntityNotFoundException", "Entity Not Found"),
    (QUALITY, "EntityNotFoundException", "Cannot find Data Quality Evaluation Run in account 123456789012 with id dqrun-1"),
    (EKS, "ResourceNotFoundException", "Job run 000001 doesn't exist"),
    (SERVERLESS, "ResourceNotFoundException", "JobRun 00f1 does not exist for application app"),
    (emr.ResumableEmrCreateJobFlowOperator, "InvalidRequestException", "Cluster id 'j-1' is not valid."),
    (NOTEBOOK, "InvalidRequestException", "Notebook execution is not valid."),
    (PII, "JobNotFoundException", "The specified job was not found."),
    (CLASSIFIER, "ResourceNotFoundException", "The specified resource was not found."),
    (bedrock.ResumableBedrockBatchInferenceOperator, "ResourceNotFoundException", "Could not find the job"),
    (quicksight.ResumableQuickSightCreateIngestionOperator, "ResourceNotFoundException", "Ingestion nightly is not found"),
    (REDSHIFT, "ResourceNotFoundException", "Query does not exist."),
    (REDSHIFT, "ValidationException", "Could not retrieve the query result as it has expired"),
    (rds.ResumableRdsStartExportTaskOperator, "ExportTaskNotFoundFault", "The export task does not exist"),
    (step_function.ResumableStepFunctionStartExecutionOperator, "ExecutionDoesNotExist", "Execution Does Not Exist"),
    (datasync.ResumableDataSyncOperator, "InvalidRequestException", "Task execution exec-1 is not found."),
    (TRAINING, "ValidationException", "Requested resource not found."),
    (PIPELINE, "ResourceNotFound", "Pipeline execution arn:x does not exist"),
]

ABOUT_SOMETHING_ELSE = [
    (athena.ResumableAthenaOperator, "InvalidRequestException", "WorkGroup nightly is not found"),
    (GLUE, "EntityNotFoundException", "Job with name: nightly not found."),
    (GLUE, "EntityNotFoundException", "Database sales not found"),
    (QUALITY, "EntityNotFoundException", "Cannot find the ruleset rules"),
    (EKS, "ResourceNotFoundException", "Virtual cluster vc doesn't exist"),
    (SERVERLESS, "ResourceNotFoundException", "Application app does not exist"),
    (emr.ResumableEmrCreateJobFlowOperator, "InvalidRequestException", "Instance fleet if-1 is not valid."),
    (NOTEBOOK, "InvalidRequestException", "Cluster id 'j-1' is not valid."),
    (PII, "ResourceNotFoundException", "The specified endpoint was not found."),
    (quicksight.ResumableQuickSightCreateIngestionOperator, "ResourceNotFoundException", "Data set sales is not found"),
    (quicksight.ResumableQuickSightCreateIngestionOperator, "ResourceNotFoundException", "Directory information for account"),
    (REDSHIFT, "ValidationException", "Workgroup group does not exist"),
    (rds.ResumableRdsStartExportTaskOperator, "DBSnapshotNotFound", "The snapshot does not exist"),
    (step_function.ResumableStepFunctionStartExecutionOperator, "StateMachineDoesNotExist", "State Machine Does Not Exist"),
    (datasync.ResumableDataSyncOperator, "InvalidRequestException", "Task task-1 is not found."),
    (TRAINING, "ValidationException", "1 validation error detected"),
    (PIPELINE, "ResourceNotFound", "Pipeline nightly does not exist"),
    (appflow.ResumableAppflowRunOperator, "ResourceNotFoundException", "Flow nightly does not exist"),
    (batch.ResumableBatchOperator, "ClientException", "Job queue not found"),
    (ecs.ResumableEcsRunTaskOperator, "ClusterNotFoundException", "Cluster not found."),
]

ALL: list[type[Any]] = list(dict.fromkeys(one for one, _, _ in (*OWN_WORDS, *ABOUT_SOMETHING_ELSE)))


def service_of(operator: Any) -> Any:
    """What judges an answer needs nothing of the operator."""
    return operator._resumable.service(None)


def error(code: str, message: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Look")


@pytest.mark.parametrize(("operator", "code", "message"), OWN_WORDS)
def test_a_services_own_words_about_the_job_mean_that_it_is_gone(operator, code, message):
    assert service_of(operator).is_missing(error(code, message))


@pytest.mark.parametrize(("operator", "code", "message"), ABOUT_SOMETHING_ELSE)
def test_the_same_code_about_something_else_does_not(operator, code, message):
    assert not service_of(operator).is_missing(error(code, message))


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        ("404", "Not Found", 404),  # as botocore has it of a proxy's page
        ("AccessDeniedException", "User is not authorized: the job run does not exist or is not found", 403),
        ("ThrottlingException", "Rate exceeded", 400),
        ("ExpiredTokenException", "The security token included in the request is expired", 403),
        ("UnrecognizedClientException", "The security token included in the request is invalid", 400),
        ("InternalFailure", "not found", 500),
    ],
)
def test_a_proxy_a_denial_and_a_limit_say_nothing_of_the_job(operator, code, message, status):
    assert not service_of(operator).is_missing(error(code, message, status))


def databricks(content: str, status: int) -> Exception:
    return RuntimeError(f"Response: {content}, Status Code: {status}")  # as the provider's hook words it


@pytest.mark.parametrize(
    ("what", "content", "status"),
    [
        ("run", '{"error_code":"INVALID_PARAMETER_VALUE","message":"Run 1001 does not exist."}', 400),
        ("run", '{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Run 1001 does not exist."}', 404),
        ("run", '{"error_code":"RESOURCE_DOES_NOT_EXIST","message":""}', 404),
        ("statement", '{"error_code":"NOT_FOUND","message":"The statement 1001 was not found."}', 404),
        ("statement", '{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Statement 1001 does not exist"}', 404),
    ],
)
def test_databricks_a_run_or_statement_is_gone_by_its_own_name(what, content, status):
    assert is_missing(databricks(content, status), what, 1001)


@pytest.mark.parametrize("what", ["run", "statement"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("<html><h1>404 Not Found</h1><hr>nginx</html>", 404),
        ('{"error_code":"ENDPOINT_NOT_FOUND","message":"No API found for \'GET /jobs/runs/get\'"}', 404),
        ('{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"Workspace 77 does not exist"}', 404),
        ('{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"SQL warehouse w was not found"}', 404),
        ('{"error_code":"INVALID_PARAMETER_VALUE","message":"Run 10010 does not exist."}', 400),
        ('{"error_code":"PERMISSION_DENIED","message":"User does not exist here."}', 403),
        ("", 404),
    ],
)
def test_databricks_any_other_404_says_nothing_of_it(what, content, status):
    assert not is_missing(databricks(content, status), what, 1001)


class FromTheWebServer(Exception):
    """What the provider's second way to the environment raises: an answer of requests."""

    def __init__(self, status: int, text: str) -> None:
        self.response = type("Answer", (), {"status_code": status, "text": text})()


def invoked(status: int, answer: Any) -> ClientError:
    parsed: Any = {"Error": {"Code": "RestApiClientException"}, "RestApiStatusCode": status, "RestApiResponse": answer}
    return ClientError(parsed, "InvokeRestApi")


@pytest.mark.parametrize(
    "said",
    [
        invoked(404, {"title": "DAGRun not found", "detail": "DAGRun with DAG ID: 'd' and DagRun ID: 'r' not found"}),
        invoked(404, {"detail": "The DagRun with dag_id: `d` and run_id: `r` was not found"}),
        FromTheWebServer(404, '{"detail": "The DagRun with dag_id: `d` and run_id: `r` was not found"}'),
    ],
)
def test_mwaa_the_environments_own_words_about_the_run_mean_that_it_is_gone(said):
    assert _is_missing(said)


@pytest.mark.parametrize(
    "said",
    [
        invoked(404, {"detail": "Not Found"}),
        invoked(404, {"detail": "The Dag with ID: `d` was not found"}),
        invoked(403, {"detail": "The DagRun was not found"}),
        FromTheWebServer(404, "<html>nginx: not found</html>"),
        error("ResourceNotFoundException", "Environment airflow not found", 404),
    ],
)
def test_mwaa_another_404_says_nothing_of_the_run(said):
    assert not _is_missing(said)
