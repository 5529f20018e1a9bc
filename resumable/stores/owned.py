"""One value of a task's state that belongs to the attempt which wrote last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resumable.errors import RecordError, SupersededError
from resumable.stores.base import STORE_TRIES, StateStore, retried


class OwnedValue:
    """
    A versioned JSON object under one key of a `StateStore`, read and written with retries, never over another attempt's.

    Args:
        store: the running task's.
        key: the key.
        what: what the value is, for messages: "checkpoint 'files'".
        owner: this attempt.
        version: the schema version that is written; every older one is read, a newer one refused.
    """

    def __init__(
        self,
        store: StateStore,
        key: str,
        what: str,
        *,
        owner: str,
        version: int = 1,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.key, self.what, self.owner, self.version = key, what, owner, version
        self._store, self._sleep = store, sleep
        self._seen_owner: str | None = None

    def load(self) -> dict[str, Any] | None:
        """
        The value, None if there is none.

        Raises:
            StateStoreError: the store did not answer.
            RecordError: the value is no object of ours, or a newer release wrote it.
        """
        data = self._retried("read", lambda: self._store.get(self.key))
        if data is None:
            return None
        version = data.get("version") if isinstance(data, Mapping) else None
        if type(version) is not int or version < 1:
            raise self.unreadable("it has no version", data)
        if version > self.version:
            raise RecordError(
                f"The state of {self.what} has version {version}, this airflow-resumable reads up to {self.version}: a newer "
                "release wrote it. Nothing was done. Upgrade airflow-resumable on this worker, or delete the task state key "
                f"{self.key!r} of this task instance to start over."
            )
        self._seen_owner = data.get("owner")
        return dict(data)

    def save(self, data: Mapping[str, Any], *, tries: int = STORE_TRIES, whoevers: bool = False) -> None:
        """
        Write the value, unless another attempt has written since this one read or wrote last.

        Args:
            data: the value.
            tries: how many.
            whoevers: write over another attempt's as well: its value is the same.

        Raises:
            StateStoreError: the store did not take it.
            SupersededError: the value is another attempt's by now.
        """
        value = {"version": self.version, **data, "owner": self.owner}

        def write() -> None:
            if not whoevers:
                self._check_owner()
            self._store.set(self.key, value)

        self._retried("written", write, tries)
        self._seen_owner = self.owner

    def check_owner(self) -> None:
        """
        Ask whether the value is this attempt's still, before what only the owner may do besides writing it.

        Raises:
            StateStoreError: the store did not answer.
            SupersededError: the value is another attempt's by now.
        """
        self._retried("read", self._check_owner)

    def delete(self) -> None:
        """Delete the value; there may be none."""
        self._retried("deleted", lambda: self._store.delete(self.key))

    def unreadable(self, why: str, data: Any) -> RecordError:
        """The error to raise for a value that is not what it should be."""
        text = repr(data)
        return RecordError(
            f"The state of {self.what} cannot be read ({why}). Nothing was done. Delete the task state key {self.key!r} of "
            f"this task instance to start over. It holds: {text if len(text) <= 500 else text[:500] + ' …'}"
        )

    def _check_owner(self) -> None:
        if getattr(self._store, "fences_writes", False):
            return  # it refuses what a given-up attempt writes or deletes
        data = self._store.get(self.key)
        owner = data.get("owner") if isinstance(data, Mapping) else None
        if owner not in (self._seen_owner, self.owner):
            raise SupersededError(
                f"Another attempt ({owner}) has taken over {self.what}; this one ({self.owner}) is out of date and writes "
                "nothing. Nothing needs to be done."
            )

    def _retried(self, verb: str, call: Callable[[], Any], tries: int = STORE_TRIES) -> Any:
        failure = f"The state of {self.what} could not be {verb}"
        return retried(call, failure, "What was written before stays.", tries=tries, sleep=self._sleep)
