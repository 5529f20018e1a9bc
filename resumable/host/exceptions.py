"""Airflow's exceptions: what one of them means, and which of them an error of ours becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from resumable import host
from resumable.errors import HandedBack, ResumableError
from resumable.host.versions import exception


def is_final(error: BaseException) -> bool:
    """Exceptions by which a task says that no other try is wanted."""
    return isinstance(error, (exception("AirflowFailException"), exception("AirflowSkipException")))


def is_airflow_error(error: BaseException) -> bool:
    """An exception of Airflow's own family, which anybody may raise for anything."""
    return isinstance(error, exception("AirflowException"))


def is_not_found(error: BaseException) -> bool:
    """Airflow knows no such thing, most often no such connection: nothing was asked of any service."""
    return isinstance(error, exception("AirflowNotFoundException"))


def is_skip(error: BaseException) -> bool:
    return isinstance(error, exception("AirflowSkipException"))


def skip(why: str) -> BaseException:
    """What skips a task."""
    return exception("AirflowSkipException")(why)


def is_hand_back(error: BaseException) -> bool:
    return isinstance(error, (exception("AirflowRescheduleException"), HandedBack))


def is_deferral(error: BaseException) -> bool:
    return isinstance(error, exception("TaskDeferred"))


def deferral(trigger: Any, method: str, timeout: timedelta) -> BaseException:
    """The exception by which a task defers, to be resumed in ``method``, after ``timeout`` at the latest."""
    deferred: Any = exception("TaskDeferred")
    return cast("BaseException", deferred(trigger=trigger, method_name=method, timeout=timeout))


def is_deferral_error(error: BaseException) -> bool:
    """Whether it was the trigger that failed, or took too long, and not the task."""
    return isinstance(error, _deferral_errors())


def is_deferral_timeout(error: BaseException) -> bool:
    """Whether a task is started again because its deferral has lasted for longer than the ``timeout`` it was given."""
    return isinstance(error, _deferral_errors()) and "timeout" in f"{type(error).__name__} {error}".lower()


def _deferral_errors() -> tuple[type[BaseException], ...]:
    names = ("TaskDeferralError", "TaskDeferralTimeout") if host.has_sdk() else ("TaskDeferralError",)
    return tuple(exception(name) for name in names)


def is_out_of_time(context: Mapping[str, Any], operator: Any, error: BaseException) -> bool:
    """
    Whether a deferral timed out because the task's ``execution_timeout`` is over.

    Airflow does not apply it to a deferred task. But some of the provider's operators make it the time-out of their deferral.
    """
    limit, started = getattr(operator, "execution_timeout", None), getattr(context["ti"], "start_date", None)
    if limit is None or started is None or not is_deferral_timeout(error):
        return False
    return bool(datetime.now(timezone.utc) - started >= limit)


def task_timeout() -> type[BaseException]:
    return exception("AirflowTaskTimeout")


@contextmanager
def airflow_errors(context: Mapping[str, Any] | None = None) -> Iterator[None]:
    """
    Turn our errors that no other try can mend into Airflow's `AirflowFailException`, so that no try is wasted on them; and have
    the others say so where no other try follows.

    And keep a hand-back of the task of ``context`` from undoing what a user has done meanwhile: Airflow 2 reschedules a task in
    whatever state it is.
    """
    try:
        yield
    except ResumableError as e:
        if e.retryable:
            say_if_last(e, context)
            raise
        raise exception("AirflowFailException")(str(e)) from e
    except BaseException as e:
        is_threat = not host.has_sdk() and is_hand_back(e) and context is not None and host.is_run_by_airflow(context)
        if is_threat and host.own_state(cast("Any", context)) != "running":
            raise exception("AirflowTaskTerminated")("The task was stopped while it was about to be rescheduled") from e
        raise


def say_if_last(error: ResumableError, context: Mapping[str, Any] | None) -> None:
    """Have ``error`` say so if no other try follows. ``context``: the task's; None: of the task that this process runs."""
    if not error.next_try or error.no_other_try:
        return
    try:
        why = host.why_last_try(host.current_context() if context is None else context, error)
    except (RuntimeError, KeyError, AttributeError, TypeError):  # no task, as in a unit test
        return
    if why:
        error.no_other_try = f"{why[0].upper()}{why[1:]}: clear the task to have it started again."


@contextmanager
def final_errors() -> Iterator[None]:
    """
    The same for arguments that are checked before a task is at work on them: an error is an `AirflowFailException` too, but keeps
    its own type, because a test or a DAG's file may meet it without any task.
    """
    try:
        yield
    except ResumableError as e:
        if e.retryable:
            raise
        raise _final(type(e))(str(e)) from e


def _final(kind: type[ResumableError]) -> type[ResumableError]:
    try:
        final = exception("AirflowFailException")
    except ImportError:  # no Airflow here
        return kind
    return kind if issubclass(kind, final) else type(kind.__name__, (kind, final), {"__module__": kind.__module__})
