"""Whether something is what a test expects, with our token in it and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from resumable.identity import TaskIdentity

SHORTEST = 12
"""Digits of a token that the shortest of our names has in it."""

tokens: set[str] = set()
"""Those of the test that runs."""


@contextmanager
def tokens_noted() -> Iterator[None]:
    token = TaskIdentity.token

    def noted(self: TaskIdentity, *args: Any) -> str:
        made = token(self, *args)
        tokens.add(made)
        return made

    tokens.clear()
    TaskIdentity.token = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        TaskIdentity.token = token  # type: ignore[method-assign]


def only_stamped(own: Any, sent: Any) -> bool:
    """Whether ``sent`` is ``own`` but for what holds a token: an entry more, or another text."""
    if isinstance(own, dict) and isinstance(sent, dict):
        return own.keys() <= sent.keys() and all(
            only_stamped(own[key], sent[key]) if key in own else is_stamped(sent[key]) for key in sent
        )
    if isinstance(own, list | tuple) and isinstance(sent, list | tuple):
        kept = list(sent) if len(sent) == len(own) else [item for item in sent if not is_stamped(item)]
        return len(kept) == len(own) and all(map(only_stamped, own, kept))
    return bool(own == sent) or is_stamped(sent)


def is_stamped(value: Any) -> bool:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return any(token[:SHORTEST] in text for token in tokens)
