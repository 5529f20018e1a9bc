"""DAG runs in Amazon MWAA that survive their worker; recovery: repeat by name. A run's id is unique in its DAG.

Facts on the service (botocore's service model, Airflow's REST API): InvokeRestApi passes a request on to the environment's
Airflow, whose 4xx answers come back as RestApiClientException and 5xx as RestApiServerException, both with HTTP status 400.
A run id that exists is answered with 409; so is a logical date that another run has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from resumable._extras import provider_import
from resumable.errors import chain
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle
from resumable.jobs.rejection import is_page, is_refusal, proves_nothing_made

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.mwaa import MwaaTriggerDagRunOperator
    from botocore.exceptions import ClientError
    from requests import RequestException

    from resumable.operators._aws import AwsCall, require_taken
    from resumable.operators._aws.events import SubmitEvents
    from resumable.operators._aws.names import AwsOwnNamedJob, named

__all__ = ["ResumableMwaaTriggerDagRunOperator"]

_CONFLICT, _NOT_FOUND = 409, 404
_NO_SUCH_RUN = re.compile(r"(?is)dag ?run.*not found")
_REFUSALS = frozenset({"AccessDeniedException", "ResourceNotFoundException", "RestApiClientException", "ValidationException"})


class MwaaDagRun(AwsOwnNamedJob):
    """A run of a DAG of the environment."""

    service = "mwaa"
    asks_account = False  # the seam is its own, and asks
    limits = (Limit("waiter_max_attempts", "waiter_delay"),)
    operation = "InvokeRestApi"
    reach_fields = (*AwsCall.reach_fields, "airflow_version")
    wait_argument = "wait_for_completion"
    goes_on_undeferred = True
    conflicts = frozenset({"RestApiClientException"})
    doubt = (
        "the run is triggered again under the same id; the environment's Airflow answers that it exists; one of the author's id "
        "is taken up if it began since"
    )
    window = (
        "none known, unless somebody deletes the run before its answer is known; with a `trigger_run_id`, a run that somebody "
        "else triggers under it while a request is in doubt, or in the 15 minutes before, is taken for ours"
    )
    name_argument, name_id, name_length, warns_of_name = "trigger_run_id", "run", 200, True
    active = frozenset({"queued", "running"})
    look_path = "RestApiResponse.state"  # the stop marks the run failed, one that has ended well too
    succeeded = frozenset({"success"})
    failed = frozenset({"failed"})

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        call = self.hook.invoke_rest_api

        def trigger_once(*args: Any, **given: Any) -> Any:
            if given.get("method") == "POST":
                return self._trigger(attempt, call, args, given)
            attempt.flush()
            return call(*args, **given)

        name = self.name_for(attempt, self.author_name())
        with replaced(self.operator, trigger_run_id=name), replaced(self.hook, invoke_rest_api=trigger_once):
            yield

    def new_name(self, attempt: Attempt, given: Any) -> str:
        return super().new_name(attempt, given) if given else named("manual_", attempt.token, self.name_length)

    def _trigger(self, attempt: Attempt, call: Any, args: Any, given: dict[str, Any]) -> Any:
        if attempt.handle is not None:
            return self._described(attempt.handle)
        run = given["body"]["dag_run_id"]
        account = {"account": known} if (known := self.account()) else {}
        token, body = attempt.intend(given["body"], where={"name": run, **account})
        handle = self.handle({"environment": self.operator.env_name, "dag": self.operator.trigger_dag_id, "run": run})
        try:
            with self._noting_losses(attempt):
                answer = call(*args, **{**given, "body": body})
        except Exception as e:
            if _remote_status(e) != _CONFLICT or not self._exists(handle):
                raise
            told = getattr(e, "response", {})
            if not self.is_named_by(run, token) and not self.may_be_ours(told, self._began(handle)):
                if attempt.is_first_submit and not attempt.is_perhaps_made:
                    attempt.rejected()  # it is somebody else's
                raise
            attempt.submitted(handle)
            return self._described(handle)
        attempt.submitted(handle)
        return answer

    @contextmanager
    def _noting_losses(self, attempt: Attempt) -> Iterator[None]:
        events, event = self.hook.conn.meta.events, f"needs-retry.{self.service_event}.{self.operation}"
        note = SubmitEvents(self, attempt).note_loss
        events.register_first(event, note)
        try:
            yield
        finally:
            events.unregister(event, note)

    def _exists(self, handle: JobHandle) -> bool:
        try:
            self._described(handle)
        except Exception as e:
            if _is_missing(e):
                return False
            raise
        return True

    def _began(self, handle: JobHandle) -> datetime | None:
        """When the run was made, as far as it tells: Airflow 3 knows when it was queued, Airflow 2 when it was started."""
        run = self._described(handle)["RestApiResponse"]
        at = run.get("queued_at") or run.get("start_date")
        return datetime.fromisoformat(str(at).replace("Z", "+00:00")) if at else None

    def _described(self, handle: JobHandle) -> dict[str, Any]:
        answer: dict[str, Any] = self._asked(handle, "GET")
        return answer

    def _asked(self, handle: JobHandle, method: str, body: dict[str, Any] | None = None) -> Any:
        environment, path = self._path(handle)
        ask = type(self.hook).invoke_rest_api
        version = self.operator.airflow_version
        return ask(self.hook, env_name=environment, path=path, method=method, body=body, airflow_version=version)

    def _path(self, handle: JobHandle) -> tuple[str, str]:
        environment, dag, run = self.ids(handle, "environment", "dag", "run")
        return environment, f"/dags/{dag}/dagRuns/{run}"

    def is_rejection(self, error: BaseException) -> bool:
        for cause in chain(error):
            if isinstance(cause, RequestException) and cause.response is None:
                return proves_nothing_made(cause)  # of the other way, which is taken while the no of the first is handled
            if isinstance(cause, ClientError):
                answer = cause.response.get("Error", {})
                code = str(answer.get("Code"))
                return code in _REFUSALS or (code.isdigit() and is_refusal(int(code)) and not is_page(answer))
            if (status := _remote_status(cause)) is not None:
                return status == _CONFLICT or is_refusal(status)
        return super().is_rejection(error)

    def state_of(self, handle: JobHandle) -> str | None:
        try:
            return str(self._described(handle)["RestApiResponse"]["state"])
        except Exception as e:
            if _is_missing(e):
                return None
            raise

    def send_stop(self, handle: JobHandle) -> None:
        require_taken("invoke_rest_api", self._asked(handle, "PATCH", {"state": "failed"}))

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        environment, path = self._path(handle)
        return "invoke_rest_api", {"Name": environment, "Path": path, "Method": "GET"}

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        environment, path = self._path(handle)
        return "invoke_rest_api", {"Name": environment, "Path": path, "Method": "PATCH", "Body": {"state": "failed"}}

    def add_token(self, params: dict[str, Any], token: str) -> None:
        raise NotImplementedError("the run's id is in the request already")

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        raise NotImplementedError("the ids are known before the request")

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return self._described(handle)


@durable_operator(MwaaDagRun)
class ResumableMwaaTriggerDagRunOperator(MwaaTriggerDagRunOperator):
    """
    `MwaaTriggerDagRunOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first run of a task instance has the ``trigger_run_id`` given, sent as written, with a warning; one that follows it, after
    a failure or a clear, has 8 hex characters more. Without one the id is ``manual_`` and 24 hex characters. Unlike the
    provider's, it marks the DAG run failed when a user stops the task that waits for it: that stops the run's tasks.
    """


def _is_missing(error: BaseException) -> bool:
    """Whether the environment's Airflow says that there is no such run; a 404 alone may be of a wrong path, a DAG, a proxy."""
    response = getattr(error, "response", None)
    said = response.get("RestApiResponse") if isinstance(response, dict) else getattr(response, "text", None)
    return _remote_status(error) == _NOT_FOUND and bool(_NO_SUCH_RUN.search(str(said)))


def _remote_status(error: BaseException) -> int | None:
    """The HTTP status that the environment's Airflow answered with, on either of the provider's two ways to it."""
    response = getattr(error, "response", None)
    status = response.get("RestApiStatusCode") if isinstance(response, dict) else getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
