"""Airflow's own task state store (3.3 and later), through the accessor that a task finds in its context."""

from __future__ import annotations

from typing import Any

from resumable.stores.base import SupersededError


class TaskStateStore:
    """
    ``context["task_state_store"]``.

    Airflow gives a task instance a new id with every try and every clear, and its server refuses writes under an old id
    (404). So a process that was given up cannot overwrite what its successor wrote. A *read* under an old id looks like
    "no such key": nothing may be submitted on its strength before a write has gone through (the intent is that write).
    """

    fences_writes = True

    def __init__(self, accessor: Any) -> None:
        self._accessor = accessor

    def get(self, key: str) -> Any:
        return self._accessor.get(key)

    def set(self, key: str, value: Any) -> None:
        try:
            self._accessor.set(key, value)
        except Exception as e:
            if _is_not_found(e):
                raise SupersededError(
                    "Airflow no longer knows this try of the task instance: it was cleared, or another try was started. "
                    "This one submits, cancels and writes nothing; the job is left to the other. Nothing needs to be done."
                ) from e
            raise

    def delete(self, key: str) -> None:
        self._accessor.delete(key)


def _is_not_found(error: Exception) -> bool:
    detail = getattr(getattr(error, "error", None), "detail", None)
    return isinstance(detail, dict) and detail.get("status_code") == 404
