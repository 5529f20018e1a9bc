"""
What this Airflow has, which tells what it can do. No number of a version is compared.

Airflow 2 has no ``airflow.sdk``, Airflow 3 has, and 3.3 brought the task state store. `first_of` finds what has moved from one
module to another; everything else in `resumable.host` stands on these five functions.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, cast


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
