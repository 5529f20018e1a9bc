"""Which class of ours stands for which of the provider's, and how one is put for the other in what a test module holds."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import resumable.operators


def ours_of_theirs() -> dict[type, type]:
    """Every operator of `resumable.operators`, and the workflow group, by the provider's class that it extends."""
    found = {}
    for module in pkgutil.iter_modules(resumable.operators.__path__, "resumable.operators."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and (theirs := _extended(value)):
                found[theirs] = value
    return found


def _extended(ours: type) -> type | None:
    from airflow.sdk import BaseOperator, TaskGroup

    if not issubclass(ours, BaseOperator | TaskGroup) or ours.__name__.startswith("_"):
        return None
    return next((c for c in ours.__mro__ if c.__module__.startswith("airflow.providers.")), None)


def swapped(value: Any, ours: dict[type, type]) -> Any:
    """``value`` with our classes in place of the provider's, in containers as well."""
    if isinstance(value, type):
        return ours.get(value, value)
    if type(value) in (list, tuple, set):
        return type(value)(swapped(item, ours) for item in value)
    if type(value) is dict:
        return {swapped(key, ours): swapped(item, ours) for key, item in value.items()}
    return value
