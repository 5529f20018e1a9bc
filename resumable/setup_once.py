"""`once`: what the first try of a task made, on every later try; cleaned up when the task ends for good."""

from __future__ import annotations

import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from resumable import compat
from resumable.errors import ConfigurationError, StateStoreError
from resumable.identity import Generation, Relation, TaskIdentity
from resumable.importing import path_of
from resumable.interruption import Stop
from resumable.stopping import StopGuard
from resumable.stores.base import SupersededError
from resumable.stores.owned import OwnedValue
from resumable.stores.table import ONCE
from resumable.task import CurrentTask, checked_name

T = TypeVar("T")

VERSION = 1

HEADER = 1000
"""Bytes that a kept value needs besides what was made."""

_locks: dict[tuple[TaskIdentity, str], threading.RLock] = {}

_log = logging.getLogger("resumable")


def once(
    name: str,
    create: Callable[..., T],
    *,
    cleanup: Callable[[T], Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> T:
    """
    The value that ``create`` returned in the first try of this task: later tries are given it again.

    ::

        cluster = once("cluster", create_cluster, cleanup=delete_cluster)

    ``create`` is called again if a worker died before its value was kept, if the task was cleared, and after a clean-up. If it
    has a parameter ``token`` it is given 48 hex characters that stay the same until then: send them with the request, as the
    service's idempotency token or as a name, and no second resource is made.

    Args:
        name: of the value; a task may have several.
        create: makes it and returns what identifies it, a JSON value that is not None.
        cleanup: called with the value when the task ends for good in this process (success, skip, a failure that is not retried),
            when a user ends or clears it while it runs, and before ``create`` after a clear; what was made last is cleaned up
            first. It may be called twice, also for what is gone already. If no process of the task is left to call it (the last
            try was killed, or a user ended the task between two tries), the sweep does: on Airflow 3.3 and later, without a
            context, and if it is a function of a module that ``[resumable] cleanup_modules`` names.
        context: the task's context; the running task's by default.

    Raises:
        ConfigurationError: no name.
        AirflowFailException: no running task; or a value that is no JSON, too large, or holds a secret: it is cleaned up.
        StateStoreError: the store did not answer; nothing was made, or what was made is cleaned up.
        RecordError: what is kept cannot be read, or a newer release wrote it.
    """
    with compat.final_errors():
        checked_name("once", name, "Nothing was made")
        if inspect.iscoroutinefunction(create) or inspect.iscoroutinefunction(cleanup):
            raise ConfigurationError(
                f"once {name!r}: create and cleanup are plain functions, not coroutine functions. Nothing was made. In a "
                "coroutine: await asyncio.to_thread(once, ...)"
            )
    with compat.airflow_errors():
        task = CurrentTask.find(context)
        with _locks.setdefault((task.identity, name), threading.RLock()):
            made: T = _Once(name, task, create, cleanup).value()
    return made


class _Once:
    def __init__(self, name: str, task: CurrentTask, create: Callable[..., Any], cleanup: Callable[[Any], Any] | None) -> None:
        self._name, self._task, self._create, self._cleanup = name, task, create, cleanup
        self._stored: OwnedValue = task.value(ONCE + name, f"once {name!r}", version=VERSION)
        self._token = task.identity.token(task.generation, int.from_bytes(f"once {name}".encode(), "big"))
        self._guard: StopGuard | None = None
        self._is_clean = False

    def value(self) -> Any:
        value = self._kept_or_made()
        if not getattr(self._task.store, "outlives_success", True):
            self._task.after_success(self._forget)
        return value

    def _forget(self) -> None:
        """A store that nobody else cleans up keeps nothing of a task that has succeeded, unless something is left to clean up."""
        if self._cleanup is None or self._is_clean:
            self._stored.delete()

    def _kept_or_made(self) -> Any:
        kept = self._stored.load()
        if kept is not None:
            kept = self._of_this_generation(kept)
        if kept is not None and kept["state"] == "made":
            # an attempt that Airflow has given up learns it here
            self._save({**kept, "try": self._task.try_number, "cleanup": self._cleanup_path()})
            _log.info("resumable: once %r: the value of an earlier try is used again, made %s", self._name, kept["made_at"])
            self._watch(kept["value"])
            return kept["value"]
        return self._made(kept)

    def _of_this_generation(self, kept: dict[str, Any]) -> dict[str, Any] | None:
        try:
            earlier = Generation.from_json(kept["generation"])
            state, made_at, value, token = kept["state"], kept["made_at"], kept["value"], kept["token"]
            if state not in ("making", "made", "cleaned up") or not isinstance(token, str) or (state == "made" and value is None):
                raise ValueError(f"state {state!r}")
        except (KeyError, TypeError, ValueError) as e:
            raise self._stored.unreadable(f"{type(e).__name__}: {e}", kept) from e
        if self._task.generation.relation_to(earlier) is Relation.CLEARED or state == "cleaned up":
            if state == "made":
                _log.info("resumable: once %r: the task was cleared, what was made %s is cleaned up first", self._name, made_at)
                self._clean_up(value)
            return None
        return kept

    def _made(self, intent: dict[str, Any] | None) -> Any:
        token = intent["token"] if intent else self._fresh_token()
        wants_token = "token" in inspect.signature(self._create).parameters
        if intent and not wants_token:
            _log.warning(
                "resumable: once %r: an earlier try died or failed while it made the value. It is made again; what that try may "
                "have left is not known. Give %s a parameter token to have it made only once",
                self._name,
                getattr(self._create, "__name__", "create"),
            )
        self._save(self._data("making", token))
        value = self._create(token=token) if wants_token else self._create()
        try:
            self._check(value)
            self._save(self._data("made", token, value))
        except (StateStoreError, ConfigurationError, SupersededError):
            self._clean_up(value)
            raise
        self._watch(value)
        return value

    def _fresh_token(self) -> str:
        """Another one for every time that it is made: after a clean-up in one generation as well."""
        return f"{self._token[:40]}{int(time.time()) & 0xFFFFFFFF:08x}"

    def _check(self, value: Any) -> None:
        outcome = "What it made is cleaned up if there is a cleanup"
        try:
            text = json.dumps(value, allow_nan=False)
            if value is None or json.loads(text) != value:
                raise ValueError
        except (TypeError, ValueError):
            raise ConfigurationError(
                f"once {self._name!r}: create returned a {type(value).__name__} that JSON cannot carry, or None. {outcome}. "
                "Return what identifies the resource: a string, a number, a list or a dict."
            ) from None
        if len(text) > (limit := compat.value_limit() - HEADER):
            raise ConfigurationError(
                f"once {self._name!r}: create returned {len(text):,} bytes of JSON, task state takes {limit:,}. {outcome}. "
                "Return what identifies the resource, and keep the rest there."
            )
        if compat.holds_secret(value):
            raise ConfigurationError(
                f"once {self._name!r}: create returned something that Airflow masks as a secret, and task state is kept in plain "
                f"text. {outcome}. Return what identifies the resource, and take the secret from a connection in each try."
            )

    def _data(self, state: str, token: str, value: Any = None) -> dict[str, Any]:
        return {
            "state": state,
            "value": value,
            "token": token,
            "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cleanup": self._cleanup_path(),
            "generation": self._task.generation.to_json(),
            "try": self._task.try_number,
        }

    def _cleanup_path(self) -> str | None:
        """For the sweep."""
        return None if self._cleanup is None else path_of(self._cleanup) or "a function of the DAG file"

    def _save(self, data: dict[str, Any]) -> None:
        self._stored.save(data)

    # -- the clean-up -------------------------------------------------------------------------------------------------

    def _watch(self, value: Any) -> None:
        if self._cleanup is None or self._is_watched(value):
            return

        def told(stop: Stop) -> None:
            if stop in (Stop.BY_USER, Stop.CLEARED):
                self._end(value)

        def ended(succeeded: bool) -> None:  # noqa: ARG001
            if self._guard is not None:
                self._guard.leave(told)
            self._end(value)

        self._is_clean = False
        self._guard = StopGuard.join(self._task, told, interrupts=False)
        self._task.at_end(ended)

    def _is_watched(self, value: Any) -> bool:
        """Whether an earlier call in this attempt will clean it up; from now on one will."""
        watched = vars(self._task.operator).setdefault("_resumable_once", {})
        key = (self._task.identity, self._task.try_number, self._name)
        is_watched = key in watched and watched[key] == value
        watched[key] = value
        return is_watched

    def _end(self, value: Any) -> None:
        if not self._is_clean and self._clean_up(value):
            try:
                self._stored.save(self._data("cleaned up", self._token), tries=2)
            except (StateStoreError, SupersededError) as e:
                _log.info("resumable: once %r is cleaned up; that could not be kept: %s", self._name, e)

    def _clean_up(self, value: Any) -> bool:
        if self._cleanup is None:
            return False
        try:
            self._cleanup(value)
        except Exception as e:
            _log.warning("resumable: once %r: the clean-up of %.200r failed: %r. Remove it by hand", self._name, value, e)
            return False
        self._is_clean = True
        _log.info("resumable: once %r: %.200r is cleaned up", self._name, value)
        return True
