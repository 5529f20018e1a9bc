"""Airflow Variables, for Airflow before 3.3: one per task instance that has a live job, named so that nothing masks it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from resumable.identity import TaskIdentity
from resumable.jobs.record import KEY
from resumable.stores.base import DamagedValueError, Variables, read_from

PREFIX = "resumable."
"""What the name of every Variable of this library begins with."""

GONE = "gone"
"""What a deployment answers about the task instance of a Variable whose DAG run does not exist."""

_PART = 50
"""Characters of each id in a name; Airflow takes 250 in all."""

_MASKED = re.compile(
    "access_key|access_token|api_?key|auth_header|authorization|bearer|connection_string|dsn|keyfile_dict|passphrase|passwd|password"
    "|private_key|prox(?:y|ies)|secret|service_account|service_key|token|webhook_url",
    re.IGNORECASE,
)
"""Words in a name that make Airflow hide the Variable's value: all ``DEFAULT_SENSITIVE_FIELDS``, 2.11 to 3.3 (tested)."""

_HIDDEN, _SHOWN = "token", "stamp"
"""Airflow 3.2 hides what stands under a key ``token`` inside of a Variable, and a person needs it to look for a job in doubt."""


class VariableStore:
    """
    The state of one task instance in Airflow Variables.

    A Variable belongs to one task instance and one key, so mapped tasks never write the same one. Another attempt of the same
    task instance can: Airflow does not stop a process that it has given up from writing. `RecordStore` looks at the owner first.
    """

    fences_writes = False
    outlives_success = False

    def __init__(self, task: TaskIdentity, variables: Variables) -> None:
        self._task, self._variables = task, variables

    def get(self, key: str) -> Any:
        name = name_of(self._task, key)
        text = self._variables.get(name)
        if text is None:
            return None
        with read_from(f"the Variable {name}"):
            task, value = opened(text)
        if _without_region(task) != _without_region(self._task.ids):
            raise DamagedValueError(f"the Variable {name} is about {task}, not about {self._task}")
        return value

    def set(self, key: str, value: Any) -> None:
        text = json.dumps({"task": self._task.ids, "value": _renamed(value, _HIDDEN, _SHOWN)})
        self._variables.set(name_of(self._task, key), text, f"airflow-resumable: the job of {self._task}")

    def delete(self, key: str) -> None:
        self._variables.delete(name_of(self._task, key))


class ListedVariableStore(VariableStore):
    """One that nobody adds to: where Variables can be listed, one question tells which keys there are."""

    _names: tuple[set[str] | None] | None = None

    def get(self, key: str) -> Any:
        return super().get(key) if self._may_have(key) else None

    def delete(self, key: str) -> None:
        if self._may_have(key):
            super().delete(key)

    def _may_have(self, key: str) -> bool:
        if self._names is None:
            ask = getattr(self._variables, "names", None)
            self._names = (None if ask is None else ask(_prefix(self._task)),)
        names = self._names[0]
        return names is None or name_of(self._task, key) in names


def name_of(task: TaskIdentity, key: str = KEY) -> str:
    """
    The name of the Variable: what a person can read of the ids, and a hash of the ids as they are.

    Letters, digits, ``_``, ``-`` and ``.`` only, because Airflow 3.0 puts it into a URL as it is; under 250 characters.
    """
    digest = hashlib.sha256(json.dumps([*_without_region(task.ids).values(), key]).encode()).hexdigest()[:20]
    more = "" if key == KEY else "." + re.sub(r"[^A-Za-z0-9_-]", "-", key)[:20]
    return unmasked(f"{_readable(task)}{more}") + f".{digest}"


def _prefix(task: TaskIdentity) -> str:
    """What the names of all Variables of the task instance begin with: no word that is masked goes over a dot."""
    return unmasked(_readable(task)) + "."


def _readable(task: TaskIdentity) -> str:
    mapped = [str(task.map_index)] if task.map_index >= 0 else []
    looped = [f"loop{task.iteration}"] if task.is_in_loop else []
    parts = [task.dag_id, task.task_id, *looped, *mapped, task.run_id]
    return PREFIX + ".".join(re.sub(r"[^A-Za-z0-9_.-]", "-", part)[:_PART] for part in parts)


def opened(text: str) -> tuple[Mapping[str, Any], Any]:
    """
    The ids and the value that a Variable holds.

    Raises:
        ValueError: this library did not write it.
    """
    data = json.loads(text)
    task = data.get("task") if isinstance(data, dict) else None
    if not isinstance(task, dict) or "value" not in data or {*task} not in _KNOWN or not isinstance(task["map_index"], int):
        raise ValueError("not a Variable of airflow-resumable")
    return task, _renamed(data["value"], _SHOWN, _HIDDEN)


def with_value(text: str, value: Mapping[str, Any]) -> str:
    """The text of a Variable of this library with another value in it."""
    return json.dumps({**json.loads(text), "value": _renamed(value, _HIDDEN, _SHOWN)})


def _renamed(value: Any, old: str, new: str) -> Any:
    if not isinstance(value, Mapping) or old not in value or new in value:
        return value
    return {new if name == old else name: one for name, one in value.items()}


_KNOWN = ({*TaskIdentity("", "", "").ids}, {*TaskIdentity("", "", "", iteration=0).ids})


def _without_region(ids: Mapping[str, Any]) -> dict[str, Any]:
    """What names the Variable: a clear that has part of a loop made anew must still find the job of before."""
    return {name: value for name, value in ids.items() if name != "region"}


def unmasked(name: str) -> str:
    """``name`` with a dash in each word that would make Airflow hide the Variable's value."""
    while found := _MASKED.search(name):
        name = f"{name[: found.start() + 1]}-{name[found.start() + 1 :]}"
    return name
