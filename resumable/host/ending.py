"""How a task comes to its end: whether another try follows, the hand-back, what is called when it has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

from resumable import host
from resumable.errors import ResumableError
from resumable.host import _two
from resumable.host._rehearsal import Rehearsal
from resumable.host.versions import exception, first_of

_log = logging.getLogger("resumable")


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
