"""Small things that several rooms need, and that know nothing of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_UNSET = object()


@contextmanager
def replaced(obj: Any, **attributes: Any) -> Iterator[None]:
    """While it is open, ``obj`` has other values on itself: attributes of its class and of itself are as before afterwards."""
    own = vars(obj)
    before = {name: own.get(name, _UNSET) for name in attributes}
    own.update(attributes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _UNSET:
                own.pop(name, None)
            else:
                own[name] = value


def is_pair(value: Any) -> bool:
    """Whether it is a sequence of two: a text, a set or an object of JSON may have two parts as well, and is none."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray) and len(value) == 2


def account_of(arn: Any) -> str | None:
    """The account in an ARN (``arn:partition:service:region:account:resource``), None if it has none."""
    parts = str(arn).split(":", 5)
    return parts[4] or None if len(parts) == 6 and parts[0] == "arn" else None
