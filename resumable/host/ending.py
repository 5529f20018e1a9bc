"""
How a task comes to its end: which exceptions mean what, whether another try follows, the hand-back, what is called when it has
ended, SIGTERM and SIGKILL as Airflow sends them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

from resumable import host
from resumable.errors import HandedBack, ResumableError
from resumable.host import _three, _two
from resumable.host.config import conf
from resumable.host.context import Rehearsal
from resumable.host.versions import exception, first_of

_log = logging.getLogger("resumable")

SIGKILL_GRACE_SECONDS = 10.0
"""Seconds to wait for the SIGKILL that Airflow 3 has announced (it comes after five)."""


# -- the last try, the hand-back, the success ---------------------------------------------------------------------------------


def is_last_try(context: Mapping[str, Any], error: BaseException | None = None) -> bool:
    """
    Whether Airflow starts no other try of the running task by itself.

    Args:
        context: the task's.
        error: what this try is about to fail with, if that is known: an exception may say that no other try is wanted, and so may
            the task's ``retry_policy`` (3.3 and later), whatever tries are left. From 3.4 on it may also have the same try run
            again.
    """
    return bool(why_last_try(context, error))


def why_last_try(context: Mapping[str, Any], error: BaseException | None = None) -> str:
    """Why Airflow starts no other try (`is_last_try`), in words; empty if it does, or if the task waits for that decision."""
    ti = context["ti"]
    says = None if error is None else _policy_says(context, error)
    if says == "reschedule":
        return ""
    if ti.try_number > ti.max_tries:
        return f"this was the last try ({ti.try_number} of {ti.max_tries + 1})"
    if error is not None and _allows_no_retry(error):
        return "such an error is final"
    return "the task's retry_policy allows no other try" if says == "fail" else ""


def _allows_no_retry(error: BaseException) -> bool:
    if isinstance(error, ResumableError):
        return not error.retryable  # `airflow_errors` makes an AirflowFailException of it
    return host.is_final(error) or isinstance(error, exception("AirflowSensorTimeout"))


def _policy_says(context: Mapping[str, Any], error: BaseException) -> str | None:
    """
    What Airflow's task runner asks when the task has failed, in a word, ``reschedule`` as long as the policy's own limits allow
    it. One that fails itself changes nothing there, nor here.
    """
    policy = getattr(context.get("task"), "retry_policy", None)
    if policy is None or _allows_no_retry(error):  # then it is not asked
        return None
    ti = context["ti"]
    try:
        decision = policy.evaluate(exception=error, try_number=ti.try_number, max_tries=ti.max_tries, context=context)
        says = str(decision.action.value)
        return "default" if says == "reschedule" and _is_rescheduled_enough(context, decision) else says
    except Exception as e:
        _log.info("resumable: the task's retry_policy could not be asked: %r", e)
        return None


def _is_rescheduled_enough(context: Mapping[str, Any], decision: Any) -> bool:
    """Whether a ``retry_policy`` has had this try run again as often, or for as long, as it may (3.4)."""
    most, longest = decision.max_reschedules, decision.reschedule_timeout
    if most is not None and (context.get("task_reschedule_count") or 0) >= most:
        return True
    first = None if longest is None else context["ti"].get_first_reschedule_date(context)
    return first is not None and bool(datetime.now(timezone.utc) - first >= longest)


def hand_back(seconds: float) -> BaseException:
    """
    What to raise for the task to be started again without using up a try.

    A reschedule is legal for every operator. A date that is too near loses a race: the end of this process is then taken for the
    end of the next one (seen with 2 s on 3.0 to 3.3).
    """
    return exception("AirflowRescheduleException")(datetime.now(timezone.utc) + timedelta(seconds=seconds))


def after_success(operator: Any, context: Mapping[str, Any], forget: Callable[[], None]) -> None:
    """
    Have ``forget`` called, in this process, once Airflow has taken note of the task's success.

    Airflow 3 also runs the success callbacks of a task whose success it has refused, because the scheduler had given the try up
    meanwhile (seen on 3.2.2); the next try needs the record then. So the task's own state is asked for first.
    """
    if isinstance(context, Rehearsal):
        return

    def forget_if_noted() -> None:
        try:
            state = host.own_state(context)
        except Exception as e:
            state = repr(e)
        if state == "success":
            forget()
        else:
            _log.info("resumable: the record is kept: Airflow has not taken note of the success (state %s)", state)

    if not host.has_sdk():
        _two.after_success(context["ti"], forget_if_noted)
        return
    theirs = getattr(operator, "on_success_callback", None)
    before = [] if theirs is None else list(theirs) if isinstance(theirs, list | tuple) else [theirs]
    vars(operator)["on_success_callback"] = [*before, lambda _: forget_if_noted()]


def at_end(task: Any, callback: Callable[[bool], Any]) -> None:
    """
    Have ``callback(succeeded)`` called by this process when ``task`` ends for good: success, skip, or a failure without a retry.

    It finds the task's context as the task did; Airflow's own callbacks do not. What was registered last is called first: it may
    stand on what was made before it.
    """
    set_current_context = first_of("set_current_context", "airflow.sdk.execution_time.context", "airflow.models.taskinstance")

    def call(context: Any, succeeded: bool) -> None:
        with set_current_context(context):
            callback(succeeded)

    for kind in ("on_success_callback", "on_failure_callback", "on_skipped_callback"):
        present = getattr(task, kind, None) or ()
        callbacks = [present] if callable(present) else list(present)
        ours = [one for one in callbacks if isinstance(one, _AtEnd)]
        theirs = [one for one in callbacks if not isinstance(one, _AtEnd)]
        setattr(task, kind, [*theirs, _AtEnd(call, succeeded=kind == "on_success_callback"), *ours])


class _AtEnd(partial[None]):
    """A callback of `at_end`."""


# -- exceptions ---------------------------------------------------------------------------------------------------------------


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


# -- signals ------------------------------------------------------------------------------------------------------------------


def request_lock() -> AbstractContextManager[Any]:
    """The lock that is held while a request to the supervisor, or of ours to the database, is in flight."""
    if not host.has_sdk():
        return _two.DATABASE_LOCK
    comms = _three.supervisor()
    return nullcontext() if comms is None else cast("AbstractContextManager[Any]", _three.request_lock(comms))


def sigterm_calls(on_kill: Callable[[], None]) -> AbstractContextManager[None]:
    """While it is open, SIGTERM calls ``on_kill`` and does nothing else: what Airflow 3 does anyway."""
    return nullcontext() if host.has_sdk() else _two.sigterm_calls(on_kill)


def users_stop_grace() -> float:
    """Seconds that a task has from the SIGTERM of a user's stop to its SIGKILL. A lost API server always gives it five."""
    return _three.server_grace() if host.has_sdk() else _three.SERVER_GRACE


def end_stopped_task(*, taken_over: bool) -> None:
    """
    The end of a process that Airflow has written off. Returns, at the latest, when a SIGKILL is overdue.

    On Airflow 3 that comes five seconds after SIGTERM, and an exception would run the failure callbacks of a task that did not
    fail. From 3.4 on it comes after ``[core] killed_task_cleanup_time``, a minute by default, and a cleared task is not started
    again before: so this process does not wait for it. Airflow 2 waits for ``AirflowTaskTerminated``, the one exception after
    which it leaves a state alone that a user has set; but if another attempt has taken over, that would change the other's state.
    """
    if host.has_sdk():
        if _three.is_supervised_process() and _three.server_grace() > _three.SERVER_GRACE:
            _log.info(
                "resumable: all is done after the stop: this process ends itself, so that Airflow need not wait for it. (Airflow "
                "takes the signal for a likely lack of memory, and says so; it is none.)"
            )
            _three.end_process()
        time.sleep(SIGKILL_GRACE_SECONDS)
    elif taken_over:
        time.sleep(conf().getint("core", "killed_task_cleanup_time", fallback=60) + SIGKILL_GRACE_SECONDS)
    else:
        raise exception("AirflowTaskTerminated")("The task was stopped")
