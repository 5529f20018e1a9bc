"""A service, or the connection to it, that goes away while a deferred task waits: the task says so once, stays, and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook

from resumable.fleet.trigger import JobTrigger
from tests.services.databricks import DatabricksSimulator
from tests.services.server import json_response
from tests.support.simulated_time import Instant, SimulatedLoop, simulated

CONNECTION = "AIRFLOW_CONN_DATABRICKS_DEFAULT"
HOUR = 3600.0


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    async def at_once(call: Callable[[], Any]) -> Any:
        return call()

    with (
        mock.patch("resumable.host.from_trigger", at_once),
        mock.patch("resumable.fleet.registry.AirflowThreads", Instant),
        simulated() as made,
    ):
        yield made


class Workspace(DatabricksSimulator):
    """It may take a token no more."""

    revoked: str | None = None

    def respond(self, request: Any, operation: str, body: dict[str, Any]) -> Any:
        if self.revoked is not None and request.headers.get("Authorization") == f"Bearer {self.revoked}":
            return json_response({"error_code": "403", "message": "Invalid access token."}, 403)
        return super().respond(request, operation, body)


@pytest.fixture
def kind_of_workspace() -> type[Workspace]:
    return Workspace


class Deferred:
    """A task that waits for a run in the triggerer."""

    def __init__(self, loop: SimulatedLoop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.loop, self.workspace = loop, workspace
        self.run = DatabricksHook("databricks_default").submit_run({"run_name": "r", "idempotency_token": "t"})
        log = mock.Mock(warning=lambda text, *args: self.told.append(text % args if args else text))
        monkeypatch.setattr(JobTrigger, "log", log, raising=False)
        trigger = JobTrigger(
            job={"service": "databricks", "ids": {"run_id": self.run}, "place": {"workspace": "w"}},
            reach={
                "operator": "resumable.operators.databricks:ResumableDatabricksSubmitRunOperator",
                "databricks_conn_id": "databricks_default",
            },
            submitted_at=0.0,
            interval=30.0,
        )
        self.waits = loop.create_task(self._first(trigger))
        self.pass_time(100.0)
        assert self.is_deferred
        assert self.told == []

    async def _first(self, trigger: JobTrigger) -> Any:
        return (await anext(trigger.watch())).payload

    def pass_time(self, seconds: float) -> None:
        self.loop.pass_time(seconds)

    @property
    def is_deferred(self) -> bool:
        return not self.waits.done()

    @property
    def looks(self) -> int:
        return self.workspace.count("runs/get")

    def is_woken(self, seconds: float = 130.0) -> str:
        self.pass_time(seconds)
        assert self.waits.done()
        return str(self.waits.result()["state"])

    def waits_on_unheard_and_is_woken(self) -> None:
        """Nothing is told of an hour of waiting, and then the run succeeds."""
        self.pass_time(HOUR)
        assert self.is_deferred
        assert self.told == []
        self.workspace.finish(self.run)
        assert self.is_woken() == "succeeded"


@pytest.fixture
def deferred(loop: SimulatedLoop, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Deferred:
    return Deferred(loop, workspace, monkeypatch)


def test_a_service_that_is_down_for_an_hour_leaves_the_task_deferred_with_one_line_and_it_goes_on(deferred: Deferred) -> None:
    with deferred.workspace.outage():
        deferred.pass_time(HOUR)
        assert deferred.is_deferred
        (line,) = deferred.told
        assert str(deferred.run) in line
        assert "cannot be seen since" in line
        assert "stays deferred" in line
    deferred.pass_time(130.0)
    assert deferred.is_deferred
    assert [f"{deferred.run}" in line and "seen again" in line for line in deferred.told[1:]] == [True]
    deferred.workspace.finish(deferred.run)
    assert deferred.is_woken() == "succeeded"


def test_a_service_that_is_down_beyond_lost_sight_after_wakes_the_task(deferred: Deferred) -> None:
    with deferred.workspace.outage():
        deferred.pass_time(5.9 * HOUR)
        assert deferred.is_deferred
        assert deferred.is_woken(0.3 * HOUR) == "unknown"
        assert "not seen since" in deferred.waits.result()["detail"]
        assert len(deferred.told) == 1


def test_a_connection_that_is_deleted_leaves_the_task_with_the_client_that_is_there(
    deferred: Deferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONNECTION)
    deferred.waits_on_unheard_and_is_woken()


def test_a_connection_that_is_deleted_and_its_token_revoked_is_told_of_once_and_waited_for(
    deferred: Deferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads(deferred.workspace.connection_json())
    deferred.workspace.revoked = "token"
    monkeypatch.delenv(CONNECTION)
    deferred.pass_time(HOUR)
    assert deferred.is_deferred
    (line,) = deferred.told
    assert "the connection cannot be made" in line
    assert "databricks_default" in line
    looks = deferred.looks
    deferred.pass_time(HOUR)
    assert deferred.looks == looks, "nobody is asked without a connection"
    deferred.workspace.finish(deferred.run)
    monkeypatch.setenv(CONNECTION, json.dumps({**kept, "password": "another"}))
    assert deferred.is_woken() == "succeeded"
    assert len(deferred.told) == 2


def test_a_connection_that_is_changed_is_read_again_when_its_old_token_is_revoked_and_nobody_hears_of_it(
    deferred: Deferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads(deferred.workspace.connection_json())
    deferred.workspace.revoked = "token"
    monkeypatch.setenv(CONNECTION, json.dumps({**kept, "password": "another"}))
    deferred.waits_on_unheard_and_is_woken()


def test_a_task_whose_user_stops_it_while_the_connection_is_gone_ends_its_wait(
    deferred: Deferred, monkeypatch: pytest.MonkeyPatch
) -> None:
    deferred.workspace.revoked = "token"
    monkeypatch.delenv(CONNECTION)
    deferred.pass_time(HOUR)
    deferred.waits.cancel()
    deferred.pass_time(1.0)
    assert deferred.waits.cancelled()
    assert not [task for task in asyncio.all_tasks(deferred.loop) if not task.done()]
