"""One job at its service, seen with patience: trouble with an answer is never taken for an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tenacity import (
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from resumable.errors import LostSightError, RefusedError, ResumableError, StopNotTaken
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.jobs.rejection import proves_nothing_made

MAX_REQUESTS = 14
"""Tries of a cancel, or of a lookup by token, before the attempt gives up: about five minutes."""

MAX_LOOKS = 65
"""Looks at a job whose state cannot be learned, before the attempt gives up: about half an hour with the waits between."""

MAX_STOP_LOOKS = 24
"""Looks at a job that was told to stop, before the attempt gives up: about ten minutes."""


ABSENT_ANSWERS = 3
"""Answers in a row, each in the service's own words or an empty list, before a job is believed not to be there: a list lags, a
proxy has no page, one server of many is behind."""

ABSENT_SECONDS = 5.0
"""Seconds that those answers have to span."""

VISIBLE_AFTER = 60.0
"""Seconds after a submit within which a service may not show its job yet, where an adapter does not say."""

BACK_OFF = wait_exponential(multiplier=1, max=30) + wait_random(0, 1)
"""Waits between looks: capped, exponential, with jitter."""


class JobAdapter(Protocol):
    """
    What the core needs to know of a service. Every method may raise anything; an error never means that the job failed.
    """

    service: str
    recovery: Recovery
    settle: float
    """Seconds after a submit went out before "no job carries the token" is believed (a request in flight, a list's lag)."""
    visible_after: float
    """Seconds after its submit before "there is no such job" is believed of a job whose id is known. `VISIBLE_AFTER` if unset."""

    def place(self) -> Mapping[str, str]:
        """Where the connection points (workspace, region ...), without a request."""

    def observe(self, handle: JobHandle) -> Observation:
        """
        One look at the job. UNKNOWN for a state it cannot place; GONE for an empty answer, or one that says in the service's own
        words that there is no such job. Whether that is believed is decided by `Remote`.
        """

    def find(self, record: JobRecord) -> JobHandle | None:
        """The job that carries ``record.token``, None only when there is certainly none. Asked for Recovery.LOOK_UP alone."""

    def cancel(self, handle: JobHandle) -> None:
        """Ask the service to stop the job: one request, no waiting. May be called twice, also for a job that ended."""

    # An adapter may have a `renew(error) -> bool` as well: whether the error says that the credentials have expired, and what
    # holds them was dropped, so that the next request reads the connection again.


class Remote:
    """
    The service behind an adapter.

    Args:
        adapter: the service.
        log: a logger.
        clock: seconds since the epoch.
        sleep: waits so many seconds.
    """

    def __init__(self, adapter: JobAdapter, *, log: Any, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.adapter, self._log, self._clock, self._sleep = adapter, log, clock, sleep
        self._has_warned = self._has_renewed = False
        self.cancel_was_refused = False
        """The service, or the operator, said no to every request of `stop`: the job was not told to stop."""

    def location_mismatch(self, record: JobRecord | None) -> Observation | None:
        """FOREIGN, if ``record``'s job is open and lives where the connection does not point."""
        if record is None or record.outcome not in (None, Outcome.CANCELLED):
            return None
        if record.service != self.adapter.service:
            return Observation(JobState.FOREIGN, f"service {self.adapter.service}")
        then = record.handle.place if record.handle else record.place
        is_looked_up = record.handle is None and self.adapter.recovery is Recovery.LOOK_UP  # finds nothing there, and then asks
        here = {**self.adapter.place(), **({} if is_looked_up else self._account(then))}
        moved = {k: v for k, v in here.items() if k in then and then[k] != v}
        return Observation(JobState.FOREIGN, " ".join(f"{k} {v}" for k, v in moved.items())) if moved else None

    def _account(self, then: Mapping[str, str]) -> Mapping[str, str]:
        """The account that the connection points at, where the record names one and the adapter can tell; perhaps a request."""
        ask = getattr(self.adapter, "account", None) if "account" in then else None
        known = ask() if callable(ask) else None
        return {"account": known} if known else {}

    def observe(self, handle: JobHandle) -> Observation:
        """One look; UNKNOWN if the service does not answer, and also where it answers that there is no such job: see `look`."""
        seen = self._ask(handle)
        return _not_yet(seen) if seen.state is JobState.GONE else seen

    def stopping(self, handle: JobHandle) -> tuple[bool, Observation]:
        """
        One look after a cancel that the service took: whether the job is seen to have ended, or to be stopping. That it is not
        there shows it for a job that a cancel deletes.
        """
        answer = self._ask(handle)
        if answer.state is JobState.GONE:
            return getattr(self.adapter, "stop_deletes", False), _not_yet(answer)
        return has_ended(answer) or is_stopping(self.adapter, answer), answer

    def look(self, handle: JobHandle, since: float = 0.0) -> Observation:
        """
        Look until the state is known; UNKNOWN after `MAX_LOOKS` in vain.

        GONE is believed late: after `ABSENT_ANSWERS` in a row, over `ABSENT_SECONDS`, and not before the adapter's
        ``visible_after`` has passed.

        Args:
            handle: the job.
            since: when it was submitted, in seconds since the epoch.
        """
        return self._until(lambda seen: seen.state is not JobState.UNKNOWN, handle, MAX_LOOKS, since)

    def find(self, record: JobRecord, since: float, tries: int = MAX_REQUESTS) -> JobHandle | None:
        """
        The job that carries the record's token, None if there is none. None is believed as late as `look` believes that a job is
        gone, and no sooner than the adapter's ``settle`` after ``since``, when the submit was under way last.

        Raises:
            LostSightError: the service cannot tell.
        """
        ask = Retrying(
            retry=retry_if_exception_type(Exception),
            stop=stop_after_attempt(tries),
            wait=BACK_OFF,
            sleep=self._sleep,
            reraise=True,
        )
        absence = self._absence(self.adapter.settle, since)
        try:
            found: JobHandle | None = ask(self._renewing, self.adapter.find, record)
            while found is None and not absence.is_believed():
                absence.wait(absence.pause)
                found = ask(self._renewing, self.adapter.find, record)
            return found
        except Exception as e:
            raise LostSightError(
                f"An earlier submit to {self.adapter.service} was left unanswered, and the job with token {record.token} could "
                f"not be looked up ({e!r}). Nothing was submitted; a job may be running. Check the connection and the service.",
                next_try="looks again",
            ) from e

    def stop(self, handle: JobHandle, reason: str, since: float = 0.0) -> None:
        """
        Cancel the job and wait until it is seen to have ended.

        Raises:
            RefusedError: the operator cannot cancel. LostSightError: the service did not take it, or the job has not ended yet.
        """
        self.cancel_was_refused = True
        try:
            Retrying(
                retry=retry_if_exception(lambda e: isinstance(e, Exception) and not isinstance(e, NotImplementedError)),
                stop=stop_after_attempt(MAX_REQUESTS),
                wait=BACK_OFF,
                sleep=self._sleep,
                reraise=True,
            )(self._cancel, handle)
        except NotImplementedError:
            raise RefusedError(
                f"{handle} runs and had to be cancelled ({reason}), and this operator has no cancel_job. Nothing was "
                "submitted, the job runs on. Stop it in the service or wait for its end, then clear the task."
            ) from None
        except Exception as e:
            raise LostSightError(
                f"{handle} had to be cancelled ({reason}) and the service did not take it ({e!r}). Nothing was "
                "submitted, the job may run on. Stop it in the service.",
                next_try="goes on from there",
            ) from e
        last = self._until(has_ended, handle, MAX_STOP_LOOKS, since)
        if not has_ended(last):
            raise LostSightError(
                f"{handle} was told to stop ({reason}) and has not stopped yet (state {last}). Nothing was submitted beside it.",
                next_try="goes on from there",
            )

    def cancel(self, handle: JobHandle) -> None:
        """Ask the service to stop the job, once. Raises: what the adapter's raises."""
        self._renewing(self.adapter.cancel, handle)

    def _renewing(self, ask: Callable[[Any], Any], about: Any) -> Any:
        """``ask``, and once more where the credentials have expired since the last answer."""
        try:
            answer = ask(about)
        except Exception as e:
            renew = getattr(self.adapter, "renew", None)
            if self._has_renewed or renew is None or not renew(e):
                raise
            self._has_renewed = True
            self._log.warning("resumable: the credentials have expired, the connection is read again: %r", e)
            answer = ask(about)
        self._has_renewed = False
        return answer

    def _cancel(self, handle: JobHandle) -> None:
        try:
            self.cancel(handle)
        except NotImplementedError:
            raise
        except Exception as e:
            self.cancel_was_refused &= isinstance(e, StopNotTaken) or proves_nothing_made(e)
            raise
        self.cancel_was_refused = False

    def _ask(self, handle: JobHandle) -> Observation:
        try:
            seen: Observation = self._renewing(self.adapter.observe, handle)
            return seen
        except ResumableError:
            raise
        except Exception as e:
            if not self._has_warned:
                self._log.warning("resumable: cannot see %s, it is left alone; asking again: %r", handle, e)
            self._has_warned = True
            return Observation(JobState.UNKNOWN, repr(e))

    def _absence(self, lag: float, since: float) -> _Absence:
        return _Absence(min(lag, since + lag - self._clock()), self._sleep)

    def _until(self, enough: Callable[[Observation], bool], handle: JobHandle, looks: int, since: float) -> Observation:
        absence = self._absence(getattr(self.adapter, "visible_after", VISIBLE_AFTER), since)
        seen: list[Observation] = []

        def look() -> Observation:
            answer = self._ask(handle)
            if answer.state is not JobState.GONE:
                absence.forget()
            elif not absence.is_believed():
                answer = _not_yet(answer)
            seen.append(answer)
            return answer

        Retrying(
            retry=retry_if_result(lambda observation: not enough(observation)),
            stop=stop_after_attempt(looks),
            wait=BACK_OFF,
            sleep=absence.wait,
            retry_error_callback=lambda _: None,
        )(look)
        return seen[-1]


class _Absence:
    """
    Counts answers that there is no such job, and the seconds waited between them.

    What was waited counts and not what a clock says, because the clock of the worker that submitted may have been another.

    Args:
        lag: seconds from now within which such an answer is not believed.
        sleep: waits so many seconds.
    """

    def __init__(self, lag: float, sleep: Callable[[float], None]) -> None:
        self._lag, self._sleep = lag, sleep
        self._answers, self._span = 0, 0.0

    def wait(self, seconds: float) -> None:
        self._sleep(seconds)
        self._lag -= seconds
        self._span += seconds

    def forget(self) -> None:
        self._answers = 0

    def is_believed(self) -> bool:
        """Count one more such answer: whether it is believed."""
        if self._answers == 0:
            self._span = 0.0
        self._answers += 1
        return self._answers >= ABSENT_ANSWERS and self._span >= ABSENT_SECONDS and self._lag <= 0

    @property
    def pause(self) -> float:
        """Seconds until it is worth asking again."""
        return max(ABSENT_SECONDS / (ABSENT_ANSWERS - 1), self._lag if self._answers < ABSENT_ANSWERS else 0.0)


def _not_yet(seen: Observation) -> Observation:
    return Observation(JobState.UNKNOWN, f"not there: {seen}")


def is_stopping(adapter: JobAdapter, seen: Observation) -> bool:
    """Whether a job that still runs is seen to have been told to stop, where the adapter can tell."""
    return bool(getattr(adapter, "is_stopping", lambda _: False)(seen))


def has_ended(seen: Observation) -> bool:
    """Whether the job was seen to run no more."""
    return seen.state not in (JobState.ACTIVE, JobState.FAILING, JobState.UNKNOWN)
