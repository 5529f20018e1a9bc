"""State of a task that outlives its DAG runs, where no asset can hold it: one Airflow Variable for each key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from resumable.stores.base import Variables

MAX_NAME = 250
"""Length of a Variable's name in Airflow's database (models/variable.py)."""


class TaskVariableStore:
    """
    Airflow Variables, through what a running task may ask for.

    Writes are not fenced: a process that was given up can still write. There is no compare-and-set.

    Args:
        prefix: what every name begins with.
        variables: those of the deployment.
    """

    fences_writes = False
    outlives_success = True

    def __init__(self, prefix: str, variables: Variables) -> None:
        self._prefix, self._variables = prefix, variables

    def get(self, key: str) -> Any:
        text = self._variables.get(self._named(key))
        return None if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        self._variables.set(self._named(key), json.dumps(value), "kept by airflow-resumable")

    def delete(self, key: str) -> None:
        self._variables.delete(self._named(key))

    def _named(self, key: str) -> str:
        name = f"{self._prefix}{key}"
        return name if len(name) <= MAX_NAME else name[: MAX_NAME - 33] + "." + hashlib.sha256(name.encode()).hexdigest()[:32]
