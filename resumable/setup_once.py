"""`once`: what the first try of a task made, on every later try; cleaned up when the task ends for good."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from resumable import host
from resumable.checkpoint.concurrent import is_coroutine_function
from resumable.checkpoint.failures import value_text
from resumable.cleanup.table import ONCE
from resumable.current_task import CurrentTask, checked_name
from resumable.errors import ConfigurationError, StateStoreError, SupersededError
from resumable.helpers import called, takes
from resumable.identity import Generation, Relation, TaskIdentity
from resumable.setup_cleanup import CleanUp
from resumable.stop.sigterm import Stop
from resumable.stop.watch import StopGuard
from resumable.stores.base import json_text, outlives_success
from resumable.stores.owned import OwnedValue

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
    alive: Callable[[T], bool] | None = None,
    context: Mapping[str, Any] | None = None,
) -> T:
    """
    The value that ``create`` returned in the first try of this task: later tries are given it again.

    ::

        cluster = once("cluster", create_cluster, cleanup=delete_cluster, alive=is_running)

    ``create`` is called again if it failed or a worker died before its value was kept, if ``alive`` says that the value is dead,
    if the task was cleared, and after a clean-up. If it has a parameter ``token`` it is given 48 hex characters that stay the
    same until a clean-up: send them with the request, as the service's idempotency token or as a name, and no second one is made.
    An attempt that Airflow has given up cleans nothing up: another one may work with it.

    Args:
        name: of the value; a task may have several.
        create: makes it and returns what identifies it, a JSON value that is not None.
        cleanup: called with the value when the task ends for good in this process (success, skip, a failure that is not retried),
            when a user ends or clears it while it runs, and before ``create`` after a clear; what was made last is cleaned up
            first. It may be called twice, also for what is gone already. If no process of the task is left to call it (the last
            try was killed, or a user ended the task between two tries), the sweep does: on Airflow 3.3 and later, without a
            context, and if it is a function of a module that ``[resumable] cleanup_modules`` names.
        alive: called with a kept value before it is used again; returns True or False. False: it is cleaned up and another one
            is made. What it raises fails the try: a service that does not answer does not say that anything is dead.
        context: the task's context; the running task's by default.

    Raises:
        ConfigurationError: no name.
        AirflowFailException: no running task; or a value that is no JSON, too large, or holds a secret: it is cleaned up.
        StateStoreError: the store did not answer; nothing was made, or what was made is cleaned up, or with a ``token`` is there
            for the next try.
        SupersededError: Airflow has given this attempt up; what it made is not touched.
        RecordError: what is kept cannot be read, or a newer release wrote it.
    """
    with host.final_errors():
        checked_name("once", name, "Nothing was made")
        for what, function in (("create", create), ("cleanup", cleanup), ("alive", alive)):
            if is_coroutine_function(function):
                raise ConfigurationError(
                    f"once {name!r}: {what} is a coroutine function. Nothing was made. Give plain functions; in a coroutine: "
                    "await asyncio.to_thread(once, ...)"
                )
            if not callable(function) and (function is not None or what == "create"):
                given = type(function).__name__
                raise ConfigurationError(f"once {name!r}: {what} is a {given}. Nothing was made. Give a function.")
        can_create = takes(create, token="") or takes(create, "") if _wants_token(create) else takes(create)
        if not (can_create and takes(cleanup, None) and takes(alive, None)):  # else found when there is something to clean up
            raise ConfigurationError(
                f"once {name!r}: a function takes other arguments. Nothing was made. Let create take none or a token, cleanup "
                "and alive the value that it returned."
            )
    with host.airflow_errors():
        task = CurrentTask.find(context)
        with _lock(task, name):
            made: T = _Once(name, task, create, cleanup, alive).value()
    return made


def _lock(task: CurrentTask, name: str) -> threading.RLock:
    """Of a process: its threads ask for the value one after the other, and none while it is cleaned up."""
    return _locks.setdefault((task.identity, name), threading.RLock())


class _Once:
    """One call of `once`: what is kept of the value, and its clean-up in the end."""

    def __init__(
        self,
        name: str,
        task: CurrentTask,
        create: Callable[..., Any],
        cleanup: Callable[[Any], Any] | None,
        alive: Callable[[Any], bool] | None = None,
    ) -> None:
        self._name, self._task, self._create, self._alive = name, task, create, alive
        self._stored: OwnedValue = task.value(ONCE + name, f"once {name!r}", version=VERSION)
        self._token = task.identity.token(task.generation, int.from_bytes(f"once {name}".encode(), "big"))
        self._guard: StopGuard | None = None
        self._kept: dict[str, Any] = {}
        self._spent_token = ""
        self._cleanup = CleanUp(name, cleanup, task.context)

    def value(self) -> Any:
        value = copy.deepcopy(self._kept_or_made())  # the task may change it, and the clean-up is of what was made
        if not outlives_success(self._task.store):
            self._task.after_success(lambda: self._latest()._forget())
        return value

    def _forget(self) -> None:
        """A store that nobody else cleans up keeps nothing of a task that has succeeded, unless something is left to clean up."""
        if self._cleanup.function is None or self._cleanup.is_clean:
            self._stored.delete()

    def _kept_or_made(self) -> Any:
        kept = self._stored.load()
        if kept is not None:
            kept = self._usable(kept)
        if kept is not None and kept["state"] == "made":
            # an attempt that Airflow has given up learns it here
            self._save({**kept, "try": self._task.try_number, "cleanup": self._cleanup.path()})
            _log.info("resumable: once %r: the value of an earlier try is used again, made %s", self._name, kept["made_at"])
            self._watch()
            return kept["value"]
        return self._made(kept)

    def _usable(self, kept: dict[str, Any]) -> dict[str, Any] | None:
        """What was kept, if its value, or its token, is to be used again; cleaned up if it is not."""
        try:
            earlier = Generation.from_json(kept["generation"])
            state, _, value, token = kept["state"], kept["made_at"], kept["value"], kept["token"]
            is_being_cleaned, earlier_try = bool(kept.get("is_being_cleaned_up")), int(kept.get("try", 0))
            if state not in ("making", "made", "cleaned up") or not isinstance(token, str) or (state == "made" and value is None):
                raise ValueError(f"state {state!r}")
        except (KeyError, TypeError, ValueError) as e:
            raise self._stored.unreadable(f"{type(e).__name__}: {e}", kept) from e
        if earlier_try > self._task.try_number and not self._task.generation.is_of_later_run(earlier):
            raise SupersededError(
                f"Try {earlier_try} works with once {self._name!r}, this is try {self._task.try_number}: Airflow has given it "
                "up. It touches nothing; the other goes on. Nothing needs to be done."
            )
        self._spent_token = token
        if state == "cleaned up":
            if is_being_cleaned:
                self._cleanup.say_what_was_begun("what could not be kept was being cleaned up", token, kept["made_at"])
            return None
        why = None
        if self._task.generation.relation_to(earlier) is Relation.CLEARED:
            why = "the task was cleared"
        elif state == "made" and is_being_cleaned:
            why = "an earlier try had begun to clean it up"
        elif state == "made" and self._alive is not None and not self._is_alive(value):
            why = "alive says that it is dead"
        if why is None:
            return kept
        self._put_away(kept, why)
        return None

    def _put_away(self, kept: dict[str, Any], why: str) -> None:
        if kept["state"] == "making":
            self._cleanup.say_what_was_begun(why, kept["token"], kept["made_at"])
            return
        _log.info("resumable: once %r: %s, what was made %s is cleaned up first", self._name, why, kept["made_at"])
        # refused to an attempt that is given up
        self._save({**kept, "try": self._task.try_number, "is_being_cleaned_up": True})
        self._cleanup.clean_up(kept["value"])

    def _is_alive(self, value: Any) -> bool:
        """
        Raises:
            ConfigurationError: the answer is none: nothing says that the value is dead.
        """
        assert self._alive is not None
        answer: Any = called(self._alive, value)
        if answer is None or inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise ConfigurationError(
                f"once {self._name!r}: alive returned {'None' if answer is None else 'something to await'}, neither True nor "
                "False. What was made is left as it is. Return whether it can still be used."
            )
        return bool(answer)

    def _made(self, intent: dict[str, Any] | None) -> Any:
        token = intent["token"] if intent else self._fresh_token()
        wants_token = _wants_token(self._create)
        if intent and not wants_token:
            _log.warning(
                "resumable: once %r: an earlier try died or failed while it made the value. It is made again; what that try may "
                "have left is not known. Give %s a parameter token to have it made only once",
                self._name,
                getattr(self._create, "__name__", "create"),
            )
        self._save(self._data("making", token))
        try:
            value = called(_called, self._create, token) if wants_token else called(self._create)
        except BaseException as e:  # execution_timeout, sys.exit() and a user's stop too
            self._cleanup.say_what_is_left(
                f"create failed ({type(e).__name__}), and what it may have made is not known",
                token,
                wants_token,
                is_last=host.is_final(e),
            )
            raise
        try:
            plain = json.loads(_checked_text(self._name, value))  # as later tries are given it
            self._save(self._data("made", token, plain))
        except ConfigurationError:
            self._discard(value, token, may_be_shared=wants_token)
            raise
        except SupersededError:
            self._cleanup.say_left(value)
            raise
        except StateStoreError:
            if wants_token:
                self._cleanup.say_what_is_left(f"{value_text(value)} was made and could not be kept", token, wants_token)
            else:
                self._discard(value, token, may_be_shared=False)
            raise
        self._watch()
        return plain

    def _discard(self, value: Any, token: str, *, may_be_shared: bool) -> None:
        """
        Clean up what this attempt has made and cannot keep. First the write that another one is told by: the store may have taken
        the value and not have said so, and a successor may have been given the same by the token.
        """
        if self._cleanup.function is None:
            return
        try:
            # if the worker dies now, this tells whoever comes next
            self._stored.save({**self._data("cleaned up", token), "is_being_cleaned_up": True}, tries=2)
        except SupersededError:
            self._cleanup.say_left(value)
            return
        except StateStoreError:
            if may_be_shared:
                why = "the store does not answer, and another try may be given it"
                _log.warning("resumable: once %r: %s cannot be kept, and is left: %s", self._name, value_text(value), why)
                return
        if self._cleanup.clean_up(value):
            self._keep_clean(token)

    def _keep_clean(self, token: str) -> None:
        try:
            self._stored.save(self._data("cleaned up", token), tries=2)
        except (StateStoreError, SupersededError) as e:
            _log.info("resumable: once %r is cleaned up; that could not be kept: %s", self._name, e)

    def _fresh_token(self) -> str:
        """Another one for every time that it is made: after a clean-up in one generation as well, and in the same second."""
        number = int(time.time())
        if self._spent_token[:40] == self._token[:40]:
            number = max(number, int(self._spent_token[40:], 16) + 1)
        return f"{self._token[:40]}{number & 0xFFFFFFFF:08x}"

    def _data(self, state: str, token: str, value: Any = None) -> dict[str, Any]:
        return {
            "state": state,
            "value": value,
            "token": token,
            "made_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cleanup": self._cleanup.path(),
            "generation": self._task.generation.to_json(),
            "try": self._task.try_number,
        }

    def _save(self, data: dict[str, Any]) -> None:
        self._stored.save(data)
        self._kept = data

    # -- the clean-up -------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Clean up in the end, also if the value was asked for several times in this attempt: what is known last counts."""
        watched: dict[Any, _Once] = vars(self._task.operator).setdefault("_resumable_once", {})
        earlier = watched.get(self._watch_key)
        self._cleanup.is_clean = False
        self._cleanup.function = self._cleanup.function or (earlier._cleanup.function if earlier else None)
        if self._cleanup.function is None:
            return
        watched[self._watch_key] = self
        if earlier is not None:
            return

        def told(stop: Stop) -> None:
            if stop in (Stop.BY_USER, Stop.CLEARED):
                self._end_latest()

        def ended(succeeded: bool) -> None:  # noqa: ARG001
            if self._guard is not None:
                self._guard.leave(told)
            self._end_latest()

        self._guard = StopGuard.join(self._task, told, interrupts=False)
        self._task.at_end(ended)

    @property
    def _watch_key(self) -> tuple[TaskIdentity, int, str]:
        return self._task.identity, self._task.try_number, self._name

    def _latest(self) -> _Once:
        watched: dict[Any, _Once] = vars(self._task.operator).get("_resumable_once", {})
        return watched.get(self._watch_key, self)

    def _end_latest(self) -> None:
        with _lock(self._task, self._name):  # a thread that is about to take the value up would write over the clean-up
            self._latest()._end()

    def _end(self) -> None:
        if self._cleanup.is_clean or self._cleanup.function is None:
            return
        value = self._kept["value"]
        try:
            # First the write that is refused to an attempt which Airflow has given up: another one may work with it.
            self._stored.save({**self._kept, "is_being_cleaned_up": True}, tries=2)
        except SupersededError as e:
            _log.info("resumable: once %r: %s is left, another try may work with it: %s", self._name, value_text(value), e)
            return
        except StateStoreError as e:
            _log.warning(
                "resumable: once %r: %s is not cleaned up, for it cannot be told whether another try works with it: %s. "
                "The sweep does it, where it may; else do it by hand",
                self._name,
                value_text(value),
                e,
            )
            return
        if self._cleanup.clean_up(value):
            self._keep_clean(self._kept["token"])


def _checked_text(name: str, value: Any) -> str:
    """
    The JSON text of what ``create`` returned.

    Raises:
        ConfigurationError: task state cannot keep what ``create`` returned, or must not.
    """
    outcome = "What it made is cleaned up if there is a cleanup"
    try:
        text = json_text(value)
        if value is None:
            raise ValueError("it is None")
    except ValueError as e:
        raise ConfigurationError(
            f"once {name!r}: create returned a {type(value).__name__} that JSON cannot carry, or task state, or None ({e}). "
            f"{outcome}. Return what identifies the resource: a string, a number, a list or a dict."
        ) from None
    if len(text) > (limit := host.value_limit() - HEADER):
        raise ConfigurationError(
            f"once {name!r}: create returned {len(text):,} bytes of JSON, task state takes {limit:,}. {outcome}. "
            "Return what identifies the resource, and keep the rest there."
        )
    if host.holds_secret(value):
        raise ConfigurationError(
            f"once {name!r}: create returned something that Airflow masks as a secret, and task state is kept in plain "
            f"text. {outcome}. Return what identifies the resource, and take the secret from a connection in each try."
        )
    return text


def _wants_token(create: Callable[..., Any]) -> bool:
    if isinstance(create, functools.partial) and "token" in create.keywords:
        return False  # it has the author's own, which may be one to log in with
    try:
        return "token" in inspect.signature(create).parameters
    except (TypeError, ValueError):  # of a builtin
        return False


def _called(create: Callable[..., Any], token: str) -> Any:
    is_by_name = inspect.signature(create).parameters["token"].kind is not inspect.Parameter.POSITIONAL_ONLY
    return create(token=token) if is_by_name else create(token)
