"""Glue data quality runs that survive their worker: class B. The provider sends no ClientToken, the service takes one.

Facts on the service (botocore's service model): a ClientToken holds 255 characters; for how long it is known is not said. Runs
are deleted after 90 days.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.limits import Limit
from resumable.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.glue import (
        GlueDataQualityRuleRecommendationRunOperator,
        GlueDataQualityRuleSetEvaluationRunOperator,
    )

    from resumable.operators._aws import AwsReplay
    from resumable.operators._aws_names import account_of

__all__ = [
    "ResumableGlueDataQualityRuleRecommendationRunOperator",
    "ResumableGlueDataQualityRuleSetEvaluationRunOperator",
]

_RULES_FAILED = "SUCCEEDED, and rules failed"


class _DataQuality(AwsReplay):
    service = "glue-data-quality"
    token_member = "ClientToken"
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

    if TYPE_CHECKING:  # of the provider's operators
        role: Any

    def before_execute(self, attempt: Attempt) -> None:  # noqa: ARG002
        self._resumable_account = account_of(self.role) or self._resumable_account

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:  # noqa: ARG002
        return {"run": self.wanted(response.get("RunId"), "run's id")}

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"RunId": self.ids(handle, "run")[0]}

    def state_of(self, handle: JobHandle) -> str:
        return str(getattr(self.hook.conn, self.look)(RunId=self.ids(handle, "run")[0])["Status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return self.stop, {"RunId": self.ids(handle, "run")[0]}


class ResumableGlueDataQualityRuleSetEvaluationRunOperator(_DataQuality, GlueDataQualityRuleSetEvaluationRunOperator):
    """
    `GlueDataQualityRuleSetEvaluationRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientToken``; nothing of it is to be seen. With ``verify_result_status`` a run with rules that failed
    is a run that failed, so a retry evaluates anew (``on_failed``). Unlike the provider's, it cancels the run when a user stops
    the task.
    """

    operation = "StartDataQualityRulesetEvaluationRun"
    reach_fields = (*AwsReplay.reach_fields, "verify_result_status", "wait_for_completion", "deferrable")
    look, stop = "get_data_quality_ruleset_evaluation_run", "cancel_data_quality_ruleset_evaluation_run"

    def validate_inputs(self) -> None:
        attempt = self._resumable_attempt
        if attempt is None or not attempt.replays:  # a run that exists needs its rule sets no longer
            super().validate_inputs()

    def state_of(self, handle: JobHandle) -> str:
        state = super().state_of(handle)
        if state != "SUCCEEDED" or not self.verify_result_status or not self._resumable_waits():
            return state
        results = self.hook.get_evaluation_run_results(self.ids(handle, "run")[0])["Results"]
        rules = (rule.get("Result") for result in results for rule in result["RuleResults"])
        return _RULES_FAILED if any(rule in ("FAIL", "ERROR") for rule in rules) else state


class ResumableGlueDataQualityRuleRecommendationRunOperator(_DataQuality, GlueDataQualityRuleRecommendationRunOperator):
    """
    `GlueDataQualityRuleRecommendationRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The start carries a ``ClientToken``; nothing of it is to be seen. Unlike the provider's, it cancels the run when a user stops
    the task.
    """

    operation = "StartDataQualityRuleRecommendationRun"
    look, stop = "get_data_quality_rule_recommendation_run", "cancel_data_quality_rule_recommendation_run"
