"""One adapter for every AWS operator: botocore's event hooks on the operator's own client.

``provide-client-params`` adds the token and writes the intent, ``after-call`` keeps the handle, ``before-call`` answers from the
record (botocore ``client.py``: a response returned there takes the place of the request). No hook signature, no private name of
the provider is used. A service's module says in class attributes and a few small methods what its API looks like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

from resumable.errors import ConfigurationError, InvalidAnswerError, chain
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Recovery
from resumable.jobs.record import JobHandle
from resumable.jobs.rejection import proves_nothing_made
from resumable.operators._aws.events import Left, Raised, SubmitEvents
from resumable.operators._aws.job import AwsJob


class AwsCall(AwsJob):
    """
    A job that a call of an AWS client starts. A service gives ``service``, ``operation``, ``add_token``, ``ids_of``,
    ``response_of``, ``stop_call`` and ``state_of`` with its three sets of states, and what its recovery asks for:

    - repeat by name, the job's name is the token: ``conflicts`` and ``ids_after_conflict``.
    - repeat by token, the service knows tokens: ``token_lifetime``, perhaps ``find`` with ``finds_expired`` for what is older.
    - look up: ``recovery = Recovery.LOOK_UP``, ``settle`` and ``find``; the submit goes out once.
    """

    recovery = Recovery.REPEAT

    operation: ClassVar[str | tuple[str, ...]]
    """The API call that starts the job, as botocore names it; several where the provider chooses between them."""

    setup_calls: ClassVar[tuple[str, ...]] = ()
    """API calls that the provider makes before the submit and that must change nothing on a reattachment: then they are answered
    by `setup_response`, without a request."""

    assumed: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """API calls by which the provider looks whether a new job can be started, and what they are answered with, without a request,
    where there is a job already: a job that is there needs nothing started for it."""

    unrepeatable_calls: ClassVar[tuple[str, ...]] = ()
    """API calls by which the provider makes something under neither name nor token before the submit: they go out once, and a try
    whose answer is lost fails, because the next one finds what was made."""

    token_member: ClassVar[str] = ""
    """The member of the request that carries the token, where the service knows tokens. An author's own is sent as written."""

    unrecorded_params: ClassVar[frozenset[str]] = frozenset()
    """Members of the request that let whoever reads them act: in no record. A repeated request has those of its own try."""

    stops: ClassVar[tuple[str, ...]] = ()
    """API calls by which the provider's ``execute`` stops the job because its wait has ended: answered without a request."""

    status_calls: ClassVar[tuple[str, ...]] = ()
    """API calls by which the provider's ``execute`` looks at the job, and makes none before the submit. The first one is where
    ``wait="reschedule"`` leaves an operator that has no ``wait_argument``."""

    conflicts: ClassVar[frozenset[str]] = frozenset()
    """Error codes that say that a job with this token, or name, exists: never a rejection."""

    token_lifetime: ClassVar[float | None] = None
    """Seconds for which the service is sure to know a token. Older doubt is looked up (``finds_expired``) or left to a person.
    None: for ever."""

    finds_expired: ClassVar[bool] = False
    """Whether `find` can be asked once the token has expired."""

    http_status: ClassVar[int] = 200
    """The status of the submit's answer, where the provider asserts another than 200."""

    wait_argument: ClassVar[str] = ""

    _leaves = False

    def add_token(self, params: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request: into ``token_member``, if there is one."""
        if not self.token_member:
            raise NotImplementedError(f"{type(self).__name__} has no token_member, and does not say where its token goes")
        params[self.token_member] = token

    def own_token(self, params: Mapping[str, Any]) -> str | None:
        """The token that the author gave, as it is in the request; one that the provider makes up is none."""
        return str(params[self.token_member]) if params.get(self.token_member) else None

    @abstractmethod
    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        """
        The job's id(s) from the answer to ``operation``; None if the answer says that no job was started.

        Raise `InvalidAnswerError` on an impossible one (`require_id` does).
        """

    @abstractmethod
    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        """The answer to ``operation`` that belongs to ``handle``."""

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """What `find` needs to know of the request besides region, account and token."""
        return {}

    def is_conflict(self, error: Mapping[str, Any]) -> bool:
        """Whether an error answer, by its ``Code`` and ``Message``, says that a job with this token, or name, exists."""
        return error.get("Code") in self.conflicts

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> Any:  # noqa: ARG002
        """The ids of the job that an answer out of ``conflicts`` means; None: the doubt stays. ``error``: the parsed answer."""
        return None

    def account_in(self, operation: str, response: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The account id that the answer to another operation of the provider's ``execute`` tells, if it does."""
        return None

    def before_execute(self, attempt: Attempt) -> None:
        """Set what the provider's ``execute`` reads before its submit: names made of ``attempt.token``, ids to reattach to."""

    def add_token_to_setup(self, operation: str, params: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request of a call in ``setup_calls``."""

    def setup_response(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The answer to a call in ``setup_calls`` that is not made."""
        return {}

    def setup_exists(self, operation: str, error: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Whether an error answer to a call in ``setup_calls`` says that what it makes is there already: then it is a success."""
        return False

    @property
    def operations(self) -> tuple[str, ...]:
        return (self.operation,) if isinstance(self.operation, str) else self.operation

    def waits(self) -> bool:
        return not self.wait_argument or super().waits() or bool(getattr(self.operator, "deferrable", False))

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        if self.wait_argument:
            with super().not_waiting():
                yield
            return
        with replaced(self, _leaves=True), suppress(Left):
            yield

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        self.before_execute(attempt)
        client = self.hook.conn
        if client is not self.hook.conn:
            raise ConfigurationError(
                f"{type(self.hook).__name__}.conn is another client each time it is asked for: a submit by it would go past us. "
                "Nothing was submitted. Make it a functools.cached_property, or give durable=False."
            )
        events = client.meta.events
        call = SubmitEvents(self, attempt)
        service = f"{self.service_event}."
        hooks: list[tuple[str, Callable[..., Any]]] = [(f"after-call.{self.service_event}", call.see)]
        for operation in self.operations:
            hooks += [
                (f"provide-client-params.{service}{operation}", call.add_token),
                (f"before-call.{service}{operation}", call.answer),
                (f"needs-retry.{service}{operation}", call.send_once),
                (f"after-call.{service}{operation}", call.keep),
            ]
        for operation in self.setup_calls:
            hooks += [
                (f"provide-client-params.{service}{operation}", call.add_token_to_setup),
                (f"before-call.{service}{operation}", call.answer_setup),
                (f"after-call.{service}{operation}", call.accept_setup),
            ]
        hooks += [(f"before-call.{service}{operation}", call.assume) for operation in self.assumed]
        hooks += [(f"needs-retry.{service}{operation}", call.make_once) for operation in self.unrepeatable_calls]
        hooks += [(f"before-call.{service}{operation}", call.leave_running) for operation in self.stops]
        hooks += [(f"before-call.{service}{operation}", call.leave) for operation in self.status_calls]
        for event, handler in hooks:
            events.register_first(event, handler)
        try:
            yield
        except Raised as e:
            raise e.error from e.error.__cause__
        finally:
            for event, handler in hooks:
                events.unregister(event, handler)

    @contextmanager
    def noting(self, operation: str, note: Callable[..., None]) -> Iterator[None]:
        """While it is open, ``note`` is called with each answer to ``operation`` (``parsed``), before the provider has it."""
        event, events = f"after-call.{self.service_event}.{operation}", self.hook.conn.meta.events
        events.register(event, note)
        try:
            yield
        finally:
            events.unregister(event, note)

    def can_see(self) -> bool:
        return isinstance(self.hook.conn, BaseClient)

    @property
    def service_event(self) -> str:
        """The service's name in botocore's events, e.g. ``redshift-data``."""
        return str(self.hook.conn.meta.service_model.service_id.hyphenize())

    def is_rejection(self, error: BaseException) -> bool:
        """A 4xx answer to the submit, or an error before anything was sent. Provider code may have wrapped it."""
        for cause in chain(error):
            if isinstance(cause, ClientError) and cause.operation_name in self.operations:
                return not self.is_conflict(cause.response["Error"]) and proves_nothing_made(cause)
            if isinstance(cause, BotoCoreError):
                return proves_nothing_made(cause)
        return proves_nothing_made(error)

    def require_id(self, value: Any, what: str) -> str:
        """``value`` if it can be an id. Raises: InvalidAnswerError."""
        if isinstance(value, str) and value:
            return value
        raise InvalidAnswerError(
            f"{self.service} answered the submit with {value!r} as the {what}, which is none. A job may be running: look for "
            "it in the service.",
            next_try="asks again with the same token, or looks the job up",
        )
