"""Values of Airflow's state stores that ``[workers] state_store_backend`` (3.3 and later) puts outside of Airflow."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any, Protocol

POINTER = "resumable_slot"
"""In the row of a key: the key under which its value is kept at present."""

REFERENCE = "__airflow_state_ref__"
"""The key of what Airflow keeps of a value that ``[workers] state_store_backend`` has put elsewhere."""


class LostValueError(Exception):
    """Airflow has a row for a key, and what it refers to is not there: removed, or a mount that is missing on this worker."""


class Rows(Protocol):
    """What Airflow's server itself keeps under a key, past the backend. A write of a given-up try is refused."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any, *, forever: bool) -> None: ...


class Slots:
    """
    Every write has an object of its own, which nothing overwrites, and the server's row names the one that counts.

    Airflow writes the object first, under a name that all tries share, and asks the server afterwards whether the try is still
    the current one: so a try that was given up would overwrite what its successor wrote, and only then be refused. Its own row
    names no try either, and where the object behind it is gone it reads as "no such key" (seen on 3.3.2).

    Args:
        accessor: Airflow's, of a task or of an asset.
        rows: the server's rows of the same.
    """

    def __init__(self, accessor: Any, rows: Rows) -> None:
        self._accessor, self._rows = accessor, rows
        self._slots: dict[str, str] = {}

    def get(self, key: str) -> Any:
        """
        The value; None if there is no row.

        Raises:
            LostValueError: there is a row, and no value.
        """
        row = self._rows.get(key)
        if not isinstance(row, dict) or not {POINTER, REFERENCE} & row.keys():
            return row
        slot = row.get(POINTER, key)
        if slot != key:
            self._slots[key] = slot
        missing = object()
        value = self._accessor.get(slot, missing)
        if value is None or value is missing:
            raise LostValueError(
                f"Airflow has a row for the key {key!r}, and [workers] state_store_backend has no value for it. Is its storage "
                "mounted here, does a lifecycle rule delete from it?"
            )
        return value

    def set(self, key: str, value: Any, *, forever: bool, **how: Any) -> None:
        slot = f"{key}.{uuid.uuid4().hex[:12]}"
        self._accessor.set(slot, value, **how)
        self._rows.set(key, {POINTER: slot}, forever=forever)
        self._drop(self._slots.get(key))
        self._slots[key] = slot

    def delete(self, key: str) -> None:
        row = self._rows.get(key)
        self._drop(row.get(POINTER) if isinstance(row, dict) else None)
        self._accessor.delete(key)
        self._slots.pop(key, None)

    def _drop(self, slot: str | None) -> None:
        if slot is not None:
            with suppress(Exception):  # one object too many: no reason to fail a write that has gone through
                self._accessor.delete(slot)
