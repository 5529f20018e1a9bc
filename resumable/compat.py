"""The only module that knows Airflow's versions: what a task may see and do, under one name each.

3.3 brought the task state store; ``airflow.sdk`` has all that is needed there. Imports are inside the functions, because
importing `resumable` must not import Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from resumable.errors import ConfigurationError, ResumableError
from resumable.identity import Generation, TaskIdentity
from resumable.policy import SETTINGS
from resumable.stores.base import StateStore

F = TypeVar("F", bound=Callable[..., Any])

SECTION = "resumable"

_MAX_DEPTH = 50

MAX_VALUE_BYTES = 65535

HAND_BACK_FLOOR = 10.0
"""Seconds below which a hand-back is never set, whatever airflow.cfg says."""


def apply_defaults(init: F) -> F:
    """Make an ``__init__`` outside of the operator's own class known to ``default_args`` and to ``partial()``."""
    from airflow.sdk.bases.operator import BaseOperatorMeta

    decorated: F = BaseOperatorMeta._apply_defaults(init)
    return decorated


def base_operator() -> Any:
    from airflow.sdk import BaseOperator

    return BaseOperator


def configured_policy() -> dict[str, str | None]:
    """The ``[resumable]`` settings of a policy; None where airflow.cfg says nothing."""
    return {name: setting(name) for name in SETTINGS}


def setting(name: str) -> str | None:
    """One ``[resumable]`` option of airflow.cfg or its environment variable."""
    from airflow.sdk.configuration import conf

    value = conf.get(SECTION, name, fallback=None)
    return value or None


def require_store() -> None:
    """
    Fail while the DAG is parsed, where no durable store can be had.

    Raises:
        ConfigurationError: this Airflow has no task state store.
    """
    from airflow import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    if (major, minor) < (3, 3):
        raise ConfigurationError(
            f"durable=True needs a durable store, and Airflow {__version__} has no task state store (3.3 and later do). Nothing "
            "was submitted. Upgrade Airflow, or give durable=False to run exactly the provider's operator."
        )


def state_store(context: Mapping[str, Any]) -> StateStore:
    """
    The store of the running task instance.

    Raises:
        ConfigurationError: the context has none, so nothing that is submitted could be found again.
    """
    from resumable.stores.task_state import TaskStateStore

    accessor = context.get("task_state_store")
    if accessor is None:
        raise ConfigurationError(
            "durable=True needs context['task_state_store'], which this context does not have. Nothing was submitted. Run the "
            "task through Airflow (dag.test() will do), or give durable=False."
        )
    return TaskStateStore(accessor)


def task_identity(context: Mapping[str, Any]) -> TaskIdentity:
    ti = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    return TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, index, setting("namespace") or "")


def generation(context: Mapping[str, Any]) -> Generation:
    run = context["dag_run"]
    started = run.start_date
    return Generation(
        max_tries=context["ti"].max_tries,
        clear_number=getattr(run, "clear_number", None),
        run_started=started.isoformat() if started else None,
    )


def is_last_try(context: Mapping[str, Any]) -> bool:
    ti = context["ti"]
    return bool(ti.try_number > ti.max_tries)


def own_state(context: Mapping[str, Any]) -> str | None:
    """
    The state that Airflow has for the running task instance now, None if it has none.

    Never call it in a signal handler: on 3.2 and later that deadlocks when the signal interrupted another request.
    """
    return _state_of(context["ti"])


def _state_of(ti: Any) -> str | None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    ask = getattr(ti, "get_task_states", RuntimeTaskInstance.get_task_states)
    states = ask(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=None if ti.map_index in (None, -1) else ti.map_index,
    )
    found = (states or {}).get(ti.run_id) or {}
    state = next(iter(found.values()), None)
    return None if state is None else str(getattr(state, "value", state))


async def was_cleared(ti: Any) -> bool:
    """Whether the deferred task instance of a cancelled trigger was cleared, and not marked; asked in the triggerer."""
    from asgiref.sync import sync_to_async

    state = await sync_to_async(_state_of)(ti)
    return state not in ("failed", "success", "skipped", "removed")


def request_lock() -> AbstractContextManager[Any]:
    """The lock that is held while a request to the supervisor is in flight (Airflow 3.2 and later)."""
    from airflow.sdk.execution_time import task_runner

    lock = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_thread_lock", None)
    return nullcontext() if lock is None else lock


def hand_back_seconds() -> float:
    """How far ahead a hand-back puts the next start: ``[resumable] hand_back_seconds``, 60 by default."""
    given = setting("hand_back_seconds")
    try:
        return max(HAND_BACK_FLOOR, float(given or 60))
    except ValueError:
        raise ConfigurationError(f"airflow.cfg [resumable]: hand_back_seconds={given!r} is not a number of seconds") from None


def is_final(error: BaseException) -> bool:
    """Exceptions by which a task says that no other try is wanted."""
    from airflow.sdk import exceptions

    return isinstance(error, exceptions.AirflowFailException | exceptions.AirflowSkipException)


def is_hand_back(error: BaseException) -> bool:
    from airflow.sdk import exceptions

    return isinstance(error, exceptions.AirflowRescheduleException)


def hand_back(seconds: float) -> BaseException:
    """
    What to raise for the task to be started again without using up a try.

    A reschedule is legal for every operator. A date that is too near loses a race: the end of this process is then taken for the
    end of the next one (seen with 2 s on 3.0 to 3.3).
    """
    from airflow.sdk.exceptions import AirflowRescheduleException
    from airflow.sdk.timezone import utcnow

    exception: BaseException = AirflowRescheduleException(utcnow() + timedelta(seconds=seconds))
    return exception


def task_timeout() -> type[BaseException]:
    from airflow.sdk import exceptions

    timeout: type[BaseException] = exceptions.AirflowTaskTimeout
    return timeout


def holds_secret(value: Any) -> bool:
    """Whether Airflow's secrets masker would hide anything in ``value``."""
    from airflow.sdk.log import redact

    text = json.dumps(value, default=str)
    return bool(redact(value, max_depth=_MAX_DEPTH) != value or redact(text) != text)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn our errors that no other try can mend into Airflow's `AirflowFailException`, so that no try is wasted on them."""
    try:
        yield
    except ResumableError as e:
        if e.retryable:
            raise
        from airflow.sdk.exceptions import AirflowFailException

        raise AirflowFailException(str(e)) from e


def current_context() -> Mapping[str, Any]:
    """The context of the task that this process runs."""
    from airflow.sdk import get_current_context

    context: Mapping[str, Any] = get_current_context()
    return context


def at_end(task: Any, callback: Callable[[bool], Any]) -> None:
    """
    Have ``callback(succeeded)`` called by this process when ``task`` ends for good: success, skip, or a failure without a retry.

    It finds the task's context as the task did; Airflow's own callbacks do not.
    """
    from airflow.sdk.execution_time.context import set_current_context

    def call(context: Any, succeeded: bool) -> None:
        with set_current_context(context):
            callback(succeeded)

    for kind in ("on_success_callback", "on_failure_callback", "on_skipped_callback"):
        present = getattr(task, kind, None) or ()
        callbacks = [present] if callable(present) else list(present)
        succeeded = kind == "on_success_callback"
        setattr(task, kind, [*callbacks, partial(call, succeeded=succeeded)])


def value_limit() -> int:
    """Bytes of JSON that one value of task state may have: 65535 unless airflow.cfg says otherwise."""
    from airflow.sdk.configuration import conf

    limit = conf.getint("state_store", "max_value_storage_bytes", fallback=MAX_VALUE_BYTES)
    return limit if limit > 0 else MAX_VALUE_BYTES


def object_storage_path() -> Any:
    """The class of paths in object storage, or on a file system that all workers share."""
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath


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

    ti = context["ti"]
    mapped = "" if ti.map_index in (None, -1) else f".{ti.map_index}"
    return TaskVariableStore(f"{ti.dag_id}.{ti.task_id}{mapped}.", _read_variable, _write_variable, _delete_variable)


# Not Airflow's own Variable: its get answers "no such Variable" also when the server could not be asked, and its set only logs
# that it failed (3.1 and later).


def _read_variable(name: str) -> str | None:
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import GetVariable

    answer = _ask_supervisor(GetVariable(key=name), ErrorType.VARIABLE_NOT_FOUND)
    value: str | None = None if answer is None else answer.value
    return value


def _write_variable(name: str, text: str) -> None:
    from airflow.sdk.execution_time.comms import PutVariable

    _ask_supervisor(PutVariable(key=name, value=text, description="kept by airflow-resumable"))


def _delete_variable(name: str) -> None:
    from airflow.sdk.execution_time.comms import DeleteVariable

    _ask_supervisor(DeleteVariable(key=name))


def _ask_supervisor(message: Any, absent: Any = None) -> Any:
    """The answer; None if it is the error ``absent``."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse

    answer = task_runner.SUPERVISOR_COMMS.send(message)
    if isinstance(answer, ErrorResponse):
        if absent is not None and answer.error == absent:
            return None
        raise AirflowRuntimeError(answer)
    return answer


def succeeded(context: Mapping[str, Any], tasks: Iterable[TaskIdentity]) -> set[TaskIdentity]:
    """Those of ``tasks``, of any DAG run, that Airflow has in state success now. A run that was deleted has no state."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    ask = getattr(context["ti"], "get_task_states", RuntimeTaskInstance.get_task_states)
    found = set()
    for task in tasks:
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


def allows_runs_at_once(context: Mapping[str, Any]) -> bool:
    """Whether Airflow may run the task for two DAG runs at once."""
    task = context["task"]
    dag = getattr(task, "dag", None)
    is_alone = getattr(dag, "max_active_runs", None) == 1 or getattr(task, "max_active_tis_per_dag", None) == 1
    return not (is_alone or getattr(task, "depends_on_past", False))
