"""Waiting for a job's end: what trouble means, where the author's limits end it, looks with the worker slot given back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from resumable import host
from resumable.errors import JobNotFound, WaitLimitError
from resumable.jobs import ending
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.limits import tells_of_limit
from resumable.jobs.rejection import is_only_of_the_wait
from resumable.policy import Wait

if TYPE_CHECKING:
    from resumable.jobs.run import JobRun

MAX_QUICK_FAILURES = 5
"""Waits that may fail one right after the other while the job runs, before the try fails."""

QUICK_SECONDS = 60.0
"""Seconds that a wait must have lasted for its failure not to count as quick."""


class WaitTrouble:
    """Counts waits that fail while the job is well. Trouble with a status is no reason to fail; a bug in the wait is one."""

    def __init__(self) -> None:
        self._quick = 0
        self._began = 0.0
        self._has_asked = False

    def owes_a_verdict(self, error: BaseException) -> bool:
        """
        Whether ``error`` speaks of a request and not of the job that has ended by now: how it ended (failed, to be skipped) is
        the operator's own code to say. Once.
        """
        speaks_of_a_request = isinstance(error, JobNotFound) or is_only_of_the_wait(error)
        first, self._has_asked = not self._has_asked, True
        return first and speaks_of_a_request and not _is_of_a_waiter(error)

    def wait_begins(self) -> None:
        self._began = time.monotonic()

    def can_go_on(self, seen: Observation, *, is_quick: bool = True) -> bool:
        """``is_quick``: a failure soon after the begin counts. The provider's default limit of a wait may be as short as that."""
        if seen.state not in (JobState.ACTIVE, JobState.SUCCEEDED):
            return False
        self._quick = self._quick + 1 if is_quick and time.monotonic() - self._began < QUICK_SECONDS else 0
        if self._quick > MAX_QUICK_FAILURES:
            return False
        time.sleep(min(2.0**self._quick, 30.0) if seen.state is JobState.ACTIVE else 0)
        return True


def _is_of_a_waiter(error: BaseException | None) -> bool:
    """Whether botocore's waiter raised it, or what caused it: that is a verdict on the job, or a limit of the wait."""
    return error is not None and (type(error).__name__ == "WaiterError" or _is_of_a_waiter(error.__cause__))


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
        ending.failed(run, seen, error)
        raise error
    if seen.state not in (JobState.ACTIVE, JobState.UNKNOWN):
        return False
    if attempt.stop_if_overdue(run.stop_job):
        raise ending.overdue(attempt)
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
            ending.failed(run, seen, error)
            raise error
