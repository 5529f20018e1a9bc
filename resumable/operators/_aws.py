"""One adapter for every AWS operator: botocore's event hooks on the operator's own client.

``provide-client-params`` adds the token and writes the intent, ``after-call`` keeps the handle, ``before-call`` answers from the
record (botocore ``client.py``: a response returned there takes the place of the request). No hook signature, no private name of
the provider is used. A service's module says in class attributes and a few small methods what its API looks like.
"""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import jmespath
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    SSOError,
)

from resumable import compat
from resumable.attempt import Attempt
from resumable.errors import (
    ConfigurationError,
    ForeignJobError,
    InvalidAnswerError,
    RecordError,
    ResumableError,
    StopNotTaken,
    chain,
)
from resumable.lifecycle import Certainty, JobState, Observation
from resumable.record import JobHandle, JobRecord
from resumable.rejection import is_refusal, proves_nothing_made
from resumable.remote import JobAdapter
from resumable.replay import ReplayMixin
from resumable.triggers import StopGuard

HOUR = 3600.0

TAG = "resumable-token"
"""The tag that carries the token where a job can be tagged."""

EXPIRED = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
"""Error codes of credentials that are no longer good (common errors of the services' API references, and S3's)."""

_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError)
_TIMED_OUT = 408
_CLOCK_SKEW = timedelta(minutes=15)
_QUICK = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 2})


_FROM_AFAR = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 3})
"""For a process that has other jobs to look after."""

_REGION = re.compile("[a-z]+(-[a-z0-9]+)+")


def _harmless(config: Any) -> dict[str, bool]:
    """What of a ``botocore_config`` may stand in a record: nothing that says where requests go, or by which way."""
    given = config if isinstance(config, Mapping) else {}
    return {name: value for name, value in given.items() if name == "inject_host_prefix" and isinstance(value, bool)}


_NOT_TAKEN: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "batch_stop_job_run": lambda answer: answer.get("Errors"),
    "cancel_flow_executions": lambda answer: answer.get("invalidExecutions"),
    "cancel_ingestion": lambda answer: answer.get("Status", 200) >= 300,  # an HTTP status, in the body
    "cancel_statement": lambda answer: answer.get("Status") is False,
    "cancel_steps": lambda answer: [s for s in answer.get("CancelStepsInfoList", ()) if s.get("Status") == "FAILED"],
    "stop_pii_entities_detection_job": lambda answer: answer.get("JobStatus") in ("SUBMITTED", "IN_PROGRESS"),
    "stop_task": lambda answer: answer.get("task", {}).get("desiredStatus", "STOPPED") != "STOPPED",
    "invoke_rest_api": lambda answer: (answer.get("RestApiResponse") or {}).get("state") != "failed",
}
"""By method of a client, what its answer says of a job that was not stopped (botocore's service models). All others answer a
cancel that they do not take with an error."""


def require_taken(method: str, answer: Mapping[str, Any]) -> None:
    """Raises: StopNotTaken: the answer to the cancel ``method`` says that it was not done."""
    if method in _NOT_TAKEN and _NOT_TAKEN[method](answer):
        told = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
        raise StopNotTaken(f"{method} was answered, and not done: {told}")


class _Left(BaseException):
    """Raised out of the provider's execute at its first look at the job. A BaseException, as `resumable.attempt.Again`."""


class _Raised(BaseException):
    """Carries an error of ours past a provider's ``except Exception``, which would make another of it."""

    def __init__(self, error: ResumableError) -> None:
        super().__init__(str(error))
        self.error = error


class AwsReplay(ReplayMixin):
    """
    The seam of an AWS operator. A service gives ``service``, ``operation``, ``stamp``, ``ids_of``, ``response_of``, ``stop_call``
    and ``state_of`` with its three sets of states, and what its class of certainty asks for:

    - A, the job's name is the token: ``conflicts`` and ``adopted``.
    - B, the service knows tokens: ``token_lifetime``, and perhaps ``find`` with ``finds_expired`` for what is older.
    - C, lookup: ``certainty = Certainty.FIND``, ``settle`` and ``find``; the submit goes out once.
    """

    certainty = Certainty.RESEND

    operation: ClassVar[str | tuple[str, ...]]
    """The API call that starts the job, as botocore names it; several where the provider chooses between them."""

    setup: ClassVar[tuple[str, ...]] = ()
    """API calls that the provider makes before the submit and that must change nothing on a reattachment: then they are answered
    by `setup_response`, without a request."""

    assumed: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """API calls by which the provider looks whether a new job can be started, and what they are answered with, without a request,
    where there is a job already: a job that is there needs nothing started for it."""

    makes: ClassVar[tuple[str, ...]] = ()
    """API calls by which the provider makes something under neither name nor token before the submit: they go out once, and a try
    whose answer is lost fails, because the next one finds what was made."""

    token_member: ClassVar[str] = ""
    """The member of the request that carries the token, where the service knows tokens. An author's own is sent as written."""

    unkept: ClassVar[frozenset[str]] = frozenset()
    """Members of the request that let whoever reads them act: in no record. A repeated request has those of its own try."""

    stops: ClassVar[tuple[str, ...]] = ()
    """API calls by which the provider's ``execute`` stops the job because its wait has ended: answered without a request."""

    looks: ClassVar[tuple[str, ...]] = ()
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

    active: ClassVar[frozenset[str]] = frozenset()
    succeeded: ClassVar[frozenset[str]] = frozenset()
    failed: ClassVar[frozenset[str]] = frozenset()
    """The service's words for a job's state. One that is in no set is UNKNOWN, and waited out."""

    missing_codes: ClassVar[frozenset[str]] = frozenset()
    """Error codes of a look that say that there is no such job."""

    missing_words: ClassVar[re.Pattern[str]] = re.compile("")
    """What the message must say of the job itself, where such a code may speak of something else as well (the application, the
    virtual cluster, the job definition): that is no answer about the job."""

    stopping: ClassVar[frozenset[str]] = frozenset()
    """Those of ``active`` that mean that the job was told to stop: a second cancel is then no error."""

    look_path: ClassVar[str] = ""
    """Where a stop undoes what the job has made once it is done (a cluster, a copy): the place, in JMESPath, of the job's word in
    the answer to `look_call`. Then a job is stopped only while its word is an active one."""

    wait_argument: ClassVar[str] = ""

    asks_account: ClassVar[bool] = True
    """Whether STS is asked for the account that the connection points at, before the submit and before a look at an earlier job:
    a token, a name or an id means nothing in another account. Where STS does not answer they are told apart by region alone."""

    reach_fields: ClassVar[tuple[str, ...]] = ("aws_conn_id", "region_name")

    @classmethod
    def _resumable_at_a_distance(cls, reach: Mapping[str, Any]) -> JobAdapter:
        region = reach.get("region_name")
        if region is not None and not (isinstance(region, str) and _REGION.fullmatch(region)):
            raise ConfigurationError(f"The record names {region!r} as the job's region, which is none")
        adapter = super()._resumable_at_a_distance(reach)
        config = _FROM_AFAR.merge(Config(**_harmless(reach.get("botocore_config"))))
        # Not the operator's own property: Glue's uploads the script when it is asked for the hook.
        hook = cls.aws_hook_class(aws_conn_id=reach.get("aws_conn_id"), region_name=region, config=config)
        vars(adapter).update(hook=hook, _resumable_is_at_a_distance=True)
        return adapter

    def _resumable_reach(self) -> dict[str, Any] | None:
        reach, config = super()._resumable_reach(), _harmless(getattr(self, "botocore_config", None))
        return {**reach, "botocore_config": config} if reach and config else reach

    if TYPE_CHECKING:  # of the provider's operator
        hook: Any
        aws_hook_class: ClassVar[Any]
        submit_job: Callable[[Any], Any]
        poll_until_complete: Callable[[Any, Any], Any]
        get_job_result: Callable[[Any, Any], Any]

    _resumable_account: str | None = None
    """The account that the connection points at, once it is known."""

    # -- what a service gives -----------------------------------------------------------------------------------------

    def stamp(self, params: dict[str, Any], token: str) -> None:
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

        Raise `InvalidAnswerError` on an impossible one (`wanted` does).
        """

    @abstractmethod
    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        """The answer to ``operation`` that belongs to ``handle``."""

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        """The client's method that asks the service to stop the job, and its arguments: one request."""
        raise NotImplementedError

    def look_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        """The client's method that looks at the job, and its arguments; needed with ``look_path``."""
        raise NotImplementedError

    def state_of(self, handle: JobHandle) -> str | None:
        """The service's word for the job's state, None if it no longer knows the job. See `is_missing` for errors."""
        raise NotImplementedError

    def is_missing(self, error: ClientError) -> bool:
        """Whether an error of `state_of` says, in the service's own words about this job, that there is none."""
        answer = error.response["Error"]
        return answer["Code"] in self.missing_codes and bool(self.missing_words.search(answer.get("Message") or ""))

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """What `find` needs to know of the request besides region, account and token."""
        return {}

    def is_conflict(self, error: Mapping[str, Any]) -> bool:
        """Whether an error answer, by its ``Code`` and ``Message``, says that a job with this token, or name, exists."""
        return error.get("Code") in self.conflicts

    def adopted(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> Any:  # noqa: ARG002
        """The ids of the job that an answer out of ``conflicts`` means; None: the doubt stays. ``error``: the parsed answer."""
        return None

    def account_in(self, operation: str, response: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The account id that the answer to another operation of the provider's ``execute`` tells, if it does."""
        return None

    def before_execute(self, attempt: Attempt) -> None:
        """Set what the provider's ``execute`` reads before its submit: names made of ``attempt.token``, ids to reattach to."""

    def stamp_setup(self, operation: str, params: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request of a call in ``setup``."""

    def setup_response(self, operation: str, params: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """The answer to a call in ``setup`` that is not made."""
        return {}

    def setup_exists(self, operation: str, error: Mapping[str, Any]) -> bool:  # noqa: ARG002
        """Whether an error answer to a call in ``setup`` says that what it makes is there already: then it is a success."""
        return False

    # -- given --------------------------------------------------------------------------------------------------------

    @property
    def operations(self) -> tuple[str, ...]:
        return (self.operation,) if isinstance(self.operation, str) else self.operation

    def place(self) -> Mapping[str, str]:
        return {"region": str(self.hook.conn_region_name)}

    def handle(self, ids: Any, record: JobRecord | None = None) -> JobHandle:
        """A handle with what is known of its place: where ``record`` was intended, or where the connection points."""
        account = record.place.get("account") if record else self._resumable_account
        return JobHandle(self.service, ids, {**self.place(), **({"account": account} if account else {})})

    def observe(self, handle: JobHandle) -> Observation:
        try:
            word = self.state_of(handle)
        except ClientError as e:
            if not self.is_missing(e):
                raise
            return self._resumable_missing(handle, str(e))
        return self._resumable_missing(handle, "not listed") if word is None else Observation(self.place_state(word), word)

    def place_state(self, word: str) -> JobState:
        """Where a word of the service's belongs."""
        if word in self.succeeded:
            return JobState.SUCCEEDED
        if word in self.failed:
            return JobState.FAILED
        return JobState.ACTIVE if word in self.active else JobState.UNKNOWN

    def _resumable_missing(self, handle: JobHandle, answer: str) -> Observation:
        account = handle.place.get("account")
        if account and account != (here := self.hook.account_id):
            return Observation(JobState.FOREIGN, f"account {here}")
        return Observation(JobState.GONE, answer)

    def _resumable_only_while(self, handle: JobHandle) -> dict[str, Any]:
        if not self.look_path:
            return {}
        method, arguments = self.look_call(handle)
        words = [word for word in sorted(self.active) if self.place_state(word) is JobState.ACTIVE]
        return {"only_while": {"method": method, "arguments": arguments, "path": self.look_path, "words": words}}

    def _resumable_is_to_be_stopped(self, handle: JobHandle) -> bool:
        """Whether a cancel may be sent. Raises: RuntimeError: that cannot be seen."""
        if not self.look_path:
            return True
        seen = self.observe(handle)
        if seen.state in (JobState.UNKNOWN, JobState.FOREIGN):
            raise RuntimeError(f"{handle} is {seen}, and only a job that is under way may be stopped")
        return seen.state is JobState.ACTIVE

    def cancel(self, handle: JobHandle) -> None:
        if not self._resumable_is_to_be_stopped(handle):
            return
        try:
            self.send_stop(handle)
        except (ClientError, StopNotTaken):
            if not self._resumable_needs_no_cancel(handle):
                raise

    def send_stop(self, handle: JobHandle) -> None:
        """The one request. Raises: StopNotTaken: the answer says that it was not done."""
        method, arguments = self.stop_call(handle)
        # At a distance the operator was never made, and Airflow's __setattr__ is not for it.
        vars(self)["_resumable_sends_stop"] = True
        try:
            require_taken(method, getattr(self.hook.conn, method)(**arguments))
        finally:
            vars(self)["_resumable_sends_stop"] = False

    _resumable_sends_stop = False

    def is_stopping(self, seen: Observation) -> bool:
        """Whether a job that still runs was told to stop."""
        return seen.detail in self.stopping

    def _resumable_needs_no_cancel(self, handle: JobHandle) -> bool:
        """Whether a cancel was refused because there is nothing left to cancel: the services have no one code for that."""
        try:
            seen = self.observe(handle)
        except Exception:
            return False
        return seen.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.GONE) or self.is_stopping(seen)

    def trigger(self, theirs: Any) -> Any:
        handle = self._resumable_attempt.handle if self._resumable_attempt is not None else None
        if handle is None:
            return theirs
        path, kwargs = theirs.serialize()
        method, arguments = self.stop_call(handle)
        return ResumableAwsTrigger(
            path=path,
            kwargs=kwargs,
            stop={
                "service": self.hook.client_type,
                "method": method,
                "arguments": arguments,
                **self._resumable_only_while(handle),
            },
            connection={
                "aws_conn_id": self.hook.aws_conn_id,
                "region_name": self.hook.conn_region_name,
                "verify": self.hook.verify,
                "config": getattr(self, "botocore_config", None),
            },
        )

    def _resumable_waits(self) -> bool:
        return not self.wait_argument or bool(getattr(self, self.wait_argument)) or bool(getattr(self, "deferrable", False))

    @contextmanager
    def _resumable_not_waiting(self) -> Iterator[None]:
        if self.wait_argument:
            with super()._resumable_not_waiting():
                yield
            return
        self._resumable_leaves = True
        try:
            yield
        except _Left:
            pass
        finally:
            self._resumable_leaves = False

    _resumable_leaves = False

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        self.before_execute(attempt)
        events = self.hook.conn.meta.events
        call = SubmitEvents(self, attempt)
        service = f"{self.service_event}."
        hooks: list[tuple[str, Callable[..., Any]]] = [(f"after-call.{self.service_event}", call.see)]
        for operation in self.operations:
            hooks += [
                (f"provide-client-params.{service}{operation}", call.stamp),
                (f"before-call.{service}{operation}", call.answer),
                (f"needs-retry.{service}{operation}", call.send_once),
                (f"after-call.{service}{operation}", call.keep),
            ]
        for operation in self.setup:
            hooks += [
                (f"provide-client-params.{service}{operation}", call.stamp_setup),
                (f"before-call.{service}{operation}", call.answer_setup),
                (f"after-call.{service}{operation}", call.accept_setup),
            ]
        hooks += [(f"before-call.{service}{operation}", call.assume) for operation in self.assumed]
        hooks += [(f"needs-retry.{service}{operation}", call.make_once) for operation in self.makes]
        hooks += [(f"before-call.{service}{operation}", call.leave_running) for operation in self.stops]
        hooks += [(f"before-call.{service}{operation}", call.leave) for operation in self.looks]
        for event, handler in hooks:
            events.register_first(event, handler)
        try:
            yield
        except _Raised as e:
            raise e.error from e.error.__cause__
        finally:
            for event, handler in hooks:
                events.unregister(event, handler)

    def _resumable_can_see(self) -> bool:
        return isinstance(self.hook.conn, BaseClient)

    @property
    def service_event(self) -> str:
        """The service's name in botocore's events, e.g. ``redshift-data``."""
        return str(self.hook.conn.meta.service_model.service_id.hyphenize())

    def is_expired(self, error: BaseException) -> bool:
        """An answer that the credentials have expired, or botocore's own news that there are none. Provider code may wrap it."""
        if self._resumable_is_at_a_distance:
            return False
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ClientError):
                return cause.response.get("Error", {}).get("Code") in EXPIRED
            if isinstance(cause, CredentialRetrievalError | SSOError | NoCredentialsError):
                return True
            cause = cause.__cause__ or cause.__context__
        return False

    _resumable_is_at_a_distance = False

    def is_rejection(self, error: BaseException) -> bool:
        """A 4xx answer to the submit, or an error before anything was sent. Provider code may have wrapped it."""
        for cause in chain(error):
            if isinstance(cause, ClientError) and cause.operation_name in self.operations:
                return not self.is_conflict(cause.response["Error"]) and proves_nothing_made(cause)
            if isinstance(cause, BotoCoreError):
                return proves_nothing_made(cause)
        return proves_nothing_made(error)

    def account(self) -> str | None:
        """The account that the connection points at, None if STS does not tell; asked once, and never for long."""
        if self._resumable_account is None:
            hook = self.hook
            try:
                vars(self)["_resumable_account"] = (
                    hook.get_session(region_name=hook.conn_region_name)
                    .client(
                        "sts",
                        endpoint_url=hook.conn_config.get_service_endpoint_url("sts"),
                        config=hook.config.merge(_QUICK) if hook.config else _QUICK,
                        verify=hook.verify,
                    )
                    .get_caller_identity()["Account"]
                )
            except Exception as e:
                self.log.debug("resumable: STS does not tell the account, ids are told apart by region alone: %r", e)
        return self._resumable_account

    def execute_resumable(self, context: Any) -> Any:
        """What newer providers' ``execute`` calls when it does not defer; their own durability is not needed under ours."""
        if not self._resumable_is_durable:
            return super().execute_resumable(context)  # type: ignore[misc]
        job_id = self.submit_job(context)
        self.poll_until_complete(job_id, context)
        return self.get_job_result(job_id, context)

    # -- for the services' modules ------------------------------------------------------------------------------------

    def wanted(self, value: Any, what: str) -> str:
        """``value`` if it can be an id. Raises: InvalidAnswerError."""
        if isinstance(value, str) and value:
            return value
        raise InvalidAnswerError(
            f"{self.service} answered the submit with {value!r} as the {what}, which is none. A job may be running: look for "
            "it in the service.",
            next_try="asks again with the same token, or looks the job up",
        )

    def ids(self, handle: JobHandle, *names: str) -> tuple[str, ...]:
        """The named ids of a handle. Raises: RecordError: the record does not hold them."""
        ids = handle.ids if isinstance(handle.ids, Mapping) else {}
        found = tuple(ids.get(name) for name in names)
        if all(isinstance(value, str) and value for value in found):
            return found  # type: ignore[return-value]
        raise RecordError(
            f"The record holds {handle.ids!r} as the ids of a {self.service} job, which they are not. Nothing was submitted, and "
            "the job, if there is one, is left alone. Look for it in the service, then delete the task state key 'resumable' of "
            "this task instance."
        )

    @staticmethod
    def oldest(record: JobRecord) -> datetime:
        """The earliest time that the service can have noted for a job of ``record``."""
        return datetime.fromtimestamp(record.intended_at, timezone.utc) - _CLOCK_SKEW


def _carried(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def carry(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except ResumableError as e:
            raise _Raised(e) from e

    return carry


class _Answered:
    """What botocore reads of an HTTP response that was not sent."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class SubmitEvents:
    """The event handlers of one attempt."""

    def __init__(self, operator: AwsReplay, attempt: Attempt) -> None:
        self._operator, self._attempt = operator, attempt
        self._params: Mapping[str, Any] = {}
        self._setup_params: Mapping[str, Any] = {}
        self._is_keeping = False

    # -- the submit ---------------------------------------------------------------------------------------------------

    @_carried
    def stamp(self, params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
        operator, attempt = self._operator, self._attempt
        if attempt.replays:
            return None
        self._check_account()
        account = {"account": operator._resumable_account} if operator._resumable_account else {}
        repeatable = operator.certainty is Certainty.RESEND
        kept = {name: value for name, value in params.items() if name not in operator.unkept}
        own = operator.own_token(params)
        if own:
            operator.log.warning(
                "resumable: %s=%r is yours, and sent as it is. It keeps crashes from starting a second job, but a retry after a "
                "failed job, a clear, or another task with the same token is answered with the old job. Leave it unset to get a "
                "token per submission.",
                operator.token_member,
                own,
            )
        where = {**account, **operator.where(params)}
        token, sent = attempt.intend(kept if repeatable else None, token=own, where=where)
        unkept = {name: value for name, value in params.items() if name in operator.unkept}
        stamped = copy.deepcopy({**sent, **unkept} if repeatable else params)
        operator.stamp(stamped, token)
        self._params = stamped
        return stamped

    def _check_account(self) -> None:
        """A token means nothing in another account: repeated there, it makes a second job."""
        operator, record = self._operator, self._attempt.record
        there = record.place.get("account") if record is not None and record.in_doubt else None
        here = operator.account() if operator.asks_account or there else None
        if here and there and here != there:
            raise ForeignJobError(
                f"An earlier submit to {operator.service} in account {there} was left unanswered, and the connection points at "
                f"account {here}. Nothing was submitted; a job may be running there. Point the connection back, or, once it no "
                "longer matters, delete the task state key 'resumable' of this task instance."
            )

    @_carried
    def answer(self, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        if self._attempt.handle is None:
            return None
        return self._answered(self._operator.response_of(self._attempt.handle), self._operator.http_status)

    @staticmethod
    def _answered(response: dict[str, Any], status: int = 200) -> tuple[_Answered, dict[str, Any]]:
        metadata = {**response.get("ResponseMetadata", {}), "HTTPStatusCode": status}
        return _Answered(status), {**response, "ResponseMetadata": metadata}

    def send_once(self, response: Any = None, caught_exception: Any = None, *, operation: Any = None, **_: Any) -> None:
        """Hold botocore back, which re-sends on time-outs and 5xx: without a token in the request, that makes a second job."""
        self.note_loss(response, caught_exception)
        if self._operator.certainty is Certainty.FIND:
            self.make_once(response, caught_exception, operation=operation)

    def note_loss(self, response: Any = None, caught_exception: Any = None, **_: Any) -> None:
        """Of each request that botocore sends for the submit: the error of the last one says nothing of those before."""
        if caught_exception is not None:
            is_lost = not proves_nothing_made(caught_exception)
        else:
            is_lost = response is not None and response[0].status_code >= 300 and not self._tells_what_came_of_it(*response)
        if is_lost:
            self._attempt.perhaps_made()

    def _tells_what_came_of_it(self, answer: Any, parsed: Mapping[str, Any]) -> bool:
        """A name that is taken is judged by itself (some services say it with status 409, which can mean anything elsewhere)."""
        return is_refusal(answer.status_code) or self._operator.is_conflict(parsed.get("Error", {}))

    def make_once(self, response: Any = None, caught_exception: Any = None, *, operation: Any = None, **_: Any) -> None:
        if caught_exception is not None and not isinstance(caught_exception, _NEVER_SENT):
            raise caught_exception
        if response is not None and (response[0].status_code >= 500 or response[0].status_code == _TIMED_OUT):
            raise ClientError(response[1], operation.name if operation is not None else self._operator.operations[0])

    @_carried
    def keep(self, http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        if self._attempt.replays:
            return
        self._is_keeping = True
        try:
            if http_response.status_code < 300:
                self._keep(self._operator.ids_of(parsed, self._params))
            elif self._operator.is_conflict(parsed.get("Error", {})):
                self._adopt(http_response, parsed)
        finally:
            self._is_keeping = False

    def _keep(self, ids: Any) -> None:
        if ids is None:
            self._attempt.rejected(used_up=True)
        else:
            self._attempt.submitted(self._operator.handle(ids))

    def _adopt(self, http_response: Any, parsed: dict[str, Any]) -> None:
        ids = self._operator.adopted(parsed, self._params, self._attempt.token)
        if ids is None:
            return
        self._keep(ids)
        http_response.status_code, response = self.answer_of_record()
        parsed.clear()
        parsed.update(response)

    def answer_of_record(self) -> tuple[int, dict[str, Any]]:
        answered = self.answer()
        assert answered is not None
        return answered[0].status_code, answered[1]

    # -- other calls --------------------------------------------------------------------------------------------------

    def see(self, model: Any, parsed: Mapping[str, Any], **_: Any) -> None:
        """Every other call on the client is a chance to write a record whose write had failed."""
        operator = self._operator
        if model.name not in operator.operations:
            operator._resumable_account = operator.account_in(model.name, parsed) or operator._resumable_account
            self._attempt.flush()

    @_carried
    def leave(self, **_: Any) -> None:
        self._operator.refuse_unseen(self._attempt)
        if self._operator._resumable_leaves and self._attempt.handle is not None and not self._is_keeping:
            raise _Left

    def leave_running(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        if self._operator._resumable_sends_stop:
            return None
        self._operator.log.info("resumable: the provider's %s is not sent: the wait has ended, not the job", model.name)
        return self._answered({})

    def stamp_setup(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        stamped = copy.deepcopy(params)
        self._operator.stamp_setup(model.name, stamped, self._attempt.token)
        self._setup_params = stamped
        return stamped

    def answer_setup(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        # An unanswered submit went out after its setup, so that is done in this case too.
        if self._attempt.is_first_submit:
            return None
        return self._answered(self._operator.setup_response(model.name, self._setup_params))

    def assume(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        return self._answered(dict(self._operator.assumed[model.name])) if self._attempt.replays else None

    def accept_setup(self, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if http_response.status_code >= 300 and self._operator.setup_exists(model.name, parsed):
            http_response.status_code = 200
            parsed.clear()
            parsed.update(self._answered(self._operator.setup_response(model.name, self._setup_params))[1])


class ResumableAwsTrigger(StopGuard, compat.base_trigger()):  # type: ignore[misc]
    """
    Any trigger of the provider's, with a cancel of the job when a user stops the deferred task.

    Args:
        path: the provider's trigger, as it serialises itself.
        kwargs: its arguments.
        stop: ``service``, ``method`` and ``arguments`` of the request that stops the job. With ``only_while`` it is made only
            while the job has one of its ``words``, at ``path`` in the answer to its own ``method`` and ``arguments``.
        connection: ``aws_conn_id``, ``region_name``, ``verify`` and ``config`` of the hook for that request.
    """

    def __init__(
        self,
        *,
        path: str,
        kwargs: dict[str, Any],
        stop: dict[str, Any],
        connection: dict[str, Any],
        keeps_on_clear: bool = True,
    ) -> None:
        super().__init__(keeps_on_clear=keeps_on_clear)
        self.path, self.kwargs, self.stop, self.connection = path, kwargs, stop, connection

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {
            "path": self.path,
            "kwargs": self.kwargs,
            "stop": self.stop,
            "connection": self.connection,
            "keeps_on_clear": True,
        }

    async def watch(self) -> AsyncIterator[Any]:
        module, _, name = self.path.rpartition(".")
        theirs = getattr(import_module(module), name)(**self.kwargs)
        for known in ("task_instance", "trigger_id", "triggerer_job_id", "timeout_after"):
            if known in vars(self):
                setattr(theirs, known, vars(self)[known])
        if hasattr(theirs, "cancel_on_kill"):
            theirs.cancel_on_kill = False  # before 3.3 some cancel by themselves, after a clear as well
        async for event in theirs.run():
            yield event

    async def cancel(self) -> None:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        hook = AwsBaseHook(client_type=self.stop["service"], **self.connection)
        async with await hook.get_async_conn() as client:
            if (only := self.stop.get("only_while")) is not None:
                word = jmespath.search(only["path"], await getattr(client, only["method"])(**only["arguments"]))
                if word not in only["words"]:
                    self.log.info("resumable: the job is %s, there is nothing left to stop", word)
                    return
            require_taken(self.stop["method"], await getattr(client, self.stop["method"])(**self.stop["arguments"]))


def chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """``ids`` in pieces of what one request takes."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])
