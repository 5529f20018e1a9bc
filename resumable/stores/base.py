"""The store protocol, and the one way in which records go through it: retried, and never over another attempt's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from tenacity import RetryError, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from resumable.errors import DamagedRecordError, RefusedError, StateStoreError, SupersededError
from resumable.identity import TaskIdentity
from resumable.jobs.record import KEY, JobRecord

T = TypeVar("T")

STORE_TRIES = 6
"""Tries of one store operation. With the waits between them about 20 s; Airflow's own client retries inside each."""


class DamagedValueError(ValueError):
    """What is kept under a key is nothing that this library wrote, or only a part of it: to ask again is of no use."""


@contextmanager
def read_from(what: str) -> Iterator[None]:
    """While it is open, a text that is no JSON raises `DamagedValueError` with ``what``, where it stands."""
    try:
        yield
    except (ValueError, RecursionError) as e:
        raise DamagedValueError(f"{what} cannot be read ({e})") from e


class StateStore(Protocol):
    """
    Task state of one task instance: JSON values under string keys, kept across retries.

    Every method may be called twice with the same arguments and may raise anything; "there is no value" is told by
    ``get`` returning None and by nothing else: never return None because the store could not be asked. `DamagedValueError` says
    that there is something which is no value; it is not asked for again, as it is after any other error. A value that was set
    is there for the next process that asks, wherever it runs. A store of your own (``[resumable] store``) is a class that is
    called with the `TaskIdentity`, in the task's process. If it has settings, a ``check_settings()`` of the class is called
    in each process that parses DAGs, before its first durable task, and raises `ConfigurationError` on bad ones.
    """

    fences_writes: bool
    """True if ``set`` itself fails with `SupersededError` once another attempt has taken over the task instance."""

    outlives_success: bool
    """True if values may be left behind when the task has succeeded, because something else cleans them up. Without it: False."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...


MOST_NESTED = 100
"""Levels of lists and objects that a value may have; Airflow 3.3 takes less than 199 (seen)."""

INTEGERS = range(-(2**63), 2**64)
"""Whole numbers that a value may have: a task speaks to Airflow 3 in msgpack, which knows no others."""


def json_text(value: Any) -> str:
    """
    The JSON text of a value that every store takes and gives back as it was.

    Raises:
        ValueError: none can carry it, or one cannot: NaN, a key that is no text, a whole number of more than 64 bits, half a
            character of two (as in the name of a file that is not UTF-8), a hundred levels.
    """
    try:
        text = json.dumps(value, allow_nan=False)
        read = json.loads(text)
        if read != value:
            raise ValueError("it comes back from JSON as another value")
        _check_parts(read, MOST_NESTED)
    except (TypeError, RecursionError) as e:
        raise ValueError(str(e)) from e
    return text


def _check_parts(value: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"it has more than {MOST_NESTED} levels")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, int) and not isinstance(value, bool) and value not in INTEGERS:
        raise ValueError(f"{value} has more than 64 bits")
    elif isinstance(value, list):
        for one in value:
            _check_parts(one, levels - 1)
    elif isinstance(value, dict):
        for name, one in value.items():
            name.encode()
            _check_parts(one, levels - 1)


def outlives_success(store: StateStore) -> bool:
    """Whether values may be left behind when the task has succeeded: only if the store says that something cleans them up."""
    return bool(getattr(store, "outlives_success", False))


StoreFactory = Callable[[TaskIdentity], StateStore]
"""What ``[resumable] store`` names."""


class Variables(Protocol):
    """
    Named texts of the deployment. ``get`` answers None only if there is certainly no such name; ``delete`` may find none.

    One that can be listed has ``names(prefix)`` as well: all names that begin so, None if that cannot be told for certain.
    """

    def get(self, name: str) -> str | None: ...

    def set(self, name: str, text: str, description: str) -> None: ...

    def delete(self, name: str) -> None: ...


class RecordStore:
    """Reads and writes the record of one task instance through a `StateStore`."""

    def __init__(self, store: StateStore, *, sleep: Callable[[float], None] | None = None) -> None:
        self._store = store
        self._sleep = sleep or time.sleep
        self._seen_owner: str | None = None

    def load(self) -> JobRecord | None:
        """
        The record, or None if there is none.

        Raises:
            StateStoreError: the store did not answer.
            RecordError: what it holds cannot be read, or a newer release wrote it.
        """
        data = self._retried("read", lambda: self._store.get(KEY))
        record = None if data is None else JobRecord.from_json(data)
        self._seen_owner = record.owner if record else None
        return record

    def save(self, record: JobRecord, *, tries: int = STORE_TRIES) -> None:
        """
        Write the record, unless another attempt has written since this one read or wrote last.

        Raises:
            StateStoreError: the store did not take it.
            SupersededError: another attempt owns the record.
        """

        def write() -> None:
            if not getattr(self._store, "fences_writes", False):
                self._check_owner(record)
            self._store.set(KEY, record.to_json())

        self._retried("written", write, tries)
        self._seen_owner = record.owner

    @property
    def outlives_success(self) -> bool:
        """Whether the record may be left behind when the task has succeeded."""
        return outlives_success(self._store)

    @property
    def was_carried_over(self) -> bool:
        """Whether `load` found the record where an older Airflow kept it."""
        return KEY in getattr(self._store, "carried_over", ())

    def forget(self) -> None:
        """
        Delete the record of a task that has succeeded.

        Raises:
            StateStoreError: the store did not do it.
        """
        self._retried("deleted", lambda: self._store.delete(KEY), 2)

    def _check_owner(self, record: JobRecord) -> None:
        data = self._store.get(KEY)
        owner = data.get("owner") if isinstance(data, dict) else None
        if owner not in (self._seen_owner, record.owner):
            raise SupersededError(
                f"Another attempt ({owner}) owns the record of this task instance; this one ({record.owner}) is out of date. "
                "It submits, cancels and writes nothing; the job is left to the other attempt. Nothing needs to be done."
            )

    def _retried(self, what: str, call: Callable[[], T], tries: int = STORE_TRIES) -> T:
        outcome = "Nothing was submitted because of it, and a job that runs is left running."
        return retried(call, f"The task state could not be {what}", outcome, tries=tries, sleep=self._sleep)


def retried(
    call: Callable[[], T], failure: str, outcome: str, *, tries: int = STORE_TRIES, sleep: Callable[[float], None] | None = None
) -> T:
    """
    What a store operation returns, after as many tries as it needs.

    Args:
        call: the operation.
        failure: what to say if no try works.
        outcome: what that means for the task's work.
        tries: how many.
        sleep: waits between them; ``time.sleep`` by default.

    Raises:
        StateStoreError: none of the tries worked. SupersededError, RefusedError: at once, if ``call`` does.
        DamagedRecordError: at once, if ``call`` raises `DamagedValueError`.
    """
    at_once = (SupersededError, RefusedError, DamagedValueError)
    try:
        return Retrying(
            stop=stop_after_attempt(tries),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            retry=retry_if_exception(lambda e: isinstance(e, Exception) and not isinstance(e, at_once)),
            sleep=sleep or time.sleep,
        )(call)
    except DamagedValueError as e:
        raise DamagedRecordError(
            f"{failure}: {e}. {outcome} Mend it, for example from a backup. To start over, look for what it may have named, and "
            "delete it."
        ) from e
    except RetryError as e:
        cause = e.last_attempt.exception()
        raise StateStoreError(
            f"{failure} in {tries} tries ({type(cause).__name__}: {cause}). {outcome} Check the API server.",
            next_try="goes on",
        ) from cause
