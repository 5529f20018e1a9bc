"""Airflow's own task state store (3.3 and later), through the accessor that a task finds in its context."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from resumable.stores.base import StateStore, SupersededError

OPEN = frozenset({"submitting", "submitted", "making", "made"})
"""States of a value that names something which may still be there: a job, or what `once` made."""


class TaskStateStore:
    """
    ``context["task_state_store"]``.

    Airflow's clean-up (``airflow state-store clean``) takes a value away ``[state_store] default_retention_days`` after it was
    written, 30 by default, and does not ask whether its job still runs. So values in an `OPEN` state are written to stay; they
    go with their DAG run. All others follow the deployment's setting.

    Args:
        accessor: the store in the task's context.
        forever: Airflow's word for a retention without an end (``airflow.sdk.NEVER_EXPIRE``).

    Airflow gives a task instance a new id with every try and every clear, and its server refuses writes under an old id
    (404). So a process that was given up cannot overwrite what its successor wrote. A *read* under an old id looks like
    "no such key": nothing may be submitted on its strength before a write has gone through (the intent is that write).
    """

    fences_writes = True
    outlives_success = True

    def __init__(self, accessor: Any, forever: timedelta) -> None:
        self._accessor, self._forever = accessor, forever

    def get(self, key: str) -> Any:
        return self._accessor.get(key)

    def set(self, key: str, value: Any) -> None:
        is_open = isinstance(value, dict) and value.get("state") in OPEN
        try:
            self._accessor.set(key, value, **({"retention": self._forever} if is_open else {}))
        except Exception as e:
            if _is_not_found(e):
                raise SupersededError(
                    "Airflow no longer knows this try of the task instance: it was cleared, or another try was started. "
                    "This one submits, cancels and writes nothing; the job is left to the other. Nothing needs to be done."
                ) from e
            raise

    def delete(self, key: str) -> None:
        self._accessor.delete(key)


class AfterUpgrade:
    """
    Airflow's task state store, and what an older Airflow, which had none, left in another store for the same task instance.

    What is found there is carried over when it is read: afterwards this Airflow's own store has it, and the other one nothing.
    """

    fences_writes = True
    outlives_success = True

    def __init__(self, store: StateStore, older: StateStore) -> None:
        self._store, self._older = store, older

    def get(self, key: str) -> Any:
        value = self._store.get(key)
        if value is None and (value := self._older.get(key)) is not None:
            self._store.set(key, value)
            self._older.delete(key)
        return value

    def set(self, key: str, value: Any) -> None:
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._older.delete(key)


def _is_not_found(error: Exception) -> bool:
    detail = getattr(getattr(error, "error", None), "detail", None)
    return isinstance(detail, dict) and detail.get("status_code") == 404
