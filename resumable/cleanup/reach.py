"""
By what the sweep reaches the job of a record, and what it may import and call for that.

It runs with more rights than a task has, on what tasks have written: so only modules that are ours, or that the deployment names,
give it operators and functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resumable import host
from resumable.cleanup.ended import shown
from resumable.helpers import import_object
from resumable.jobs.operator import is_durable_class
from resumable.jobs.remote import JobAdapter

OURS = "resumable.operators"
"""The modules whose operators the sweep takes besides those that airflow.cfg names."""


def adapter_of(reach: Mapping[str, Any] | None) -> JobAdapter | None:
    """
    The adapter of the operator that the record names; None if it cannot be imported here, or is of no module that may be.

    A task can write any name into its state, and this process may do more than a task may: so nothing is imported that is neither
    ours nor named by the deployment, and no class is taken that is not that module's own.
    """
    path = reach.get("operator") if isinstance(reach, Mapping) else None
    if reach is None or not isinstance(path, str) or not _is_of(path, (OURS, *_modules("sweep_modules"))):
        return None
    found = import_object(path)
    if not is_durable_class(found) or not _is_its_own(found, path):
        return None
    operator: Any = found
    return operator._resumable.service.of_record(operator, reach)  # type: ignore[no-any-return]


def cleanup_of(path: str) -> Callable[[Any], Any] | None:
    """
    The clean-up that a record of `once` names; None if it cannot be imported here, or is of no module that airflow.cfg names.

    What such a module has imported itself, is none of its own functions.
    """
    if not _is_of(path, _modules("cleanup_modules")):
        return None
    found = import_object(path)
    return found if callable(found) and _is_its_own(found, path) else None


def _modules(setting: str) -> list[str]:
    return [one.strip() for one in (host.setting(setting) or "").split(",") if one.strip()]


def _is_of(path: str, modules: Iterable[str]) -> bool:
    """Whether ``module:name`` is of one of the modules, or of a module inside one that is a package."""
    module = path.partition(":")[0]
    return any(module == one or module.startswith(f"{one}.") for one in modules)


def _is_its_own(found: Any, path: str) -> bool:
    """Whether the module itself defines what was found: `os.system` is found in any module that imports ``os``."""
    return bool(getattr(found, "__module__", None) == path.partition(":")[0])


def why_out_of_reach(reach: Mapping[str, Any] | None) -> str:
    """Why `adapter_of` has none."""
    path = shown(reach.get("operator")) if reach else None
    if path is None:
        return "it has no reach_fields"
    if not _is_of(path, (OURS, *_modules("sweep_modules"))):
        return f"{path} is of no module that [resumable] sweep_modules names"
    return f"{path} is no operator that can be imported here"


def connection_names(reach: Mapping[str, Any] | None) -> list[Any]:
    """The connections that a record names."""
    return [value for name, value in (reach or {}).items() if str(name).endswith("conn_id")]
