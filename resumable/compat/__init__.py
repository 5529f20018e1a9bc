"""The only package that knows Airflow's versions: what a task may see and do, under one name each, from 2.11 on.

No number is compared: what an Airflow has tells what it can do. Airflow 2 has no ``airflow.sdk`` (`_two`), Airflow 3 has
(`_three`), and 3.3 brought the task state store. Imports are inside the functions, because importing `resumable` must not
import Airflow.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from typing import Any, TypeVar, cast

from resumable.compat import _three, _two, _written
from resumable.compat._rehearsal import Rehearsal, tells_the_task
from resumable.compat._settings import Settings
from resumable.errors import ConfigurationError, ResumableError, StateStoreError
from resumable.identity import Generation, TaskIdentity
from resumable.policy import DEFAULTS, SETTINGS, ResumePolicy
from resumable.spec import Spec, is_of_the_job
from resumable.stores.base import StateStore, StoreFactory, Variables
from resumable.stores.task_state import AfterUpgrade, TaskStateStore
from resumable.stores.variables import ListedVariableStore, VariableStore

F = TypeVar("F", bound=Callable[..., Any])
F2 = TypeVar("F2")

SECTION = "resumable"

_MAX_DEPTH = 50

MAX_VALUE_BYTES = 65535

VARIABLE_BYTES = 40_000

_PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"

HAND_BACK = 60.0
"""Seconds from a hand-back to the next start, where airflow.cfg says nothing."""
_AIRFLOWS_BACKEND = "airflow.state.metastore.MetastoreBackend"

ADOPTION = ("adopt", "adopt_dags", "adopt_skip", "adopt_new")
"""Options of adoption: asked for each task of each DAG."""

DELETED = "deleted"
"""Our word for the state of a task instance that Airflow has no more: a user has deleted its DAG run, or the DAG."""

_PAUSE = 0.3

DEPLOYMENT = "airflow_resumable_deployment"
"""Name of the Variable that tells a deployment from others."""

SETTLE = 1.0
"""Seconds that tasks which come at the same moment need to settle on that name."""

HAND_BACK_FLOOR = 10.0
"""Seconds below which a hand-back is never set, whatever airflow.cfg says."""

TRIGGER_PATIENCE = 20.0
"""Seconds in which a trigger's question for its task's state must be answered. Airflow 3.3 gives ``on_kill`` 30 in all, and on a
machine under load the triggerer takes some for the first question that it answers."""

SIGKILL_PATIENCE = 10.0
"""Seconds to wait for the SIGKILL that Airflow 3 has announced (it comes after five)."""

_ORDERS = ("get", "set", "delete")

_log = logging.getLogger("resumable")


@cache
def has_sdk() -> bool:
    """Whether this is Airflow 3, where tasks know the Task SDK and not the database."""
    return _has("airflow.sdk")


def parses_dag_files(job_type: str) -> bool:
    """Whether a component of that job type forks the processes that parse DAG files; on Airflow 2 the scheduler may."""
    return job_type == "DagProcessorJob" or (job_type == "SchedulerJob" and not has_sdk())


def killed_task_cleanup_time() -> float | None:
    """Seconds from SIGTERM to SIGKILL by ``[core] killed_task_cleanup_time``; None on Airflow 3, which does not read it."""
    return None if has_sdk() else float(airflow_setting("core", "killed_task_cleanup_time", "60"))


@cache
def has_task_state() -> bool:
    """Whether this Airflow keeps a state store per task instance (3.3 and later)."""
    return has_sdk() and _has("airflow.sdk.execution_time.context", "TaskStateStoreAccessor")


def _has(module: str, name: str | None = None) -> bool:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and f"{module}.".startswith(f"{e.name}."):
            return False
        raise
    return name is None or hasattr(found, name)


def _first_of(name: str, *modules: str) -> Any:
    """``name`` from the first module that has it: where it moved from version to version."""
    for module in modules:
        if _has(module, name):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"this Airflow has no {name} in any of {modules}")


def _exception(name: str) -> type[BaseException]:
    return cast("type[BaseException]", _first_of(name, "airflow.sdk.exceptions", "airflow.exceptions"))


def apply_defaults(init: F) -> F:
    """Make an ``__init__`` outside of the operator's own class known to ``default_args`` and to ``partial()``."""
    meta = _first_of("BaseOperatorMeta", "airflow.sdk.bases.operator", "airflow.models.baseoperator")
    return cast("F", meta._apply_defaults(init))


def started_again_in_time() -> type:
    """
    A base class by which the scheduler heeds the date of a reschedule of any operator.

    From 3.1 on it does anyway (``TaskInstance.get_failed_dep_statuses``). Before, it starts a task that is no sensor again at
    once: a look would follow on the other, and a hand-back could lose the race that `hand_back` speaks of.
    """
    if not has_sdk():
        return _two.started_again_in_time()
    return _three.AsItIs if _has("airflow.sdk.timezone") else _three.StartedAgainInTime  # that module came with 3.1


def durable_by_default(operator: type) -> bool:
    """Whether Airflow's own mixin makes ``operator`` durable where nobody says otherwise: from 3.3 on."""
    mixins = [cls for cls in operator.__mro__ if cls.__name__ == "ResumableJobMixin"]
    return any(inspect.signature(vars(cls)["__init__"]).parameters["durable"].default is True for cls in mixins)


def is_mapped(task: Any) -> bool:
    """Whether a task of a DAG that was parsed is one that ``expand()`` makes task instances of."""
    return hasattr(task, "partial_kwargs")


def map_over(task: Any, operator: type) -> None:
    """Have a mapped task make its task instances of another class of the same arguments."""
    task.operator_class = operator
    if hasattr(type(task), "deps_for"):  # Airflow 2 has taken what the scheduler waits for from the class
        task.deps = type(task).deps_for(operator)


def provider_of(cls: type) -> tuple[str, str]:
    """The provider package that an operator's class comes from, and its version."""
    for klass in cls.__mro__:
        if klass.__module__.startswith("airflow.providers."):
            name = ".".join(klass.__module__.split(".")[:3])
            return name, str(getattr(importlib.import_module(name), "__version__", "of an unknown version"))
    return "its provider", ""


def base_operator() -> Any:
    return _first_of("BaseOperator", "airflow.sdk", "airflow.models")


def execute_guard(operator: Any) -> dict[str, Any]:
    """What ``execute`` of a provider's class must be given, so as not to warn that a task runner should have called it."""
    return {} if has_sdk() else _two.execute_guard(operator)


def base_trigger() -> Any:
    from airflow.triggers.base import BaseTrigger

    return BaseTrigger


given = _written.given
"""What an operator was called with."""


def spec(operator: Any, values: Mapping[str, Any], called_with: Mapping[str, Any], context: Mapping[str, Any]) -> Spec:
    """
    The fingerprint of what ``operator`` is about to submit, for `resumable.lifecycle.decide`.

    Args:
        operator: after templates were rendered.
        values: the fields that make up its job, as they were before.
        called_with: `given`, from before.
        context: of the attempt.
    """
    map_index = task_identity(context).map_index
    fields, received = _written.written_and_received(operator, values, called_with, map_index)
    of_airflow = inspect.signature(base_operator().__init__).parameters
    items = {name: item for name, item in received.items() if name not in of_airflow and is_of_the_job(name)}
    text = _written.dag_text(operator)
    return Spec.of(fields, text, defaults=_written.defaults(type(operator)), given=called_with, items=items)


def configured_policy() -> dict[str, str | None]:
    """The ``[resumable]`` settings of a policy; None where airflow.cfg says nothing."""
    return {name: setting(name) for name in SETTINGS}


def resolved_policy(given: ResumePolicy) -> ResumePolicy:
    """``given`` with every setting filled in; one object for all tasks that say the same."""
    return _settings.once(given, lambda: given.resolved(configured_policy()))


def setting(name: str) -> str | None:
    """One ``[resumable]`` option of airflow.cfg or its environment variable."""
    return _settings.read(name)


@cache
def _configuration() -> Any:
    """The module that has Airflow's configuration: a test may put another one into it."""
    return importlib.import_module("airflow.sdk.configuration" if _has("airflow.sdk.configuration") else "airflow.configuration")


_WATCHED = (*SETTINGS, "store", "store_path", "hand_back_seconds", "namespace", *ADOPTION)
_settings = Settings(SECTION, _WATCHED, lambda: _configuration().conf)


def once_for_settings(name: str, compute: Callable[[], F2]) -> F2:
    """What ``compute`` makes of the settings, until they change."""
    return _settings.once(("computed", name), compute)


def say_once(text: str) -> None:
    """A warning about the configuration: one line in a process, however many tasks it concerns."""
    _settings.once(("said", text), lambda: _log.warning("resumable: %s", text))


def is_chosen(name: str) -> bool:
    """
    Whether somebody has chosen a policy's ``[resumable]`` option.

    The airflow.cfg that Airflow writes on its first start holds every option with its default (seen on 3.3.2), so one that stands
    there as the default is not chosen; as an environment variable it is.
    """
    variable = f"AIRFLOW__{SECTION}__{name}".upper()
    is_in_environment = any(one in os.environ for one in (variable, f"{variable}_CMD", f"{variable}_SECRET"))
    return is_in_environment or (setting(name) or "").strip().lower() not in ("", DEFAULTS[name])


def require_store() -> None:
    """
    Fail while the DAG is parsed, where the configured store cannot be used.

    Raises:
        ConfigurationError: ``[resumable] store`` cannot be imported, is no store, or lacks its own settings.
    """
    if path := setting("store"):
        _settings.once(("store", path), lambda: _check_store(path))


def state_store(context: Mapping[str, Any]) -> StateStore:
    """
    The store of the running task instance: the one that ``[resumable] store`` names, else Airflow's task state (3.3 and
    later), else Airflow Variables; in memory where no scheduler runs the task.

    Raises:
        ConfigurationError: none can be had, so nothing that is submitted could be found again.
    """
    if isinstance(context, Rehearsal):
        return context.store
    task = task_identity(context)
    if path := setting("store"):
        store = _check_store(path)(task)
        if hasattr(store, "require_owner") and (deployment := deployment_of(context, task)) is not None:
            store.require_owner(deployment)
        return store
    accessor = context.get("task_state_store")
    is_run = is_run_by_airflow(context)
    if accessor is not None:
        store = TaskStateStore(accessor, _first_of("NEVER_EXPIRE", "airflow.sdk") if has_task_state() else timedelta.max)
        if not (is_run and _may_be_upgraded()):
            return store
        mine = generation(context) if "dag_run" in context else None
        return AfterUpgrade(store, _listed_once(context["ti"], task), generation=mine, try_number=context["ti"].try_number)
    if not is_run:
        from resumable.stores.memory import MemoryStore

        _log.warning("resumable: no scheduler runs this task, so its record is kept in the memory of this process")
        return MemoryStore.of(task)
    if has_task_state():
        raise ConfigurationError(
            "durable=True needs context['task_state_store'], which this context does not have. Nothing was submitted. Run the "
            "task through Airflow, or give durable=False."
        )
    return VariableStore(task, variables(task))


def deployment_of(context: Mapping[str, Any], task: TaskIdentity) -> str | None:
    """
    What no other Airflow deployment is called: 32 hex characters, kept in an Airflow Variable. A copy of the metadata database
    has the same. None where that cannot be told: no scheduler runs the task, multi-team, no Variable can be had.
    """
    conf = _first_of("conf", "airflow.sdk.configuration", "airflow.configuration")
    if not is_run_by_airflow(context) or conf.getboolean("core", "multi_team", fallback=False):
        return None
    if os.getpid() not in _deployment:
        try:
            _deployment.clear()
            _deployment[os.getpid()] = _named_deployment(variables(task))
        except Exception as e:
            _log.warning("resumable: whether another deployment shares this store_path is not known: %r", e)
            return None
    return _deployment[os.getpid()]


_deployment: dict[int, str] = {}


def _named_deployment(kept: Variables) -> str:
    found = kept.get(DEPLOYMENT)
    if found is None:  # once in the life of a deployment; tasks that come at the same moment settle on one name
        kept.set(DEPLOYMENT, uuid.uuid4().hex, "airflow-resumable: tells this deployment from others")
        time.sleep(SETTLE)
        found = kept.get(DEPLOYMENT)
    if found is None:
        raise RuntimeError(f"the Variable {DEPLOYMENT} is gone right after it was written")
    return found


def task_state_rows(accessor: Any) -> Any:
    """The server's own rows of a task's state; None where the accessor keeps values there itself."""
    return _three.TaskStateRows(accessor._ti_id) if hasattr(accessor, "_ti_id") and _has_workers_backend() else None


def asset_state_rows(accessor: Any) -> Any:
    """The same of an asset's state."""
    return _three.AssetStateRows(accessor) if hasattr(accessor, "_build_get_message") and _has_workers_backend() else None


def _has_workers_backend() -> bool:
    conf = _first_of("conf", "airflow.sdk.configuration", "airflow.configuration")
    return bool(conf.get("workers", "state_store_backend", fallback=None))


_listed: list[tuple[Any, VariableStore]] = []


def _listed_once(ti: Any, task: TaskIdentity) -> VariableStore:
    """What an older Airflow left of the running task: its names are asked for once in a process, since nothing adds to them."""
    if not (_listed and _listed[0][0] is ti):
        _listed[:] = [(ti, ListedVariableStore(task, variables(task)))]
    return _listed[0][1]


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


def task_context(context: Any, operator: Any) -> Mapping[str, Any]:
    """
    ``context`` where it tells which task instance runs; else, in somebody's unit test, one that does.

    A supervisor gives every task a whole context; so where there is one, nothing is put in its place.
    """
    if tells_the_task(context) or isinstance(context, Rehearsal) or (has_sdk() and _three.supervisor() is not None):
        return cast("Mapping[str, Any]", context)
    _log.warning(
        "resumable: the context of %s tells of no task instance (a unit test?): its record is kept in memory for this call",
        getattr(operator, "task_id", type(operator).__name__),
    )
    return Rehearsal(context, operator)


def given_context(context: Any) -> Any:
    """What ``execute`` was called with."""
    return context.given if isinstance(context, Rehearsal) else context


def is_run_by_airflow(context: Mapping[str, Any]) -> bool:
    """Whether a scheduler has started this task, so that another process may have to go on from its record."""
    return _three.supervisor() is not None if has_sdk() else _two.is_run_by_airflow(context["ti"])


def _may_be_upgraded() -> bool:
    """
    Whether an older Airflow, without a task state store, may have left a record of the task instance in a Variable.

    Not to be told from the task instance: one that was deferred while 3.2 became 3.3 is started from the top as its first try
    (seen). So it is asked for until ``[resumable] look_for_variables`` says that nothing from then can be in flight.
    """
    return (setting("look_for_variables") or "true").lower() != "false"


def variables(task: TaskIdentity) -> Variables:
    """Airflow Variables as the running ``task`` may use them; a read that fails raises, and is never "no such Variable"."""
    return _three.SupervisorVariables(task) if has_sdk() else _two.OrmVariables()


def database() -> Any:
    """The deployment's Variables and task states, read from its metadata database: not from within a task of Airflow 3."""
    from resumable.compat import _database

    return _database.Database()


def airflow_setting(section: str, name: str, default: str) -> str:
    """One option of Airflow's own."""
    found = _configuration().conf.get(section, name, fallback=default)
    return default if found in (None, "") else str(found)


def configured_names() -> set[str]:
    """The options of ``[resumable]`` that somebody has set, in airflow.cfg or in the environment of this process."""
    of_file = (vars(_configuration().conf).get("_sections") or {}).get(SECTION) or {}
    prefix = f"AIRFLOW__{SECTION.upper()}__"
    return {*of_file, *(name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix))}


def origin_of(name: str) -> str:
    """Where the value of a ``[resumable]`` option comes from."""
    return "the environment" if f"AIRFLOW__{SECTION}__{name}".upper() in os.environ else "airflow.cfg"


def plugin_names() -> set[str]:
    """Of the plug-ins that Airflow has loaded in this process."""
    manager = importlib.import_module("airflow.plugins_manager")
    if hasattr(manager, "_get_plugins"):  # 3.2 and later
        return {str(plugin.name) for plugin in manager._get_plugins()[0]}
    manager.ensure_plugins_loaded()
    return {str(plugin.name) for plugin in manager.plugins or ()}


def dag_bag(folder: str | None) -> Any:
    """The DAGs of a folder as they are parsed here, ``dags`` and ``import_errors``; None: of airflow.cfg's folder."""
    bag = _first_of("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
    examples = {"include_examples": False} if "include_examples" in inspect.signature(bag).parameters else {}
    return bag(folder or airflow_setting("core", "dags_folder", ""), **examples)


def beside() -> Any:
    """What the command reads and does in the metadata database: `resumable.compat._beside`."""
    return importlib.import_module("resumable.compat._beside")


@contextmanager
def deployment(conn_id: str) -> Iterator[Any]:
    """
    The Airflow that runs this task, for `resumable.maintenance`: the database on Airflow 2, on Airflow 3 its REST API.

    Raises:
        ConfigurationError: the connection ``conn_id`` is of no use.
    """
    if not has_sdk():
        yield database()
        return
    from resumable.compat._rest import RestApi

    given = _connection(conn_id)
    with RestApi(given.host, given.login, given.password) as api:
        yield api


def _connection(conn_id: str) -> Any:
    return _first_of("BaseHook", "airflow.sdk", "airflow.hooks.base").get_connection(conn_id)


def has_object_storage(scheme: str) -> bool:
    """Whether `object_storage_path` opens URLs with this scheme."""
    return bool(_first_of("has_fs", "airflow.sdk.io.fs", "airflow.io")(scheme))


def object_storage_path() -> Any:
    """The class of paths on object storage."""
    return _first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")


def after_success(operator: Any, context: Mapping[str, Any], forget: Callable[[], None]) -> None:
    """
    Have ``forget`` called, in this process, once Airflow has taken note of the task's success.

    Airflow 3 also runs the success callbacks of a task whose success it has refused, because the scheduler had given the try up
    meanwhile (seen on 3.2.2); the next try needs the record then. So the task's own state is asked for first.
    """
    if isinstance(context, Rehearsal):
        return

    def forget_if_noted() -> None:
        try:
            state = own_state(context)
        except Exception as e:
            state = repr(e)
        if state == "success":
            forget()
        else:
            _log.info("resumable: the record is kept: Airflow has not taken note of the success (state %s)", state)

    if not has_sdk():
        _two.after_success(context["ti"], forget_if_noted)
        return
    theirs = getattr(operator, "on_success_callback", None)
    before = [] if theirs is None else list(theirs) if isinstance(theirs, list | tuple) else [theirs]
    vars(operator)["on_success_callback"] = [*before, lambda _: forget_if_noted()]


def task_identity(context: Mapping[str, Any]) -> TaskIdentity:
    ti, loop = context["ti"], context.get("loop")
    index = -1 if ti.map_index is None else ti.map_index
    task = TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, index, setting("namespace") or "")
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
    its own store. `resumable.listener` keeps it from that where the API server has this library.
    """
    ti, now = context["ti"], generation(context)
    is_discarded = getattr(ti, "region_id", None) is not None and context.get("task_state_store") is not None
    return is_discarded and not setting("store") and 0 < now.max_tries - (now.retries or 0) == ti.try_number - 1


def count(event: str, operator: str) -> None:
    """Add one to Airflow's metric ``resumable_job.<event>``, as Airflow 3.3's own mixin names and tags its own."""
    stats = _first_of("Stats", "airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")
    stats.incr(f"resumable_job.{event}", tags={"operator": operator})


def is_last_try(context: Mapping[str, Any], error: BaseException | None = None) -> bool:
    """
    Whether Airflow starts no other try of the running task by itself.

    Args:
        context: the task's.
        error: what this try is about to fail with, if that is known: an exception may say that no other try is wanted, and so may
            the task's ``retry_policy`` (3.3 and later), whatever tries are left. From 3.4 on it may also have the same try run
            again.
    """
    return bool(why_last_try(context, error))


def why_last_try(context: Mapping[str, Any], error: BaseException | None = None) -> str:
    """Why Airflow starts no other try (`is_last_try`), in words; empty if it does, or if the task waits for that decision."""
    ti = context["ti"]
    says = None if error is None else _policy_says(context, error)
    if says == "reschedule":
        return ""
    if ti.try_number > ti.max_tries:
        return f"this was the last try ({ti.try_number} of {ti.max_tries + 1})"
    if error is not None and _allows_no_retry(error):
        return "such an error is final"
    return "the task's retry_policy allows no other try" if says == "fail" else ""


def _allows_no_retry(error: BaseException) -> bool:
    if isinstance(error, ResumableError):
        return not error.retryable  # `airflow_errors` makes an AirflowFailException of it
    return is_final(error) or isinstance(error, _exception("AirflowSensorTimeout"))


def _policy_says(context: Mapping[str, Any], error: BaseException) -> str | None:
    """
    What Airflow's task runner asks when the task has failed, in a word, ``reschedule`` as long as the policy's own limits allow
    it. One that fails itself changes nothing there, nor here.
    """
    policy = getattr(context.get("task"), "retry_policy", None)
    if policy is None or _allows_no_retry(error):  # then it is not asked
        return None
    ti = context["ti"]
    try:
        decision = policy.evaluate(exception=error, try_number=ti.try_number, max_tries=ti.max_tries, context=context)
        says = str(decision.action.value)
        return "default" if says == "reschedule" and _is_rescheduled_enough(context, decision) else says
    except Exception as e:
        _log.info("resumable: the task's retry_policy could not be asked: %r", e)
        return None


def _is_rescheduled_enough(context: Mapping[str, Any], decision: Any) -> bool:
    """Whether a ``retry_policy`` has had this try run again as often, or for as long, as it may (3.4)."""
    most, longest = decision.max_reschedules, decision.reschedule_timeout
    if most is not None and (context.get("task_reschedule_count") or 0) >= most:
        return True
    first = None if longest is None else context["ti"].get_first_reschedule_date(context)
    return first is not None and bool(datetime.now(timezone.utc) - first >= longest)


def own_state(context: Mapping[str, Any]) -> str | None:
    """
    The state that Airflow has for the running task instance now, None if it has none, `DELETED` if it is gone with its DAG run.

    Never call it in a signal handler: on 3.2 and later that deadlocks when the signal interrupted another request.
    """
    task = task_identity(context)
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
        Exception: it was not told within `TRIGGER_PATIENCE` seconds, or cannot be.
    """
    asked = _three.states_seen_by_trigger(**_which(ti)) if has_sdk() else asyncio.to_thread(_two.state_of, ti)
    answer = await asyncio.wait_for(asked, TRIGGER_PATIENCE)
    return _word(_only_state(ti, answer) if has_sdk() else answer)


def tells_triggers() -> bool:
    """Whether this Airflow tells a trigger, by ``on_kill``, that a user has stopped its task (3.3 and later)."""
    return hasattr(base_trigger(), "on_kill")


def cancelled_triggers_may_ask() -> bool:
    """
    Whether a cancelled trigger can ask for its task's state: on Airflow 2, and from 3.2 on.

    On 3.1 the triggerer then hears no answer any more, and every deferred task hangs (seen on 3.1.8; 3.0 talks in the same way).
    """
    return not has_sdk() or _three.answers_reach_every_thread()


def request_lock() -> AbstractContextManager[Any]:
    """The lock that is held while a request to the supervisor, or of ours to the database, is in flight."""
    if not has_sdk():
        return _two.DATABASE_LOCK
    comms = _three.supervisor()
    return nullcontext() if comms is None else cast("AbstractContextManager[Any]", _three.request_lock(comms))


def sigterm_calls(on_kill: Callable[[], None]) -> AbstractContextManager[None]:
    """While it is open, SIGTERM calls ``on_kill`` and does nothing else: what Airflow 3 does anyway."""
    return nullcontext() if has_sdk() else _two.sigterm_calls(on_kill)


def end_stopped_task(*, taken_over: bool) -> None:
    """
    The end of a process that Airflow has written off. Returns, at the latest, when a SIGKILL is overdue.

    On Airflow 3 that comes five seconds after SIGTERM, and an exception would run the failure callbacks of a task that did not
    fail. From 3.4 on it comes after ``[core] killed_task_cleanup_time``, a minute by default, and a cleared task is not started
    again before: so this process does not wait for it. Airflow 2 waits for ``AirflowTaskTerminated``, the one exception after
    which it leaves a state alone that a user has set; but if another attempt has taken over, that would change the other's state.
    """
    if has_sdk():
        if _three.is_supervised_process() and _three.server_grace() > _three.SERVER_GRACE:
            _log.info(
                "resumable: all is done after the stop: this process ends itself, so that Airflow need not wait for it. (Airflow "
                "takes the signal for a likely lack of memory, and says so; it is none.)"
            )
            _three.end_process()
        time.sleep(SIGKILL_PATIENCE)
    elif taken_over:
        conf = _first_of("conf", "airflow.configuration")
        time.sleep(conf.getint("core", "killed_task_cleanup_time", fallback=60) + SIGKILL_PATIENCE)
    else:
        raise _exception("AirflowTaskTerminated")("The task was stopped")


def users_stop_grace() -> float:
    """Seconds that a task has from the SIGTERM of a user's stop to its SIGKILL. A lost API server always gives it five."""
    return _three.server_grace() if has_sdk() else _three.SERVER_GRACE


def hand_back_seconds() -> float:
    """How far ahead a hand-back puts the next start: ``[resumable] hand_back_seconds``, 60 by default."""
    return max(HAND_BACK_FLOOR, _seconds("hand_back_seconds", HAND_BACK))


def _seconds(name: str, default: float) -> float:
    given = setting(name)
    try:
        seconds = float(given or default)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        return seconds
    say_once(f"airflow.cfg [resumable]: {name}={given!r} is not a number of seconds; it is taken for {default:g}")
    return default


def sweep_delay() -> float:
    """Seconds after a user's mark when its job is looked after: ``[resumable] sweep_delay``, 15 by default."""
    return _seconds("sweep_delay", 15.0)


def records_are_elsewhere() -> str | None:
    """Why the ``task_state_store`` table does not hold this deployment's records; None if it does."""
    if path := setting("store"):
        return f"records are kept by [resumable] store = {path}"
    conf = _first_of("conf", "airflow.sdk.configuration", "airflow.configuration")
    if path := conf.get("workers", "state_store_backend", fallback=None):
        return f"task state is kept by [workers] state_store_backend = {path}"
    path = conf.get("state_store", "backend", fallback=None)
    return f"task state is kept by [state_store] backend = {path}" if path and path != _AIRFLOWS_BACKEND else None


def team_of(dag_id: str) -> str | None:
    """See `resumable.compat._server`. On a server."""
    from resumable.compat import _server

    return _server.team_of(dag_id)


def task_state_place() -> Any:
    """See `resumable.compat._server`. On a server."""
    from resumable.compat import _server

    return _server.task_state_place()


def connections_of(dag_id: str, conn_ids: Sequence[Any]) -> AbstractContextManager[None]:
    """See `resumable.compat._server`. On a server."""
    from resumable.compat import _server

    return _server.connections_of(dag_id, conn_ids)


def is_server() -> bool:
    """Whether this process is an API server or a scheduler, with the metadata database at hand (Airflow 3)."""
    return os.environ.get(_PROCESS_CONTEXT) == "server"


def be_a_server() -> None:
    """Have connections come from where the API server and the scheduler take them, the metadata database included."""
    os.environ[_PROCESS_CONTEXT] = "server"


def is_final(error: BaseException) -> bool:
    """Exceptions by which a task says that no other try is wanted."""
    return isinstance(error, (_exception("AirflowFailException"), _exception("AirflowSkipException")))


def is_airflow_error(error: BaseException) -> bool:
    """An exception of Airflow's own family, which anybody may raise for anything."""
    return isinstance(error, _exception("AirflowException"))


def is_not_found(error: BaseException) -> bool:
    """Airflow knows no such thing, most often no such connection: nothing was asked of any service."""
    return isinstance(error, _exception("AirflowNotFoundException"))


def is_skip(error: BaseException) -> bool:
    return isinstance(error, _exception("AirflowSkipException"))


def is_hand_back(error: BaseException) -> bool:
    return isinstance(error, _exception("AirflowRescheduleException"))


def is_deferral(error: BaseException) -> bool:
    return isinstance(error, _exception("TaskDeferred"))


def hand_back(seconds: float) -> BaseException:
    """
    What to raise for the task to be started again without using up a try.

    A reschedule is legal for every operator. A date that is too near loses a race: the end of this process is then taken for the
    end of the next one (seen with 2 s on 3.0 to 3.3).
    """
    return _exception("AirflowRescheduleException")(datetime.now(timezone.utc) + timedelta(seconds=seconds))


def task_timeout() -> type[BaseException]:
    return _exception("AirflowTaskTimeout")


def is_out_of_time(context: Mapping[str, Any], operator: Any, error: BaseException) -> bool:
    """
    Whether a deferral timed out because the task's ``execution_timeout`` is over.

    Airflow does not apply it to a deferred task. But some of the provider's operators make it the time-out of their deferral.
    """
    limit, started = getattr(operator, "execution_timeout", None), getattr(context["ti"], "start_date", None)
    if limit is None or started is None or not is_deferral_timeout(error):
        return False
    return bool(datetime.now(timezone.utc) - started >= limit)


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether a task is started again because its deferral has lasted for longer than the ``timeout`` it was given."""
    return isinstance(error, _deferral_errors()) and "timeout" in f"{type(error).__name__} {error}".lower()


def _deferral_errors() -> tuple[type[BaseException], ...]:
    names = ("TaskDeferralError", "TaskDeferralTimeout") if has_sdk() else ("TaskDeferralError",)
    return tuple(_exception(name) for name in names)


def _redact() -> Any:
    masker = ("airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    return _first_of("redact", "airflow.sdk.log", *masker)


def redacted(text: str, name: str | None = None) -> str:
    """``text`` as Airflow's secrets masker leaves it; all of it hidden if ``name`` says that it is a secret."""
    return str(_redact()(text, name))


def holds_secret(value: Any) -> bool:
    """Whether Airflow's secrets masker would hide anything in ``value``."""
    text = json.dumps(value, default=str)
    return bool(masked(value) != value or masked(text) != text)


def masked(value: Any) -> Any:
    """``value``, of whatever kind, as Airflow's secrets masker shows it."""
    return _redact()(value, max_depth=_MAX_DEPTH)


@contextmanager
def airflow_errors(context: Mapping[str, Any] | None = None) -> Iterator[None]:
    """
    Turn our errors that no other try can mend into Airflow's `AirflowFailException`, so that no try is wasted on them; and have
    the others say so where no other try follows.

    And keep a hand-back of the task of ``context`` from undoing what a user has done meanwhile: Airflow 2 reschedules a task in
    whatever state it is.
    """
    try:
        yield
    except ResumableError as e:
        if e.retryable:
            say_if_last(e, context)
            raise
        raise _exception("AirflowFailException")(str(e)) from e
    except BaseException as e:
        is_threat = not has_sdk() and is_hand_back(e) and context is not None and is_run_by_airflow(context)
        if is_threat and own_state(cast("Any", context)) != "running":
            raise _exception("AirflowTaskTerminated")("The task was stopped while it was about to be rescheduled") from e
        raise


def say_if_last(error: ResumableError, context: Mapping[str, Any] | None) -> None:
    """Have ``error`` say so if no other try follows. ``context``: the task's; None: of the task that this process runs."""
    if not error.next_try or error.no_other_try:
        return
    try:
        why = why_last_try(current_context() if context is None else context, error)
    except (RuntimeError, KeyError, AttributeError, TypeError):  # no task, as in a unit test
        return
    if why:
        error.no_other_try = f"{why[0].upper()}{why[1:]}: clear the task to have it started again."


@contextmanager
def final_errors() -> Iterator[None]:
    """
    The same for arguments that are checked before a task is at work on them: an error is an `AirflowFailException` too, but keeps
    its own type, because a test or a DAG's file may meet it without any task.
    """
    try:
        yield
    except ResumableError as e:
        if e.retryable:
            raise
        raise _final(type(e))(str(e)) from e


def _final(kind: type[ResumableError]) -> type[ResumableError]:
    try:
        final = _exception("AirflowFailException")
    except ImportError:  # no Airflow here
        return kind
    return kind if issubclass(kind, final) else type(kind.__name__, (kind, final), {"__module__": kind.__module__})


# -- for code that subclasses nothing -------------------------------------------------------------------------------------


def current_context() -> Mapping[str, Any]:
    """
    The context of the task that this process runs.

    Raises:
        RuntimeError: it runs none.
    """
    find = _first_of("get_current_context", "airflow.sdk", "airflow.operators.python")
    try:
        context: Mapping[str, Any] = find()
    except _exception("AirflowException") as e:  # Airflow 2's
        raise RuntimeError(str(e)) from e
    return context


def current_try_number() -> int | None:
    """The try of the task that this process runs; None if it runs none, as a unit test that calls ``execute``."""
    try:
        return int(current_context()["ti"].try_number)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError):
        return None


def at_end(task: Any, callback: Callable[[bool], Any]) -> None:
    """
    Have ``callback(succeeded)`` called by this process when ``task`` ends for good: success, skip, or a failure without a retry.

    It finds the task's context as the task did; Airflow's own callbacks do not. What was registered last is called first: it may
    stand on what was made before it.
    """
    set_current_context = _first_of("set_current_context", "airflow.sdk.execution_time.context", "airflow.models.taskinstance")

    def call(context: Any, succeeded: bool) -> None:
        with set_current_context(context):
            callback(succeeded)

    for kind in ("on_success_callback", "on_failure_callback", "on_skipped_callback"):
        present = getattr(task, kind, None) or ()
        callbacks = [present] if callable(present) else list(present)
        ours = [one for one in callbacks if isinstance(one, _AtEnd)]
        theirs = [one for one in callbacks if not isinstance(one, _AtEnd)]
        setattr(task, kind, [*theirs, _AtEnd(call, succeeded=kind == "on_success_callback"), *ours])


class _AtEnd(partial[None]):
    """A callback of `at_end`."""


def value_limit() -> int:
    """
    Bytes of JSON that one value of task state may have: 65535 unless airflow.cfg says otherwise; 0 there means that any may.

    Airflow refuses a longer one to its REST API only; to a task it gives a warning (3.3). So it is what the deployment wants.
    """
    conf = _first_of("conf", "airflow.sdk.configuration", "airflow.configuration")
    limit = int(conf.getint("state_store", "max_value_storage_bytes", fallback=MAX_VALUE_BYTES))
    return limit if limit > 0 else sys.maxsize


def record_limit() -> int:
    """Bytes of JSON that a record may have: a Variable, in which older versions keep it, is encrypted and grows by a third."""
    return value_limit() if has_task_state() else min(value_limit(), VARIABLE_BYTES)


# -- watermarks -----------------------------------------------------------------------------------------------------------


def asset_state_store(context: Mapping[str, Any], asset: Any) -> StateStore:
    """
    The store of an asset, which outlives DAG runs.

    Raises:
        ConfigurationError: the task does not name the asset, or this Airflow has no asset state store.
    """
    from resumable.stores.asset_state import AssetStateStore

    try:
        return AssetStateStore(context["asset_state_store"][asset])
    except (KeyError, TypeError):
        raise ConfigurationError(
            f"{asset!r} has no state store that this task may use. Nothing was read, the mark stays. On Airflow 3.3 and "
            "later, let the task name it: inlets=[asset], outlets=[asset]. Before, leave asset= out: the mark is then the task's."
        ) from None


def is_inlet(context: Mapping[str, Any], asset: Any) -> bool:
    """Whether the running task names ``asset`` in its inlets. Airflow keeps these references of a DAG whose file is gone."""
    return any(getattr(inlet, "name", inlet) == getattr(asset, "name", asset) for inlet in context["task"].inlets)


def task_variable_store(context: Mapping[str, Any]) -> StateStore:
    """A store of the running task that outlives its DAG runs: Airflow Variables."""
    from resumable.stores.task_variables import TaskVariableStore

    task = task_identity(context)
    return TaskVariableStore(task, variables(task))


def succeeded(context: Mapping[str, Any], tasks: Iterable[TaskIdentity]) -> set[TaskIdentity]:
    """Those of ``tasks``, of any DAG run, that Airflow has in state success now. A run that was deleted has no state."""
    ask = getattr(context["ti"], "get_task_states", None)
    if ask is None and not has_sdk():
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


def backfill_interval(context: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """The data interval of a backfill's run, None for any other run."""
    run = context["dag_run"]
    kind = getattr(run, "run_type", None)
    if str(getattr(kind, "value", kind)) != "backfill":
        return None
    return run.data_interval_start, run.data_interval_end


def is_sensor(context: Mapping[str, Any]) -> bool:
    """Whether the running task is a sensor, which looks again and again for what is not there yet."""
    return callable(getattr(context["task"], "poke", None))


def dag_time_zone(context: Mapping[str, Any]) -> Any:
    """The time zone of the running task's DAG, in which its data intervals begin and end."""
    dag = context.get("dag") or getattr(context["task"], "dag", None)
    return getattr(dag, "timezone", None) or timezone.utc


def allows_runs_at_once(context: Mapping[str, Any]) -> bool:
    """Whether Airflow may run the task for two DAG runs at once."""
    task = context["task"]
    dag = getattr(task, "dag", None)
    is_alone = getattr(dag, "max_active_runs", None) == 1 or getattr(task, "max_active_tis_per_dag", None) == 1
    return not (is_alone or getattr(task, "depends_on_past", False))
