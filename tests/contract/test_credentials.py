"""Credentials that expire while a task waits: the connection is read again, at once, and the try goes on."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.cases import Bench, Case
from tests.services.server import json_response
from tests.support.names import AirflowRescheduleException, AirflowTaskTimeout
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

_real_sleep, _real_async_sleep = time.sleep, asyncio.sleep


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []

    def nap(asked: float) -> None:
        seconds.append(asked)
        _real_sleep(min(asked, 0.002))

    monkeypatch.setattr(time, "sleep", nap)
    monkeypatch.setattr(asyncio, "sleep", lambda asked, *a: _real_async_sleep(0, *a))
    return seconds


def expiry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which the service takes the credentials of now no more, and the connection has others."""
    server, real = bench.server, bench.server.respond
    is_over: list[bool] = []

    def respond(request: Any, operation: str, body: dict[str, Any]) -> Any:
        given = request.headers.get("Authorization", "")
        if is_over and ("Credential=testing/" in given or given == "Bearer token"):
            return refusal(server)
        return real(request, operation, body)

    monkeypatch.setattr(server, "respond", respond)

    def expire() -> None:
        if not is_over:
            is_over.append(True)
            if "AWS_ACCESS_KEY_ID" in server.env():
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "rotated")
            for name in server.env():
                if name.startswith("AIRFLOW_CONN"):
                    monkeypatch.setenv(name, json.dumps({**json.loads(os.environ[name]), "password": "rotated"}))

    return expire


def refusal(server: Any) -> Any:
    words = "The security token included in the request is expired"
    if getattr(getattr(server, "_model", None), "protocol", "") == "query":
        text = f"<ErrorResponse><Error><Code>ExpiredToken</Code><Message>{words}</Message></Error></ErrorResponse>"
        answer = json_response(text, 403)
        answer.content_type = "text/xml"
        return answer
    return json_response({"__type": "ExpiredTokenException", "error_code": "403", "message": words}, 403)


def task(case: Case, bench: Bench, **more: Any) -> TaskInstance:
    return TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra, **more}))


def submitted(instance: TaskInstance) -> bool:
    return instance.data.get("resumable", {}).get("state") == "submitted"


def test_the_wait_goes_on_with_new_credentials_and_is_not_held_up(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    expire = expiry(bench, monkeypatch)
    looks = [0]

    def listen(effect: str) -> None:
        looks[0] += effect.startswith("http") and submitted(instance)
        if looks[0] == 2:
            expire()
        if looks[0] > 12:
            bench.finish()

    def expire_while_deferred(_trigger: Any) -> None:
        expire()
        bench.finish()

    instance = task(case, bench)
    instance.on_defer = expire_while_deferred
    try:
        instance.attempt(listener=listen)
    except AirflowRescheduleException:  # a trigger with old credentials fails, and the task is started again
        assert case.deferrable
        instance.try_number -= 1
        expire()
        bench.finish()
        instance.attempt()
    assert (bench.jobs(), instance.try_number, instance.record["state"]) == (1, 1, "succeeded")
    assert sum(slept) < 300


def test_credentials_that_were_only_said_to_have_expired_make_no_second_job(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    """A client that were kept from before, with credentials that are good, would send its submit past us."""
    server, real = bench.server, bench.server.respond
    left = [True, True]  # the provider's look, and ours

    def respond(request: Any, operation: str, body: dict[str, Any]) -> Any:
        if left and operation in bench.status and submitted(instance):
            left.pop()
            return refusal(server)
        return real(request, operation, body)

    def listen(effect: str) -> None:
        if not left and effect.startswith("http"):
            bench.finish()

    monkeypatch.setattr(server, "respond", respond)
    instance = task(case, bench)
    instance.on_defer = lambda _trigger: bench.finish()
    assert instance.run(listener=listen) == "success"
    assert (bench.jobs(), instance.try_number, instance.record["state"]) == (1, 1, "succeeded")
    assert sum(slept) < 300


def test_a_cancel_is_sent_with_new_credentials(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    if case.deferrable or not getattr(bench, "can_stop", True):
        pytest.skip("there is no wait to be timed out, or no way to stop the job")
    expire = expiry(bench, monkeypatch)
    instance = task(case, bench)
    left = [AirflowTaskTimeout("execution_timeout")]

    def listen(effect: str) -> None:
        if left and effect.startswith("http") and submitted(instance):
            expire()
            raise left.pop()

    with pytest.raises(AirflowTaskTimeout):
        instance.attempt(listener=listen)
    assert (bench.active(), instance.record["state"]) == (0, "cancelled")
