"""A job's service as an object: how a job is submitted, seen, found and stopped there, and how its operator waits for it."""

from __future__ import annotations

import inspect
import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from resumable import host
from resumable.errors import ConfigurationError
from resumable.helpers import import_path
from resumable.jobs.decision import Observation, Recovery
from resumable.jobs.limits import Limit
from resumable.jobs.one_of_many import OneOfMany
from resumable.jobs.record import JobHandle, JobRecord
from resumable.jobs.rejection import proves_nothing_made
from resumable.jobs.remote import VISIBLE_AFTER
from resumable.jobs.spec import spec_values

if TYPE_CHECKING:
    from typing_extensions import Self

    from resumable.jobs.attempt import Attempt
    from resumable.jobs.run import JobRun
    from resumable.stores.base import RecordStore

_log = logging.getLogger("resumable")


class JobService(OneOfMany):
    """
    What is the same for all operators that start such a job; made from an operator, or from a job's record.

    Whoever looks at a job asks an object like this one: an attempt, a trigger, the sweep, the command. What concerns the job
    alone (`observe`, `find`, `cancel`, `place`) reads no more of the operator than the ``reach_fields``.

    Attributes:
        operator: the operator; for a job of a record an object with its ``reach_fields`` and no more.
        run: the start of the task that this object was made for.
    """

    service: str
    """Its name in records and logs."""
    recovery: Recovery
    settle: float = 0.0
    """Seconds after a submit went out before "no job carries the token" is believed (a request in flight, a list's lag)."""
    visible_after: float = VISIBLE_AFTER
    """Seconds after its submit before "there is no such job" is believed of a job whose id is known."""
    token_lifetime: ClassVar[float | None] = None
    """Seconds for which the service is sure to know a token (None: for ever); older doubt is looked up, or left to a person."""
    finds_expired: ClassVar[bool] = False
    """Whether `find` can be asked once the token has expired."""
    stop_deletes: ClassVar[bool] = False
    """Whether a cancel deletes the job: then it is not there afterwards."""
    not_templated: ClassVar[Sequence[str]] = ()
    """Attributes of the operator that make up its job as its template fields do."""
    limits: ClassVar[Sequence[Limit]] = ()
    """The operator's arguments that limit its wait. One that the author gave ends the try, the job is left running."""
    goes_on_undeferred: ClassVar[bool] = False
    """The operator's ``execute`` goes on to its result where `defer` returns: then it does not defer for a job that is done."""
    is_looked_at_after_deferral: ClassVar[bool] = True
    """Whether the job is looked at when a deferral has ended badly, and its end noted when it has ended well."""
    submits_undeferred: ClassVar[bool] = False
    """The operator is covered with ``deferrable=False`` alone: a default of airflow.cfg yields."""
    own_trigger: ClassVar[Any] = None
    """The class whose trigger takes the place of the provider's, made with the same arguments; None: the provider's stays."""
    joins_workflows: ClassVar[bool] = False
    """A task of it that is downstream of a workflow's ``launch`` watches a part of that job, and keeps no record of its own."""

    run: JobRun
    operator: Any

    def __init__(self, operator: Any) -> None:
        self.operator = operator

    @classmethod
    def of_record(cls, operator: Any, connection: Mapping[str, Any]) -> Self:
        """
        The service of a job whose task runs nowhere.

        Args:
            operator: the class of the task's operator.
            connection: what the record keeps of it.

        Raises:
            ConfigurationError: it cannot be what was kept.
        """
        names = cls.reach_fields or ()
        values = values_of_record(names, connection)
        if wrong := [name for name in names if name in connection and name not in values]:
            raise ConfigurationError(f"The record has {wrong[0]}={connection[wrong[0]]!r}, which nothing of ours has kept")
        missing = {name: default_of(operator, name) for name in names if name not in values}  # a record of an earlier release
        return cls(SimpleNamespace(log=_log, **missing, **values))

    @property
    def log(self) -> Any:
        return self.operator.log

    # -- the job ------------------------------------------------------------------------------------------------------

    def place(self) -> Mapping[str, str]:
        """Where the connection points (workspace, region ...), without a request: an id means nothing elsewhere."""
        return {}

    @abstractmethod
    def observe(self, handle: JobHandle) -> Observation:
        """
        One look at the job. UNKNOWN for a state it cannot place; GONE for an empty answer, or one that says in the service's own
        words that there is no such job. May raise anything: an error never means that the job failed.
        """

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None:
        """
        Ask the service to stop the job: one request, no waiting. May be called twice, also for a job that ended.

        Raises:
            NotImplementedError: it cannot be stopped. Anything else: the request failed.
        """

    def find(self, record: JobRecord) -> JobHandle | None:
        """The job that carries ``record.token``, None only when there is certainly none. Asked for Recovery.LOOK_UP alone."""
        raise NotImplementedError

    def is_stopping(self, seen: Observation) -> bool:  # noqa: ARG002
        """Whether a job that still runs was told to stop."""
        return False

    def end_to_keep(self, seen: Observation) -> str:  # noqa: ARG002
        """The words of an end that the record keeps, for the operator's own code once the service has forgotten the job."""
        return ""

    def renew(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error says that the credentials have expired, and what holds them was dropped."""
        return False

    def handle_of(self, external_id: Any) -> JobHandle:
        """The handle of the job that the operator's own durability (Airflow 3.3) knows by ``external_id``."""
        return JobHandle(self.service, external_id, self.place())

    def is_same_job(self, one: JobHandle, other: JobHandle) -> bool:
        """Whether two handles of this service are of one job, or have one in common; what is known of a place has to agree."""
        place = dict(one.place)
        is_here = all(place.get(name, value) == value for name, value in other.place.items())
        return is_here and self.have_job_in_common(one.ids, other.ids)

    def have_job_in_common(self, one: Any, other: Any) -> bool:
        """Whether the ids of two handles are of one job."""
        return bool(one == other)

    # -- the errors of a submit and of a wait -------------------------------------------------------------------------

    def is_rejection(self, error: BaseException) -> bool:
        """
        Whether an error of the submit proves that no job was made. Everything else leaves a doubt.

        Default: a 4xx answer (not 408, 409, 429) of whatever client library, no connection (refused, DNS, TLS), an unknown
        Airflow connection, `NotSubmitted`.
        """
        return proves_nothing_made(error)

    def is_token_spent(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error of the submit proves that its token made a job which was deleted: ``on_missing`` then applies."""
        return False

    def is_wait_trouble(self, error: BaseException) -> bool:
        """Whether an exception of the wait, while the job is active or has succeeded, means that the wait may simply go on."""
        return not host.is_final(error)

    # -- the operator -------------------------------------------------------------------------------------------------

    @classmethod
    def adapt_class(cls, operator: Any) -> None:
        """Called once for each durable class of operators, those that authors derive included."""

    @classmethod
    def check_operator(cls, operator: Any) -> None:
        """Raises: ConfigurationError: the operator's arguments cannot be had with ours."""

    @classmethod
    def check_reschedule(cls, operator: Any) -> None:
        """Raises: ConfigurationError: the operator cannot leave while it waits (``wait="reschedule"`` and ``"defer"``)."""

    @classmethod
    def can_stop(cls, operator: Any) -> bool:  # noqa: ARG003
        """Whether the operator's job can be stopped at all: ``job_timeout`` needs that."""
        return True

    @classmethod
    def spec_values(cls, operator: Any) -> dict[str, Any]:
        """The values that make up the operator's job, by the names of its attributes."""
        return spec_values(operator, getattr(operator, "spec_fields", None), cls.not_templated)

    def waits(self) -> bool:
        """Whether the task waits for the job's end."""
        return True

    @classmethod
    def can_be_reached(cls, operator: type) -> bool:
        """Whether a process that has a record of a job of this class of operators can look at it, and stop it."""
        return cls.reach_fields is not None and path_of_class(operator) is not None

    def connection(self) -> dict[str, Any] | None:
        """How the job is reached when no process holds the task: the operator's class and the values of ``reach_fields``."""
        if self.reach_fields is None or (path := path_of_class(type(self.operator))) is None:
            return None
        return {"operator": path, **kept_values(self.operator, self.reach_fields)}

    def one_job(self, record: JobRecord) -> str:
        """
        Why the service would answer a submit of this try with ``record``'s job, or refuse it because of that, in words; empty if
        it would not. Here: its token is the author's own, and unchanged.
        """
        if not self.is_given(record.token):
            return ""
        return f"its token {record.token!r} is your own and unchanged: {record.service} would answer a submit with this job"

    def is_given(self, token: str) -> bool:
        """
        Whether a token is the author's: it stands in what the operator was called with, or has on itself. Never an error: of what
        cannot be searched (a dict that holds itself, a mapping that raises) nothing is known.
        """
        own = {name: value for name, value in vars(self.operator).items() if not name.startswith("_resumable")}
        return any(_may_hold(value, token) for value in (*own.values(), *host.given(self.operator).values()))

    # -- a start of the task ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Called first of all in a start of the task."""

    @abstractmethod
    def execute(self, theirs: Callable[[], Any]) -> Any:
        """Run the operator's own ``execute``, its submit through the attempt of this start."""

    def records(self) -> RecordStore | None:
        """Where the record is kept, if not in the task's state."""
        return None

    def policy_of(self, policy: Any) -> Any:
        """The policy of an attempt."""
        return policy

    def note_failure(self, attempt: Attempt, seen: Observation) -> None:
        """The try fails, with the job as it was seen: called before anything is made of that."""

    def stop_job(self, attempt: Attempt, why: str) -> bool:
        """Stop the job, by the author's own ``on_kill`` if there is one. True if it was told to stop."""
        if self.has_own_on_kill():
            call_on_kill(self.operator, attempt, why)
            if attempt.has_ended():
                return True
        return attempt.cancel(why)

    def has_own_on_kill(self) -> bool:
        """Whether there is an ``on_kill`` below ours: the provider's own does what `cancel` does, if it has one."""
        classes = type(self.operator).__mro__
        written = next(c for c in classes if "on_kill" in vars(c))
        return classes.index(written) < classes.index(type(self.operator)._resumable.operator)

    # -- a deferral ---------------------------------------------------------------------------------------------------

    def trigger(self, theirs: Any) -> Any:
        """The trigger to defer with, in place of the provider's."""
        return theirs if self.own_trigger is None else self.own_trigger(**theirs.serialize()[1])

    def refuse_unseen(self) -> None:
        """Raises: UnseenSubmitError: the operator's code watches a job that it has submitted past us."""

    def undeferred(self) -> AbstractContextManager[None]:
        """While it is open, the operator's ``execute`` says without a deferral what has come of a job that has ended."""
        return nullcontext()

    def restarts(self, method: str) -> bool:  # noqa: ARG002
        """Whether a deferral that comes back to ``method`` was one before the submit: then ``execute`` is run."""
        return False

    def resume(self, method: str, kwargs: Mapping[str, Any], theirs: Callable[[], Any]) -> Any:  # noqa: ARG002
        """The way back from a deferral: ``theirs`` calls the operator's ``method``."""
        return theirs()


def call_on_kill(operator: Any, attempt: Attempt, why: str) -> bool:
    """Call the ``on_kill`` of the operator's classes. False if it failed."""
    operator.log.info("resumable: calling on_kill to stop %s: %s", attempt.handle or "the job", why)
    try:
        type(operator).on_kill(operator)
    except (Exception, SystemExit) as e:
        operator.log.warning("resumable: on_kill failed: %r", e)
        return False
    return True


def _may_hold(value: Any, text: str) -> bool:
    try:
        return _holds(value, text)
    except Exception as e:
        _log.debug("resumable: a value of the operator cannot be searched: %r", e)
        return False


def _holds(value: Any, text: str) -> bool:
    """Whether ``text`` stands somewhere in a value of dicts and lists."""
    if isinstance(value, Mapping):
        return any(_holds(entry, text) for entry in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(entry, text) for entry in value)
    return isinstance(value, str | int) and str(value) == text


# -- what a record keeps of the operator -----------------------------------------------------------------------------------------
#
# A task can write anything into its record. So what says where requests go or as whom (a host, a URL, a proxy, a role, a config)
# is neither kept nor read: that belongs into the connection, whose name is kept.

_WHERE_OR_AS_WHOM = re.compile(
    "host|url|endpoint|prox(y|ies)|passw|(^|_)(uri|ssl|tls|certs?|roles?|config|login|user|token|secret|extra)(_|$)|(^|_)verify$",
    re.IGNORECASE,
)
"""In the name of an attribute: where requests go, or as whom."""

_LONGEST = 250
"""Characters of a connection's name in Airflow."""


def path_of_class(cls: type) -> str | None:
    """``module:Class`` of the nearest class that another process can import and use: not one of a DAG file or of a function."""
    for klass in cls.__mro__:
        if hasattr(klass, "_resumable") and not inspect.isabstract(klass) and (path := import_path(klass)):
            return path
    return None


def kept_values(operator: Any, names: Sequence[str]) -> dict[str, Any]:
    """The values of an operator's attributes that may be kept."""
    values = {name: _plain(getattr(operator, name, None)) for name in names}
    return {name: value for name, value in values.items() if _may_be_read(name, value) and not host.holds_secret(value)}


def values_of_record(names: Sequence[str], connection: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a record keeps, the values of attributes that may be read."""
    return {name: connection[name] for name in names if name in connection and _may_be_read(name, connection[name])}


def default_of(operator: Any, name: str) -> Any:
    """What the nearest ``__init__`` that names the argument sets it to, where nobody gives it; None if there is no default."""
    for cls in operator.__mro__:
        parameter = inspect.signature(cls.__init__).parameters.get(name) if "__init__" in vars(cls) else None
        if parameter is not None:
            return None if parameter.default is inspect.Parameter.empty else parameter.default
    return None


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _may_be_read(name: str, value: Any) -> bool:
    if _WHERE_OR_AS_WHOM.search(name):
        return False
    if isinstance(value, str):
        return len(value) <= _LONGEST and "://" not in value
    return value is None or isinstance(value, bool | int | float)
