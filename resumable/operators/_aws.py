"""One adapter for every AWS operator: botocore's event hooks on the operator's own client.

``provide-client-params`` adds the token and writes the intent, ``after-call`` keeps the handle, ``before-call`` answers from the
record (botocore ``client.py``: a response returned there takes the place of the request). No hook signature, no private name of
the provider is used.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
)

from resumable.attempt import Attempt
from resumable.lifecycle import Certainty
from resumable.record import JobHandle
from resumable.replay import ReplayMixin

_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError)


class _Answered:
    """What botocore reads of an HTTP response that was not sent."""

    status_code = 200


class AwsReplay(ReplayMixin):
    """
    The seam of an AWS operator. A service gives ``service``, ``operation``, ``stamp``, ``ids_of``, ``response_of`` and what
    `ReplayMixin` asks for.
    """

    operation: ClassVar[str]
    """The API call that starts the job, as botocore names it."""

    reach_fields = ("aws_conn_id", "region_name", "verify")
    botocore_config: Any = None

    if TYPE_CHECKING:  # of the provider's operator
        hook: Any

    _account: str | None = None
    """The account that the job lives in, once an answer of the service has told it."""

    @abstractmethod
    def stamp(self, params: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request."""

    @abstractmethod
    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        """The job's id(s) from the answer to ``operation``. Raise `InvalidHandleError` on an impossible one."""

    @abstractmethod
    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        """The answer to ``operation`` that belongs to ``handle``."""

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        """What `find` needs to know of the request besides region and token."""
        return {}

    def account_in(self, operation: str, response: Mapping[str, Any]) -> str | None:
        """The account id that the answer to another operation of the provider's ``execute`` tells, if it does."""
        return None

    def before_execute(self, attempt: Attempt) -> None:
        """Set what the provider's ``execute`` reads before its submit, when it is to reattach."""

    def place(self) -> Mapping[str, str]:
        return {"region": str(self.hook.conn_region_name)}

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        self.before_execute(attempt)
        events = self.hook.conn.meta.events
        call = _Submit(self, attempt)
        name = f"{self.service}.{self.operation}"
        hooks: list[tuple[str, Callable[..., Any]]] = [
            (f"provide-client-params.{name}", call.stamp),
            (f"before-call.{name}", call.answer),
            (f"needs-retry.{name}", call.send_once),
            (f"after-call.{name}", call.keep),
            (f"after-call.{self.service}", call.look),
        ]
        for event, handler in hooks:
            events.register_first(event, handler)
        try:
            yield
        finally:
            for event, handler in hooks:
                events.unregister(event, handler)

    def is_rejection(self, error: BaseException) -> bool:
        """A 4xx answer, or an error before anything was sent. Provider code may have wrapped it."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ClientError):
                status: int = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                return 400 <= status < 500
            if isinstance(cause, BotoCoreError):
                return isinstance(cause, _NEVER_SENT) or not isinstance(cause, HTTPClientError)
            cause = cause.__cause__ or cause.__context__
        return False


class _Submit:
    """The event handlers of one attempt."""

    def __init__(self, operator: AwsReplay, attempt: Attempt) -> None:
        self._operator, self._attempt = operator, attempt
        self._params: Mapping[str, Any] = {}

    def stamp(self, params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
        operator, attempt = self._operator, self._attempt
        if attempt.replays:
            return None
        repeatable = operator.certainty is Certainty.RESEND
        token, sent = attempt.intend(params if repeatable else None, where=operator.where(params))
        stamped = copy.deepcopy(sent if repeatable else params)
        operator.stamp(stamped, token)
        self._params = stamped
        return stamped

    def answer(self, **_: Any) -> tuple[type[_Answered], dict[str, Any]] | None:
        if self._attempt.handle is None:
            return None
        response = self._operator.response_of(self._attempt.handle)
        return _Answered, {**response, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def send_once(self, response: Any = None, caught_exception: Any = None, **_: Any) -> None:
        """botocore re-sends on time-outs and 5xx. Without a token in the request, that makes a second job."""
        if self._operator.certainty is not Certainty.FIND:
            return
        if caught_exception is not None and not isinstance(caught_exception, _NEVER_SENT):
            raise caught_exception
        if response is not None and response[0].status_code >= 500:
            raise ClientError(response[1], self._operator.operation)

    def keep(self, http_response: Any, parsed: Mapping[str, Any], **_: Any) -> None:
        operator, attempt = self._operator, self._attempt
        if attempt.replays or http_response.status_code >= 300:
            return
        place = dict(operator.place())
        if operator._account:
            place["account"] = operator._account
        attempt.submitted(JobHandle(operator.service, operator.ids_of(parsed, self._params), place))

    def look(self, model: Any, parsed: Mapping[str, Any], **_: Any) -> None:
        """Every other call on the client is a chance to write a record whose write had failed."""
        operator = self._operator
        if model.name != operator.operation:
            operator._account = operator.account_in(model.name, parsed) or operator._account
            self._attempt.flush()
