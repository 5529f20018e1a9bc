"""
Glue data quality runs that survive their worker.

Recovery: repeat by token. The provider sends no ClientToken, the service takes one.

Facts on the service (botocore's service model): a ClientToken holds 255 characters; for how long it is known is not said. Runs
are deleted after 90 days.
"""

from __future__ import annotations

import re
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
    from airflow.providers.amazon.aws.operators.glue import (
        GlueDataQualityRuleRecommendationRunOperator,
        GlueDataQualityRuleSetEvaluationRunOperator,
    )

    from resumable.operators._aws import AwsCall

__all__ = [
    "ResumableGlueDataQualityRuleRecommendationRunOperator",
    "ResumableGlueDataQualityRuleSetEvaluationRunOperator",
]

_RULES_FAILED = "SUCCEEDED, and rules failed"


class _DataQuality(AwsCall):
    service = "glue-data-quality"
    token_member = "ClientToken"
    not_templated = ("number_of_workers", "timeout")
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    wait_argument = "wait_for_completion"
    token_lifetime = 3600.0
    doubt = "the start is repeated with the same `ClientToken`; Glue answers with the run it has"
    window = "none known within an hour; an older doubt is refused (Glue does not say for how long it knows a token)"
    active = frozenset({"STARTING", "RUNNING", "STOPPING"})
    stopping = frozenset({"STOPPING"})
    succeeded = frozenset({"SUCCEEDED"})
    failed = frozenset({"FAILED", "STOPPED", "TIMEOUT", _RULES_FAILED})
    missing_codes = frozenset({"EntityNotFoundException"})  # of a rule set, a table, a result, too
    missing_words = re.compile(r"(?i)\brun\b|dqrun|^entity not found")

    look: ClassVar[str]
    stop: ClassVar[str]

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self.known_account = account_of(self.operator.role) or self.known_account

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"run": self.require_id(response.get("RunId"), "run's id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"RunId": self.ids(handle, "run")[0]}

    def state_of(self, handle: JobHandle) -> str:
        return str(getattr(self.hook.conn, self.look)(RunId=self.ids(handle, "run")[0])["Status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return self.stop, {"RunId": self.ids(handle, "run")[0]}


class RuleSetEvaluationRun(_DataQuality):
    """One evaluation of rule sets on a table."""

    operation = "StartDataQualityRulesetEvaluationRun"
    reach_fields = (*AwsCall.reach_fields, "verify_result_status", "wait_for_completion", "deferrable")
    look, stop = "get_data_quality_ruleset_evaluation_run", "cancel_data_quality_ruleset_evaluation_run"

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with replaced(self.operator, validate_inputs=self._validate), super().intercept(attempt):
            yield

    def _validate(self) -> None:
        if self.attempt.is_first_submit:  # a run that exists, or may, needs its rule sets no longer
            type(self.operator).validate_inputs(self.operator)

    def state_of(self, handle: JobHandle) -> str:
        state = super().state_of(handle)
        if state != "SUCCEEDED" or not self.operator.verify_result_status or not self.waits():
            return state
        results = self.hook.get_evaluation_run_results(self.ids(handle, "run")[0])["Results"]
        rules = (rule.get("Result") for result in results for rule in result["RuleResults"])
        return _RULES_FAILED if any(rule in ("FAIL", "ERROR") for rule in rules) else state


@durable_operator(RuleSetEvaluationRun)
class ResumableGlueDataQualityRuleSetEvaluationRunOperator(GlueDataQualityRuleSetEvaluationRunOperator):
    """
    `GlueDataQualityRuleSetEvaluationRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientToken``; nothing of it is to be seen. With ``verify_result_status`` a run with rules that failed
    is a run that failed, so a retry evaluates anew (``on_failed``). Unlike the provider's, it cancels the run when a user stops
    the task.
    """


class RuleRecommendationRun(_DataQuality):
    """One run that looks at a table and recommends rules for it."""

    operation = "StartDataQualityRuleRecommendationRun"
    look, stop = "get_data_quality_rule_recommendation_run", "cancel_data_quality_rule_recommendation_run"


@durable_operator(RuleRecommendationRun)
class ResumableGlueDataQualityRuleRecommendationRunOperator(GlueDataQualityRuleRecommendationRunOperator):
    """
    `GlueDataQualityRuleRecommendationRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientToken``; nothing of it is to be seen. Unlike the provider's, it cancels the run when a user stops
    the task.
    """
