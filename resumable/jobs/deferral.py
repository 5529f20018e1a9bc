"""A task's way into a deferral and back: a trigger that failed, was lost or timed out says nothing about the job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import ResumableError
from resumable.helpers import replaced
from resumable.jobs import alarm, ending
from resumable.jobs.attempt import Attempt
from resumable.jobs.author_execute import in_authors_hands
from resumable.jobs.decision import Deliver, JobState
from resumable.jobs.run import JobRun

if TYPE_CHECKING:
    from resumable.jobs.operator import DurableTask

TRIGGER_SECONDS = 60.0
"""For which the trigger of a job that is done may take to say so."""

DEFERRED_BY = "resumable_try"
"""The argument by which a deferral says of which try it is; taken out before the operator's method is called."""


def defer(
    task: DurableTask,
    theirs: Callable[..., Any],
    *,
    trigger: Any,
    timeout: timedelta | float | None = None,
    kwargs: dict[str, Any] | None = None,
    **given: Any,
) -> Any:
    """The operator's deferral, with our trigger, and ending in time for ``job_timeout``."""
    run = task.run
    attempt = run.begun if run is not None else None
    is_done = run is not None and attempt is not None and run.service.goes_on_undeferred and isinstance(attempt.plan, Deliver)
    if run is not None and is_done and not is_extended(run.operator, str(given.get("method_name"))):
        return None  # nothing to wait for: the operator's execute goes on to its result
    if task.failed_wait is not None:  # the job is done: to wait for it once more would go round for ever
        raise task.failed_wait
    if not task.is_durable or task.asks_trigger_itself:
        return theirs(trigger=trigger, timeout=timeout, kwargs=kwargs, **given)
    if run is not None:
        if run.begun is not None:
            if given.get("method_name") != "execute":  # else it starts anew: it has waited for something before its submit
                run.service.refuse_unseen()
            if (remaining := run.begun.remaining) is not None:
                asked = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
                timeout = timedelta(seconds=remaining if asked is None else min(asked, remaining))
        if type(trigger).__module__.startswith("airflow.providers."):  # a subclass may defer with its own
            trigger = run.service.trigger(trigger)
    return theirs(trigger=trigger, timeout=timeout, kwargs=_with_try(attempt, kwargs), **given)


def _with_try(attempt: Attempt | None, kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """A deferral that comes before the try has a record says of which try it is."""
    is_own = attempt is not None and attempt.record is not None and attempt.record.owner == attempt.owner
    number = None if is_own else host.current_try_number()
    return kwargs if number is None else {**(kwargs or {}), DEFERRED_BY: number}


def resume(task: DurableTask, method: str, kwargs: dict[str, Any], given: Any, theirs: Callable[..., Any]) -> Any:
    """The way back: the operator's own, or ``execute`` if it was an earlier try that deferred; the end of the job is noted."""
    deferred_by = kwargs.pop(DEFERRED_BY, None)
    if not task.is_durable:
        return theirs(method, kwargs, given)
    run = JobRun(task, given)
    if alarm.rings(run, method, kwargs):
        return task.operator.execute(given)
    if run.service.restarts(method) or _is_of_an_earlier_try(run, deferred_by):
        return task.operator.execute(given)
    on_its_own = lambda: theirs(method, kwargs, given)  # noqa: E731
    if run.service.is_looked_at_after_deferral:
        task.begin_work()
    with host.airflow_errors(run.context):
        try:
            if run.service.is_looked_at_after_deferral:
                return _resumed(run, method, kwargs, on_its_own)
            return _resumed_by_author(run, kwargs, on_its_own)
        except host.task_timeout() as e:
            _note_timeout(run, e)
            raise
        except BaseException as e:
            if not isinstance(e, Exception) and not host.is_deferral(e):  # sys.exit(), a KeyboardInterrupt
                _note_end(run, e)
            raise


def _resumed(run: JobRun, method: str, kwargs: dict[str, Any], theirs: Callable[[], Any]) -> Any:
    try:
        with in_authors_hands(run.task):
            result = run.service.resume(method, kwargs, theirs)
    except Exception as e:
        if host.is_final(e):
            _note_end(run, e)
            raise
        return _after_failure(run, e, "\n".join(kwargs.get("traceback") or ()))
    _note_success(run)
    return result


def _resumed_by_author(run: JobRun, kwargs: dict[str, Any], theirs: Callable[[], Any]) -> Any:
    """
    A deferral of the author's own, for the end of his job or for something else. What he raises is his verdict, unless it speaks
    of the wait alone, and the job's end is noted as it is seen.
    """
    try:
        result = theirs()
    except Exception as e:
        attempt = None if host.is_hand_back(e) else _open_attempt(run)
        if attempt is None:
            raise
        is_of_the_wait = host.is_deferral_error(e) or run.service.is_wait_trouble(e)
        if is_of_the_wait and not _is_authors_limit(run, attempt, e):
            return _after_failure(run, e, "\n".join(kwargs.get("traceback") or ()))
        attempt.is_waiting = True
        ending.failed(run, attempt.observe(), e)
        raise
    attempt = _open_attempt(run)
    if attempt is not None:
        seen = attempt.look_once()
        if seen.state is JobState.SUCCEEDED:
            run.note_success()
        elif seen.state is JobState.ACTIVE:
            attempt.leave("the task does not wait for it")
    return result


def _is_authors_limit(run: JobRun, attempt: Attempt, error: Exception) -> bool:
    """Whether a deferral has lasted for as long as its author allows."""
    is_time = host.is_deferral_timeout(error) and not attempt.is_overdue
    return is_time and not host.is_out_of_time(run.context, run.operator, error)


def _open_attempt(run: JobRun) -> Attempt | None:
    """The attempt that has deferred, if its job's end is not noted yet; None where ``execute`` has begun another one."""
    if run.task.run is not run:
        return None
    attempt = run.new_attempt()
    try:
        attempt.resume()
    except ResumableError as e:
        run.log.debug("resumable: the outcome was not noted: %s", e)
        return None
    is_open = attempt.handle is not None and attempt.record is not None and attempt.record.outcome is None
    return attempt if is_open and not attempt.record.left else None  # type: ignore[union-attr]


def _is_of_an_earlier_try(run: JobRun, deferred_by: int | None) -> bool:
    """
    Whether the deferral that this process is to go on from is over and done with.

    Airflow 3.0 keeps it over a failure, so that every later try would be given the old trigger's event and never execute.
    """
    now, then = run.context["ti"].try_number, deferred_by
    if then is None:
        try:
            record = run.records().load()
        except ResumableError as e:
            run.log.debug("resumable: whose deferral this is cannot be told: %s", e)
            return False
        then = record.try_number if record is not None else now
    if then >= now:
        return False
    run.log.info("resumable: try %s had deferred, this is try %s: it starts from the top", then, now)
    return True


def _after_failure(run: JobRun, error: Exception, told: str) -> Any:
    """The job is looked at before the task may fail."""
    attempt = run.new_attempt()
    attempt.resume()
    if attempt.record is None or attempt.record.handle is None:
        raise error
    seen = attempt.observe()
    if seen.state is not JobState.SUCCEEDED and host.is_out_of_time(run.context, run.operator, error):
        ending.timed_out(run, error)
        raise error
    if seen.state is JobState.SUCCEEDED:
        run.log.warning("resumable: %s has succeeded, although waiting for it failed: %r", attempt.record.handle, error)
        if is_extended(run.operator) and host.is_deferral_error(error):
            return _told_by_the_author(run, error)
        return _told_by_the_operator(run, error, may_defer=run.service.goes_on_undeferred or is_extended(run.operator))
    if seen.state is JobState.FAILED and host.is_deferral_error(error) and not is_extended(run.operator):
        run.log.warning(
            "resumable: %s has ended (%s), and waiting for it failed: what comes of that is asked of the operator's own code: %r",
            attempt.record.handle,
            seen,
            error,
        )
        return _told_by_the_operator(run, error, may_defer=False)
    runs = seen.state in (JobState.ACTIVE, JobState.REPAIRABLE, JobState.UNKNOWN)
    timed_out = host.is_deferral_timeout(error)
    if not attempt.is_overdue and ending.is_at_limit(run, error, seen, told, timed_out=timed_out):
        ending.failed(run, seen, error)
        raise error
    if runs and not attempt.is_overdue:
        seconds = host.hand_back_seconds()
        run.log.warning(
            "resumable: waiting for %s failed, not the job (state %s); the task is started again in %.0f s: %r",
            attempt.record.handle,
            seen,
            seconds,
            error,
        )
        raise host.hand_back(seconds) from error
    if runs:
        ending.look_again_later(run, seen)
    ending.failed(run, seen, error)
    raise error


def _told_by_the_operator(run: JobRun, error: Exception, *, may_defer: bool) -> Any:
    """What the operator's own code makes of a job that has ended, while the wait for it ended with ``error``."""
    run.task.failed_wait = error
    with nullcontext() if may_defer else run.service.undeferred():
        return run.operator.execute(host.given_context(run.context))


def _told_by_the_author(run: JobRun, error: Exception) -> Any:
    """
    What an author's own ``execute_complete`` makes of a job that has succeeded, while its trigger failed: the trigger is asked
    for its event in this process, once. It has nothing to wait for.
    """
    operator, context = run.operator, host.given_context(run.context)
    try:
        with replaced(run.task, asks_trigger_itself=True):
            return operator.execute(context)
    except BaseException as e:
        if not host.is_deferral(e):
            raise
        deferred: Any = e
    try:
        event = asyncio.run(asyncio.wait_for(_first_event(deferred.trigger), TRIGGER_SECONDS))
    except Exception as e:
        run.log.warning("resumable: the trigger has failed here as well: %r", e)
        raise error from None
    return operator.resume_execution(deferred.method_name, {**(deferred.kwargs or {}), "event": event}, context)


async def _first_event(trigger: Any) -> Any:
    events = trigger.run()
    try:
        async for event in events:
            return event.payload
    finally:
        await events.aclose()
    raise RuntimeError(f"{trigger!r} has ended without an event")


def is_extended(operator: Any, method: str = "execute_complete") -> bool:
    """Whether an author has a word of his own to say when a deferral is over: no result is delivered past it."""
    classes = type(operator).__mro__
    return any(method in vars(cls) for cls in classes[: classes.index(operator._resumable.of.operator)])


def _note_end(run: JobRun, error: BaseException) -> None:
    """A verdict of the operator's that no other try is to follow, or the end of its process: note what is seen of the job."""
    if run.task.run is not run:
        return  # another start of it has, within this one
    try:
        attempt = run.new_attempt()
        attempt.resume()
        if attempt.handle is not None:
            ending.failed(run, attempt.look_once(), error)
    except ResumableError as e:
        run.log.debug("resumable: the outcome was not noted: %s", e)


def _note_timeout(run: JobRun, error: BaseException) -> None:
    """``execution_timeout`` is over between the end of a deferral and the end of the task."""
    if run.task.run is not run:
        return
    try:
        attempt = run.new_attempt()
        attempt.resume()
    except ResumableError as e:
        run.log.warning("resumable: execution_timeout, and what becomes of the job cannot be noted: %s", e)
        return
    if attempt.handle is not None and attempt.record is not None and attempt.record.outcome is None and not attempt.record.left:
        run.task.end_work()  # Airflow calls on_kill next: the job is dealt with here
        ending.timed_out(run, error)


def _note_success(run: JobRun) -> None:
    try:
        run.new_attempt().resume()
        run.note_success()
    except ResumableError as e:
        run.log.debug("resumable: the outcome was not noted: %s", e)
