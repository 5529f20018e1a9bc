"""
What this Airflow has, which tells what it can do, and where it has it. No number of a version is compared.

Airflow 2 has no ``airflow.sdk``, Airflow 3 has, and 3.3 brought the task state store. `first_of` finds what has moved from one
module to another; everything else in `resumable.host` stands on the first five functions. Then what was moved: operators and
triggers as classes, the secrets masker, the metrics.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from resumable import host
from resumable.host import _three, _two

F = TypeVar("F", bound=Callable[..., Any])

_MAX_DEPTH = 50
"""Levels of a nested value that are masked."""


@cache
def has_sdk() -> bool:
    """Whether this is Airflow 3, where tasks know the Task SDK and not the database."""
    return has("airflow.sdk")


@cache
def has_task_state() -> bool:
    """Whether this Airflow keeps a state store per task instance (3.3 and later)."""
    return has_sdk() and has("airflow.sdk.execution_time.context", "TaskStateStoreAccessor")


def has(module: str, name: str | None = None) -> bool:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name and f"{module}.".startswith(f"{e.name}."):
            return False
        raise
    return name is None or hasattr(found, name)


def first_of(name: str, *modules: str) -> Any:
    """``name`` from the first module that has it: where it moved from version to version."""
    for module in modules:
        if has(module, name):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"this Airflow has no {name} in any of {modules}")


def exception(name: str) -> type[BaseException]:
    return cast("type[BaseException]", first_of(name, "airflow.sdk.exceptions", "airflow.exceptions"))


# -- operators and triggers as classes ----------------------------------------------------------------------------------------


def apply_defaults(init: F) -> F:
    """Make an ``__init__`` outside of the operator's own class known to ``default_args`` and to ``partial()``."""
    meta = first_of("BaseOperatorMeta", "airflow.sdk.bases.operator", "airflow.models.baseoperator")
    return cast("F", meta._apply_defaults(init))


def start_again_in_time(operator: type) -> None:
    """
    Have the scheduler heed the date of a reschedule of tasks of this class.

    From 3.1 on it does anyway (``TaskInstance.get_failed_dep_statuses``). Before, it starts a task that is no sensor again at
    once: a look would follow on the other, and a hand-back could lose the race that `hand_back` speaks of.
    """
    if not host.has_sdk():
        _two.start_again_in_time(operator)
    elif not has("airflow.sdk.timezone"):  # that module came with 3.1
        _three.start_again_in_time(operator)


def base_operator() -> Any:
    return first_of("BaseOperator", "airflow.sdk", "airflow.models")


def base_trigger() -> Any:
    from airflow.triggers.base import BaseTrigger

    return BaseTrigger


def execute_guard(operator: Any) -> dict[str, Any]:
    """What ``execute`` of a provider's class must be given, so as not to warn that a task runner should have called it."""
    return {} if host.has_sdk() else _two.execute_guard(operator)


def durable_by_default(operator: type) -> bool:
    """Whether Airflow's own mixin makes ``operator`` durable where nobody says otherwise: from 3.3 on."""
    mixins = [cls for cls in operator.__mro__ if cls.__name__ == "ResumableJobMixin"]
    return any(inspect.signature(vars(cls)["__init__"]).parameters["durable"].default is True for cls in mixins)


def provider_of(cls: type) -> tuple[str, str]:
    """The provider package that an operator's class comes from, and its version."""
    for klass in cls.__mro__:
        if klass.__module__.startswith("airflow.providers."):
            name = ".".join(klass.__module__.split(".")[:3])
            return name, str(getattr(importlib.import_module(name), "__version__", "of an unknown version"))
    return "its provider", ""


def is_mapped(task: Any) -> bool:
    """Whether a task of a DAG that was parsed is one that ``expand()`` makes task instances of."""
    return hasattr(task, "partial_kwargs")


def map_over(task: Any, operator: type) -> None:
    """Have a mapped task make its task instances of another class of the same arguments."""
    task.operator_class = operator
    if hasattr(type(task), "deps_for"):  # Airflow 2 has taken what the scheduler waits for from the class
        task.deps = type(task).deps_for(operator)


# -- the secrets masker, the metrics ------------------------------------------------------------------------------------------


def _redact() -> Any:
    masker = ("airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    return first_of("redact", "airflow.sdk.log", *masker)


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


def stats() -> Any:
    """Airflow's ``Stats``: ``incr``, ``gauge`` and ``timing``."""
    return first_of("Stats", "airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")


def count(event: str, operator: str) -> None:
    """Add one to Airflow's metric ``resumable_job.<event>``, as Airflow 3.3's own mixin names and tags its own."""
    stats().incr(f"resumable_job.{event}", tags={"operator": operator})
