"""What the methods of a class use, as far as it can be read from their code."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import FunctionType
from typing import Any


def names_used(classes: Iterable[type]) -> set[str]:
    """The names that the methods of ``classes`` use, without those of a method that a subclass has replaced."""
    used: set[str] = set()
    replaced: set[str] = set()
    for cls in classes:
        for name, attribute in vars(cls).items():
            code = None if name in replaced else _code_of(attribute)
            if code is not None:
                names = _names_in(code)
                used |= names
                parents = {base.__name__ for base in cls.__mro__[1:]}  # Parent.submit_job(self, ...)
                if "super" not in names and not names & parents:
                    replaced.add(name)
    return used


def reached_from(operator: Any, method: str) -> set[str]:
    """Names that ``method`` uses, and the methods that it calls, as far as they can be read."""
    reached: set[str] = set()
    following = {method}
    while following:
        name = following.pop()
        for cls in (cls for cls in operator.__mro__ if name in vars(cls)):
            code = getattr(inspect.unwrap(vars(cls)[name]), "__code__", None) if callable(vars(cls)[name]) else None
            used = _names_in(code) if code else set()
            following |= used - reached
            reached |= used
            if "super" not in used:
                break
    return reached


def _names_in(code: Any) -> set[str]:
    nested = (c for c in code.co_consts if hasattr(c, "co_names"))
    return set(code.co_names).union(*(_names_in(c) for c in nested))


def _code_of(attribute: Any) -> Any:
    """The code of a function, also where it is a property, a cached one, a static method, or decorated; None if there is none."""
    for inner in ("fget", "func", "__func__"):
        if not isinstance(attribute, FunctionType):
            attribute = getattr(attribute, inner, None) or attribute
    return getattr(inspect.unwrap(attribute), "__code__", None) if callable(attribute) else None
