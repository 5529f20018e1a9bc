"""The only module that knows Airflow's versions: what a task may see and do, under one name each.

3.3 brought the task state store; ``airflow.sdk`` has all that is needed there. Imports are inside the functions, because
importing `resumable` must not import Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

from resumable.errors import ConfigurationError, ResumableError
from resumable.identity import Generation, TaskIdentity
from resumable.policy import SETTINGS
from resumable.stores.base import StateStore

F = TypeVar("F", bound=Callable[..., Any])

SECTION = "resumable"

_MAX_DEPTH = 50

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


def base_trigger() -> Any:
    from airflow.triggers.base import BaseTrigger

    return BaseTrigger


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
