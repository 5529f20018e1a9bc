"""Which task instance, and which start of it, a context is of; which context this process has."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from resumable import host
from resumable.errors import StateStoreError
from resumable.host import _three, _two
from resumable.host._rehearsal import Rehearsal, tells_the_task
from resumable.host.versions import exception, first_of
from resumable.identity import Generation, TaskIdentity

_log = logging.getLogger("resumable")


def task_context(context: Any, operator: Any) -> Mapping[str, Any]:
    """
    ``context`` where it tells which task instance runs; else, in somebody's unit test, one that does.

    A supervisor gives every task a whole context; so where there is one, nothing is put in its place.
    """
    if tells_the_task(context) or isinstance(context, Rehearsal) or (host.has_sdk() and _three.supervisor() is not None):
        return cast("Mapping[str, Any]", context)
    _log.warning(
        "resumable: the context of %s tells of no task instance (a unit test?): its record is kept in memory for this call",
        getattr(operator, "task_id", type(operator).__name__),
    )
    return Rehearsal(context, operator)


def started_at(context: Mapping[str, Any]) -> float | None:
    """When the task's try was started first, deferrals aside, in seconds since the epoch. None: Airflow does not say."""
    date = getattr(context["ti"], "start_date", None)
    return None if date is None else float(date.timestamp())


def given_context(context: Any) -> Any:
    """What ``execute`` was called with."""
    return context.given if isinstance(context, Rehearsal) else context


def is_run_by_airflow(context: Mapping[str, Any]) -> bool:
    """Whether a scheduler has started this task, so that another process may have to go on from its record."""
    return _three.supervisor() is not None if host.has_sdk() else _two.is_run_by_airflow(context["ti"])


def task_identity(context: Mapping[str, Any]) -> TaskIdentity:
    ti, loop = context["ti"], context.get("loop")
    index = -1 if ti.map_index is None else ti.map_index
    task = TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, index, host.setting("namespace") or "")
    region, iteration = _region_of(ti), getattr(loop, "index", None)
    return task if region is None or not isinstance(iteration, int) else replace(task, iteration=iteration, region=region)


def _region_of(ti: Any) -> str | None:
    """See `resumable.identity.Generation.region`."""
    region = getattr(ti, "region_id", None)
    return region.hex if isinstance(region, uuid.UUID) and region.int else None


def generation(context: Mapping[str, Any]) -> Generation:
    run = context["dag_run"]
    started = run.start_date
    return Generation(
        max_tries=context["ti"].max_tries,
        clear_number=getattr(run, "clear_number", None),
        run_started=started.isoformat() if started else None,
        retries=getattr(context.get("task"), "retries", None),
        region=_region_of(context["ti"]),
    )


def kept_by_operator(context: Mapping[str, Any], key: str) -> Any:
    """
    What the operator's own durability has kept in task state (Airflow 3.3 and later), None if it is nothing.

    Raises:
        StateStoreError: the store does not answer.
    """
    store = context.get("task_state_store")
    if store is None:
        return None
    try:
        return store.get(key)
    except Exception as e:
        raise StateStoreError(
            f"Task state does not answer ({e!r}). Nothing was submitted; a job of an earlier try may be running. Check the API "
            "server.",
            next_try="asks again",
        ) from e


def may_be_cleared(context: Mapping[str, Any]) -> bool:
    """
    Whether the running task may have been cleared at some time: with no record to compare, each sign of it counts.

    A clear makes ``max_tries`` the try of that moment and ``retries`` more.
    """
    now = generation(context)
    cleared_at = now.max_tries - (now.retries or 0)
    return bool(now.clear_number) or 0 < cleared_at < context["ti"].try_number


def may_have_lost_its_record(context: Mapping[str, Any]) -> bool:
    """
    Whether this is the first try after a clear, under an Airflow that deletes what is kept of a task with a clear (3.4), and in
    its own store. `resumable.cleanup.listener` keeps it from that where the API server has this library.
    """
    ti, now = context["ti"], generation(context)
    is_discarded = getattr(ti, "region_id", None) is not None and context.get("task_state_store") is not None
    return is_discarded and not host.setting("store") and 0 < now.max_tries - (now.retries or 0) == ti.try_number - 1


def current_context() -> Mapping[str, Any]:
    """
    The context of the task that this process runs.

    Raises:
        RuntimeError: it runs none.
    """
    find = first_of("get_current_context", "airflow.sdk", "airflow.operators.python")
    try:
        context: Mapping[str, Any] = find()
    except exception("AirflowException") as e:  # Airflow 2's
        raise RuntimeError(str(e)) from e
    return context


def current_try_number() -> int | None:
    """The try of the task that this process runs; None if it runs none, as a unit test that calls ``execute``."""
    try:
        return int(current_context()["ti"].try_number)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError):
        return None
