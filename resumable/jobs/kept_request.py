"""
The request of a submit, as it is kept until the answer is there: the same token has to go out again with the same request.

It may hold secrets, which are left out and come from the request of the try that repeats it. It may be large, and is packed then.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

MOST_UNPACKED = 16 * 1024 * 1024
"""Bytes that a packed request may unpack to: what is read was perhaps not written by us."""

HOW = "JSON, zlib, base64"

Path = tuple[str | int, ...]


def without_secrets(params: Any, redact: Callable[[Any], Any]) -> tuple[Any, tuple[Path, ...]]:
    """
    The request with "***" for each value that ``redact`` would hide, and the paths of those.

    Raises:
        ValueError: JSON cannot carry it as it is.
    """
    try:
        plain = json.loads(json.dumps(params, allow_nan=False))
    except TypeError as e:
        raise ValueError(str(e)) from e
    if plain != _with_lists(params):
        raise ValueError("JSON changes it")
    omitted: list[Path] = []
    return _kept(plain, redact(copy.deepcopy(plain)), (), omitted), tuple(omitted)


def _with_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_lists(one) for key, one in value.items()}
    return [_with_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _kept(value: Any, shown: Any, path: Path, omitted: list[Path]) -> Any:
    if isinstance(value, dict) and isinstance(shown, dict) and value.keys() == shown.keys():
        return {key: _kept(one, shown[key], (*path, key), omitted) for key, one in value.items()}
    if isinstance(value, list) and isinstance(shown, list | tuple) and len(value) == len(shown):
        return [_kept(one, shown[index], (*path, index), omitted) for index, one in enumerate(value)]
    if value == shown:
        return value
    omitted.append(path)
    return "***"


def filled(kept: Any, omitted: tuple[Path, ...], own: Any) -> Any:
    """
    The kept request, with what was left out as the request of this try has it.

    Raises:
        LookupError: this try's has no such value.
    """
    whole = copy.deepcopy(kept)
    for path in omitted:
        try:
            value = _at(own, path)
            if not path:
                return copy.deepcopy(value)
            _at(whole, path[:-1])[path[-1]] = copy.deepcopy(value)
        except (TypeError, AttributeError) as e:
            raise LookupError(str(path)) from e
    return whole


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def digest(kept: Any) -> str:
    """Tells whether another try's request is the same, without secrets."""
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def packed(kept: Any, omitted: tuple[Path, ...]) -> dict[str, Any]:
    """As it stands in the record."""
    text = base64.b64encode(zlib.compress(json.dumps(kept).encode(), 9)).decode()
    return {"how": HOW, "packed": text, **({"omitted": [list(path) for path in omitted]} if omitted else {})}


def unpacked(data: Mapping[str, Any]) -> tuple[Any, tuple[Path, ...]]:
    """
    The reverse of `packed`.

    Raises:
        ValueError: it is none.
    """
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(base64.b64decode(data["packed"], validate=True), MOST_UNPACKED)
        if not reader.eof:
            raise ValueError("the packed request is cut short, or too large")
        return json.loads(text), tuple(tuple(path) for path in data.get("omitted", ()))
    except (zlib.error, TypeError) as e:
        raise ValueError(f"the packed request cannot be read: {e}") from e
