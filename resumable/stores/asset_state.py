"""State that outlives a DAG run: Airflow's asset state store (3.3 and later), through the accessor in a task's context."""

from __future__ import annotations

from typing import Any

from resumable.errors import StateStoreError, SupersededError
from resumable.stores.slots import Slots


class AssetStateStore:
    """
    ``context["asset_state_store"][asset]``.

    Rows are kept until somebody deletes them, or until no DAG refers to the asset any more. A read of an asset that is not active
    looks like "no such key" (seen on 3.3.2), so no absence may be believed before a write has gone through. The server refuses
    writes of a task instance id that is no longer current (404), and of an asset that is not active (404 as well). Other runs
    write the same keys, and there is no compare-and-set. Where ``[workers] state_store_backend`` puts values elsewhere, see
    `resumable.stores.slots`.
    """

    fences_writes = False
    outlives_success = True

    def __init__(self, accessor: Any) -> None:
        from resumable import host

        self._accessor = accessor
        rows = host.asset_state_rows(accessor)
        self._slots = None if rows is None else Slots(accessor, rows)

    def get(self, key: str) -> Any:
        return self._accessor.get(key) if self._slots is None else self._slots.get(key)

    def set(self, key: str, value: Any) -> None:
        try:
            if self._slots is None:
                self._accessor.set(key, value)
            else:
                self._slots.set(key, value, forever=True)
        except Exception as e:
            message = _not_found(e)
            if message is None:
                raise
            if message.startswith("Task instance"):
                raise SupersededError(
                    "Airflow no longer knows this try of the task instance: it was cleared, or another try was started. The mark "
                    "stays; the other try works on the same interval. Nothing needs to be done."
                ) from e
            raise StateStoreError(
                f"The asset has no state store: {message}. Nothing was read, the mark stays. Airflow knows the asset once "
                "a DAG that names it has been parsed, and not while another asset has the same name or uri."
            ) from e

    def delete(self, key: str) -> None:
        (self._slots or self._accessor).delete(key)


def _not_found(error: Exception) -> str | None:
    """What the server says it does not know, None for any other error."""
    answer = getattr(getattr(error, "error", None), "detail", None)
    if not isinstance(answer, dict) or answer.get("status_code") != 404:
        return None
    body = answer.get("detail")
    said = body.get("detail", body) if isinstance(body, dict) else body
    return str(said.get("message", said) if isinstance(said, dict) else said)
