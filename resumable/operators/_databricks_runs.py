"""
What the Databricks operators that start a job run have in common.

Recovery: repeat by token, the service's own idempotency token.

Facts on the service: an existing ``idempotency_token`` is answered with the run that it started, whatever that run's state,
and "guarantees that exactly one run is launched" (Jobs API, runs/submit and run-now; at most 64 characters). If that run was
deleted, "an error is returned", whose words are not documented. A missing run is HTTP 400 INVALID_PARAMETER_VALUE "Run ... does
not exist" (databricks-sdk-py ``errors/overrides.py`` maps it), or RESOURCE_DOES_NOT_EXIST. A 404 alone says nothing of the run:
ENDPOINT_NOT_FOUND, a workspace that is not there, a proxy's page are 404 as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tenacity import RetryCallState, retry_if_exception_type

from resumable._extras import provider_import
from resumable.errors import InvalidAnswerError, RecordError
from resumable.helpers import replaced
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.provider_job import HookCall
from resumable.jobs.record import JobHandle
from resumable.jobs.rejection import proves_nothing_made
from resumable.stop.triggers import StopGuard

with provider_import("databricks"):
    from airflow.providers.databricks.hooks.databricks import DatabricksHook
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

if TYPE_CHECKING:
    from typing_extensions import Self

_ACTIVE = frozenset({"PENDING", "QUEUED", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY"})
_ENDED = frozenset({"SKIPPED", "INTERNAL_ERROR"})
_ELSE = re.compile(r"(?i)\b(workspace|endpoint|path|warehouse|cluster|job|user|principal|account|host)\b")
_SPENT = re.compile(r"(?is)idempotency.?token.*delet|delet.*idempotency.?token")
REFUSED = re.compile(r"Status Code: 4(?!08|09|29)\d\d")
_PAGE = re.compile(r"(?i)<(!doctype|html)\b|\bResponse: *,")
"""In an answer that is none of Databricks': a page of a proxy's, or an empty one, says nothing of what became of a submit."""
EXPIRED = re.compile(r"Status Code: 40[13]|\b40[13] Client Error")
"""A token that was replaced in the connection, say. The hook itself renews OAuth tokens, as long as their secret holds."""


class ResumableDatabricksExecutionTrigger(StopGuard, DatabricksExecutionTrigger):
    """The provider's trigger, which cancels the run only if a user has ended the task."""


class DatabricksCall(HookCall):
    """What every job of the workspace that a connection names has in common."""

    hook_name = "_hook"
    wait_argument = "wait_for_termination"
    reach_fields: ClassVar[tuple[str, ...]] = ("databricks_conn_id",)
    request_argument = "json"

    @classmethod
    def of_record(cls, operator: Any, connection: Mapping[str, Any]) -> Self:
        made = super().of_record(operator, connection)
        made._own_hook = DatabricksHook(made.operator.databricks_conn_id, caller="Resumable")
        return made

    @classmethod
    def shares(cls, operator: Any, connection: Mapping[str, Any], more: Mapping[str, Any]) -> str:  # noqa: ARG003
        return str(connection.get("databricks_conn_id"))

    @classmethod
    def shared_client(
        cls,
        operator: Any,
        connection: Mapping[str, Any],
        more: Mapping[str, Any],  # noqa: ARG003
        *,
        requests: int,
    ) -> Any:
        name = cls.of_record(operator, connection).operator.databricks_conn_id
        hook = DatabricksHook(name, timeout_seconds=60, retry_limit=requests, caller="Resumable")
        _ = hook.host  # the connection is looked up here
        return hook

    def place(self) -> Mapping[str, str]:
        return {"workspace": str(self.hook.host)}

    def is_rejection(self, error: BaseException) -> bool:
        is_page = bool(_PAGE.search(str(error)))
        return not is_page and (bool(REFUSED.search(str(error))) or proves_nothing_made(error))

    def is_expired(self, error: BaseException) -> bool:
        return bool(EXPIRED.search(str(error)))


class DatabricksRun(DatabricksCall):
    """A job run: the bound submit method of the operator's hook."""

    service = "databricks"
    recovery = Recovery.REPEAT
    doubt = "the submit goes out again with the same `idempotency_token`; the service answers with the run it has"
    window = "none known, as long as the service honours the token"
    look_methods = ("get_run",)
    own_trigger = ResumableDatabricksExecutionTrigger

    def add_token(self, arguments: dict[str, Any], token: str) -> None:
        arguments["idempotency_token"] = token

    def own_token(self, arguments: Mapping[str, Any]) -> str | None:
        own = arguments.get("idempotency_token") or None
        if own:
            self.log.warning(
                "resumable: idempotency_token=%r is yours. It keeps crashes from starting a second run, but a retry after a "
                "failed run, or a clear, is answered with the old run. Leave it unset to get a token per submission.",
                own,
            )
        return own

    @contextmanager
    def sending(self) -> Iterator[None]:
        """The hook repeats a POST by itself: the answer to the last one says nothing of those before."""
        asked, attempt = self.hook.retry_args, self.attempt
        is_repeated = asked.get("retry") or retry_if_exception_type()

        def note(sent: RetryCallState) -> bool:
            error = sent.outcome.exception() if sent.outcome is not None else None
            if error is not None and not proves_nothing_made(error):
                attempt.perhaps_made()
            return bool(is_repeated(sent))

        with replaced(self.hook, retry_args={**asked, "retry": note}):
            yield

    def ids_of(self, answer: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(answer, bool) or not isinstance(answer, int):
            raise InvalidAnswerError(
                f"Databricks answered the submit with run_id={answer!r}, which is no run's id. A run may be active: look for it "
                "in the workspace.",
                next_try="asks again with the same token",
            )
        job_id = arguments.get("job_id")
        return {"run_id": answer, "job_id": job_id} if job_id else {"run_id": answer}

    def answer_of(self, handle: JobHandle) -> int:
        return run_id_of(handle)

    def handle_of(self, external_id: Any) -> JobHandle:
        return self.handle(self.ids_of(int(external_id), {}))

    def have_job_in_common(self, one: Any, other: Any) -> bool:
        runs = [ids.get("run_id") if isinstance(ids, Mapping) else None for ids in (one, other)]
        return runs[0] is not None and runs[0] == runs[1]

    def observe(self, handle: JobHandle) -> Observation:
        try:
            state = self.hook.get_run(run_id_of(handle))["state"]
        except Exception as e:
            if is_missing(e, "run", run_id_of(handle)):
                return Observation(JobState.GONE, str(e))
            raise
        return observation_of(state)

    def cancel(self, handle: JobHandle) -> None:
        self.hook.cancel_run(run_id_of(handle))

    def is_stopping(self, seen: Observation) -> bool:
        """Whether a run that was told to stop is seen to; a run cancels asynchronously (Jobs API)."""
        return seen.detail.startswith("TERMINATING")

    def is_token_spent(self, error: BaseException) -> bool:
        """A refusal that names the idempotency token and a deletion. One that is worded otherwise leaves the doubt as it is."""
        return self.is_rejection(error) and bool(_SPENT.search(str(error)))


def is_missing(error: Exception, what: str, key: object) -> bool:
    """
    Whether an answer says that there is no such run or statement: that very one, or RESOURCE_DOES_NOT_EXIST and nothing about
    something else (a workspace, a warehouse).
    """
    text = str(error)
    named = rf"(?is)\b{what}\b\W+{re.escape(str(key))}\b.{{0,40}}(does(n't| not) exist|not found)"
    if re.search(named, text):
        return True
    return "RESOURCE_DOES_NOT_EXIST" in text and not _ELSE.search(text.partition("Status Code:")[0])


def run_id_of(handle: JobHandle) -> int:
    run_id = handle.ids.get("run_id") if isinstance(handle.ids, Mapping) else None
    if isinstance(run_id, bool) or not isinstance(run_id, int):
        raise RecordError(
            f"The record holds {handle.ids!r} as the id of a Databricks run, which is none. Nothing was submitted, and the run, "
            "if there is one, is left alone. Look for it in the workspace, then delete the task state key 'resumable' of this "
            "task instance."
        )
    return run_id


def observation_of(state: Mapping[str, Any]) -> Observation:
    """What the ``state`` of a run, or of one of its tasks, says."""
    life, result = state.get("life_cycle_state"), state.get("result_state") or ""
    return Observation(job_state_of(life, result), f"{life} {result}".strip())


def job_state_of(life: str | None, result: str) -> JobState:
    if life in _ACTIVE:
        return JobState.ACTIVE
    if life in _ENDED or (life == "TERMINATED" and result):
        return JobState.SUCCEEDED if result == "SUCCESS" else JobState.FAILED  # as the provider's RunState.is_successful
    return JobState.UNKNOWN
