"""
Codes of values: what a record keeps in the place of a value.

Five characters by literals, "=" or "~" for a literal in it or none, five by value; and five by places, if those differ from the
first.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

DIGEST = 5
CODE = 2 * DIGEST + 1

UNKNOWN = object()
"""The value of a field that cannot be read."""

UNKNOWN_CODE = "?????~?????"

ALL, ALL_NAMED = "*", "its arguments"
"""The name under which one code stands for all of them, and how it is called in a log line."""


def digest(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()).decode()[:DIGEST]


def code_of(by_literals: str, by_places: str, by_value: str, literal: bool) -> str:
    return f"{by_literals}{'=' if literal else '~'}{by_value}{by_places if by_places != by_literals else ''}"


def by_literals(code: str) -> str:
    return code[:DIGEST]


def by_places(code: str) -> str:
    return code[CODE:] or by_literals(code)


def by_value(code: str) -> str:
    return code[DIGEST + 1 : CODE]


def is_edit(one: str, other: str) -> bool:
    return all(part(one) != part(other) for part in (by_literals, by_places, by_value))


def has_literal(code: str) -> bool:
    return code[DIGEST] == "="
