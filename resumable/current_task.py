"""The task that runs in this process: its store, identity and generation, for code that subclasses nothing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resumable import host
from resumable.errors import ConfigurationError
from resumable.identity import Generation, TaskIdentity
from resumable.policy import ResumePolicy
from resumable.stores.base import StateStore
from resumable.stores.owned import OwnedValue

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")


def checked_name(what: str, name: Any, outcome: str) -> str:
    """
    ``name``, which is to be part of a key in every store.

    Args:
        what: whose it is, for the message.
        name: anything.
        outcome: what that means, for the message: "Nothing was done".

    Raises:
        ConfigurationError: it cannot be.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"{what}: name={name!r} is no name. {outcome}. Give up to 100 letters, digits and _ . -")
    return name


@dataclass(frozen=True)
class CurrentTask:
    """
    One attempt of a task instance, as seen from inside of it.

    Args:
        context: Airflow's context of the attempt.
        identity: the task instance.
        generation: what can be seen of its clears.
        store: its task state.
        owner: this attempt, in what it writes: 12 hex characters.
    """

    context: Mapping[str, Any]
    identity: TaskIdentity
    generation: Generation
    store: StateStore
    owner: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @classmethod
    def find(cls, context: Mapping[str, Any] | None = None) -> CurrentTask:
        """
        The task that runs in this process, or the one of ``context``.

        Raises:
            ConfigurationError: no task runs here, or it has no durable store.
        """
        if context is None:
            try:
                context = host.current_context()
            except RuntimeError as e:
                raise ConfigurationError(
                    "There is no running task here, so there is nowhere to keep state. Nothing was done. Call it from a @task "
                    "function or an operator's execute(), not while the DAG is parsed. The function of @task.external_python or "
                    "@task.virtualenv runs in a process of its own, which has no task state: make it a plain @task."
                ) from e
        try:
            context["ti"]
        except (TypeError, LookupError):
            raise ConfigurationError(
                f"context={context!r:.100} is no context of a task. Nothing was done. Leave context= out, or give the one that "
                "Airflow gives to execute()."
            ) from None
        return cls(context, host.task_identity(context), host.generation(context), host.state_store(context))

    @property
    def try_number(self) -> int:
        """Airflow's."""
        return int(self.context["ti"].try_number)

    @property
    def operator(self) -> Any:
        """The operator instance that runs."""
        return getattr(self.context["ti"], "task", None) or self.context["task"]

    def value(self, key: str, what: str, *, version: int = 1) -> OwnedValue:
        """A value of this task's state: see `OwnedValue`."""
        return OwnedValue(self.store, key, what, owner=self.owner, version=version)

    def policy(self, given: ResumePolicy | Mapping[str, Any] | None = None) -> ResumePolicy:
        """``given`` with what it leaves out filled in, from airflow.cfg or the defaults."""
        return ResumePolicy.of(given).resolved(host.configured_policy())

    def after_success(self, callback: Callable[[], Any]) -> None:
        """Have ``callback`` called here once Airflow has taken note of the task's success; not if it has refused it."""
        host.after_success(self.operator, self.context, callback)

    def at_end(self, callback: Callable[[bool], Any]) -> None:
        """
        Have ``callback(succeeded)`` called when the task ends for good: success, skip, or a failure that is not retried.

        It is called in this process, after Airflow was told how the task ended, and not at all if the process is killed. What was
        registered last is called first.
        """
        host.at_end(self.operator, callback)
