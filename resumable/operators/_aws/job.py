"""What a job of an AWS service is there: its states, its account, how it is seen and stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from botocore.config import Config
from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError, SSOError

from resumable.errors import ConfigurationError, RecordError, StopNotTaken, chain
from resumable.helpers import replaced
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.provider_job import ProviderJob
from resumable.jobs.record import JobHandle, JobRecord
from resumable.operators._aws.trigger import ResumableAwsTrigger, require_taken

if TYPE_CHECKING:
    from typing_extensions import Self

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

_CLOCK_SKEW = timedelta(minutes=15)
_QUICK = Config(connect_timeout=3, read_timeout=3, retries={"total_max_attempts": 2})


_FROM_AFAR = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 3})
"""For a process that has other jobs to look after."""

_REGION = re.compile("[a-z]+(-[a-z0-9]+)+")


def _region_of(connection: Mapping[str, Any]) -> str | None:
    region = connection.get("region_name")
    if region is not None and not _REGION.fullmatch(str(region)):
        raise ConfigurationError(f"The record names {region!r} as the job's region, which is not a valid one")
    return region


def _harmless(config: Any) -> dict[str, bool]:
    """What of a ``botocore_config`` may stand in a record: nothing that says where requests go, or by which way."""
    given = config if isinstance(config, Mapping) else {}
    return {name: value for name, value in given.items() if name == "inject_host_prefix" and isinstance(value, bool)}


class AwsJob(ProviderJob):
    """
    A job of an AWS service. A service gives ``service``, ``stop_call`` and ``state_of`` with its three sets of states, and
    ``find`` if its jobs can be looked up.
    """

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

    asks_account: ClassVar[bool] = True
    """Whether STS is asked for the account that the connection points at, before the submit and before a look at an earlier job:
    a token, a name or an id means nothing in another account. Where STS does not answer they are told apart by region alone."""

    reach_fields: ClassVar[tuple[str, ...]] = ("aws_conn_id", "region_name")

    known_account: str | None = None
    """The account that the connection points at, once it is known."""

    mark_in: Literal["tag", "name"] = "tag"
    """Where a job carries its token, for services that mark their jobs. A subclass of the operator says otherwise by an attribute
    of this name."""

    _sends_stop = False

    def __init__(self, operator: Any) -> None:
        super().__init__(operator)
        self.mark_in = getattr(operator, "mark_in", self.mark_in)

    @classmethod
    def of_record(cls, operator: Any, connection: Mapping[str, Any]) -> Self:
        made = super().of_record(operator, connection)
        made.mark_in = getattr(operator, "mark_in", cls.mark_in)
        region = _region_of(connection)
        config = _FROM_AFAR.merge(Config(**_harmless(connection.get("botocore_config"))))
        # Not the operator's own property: Glue's uploads the script when it is asked for the hook.
        made._own_hook = operator.aws_hook_class(aws_conn_id=connection.get("aws_conn_id"), region_name=region, config=config)
        return made

    def connection(self) -> dict[str, Any] | None:
        kept, config = super().connection(), _harmless(getattr(self.operator, "botocore_config", None))
        return {**kept, "botocore_config": config} if kept and config else kept

    @classmethod
    def shares(cls, operator: Any, connection: Mapping[str, Any], more: Mapping[str, Any]) -> str:
        kind = operator.aws_hook_class
        names = ("aws_conn_id", "region_name", "botocore_config")
        return json.dumps([f"{kind.__module__}.{kind.__qualname__}", [connection.get(name) for name in names], dict(more)])

    @classmethod
    def shared_client(cls, operator: Any, connection: Mapping[str, Any], more: Mapping[str, Any], *, requests: int) -> Any:
        """The hook, its client made. What the connection's extra says of the client is kept, as in the operator's own."""
        given = {
            "aws_conn_id": connection.get("aws_conn_id"),
            "region_name": _region_of(connection),
            "verify": more.get("verify"),
        }
        own = more.get("config") or _harmless(connection.get("botocore_config"))
        config = Config(**own) if own else operator.aws_hook_class(**given).conn_config.botocore_config or Config()
        once = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": requests}, max_pool_connections=8)
        hook = operator.aws_hook_class(**given, config=config.merge(once))
        _ = hook.conn
        return hook

    def more_of_client(self) -> dict[str, Any]:
        verify, config = self.hook.verify, getattr(self.operator, "botocore_config", None)
        return {
            **({"verify": verify} if isinstance(verify, bool | str) else {}),
            **({"config": dict(config)} if isinstance(config, Mapping) and config else {}),
        }

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

    def place(self) -> Mapping[str, str]:
        return {"region": str(self.hook.conn_region_name)}

    def handle(self, ids: Any, record: JobRecord | None = None) -> JobHandle:
        """A handle with what is known of its place: where ``record`` was intended, or where the connection points."""
        account = record.place.get("account") if record else self.known_account
        return JobHandle(self.service, ids, {**self.place(), **({"account": account} if account else {})})

    def observe(self, handle: JobHandle) -> Observation:
        try:
            word = self.state_of(handle)
        except ClientError as e:
            if not self.is_missing(e):
                raise
            return self.missing(handle, str(e))
        return self.missing(handle, "not listed") if word is None else Observation(self.classify(word), word)

    def classify(self, word: str) -> JobState:
        """Where a word of the service's belongs."""
        if word in self.succeeded:
            return JobState.SUCCEEDED
        if word in self.failed:
            return JobState.FAILED
        return JobState.ACTIVE if word in self.active else JobState.UNKNOWN

    def missing(self, handle: JobHandle, answer: str) -> Observation:
        account = handle.place.get("account")
        if account and account != (here := self.hook.account_id):
            return Observation(JobState.FOREIGN, f"account {here}")
        return Observation(JobState.GONE, answer)

    def _only_while(self, handle: JobHandle) -> dict[str, Any]:
        if not self.look_path:
            return {}
        method, arguments = self.look_call(handle)
        words = [word for word in sorted(self.active) if self.classify(word) is JobState.ACTIVE]
        return {"only_while": {"method": method, "arguments": arguments, "path": self.look_path, "words": words}}

    def _is_to_be_stopped(self, handle: JobHandle) -> bool:
        """Whether a cancel may be sent. Raises: RuntimeError: that cannot be seen."""
        if not self.look_path:
            return True
        seen = self.observe(handle)
        if seen.state in (JobState.UNKNOWN, JobState.FOREIGN):
            raise RuntimeError(f"{handle} is {seen}, and only a job that is under way may be stopped")
        return seen.state is JobState.ACTIVE

    def cancel(self, handle: JobHandle) -> None:
        if not self._is_to_be_stopped(handle):
            return
        try:
            self.send_stop(handle)
        except (ClientError, StopNotTaken):
            if not self._needs_no_cancel(handle):
                raise

    def send_stop(self, handle: JobHandle) -> None:
        """The one request. Raises: StopNotTaken: the answer says that it was not done."""
        method, arguments = self.stop_call(handle)
        with replaced(self, _sends_stop=True):
            require_taken(method, getattr(self.hook.conn, method)(**arguments))

    def is_stopping(self, seen: Observation) -> bool:
        """Whether a job that still runs was told to stop."""
        return seen.detail in self.stopping

    def _needs_no_cancel(self, handle: JobHandle) -> bool:
        """Whether a cancel was refused because there is nothing left to cancel: the services have no one code for that."""
        try:
            seen = self.observe(handle)
        except Exception:
            return False
        return seen.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.GONE) or self.is_stopping(seen)

    def trigger(self, theirs: Any) -> Any:
        theirs = super().trigger(theirs)
        attempt = self.known_attempt
        if attempt is None or (handle := attempt.handle) is None:
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
                **self._only_while(handle),
            },
            connection={
                "aws_conn_id": self.hook.aws_conn_id,
                "region_name": self.hook.conn_region_name,
                "verify": self.hook.verify,
                "config": getattr(self.operator, "botocore_config", None),
            },
        )

    def is_expired(self, error: BaseException) -> bool:
        """An answer that the credentials have expired, or botocore's own news that there are none. Provider code may wrap it."""
        for cause in chain(error):
            if isinstance(cause, ClientError):
                return cause.response.get("Error", {}).get("Code") in EXPIRED
            if isinstance(cause, CredentialRetrievalError | SSOError | NoCredentialsError):
                return True
        return False

    def account(self) -> str | None:
        """The account that the connection points at, None if STS does not tell; asked once, and never for long."""
        if self.known_account is None:
            hook = self.hook
            try:
                self.known_account = (
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
        return self.known_account

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
