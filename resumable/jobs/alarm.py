"""
``wait="defer"``: the task defers with our own trigger, an alarm clock, and begins from the top when it rings.

Whatever rings it (an event, the deferral's own time-out, a trigger that failed) says nothing that is believed: the record is
read, and the job is looked at. Where a look finds that the alarm was none, the next one is waited for without a triggerer, so
that no triggerer and no task can keep each other busy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import ConfigurationError, WaitLimitError
from resumable.jobs import ending
from resumable.jobs.decision import JobState, Observation
from resumable.policy import Wait

if TYPE_CHECKING:
    from resumable.jobs.run import JobRun

POLLED_SECONDS = 30.0
"""Seconds of its age for which a job is looked at in the task itself: a short job is not worth a deferral."""

LAST_SECONDS = 60.0
"""Seconds of ``execution_timeout`` that are left for the task itself: Airflow ends no deferral for it."""

SAFETY_SECONDS = 3600.0
"""Seconds after which the scheduler ends a deferral: then the task looks, whether or not there is a triggerer."""

LEAST_SECONDS = 30.0
"""Of a deferral: it costs a start of the task."""

INTERVALS = (
    "waiter_delay",
    "waiter_interval",
    "poll_interval",
    "polling_period_seconds",
    "check_interval",
    "job_poll_interval",
    "sleep_time",
    "wait_interval_seconds",
)
"""Names that providers give to the seconds between two looks."""

FAILED = "__fail__"
"""What Airflow resumes with where a trigger has failed, or a deferral timed out."""


def require(operator: Any, service: Any) -> None:
    """
    Raises:
        ConfigurationError: the operator cannot wait with ``wait="defer"``.
    """
    if getattr(operator, "deferrable", False):
        raise ConfigurationError(
            "deferrable=True and wait='defer' both defer, each with a trigger of its own. Nothing was submitted. Choose one."
        )
    if not service.can_be_reached(type(operator)):
        why = "no reach_fields" if _fields_of(operator, service) is None else "no class that the triggerer can import"
        raise ConfigurationError(
            f"wait='defer' needs what the triggerer can look at the job with, and {type(operator).__name__} has {why}. Nothing "
            "was submitted. Give its class reach_fields, and a module that is installed where the triggerer runs (not a DAG "
            "file); or use wait='reschedule', which needs neither."
        )
    service.check_reschedule(operator)


def _fields_of(operator: Any, service: Any) -> Any:
    return getattr(type(operator), "reach_fields", service.reach_fields)


def leave(run: JobRun, seen: Observation) -> None:
    """Leave, if the job still runs, and be started again: by the trigger, or for the next look."""
    if run.policy.wait is not Wait.DEFER:
        ending.look_again_later(run, seen)
        return
    attempt, interval = run.attempt, interval_of(run)
    polled = POLLED_SECONDS - attempt.age
    while ending.is_to_be_waited_for(run, seen):
        left = _time_left(run)
        stays = polled if left is None or left > LAST_SECONDS else left
        if stays <= 0 and attempt.is_kept:  # else this process alone knows the job
            _defer(run, interval, left)
        pause = min(interval, stays) if stays > 0 else interval
        time.sleep(pause)
        polled -= pause
        attempt.flush()
        attempt.wait_while_halted()
        seen = attempt.observe()


def _defer(run: JobRun, interval: float, left: float | None) -> None:
    attempt, woken = run.attempt, run.task.woken_by
    reach = run.service.connection()
    if woken or reach is None:
        seconds = max(host.hand_back_seconds(), interval)
        run.log.warning(
            "resumable: %s runs, although %s: it is looked at again in %.0f s",
            attempt.handle,
            woken or "nothing is known by which the triggerer could reach it",
            seconds,
        )
        raise host.hand_back(seconds)
    from resumable.fleet.trigger import JobTrigger

    assert attempt.handle is not None
    limits = (SAFETY_SECONDS, attempt.remaining, None if left is None else left - LAST_SECONDS, _limit_left(run))
    seconds = max(LEAST_SECONDS, min(limit for limit in limits if limit is not None))
    more = run.service.more_of_client()
    trigger = JobTrigger(
        job={"service": attempt.handle.service, "ids": attempt.handle.ids, "place": dict(attempt.handle.place)},
        reach=reach,
        client={} if host.holds_secret(more) else more,
        submitted_at=time.time() - attempt.age,
        interval=interval,
    )
    run.log.info(
        "resumable: deferred, waiting for %s; the triggerer looks every %.0f s, less often as the job grows old; the task itself "
        "looks in %.0f s at the latest",
        attempt.handle,
        interval,
        seconds,
    )
    raise host.deferral(trigger, "execute", timedelta(seconds=seconds))


def interval_of(run: JobRun) -> float:
    """Seconds between two looks: the author's ``wait_interval``, or else the operator's own."""
    if run.task.given.wait_interval is not None:
        return max(1.0, run.policy.interval)
    pauses = [limit.pause for limit in run.service.limits]
    names = [name for pause in pauses for name in ((pause,) if isinstance(pause, str) else pause)]
    for name in (*names, *INTERVALS):
        if (seconds := _seconds(getattr(run.operator, name, None) if name else None)) is not None:
            return max(1.0, seconds)
    return max(1.0, run.policy.interval)


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):  # Airflow's NOTSET
        return None


def _time_left(run: JobRun) -> float | None:
    """
    Seconds of the task's ``execution_timeout`` that are left, counted from the try's first start, deferrals included.

    Raises:
        AirflowTaskTimeout: there are none.
    """
    left = run.time_left
    if left is not None and left <= 0:
        raise host.task_timeout()("execution_timeout is over, counted from the first start of this try")
    if (limit := _limit_left(run)) is not None and limit <= 0:
        names = ", ".join(one.argument for one in run.service.limits if one.of_author(run.operator) is not None)
        error = WaitLimitError(
            f"{names} is reached: this try has waited for as long as the author allows for {run.attempt.handle}, which runs on. "
            "Raise the limit, or leave it out, if the job may take longer.",
            next_try="reattaches to it",
        )
        ending.failed(run, Observation(JobState.ACTIVE), error)
        raise error
    return left


def _limit_left(run: JobRun) -> float | None:
    """Seconds that the author's own limits leave, counted as ``execution_timeout`` is."""
    given = [(limit, limit.of_author(run.operator)) for limit in run.service.limits]
    seconds = [limit.looks(run.operator, value, 1.0) for limit, value in given if value is not None]
    return min(seconds) - run.time_since_start if seconds else None


# -- the way back -------------------------------------------------------------------------------------------------------


def rings(run: JobRun, method: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a deferral of ours is over: the task begins from the top, and `JobRun` is told why."""
    if method == "execute" and _is_ours(event := kwargs.get("event")):
        assert isinstance(event, Mapping)
        seen, detail = event.get("state"), str(event.get("detail") or "")
        run.log.info("resumable: the triggerer has seen that the job is %s (%s): it is looked at", seen, detail)
        run.task.woken_by = f"the triggerer has seen that it is {seen} ({detail})"
        return True
    if method == FAILED and run.policy.wait is Wait.DEFER:
        told = str(kwargs.get("error"))
        if "timeout" in told.lower():
            run.log.info("resumable: nobody has woken the deferred task: its job is looked at, as it is from time to time")
        else:
            trace = "\n".join(kwargs.get("traceback") or ())
            run.log.warning("resumable: the trigger failed, which says nothing of the job: it is looked at: %s\n%s", told, trace)
            run.task.woken_by = f"the trigger failed ({told})"
        return True
    return False


def _is_ours(event: Any) -> bool:
    return isinstance(event, Mapping) and {"version", "state", "detail"} <= set(event)
