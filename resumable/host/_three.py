"""Airflow 3: a task talks to its supervisor, one request at a time."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from resumable.identity import TaskIdentity

SERVER_GRACE = 5.0
"""Seconds, on Airflow 3 before 3.4."""


def start_again_in_time(operator: Any) -> None:
    """See `resumable.host`. Airflow 3.0 heeds the date of a reschedule for sensors only, and these two are all that it asks."""

    def get_serialized_fields(cls: Any) -> frozenset[str]:
        return super(operator, cls).get_serialized_fields() | {"reschedule", "_is_sensor"}  # type: ignore[no-any-return]

    operator.reschedule = operator._is_sensor = True
    operator.get_serialized_fields = classmethod(get_serialized_fields)


def supervisor() -> Any:
    """What this process talks to its supervisor through; None where there is none (``dag.test()``, unit tests)."""
    comms = _comms()
    return None if type(comms).__name__ == "InProcessSupervisorComms" else comms


def answers_reach_every_thread() -> bool:
    """Whether the triggerer hands out its supervisor's answers by their numbers, not to whoever reads next (3.2 and later)."""
    return hasattr(_comms(), "start_reader")


async def states_seen_by_trigger(**which: Any) -> Any:
    """What ``RuntimeTaskInstance.get_task_states`` returns, asked for in the event loop of a triggerer (3.2 and later)."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import ErrorResponse, GetTaskStates

    answer = await _comms().asend(GetTaskStates(**which))
    if isinstance(answer, ErrorResponse):
        raise AirflowRuntimeError(answer)
    return answer.task_states


def server_grace() -> float:
    """Seconds from the SIGTERM of a stop that the server asks for to its SIGKILL: five, from 3.4 on what airflow.cfg says."""
    from airflow.sdk.execution_time import supervisor

    return float(getattr(supervisor, "KILLED_TASK_CLEANUP_TIME", SERVER_GRACE))


def is_supervised_process() -> bool:
    """Whether a supervisor in another process has started this one for its task, and for nothing else."""
    return isinstance(getattr(supervisor(), "socket", None), socket.socket)


def end_process() -> None:
    """As the supervisor would end it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def ended_in_loop(task: TaskIdentity, *, or_later: bool = True) -> str | None:
    """
    The state in which an iteration of a loop has ended, None while it has not (3.4). Other questions for a task's state are
    answered with the one of its latest iteration.

    Raises:
        RuntimeError: it has not ended, a later one has, and ``or_later``: no question tells its state then.
    """
    from airflow.sdk.execution_time.comms import GetTaskBreadcrumbs, TaskBreadcrumbsResult

    answer = _comms().send(GetTaskBreadcrumbs(dag_id=task.dag_id, run_id=task.run_id))
    if not isinstance(answer, TaskBreadcrumbsResult):
        raise RuntimeError(f"asked for the tasks of {task} that have ended, got {type(answer).__name__}")  # noqa: TRY004
    ended = [dict(one) for one in answer.breadcrumbs]
    here = UUID(task.region), task.iteration if task.map_index < 0 else task.map_index
    places = {
        (UUID(str(one["region_id"])), int(one["region_index"])): one["state"]
        for one in ended
        if one["task_id"] == task.task_id and one.get("region_id") and one.get("map_index", -1) == task.map_index
    }
    if here in places:
        return str(getattr(places[here], "value", places[here]))
    if or_later and any(place > here for place in places):  # ids of regions grow with time
        raise RuntimeError(f"Airflow tells the state of the latest iteration only, and {task} is an earlier one")
    return None


def _comms() -> Any:
    from airflow.sdk.execution_time import task_runner

    return getattr(task_runner, "SUPERVISOR_COMMS", None)


def request_lock(comms: Any) -> Any:
    """
    The lock that is held while a request is in flight. Airflow has one from 3.2 on.

    Before, two threads that ask at once get each other's answers. So 3.0 and 3.1 are given the same lock, in this process.
    """
    return getattr(comms, "_thread_lock", None) or _added_lock(type(comms))


def _added_lock(decoder: Any) -> Any:
    if "resumable_lock" not in vars(decoder):
        lock, send = threading.Lock(), decoder.send

        def send_in_turn(self: Any, msg: Any) -> Any:
            with lock:
                return send(self, msg)

        decoder.send, decoder.resumable_lock = send_in_turn, lock
    return decoder.resumable_lock


def _is_multi_team() -> bool:
    from airflow.sdk.configuration import conf

    return bool(conf.getboolean("core", "multi_team", fallback=False))


class TaskStateRows:
    """What the server itself keeps of a task's state, past ``[workers] state_store_backend``: see `resumable.stores.slots`."""

    def __init__(self, ti_id: Any) -> None:
        self._ti_id = ti_id

    def get(self, key: str) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import GetTaskStateStore, TaskStateStoreResult

        answer = _comms().send(GetTaskStateStore(ti_id=self._ti_id, key=key))
        return _value_of(answer, TaskStateStoreResult, ErrorType.TASK_STORE_NOT_FOUND, f"the task state {key}")

    def set(self, key: str, value: Any, *, forever: bool) -> None:
        from airflow.sdk.configuration import conf
        from airflow.sdk.execution_time.comms import SetTaskStateStore

        days = 0 if forever else conf.getint("state_store", "default_retention_days", fallback=30)
        expires = datetime.now(timezone.utc) + timedelta(days=days) if days else None
        _comms().send(SetTaskStateStore(ti_id=self._ti_id, key=key, value=value, expires_at=expires))


def _value_of(answer: Any, found: type, nothing: Any, what: str) -> Any:
    """
    The value in the supervisor's answer, None if there is none.

    Args:
        answer: to a question for ``what``.
        found: the class of an answer that has a value.
        nothing: the error that says that there is none.
        what: was asked for, in words.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import ErrorResponse

    if isinstance(answer, found):
        return answer.value  # type: ignore[attr-defined]
    if isinstance(answer, ErrorResponse) and answer.error is nothing:
        return None
    if isinstance(answer, ErrorResponse):
        raise AirflowRuntimeError(answer)
    raise RuntimeError(f"asked for {what}, got an answer to something else: {type(answer).__name__}")


class AssetStateRows:
    """The same of an asset's state."""

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def get(self, key: str) -> Any:
        from airflow.sdk.exceptions import ErrorType
        from airflow.sdk.execution_time.comms import AssetStateStoreResult

        answer = _comms().send(self._accessor._build_get_message(key))
        return _value_of(answer, AssetStateStoreResult, ErrorType.ASSET_STORE_NOT_FOUND, f"the asset state {key}")

    def set(self, key: str, value: Any, *, forever: bool) -> None:  # noqa: ARG002 - an asset's values have no end
        from airflow.sdk.execution_time.comms import SetAssetStateStoreByName, SetAssetStateStoreByUri

        name, uri = self._accessor._name, self._accessor._uri
        by_name, by_uri = SetAssetStateStoreByName, SetAssetStateStoreByUri
        _comms().send(by_name(name=name, key=key, value=value) if name else by_uri(uri=uri, key=key, value=value))


class SupervisorVariables:
    """
    Airflow Variables by the requests that the Task SDK's ``Variable`` makes.

    ``Variable`` itself takes every error of a read for "there is no such Variable" (3.1 and later), and logs the error of a
    write instead of raising it. The API server does the same (3.0 to 3.3: ``Variable.get_variable_from_secrets``): when its
    database fails, it says "not found". So that answer is believed only when it comes again after a question that the server
    cannot answer without its database.

    Args:
        task: the running task instance, whose state is that question.
    """

    def __init__(self, task: TaskIdentity) -> None:
        self._task = task

    def get(self, name: str) -> str | None:
        found = self._ask(name)
        if found is None:
            self._see_database()
            found = self._ask(name)
        return found

    def names(self, prefix: str) -> set[str] | None:
        """Those that begin with ``prefix``: one request, on 3.3 and later. None where that does not tell of all."""
        from airflow.sdk.execution_time import comms

        ask = getattr(comms, "GetVariableKeys", None)
        if ask is None or _is_multi_team():  # which lists those of the task's team, and a task may read others
            return None
        answer = self._send(ask(prefix=prefix))
        self._expect_done(answer)
        if not isinstance(answer, comms.VariableKeysResult):
            raise RuntimeError(  # noqa: TRY004
                f"asked for the Variables {prefix}…, got an answer to something else: {type(answer).__name__}"
            )
        return set(answer.keys) if answer.total_entries <= len(answer.keys) else None

    def _see_database(self) -> None:
        from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

        task = self._task
        index = None if task.map_index < 0 else task.map_index
        ask = GetTaskStates(dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=index)
        answer = self._send(ask)
        self._expect_done(answer)
        if not isinstance(answer, TaskStatesResult):
            raise RuntimeError(  # noqa: TRY004
                f"asked for the state of {task}, got an answer to something else: {type(answer).__name__}"
            )

    def _ask(self, name: str) -> str | None:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse, GetVariable, VariableResult

        answer = self._send(GetVariable(key=name))
        if isinstance(answer, ErrorResponse):
            if answer.error is ErrorType.VARIABLE_NOT_FOUND:
                return None
            raise AirflowRuntimeError(answer)
        if not isinstance(answer, VariableResult) or answer.key != name or answer.value is None:
            raise RuntimeError(f"asked for the Variable {name}, got an answer to something else: {type(answer).__name__}")
        return str(answer.value)

    def set(self, name: str, text: str, description: str) -> None:
        from airflow.sdk.execution_time.comms import PutVariable

        self._expect_done(self._send(PutVariable(key=name, value=text, description=description)))

    def delete(self, name: str) -> None:
        from airflow.sdk.execution_time.comms import DeleteVariable

        self._expect_done(self._send(DeleteVariable(key=name)))

    def _send(self, ask: Any) -> Any:
        comms = _comms()  # with dag.test() too: a watermark outlives its run
        if comms is None:
            raise RuntimeError("this process has no supervisor")
        return comms.send(ask)

    def _expect_done(self, answer: Any) -> None:
        from airflow.sdk.exceptions import AirflowRuntimeError
        from airflow.sdk.execution_time.comms import ErrorResponse

        if isinstance(answer, ErrorResponse):
            raise AirflowRuntimeError(answer)
