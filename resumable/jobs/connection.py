"""
How a job is reached when no process holds its task: what of the operator is kept in the record, and what is read from one.

A task can write anything into its record. So what says where requests go or as whom (a host, a URL, a proxy, a role, a config)
is neither kept nor read: that belongs into the connection, whose name is kept.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from resumable import host
from resumable.importing import import_path

_WHERE_OR_AS_WHOM = re.compile(
    "host|url|endpoint|prox(y|ies)|passw|(^|_)(uri|ssl|tls|certs?|roles?|config|login|user|token|secret|extra)(_|$)|(^|_)verify$",
    re.IGNORECASE,
)
"""In the name of an attribute: where requests go, or as whom."""

_LONGEST = 250
"""Characters of a connection's name in Airflow."""


def path_of_class(cls: type) -> str | None:
    """``module:Class`` of the nearest class that another process can import and use: not one of a DAG file or of a function."""
    for klass in cls.__mro__:
        if hasattr(klass, "_resumable") and not inspect.isabstract(klass) and (path := import_path(klass)):
            return path
    return None


def kept_values(operator: Any, names: Sequence[str]) -> dict[str, Any]:
    """The values of an operator's attributes that may be kept."""
    values = {name: _plain(getattr(operator, name, None)) for name in names}
    return {name: value for name, value in values.items() if _may_be_read(name, value) and not host.holds_secret(value)}


def values_of_record(names: Sequence[str], connection: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a record keeps, the values of attributes that may be read."""
    return {name: connection[name] for name in names if name in connection and _may_be_read(name, connection[name])}


def default_of(operator: Any, name: str) -> Any:
    """What the nearest ``__init__`` that names the argument sets it to, where nobody gives it; None if there is no default."""
    for cls in operator.__mro__:
        parameter = inspect.signature(cls.__init__).parameters.get(name) if "__init__" in vars(cls) else None
        if parameter is not None:
            return None if parameter.default is inspect.Parameter.empty else parameter.default
    return None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _may_be_read(name: str, value: Any) -> bool:
    if _WHERE_OR_AS_WHOM.search(name):
        return False
    if isinstance(value, str):
        return len(value) <= _LONGEST and "://" not in value
    return value is None or isinstance(value, bool | int | float)
