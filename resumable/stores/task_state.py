"""
Airflow's own state stores (3.3 and later), through the accessors that a task finds in its context: the state of a task, and that
of an asset, which outlives a DAG run.
"""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from typing import Any

from resumable.errors import RefusedError, StateStoreError, SupersededError
from resumable.identity import Generation, Relation
from resumable.jobs.record import KEY
from resumable.stores.base import StateStore
from resumable.stores.slots import Slots

_log = logging.getLogger("resumable")

_ITEMS = re.compile(r"^resumable\.checkpoint\..+\.items\.[0-9a-f]+$")

OPEN = frozenset({"submitting", "submitted", "making", "made"})
"""States of a value that names something which may still be there: a job, or what `once` made."""


def _stays(key: str, value: Any) -> bool:
    """Whether the value is needed however long ago it was written: what it is about goes on, and it is written once only."""
    if not isinstance(value, dict):
        return False
    if value.get("state") == "made" and not value.get("cleanup"):
        return False
    return value.get("state") in OPEN or bool(_ITEMS.search(key))


class TaskStateStore:
    """
    ``context["task_state_store"]``.

    Airflow's clean-up (``airflow state-store clean``) takes a value away ``[state_store] default_retention_days`` after it was
    written, 30 by default, and does not ask whether its job still runs. So values in an `OPEN` state and the lists of items of
    checkpoints are written to stay; they go with their DAG run. All others follow the deployment's setting.

    Args:
        accessor: the store in the task's context.
        forever: Airflow's word for a retention without an end (``airflow.sdk.NEVER_EXPIRE``).

    Airflow gives a task instance a new id with every try and every clear, and its server refuses writes under an old id
    (404). So a process that was given up cannot overwrite what its successor wrote. A *read* under an old id looks like
    "no such key": nothing may be submitted on its strength before a write has gone through (the intent is that write).

    Where ``[workers] state_store_backend`` puts values elsewhere, see `resumable.stores.slots`.
    """

    fences_writes = True
    outlives_success = True

    def __init__(self, accessor: Any, forever: timedelta) -> None:
        from resumable import host

        self._accessor, self._forever = accessor, forever
        rows = host.task_state_rows(accessor)
        self._slots = None if rows is None else Slots(accessor, rows)

    def get(self, key: str) -> Any:
        return self._accessor.get(key) if self._slots is None else self._slots.get(key)

    def set(self, key: str, value: Any) -> None:
        is_open = _stays(key, value)
        how = {"retention": self._forever} if is_open else {}
        try:
            if self._slots is None:
                self._accessor.set(key, value, **how)
            else:
                self._slots.set(key, value, forever=is_open, **how)
        except Exception as e:
            if _not_found(e) is not None:
                raise SupersededError(
                    "Airflow no longer knows this try of the task instance: it was cleared, or another try was started. "
                    "This one submits, cancels and writes nothing; the job is left to the other. Nothing needs to be done."
                ) from e
            raise

    def delete(self, key: str) -> None:
        (self._slots or self._accessor).delete(key)


class AfterUpgrade:
    """
    Airflow's task state store, and what an older Airflow, which had none, left in another store for the same task instance.

    What is found there is carried over when it is read: afterwards this Airflow's own store has it, and the other one nothing.

    Every task may write a Variable under any name, and nothing fences that; task state belongs to the task instance alone. So a
    value is believed only if it is of this very DAG run and of no earlier generation of the task, and never makes a job be
    stopped: it brings no spec that could have changed, and no later try that would own it.

    Args:
        store: this Airflow's.
        older: the other one.
        generation: of the running task; None where it is not known (unit tests), and everything is believed.
        try_number: of the running task.
    """

    fences_writes = True
    outlives_success = True

    def __init__(
        self, store: StateStore, older: StateStore, *, generation: Generation | None = None, try_number: int | None = None
    ) -> None:
        self._store, self._older, self._generation, self._try = store, older, generation, try_number
        self.carried_over: set[str] = set()
        """Keys whose values were found in the other store."""

    def get(self, key: str) -> Any:
        value = self._store.get(key)
        if value is None and (value := self._believed(key)) is not None:
            self._store.set(key, value)
            self._older.delete(key)
            self.carried_over.add(key)
        return value

    def _believed(self, key: str) -> Any:
        try:
            value = self._older.get(key)
        except ValueError as e:  # text that is none of ours; a store that does not answer raises something else
            _log.warning("resumable: what an older Airflow is said to have left for %r is not read: %s", key, e)
            return None
        if value is None or self._generation is None:
            return value
        try:
            return self._of_this_run(key, value, self._generation)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            _log.warning("resumable: a Variable that an older Airflow is said to have left for %r is not believed: %r", key, e)
            return None

    def _of_this_run(self, key: str, value: Any, mine: Generation) -> Any:
        if _ITEMS.search(key):  # a list of items is named by its contents, and the value that names it has a generation
            return value
        theirs = Generation.from_json(value["generation"])
        if theirs.run_started is None or theirs.run_started != mine.run_started:
            raise ValueError(f"it is of a run that was started at {theirs.run_started}, this one at {mine.run_started}")
        if self._try is not None and "try" in value:
            value = {**value, "try": min(int(value["try"]), self._try)}
        if key != KEY:
            if mine.relation_to(theirs) is Relation.CLEARED:
                raise ValueError("the task was cleared since")
            return value
        if mine.relation_to(theirs) is Relation.CLEARED and "closed_at" not in value:
            raise RefusedError(
                f"A Variable that an older Airflow left names {value.get('service')} job {value.get('job')} for this task, which "
                "was cleared since. Nothing was submitted, and the job is left alone: a Variable can be anybody's. Look for the "
                "job, stop it if it runs, delete the Variable, then clear the task again."
            )
        return {name: one for name, one in value.items() if name not in ("spec", "fingerprint")}

    def set(self, key: str, value: Any) -> None:
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        self._store.delete(key)
        self._older.delete(key)


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
