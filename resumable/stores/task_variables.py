"""State of a task that outlives its DAG runs, where no asset can hold it: one Airflow Variable for each key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

MAX_NAME = 250
"""Length of a Variable's name in Airflow's database (models/variable.py)."""


class TaskVariableStore:
    """
    Airflow Variables, through what a running task may ask for.

    Writes are not fenced: a process that was given up can still write. There is no compare-and-set.

    Args:
        prefix: what every name begins with.
        read: text of a Variable, None only if there is certainly no such Variable.
        write: sets a name to a text.
        remove: deletes a name.
    """

    fences_writes = False
    outlives_success = True

    def __init__(
        self,
        prefix: str,
        read: Callable[[str], str | None],
        write: Callable[[str, str], None],
        remove: Callable[[str], None],
    ) -> None:
        self._prefix, self._read, self._write, self._remove = prefix, read, write, remove

    def get(self, key: str) -> Any:
        text = self._read(self._named(key))
        return None if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        self._write(self._named(key), json.dumps(value))

    def delete(self, key: str) -> None:
        self._remove(self._named(key))

    def _named(self, key: str) -> str:
        name = f"{self._prefix}{key}"
        return name if len(name) <= MAX_NAME else name[: MAX_NAME - 33] + "." + hashlib.sha256(name.encode()).hexdigest()[:32]
