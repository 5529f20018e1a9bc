"""How failed items and their errors are named in records and logs: by key, short, and without what is secret in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from resumable import host

MAX_LABEL = 100
"""Bytes of JSON that the name of a failed item may have."""

_QUERY = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>?]*)\?[^\s'\"<>]*")
_USER = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s'\"<>/@]*@")

_HIDDEN = "***"
_DEEPEST = 4


def label(key: Any) -> str:
    """The name of the item with this key; of a URL without its query and its user, which may be a signature and a password."""
    text = _short(without_secrets(key if isinstance(key, str) else _said(str, key)))
    while len(json.dumps(text)) > MAX_LABEL:
        text = _short(text, len(text) * 3 // 4)
    return text


def value_text(value: Any) -> str:
    """``repr(value)``, short, without what is secret in it."""
    text = text_of(value)
    for secret in _found_secrets(value):
        text = text.replace(secret, _HIDDEN)
    return _short(without_secrets(text), 200)


def text_of(value: Any) -> str:
    """``repr(value)``; if that raises, which the code of a class may do, its type."""
    return _said(repr, value)


def error_text(error: BaseException, item: Any) -> str:
    """``repr(error)`` without what is secret in ``item``: the values that its names say to be, and the queries of URLs."""
    text = text_of(error)
    for secret in _found_secrets(item):
        text = text.replace(secret, _HIDDEN)
    return without_secrets(text)


def without_secrets(text: str) -> str:
    """``text`` without the queries and users of URLs, and without what Airflow knows to be a secret; UTF-8 can carry it."""
    text = text.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text: Airflow then writes none of it
    return host.redacted(_USER.sub(rf"\1{_HIDDEN}@", _QUERY.sub(r"\1?…", text)))


def _said(how: Callable[[Any], str], value: Any) -> str:
    """``how(value)``; its type alone where its own code for that raises."""
    try:
        return how(value)
    except Exception as e:
        return f"<{type(value).__qualname__}, of which {how.__name__}() raises {type(e).__name__}>"


def _short(text: str, most: int = MAX_LABEL) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _found_secrets(value: Any) -> list[str]:
    return sorted(set(_secrets_of(value, _DEEPEST)), key=len, reverse=True)


def _secrets_of(value: Any, deep: int) -> Iterator[str]:
    if deep == 0:
        return
    named = value if isinstance(value, Mapping) else None if isinstance(value, str | bytes) else getattr(value, "__dict__", None)
    if isinstance(named, Mapping):
        for name, one in named.items():
            if isinstance(one, str | bytes | int) and not isinstance(one, bool):
                text = one.decode(errors="replace") if isinstance(one, bytes) else str(one)
                if len(text) > 2 and host.redacted("x", str(name)) != "x":
                    yield text
            else:
                yield from _secrets_of(one, deep - 1)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _secrets_of(one, deep - 1)
