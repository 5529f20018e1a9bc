"""What an attempt brings along for its checkpoint, whatever was kept by earlier ones; and what tells an edit of its work."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from resumable.identity import Generation
from resumable.policy import ResumePolicy
from resumable.stores.owned import OwnedValue

VERSION = 1
"""Schema version of a checkpoint's records."""

HEADER = 1500
"""Bytes that a kept value needs besides the flags."""


class Objects(Protocol):
    """A place for values that task state is too small for."""

    def put(self, name: str, data: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...


@dataclass(frozen=True)
class Setting:
    """
    What an attempt brings along: who it is, what it works by, where it may write, and how often.

    ``spec`` is a fingerprint of all that the work is done by, ``given`` of what the author gave as ``spec=``, None if the two are
    not told apart. ``policy.on_change`` and ``on_clear`` are None where nobody has chosen: an unfinished checkpoint then goes on,
    a finished one starts over. ``place`` is the item of the checkpoint ``outer`` that the work is inside of, None if it is in
    none, or which one is not known. ``item`` is a fingerprint of what a mapped task was given of its list, None of any other.
    """

    name: str
    generation: Generation
    spec: str
    policy: ResumePolicy
    try_number: int
    value: Callable[[str, str], OwnedValue]
    limit: int
    log: Any
    every: int | None = None
    seconds: float = 10.0
    token: str = ""
    objects: Objects | None = None
    given: str | None = None
    place: str | None = None
    outer: str = ""
    item: str | None = None
    clock: Callable[[], float] = time.time

    @property
    def what(self) -> str:
        """The checkpoint, in words."""
        return f"checkpoint {self.name!r}"

    @property
    def room(self) -> int:
        """Bytes that the flags of the items may take in task state."""
        return self.limit - HEADER


# -- what the work is done by -------------------------------------------------------------------------------------------------


def fingerprint(spec: Any) -> str:
    """
    A short hash of what the author wrote: an edit or another mapped item changes it, the clock does not.

    Take it *before* templates are rendered. Values without a stable text (callables, clients ...) count by their type only.
    """
    text = json.dumps(_canonical(spec), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted((_canonical(v) for v in value), key=repr)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    text = str(value)
    # an XComArg renders to the template that pulls it; a default repr holds an address, which moves with the process
    return text if " at 0x" not in text and "object at" not in text else type(value).__qualname__


def code_text(function: Any) -> str:
    """
    What ``function`` does, as a text that an edit changes, and a new comment, decorator or indent does not; its name where
    neither source nor byte code can be had.

    Functions that it calls are not looked at, nor values that it closes over.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(function, "__code__", None)
        if code is None:
            return str(getattr(function, "__qualname__", type(function).__qualname__))
        return repr((code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, str | int | float | bytes)]))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = []
    return ast.unparse(tree)
