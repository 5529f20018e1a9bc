"""What an attempt brings along for its checkpoint, whatever was kept by earlier ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from resumable.identity import Generation, fingerprint
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
    none, or which one is not known.
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
    clock: Callable[[], float] = time.time

    @property
    def what(self) -> str:
        """The checkpoint, in words."""
        return f"checkpoint {self.name!r}"

    @property
    def room(self) -> int:
        """Bytes that the flags of the items may take in task state."""
        return self.limit - HEADER


def spec_text(spec: Mapping[str, Any]) -> str:
    """Fingerprint of what the work is done by; see `resumable.identity.fingerprint`."""
    return fingerprint(spec)
