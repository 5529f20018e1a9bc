"""Names by which another process finds a class or a function again."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

_DAG_FILES = ("__main__", "unusual_prefix_")


def import_path(thing: Any) -> str | None:
    """``module:Name`` of a class or function that another process can import; None for one of a DAG file or of a function."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.startswith(_DAG_FILES):
        return None
    return f"{module}:{name}" if _member(sys.modules.get(module), name) is thing else None


def import_object(path: str) -> Any:
    """What `import_path` named; None if it cannot be imported here."""
    module, _, name = path.partition(":")
    try:
        return _member(import_module(module), name)
    except ImportError:
        return None


def _member(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
