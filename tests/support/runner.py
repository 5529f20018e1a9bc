"""
Runs one task instance as Airflow's task runner does, in this process, with deaths at exact points.

The real thing is under tests/crash; this double is for the matrix of operators and crash points, where a real Airflow would take
hours.
What it keeps of the real one: a fresh operator per attempt, XComs gone before each attempt that is not a resume, task state that
lasts, deferral through the provider's real trigger, the tuple by which a clear can be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import signal
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from unittest import mock

from resumable.fleet.trigger import JobTrigger
from resumable.stores.base import json_text
from tests.support import waits
from tests.support.dag_file import in_file, new_path
from tests.support.names import AirflowFailException, AirflowRescheduleException, ExecutorSafeguard, TaskDeferred
from tests.support.simulated_time import Instant, simulated


class WorkerDied(BaseException):
    """SIGKILL, as far as one process can show it: nothing that the dead attempt does afterwards has an effect."""


class StoreDown(Exception):
    """The task state store does not answer."""


@dataclass
class Effects:
    """Counts everything that a process does to the outside, and kills it before or after the n-th."""

    die_at: tuple[int, str] | None = None
    done: list[str] = field(default_factory=list)
    dead: bool = False
    listener: Callable[[str], None] | None = None

    def run(self, name: str, effect: Callable[[], Any]) -> Any:
        if self.dead:
            raise WorkerDied(name)
        index = len(self.done)
        self.done.append(name)
        if self.die_at == (index, "before"):
            self._die(name)
        result = effect()
        if self.listener:
            self.listener(name)
        if self.dead or self.die_at == (index, "after"):
            self._die(name)
        return result

    def _die(self, name: str) -> None:
        self.dead = True
        raise WorkerDied(name)


class StateStoreDouble:
    """``context["task_state_store"]`` of one attempt, over data that outlives it."""

    def __init__(self, data: dict[str, Any], effects: Effects, down: Callable[[str], bool]) -> None:
        self._data, self._effects, self._down = data, effects, down

    def get(self, key: str, default: Any = None) -> Any:
        return self._effects.run("store.get", lambda: self._answer("get", lambda: self._data.get(key, default)))

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        assert value is not None
        text = json_text(value)  # what the real one does not take is an error, and no other value either
        self._effects.run("store.set", lambda: self._answer("set", lambda: self._data.update({key: json.loads(text)})))

    def delete(self, key: str) -> None:
        self._effects.run("store.delete", lambda: self._answer("delete", lambda: self._data.pop(key, None)))

    def _answer(self, verb: str, effect: Callable[[], Any]) -> Any:
        if self._down(verb):
            raise StoreDown(verb)
        return effect()


class TaskInstanceDouble:
    def __init__(self, instance: TaskInstance, effects: Effects) -> None:
        self.dag_id, self.run_id, self.task_id = "dag", "run", "task"
        self.map_index = instance.map_index
        self.try_number, self.max_tries = instance.try_number, instance.max_tries
        self.stats_tags: dict[str, str] = {}
        if instance.started is not None:
            self.start_date = instance.started
        self._instance, self._effects = instance, effects

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        self._effects.run(f"xcom {key}", lambda: self._instance.xcoms.update({key: value}))

    def get_task_states(self, **_: Any) -> dict[str, Any]:
        return {"run": {"task": self._instance.state}}


class TaskInstance:
    """
    One task instance through its attempts.

    Args:
        make: builds the operator, as parsing the DAG file does for each attempt.
        retries: Airflow's.

    An edit of its author is an edit of a DAG file: ``text`` gives that file's text for each attempt; with ``is_all_written``, all
    arguments stand there as constants. Otherwise there is none, and what differs from one attempt to the next is no edit.
    """

    def __init__(self, make: Callable[[], Any], retries: int = 3, map_index: int = -1) -> None:
        self.make, self.retries, self.map_index = make, retries, map_index
        self.try_number, self.max_tries, self.clear_number = 1, retries, 0
        self.state = "running"
        self.started: datetime | None = None  # the try's first start: a deferral leaves it
        self.run_started = datetime(2026, 1, 1, tzinfo=timezone.utc)
        self.data: dict[str, Any] = {}
        self.xcoms: dict[str, Any] = {}
        self.store_down: Callable[[str], bool] = lambda verb: False
        self.effects = Effects()
        self.file = new_path()
        self.text: Callable[[], str] | None = None
        self.is_all_written = False
        self.on_defer: Callable[[Any], None] = lambda trigger: None
        self.run_trigger: Callable[[TaskDeferred], tuple[str, dict[str, Any]]] = lambda deferred: _run_trigger(deferred)
        self.more_text = ""

    @property
    def record(self) -> dict[str, Any]:
        return self.data["resumable"]

    def attempt(
        self,
        die_at: tuple[int, str] | None = None,
        listener: Callable[[str], None] | None = None,
        render: Callable[[Any, dict[str, Any]], None] | None = None,
    ) -> Any:
        """Run ``execute``, and the trigger and ``execute_complete`` if it defers; a later try if it failed before."""
        self.effects = effects = Effects(die_at, listener=listener)
        self.xcoms.clear()
        operator, context = self._process(effects)
        if render:
            render(operator, context)
        try:
            return self._started(operator, context, effects)
        except BaseException:
            self.try_number += 1
            raise

    def _started(self, operator: Any, context: Any, effects: Effects) -> Any:
        start: Callable[[], Any] = lambda: operator.execute(context)
        is_first = True
        while True:
            try:
                with _outgoing_calls(effects):
                    return _as_the_runner(operator, start)
            except TaskDeferred as deferred:
                if is_first:
                    self.on_defer(deferred.trigger)
                    effects.run("defer", lambda: None)
                is_first = False
                method, kwargs = self.run_trigger(deferred)
                operator, context = self._process(effects)
                start = functools.partial(operator.resume_execution, method, kwargs, context)

    def run(self, between: Callable[[], None] = lambda: None, most: int = 30, **choices: Any) -> str:
        """
        As the scheduler does: start the task again while it is handed back or has a try left; return its final state.

        Args:
            between: called before each start, while no process holds the task.
            most: starts, before it counts as one that never ends.
            choices: of each attempt.
        """
        self.errors: list[BaseException] = []
        for _ in range(most):
            between()
            try:
                self.attempt(**choices)
                return "success"
            except AirflowRescheduleException:
                self.try_number -= 1  # uses up none
            except AirflowFailException as e:
                self.errors.append(e)
                return "failed"
            except (Exception, WorkerDied) as e:
                self.errors.append(e)
                if self.try_number > self.max_tries + 1:
                    return "failed"
        raise AssertionError(f"the task has not ended after {most} starts, at try {self.try_number}")

    def failing_attempt(self, **choices: Any) -> Exception:
        """An attempt whose try fails; what it fails with."""
        try:
            self.attempt(**choices)
        except Exception as e:
            return e
        raise AssertionError("the attempt did not fail")

    def _process(self, effects: Effects) -> tuple[Any, dict[str, Any]]:
        ti = TaskInstanceDouble(self, effects)
        run = types.SimpleNamespace(clear_number=self.clear_number, start_date=self.run_started, run_id="run")
        operator = self.make()
        if self.text is not None or self.is_all_written:
            in_file(operator, self.file, self.text and self.text())
            with self.file.open("a") as file:
                file.write(self.more_text)
        store = StateStoreDouble(self.data, effects, self.store_down)
        return operator, {"ti": ti, "task_instance": ti, "dag_run": run, "task_state_store": store, "task": operator}

    def clear(self) -> None:
        """What the API does for a task that is not running (airflow-lifecycle section 7)."""
        self.max_tries = self.try_number + self.retries
        self.clear_number += 1


def _as_the_runner(operator: Any, call: Callable[[], Any]) -> Any:
    context = contextvars.copy_context()
    if hasattr(ExecutorSafeguard, "tracker"):  # Airflow 3; Airflow 2 only warns
        context.run(ExecutorSafeguard.tracker.set, operator)
    before = signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        return context.run(call)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_trigger(deferred: TaskDeferred) -> tuple[str, dict[str, Any]]:
    """What the triggerer sends the task back with: an event, or the news that the trigger failed."""
    if type(deferred.trigger) is JobTrigger:
        return in_fleet(deferred)
    try:
        event = asyncio.run(_first_event(deferred.trigger))
    except Exception as e:
        return "__fail__", {"error": repr(e), "traceback": [repr(e)]}
    return deferred.method_name, {**(deferred.kwargs or {}), "event": event}


def in_fleet(deferred: TaskDeferred, during: Callable[[], None] = lambda: None) -> tuple[str, dict[str, Any]]:
    """
    The same of ``wait="defer"``, in simulated time: the fleet's calls reach the service, its pauses take none.

    Args:
        deferred: as the task has raised it.
        during: called when the trigger has begun to wait.
    """

    async def wait() -> Any:
        asyncio.get_running_loop().call_later(2.0, during)
        return await asyncio.wait_for(_first_event(deferred.trigger), deferred.timeout.total_seconds())

    async def at_once(call: Callable[[], Any]) -> Any:
        return call()

    with (
        mock.patch("resumable.host.from_trigger", at_once),
        mock.patch("resumable.fleet.registry.AirflowThreads", Instant),
        mock.patch("asyncio.sleep", waits.real_async_sleep),
        simulated() as loop,
    ):
        task = loop.create_task(wait())
        try:
            event = loop.run_until_complete(task)
        except asyncio.TimeoutError:
            return "__fail__", {"error": "Trigger timeout"}
        except Exception as e:
            return "__fail__", {"error": "Trigger failure", "traceback": [repr(e)]}
    return deferred.method_name, {**(deferred.kwargs or {}), "event": event}


async def _first_event(trigger: Any) -> Any:
    path, kwargs = trigger.serialize()
    again = type(trigger)(**kwargs)  # as the triggerer has it: only what was serialised
    assert path.rsplit(".", 1)[1] == type(trigger).__name__
    events = again.run()
    try:
        async for event in events:
            return event.payload
    finally:
        with contextlib.suppress(Exception):
            await events.aclose()
    raise AssertionError("the trigger ended without an event")


@contextlib.contextmanager
def _outgoing_calls(effects: Effects):
    """Every HTTP request of requests and botocore is an effect."""
    import botocore.endpoint
    import botocore.httpsession
    import requests.adapters

    send, boto_send = requests.adapters.HTTPAdapter.send, botocore.httpsession.URLLib3Session.send

    def counted_send(self: Any, request: Any, **kwargs: Any) -> Any:
        return effects.run(f"http {request.method} {request.path_url.split('?')[0]}", lambda: send(self, request, **kwargs))

    make_request = botocore.endpoint.Endpoint.make_request
    operation = threading.local()

    def named_make_request(self: Any, operation_model: Any, request_dict: Any) -> Any:
        operation.name = operation_model.name
        if operation.name == "InvokeRestApi":  # of MWAA: one operation for everything; named as its service's journal has it
            operation.name = f"{json.loads(request_dict['body'])['Method']} dagRuns"
        return make_request(self, operation_model, request_dict)

    def counted_boto_send(self: Any, request: Any) -> Any:
        return effects.run(f"http {operation.name}", lambda: boto_send(self, request))

    with (
        mock.patch.object(botocore.endpoint.Endpoint, "make_request", named_make_request),
        mock.patch.object(requests.adapters.HTTPAdapter, "send", counted_send),
        mock.patch.object(botocore.httpsession.URLLib3Session, "send", counted_boto_send),
    ):
        yield
