"""The glue between an operator and an `Attempt`: shared by custom operators and by the ready-made ones."""

from __future__ import annotations

import copy
import functools
import inspect
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from enum import Enum
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from resumable import compat
from resumable.attempt import Again, Attempt
from resumable.errors import (
    ConfigurationError,
    InvalidHandleError,
    JobFailedError,
    JobNotFound,
    JobTimeoutError,
    LostSightError,
    RefusedError,
    ResumableError,
    WaitLimitError,
)
from resumable.importing import path_of
from resumable.interruption import Interrupted, Interruption, Stop
from resumable.lifecycle import Certainty, Claim, Conclude, Deliver, JobState, Observation
from resumable.limits import Limit, tells_of_limit
from resumable.policy import OnFailed, OnFinalFailure, OnMissing, OnTimeout, ResumePolicy, Wait, seconds_of
from resumable.record import JobHandle, JobRecord, Outcome
from resumable.rejection import is_only_of_the_wait, proves_nothing_made, refuses_repetition
from resumable.remote import JobAdapter
from resumable.spec import Spec, spec_values
from resumable.stores.base import RecordStore, SupersededError

Body = Callable[[Attempt], Any]

DEFERRED_BY = "resumable_try"
"""The argument by which a deferral says of which try it is; taken out before the operator's method is called."""

QUICK_FAILURES = 5
"""Waits that may fail one right after the other while the job runs, before the try fails."""

"""Modules that no other process can import by name: Airflow gives those of DAG files such a prefix."""

QUICK = 60.0
"""Seconds that a wait must have lasted for its failure not to count as quick."""


if TYPE_CHECKING:

    class _StartedAgainInTime: ...

else:
    _StartedAgainInTime = compat.started_again_in_time()


class DurableBase(_StartedAgainInTime, ABC):
    """
    What every durable operator has: the two arguments, the fingerprint of its spec, the run of one attempt, ``on_kill``.

    Not for use by itself: take `ResumableMixin`, or a ready-made operator.
    """

    spec_fields: ClassVar[Sequence[str] | None] = None
    """Attributes that make up the job's spec: an edit of one is a change of the job. Default: the template fields, without those
    that say how the job is reached, waited for or logged (`resumable.spec.WAITED_FOR_OR_LOGGED`)."""

    reach_fields: ClassVar[Sequence[str] | None] = None
    """
    The attributes that are enough to look at the job and to cancel it: the name of the connection, and plain settings by which
    states are told apart. They are kept in the record, so that a stop reaches a job whose task no process holds at that moment
    (`resumable.sweep`): there, the operator has these, the defaults of its arguments and the class's own attributes.

    Strings, numbers, booleans, None. What says where requests go or as whom (a host, a URL, a proxy, ``verify``, a role, a
    config) belongs into the connection: a task can write anything into its record, so such names and values are neither kept
    nor read. If ``reach_fields`` is None, such a job is reported and not stopped.
    """


    if TYPE_CHECKING:  # of the operator's other base
        log: Any
        task_id: str

    _resumable_is_durable = True
    """Ours. If off, `_resumable_execute_theirs` puts into ``durable`` what the operator's own durability has there."""

    _resumable_was_told_early = False
    _resumable_is_at_work = _resumable_is_over = False
    _resumable_attempt: Attempt | None = None
    _resumable_interruption: Interruption | None = None
    _resumable_written: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    @compat.apply_defaults
    def __init__(
        self,
        *,
        durable: bool = True,
        resume_policy: ResumePolicy | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(durable, bool):
            msg = f"durable={durable!r} is neither True nor False. Nothing was submitted. Give a bool."
            raise ConfigurationError(msg)
        given = ResumePolicy.of(resume_policy)
        policy = compat.resolved_policy(given)
        if durable:
            compat.require_store()
            if given.wait is Wait.RESCHEDULE:
                kwargs = _undeferred(type(self), kwargs)
        super().__init__(**kwargs)
        theirs = vars(self).get("durable")
        if not durable and theirs is not None and "durable" in (kwargs.get("default_args") or {}):  # it was meant for us
            theirs = compat.durable_by_default(type(self))
        self._resumable_their_durable: bool | None = theirs
        self._resumable_is_durable = self.durable = durable
        self.resume_policy, self._resumable_given_policy = policy, given
        if durable and policy.wait is Wait.RESCHEDULE:
            self._resumable_settle_reschedule(given)
        if durable and given.job_timeout is not None and not self._resumable_can_stop():
            raise ConfigurationError(
                f"job_timeout={given.deadline:g} needs a way to stop the job, and {type(self).__name__} has none. Nothing was "
                "submitted. Implement cancel_job, or leave job_timeout out."
            )

    def _resumable_can_stop(self) -> bool:
        return True

    def _resumable_settle_reschedule(self, given: ResumePolicy) -> None:
        """What cannot be is an error where the author asked for it; where airflow.cfg did, it yields."""
        policy, where = self.resume_policy, "airflow.cfg [resumable]"
        if given.wait_interval is None and policy.interval < _least_interval():
            compat.say_once(f"{where}: wait_interval={policy.interval:g} is too near for the scheduler; it is taken for 60")
            self.resume_policy = replace(policy, wait_interval=60.0)
        try:
            self._resumable_check_reschedule()
        except ConfigurationError as e:
            if given.wait is not None:
                raise
            why, name = str(e).partition(" Nothing was submitted.")[0], type(self).__name__
            compat.say_once(f"{where}: wait=reschedule is not followed by {name}, which waits as it does without. {why}")
            self.resume_policy = replace(self.resume_policy, wait=Wait.POLL)

    def _resumable_check_reschedule(self) -> None:
        floor = _least_interval()
        if self.resume_policy.interval < floor:
            raise ConfigurationError(
                f"wait_interval={self.resume_policy.interval:g} is less than {floor:g} seconds. Nothing was submitted. A date "
                "that near loses a race in the scheduler; give more, or lower [resumable] hand_back_seconds where that is safe."
            )
        if getattr(self, "deferrable", False):
            raise ConfigurationError(
                "deferrable=True and wait='reschedule' both give the worker slot back. Nothing was submitted. Choose one."
            )

    # -- one attempt --------------------------------------------------------------------------------------------------

    def _resumable_job_adapter(self, context: Any) -> JobAdapter:
        raise NotImplementedError

    def _resumable_waits(self) -> bool:
        return True

    def is_wait_trouble(self, error: BaseException) -> bool:
        """Whether an exception of the wait, while the job is active or has succeeded, means that the wait may simply go on."""
        return not compat.is_final(error)

    def _resumable_limits(self) -> Sequence[Limit]:
        """The arguments by which the author may limit the wait."""
        return ()

    def is_rejection(self, error: BaseException) -> bool:
        """
        Whether an error of the submit proves that no job was made. Everything else leaves a doubt.

        Default: a 4xx answer (not 408, 409, 429) of whatever client library, no connection (refused, DNS, TLS), an unknown
        Airflow connection, `NotSubmitted`.
        """
        return proves_nothing_made(error)

    def _resumable_is_token_spent(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error of the submit proves that its token made a job which was deleted: ``on_missing`` then applies."""
        return False

    def _resumable_run_attempt(self, context: Any, body: Body) -> Any:
        """Begin an attempt and run ``body`` under it, as often as the answers of the service ask for."""
        context = compat.task_context(context, self)
        with compat.airflow_errors(context), one_attempt(context), compat.sigterm_calls(self._resumable_on_sigterm):
            before = vars(self).get("on_kill")  # of a checkpoint that is open around the job
            self._resumable_take_over_on_kill()
            attempt = self._resumable_attempt = self._resumable_new_attempt(context)
            why = lambda: compat.own_state(context)  # noqa: E731
            watch = Interruption(
                attempt,
                why,
                request_lock=compat.request_lock(),
                log=self.log,
                cancel=self._resumable_stop_job,
                is_out_of_time=self._resumable_clock(),
            )
            try:
                with watch as self._resumable_interruption:
                    if self._resumable_was_told_early:
                        watch.notice()
                    self._resumable_begin(context, attempt)
                    self._resumable_take_up_theirs(context, attempt)
                    if attempt.stop_if_overdue(self._resumable_stop_job):
                        raise _overdue(attempt)
                    result = self._resumable_repeat(context, attempt, body)
            except Interrupted as e:
                watch.close()  # it may have come while the watch was being closed
                self._resumable_leave(attempt, e.stop)
            except compat.task_timeout() as e:
                self._resumable_timed_out(context, attempt, e)  # on_kill follows; the matter is settled here
                raise
            except BaseException as e:  # a KeyboardInterrupt ends the task as well
                if not compat.is_deferral(e):
                    self._resumable_note_task_end(context, attempt, e)
                raise
            finally:
                self._resumable_interruption, self._resumable_was_told_early, self._resumable_is_over = None, False, True
                if before is not None:
                    vars(self)["on_kill"] = before
                attempt.flush()
            self._resumable_succeeded(context, attempt)
            return result

    def _resumable_clock(self) -> Callable[[], bool]:
        """From now on, tells whether the task's ``execution_timeout`` is over."""
        limit, began = getattr(self, "execution_timeout", None), time.monotonic()
        return lambda: limit is not None and time.monotonic() - began >= limit.total_seconds()

    def _resumable_begin(self, context: Any, attempt: Attempt) -> None:
        try:
            attempt.begin()
            if attempt.record is None and compat.may_have_lost_its_record(context):
                self.log.warning(
                    "resumable: the task was cleared, and nothing is kept of its earlier tries. If one of them had submitted a "
                    "job, Airflow has deleted the record with the clear, and that job may run beside the new one: look in %s. "
                    "With airflow-resumable installed where the API server runs, a clear leaves the record.",
                    attempt.adapter.service,
                )
        except JobFailedError as e:
            assert attempt.seen is not None
            self._resumable_failed(context, attempt, attempt.seen, e)
            raise
        except RefusedError as e:
            attempt.leave(str(e).partition(". ")[0])
            raise

    def _resumable_is_nested(self, context: Any) -> bool:
        """
        Whether this operator is run by hand, inside another task. A task has one record, and two jobs in it would be taken for
        each other.
        """
        task = context.get("task") if isinstance(context, Mapping) else None
        outer = getattr(task, "task_id", None)
        if task is self or not isinstance(outer, str):
            return False
        return outer != self.task_id or (isinstance(task, compat.base_operator()) and type(task) is not type(self))

    def _resumable_runs_durable(self, context: Any) -> bool:
        if self._resumable_is_durable and self._resumable_is_nested(context):
            self._resumable_is_durable = self.durable = False
            self._resumable_their_durable = None  # it would mix two jobs up as well
            self.log.warning(
                "resumable: %s is executed inside task %s and is not made durable: a task has one record, for one job. A retry "
                "of that task starts this job again. Make a task of its own of it, or write the outer task as a ResumableMixin.",
                type(self).__name__,
                context["task"].task_id,
            )
        return self._resumable_is_durable

    def _resumable_take_up_theirs(self, context: Any, attempt: Attempt) -> None:
        """Go on with the job that the operator's own durability (Airflow 3.3) had started before ours was switched on."""
        key = getattr(self, "external_id_key", None)
        if key is None or attempt.record is not None or context["ti"].try_number <= 1:
            return
        external_id = compat.kept_by_operator(context, key)
        if external_id:
            attempt.take_up(self._resumable_handle_of(external_id), may_deliver=not compat.may_be_cleared(context))

    def _resumable_handle_of(self, external_id: Any) -> JobHandle:
        """The handle of the job that the operator's own durability knows by ``external_id``."""
        raise NotImplementedError

    def _resumable_succeeded(self, context: Any, attempt: Attempt) -> None:
        if self._resumable_waits():
            attempt.close(Outcome.SUCCEEDED)
        if not attempt.outlives_success:
            compat.after_success(self, context, attempt.forget)

    def _resumable_new_attempt(self, context: Any) -> Attempt:
        adapter = self._resumable_job_adapter(context)
        return Attempt(
            task=compat.task_identity(context),
            claim=Claim(compat.generation(context), self._resumable_spec(context), adapter.certainty, self._resumable_waits()),
            policy=self.resume_policy,
            records=self._resumable_records(context),
            adapter=adapter,
            log=self.log,
            try_number=context["ti"].try_number,
            may_record=lambda params: not compat.holds_secret(params),
            redact=compat.masked,
            room=compat.record_limit(),
            reach=self._resumable_reach(),
            one_job=self._resumable_one_job,
            count=self._resumable_count,
        )

    def _resumable_one_job(self, record: JobRecord) -> str:
        """
        Why a submit of this try would be answered with ``record``'s job, or refused because of it, in words; empty if not.

        Here: its token is the author's own, and still stands in what the operator was called with, or has on itself.
        """
        own = {name: value for name, value in vars(self).items() if not name.startswith("_resumable_")}
        if not _holds([own, compat.given(self)], record.token):
            return ""
        return f"its token {record.token!r} is your own and unchanged: {record.service} would answer a submit with this job"

    def _resumable_count(self, event: str) -> None:
        with suppress(Exception):  # a metric never fails a task
            compat.count(event, type(self).__name__)

    def _resumable_reach(self) -> dict[str, Any] | None:
        """How the job is reached when no process holds the task: this class and the attributes that ``reach_fields`` names."""
        if self.reach_fields is None or (path := _import_path(type(self))) is None:
            return None
        values = {name: _plain(getattr(self, name, None)) for name in self.reach_fields}
        return {"operator": path, **{name: value for name, value in values.items() if _may_be_kept(name, value)}}

    @classmethod
    def _resumable_at_a_distance(cls, reach: Mapping[str, Any]) -> JobAdapter:
        """The adapter of a job whose task runs nowhere: an instance that has ``reach`` and the defaults of its class only."""
        operator = cls.__new__(cls)
        # a task can write any name and any value into its record
        known = {name: reach[name] for name in cls.reach_fields or () if name in reach and _may_be_reached_by(name, reach[name])}
        vars(operator).update({**_defaults_of(cls), **known})
        return operator._resumable_job_adapter({})

    def _resumable_records(self, context: Any) -> RecordStore:
        return RecordStore(compat.state_store(context))

    def _resumable_repeat(self, context: Any, attempt: Attempt, body: Body) -> Any:
        trouble = _WaitTrouble()
        while True:
            trouble.wait_begins()
            try:
                return body(attempt)
            except Again:
                continue
            except ResumableError:
                raise
            except Exception as e:
                if compat.is_hand_back(e) or not self._resumable_goes_on(context, attempt, e, trouble):
                    raise

    def _resumable_goes_on(self, context: Any, attempt: Attempt, error: Exception, trouble: _WaitTrouble) -> bool:
        """After an exception of the provider's code: whether to enter it once more. The job has been looked at."""
        if attempt.in_doubt:
            if self._resumable_is_token_spent(error):
                return attempt.token_spent()
            is_last_word = not attempt.is_perhaps_made
            if is_last_word and attempt.repeats_after_clear and refuses_repetition(error):
                return attempt.give_up_doubt(error)
            if is_last_word and self.is_rejection(error):
                attempt.rejected()
                return False
            goes_on = attempt.recover(error)
            if not goes_on:
                self._resumable_warn_of_doubt(context, attempt, repr(error), error)
            return goes_on
        if attempt.handle is None:
            return False
        attempt.wait_while_halted()  # the error may come of the stop: a job that was cancelled for it has not failed
        seen = attempt.observe()
        is_trouble = self._resumable_waits() and self.is_wait_trouble(error) and not self._resumable_is_at_limit(error, seen)
        if is_trouble and trouble.can_go_on(seen, is_quick=not tells_of_limit(error)):
            self.log.warning(
                "resumable: waiting for %s failed, not the job (state %s); going on: %r", attempt.handle, seen, error
            )
            if seen.state is JobState.SUCCEEDED:
                attempt.plan = Deliver("the job has succeeded")
            return True
        if seen.state is JobState.FAILED and self._resumable_waits() and trouble.owes_a_verdict(error):
            self.log.warning(
                "resumable: waiting for %s failed, and the job has ended meanwhile (%s): what comes of that is asked of the "
                "operator's own code: %r",
                attempt.handle,
                seen,
                error,
            )
            attempt.plan = Conclude("the job has ended, and the wait failed without a verdict on it")
            return True
        self._resumable_failed(context, attempt, seen, error)
        return False

    def _resumable_is_at_limit(self, error: BaseException, seen: Observation, told: str = "", *, timed_out: bool = False) -> bool:
        """Whether a limit of the author's own has ended the wait for a job that runs on; ``timed_out``: a deferral was."""
        if seen.state not in (JobState.ACTIVE, JobState.REPAIRABLE) or not (timed_out or tells_of_limit(error, told)):
            return False
        given = ((limit.argument, limit.of_author(self)) for limit in self._resumable_limits())
        found = next((one for one in given if one[1] is not None), None)
        if found is not None:
            self.log.info("resumable: %s=%s has ended the wait, as the author asked; the job runs on", *found)
        return found is not None

    def _resumable_end_at_limit(self, context: Any, attempt: Attempt, seen: Observation) -> None:
        """With ``wait="reschedule"``: the same, counted in looks of this try."""
        for limit in self._resumable_limits():
            value = limit.of_author(self)
            if value is not None and attempt.looks >= limit.looks(self, value, self.resume_policy.interval):
                error = WaitLimitError(
                    f"{limit.argument}={value} is reached: this try has looked {attempt.looks} times at {attempt.handle}, which "
                    "runs on. Raise the limit, or leave it out, if the job may take longer.",
                    next_try="reattaches to it",
                )
                self._resumable_failed(context, attempt, seen, error)
                raise error

    def _resumable_failed(self, context: Any, attempt: Attempt, seen: Observation, error: Exception) -> None:
        """The try fails with ``error``: note what was seen of the job, and decide what becomes of one that still runs."""
        if not self._resumable_waits():
            return
        ours = None if compat.is_final(error) or isinstance(error, ResumableError) else _instead_of(attempt, seen)
        match seen.state:
            case JobState.FAILED:
                attempt.close(Outcome.FAILED)
            case JobState.GONE:
                attempt.close(Outcome.GONE)
            case JobState.SUCCEEDED:
                is_verdict = attempt.is_waiting and not self.is_wait_trouble(error)  # a later start delivers no success then
                attempt.close(Outcome.FAILED if is_verdict and not compat.is_final(error) else Outcome.SUCCEEDED)
            case JobState.FAILING:
                attempt.note_failing()
                self._resumable_leave_running(context, attempt, seen, ours or error)
            case _:
                self._resumable_leave_running(context, attempt, seen, ours or error)
        if ours is not None:
            raise ours from error

    def _resumable_leave_running(self, context: Any, attempt: Attempt, seen: Observation, error: Exception) -> None:
        """The try fails while the job, or a part of it, runs: on the last one ``on_final_failure`` decides."""
        log, job = self.log, attempt.known_job
        if not compat.is_last_try(context, error):
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
            self._resumable_stop_in_the_end(attempt, "the last try failed, on_final_failure=cancel")

    def _resumable_stop_in_the_end(self, attempt: Attempt, why: str) -> None:
        """Stop a job that no other try comes back to."""
        if not attempt.owns_record():
            return
        if self._resumable_stop_job(why):
            attempt.close(Outcome.CANCELLED)
        else:
            self._resumable_note_untaken(attempt, why)

    def _resumable_note_untaken(self, attempt: Attempt, why: str) -> None:
        """A cancel that the service did not take, and no other try comes back to the job: the sweep tells it again."""
        if attempt.cannot_cancel:
            attempt.leave(f"{why}, and the operator cannot stop it")
        else:
            attempt.close(Outcome.CANCELLED)

    def _resumable_note_task_end(self, context: Any, attempt: Attempt, error: BaseException) -> None:
        """
        The task ends with ``error``: whichever line raised it, the record says why a job runs on that no other try comes back to.
        """
        record = attempt.record
        if record is None or record.outcome is not None or record.left or isinstance(error, SupersededError):
            return
        if compat.is_hand_back(error) or not compat.is_last_try(context, error):
            return
        name = type(error).__name__
        if record.handle is None:
            attempt.leave(f"{name}: its submit was not answered")
        elif attempt.policy.on_final_failure is OnFinalFailure.CANCEL:
            self._resumable_stop_in_the_end(attempt, f"{name} on the last try, on_final_failure=cancel")
        else:
            self.log.warning("resumable: the task ends (%s), %s is left running, on_final_failure=leave", name, record.handle)
            attempt.leave(f"{name}, on_final_failure=leave")

    def _resumable_leave(self, attempt: Attempt, stop: Stop) -> NoReturn:
        """The way out of an attempt that was told to stop; the job has been dealt with."""
        job = attempt.handle or "no job"
        if stop is Stop.EVICTION and attempt.record is not None and attempt.record.outcome in (Outcome.FAILED, Outcome.GONE):
            raise JobFailedError(
                f"{job} has failed, and the worker is going away. The task is not handed back for it: this try fails.",
                next_try="submits another job",
            )
        if stop is Stop.EVICTION:
            seconds = compat.hand_back_seconds()
            self.log.info(
                "resumable: %s; the task is handed back and started again in %.0f s, which uses up no try (%s)",
                stop.value,
                seconds,
                job,
            )
            self._resumable_count("handed_back")
            raise compat.hand_back(seconds)
        if stop is Stop.JOB_TIMEOUT:
            raise _overdue(attempt)
        if stop is Stop.TIMED_OUT:
            raise compat.task_timeout()(f"{stop.value}; {job} was dealt with as on_timeout says")
        if stop is not Stop.UNKNOWN:
            compat.end_stopped_task(taken_over=stop is Stop.SUPERSEDED)
        raise LostSightError(
            f"Told to stop, {stop.value}. {job} was dealt with as the lines above say. If Airflow starts the task again, it goes "
            "on from the record."
        )

    def _resumable_timed_out(self, context: Any, attempt: Attempt, error: BaseException | None = None) -> None:
        job = attempt.known_job
        if attempt.in_doubt:
            self._resumable_warn_of_doubt(context, attempt, "execution_timeout", error)
        if job is None:
            return
        if attempt.policy.on_timeout is OnTimeout.CANCEL:
            if not attempt.owns_record():
                return
            with suppress(compat.task_timeout()):  # a look that is out of time itself
                if attempt.note_end():  # what has just succeeded is the next try's to deliver
                    return
            if self._resumable_stop_job(why := "execution_timeout, on_timeout=cancel"):
                attempt.close(Outcome.CANCELLED)
            elif compat.is_last_try(context, error):
                self._resumable_note_untaken(attempt, why)
        elif not compat.is_last_try(context, error):
            self.log.warning("resumable: execution_timeout, %s is left running, on_timeout=detach; the next try reattaches", job)
        else:
            self.log.warning(
                "resumable: execution_timeout on the last try, %s is left running, on_timeout=detach; stop it in the service if "
                "it is not wanted",
                job,
            )
            attempt.leave("on_timeout=detach")

    def _resumable_warn_of_doubt(self, context: Any, attempt: Attempt, why: str, error: BaseException | None = None) -> None:
        """The try ends with a submit that was not answered."""
        if attempt.adapter.certainty in (Certainty.NONE, Certainty.EXPIRED):
            then = "look for it in the service, and stop it or wait for its end. No try submits again until the task is cleared"
        elif compat.is_last_try(context, error):
            then = "look for it in the service; to run the task again, clear it"
        elif attempt.adapter.certainty is Certainty.RESEND and not attempt.is_repeatable:
            then = "the next try asks again under the same token. The request was not kept: if it has moved by then (times, try "
            then += "numbers) and the service refuses it, look for the job there, and clear the task"
        else:
            then = "the next try clears that up"
        self.log.warning(
            "resumable: the submit to %s was not answered (%s), a job with token %s may be running: %s",
            attempt.adapter.service,
            why,
            attempt.token,
            then,
        )

    def _resumable_look_again_later(self, context: Any, attempt: Attempt, seen: Observation) -> None:
        """With ``wait="reschedule"``: leave, if the job still runs, and be started again for the next look."""
        if seen.state is JobState.FAILING:
            error = attempt.failing(seen)
            self._resumable_failed(context, attempt, seen, error)
            raise error
        if seen.state not in (JobState.ACTIVE, JobState.UNKNOWN):
            return
        if attempt.stop_if_overdue(self._resumable_stop_job):
            raise _overdue(attempt)
        if self.resume_policy.wait is Wait.RESCHEDULE:
            self._resumable_end_at_limit(context, attempt, seen)
        interval = self.resume_policy.interval
        raise compat.hand_back(max(compat.hand_back_seconds(), min(interval, attempt.remaining or interval)))

    # -- a deferral ---------------------------------------------------------------------------------------------------

    def defer(self, *, trigger: Any, kwargs: dict[str, Any] | None = None, **given: Any) -> Any:
        """The operator's. One that comes before the try has a record says of which try it is, for `resume_execution`."""
        record = self._resumable_attempt.record if self._resumable_attempt is not None else None
        own = record is not None and self._resumable_attempt is not None and record.owner == self._resumable_attempt.owner
        if self._resumable_is_durable and (number := None if own else compat.current_try_number()) is not None:
            kwargs = {**(kwargs or {}), DEFERRED_BY: number}
        return super().defer(trigger=trigger, kwargs=kwargs, **given)  # type: ignore[misc]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """The way back from a deferral: the operator's own, or `execute` if it was an earlier try that deferred."""
        next_kwargs = dict(next_kwargs or {})
        deferred_by = next_kwargs.pop(DEFERRED_BY, None)
        if self._resumable_is_durable and self._resumable_is_of_an_earlier_try(deferred_by, compat.task_context(context, self)):
            return self.execute(context)  # type: ignore[attr-defined]
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]

    def _resumable_is_of_an_earlier_try(self, deferred_by: int | None, context: Any) -> bool:
        """
        Whether the deferral that this process is to go on from is over and done with.

        Airflow 3.0 keeps it over a failure, so that every later try would be given the old trigger's event and never execute.
        """
        now, then = context["ti"].try_number, deferred_by
        if then is None:
            try:
                record = self._resumable_records(context).load()
            except ResumableError as e:
                self.log.debug("resumable: whose deferral this is cannot be told: %s", e)
                return False
            then = record.try_number if record is not None else now
        if then >= now:
            return False
        self.log.info("resumable: try %s had deferred, this is try %s: it starts from the top", then, now)
        return True

    # -- a stop -------------------------------------------------------------------------------------------------------

    def _resumable_take_over_on_kill(self) -> None:
        """
        From here on Airflow's signal handler calls ours, whatever ``on_kill`` the operator's classes have: those cancel the job,
        and an eviction is no reason to. What they do is kept for the stops that are meant for the job (`_resumable_stop_job`).
        """
        self._resumable_is_at_work, self._resumable_is_over = True, False
        self._resumable_hear_of_sigterm()

    def _resumable_hear_of_sigterm(self) -> None:
        vars(self)["on_kill"] = self._resumable_on_sigterm

    def _resumable_on_sigterm(self) -> None:
        if self._resumable_interruption is not None:
            self._resumable_interruption.notice()
            return
        if self._resumable_is_over:  # Airflow calls on_kill also after an execution_timeout
            return
        self._resumable_was_told_early = True
        if not self._resumable_is_at_work:
            self._resumable_call_on_kill_of_the_class()

    def _resumable_call_on_kill_of_the_class(self) -> None:
        """Nothing of ours has begun, and perhaps never will: the ``execute`` of a subclass may start a job by itself."""
        try:
            type(self).on_kill(self)  # type: ignore[attr-defined]
        except Exception as e:  # most often there is no job yet
            self.log.warning("resumable: on_kill failed: %r", e)

    def _resumable_has_own_on_kill(self) -> bool:
        """Whether the author of the operator wrote an ``on_kill``."""
        return False

    def _resumable_stop_job(self, why: str) -> bool:
        """Stop the job of the attempt, by the operator's own ``on_kill`` if it has one. True if it was told to stop."""
        attempt = self._resumable_attempt
        if attempt is None:
            return False
        attempt.stop_reason = why
        if self._resumable_has_own_on_kill():
            self.log.info("resumable: calling on_kill to stop %s: %s", attempt.handle or "the job", why)
            try:
                type(self).on_kill(self)  # type: ignore[attr-defined]
            except (Exception, SystemExit) as e:
                self.log.warning("resumable: on_kill failed: %r", e)
            if attempt.has_ended():
                return True
        return attempt.cancel(why)

    # -- the spec -----------------------------------------------------------------------------------------------------

    def _do_render_template_fields(self, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Called for plain and for mapped tasks, right before templates are rendered: the last sight of what the author wrote."""
        if parent is self and self._resumable_is_durable:
            self._resumable_written = self._resumable_as_written()
            self._resumable_hear_of_sigterm()  # a stop may come before `execute`, and is heeded there
        super()._do_render_template_fields(parent, *args, **kwargs)  # type: ignore[misc]

    def _resumable_as_written(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The fields that make up the job, and what the operator was called with."""
        try:
            return self._resumable_spec_values(), compat.given(self)
        except Exception as e:
            self.log.debug("resumable: an edit of this task cannot be told: %r", e)
            return {}, {}

    def _resumable_spec(self, context: Any) -> Spec:
        """The fingerprint. Never an error: what cannot be told is not comparable, and so no edit."""
        values, called_with = self._resumable_written or self._resumable_as_written()
        try:
            return compat.spec(self, values, called_with, context) if values else Spec()
        except Exception as e:
            self.log.debug("resumable: an edit of this task cannot be told: %r", e)
            return Spec()

    def _resumable_spec_values(self) -> dict[str, Any]:
        return spec_values(self, self.spec_fields)


class ResumableMixin(DurableBase):
    """
    Makes a custom operator durable: submits once, reattaches after a crash, delivers the same result on every way.

    The six methods are those of Airflow 3.3's own ``ResumableJobMixin``, so an operator written for that one runs on this one
    by changing the import. Call ``execute_resumable`` from ``execute``::

        class TrainOperator(ResumableMixin, BaseOperator):
            template_fields = ("spec",)

            def execute(self, context):
                return self.execute_resumable(context)

            def submit_job(self, context):
                return client.start(self.spec, request_id=self.idempotency_token)

    What else you can give, and what it buys:

    - ``self.idempotency_token`` sent with the submit: a submit whose answer was lost is repeated safely.
    - ``find_job``: the same, for a service that knows no tokens but lets you stamp one on the job and look it up.
    - ``cancel_job``: a user's stop cancels the job, and ``restart`` policies work.
    - ``is_job_failed``: a status that is none of active, succeeded, failed counts as unknown, and is waited out.
    - raise `resumable.JobNotFound` in ``get_job_status`` when the service no longer knows the job.
    - raise `resumable.NotSubmitted` in ``submit_job`` when it is certain that no job was made.

    Without token and ``find_job``, a submit that ended in anything but a job's id, or in a proof that there is none (see
    `is_rejection`), is never repeated by itself: the retry fails with a message that says what to check, until the task is
    cleared.
    """

    service: str = ""
    """Name of the service in logs and records; the class's name by default."""

    submit_is_idempotent: bool | None = None
    """Whether ``submit_job`` may be repeated under the same ``idempotency_token``. None: it may if the class uses the token."""

    settle_time: float | timedelta = 30.0
    """Seconds, or a timedelta, after a submit before ``find_job``'s None, or a `JobNotFound`, is believed."""

    _resumable_token: str | None = None

    # -- to be implemented --------------------------------------------------------------------------------------------

    @abstractmethod
    def submit_job(self, context: Any) -> Any:
        """Start the job; return its id: a JSON value, neither None nor empty (0 is an id)."""

    @abstractmethod
    def get_job_status(self, external_id: Any, context: Any) -> str:
        """Ask the service for the job's status. Raise `JobNotFound` if it knows no such job; any other error means unknown."""

    @abstractmethod
    def is_job_active(self, status: str) -> bool:
        """Whether the job with this status still runs or will."""

    @abstractmethod
    def is_job_succeeded(self, status: str) -> bool:
        """Whether the job with this status has succeeded."""

    @abstractmethod
    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        """Block until the job has ended; raise if it failed. May be called for a job that another attempt started."""

    @abstractmethod
    def get_job_result(self, external_id: Any, context: Any) -> Any:
        """The task's return value. Called on every way to success, also for a job that ended while nobody watched."""

    # -- optional -----------------------------------------------------------------------------------------------------

    def cancel_job(self, external_id: Any, context: Any) -> None:
        """Ask the service to stop the job: one request, no waiting. May be called twice, also for a job that has ended."""
        raise NotImplementedError("this operator has no cancel_job")

    def find_job(self, token: str, context: Any) -> Any:
        """
        The id of the job that was submitted with ``token``; None, or raise `JobNotFound`, if there is certainly none. Any other
        error means doubt.
        """
        raise NotImplementedError("this operator has no find_job")

    def is_job_failed(self, status: str) -> bool:
        """Whether the job with this status has failed. Default: every status that is neither active nor succeeded."""
        return not self.is_job_active(status) and not self.is_job_succeeded(status)

    def is_wait_trouble(self, error: BaseException) -> bool:
        """
        Whether an exception of ``poll_until_complete``, while the job is active or has succeeded, is only the wait's. Default:
        what speaks of a request or its answer (no connection, a time-out, a status of HTTP or gRPC, an answer that cannot be
        read), whatever the client library; what you raise for a job that failed is none.
        """
        is_trouble = isinstance(error, JobNotFound) or is_only_of_the_wait(error)  # one answer of a list that lags, or of a proxy
        return is_trouble and super().is_wait_trouble(error)

    # -- given --------------------------------------------------------------------------------------------------------

    @property
    def idempotency_token(self) -> str:
        """
        48 hex characters that name this submission: send them with the submit. The same on every try until the job was seen to
        have failed or the task was cleared.

        Raises:
            RuntimeError: read outside of ``submit_job``.
        """
        if self._resumable_token is None:
            raise RuntimeError("idempotency_token is known while submit_job runs under execute_resumable, and not before")
        return self._resumable_token

    def execute_resumable(self, context: Any) -> Any:
        """Submit or reattach, wait, return ``get_job_result``: the same on a fresh, a reattached and a finished job."""
        if not self._resumable_runs_durable(context):
            external_id = self.submit_job(context)
            self.poll_until_complete(external_id, context)
            return self.get_job_result(external_id, context)
        return self._resumable_run_attempt(context, lambda attempt: self._resumable_submit_and_wait(context, attempt))

    def _resumable_own_token(self) -> str | None:
        """The token that the author of the DAG gave, for an operator that has an argument for it."""
        return None

    def _resumable_submit_and_wait(self, context: Any, attempt: Attempt) -> Any:
        if not attempt.replays:
            self._resumable_token, _ = attempt.intend(token=self._resumable_own_token())
            try:
                external_id = self.submit_job(context)
            finally:
                self._resumable_token = None
            attempt.submitted(JobHandle(attempt.adapter.service, external_id))
        assert attempt.handle is not None
        external_id = attempt.handle.ids
        if self.resume_policy.wait is Wait.RESCHEDULE and not isinstance(attempt.plan, Deliver | Conclude):
            self._resumable_look_again_later(context, attempt, attempt.seen or attempt.observe())
        if not isinstance(attempt.plan, Deliver):
            attempt.is_waiting = True
            with self._resumable_flushing(attempt):
                self.poll_until_complete(external_id, context)
            attempt.is_waiting = False
        return self.get_job_result(external_id, context)

    @contextmanager
    def _resumable_flushing(self, attempt: Attempt) -> Iterator[None]:
        """Every look at the job is a chance to write a record whose write had failed."""
        look = self.get_job_status

        def look_and_flush(external_id: Any, context: Any) -> str:
            attempt.flush()
            return look(external_id, context)

        vars(self)["get_job_status"] = look_and_flush
        try:
            yield
        finally:
            vars(self).pop("get_job_status", None)

    def _resumable_job_adapter(self, context: Any) -> JobAdapter:
        return _MethodsAdapter(self, compat.given_context(context))

    def _resumable_handle_of(self, external_id: Any) -> JobHandle:
        return JobHandle(_service_of(self), external_id)

    def _resumable_has_own_on_kill(self) -> bool:
        return type(self).on_kill is not compat.base_operator().on_kill  # type: ignore[attr-defined]

    def _resumable_can_stop(self) -> bool:
        return type(self).cancel_job is not ResumableMixin.cancel_job or self._resumable_has_own_on_kill()

    @classmethod
    def _resumable_certainty(cls) -> Certainty:
        if cls.find_job is not ResumableMixin.find_job:
            return Certainty.FIND
        idempotent = cls.submit_is_idempotent
        if idempotent is None:
            idempotent = "idempotency_token" in _names_used(cls.__mro__[: cls.__mro__.index(ResumableMixin)])
        return Certainty.RESEND if idempotent else Certainty.NONE


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
        if compat.is_hand_back(e) or compat.is_deferral(e):
            _begun = None
        raise


def _least_interval() -> float:
    """The least ``wait_interval`` that an author may give. A larger ``hand_back_seconds`` is heeded when a look is put off."""
    return min(compat.hand_back_seconds(), compat.HAND_BACK)


def _undeferred(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` with ``deferrable=False``, where only airflow.cfg says otherwise: it yields to what the author asks for."""
    if "deferrable" in arguments or "deferrable" in (arguments.get("default_args") or {}) or not _can_defer(cls):
        return arguments
    return {**arguments, "deferrable": False}


@functools.cache
def _can_defer(cls: type) -> bool:
    inits = (vars(klass)["__init__"] for klass in cls.__mro__ if "__init__" in vars(klass) and klass is not object)
    return any("deferrable" in inspect.signature(init).parameters for init in inits)


def _import_path(cls: type) -> str | None:
    """``module:Class`` of the nearest class that another process can import and use: not one of a DAG file or of a function."""
    for klass in cls.__mro__:
        if issubclass(klass, DurableBase) and not inspect.isabstract(klass) and (path := path_of(klass)):
            return path
    return None


_WHERE_OR_AS_WHOM = re.compile(
    "host|url|endpoint|prox(y|ies)|passw|(^|_)(uri|ssl|tls|certs?|roles?|config|login|user|token|secret|extra)(_|$)|(^|_)verify$",
    re.IGNORECASE,
)
"""In the name of an attribute: where requests go, or as whom."""

_LONGEST = 250
"""Characters of a connection's name in Airflow."""


def _holds(value: Any, text: str) -> bool:
    """Whether ``text`` stands somewhere in a value of dicts and lists."""
    if isinstance(value, Mapping):
        return any(_holds(entry, text) for entry in value.values())
    if isinstance(value, list | tuple):
        return any(_holds(entry, text) for entry in value)
    return isinstance(value, str | int) and str(value) == text


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _may_be_kept(name: str, value: Any) -> bool:
    return _may_be_reached_by(name, value) and not compat.holds_secret(value)


def _may_be_reached_by(name: str, value: Any) -> bool:
    if _WHERE_OR_AS_WHOM.search(name):
        return False
    if isinstance(value, str):
        return len(value) <= _LONGEST and "://" not in value
    return value is None or isinstance(value, bool | int | float)


@cache
def _defaults_of(cls: type) -> Mapping[str, Any]:
    """Of the arguments of an operator's classes, as far as they are no attributes of theirs: what ``__init__`` would set."""
    found: dict[str, Any] = {}
    airflows = (*compat.base_operator().__mro__, *DurableBase.__mro__)
    for klass in (klass for klass in reversed(cls.__mro__) if "__init__" in vars(klass) and klass not in airflows):
        for name, parameter in inspect.signature(klass.__init__).parameters.items():  # type: ignore[misc]
            if parameter.default is not inspect.Parameter.empty and not hasattr(cls, name):
                found[name] = copy.copy(parameter.default)
    return found


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


def _overdue(attempt: Attempt) -> JobTimeoutError:
    runs_on = "This operator cannot stop it (it has no cancel_job): it runs on. Stop it in the service"
    return JobTimeoutError(
        f"{attempt.record and attempt.record.handle} has run for longer than job_timeout={attempt.policy.deadline:g} s, counted "
        f"from its submission. {runs_on if attempt.cannot_cancel else 'It was told to stop'}. Clear the task to run it again, "
        "with a longer job_timeout if it needs one."
    )


class _WaitTrouble:
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
        self._quick = self._quick + 1 if is_quick and time.monotonic() - self._began < QUICK else 0
        if self._quick > QUICK_FAILURES:
            return False
        time.sleep(min(2.0**self._quick, 30.0) if seen.state is JobState.ACTIVE else 0)
        return True


def _is_of_a_waiter(error: BaseException | None) -> bool:
    """Whether botocore's waiter raised it, or what caused it: that is a verdict on the job, or a limit of the wait."""
    return error is not None and (type(error).__name__ == "WaiterError" or _is_of_a_waiter(error.__cause__))


def _names_in(code: Any) -> set[str]:
    nested = (c for c in code.co_consts if hasattr(c, "co_names"))
    return set(code.co_names).union(*(_names_in(c) for c in nested))


def _code_of(attribute: Any) -> Any:
    """The code of a function, also where it is a property, a cached one, a static method, or decorated; None if there is none."""
    for inner in ("fget", "func", "__func__"):
        if not isinstance(attribute, FunctionType):
            attribute = getattr(attribute, inner, None) or attribute
    return getattr(inspect.unwrap(attribute), "__code__", None) if callable(attribute) else None


def _names_used(classes: Iterable[type]) -> set[str]:
    """The names that the methods of ``classes`` use, without those of a method that a subclass has replaced."""
    used: set[str] = set()
    replaced: set[str] = set()
    for cls in classes:
        for name, attribute in vars(cls).items():
            code = None if name in replaced else _code_of(attribute)
            if code is not None:
                names = _names_in(code)
                used |= names
                parents = {base.__name__ for base in cls.__mro__[1:]}  # Parent.submit_job(self, ...)
                if "super" not in names and not names & parents:
                    replaced.add(name)
    return used


def reached_from(operator: Any, method: str) -> set[str]:
    """Names that ``method`` uses, and the methods that it calls, as far as they can be read."""
    reached: set[str] = set()
    following = {method}
    while following:
        name = following.pop()
        for cls in (cls for cls in operator.__mro__ if name in vars(cls)):
            code = getattr(inspect.unwrap(vars(cls)[name]), "__code__", None) if callable(vars(cls)[name]) else None
            used = _names_in(code) if code else set()
            following |= used - reached
            reached |= used
            if "super" not in used:
                break
    return reached


def _service_of(operator: ResumableMixin) -> str:
    service: Any = operator.service  # an author may keep the client of his service there
    return service if isinstance(service, str) and service else type(operator).__name__


class _MethodsAdapter:
    """A `JobAdapter` over the methods of a `ResumableMixin`."""

    def __init__(self, operator: ResumableMixin, context: Any) -> None:
        self._operator, self._context = operator, context
        self.service = _service_of(operator)
        self.certainty = operator._resumable_certainty()
        self.settle = self.visible_after = seconds_of("settle_time", operator.settle_time, type(operator).__name__)

    def place(self) -> Mapping[str, str]:
        return {}

    def observe(self, handle: JobHandle) -> Observation:
        operator = self._operator
        try:
            status = operator.get_job_status(handle.ids, self._context)
        except JobNotFound as e:
            return Observation(JobState.GONE, str(e))
        if operator.is_job_active(status):
            return Observation(JobState.ACTIVE, status)
        if operator.is_job_succeeded(status):
            return Observation(JobState.SUCCEEDED, status)
        return Observation(JobState.FAILED if operator.is_job_failed(status) else JobState.UNKNOWN, status)

    def find(self, record: JobRecord) -> JobHandle | None:
        try:
            ids = self._operator.find_job(record.token, self._context)
        except JobNotFound:
            return None
        if ids is None:
            return None
        if ids is False or ids in ("", [], {}):
            msg = f"find_job returned {ids!r}. Make it return the job's id, or None if there is certainly none"
            raise InvalidHandleError(msg)
        return JobHandle(self.service, ids)

    def cancel(self, handle: JobHandle) -> None:
        self._operator.cancel_job(handle.ids, self._context)
