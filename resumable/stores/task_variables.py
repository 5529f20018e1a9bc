"""State of a task that outlives its DAG runs, where no asset can hold it: one Airflow Variable for each key."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from resumable.identity import TaskIdentity
from resumable.stores.base import Variables, read_from
from resumable.stores.variables import unmasked

MAX_NAME = 250
"""Length of a Variable's name in Airflow's database (models/variable.py)."""


DESCRIPTION = "kept by airflow-resumable"
"""What Airflow shows beside such a Variable, and by which it is found again: a name may have been cut."""

_HASH = 20


class TaskVariableStore:
    """
    Airflow Variables, through what a running task may ask for.

    Writes are not fenced: a process that was given up can still write. There is no compare-and-set.

    A name is ``<dag>.<task>.<key>`` where no other task's can be the same, else what a person can read of it and a hash of the
    ids. It does not hang on the place of a mapped task in its list, which another list changes: mapped tasks need keys of their
    own. What an earlier release kept under a place is found there, until something is written.

    Args:
        task: whose state it is; its DAG run and its map index do not count.
        variables: those of the deployment.
    """

    fences_writes = False
    outlives_success = True

    def __init__(self, task: TaskIdentity, variables: Variables) -> None:
        self._task, self._variables = task, variables

    def get(self, key: str) -> Any:
        name = self._named(key)
        text = self._variables.get(name)
        if text is None and self._task.map_index >= 0:
            name = self._named(key, self._task.map_index)
            text = self._variables.get(name)
        with read_from(f"the Variable {name}"):
            return None if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        self._variables.set(self._named(key), json.dumps(value), DESCRIPTION)

    def delete(self, key: str) -> None:
        self._variables.delete(self._named(key))

    def _named(self, key: str, map_index: int = -1) -> str:
        task = self._task
        mapped = [] if map_index == -1 else [str(map_index)]
        plain = ".".join([task.dag_id, task.task_id, *mapped, key])
        name = _fit(plain)
        is_plain = not mapped and "." not in task.dag_id + task.task_id
        if is_plain and name == plain and len(name) <= MAX_NAME:
            return name
        ids = json.dumps([task.namespace, task.dag_id, task.task_id, map_index, key])
        return f"{name[: MAX_NAME - _HASH - 1]}.{hashlib.sha256(ids.encode()).hexdigest()[:_HASH]}"


def is_of_dag(name: str, dag_id: str) -> bool:
    """Whether a Variable with this name may be of a task of the DAG."""
    begin = f"{_fit(dag_id)}."
    return name.startswith(begin[: MAX_NAME - _HASH - 1])


def _fit(text: str) -> str:
    return unmasked(re.sub(r"[^A-Za-z0-9_.-]", "-", text))
