"""
Where task state is kept, for machines: the library's own stores over Airflow's task state, Variables, or a folder.

What is not ours stands below them as a double: Airflow's accessor with its fence, the deployment's Variables. The folder is one.
Each call passes the attempt that makes it first, which may stop there, or die. Stores are in trouble in the ways that they are:
they do not answer, they answer too late (what was written is written), the folder is not mounted for a moment.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

from resumable import host
from resumable.identity import TaskIdentity
from resumable.stores.base import StateStore
from resumable.stores.object_storage import ObjectStorageStore
from resumable.stores.task_state import TaskStateStore
from resumable.stores.variables import VariableStore

KINDS = ("task state", "Variables", "object storage")
TROUBLES = ("down", "late", "unmounted")
FOREVER = timedelta.max


class Asks(Protocol):
    """Who calls a store: one attempt."""

    standing: AbstractContextManager[Any]
    """Held by each thread of the attempt for as long as what it does must not be cut in two by what happens meanwhile."""

    def before(self, call: str) -> None:
        """The attempt is about to make this call; it may stop here, or die."""

    @property
    def is_known(self) -> bool:
        """Whether Airflow's server still knows the attempt's id of the task instance."""


class RefusedError(Exception):
    """What the server of Airflow 3.3 answers to a try that it has given up."""

    error = SimpleNamespace(detail={"status_code": 404, "detail": {"message": "Task instance not found"}})


class DownError(Exception):
    """A store does not answer."""


@dataclass(frozen=True)
class Kept:
    """A value of Airflow's own store, when it was written, and whether it was to stay."""

    text: str
    stays: bool
    day: int


class Backend:
    """
    What is kept of all task instances of a deployment, however many processes ask.

    Args:
        kind: one of `KINDS`.
        on_write: called with the key and the value of each write that has an effect.
        on_trouble: called with what a call of an attempt meets.
    """

    def __init__(
        self,
        kind: str,
        on_write: Callable[[str, Any], None] = lambda key, value: None,
        on_trouble: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.kind, self.on_write, self.on_trouble = kind, on_write, on_trouble
        self.trouble: list[str] = []
        """What the next calls meet, the first of them last."""
        self.was_troubled = False
        self.troubled: list[Asks] = []
        """Whose calls have met some."""
        self.day = 0
        self.rows: dict[TaskIdentity, dict[str, Kept]] = {}
        self.names: dict[str, str] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if kind == "object storage":
            self._temporary = tempfile.TemporaryDirectory()
            self.folder = Path(self._temporary.name) / "state"
            self.folder.mkdir()

    @property
    def fences(self) -> bool:
        return self.kind == "task state"

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def store(self, task: TaskIdentity, asks: Asks) -> StateStore:
        """The store of one attempt."""
        inner: Any
        if self.kind == "task state":
            inner = TaskStateStore(_Accessor(self, self.rows.setdefault(task, {}), asks), FOREVER)
        elif self.kind == "Variables":
            inner = VariableStore(task, _Names(self.names))
        else:
            with mock.patch.object(host, "setting", lambda name: self.folder.as_uri() if name == "store_path" else None):
                inner = ObjectStorageStore(task)
        return _Asked(self, inner, asks)

    def kept(self, task: TaskIdentity, key: str) -> Any:
        """What stands under a key, as it is."""
        with mock.patch.object(self, "trouble", []):
            return self.store(task, _Nobody()).get(key)

    def text(self) -> str:
        """All that is kept."""
        if self.kind == "task state":
            return json.dumps([[kept.text for kept in rows.values()] for rows in self.rows.values()])
        if self.kind == "Variables":
            return json.dumps(self.names)
        return "\n".join(path.read_text() for path in self.folder.rglob("*.json"))

    def clean_old(self) -> None:
        """``airflow state-store clean``: what was not written to stay, and was written before this `day`, is taken away."""
        for rows in self.rows.values():
            for key in [key for key, kept in rows.items() if not kept.stays and kept.day < self.day]:
                del rows[key]

    def has_troubled(self, asks: Asks) -> bool:
        return any(one is asks for one in self.troubled)

    @contextmanager
    def answering(self, asks: Asks, call: str) -> Iterator[None]:
        what = self.trouble.pop() if self.trouble else ""
        self.was_troubled = self.was_troubled or bool(what)
        if what:
            self.on_trouble(f"a store that is {what}")
        if what and not self.has_troubled(asks):
            self.troubled.append(asks)
        if what == "down" or (what == "unmounted" and self._temporary is None):
            raise DownError(call)
        if what == "unmounted":
            away = self.folder.with_name("away")
            self.folder.rename(away)
            try:
                yield
            finally:
                away.rename(self.folder)
        else:
            yield
        if what == "late":
            raise DownError(f"{call}: no answer in time")


class _Nobody:
    is_known = True
    standing: AbstractContextManager[Any] = nullcontext()

    def before(self, call: str) -> None: ...


NOBODY = _Nobody()
"""Who asks without an attempt: its calls are counted elsewhere."""


class _Asked:
    """A store of the library's, each of whose calls is one of an attempt's."""

    def __init__(self, backend: Backend, inner: Any, asks: Asks) -> None:
        self._backend, self._inner, self._asks = backend, inner, asks
        self.fences_writes: bool = inner.fences_writes
        self.outlives_success: bool = inner.outlives_success
        self._has_looked = False

    def get(self, key: str) -> Any:
        with self._asks.standing:
            self._asks.before("get")
            self._has_looked = True
            with self._backend.answering(self._asks, "get"):
                return self._inner.get(key)

    def set(self, key: str, value: Any) -> None:
        with self._asks.standing:
            self._set(key, value)

    def _set(self, key: str, value: Any) -> None:
        # where nothing fences, an attempt looks at the owner and writes; what happens between the two is nobody's promise
        if self.fences_writes or not self._has_looked:
            self._asks.before("set")
        self._has_looked = False
        with self._backend.answering(self._asks, "set"):
            self._inner.set(key, value)
            self._backend.on_write(key, value)
        if not self.fences_writes:
            self._asks.before("after set")

    def delete(self, key: str) -> None:
        with self._asks.standing:
            self._asks.before("delete")
            with self._backend.answering(self._asks, "delete"):
                self._inner.delete(key)


class _Accessor:
    """``context["task_state_store"]`` of Airflow 3.3: refuses writes under an id that it no longer knows, and reads nothing."""

    def __init__(self, backend: Backend, rows: dict[str, Kept], asks: Asks) -> None:
        self._backend, self._rows, self._asks = backend, rows, asks

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self._rows[key].text) if self._asks.is_known and key in self._rows else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._check()
        self._rows[key] = Kept(json.dumps(value), retention is FOREVER, self._backend.day)

    def delete(self, key: str) -> None:
        self._check()
        self._rows.pop(key, None)

    def _check(self) -> None:
        if not self._asks.is_known:
            raise RefusedError


class _Names:
    """The deployment's Variables."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def get(self, name: str) -> str | None:
        return self._names.get(name)

    def set(self, name: str, text: str, description: str) -> None:
        self._names[name] = text

    def delete(self, name: str) -> None:
        with suppress(KeyError):
            del self._names[name]
