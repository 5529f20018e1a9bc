"""
The service of a ready-made operator: the provider's ``execute()`` runs unchanged, its one submit call is made durable. `HookCall`
does that with one method of the operator's hook.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from inspect import getattr_static
from typing import Any, ClassVar

from resumable import host
from resumable.errors import ConfigurationError, UnseenSubmitError
from resumable.helpers import replaced
from resumable.jobs import alarm
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Conclude, Deliver, Observation, Recovery
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
    """The attribute under which the operator has its hook."""

    _own_hook: Any = None

    @classmethod
    def adapt_class(cls, operator: Any) -> None:
        found = getattr_static(operator, cls.hook_name, None)
        if isinstance(found, property) and not isinstance(found, OneHook):
            setattr(operator, cls.hook_name, OneHook(cls.hook_name, found))

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
        if self.hook is not self.hook:
            raise ConfigurationError(
                f"{type(self.operator).__name__}.{self.hook_name} is another object each time: a submit by it would "
                "go past us. Nothing was submitted. Make it a property, or a functools.cached_property, or give durable=False."
            )
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


class OneHook(property):
    """
    A property by which an operator has its hook, and which may make another one each time: during a start of the task it is asked
    once, because the submit goes through us by that object.
    """

    def __init__(self, name: str, asked: property) -> None:
        super().__init__(asked.fget, asked.fset, asked.fdel, asked.__doc__)
        self._name = name

    def __get__(self, operator: Any, owner: Any = None) -> Any:
        if operator is None or operator._resumable.run is None:
            return super().__get__(operator, owner)
        kept = vars(operator)
        if self._name not in kept:
            kept[self._name] = super().__get__(operator, owner)
        return kept[self._name]


class HookCall(ProviderJob):
    """
    A job whose operator has a hook with one method that submits.

    The operator's own ``execute`` runs unchanged. Its call of ``submit_method`` goes out with the token and its answer is kept;
    on a later attempt the call is answered from the record. Besides what is declared here, give ``service``, ``recovery``,
    ``observe`` and ``cancel``, and ``find`` with ``settle`` for `Recovery.LOOK_UP`::

        @durable_operator(Film)
        class ResumableFilmOperator(FilmOperator): ...
    """

    submit_method: ClassVar[str]
    """The hook's method that submits. It must send once: a hook that repeats a submit by itself makes a second job, unless the
    service knows the token."""

    request_argument: ClassVar[str] = ""
    """The one argument of that method which is the whole request; empty: its arguments are."""

    look_methods: ClassVar[tuple[str, ...]] = ()
    """The hook's methods that look at the job: each call is a chance to write a record whose write had failed."""

    wait_argument: ClassVar[str] = ""
    """The operator's argument that tells whether ``execute`` waits for the job; empty: it always does."""

    @abstractmethod
    def add_token(self, arguments: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request: the arguments of the submit call, by the names of the method's parameters."""

    def ids_of(self, answer: Any, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The job's id(s), any JSON value, from what the submit method returned. Raise `InvalidAnswerError` if they are none."""
        return answer

    def handle(self, ids: Any) -> JobHandle:
        return JobHandle(self.service, ids, self.place())

    def answer_of(self, handle: JobHandle) -> Any:
        """What the submit method returned for this job."""
        return handle.ids

    def lookup_hints(self, arguments: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """What `find` needs to know of the submit besides `place` and token; it finds it in ``record.place``."""
        return {}

    def own_token(self, arguments: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The token that the author gave, as it stands in the request: it is sent as written."""
        return None

    def sending(self) -> AbstractContextManager[Any]:
        """Open around the submit call: the place to switch the hook's own repetitions off."""
        return nullcontext()

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        """The methods that stand before the hook's own while ``execute`` runs, by name."""
        hook = self.hook
        looks = {name: self._looker(attempt, getattr(hook, name)) for name in self.look_methods}
        return {**looks, self.submit_method: self._submitter(attempt, getattr(hook, self.submit_method))}

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with replaced(self.hook, **self.replacements(attempt)):
            yield

    def _submitter(self, attempt: Attempt, send: Callable[..., Any]) -> Callable[..., Any]:
        def submit(*args: Any, **kwargs: Any) -> Any:
            if attempt.handle is None:
                call = inspect.signature(send).bind(*args, **kwargs)
                given = dict(call.arguments)
                request = given[self.request_argument] if self.request_argument else given
                repeatable = self.recovery is Recovery.REPEAT
                token, sent = attempt.intend(
                    request if repeatable else None, token=self.own_token(request), where=self.lookup_hints(request)
                )
                stamped = copy.deepcopy(sent if repeatable else request)
                self.add_token(stamped, token)
                call.arguments.update({self.request_argument: stamped} if self.request_argument else stamped)
                with self.sending():
                    answer = send(*call.args, **call.kwargs)
                attempt.submitted(self.handle(self.ids_of(answer, stamped)))
            assert attempt.handle is not None
            return self.answer_of(attempt.handle)

        return submit

    def _looker(self, attempt: Attempt, look: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_flush(*args: Any, **kwargs: Any) -> Any:
            self.refuse_unseen()
            attempt.flush()
            return look(*args, **kwargs)

        return look_and_flush

    def waits(self) -> bool:
        return not self.wait_argument or super().waits()

    @classmethod
    def check_reschedule(cls, operator: Any) -> None:
        if not cls.wait_argument:
            raise ConfigurationError(
                f"wait='reschedule' or 'defer' needs an operator that can be told not to wait, and {type(operator).__name__} has "
                "no wait_argument. Nothing was submitted. Leave wait at 'poll'."
            )
