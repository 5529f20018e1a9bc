"""State of a task that outlives its DAG runs, where no asset can hold it: one Airflow Variable for each key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from resumable.identity import TaskIdentity
from resumable.stores.base import Variables
from resumable.stores.variables import unmasked

MAX_NAME = 250
"""Length of a Variable's name in Airflow's database (models/variable.py)."""


class TaskVariableStore:
    """
    Airflow Variables, through what a running task may ask for.

    Writes are not fenced: a process that was given up can still write. There is no compare-and-set.

    Args:
        prefix: what every name begins with: `prefix_of` the task.
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


def prefix_of(task: TaskIdentity) -> str:
    """
    ``dag_id.task_id.`` and the map index if there is one: what a person looks for in the list of Variables.

    With a hash of the ids where another task's could read the same (a dot in the DAG's id, a number at the end of the task's), or
    where a word in it would make Airflow hide the value.
    """
    plain = f"{task.dag_id}.{task.task_id}." + (f"{task.map_index}." if task.map_index >= 0 else "")
    shown = unmasked(plain)
    if shown == plain and "." not in task.dag_id and not task.task_id.rpartition(".")[2].isdigit():
        return plain
    ids = [task.dag_id, task.task_id, task.map_index]
    return f"{shown}{hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:12]}."
