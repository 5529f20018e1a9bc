"""One start of a task's ``execute()``, from begin to end: the attempt at its job, the watch for a stop, and the way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import (
    ConfigurationError,
    JobFailedError,
    JobNotFound,
    LostSightError,
    RefusedError,
    ResumableError,
)
from resumable.helpers import replaced
from resumable.jobs import ending
from resumable.jobs.attempt import Attempt
from resumable.jobs.author_execute import past_the_author
from resumable.jobs.decision import AttemptFacts, Conclude, Deliver, JobState, Observation
from resumable.jobs.limits import tells_of_limit
from resumable.jobs.record import Outcome
from resumable.jobs.rejection import is_only_of_the_wait, refuses_repetition
from resumable.jobs.submission import Again
from resumable.policy import Wait
from resumable.stop.sigterm import Interrupted, Interruption
from resumable.stores.base import RecordStore

if TYPE_CHECKING:
    from resumable.jobs.operator import DurableTask
    from resumable.jobs.service import JobService

MAX_QUICK_FAILURES = 5
"""Waits that may fail one right after the other while the job runs, before the try fails."""

QUICK_SECONDS = 60.0
"""Seconds that a wait must have lasted for its failure not to count as quick."""


class JobRun:
    """
    One start of a task that submits a job, or goes on with the one there is.

    Attributes:
        operator, context: Airflow's.
        service: the job's service, made for this start.
        begun: the attempt of this start, once there is one; ``attempt`` where there must be.
        watch: stands by for a stop.
    """

    def __init__(self, task: DurableTask, context: Any) -> None:
        self.task, self.operator, self.policy, self.log = task, task.operator, task.policy, task.operator.log
        self.given_context, self.context = context, host.task_context(context, task.operator)
        self.watch: Interruption | None = None
        self.begun: Attempt | None = None
        task.run = self

    @cached_property
    def service(self) -> JobService:
        made: JobService = self.task.of.service(self.operator)
        made.run = self
        return made

    @property
    def attempt(self) -> Attempt:
        assert self.begun is not None
        return self.begun

    def new_attempt(self) -> Attempt:
        """The attempt of this start, which has not begun yet."""
        service, context = self.service, self.context
        self.begun = attempt = Attempt(
            task=host.task_identity(context),
            claim=AttemptFacts(host.generation(context), self.task.spec(context), service.recovery, service.waits()),
            policy=service.policy_of(self.policy),
            records=self.records(),
            adapter=service,
            log=self.log,
            try_number=context["ti"].try_number,
            may_record=lambda params: not host.holds_secret(params),
            redact=host.masked,
            room=host.record_limit(),
            reach=service.connection(),
            one_job=service.one_job,
            count=self.count,
        )
        return attempt

    def records(self) -> RecordStore:
        return self.service.records() or RecordStore(host.state_store(self.context))

    # -- from begin to end --------------------------------------------------------------------------------------------

    def perform(self, body: Callable[[], Any]) -> Any:
        """Begin an attempt and run ``body`` under it, as often as the answers of the service ask for."""
        task, context = self.task, self.context
        with (
            past_the_author(task),
            host.airflow_errors(context),
            self._told_of_the_job(),
            one_attempt(context),
            host.sigterm_calls(task.on_sigterm),
        ):
            before = vars(self.operator).get("on_kill")  # of a checkpoint that is open around the job
            task.begin_work()
            self.service.begin()
            attempt = self.new_attempt()
            watch = Interruption(
                attempt,
                lambda: host.own_state(context),
                request_lock=host.request_lock(),
                log=self.log,
                cancel=self.stop_job,
                is_out_of_time=self._clock(),
            )
            try:
                with watch as self.watch:
                    if task.was_told_early:
                        watch.notice()
                    self._begin()
                    if attempt.stop_if_overdue(self.stop_job):
                        raise ending.overdue(attempt)
                    result = self._repeat(body)
                    if attempt.was_stopped_overdue():  # a stopped job is well done to some operators (Glue's)
                        raise ending.overdue(attempt)
            except Interrupted as e:
                watch.close()  # it may have come while the watch was being closed
                ending.leave(self, e.stop)
            except host.task_timeout() as e:
                ending.timed_out(self, e)  # on_kill follows; the matter is settled here
                raise
            except BaseException as e:  # a KeyboardInterrupt ends the task as well
                if not host.is_deferral(e):
                    ending.note_task_end(self, e)
                raise
            finally:
                self.watch = None
                task.end_work()
                if before is not None:
                    vars(self.operator)["on_kill"] = before
                attempt.flush()
            self.note_success()
            return result

    @contextmanager
    def _told_of_the_job(self) -> Iterator[None]:
        """An error that leaves carries the job that it is about."""
        try:
            yield
        except ResumableError as e:
            attempt = self.begun
            if attempt is not None:
                e.service, e.handle, e.attempt = attempt.adapter.service, attempt.known_job, attempt.number
            raise

    def call_theirs(self, execute: Callable[..., Any]) -> Any:
        """The operator's own ``execute``, with its own durability off: it would keep a second record."""
        with replaced(self.operator, durable=False):
            return execute(self.given_context)

    def note_success(self) -> None:
        attempt = self.attempt
        if self.service.waits():
            attempt.close(Outcome.SUCCEEDED)
        if not attempt.outlives_success:
            host.after_success(self.operator, self.context, attempt.forget)

    def stop_job(self, why: str) -> bool:
        """Stop the job, by the author's own ``on_kill`` if there is one. True if it was told to stop."""
        self.attempt.stop_reason = why
        return self.service.stop_job(self.attempt, why)

    def count(self, event: str) -> None:
        with suppress(Exception):  # a metric never fails a task
            host.count(event, type(self.operator).__name__)

    def _clock(self) -> Callable[[], bool]:
        """From now on, tells whether the task's ``execution_timeout`` is over."""
        limit, began = getattr(self.operator, "execution_timeout", None), time.monotonic()
        before = self.time_since_start if self.policy.wait is Wait.DEFER else 0.0
        return lambda: limit is not None and before + time.monotonic() - began >= limit.total_seconds()

    @property
    def time_since_start(self) -> float:
        """Seconds since the first start of this try, deferrals included; Airflow keeps when that was."""
        started = host.started_at(self.context)
        return 0.0 if started is None else max(0.0, time.time() - started)

    @property
    def time_left(self) -> float | None:
        """Seconds of ``execution_timeout`` that are left of them, None without one."""
        limit = getattr(self.operator, "execution_timeout", None)
        return None if limit is None else limit.total_seconds() - self.time_since_start

    # -- the begin ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        attempt = self.attempt
        try:
            attempt.begin()
            if attempt.record is None and host.may_have_lost_its_record(self.context):
                self.log.warning(
                    "resumable: the task was cleared, and nothing is kept of its earlier tries. If one of them had submitted a "
                    "job, Airflow has deleted the record with the clear, and that job may run beside the new one: look in %s. "
                    "With airflow-resumable installed where the API server runs, a clear leaves the record.",
                    attempt.adapter.service,
                )
        except JobFailedError as e:
            assert attempt.seen is not None
            ending.failed(self, attempt.seen, e)
            raise
        except RefusedError as e:
            attempt.leave(str(e).partition(". ")[0])
            raise
        self._take_up_theirs()

    def _take_up_theirs(self) -> None:
        """Go on with the job that the operator's own durability had started before ours was switched on."""
        if self.attempt.record is not None or self.context["ti"].try_number <= 1:
            return
        if external_id := _of_theirs(self.service, self.context):
            handle = self.service.handle_of(external_id)
            self.attempt.take_up(handle, may_deliver=not host.may_be_cleared(self.context))

    # -- the work -----------------------------------------------------------------------------------------------------

    def _repeat(self, body: Callable[[], Any]) -> Any:
        trouble = WaitTrouble()
        while True:
            trouble.wait_begins()
            try:
                return body()
            except Again:
                continue
            except ResumableError:
                raise
            except Exception as e:
                if host.is_hand_back(e) or not self._goes_on(e, trouble):
                    raise

    def _goes_on(self, error: Exception, trouble: WaitTrouble) -> bool:
        """After an exception of the operator's code: whether to enter it once more. The job has been looked at."""
        attempt, service = self.attempt, self.service
        if attempt.in_doubt:
            return self._submit_goes_on(error)
        if attempt.handle is None:
            return False
        attempt.wait_while_halted()  # the error may come of the stop: a job that was cancelled for it has not failed
        if attempt.stop_if_overdue(self.stop_job):  # nor has one that was told to stop for its job_timeout
            raise ending.overdue(attempt) from error
        seen = attempt.observe()
        is_trouble = service.waits() and service.is_wait_trouble(error) and not ending.is_at_limit(self, error, seen)
        if is_trouble and trouble.can_go_on(seen, is_quick=not tells_of_limit(error)):
            self.log.warning(
                "resumable: waiting for %s failed, not the job (state %s); going on: %r", attempt.handle, seen, error
            )
            if seen.state is JobState.SUCCEEDED:
                attempt.plan = Deliver("the job has succeeded")
            return True
        if seen.state is JobState.FAILED and service.waits() and trouble.owes_a_verdict(error):
            self.log.warning(
                "resumable: waiting for %s failed, and the job has ended meanwhile (%s): what comes of that is asked of the "
                "operator's own code: %r",
                attempt.handle,
                seen,
                error,
            )
            attempt.plan = Conclude("the job has ended, and the wait failed without a verdict on it")
            return True
        ending.failed(self, seen, error)
        return False

    def _submit_goes_on(self, error: Exception) -> bool:
        """The same, while a submit of this start is unanswered."""
        attempt, service = self.attempt, self.service
        if service.is_token_spent(error):
            return attempt.token_spent()
        is_last_word = not attempt.is_perhaps_made
        if is_last_word and attempt.repeats_after_clear and refuses_repetition(error):
            return attempt.give_up_doubt(error)
        if is_last_word and service.is_rejection(error):
            attempt.rejected()
            return False
        goes_on = attempt.recover(error)
        if not goes_on:
            ending.warn_of_doubt(self, repr(error), error)
        return goes_on


def _of_theirs(service: JobService, context: Any) -> Any:
    """
    The id of the job that the operator's own durability has kept, or None. Where it keeps none but puts a mark on the job, the
    service has a ``marked_by_operator``, which looks for it.

    Raises:
        ResumableError: that cannot be told.
    """
    key = getattr(service.operator, "external_id_key", None)
    marked = getattr(service, "marked_by_operator", None)
    kept = key and host.kept_by_operator(context, key)
    if kept or marked is None:
        return kept
    try:
        return marked(context)
    except Exception as e:
        raise LostSightError(
            f"{service.service} could not be asked for a job that the operator's own durability may have started ({e!r}). "
            "Nothing was submitted, it may be running. Check the connection and the service.",
            next_try="asks again",
        ) from e


_begun: Any = None
"""The task instance that this process has begun an attempt of."""
_begun_lock = threading.Lock()


@contextmanager
def one_attempt(context: Any) -> Iterator[None]:
    """
    While an attempt of a task instance is made, and after it has ended, no other is begun in the same start of the task: it would
    be given the first one's job, or make a second one. A hand-back and a deferral end the start.

    Raises:
        ConfigurationError: one was begun. Nothing was submitted by the second.
    """
    global _begun  # noqa: PLW0603 - a process runs one task instance
    mine = (context["ti"], context["ti"].try_number)
    with _begun_lock:
        if _begun is not None and _begun[0] is mine[0] and _begun[1] == mine[1]:
            raise ConfigurationError(
                "A second job was asked for in one start of a task: execute of a resumable operator was called twice. A task has "
                "one record, and one job: the second call would be given the first one's. Nothing was submitted by it, the first "
                "job is left as it is. Make a task of each job, for example by expand(), or give durable=False."
            )
        _begun = mine
    try:
        yield
    except BaseException as e:
        if host.is_hand_back(e) or host.is_deferral(e):
            _begun = None
        raise


class WaitTrouble:
    """Counts waits that fail while the job is well. Trouble with a status is no reason to fail; a bug in the wait is one."""

    def __init__(self) -> None:
        self._quick = 0
        self._began = 0.0
        self._has_asked = False
        self._has_waited_out = False

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
        if seen.state is JobState.SUCCEEDED and not is_quick:
            if self._has_waited_out:  # for an end that it does not see: the service has forgotten the job
                return False
            self._has_waited_out = True
        self._quick = self._quick + 1 if is_quick and time.monotonic() - self._began < QUICK_SECONDS else 0
        if self._quick > MAX_QUICK_FAILURES:
            return False
        time.sleep(min(2.0**self._quick, 30.0) if seen.state is JobState.ACTIVE else 0)
        return True


def _is_of_a_waiter(error: BaseException | None) -> bool:
    """Whether botocore's waiter raised it, or what caused it: that is a verdict on the job, or a limit of the wait."""
    return error is not None and (type(error).__name__ == "WaiterError" or _is_of_a_waiter(error.__cause__))
