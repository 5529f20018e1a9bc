"""What the record of a job must say of its task, for its states to be told apart without the task."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resumable.cleanup.reach import adapter_of
from resumable.jobs.decision import JobState

pytest.importorskip("airflow.providers.amazon")

from resumable.operators.batch import ResumableBatchOperator
from resumable.operators.comprehend import ResumableComprehendCreateDocumentClassifierOperator
from resumable.operators.emr import ResumableEmrCreateJobFlowOperator
from resumable.operators.glue_data_quality import ResumableGlueDataQualityRuleSetEvaluationRunOperator

CLASSIFIER = {
    "document_classifier_name": "c",
    "input_data_config": {},
    "mode": "MULTI_CLASS",
    "data_access_role_arn": "arn:aws:iam::1:role/r",
    "language_code": "en",
}
RULES = {"datasource": {}, "role": "r", "rule_set_names": ["r"]}


def service_of(operator: Any) -> Any:
    return type(operator)._resumable.service(operator)


def from_afar(operator: Any) -> Any:
    """The adapter that another process makes of the task's record."""
    return adapter_of(json.loads(json.dumps(service_of(operator).connection())))


@pytest.mark.parametrize(
    ("policy", "running", "waiting"),
    [
        (None, JobState.SUCCEEDED, JobState.SUCCEEDED),
        ("wait_for_completion", JobState.SUCCEEDED, JobState.SUCCEEDED),
        ("wait_for_steps_completion", JobState.ACTIVE, JobState.ACTIVE),
    ],
)
def test_a_cluster_whose_steps_are_waited_for_is_not_done_when_it_runs(policy: Any, running: JobState, waiting: JobState) -> None:
    from airflow.providers.amazon.aws.utils.waiter import WaitPolicy

    given = {} if policy is None else {"wait_policy": WaitPolicy(policy)}
    operator = ResumableEmrCreateJobFlowOperator(task_id="t", wait_for_completion=True, **given)
    for adapter in (service_of(operator), from_afar(operator)):
        assert (adapter.classify("RUNNING"), adapter.classify("WAITING")) == (running, waiting)


@pytest.mark.parametrize("fails", [True, False])
def test_a_classifier_that_was_trained_with_warnings_is_what_its_task_takes_it_for(fails: bool) -> None:
    operator = ResumableComprehendCreateDocumentClassifierOperator(task_id="t", fail_on_warnings=fails, **CLASSIFIER)
    expected = JobState.FAILED if fails else JobState.SUCCEEDED
    for adapter in (service_of(operator), from_afar(operator)):
        assert adapter.classify("TRAINED_WITH_WARNING") is expected


@pytest.mark.parametrize("verifies", [True, False])
def test_whether_the_results_of_rules_count_is_in_the_record(verifies: bool) -> None:
    operator = ResumableGlueDataQualityRuleSetEvaluationRunOperator(task_id="t", verify_result_status=verifies, **RULES)
    assert from_afar(operator).operator.verify_result_status is verifies


class InTheName(ResumableBatchOperator):
    mark_in = "name"


def test_where_a_subclass_puts_the_mark_is_known_without_its_task() -> None:
    service = InTheName._resumable.service  # type: ignore[attr-defined]
    assert service.of_record(InTheName, {"aws_conn_id": None, "region_name": None}).mark_in == "name"
    assert service.of_record(ResumableBatchOperator, {"aws_conn_id": None, "region_name": None}).mark_in == "tag"


def test_a_record_of_an_earlier_release_that_says_less_is_read_with_the_defaults_of_the_operator() -> None:
    path = "resumable.operators.{}"
    for name in (
        "databricks:ResumableDatabricksRunNowOperator",
        "comprehend:ResumableComprehendCreateDocumentClassifierOperator",
        "glue_data_quality:ResumableGlueDataQualityRuleSetEvaluationRunOperator",
        "emr:ResumableEmrCreateJobFlowOperator",
    ):
        assert adapter_of({"operator": path.format(name)}) is not None
    adapter: Any = adapter_of({"operator": path.format("databricks:ResumableDatabricksRunNowOperator")})
    assert (adapter.operator.repair_run, adapter.operator.databricks_conn_id) == (False, "databricks_default")
