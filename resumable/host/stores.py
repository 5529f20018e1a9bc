"""
Which store a task has (the deployment's own, Airflow's task state, Airflow Variables, or memory), and how it reaches what Airflow
keeps: Variables, the server's own rows of state, object storage.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

from resumable import host
from resumable.errors import ConfigurationError
from resumable.host import _three, _two
from resumable.host.config import conf
from resumable.host.context import Rehearsal
from resumable.host.versions import first_of
from resumable.identity import TaskIdentity
from resumable.stores.base import StateStore, StoreFactory, Variables
from resumable.stores.task_state import AfterUpgrade, TaskStateStore
from resumable.stores.variables import ListedVariableStore, VariableStore

T = TypeVar("T")

_log = logging.getLogger("resumable")

_ORDERS = ("get", "set", "delete")

DEPLOYMENT = "airflow_resumable_deployment"
"""Name of the Variable that tells a deployment from others."""

SETTLE = 1.0
"""Seconds that tasks which come at the same moment need to settle on that name."""

VARIABLE_BYTES = 40_000

_deployment: dict[int, str] = {}
"""The name of the deployment, by the process that has asked for it: a fork asks again."""

_listed: list[tuple[Any, VariableStore]] = []
"""The running task instance, and the store that has asked for its Variables."""


def require_store() -> None:
    """
    Fail while the DAG is parsed, where the configured store cannot be used.

    Raises:
        ConfigurationError: ``[resumable] store`` cannot be imported, is no store, or lacks its own settings.
    """
    if path := host.setting("store"):
        host.once_for_settings(f"store {path}", lambda: _check_store(path))


def try_store() -> None:
    """Read from the store that ``[resumable] store`` names. Raises: anything: it cannot be reached."""
    if path := host.setting("store"):
        _check_store(path)(TaskIdentity("resumable", "doctor", "nothing")).get("nothing")


def try_store_path() -> None:
    """Look into the place that ``[resumable] store_path`` names. Raises: anything: it cannot be reached."""
    from resumable.stores.object_storage import check_scheme, see_folder

    if path := (host.setting("store_path") or "").strip():
        check_scheme(path)
        base = host.object_storage_path()(path)
        see_folder(base)
        with suppress(FileNotFoundError):  # an object store has no folders before there is something in them
            next(iter(base.iterdir()), None)


def state_store(context: Mapping[str, Any]) -> StateStore:
    """
    The store of the running task instance: the one that ``[resumable] store`` names, else Airflow's task state (3.3 and
    later), else Airflow Variables; in memory where no scheduler runs the task.

    Raises:
        ConfigurationError: none can be had, so nothing that is submitted could be found again.
    """
    if isinstance(context, Rehearsal):
        return context.store
    task = host.task_identity(context)
    if path := host.setting("store"):
        store = _check_store(path)(task)
        if hasattr(store, "require_owner") and (deployment := deployment_of(context, task)) is not None:
            store.require_owner(deployment)
        return store
    accessor = context.get("task_state_store")
    is_run = host.is_run_by_airflow(context)
    if accessor is not None:
        store = TaskStateStore(accessor, first_of("NEVER_EXPIRE", "airflow.sdk") if host.has_task_state() else timedelta.max)
        if not (is_run and _may_be_upgraded()):
            return store
        mine = host.generation(context) if "dag_run" in context else None
        return AfterUpgrade(store, _listed_once(context["ti"], task), generation=mine, try_number=context["ti"].try_number)
    if not is_run:
        from resumable.stores.memory import MemoryStore

        _log.warning("resumable: no scheduler runs this task, so its record is kept in the memory of this process")
        return MemoryStore.of(task)
    if host.has_task_state():
        raise ConfigurationError(
            "durable=True needs context['task_state_store'], which this context does not have. Nothing was submitted. Run the "
            "task through Airflow, or give durable=False."
        )
    return VariableStore(task, host.variables(task))


def task_variable_store(context: Mapping[str, Any]) -> StateStore:
    """A store of the running task that outlives its DAG runs: Airflow Variables."""
    from resumable.stores.task_variables import TaskVariableStore

    task = host.task_identity(context)
    return TaskVariableStore(task, host.variables(task))


def asset_state_store(context: Mapping[str, Any], asset: Any) -> StateStore:
    """
    The store of an asset, which outlives DAG runs.

    Raises:
        ConfigurationError: the task does not name the asset, or this Airflow has no asset state store.
    """
    from resumable.stores.task_state import AssetStateStore

    try:
        return AssetStateStore(context["asset_state_store"][asset])
    except (KeyError, TypeError):
        raise ConfigurationError(
            f"{asset!r} has no state store that this task may use. Nothing was read, the mark stays. On Airflow 3.3 and "
            "later, let the task name it: inlets=[asset], outlets=[asset]. Before, leave asset= out: the mark is then the task's."
        ) from None


def record_limit() -> int:
    """Bytes of JSON that a record may have: a Variable, in which older versions keep it, is encrypted and grows by a third."""
    return host.value_limit() if host.has_task_state() else min(host.value_limit(), VARIABLE_BYTES)


def deployment_of(context: Mapping[str, Any], task: TaskIdentity) -> str | None:
    """
    What no other Airflow deployment is called: 32 hex characters, kept in an Airflow Variable. A copy of the metadata database
    has the same. None where that cannot be told: no scheduler runs the task, multi-team, no Variable can be had.
    """
    if not host.is_run_by_airflow(context) or conf().getboolean("core", "multi_team", fallback=False):
        return None
    if os.getpid() not in _deployment:
        try:
            _deployment.clear()
            _deployment[os.getpid()] = _named_deployment(host.variables(task))
        except Exception as e:
            _log.warning("resumable: whether another deployment shares this store_path is not known: %r", e)
            return None
    return _deployment[os.getpid()]


def _named_deployment(kept: Variables) -> str:
    found = kept.get(DEPLOYMENT)
    if found is None:  # once in the life of a deployment; tasks that come at the same moment settle on one name
        kept.set(DEPLOYMENT, uuid.uuid4().hex, "airflow-resumable: tells this deployment from others")
        time.sleep(SETTLE)
        found = kept.get(DEPLOYMENT)
    if found is None:
        raise RuntimeError(f"the Variable {DEPLOYMENT} is gone right after it was written")
    return found


def _listed_once(ti: Any, task: TaskIdentity) -> VariableStore:
    """What an older Airflow left of the running task: its names are asked for once in a process, since nothing adds to them."""
    if not (_listed and _listed[0][0] is ti):
        _listed[:] = [(ti, ListedVariableStore(task, host.variables(task)))]
    return _listed[0][1]


def _may_be_upgraded() -> bool:
    """
    Whether an older Airflow, without a task state store, may have left a record of the task instance in a Variable.

    Not to be told from the task instance: one that was deferred while 3.2 became 3.3 is started from the top as its first try
    (seen). So it is asked for until ``[resumable] look_for_variables`` says that nothing from then can be in flight.
    """
    return host.flag("look_for_variables")


def _check_store(path: str) -> StoreFactory:
    where = f"airflow.cfg [resumable]: store={path!r}"
    home, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(home), name)
    except Exception as e:
        raise ConfigurationError(
            f"{where} cannot be imported ({type(e).__name__}: {e}). Nothing was submitted. Give the full path of a class, e.g. "
            "resumable.stores.object_storage.ObjectStorageStore, and install it wherever DAGs are parsed."
        ) from e
    lacks = [order for order in _ORDERS if not callable(getattr(found, order, None))]
    if not isinstance(found, type) or lacks:
        lack = f"it has no {lacks[0]}()" if lacks else "it is no class"
        raise ConfigurationError(
            f"{where} is no store: {lack}. Nothing was submitted. Name a class with get, set and delete as "
            "resumable.StateStore has them, which is called with a TaskIdentity."
        )
    try:
        inspect.signature(found).bind(TaskIdentity("dag", "run", "task"))
    except (TypeError, ValueError) as e:
        raise ConfigurationError(
            f"{where} cannot be called with a TaskIdentity ({e}). Nothing was submitted. Give its __init__ one parameter; what "
            "else it needs it can read from airflow.cfg."
        ) from e
    check = getattr(found, "check_settings", None)
    if check is not None:
        check()
    return cast("StoreFactory", found)


# -- what Airflow keeps -------------------------------------------------------------------------------------------------------


def variables(task: TaskIdentity) -> Variables:
    """Airflow Variables as the running ``task`` may use them; a read that fails raises, and is never "no such Variable"."""
    return _three.SupervisorVariables(task) if host.has_sdk() else _two.OrmVariables()


def task_state_rows(accessor: Any) -> Any:
    """The server's own rows of a task's state; None where the accessor keeps values there itself."""
    return _three.TaskStateRows(accessor._ti_id) if hasattr(accessor, "_ti_id") and _has_workers_backend() else None


def asset_state_rows(accessor: Any) -> Any:
    """The same of an asset's state."""
    return _three.AssetStateRows(accessor) if hasattr(accessor, "_build_get_message") and _has_workers_backend() else None


def _has_workers_backend() -> bool:
    return bool(conf().get("workers", "state_store_backend", fallback=None))


async def from_trigger(call: Callable[[], T]) -> T:
    """
    What ``call`` returns, which may look up a connection and take its time: in a thread of its own, from which Airflow can be
    asked, in the context of the trigger that waits for it.
    """
    from asgiref.sync import sync_to_async

    answer: T = await sync_to_async(call, thread_sensitive=False)()
    return answer


def has_object_storage(scheme: str) -> bool:
    """Whether `object_storage_path` opens URLs with this scheme."""
    return bool(first_of("has_fs", "airflow.sdk.io.fs", "airflow.io")(scheme))


def object_storage_path() -> Any:
    """The class of paths on object storage."""
    return first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")
