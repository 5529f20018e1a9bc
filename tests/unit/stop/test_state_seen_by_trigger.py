"""How a trigger asks for its task's state: in the triggerer's event loop, which it neither holds up nor waits in for long."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

from resumable import host
from resumable.host import _three

TI = types.SimpleNamespace(dag_id="dag", run_id="run", task_id="task", map_index=-1)

pytestmark = pytest.mark.skipif(not (host.has_sdk() and host.tells_triggers()), reason="the messages of Airflow 3.3")


class Supervisor:
    """What the triggerer talks to; answers are given by number, to whoever asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []

    async def asend(self, message: Any) -> Any:
        self.asked.append(message)
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def supervisor(monkeypatch):
    def given(answer: Any) -> Supervisor:
        supervisor = Supervisor(answer)
        monkeypatch.setattr(_three, "_comms", lambda: supervisor)
        return supervisor

    return given


def states(**found: Any) -> Any:
    from airflow.sdk.execution_time.comms import TaskStatesResult

    return TaskStatesResult(task_states={"run": found} if found else {})


@pytest.mark.parametrize(("index", "asked", "found"), [(-1, None, "task"), (None, None, "task"), (0, 0, "task_0")])
def test_it_asks_for_its_own_task_instance(supervisor, index, asked, found):
    one = supervisor(states(**{found: "failed"}))
    ti = types.SimpleNamespace(**{**vars(TI), "map_index": index})
    assert asyncio.run(host.state_seen_by_trigger(ti)) == "failed"
    (message,) = one.asked
    assert (message.dag_id, message.run_ids, message.task_ids, message.map_index) == ("dag", ["run"], ["task"], asked)


def test_a_task_instance_that_is_not_there_is_told_of_as_deleted(supervisor):
    supervisor(states())
    assert asyncio.run(host.state_seen_by_trigger(TI)) == host.DELETED


def test_an_error_of_the_server_is_no_state(supervisor):
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    supervisor(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={}))
    with pytest.raises(Exception, match="(?i)error"):
        asyncio.run(host.state_seen_by_trigger(TI))


def test_a_supervisor_that_never_answers_is_given_up_while_the_loop_goes_on(supervisor, monkeypatch):
    supervisor(None)
    monkeypatch.setattr("resumable.host.states.TRIGGER_GRACE_SECONDS", 0.05)

    async def both() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(others())
        with pytest.raises(TimeoutError):
            await host.state_seen_by_trigger(TI)
        running.cancel()
        return turns

    assert asyncio.run(both()) > 1


def test_a_trigger_without_a_task_instance_raises_and_asks_nothing(supervisor):
    one = supervisor(states(task="failed"))
    with pytest.raises(AttributeError):
        asyncio.run(host.state_seen_by_trigger(None))
    assert one.asked == []
