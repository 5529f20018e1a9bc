"""Operators and triggers as classes: their bases, their arguments, what the scheduler takes from them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from resumable import host
from resumable.host import _three, _two
from resumable.host.versions import first_of, has

F = TypeVar("F", bound=Callable[..., Any])


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
