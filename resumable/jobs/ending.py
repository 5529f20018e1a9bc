"""
A try ends while its job may run: what is noted of the job, whether it is stopped, and with which error the try fails; and when a
wait for a job is over although it runs (the author's limits, ``wait="reschedule"``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from resumable import host
from resumable.errors import (
    JobFailedError,
    JobTimeoutError,
    LostSightError,
    RefusedError,
    ResumableError,
    SupersededError,
    WaitLimitError,
    chain,
)
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.limits import tells_of_limit
from resumable.jobs.record import Outcome
from resumable.policy import OnFailed, OnFinalFailure, OnMissing, OnTimeout, Wait
from resumable.stop.sigterm import Stop

if TYPE_CHECKING:
    from resumable.jobs.run import JobRun


def failed(run: JobRun, seen: Observation, error: BaseException) -> None:
    """The try fails with ``error``: note what was seen of the job, and decide what becomes of one that still runs."""
    service, attempt = run.service, run.attempt
    service.note_failure(attempt, seen)
    if not service.waits():
        return
    ours = None if host.is_final(error) or isinstance(error, ResumableError) else _instead_of(attempt, seen)
    match seen.state:
        case JobState.FAILED:
            attempt.close(Outcome.FAILED)
        case JobState.GONE:
            attempt.close(Outcome.GONE)
        case JobState.SUCCEEDED:
            is_verdict = attempt.is_waiting and not service.is_wait_trouble(error)  # a later start delivers no success then
            attempt.close(Outcome.FAILED if is_verdict and not host.is_final(error) else Outcome.SUCCEEDED, seen)
        case JobState.FAILING:
            attempt.note_failing()
            _leave_running(run, seen, ours or error)
        case _:
            _leave_running(run, seen, ours or error)
    if ours is not None:
        raise ours from error


def _leave_running(run: JobRun, seen: Observation, error: BaseException) -> None:
    """The try fails while the job, or a part of it, runs: on the last one ``on_final_failure`` decides."""
    log, attempt = run.log, run.attempt
    job = attempt.known_job
    if not host.is_last_try(run.context, error):
        then = "stops what still runs and submits another one" if seen.state is JobState.FAILING else "reattaches"
        log.warning("resumable: this try fails, %s is left running (state %s); the next try %s", job, seen, then)
        attempt.note_failed_try(error)
    elif attempt.policy.on_final_failure is OnFinalFailure.LEAVE:
        log.warning(
            "resumable: the last try fails, %s is left running (state %s), on_final_failure=leave; stop it in "
            "the service if it is not wanted",
            job,
            seen,
        )
        attempt.leave("on_final_failure=leave")
    else:
        _stop_in_the_end(run, "the last try failed, on_final_failure=cancel")


def _stop_in_the_end(run: JobRun, why: str) -> None:
    """Stop a job that no other try comes back to."""
    if not run.attempt.owns_record():
        return
    if run.stop_job(why):
        run.attempt.close(Outcome.CANCELLED)
    else:
        _note_untaken(run.attempt, why)


def _note_untaken(attempt: Attempt, why: str) -> None:
    """A cancel that the service did not take, and no other try comes back to the job: the sweep tells it again."""
    if attempt.cannot_cancel:
        attempt.leave(f"{why}, and the operator cannot stop it")
    else:
        attempt.close(Outcome.CANCELLED)


def note_task_end(run: JobRun, error: BaseException) -> None:
    """
    The task ends with ``error``: whichever line raised it, the record says why a job runs on that no other try comes back to.
    """
    attempt = run.attempt
    record = attempt.record
    if record is None or record.outcome is not None or record.left or isinstance(error, SupersededError):
        return
    if host.is_hand_back(error) or not host.is_last_try(run.context, error):
        return
    name = type(error).__name__
    refusal = next((one for one in chain(error) if isinstance(one, RefusedError)), None)
    if record.handle is None:
        attempt.leave(f"{name}: its submit was not answered")
    elif refusal is not None:  # which has said that the job is left as it is
        attempt.leave(str(refusal).partition(". ")[0])
    elif attempt.policy.on_final_failure is OnFinalFailure.CANCEL:
        _stop_in_the_end(run, f"{name} on the last try, on_final_failure=cancel")
    else:
        run.log.warning("resumable: the task ends (%s), %s is left running, on_final_failure=leave", name, record.handle)
        attempt.leave(f"{name}, on_final_failure=leave")


def timed_out(run: JobRun, error: BaseException | None = None) -> None:
    """The task's ``execution_timeout`` is over."""
    attempt, context = run.attempt, run.context
    if attempt.number is None and not _is_read_late(run):  # an earlier start may have left a job
        return
    job = attempt.known_job
    if attempt.in_doubt:
        warn_of_doubt(run, "execution_timeout", error)
    if job is None:
        return
    if attempt.policy.on_timeout is OnTimeout.CANCEL:
        if not attempt.owns_record():
            return
        with suppress(host.task_timeout()):  # a look that is out of time itself
            if attempt.note_end(is_last_try=host.is_last_try(context, error)):  # what it means is the next try's to deliver
                return
        if run.stop_job(why := "execution_timeout, on_timeout=cancel"):
            attempt.close(Outcome.CANCELLED)
        elif host.is_last_try(context, error):
            _note_untaken(attempt, why)
    elif not host.is_last_try(context, error):
        run.log.warning("resumable: execution_timeout, %s is left running, on_timeout=detach; the next try reattaches", job)
    else:
        run.log.warning(
            "resumable: execution_timeout on the last try, %s is left running, on_timeout=detach; stop it in the service if "
            "it is not wanted",
            job,
        )
        attempt.leave("on_timeout=detach")


def _is_read_late(run: JobRun) -> bool:
    """Read the record, which the start had no time to. Returns whether it can be acted on."""
    try:
        run.attempt.read()
        return run.attempt.is_in_reach()
    except Exception as e:
        run.log.warning("resumable: the record was not read in time, a job of an earlier start may run on: %s", e)
        return False


def warn_of_doubt(run: JobRun, why: str, error: BaseException | None = None) -> None:
    """The try ends with a submit that was not answered."""
    attempt = run.attempt
    if attempt.adapter.recovery in (Recovery.MANUAL, Recovery.EXPIRED):
        then = "look for it in the service, and stop it or wait for its end. No try submits again until the task is cleared"
    elif host.is_last_try(run.context, error):
        then = "look for it in the service; to run the task again, clear it"
    elif attempt.adapter.recovery is Recovery.REPEAT and not attempt.is_repeatable:
        then = "the next try asks again under the same token. The request was not kept: if it has moved by then (times, try "
        then += "numbers) and the service refuses it, look for the job there, and clear the task"
    else:
        then = "the next try clears that up"
    run.log.warning(
        "resumable: the submit to %s was not answered (%s), a job with token %s may be running: %s",
        attempt.adapter.service,
        why,
        attempt.token,
        then,
    )


def leave(run: JobRun, stop: Stop) -> NoReturn:
    """The way out of an attempt that was told to stop; the job has been dealt with."""
    attempt = run.attempt
    job = attempt.handle or "no job"
    if stop is Stop.EVICTION and attempt.record is not None and attempt.record.outcome in (Outcome.FAILED, Outcome.GONE):
        raise JobFailedError(
            f"{job} has failed, and the worker is going away. The task is not handed back for it: this try fails.",
            next_try="submits another job",
        )
    if stop is Stop.EVICTION:
        seconds = host.hand_back_seconds()
        run.log.info(
            "resumable: %s; the task is handed back and started again in %.0f s, which uses up no try (%s)",
            stop.value,
            seconds,
            job,
        )
        run.count("handed_back")
        raise host.hand_back(seconds)
    if stop is Stop.JOB_TIMEOUT:
        raise overdue(attempt)
    if stop is Stop.TIMED_OUT:
        raise host.task_timeout()(f"{stop.value}; {job} was dealt with as on_timeout says")
    if stop is not Stop.UNKNOWN:
        host.end_stopped_task(taken_over=stop is Stop.SUPERSEDED)
    raise LostSightError(
        f"Told to stop, {stop.value}. {job} was dealt with as the lines above say. If Airflow starts the task again, it goes "
        "on from the record."
    )


def _instead_of(attempt: Attempt, seen: Observation) -> ResumableError | None:
    """The error to end the try with in place of the provider's, after which another try would do what is not wanted."""
    job, policy = attempt.known_job, attempt.policy
    if seen.state is JobState.UNKNOWN:
        return LostSightError(
            f"{job} cannot be seen any more ({seen}). It is taken neither for failed nor for ended; the lines above "
            "say what became of it. Check the connection and the service.",
            next_try="goes on from the record",
        )
    if seen.state in (JobState.FAILED, JobState.FAILING) and policy.on_failed is OnFailed.FAIL:
        return RefusedError(
            f"{job} has failed ({seen}), on_failed=fail. No other job is submitted. Look at the job, then "
            "clear the task to run it again."
        )
    if seen.state is JobState.GONE and policy.on_missing is OnMissing.FAIL:
        return RefusedError(
            f"The service no longer knows {job} ({seen}), on_missing=fail. No other job is submitted. Look for it there, then "
            "clear the task to run it again."
        )
    return None


def overdue(attempt: Attempt) -> JobTimeoutError:
    """The error of a try whose job has run for longer than ``job_timeout``."""
    runs_on = "This operator cannot stop it (it has no cancel_job): it runs on. Stop it in the service"
    return JobTimeoutError(
        f"{attempt.record and attempt.record.handle} has run for longer than job_timeout={attempt.policy.deadline:g} s, counted "
        f"from its submission. {runs_on if attempt.cannot_cancel else 'It was told to stop'}. Clear the task to run it again, "
        "with a longer job_timeout if it needs one."
    )


# -- a wait that is over ------------------------------------------------------------------------------------------------------


def is_at_limit(run: JobRun, error: BaseException, seen: Observation, told: str = "", *, timed_out: bool = False) -> bool:
    """Whether a limit of the author's own has ended the wait for a job that runs on; ``timed_out``: a deferral was."""
    if seen.state not in (JobState.ACTIVE, JobState.REPAIRABLE) or not (timed_out or tells_of_limit(error, told)):
        return False
    given = ((limit.argument, limit.of_author(run.operator)) for limit in run.service.limits)
    found = next((one for one in given if one[1] is not None), None)
    if found is not None:
        run.log.info("resumable: %s=%s has ended the wait, as the author asked; the job runs on", *found)
    return found is not None


def is_to_be_waited_for(run: JobRun, seen: Observation) -> bool:
    """Whether the job still runs, as it was seen. Raises what ends the try although it does."""
    attempt = run.attempt
    if seen.state is JobState.FAILING:
        error = attempt.failing(seen)
        failed(run, seen, error)
        raise error
    if seen.state not in (JobState.ACTIVE, JobState.UNKNOWN):
        return False
    if attempt.stop_if_overdue(run.stop_job):
        raise overdue(attempt)
    return True


def look_again_later(run: JobRun, seen: Observation) -> None:
    """With ``wait="reschedule"``: leave, if the job still runs, and be started again for the next look."""
    attempt, policy = run.attempt, run.policy
    if not is_to_be_waited_for(run, seen):
        return
    if policy.wait is Wait.RESCHEDULE:
        _end_at_limit(run, seen)
    raise host.hand_back(max(host.hand_back_seconds(), min(policy.interval, attempt.remaining or policy.interval)))


def _end_at_limit(run: JobRun, seen: Observation) -> None:
    """The author's limits, counted in looks of this try."""
    attempt = run.attempt
    for limit in run.service.limits:
        value = limit.of_author(run.operator)
        if value is not None and attempt.looks >= limit.looks(run.operator, value, run.policy.interval):
            error = WaitLimitError(
                f"{limit.argument}={value} is reached: this try has looked {attempt.looks} times at {attempt.handle}, which "
                "runs on. Raise the limit, or leave it out, if the job may take longer.",
                next_try="reattaches to it",
            )
            failed(run, seen, error)
            raise error
