"""The service of a ready-made operator: the provider's ``execute()`` runs unchanged, its one submit call is made durable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from inspect import getattr_static
from typing import Any, ClassVar

from resumable import host
from resumable.errors import UnseenSubmitError
from resumable.helpers import replaced
from resumable.jobs import alarm
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Conclude, Deliver, Observation
from resumable.jobs.record import JobHandle
from resumable.jobs.service import JobService


class ProviderJob(JobService):
    """
    A job that a provider's operator starts.

    On a first attempt the provider's submit goes out with the token, and its answer is kept. On a later one the same call is
    answered from the record, without a request. All else is the provider's own code: it pushes its XComs and links, polls or
    defers, returns its own result. A service implements `intercept` and what `JobService` asks for.
    """

    doubt: ClassVar[str] = ""
    """How a submit whose answer was lost is cleared up: one clause, for the documentation."""
    window: ClassVar[str] = ""
    """What is left nevertheless: one clause, for the documentation."""
    wait_argument: ClassVar[str]
    """The provider's argument that tells whether ``execute`` waits for the job."""
    hook_name: ClassVar[str] = "hook"
    """The attribute under which the operator keeps its hook: the same object each time it is asked for."""

    _own_hook: Any = None

    @property
    def hook(self) -> Any:
        """The operator's hook; for a job of a record one of its own."""
        return getattr(self.operator, self.hook_name) if self._own_hook is None else self._own_hook

    @property
    def attempt(self) -> Attempt:
        """The attempt of this start."""
        return self.run.attempt

    @property
    def known_attempt(self) -> Attempt | None:
        """The same; None where nothing has begun, or the job is one of a record."""
        run = getattr(self, "run", None)
        return run.begun if run is not None else None

    def renew(self, error: BaseException) -> bool:
        """
        Drop a hook whose credentials have expired, and what the operator keeps of it (a client, in a cached property): it makes
        another, which reads the connection again. A client that stayed would also send its requests past us.
        """
        if self._own_hook is not None or not self.is_expired(error):
            return False
        kept = vars(self.operator)
        hook = kept.pop(self.hook_name, None)
        if hook is None:
            return False
        parts = {id(part) for part in vars(hook).values()}
        for name in [name for name, value in kept.items() if id(value) in parts and self._is_made_anew(name)]:
            del kept[name]
        return True

    def _is_made_anew(self, name: str) -> bool:
        return isinstance(getattr_static(type(self.operator), name, None), cached_property)

    def observe_by(self, client: Any, handle: JobHandle) -> Observation:
        if client is not None:
            self._own_hook = client
        return self.observe(handle)

    def cancel_by(self, client: Any, handle: JobHandle) -> None:
        if client is not None:
            self._own_hook = client
        self.cancel(handle)

    def waits(self) -> bool:
        return bool(getattr(self.operator, self.wait_argument))

    @abstractmethod
    def intercept(self, attempt: Attempt) -> AbstractContextManager[None]:
        """While it is open, the provider's submit call goes through ``attempt``."""

    def execute(self, theirs: Callable[[], Any]) -> Any:
        run, attempt = self.run, self.attempt
        with self.intercept(attempt):
            has_ended = isinstance(attempt.plan, Deliver | Conclude)
            if run.policy.frees_the_slot and self.waits() and not has_ended:
                with self.not_waiting():
                    theirs()
                self.refuse_unseen()
                alarm.leave(run, attempt.seen or attempt.observe())
            result = theirs()
        if attempt.is_unseen and self.can_see():
            self.log.error("resumable: %s", self._unseen())
            run.count("unseen_submit")
        return result

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """While it is open, the provider's ``execute`` returns when it has submitted."""
        with replaced(self.operator, **{self.wait_argument: False}):
            yield

    @contextmanager
    def undeferred(self) -> Iterator[None]:
        if self.wait_argument == "deferrable":  # it waits in no other way
            yield
            return
        waits = {self.wait_argument: True} if self.wait_argument else {}
        with replaced(self.operator, **waits, deferrable=False):
            yield

    def refuse_unseen(self) -> None:
        """For where the provider's code looks at its job, or defers."""
        if self.attempt.is_unseen and self.can_see():
            self.run.count("unseen_submit")
            raise UnseenSubmitError(self._unseen())

    def can_see(self) -> bool:
        """Whether a submit would have been seen: not where a unit test has put a mock in the client's place."""
        return True

    def _unseen(self) -> str:
        kind = type(self.operator)
        name, version = host.provider_of(kind)
        return (
            f"{kind.__name__} watches a job of {self.service} that {name} {version} started by a way which this release of "
            f"airflow-resumable does not cover: nothing of it is kept. A job may run: look for it in {self.service}, wait for "
            "its end or stop it. Then install a version of the provider that is covered (the extras name them), or give "
            "durable=False."
        )
