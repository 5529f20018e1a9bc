"""The states that Airflow has for task instances: a task's own, as it or its trigger sees it, and those of others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

from resumable import host
from resumable.host import _three, _two
from resumable.identity import TaskIdentity

DELETED = "deleted"
"""Our word for the state of a task instance that Airflow has no more: a user has deleted its DAG run, or the DAG."""

_PAUSE = 0.3

TRIGGER_GRACE_SECONDS = 20.0
"""Seconds in which a trigger's question for its task's state must be answered. Airflow 3.3 gives ``on_kill`` 30 in all, and on a
machine under load the triggerer takes some for the first question that it answers."""


def own_state(context: Mapping[str, Any]) -> str | None:
    """
    The state that Airflow has for the running task instance now, None if it has none, `DELETED` if it is gone with its DAG run.

    Never call it in a signal handler: on 3.2 and later that deadlocks when the signal interrupted another request.
    """
    task = host.task_identity(context)
    state = _state_of(context["ti"], task)
    if state == DELETED:  # asked for once more, because a job is stopped for it
        time.sleep(_PAUSE)
        state = _state_of(context["ti"], task)
    return state


def _state_of(ti: Any, task: TaskIdentity) -> str | None:
    if task.is_in_loop and (ended := _three.ended_in_loop(task)) is not None:
        return ended
    ask = getattr(ti, "get_task_states", None)
    return _word(_two.state_of(ti) if ask is None else _only_state(ti, ask(**_which(ti))))


def _word(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))


def _which(ti: Any) -> dict[str, Any]:
    index = None if ti.map_index in (None, -1) else ti.map_index
    return {"dag_id": ti.dag_id, "task_ids": [ti.task_id], "run_ids": [ti.run_id], "map_index": index}


def _only_state(ti: Any, states: Mapping[str, Any] | None) -> Any:
    if states is None:
        return None
    of_run = states.get(ti.run_id)
    return next(iter(of_run.values())) if of_run else DELETED  # a task instance without a state is told of


async def state_seen_by_trigger(ti: Any) -> str | None:
    """
    The state that Airflow has for the task instance of a trigger now, asked in the triggerer without holding up its event loop.

    Raises:
        Exception: it was not told within `TRIGGER_GRACE_SECONDS` seconds, or cannot be.
    """
    asked = _three.states_seen_by_trigger(**_which(ti)) if host.has_sdk() else asyncio.to_thread(_two.state_of, ti)
    answer = await asyncio.wait_for(asked, TRIGGER_GRACE_SECONDS)
    return _word(_only_state(ti, answer) if host.has_sdk() else answer)


def tells_triggers() -> bool:
    """Whether this Airflow tells a trigger, by ``on_kill``, that a user has stopped its task (3.3 and later)."""
    return hasattr(host.base_trigger(), "on_kill")


def cancelled_triggers_may_ask() -> bool:
    """
    Whether a cancelled trigger can ask for its task's state: on Airflow 2, and from 3.2 on.

    On 3.1 the triggerer then hears no answer any more, and every deferred task hangs (seen on 3.1.8; 3.0 talks in the same way).
    """
    return not host.has_sdk() or _three.answers_reach_every_thread()


def succeeded(context: Mapping[str, Any], tasks: Iterable[TaskIdentity]) -> set[TaskIdentity]:
    """Those of ``tasks``, of any DAG run, that Airflow has in state success now. A run that was deleted has no state."""
    ask = getattr(context["ti"], "get_task_states", None)
    if ask is None and not host.has_sdk():
        return {task for task in tasks if _two.recorded_state_of(task) == "success"}
    if ask is None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ask = RuntimeTaskInstance.get_task_states
    found = set()
    for task in tasks:
        if task.is_in_loop:
            if _three.ended_in_loop(task, or_later=False) == "success":
                found.add(task)
            continue
        mapped = None if task.map_index == -1 else task.map_index
        states = ask(dag_id=task.dag_id, task_ids=[task.task_id], run_ids=[task.run_id], map_index=mapped)
        of_run = (states or {}).get(task.run_id) or {}
        if any(str(getattr(state, "value", state)) == "success" for state in of_run.values()):
            found.add(task)
    return found
