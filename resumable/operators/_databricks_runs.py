"""What the Databricks operators that start a job run have in common: class B, the service's own idempotency token.

Facts on the service: an existing ``idempotency_token`` is answered with the run that it started, whatever that run's state,
and "guarantees that exactly one run is launched" (Jobs API, runs/submit and run-now; at most 64 characters). If that run was
deleted, "an error is returned", whose words are not documented. A missing run is HTTP 400 INVALID_PARAMETER_VALUE "Run ... does
not exist" (databricks-sdk-py ``errors/overrides.py`` maps it), or RESOURCE_DOES_NOT_EXIST. A 404 alone says nothing of the run:
ENDPOINT_NOT_FOUND, a workspace that is not there, a proxy's page are 404 as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tenacity import RetryCallState, retry_if_exception_type

from resumable._extras import provider_import
from resumable.attempt import Attempt
from resumable.errors import InvalidAnswerError, RecordError
from resumable.lifecycle import Certainty, JobState, Observation
from resumable.record import JobHandle
from resumable.rejection import proves_nothing_made
from resumable.replay import ReplayMixin
from resumable.triggers import StopGuard

with provider_import("databricks"):
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

_ACTIVE = frozenset({"PENDING", "QUEUED", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY"})
_ENDED = frozenset({"SKIPPED", "INTERNAL_ERROR"})
_ELSE = re.compile(r"(?i)\b(workspace|endpoint|path|warehouse|cluster|job|user|principal|account|host)\b")
_SPENT = re.compile(r"(?is)idempotency.?token.*delet|delet.*idempotency.?token")
REFUSED = re.compile(r"Status Code: 4(?!08|09|29)\d\d")
EXPIRED = re.compile(r"Status Code: 40[13]|\b40[13] Client Error")
"""A token that was replaced in the connection, say. The hook itself renews OAuth tokens, as long as their secret holds."""


class ResumableDatabricksExecutionTrigger(StopGuard, DatabricksExecutionTrigger):
    """The provider's trigger, which cancels the run only if a user has ended the task."""


class DatabricksRunReplay(ReplayMixin):
    """The seam of every operator that starts a job run: the bound submit method of its cached hook."""

    service = "databricks"
    certainty = Certainty.RESEND
    doubt = "the submit goes out again with the same `idempotency_token`; the service answers with the run it has"
    window = "none known, as long as the service honours the token"
    wait_argument = "wait_for_termination"
    hook_name = "_hook"
    reach_fields: ClassVar[tuple[str, ...]] = ("databricks_conn_id",)
    databricks_retry_args: Any = None
    caller = "Resumable"
    submit_method: ClassVar[str]

    if TYPE_CHECKING:  # of the provider's operator
        _hook: Any
        submit_job: Callable[[Any], Any]
        poll_until_complete: Callable[[Any, Any], Any]
        get_job_result: Callable[[Any, Any], Any]

    def place(self) -> Mapping[str, str]:
        return {"workspace": str(self._hook.host)}

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        ours = {self.submit_method: self._resumable_submitter(attempt), "get_run": self._resumable_looker(attempt)}
        replaced = {**ours, **self._resumable_guards(attempt)}
        own = self._hook.__dict__
        own.update(replaced)
        try:
            yield
        finally:
            for name in replaced:
                own.pop(name, None)

    def _resumable_guards(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:  # noqa: ARG002
        """Other methods of the hook that must not do their work on a reattachment."""
        return {}

    def _resumable_submitter(self, attempt: Attempt) -> Callable[[dict[str, Any]], int]:
        send = getattr(self._hook, self.submit_method)

        def submit(json: dict[str, Any]) -> int:
            if attempt.handle is not None:
                return run_id_of(attempt.handle)
            own = json.get("idempotency_token") or None
            if own:
                self.log.warning(
                    "resumable: idempotency_token=%r is yours. It keeps crashes from starting a second run, but a retry after a "
                    "failed run, or a clear, is answered with the old run. Leave it unset to get a token per submission.",
                    own,
                )
            token, sent = attempt.intend(json, token=own)
            with self._resumable_noting_losses(attempt):
                run_id = send({**sent, "idempotency_token": token})
            attempt.submitted(self._resumable_handle(run_id, sent))
            if attempt.handle is None:
                raise RuntimeError("a submit without a handle: a bug in resumable")
            return run_id_of(attempt.handle)

        return submit

    @contextmanager
    def _resumable_noting_losses(self, attempt: Attempt) -> Iterator[None]:
        """The hook repeats a POST by itself: the answer to the last one says nothing of those before."""
        hook, asked = self._hook, self._hook.retry_args
        is_repeated = asked.get("retry") or retry_if_exception_type()

        def note(sent: RetryCallState) -> bool:
            error = sent.outcome.exception() if sent.outcome is not None else None
            if error is not None and not proves_nothing_made(error):
                attempt.perhaps_made()
            return bool(is_repeated(sent))

        hook.retry_args = {**asked, "retry": note}
        try:
            yield
        finally:
            hook.retry_args = asked

    def _resumable_looker(self, attempt: Attempt) -> Callable[[int], dict[str, Any]]:
        look: Callable[[int], dict[str, Any]] = self._hook.get_run

        def get_run(run_id: int) -> dict[str, Any]:
            self.refuse_unseen(attempt)
            attempt.flush()
            return look(run_id)

        return get_run

    def _resumable_handle(self, run_id: Any, json: Mapping[str, Any]) -> JobHandle:
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise InvalidAnswerError(
                f"Databricks answered the submit with run_id={run_id!r}, which is no run's id. A run may be active: look for it "
                "in the workspace.",
                next_try="asks again with the same token",
            )
        ids = {"run_id": run_id}
        if job_id := json.get("job_id"):
            ids["job_id"] = job_id
        return JobHandle(self.service, ids, self.place())

    def _resumable_handle_of(self, external_id: Any) -> JobHandle:
        return self._resumable_handle(int(external_id), {})

    def observe(self, handle: JobHandle) -> Observation:
        try:
            state = self._hook.get_run(run_id_of(handle))["state"]
        except Exception as e:
            if is_missing(e, "run", run_id_of(handle)):
                return Observation(JobState.GONE, str(e))
            raise
        life, result = state.get("life_cycle_state"), state.get("result_state") or ""
        return Observation(job_state_of(life, result), f"{life} {result}".strip())

    def cancel(self, handle: JobHandle) -> None:
        self._hook.cancel_run(run_id_of(handle))

    def is_stopping(self, seen: Observation) -> bool:
        """Whether a run that was told to stop is seen to; a run cancels asynchronously (Jobs API)."""
        return seen.detail.startswith("TERMINATING")

    def trigger(self, theirs: Any) -> ResumableDatabricksExecutionTrigger:
        return ResumableDatabricksExecutionTrigger(**theirs.serialize()[1])

    def is_rejection(self, error: BaseException) -> bool:
        return bool(REFUSED.search(str(error))) or proves_nothing_made(error)

    def is_expired(self, error: BaseException) -> bool:
        return bool(EXPIRED.search(str(error)))

    def _resumable_is_token_spent(self, error: BaseException) -> bool:
        """A refusal that names the idempotency token and a deletion. One that is worded otherwise leaves the doubt as it is."""
        return self.is_rejection(error) and bool(_SPENT.search(str(error)))

    def execute_resumable(self, context: Any) -> Any:
        """What newer providers' ``execute`` calls when it does not defer; their own durability is not needed under ours."""
        if not self._resumable_is_durable:
            return super().execute_resumable(context)  # type: ignore[misc]
        run_id = self.submit_job(context)
        self.poll_until_complete(run_id, context)
        return self.get_job_result(run_id, context)


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


def job_state_of(life: str | None, result: str) -> JobState:
    if life in _ACTIVE:
        return JobState.ACTIVE
    if life in _ENDED or (life == "TERMINATED" and result):
        return JobState.SUCCEEDED if result == "SUCCESS" else JobState.FAILED  # as the provider's RunState.is_successful
    return JobState.UNKNOWN
