"""The service behind the methods of a `ResumableMixin`: what the author of a custom operator wrote, as a `JobService`."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import ConfigurationError, InvalidHandleError, JobNotFound
from resumable.helpers import import_object, replaced
from resumable.jobs import alarm
from resumable.jobs.attempt import Attempt
from resumable.jobs.code import names_used
from resumable.jobs.decision import Conclude, Deliver, JobState, Observation, Recovery
from resumable.jobs.record import JobHandle, JobRecord
from resumable.jobs.rejection import came_after_a_loss, watch_botocore
from resumable.jobs.service import JobService, path_of_class, values_of_record
from resumable.policy import seconds_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from resumable.fleet.lookups import Lookup


_LOOKS_AND_STOP = ("get_job_status", "is_job_active", "is_job_succeeded", "is_job_failed", "cancel_job")


_METHODS = (
    "submit_job",
    "get_job_status",
    "is_job_active",
    "is_job_succeeded",
    "is_job_failed",
    "poll_until_complete",
    "get_job_result",
    "cancel_job",
    "find_job",
    "is_wait_trouble",
    "is_rejection",
)


_NOT_SEEN = object()


class OperatorMethods(JobService):
    """
    The six methods of an operator, and the optional ones, at a job.

    A job of a record is asked about by the same methods, of an object of the operator's class whose ``__init__`` has not run: it
    has the ``reach_fields``, the defaults of the class's arguments and the class's own attributes. There is no other way to
    somebody else's methods without the arguments of somebody else's ``__init__``.
    """

    is_looked_at_after_deferral = False

    _is_left = False
    _last_status: Any = _NOT_SEEN

    def __init__(self, operator: Any) -> None:
        super().__init__(operator)
        name = operator.service  # an author may keep the client of his service there
        self.service = name if isinstance(name, str) and name else type(operator).__name__
        self.recovery = recovery_of(operator.__class__)
        self.settle = self.visible_after = seconds_of("settle_time", operator.settle_time, type(operator).__name__)
        self.reach_fields = type(operator).reach_fields  # type: ignore[misc]

    @classmethod
    def of_record(cls, operator: Any, connection: Mapping[str, Any]) -> Self:
        made = operator.__new__(operator)
        vars(made).update({**_defaults_of(operator), **values_of_record(operator.reach_fields or (), connection)})
        return cls(made)

    @classmethod
    def can_be_reached(cls, operator: type) -> bool:
        path = path_of_class(operator)
        found = None if path is None else import_object(path)  # a class above it, where its own is one of a DAG file
        is_the_same = all(getattr(found, name, None) is getattr(operator, name) for name in _LOOKS_AND_STOP)
        return getattr(found, "reach_fields", None) is not None and is_the_same

    def lookup(self, handle: JobHandle) -> Lookup:  # noqa: ARG002
        from resumable.fleet.lookups import alone

        return alone(f"custom {path_of_class(type(self.operator))}")  # whatever service its author names

    @property
    def _context(self) -> Any:
        run = getattr(self, "run", None)
        return run.given_context if run is not None else {}

    def observe(self, handle: JobHandle) -> Observation:
        operator = self.operator
        try:
            status = operator.get_job_status(handle.ids, self._context)
        except JobNotFound as e:
            return Observation(JobState.GONE, str(e))
        if operator.is_job_active(status):
            return Observation(JobState.ACTIVE, status)
        if operator.is_job_succeeded(status):
            return Observation(JobState.SUCCEEDED, status)
        says_nothing = _is_empty(status) and not _is_written(type(operator), "is_job_failed")
        is_failed = not says_nothing and operator.is_job_failed(status)
        return Observation(JobState.FAILED if is_failed else JobState.UNKNOWN, status)

    def find(self, record: JobRecord) -> JobHandle | None:
        try:
            ids = self.operator.find_job(record.token, self._context)
        except JobNotFound:
            return None
        if ids is None:
            return None
        if isinstance(ids, bool) or ids in ("", [], {}):
            msg = f"find_job returned {ids!r}. Make it return the job's id, or None if there is certainly none"
            raise InvalidHandleError(msg)
        return JobHandle(self.service, ids)

    def cancel(self, handle: JobHandle) -> None:
        self.operator.cancel_job(handle.ids, self._context)

    def is_rejection(self, error: BaseException) -> bool:
        return bool(self.operator.is_rejection(error))

    def is_wait_trouble(self, error: BaseException) -> bool:
        return bool(self.operator.is_wait_trouble(error))

    @classmethod
    def check_operator(cls, operator: Any) -> None:
        check_methods(type(operator))

    @classmethod
    def can_stop(cls, operator: Any) -> bool:
        return _is_written(type(operator), "cancel_job") or has_own_on_kill(type(operator))

    def has_own_on_kill(self) -> bool:
        return has_own_on_kill(type(self.operator))

    def own_token(self) -> str | None:
        """The token that the author of the DAG gave, for an operator that has an argument for it."""
        return None

    # -- a start of the task ------------------------------------------------------------------------------------------

    def execute(self, theirs: Callable[[], Any]) -> Any:  # noqa: ARG002 - theirs has called us
        run, operator, attempt = self.run, self.operator, self.run.attempt
        context = run.given_context
        if not attempt.replays:
            token, _ = attempt.intend(token=self.own_token())
            if "botocore" in sys.modules:
                watch_botocore()
            with replaced(run.task, token=token):
                try:
                    external_id = operator.submit_job(context)
                except BaseException as e:
                    if _comes_before_the_submit(e):
                        attempt.rejected()
                    raise
            attempt.submitted(JobHandle(self.service, external_id))
        assert attempt.handle is not None
        external_id = attempt.handle.ids
        if run.policy.frees_the_slot and not isinstance(attempt.plan, Deliver | Conclude):
            alarm.leave(run, attempt.seen or attempt.observe())
        if not isinstance(attempt.plan, Deliver):
            attempt.is_waiting = True
            with self._flushing(attempt):
                operator.poll_until_complete(external_id, context)
            attempt.is_waiting = False
            self._note_if_it_runs_on(attempt)
        return operator.get_job_result(external_id, context)

    def waits(self) -> bool:
        return not self._is_left

    def _note_if_it_runs_on(self, attempt: Attempt) -> None:
        """A ``poll_until_complete`` that does not wait, because the author of the DAG asked for that, has seen no success."""
        seen = self._last_status
        if (seen is _NOT_SEEN or self.operator.is_job_active(seen)) and attempt.look_once().state is JobState.ACTIVE:
            self._is_left = True
            self.log.info("resumable: poll_until_complete has returned, and %s runs on: it is left running", attempt.handle)
            attempt.leave("the task does not wait for it")

    @contextmanager
    def _flushing(self, attempt: Attempt) -> Iterator[None]:
        """Every look at the job is a chance to write a record whose write had failed."""
        look = self.operator.get_job_status

        def look_and_flush(external_id: Any, context: Any) -> Any:
            attempt.flush()
            self._last_status = status = look(external_id, context)
            return status

        with replaced(self.operator, get_job_status=look_and_flush):
            yield


def _is_empty(status: Any) -> bool:
    """Whether it says nothing of a job: what a service, or a client of it, gives for an answer without a state."""
    return status is None or (not status.strip() if isinstance(status, str) else status in ({}, [], (), b""))


def _comes_before_the_submit(error: BaseException) -> bool:
    """
    Whether ``submit_job`` says by ``error`` that the task is to be started again for its submit (a reschedule, a deferral that
    comes back to ``execute``) or has nothing to submit (a skip). Not while a lost answer is handled.
    """
    starts_again = host.is_deferral(error) and getattr(error, "method_name", None) == "execute"
    return (starts_again or host.is_hand_back(error) or host.is_skip(error)) and not came_after_a_loss(error)


def check_methods(operator: Any) -> None:
    """
    What can be told of an operator's class before any of its tasks runs.

    Raises:
        ConfigurationError: a method is a coroutine function, which nobody would await; a setting is not of its type.
    """
    name = operator.__name__
    if waits := [method for method in _METHODS if inspect.iscoroutinefunction(getattr(operator, method, None))]:
        raise ConfigurationError(
            f"{name}: {', '.join(waits)} {'is' if len(waits) == 1 else 'are'} async, and nothing would await it. Nothing was "
            "submitted. Write a plain method, which may call asyncio.run()."
        )
    for setting in ("spec_fields", "reach_fields"):
        given = getattr(operator, setting)
        if given is not None and (isinstance(given, str) or not _is_of_texts(given)):
            raise ConfigurationError(
                f"{name}: {setting}={given!r} is no sequence of attribute names. Nothing was submitted. Give a tuple, as in "
                f'{setting} = ("name",).'
            )
    if not isinstance(operator.submit_is_idempotent, bool | None):
        raise ConfigurationError(
            f"{name}: submit_is_idempotent={operator.submit_is_idempotent!r} is none of True, False, None. Nothing was submitted."
        )


def _is_of_texts(given: Any) -> bool:
    return isinstance(given, Sequence | Set) and all(isinstance(one, str) for one in given)


def has_own_on_kill(operator: Any) -> bool:
    """Whether the author of the operator wrote an ``on_kill``."""
    return operator.on_kill is not host.base_operator().on_kill


def _mixin() -> Any:
    from resumable.jobs.mixin import ResumableMixin  # which is made of this module

    return ResumableMixin


def _is_written(operator: Any, method: str) -> bool:
    """Whether the author gave an optional method of the mixin."""
    return getattr(operator, method) is not getattr(_mixin(), method)


@cache
def recovery_of(operator: Any) -> Recovery:
    """How the doubt of a submit of this operator is cleared up."""
    if _is_written(operator, "find_job"):
        return Recovery.LOOK_UP
    idempotent = operator.submit_is_idempotent
    if idempotent is None:
        idempotent = "idempotency_token" in names_used(operator.__mro__[: operator.__mro__.index(_mixin())])
    return Recovery.REPEAT if idempotent else Recovery.MANUAL


@cache
def _defaults_of(cls: type) -> Mapping[str, Any]:
    """Of the arguments of an operator's classes, as far as they are no attributes of theirs: what ``__init__`` would set."""
    found: dict[str, Any] = {}
    others = (*host.base_operator().__mro__, *_mixin().__mro__)
    for klass in (klass for klass in reversed(cls.__mro__) if "__init__" in vars(klass) and klass not in others):
        for name, parameter in inspect.signature(klass.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is not inspect.Parameter.empty and not hasattr(cls, name):
                found[name] = copy.copy(parameter.default)
    return found
