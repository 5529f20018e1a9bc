"""Ready-made operators: run the provider's own ``execute()`` unchanged, and make its one submit call durable."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, ClassVar

from resumable import compat
from resumable.attempt import Attempt
from resumable.errors import ResumableError, UnseenSubmitError
from resumable.lifecycle import Certainty, Conclude, Deliver, JobState, Observation
from resumable.limits import Limit
from resumable.mixin import DEFERRED_BY, DurableBase, reached_from
from resumable.policy import Wait
from resumable.record import JobHandle, JobRecord
from resumable.remote import VISIBLE_AFTER, JobAdapter

_log = logging.getLogger("resumable")


class ReplayMixin(DurableBase):
    """
    Stands before a provider's operator: ``class ResumableX(SomeServiceReplay, X)``.

    On a first attempt the provider's submit goes out with the token, and its answer is kept. On a later one the same call is
    answered from the record, without a request. All else is the provider's own code: it pushes its XComs and links, polls or
    defers, returns its own result. A service implements `seam` and the methods of `JobAdapter`.
    """

    service: ClassVar[str]
    certainty: ClassVar[Certainty]
    settle: ClassVar[float] = 0.0
    visible_after: ClassVar[float] = VISIBLE_AFTER
    doubt: ClassVar[str] = ""
    """How a submit whose answer was lost is cleared up: one clause, for the documentation."""
    window: ClassVar[str] = ""
    """What is left nevertheless: one clause, for the documentation."""
    wait_argument: ClassVar[str]
    """The provider's argument that tells whether ``execute`` waits for the job."""
    goes_on_undeferred: ClassVar[bool] = False
    """The provider's ``execute`` goes on to its result where `defer` returns: then it does not defer for a job that is done."""

    hook_name: ClassVar[str] = "hook"
    """The attribute under which the operator keeps its hook: the same object each time it is asked for."""

    def is_expired(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error says that the credentials of the hook are no longer good."""
        return False

    def renew(self, error: BaseException) -> bool:
        """Drop a hook whose credentials have expired: the operator makes another, which reads the connection again."""
        return self.is_expired(error) and vars(self).pop(self.hook_name, None) is not None

    limits: ClassVar[Sequence[Limit]] = ()
    """The operator's arguments that limit its wait. One that the author gave ends the try, the job is left running."""

    def _resumable_limits(self) -> Sequence[Limit]:
        return self.limits

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "execute" in vars(cls) and "execute" not in reached_from(cls, "execute"):
            _log.warning(
                "resumable: %s.execute calls no super().execute: what it submits by itself is not durable. Call "
                "super().execute(context) for the job, or give durable=False",
                cls.__qualname__,
            )

    @abstractmethod
    def seam(self, attempt: Attempt) -> AbstractContextManager[None]:
        """While it is open, the provider's submit call goes through ``attempt``."""

    @abstractmethod
    def place(self) -> Mapping[str, str]: ...

    @abstractmethod
    def observe(self, handle: JobHandle) -> Observation: ...

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None: ...

    def find(self, record: JobRecord) -> JobHandle | None:
        raise NotImplementedError

    def _resumable_waits(self) -> bool:
        return bool(getattr(self, self.wait_argument))

    def execute(self, context: Any, **_: Any) -> Any:
        if not self._resumable_runs_durable(context):
            return self._resumable_execute_theirs(context)
        return self._resumable_run_attempt(context, lambda attempt: self._resumable_execute_through_seam(context, attempt))

    def _resumable_execute_through_seam(self, context: Any, attempt: Attempt) -> Any:
        with self.seam(attempt):
            has_ended = isinstance(attempt.plan, Deliver | Conclude)
            if self.resume_policy.wait is Wait.RESCHEDULE and self._resumable_waits() and not has_ended:
                with self._resumable_not_waiting():
                    self._resumable_execute_theirs(context)
                self.refuse_unseen(attempt)
                self._resumable_look_again_later(context, attempt, attempt.seen or attempt.observe())
            result = self._resumable_execute_theirs(context)
        if attempt.is_unseen and self._resumable_can_see():
            self.log.error("resumable: %s", self._resumable_unseen())
            self._resumable_count("unseen_submit")
        return result

    def refuse_unseen(self, attempt: Attempt) -> None:
        """
        For where the provider's code looks at its job, or defers.

        Raises:
            UnseenSubmitError: it has submitted one, and not through the seam.
        """
        if attempt.is_unseen and self._resumable_can_see():
            self._resumable_count("unseen_submit")
            raise UnseenSubmitError(self._resumable_unseen())

    def _resumable_can_see(self) -> bool:
        """Whether a submit would have been seen: not where a unit test has put a mock in the client's place."""
        return True

    def _resumable_unseen(self) -> str:
        name, version = compat.provider_of(type(self))
        return (
            f"{type(self).__name__} watches a job of {self.service} that {name} {version} started by a way which this release of "
            f"airflow-resumable does not cover: nothing of it is kept. A job may run: look for it in {self.service}, wait for "
            "its end or stop it. Then install a version of the provider that is covered (the extras name them), or give "
            "durable=False."
        )

    def _resumable_execute_theirs(self, context: Any) -> Any:
        if not self._resumable_is_durable and self._resumable_their_durable is not None:
            self.durable = self._resumable_their_durable
        return super().execute(context, **compat.execute_guard(self))  # type: ignore[misc]

    @contextmanager
    def _resumable_not_waiting(self) -> Iterator[None]:
        asked = getattr(self, self.wait_argument)
        setattr(self, self.wait_argument, False)
        try:
            yield
        finally:
            setattr(self, self.wait_argument, asked)

    _resumable_failed_resume: Exception | None = None

    def trigger(self, theirs: Any) -> Any:
        """The trigger to defer with, in place of the provider's."""
        return theirs

    def defer(self, *, trigger: Any, timeout: timedelta | float | None = None, **kwargs: Any) -> Any:
        """The provider's deferral, with our trigger, and ending in time for ``job_timeout``."""
        if self.goes_on_undeferred and self._resumable_attempt is not None and isinstance(self._resumable_attempt.plan, Deliver):
            return None
        if self._resumable_failed_resume is not None:  # the job is done: to wait for it once more would go round for ever
            raise self._resumable_failed_resume
        goes_on = kwargs.get("method_name") != "execute"  # else it starts anew: it has waited for something before its submit
        if self._resumable_attempt is not None and self._resumable_is_durable and goes_on:
            self.refuse_unseen(self._resumable_attempt)
        remaining = self._resumable_attempt.remaining if self._resumable_attempt is not None else None
        if remaining is not None:
            given = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
            timeout = timedelta(seconds=remaining if given is None else min(given, remaining))
        is_theirs = type(trigger).__module__.startswith("airflow.providers.")  # a subclass may defer with its own
        ours = self.trigger(trigger) if self._resumable_is_durable and is_theirs else trigger
        return super().defer(trigger=ours, timeout=timeout, **kwargs)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """
        The way back from a deferral: the provider's own, and a note in the record once the job is done.

        A trigger that failed, was lost or timed out says nothing about the job: that is looked at before the task may fail.
        """
        next_kwargs = dict(next_kwargs or {})
        deferred_by = next_kwargs.pop(DEFERRED_BY, None)
        if not self._resumable_is_durable:
            return super(DurableBase, self).resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]
        given, context = context, compat.task_context(context, self)
        if self._resumable_is_of_an_earlier_try(deferred_by, context):
            return self.execute(given)
        self._resumable_take_over_on_kill()
        with compat.airflow_errors(context):
            try:
                return self._resumable_resumed(next_method, next_kwargs, given, context)
            except compat.task_timeout() as e:
                self._resumable_note_timeout(context, e)
                raise

    def _resumable_resumed(self, next_method: str, next_kwargs: dict[str, Any], given: Any, context: Any) -> Any:
        try:
            result = super(DurableBase, self).resume_execution(next_method, next_kwargs, given)  # type: ignore[misc]
        except Exception as e:
            if compat.is_final(e):
                self._resumable_note_end(context, e)
                raise
            return self._resumable_resumed_badly(context, e, "\n".join(next_kwargs.get("traceback") or ()))
        self._resumable_note_success(context)
        return result

    def _resumable_note_timeout(self, context: Any, error: BaseException) -> None:
        """``execution_timeout`` is over between the end of a deferral and the end of the task."""
        try:
            attempt = self._resumable_new_attempt(context)
            attempt.resume()
        except ResumableError as e:
            self.log.warning("resumable: execution_timeout, and what becomes of the job cannot be noted: %s", e)
            return
        if attempt.record is not None and attempt.record.outcome is None and not attempt.record.left:
            self._resumable_attempt = attempt
            self._resumable_timed_out(context, attempt, error)

    def _resumable_resumed_badly(self, context: Any, error: Exception, told: str) -> Any:
        attempt = self._resumable_attempt = self._resumable_new_attempt(context)
        attempt.resume()
        if attempt.record is None or attempt.record.handle is None:
            raise error
        seen = attempt.observe()
        if seen.state is not JobState.SUCCEEDED and compat.is_out_of_time(context, self, error):
            self._resumable_timed_out(context, attempt, error)
            raise error
        if seen.state is JobState.SUCCEEDED:
            self.log.warning("resumable: %s has succeeded, although waiting for it failed: %r", attempt.record.handle, error)
            self._resumable_failed_resume = error
            return self.execute(compat.given_context(context))
        runs = seen.state in (JobState.ACTIVE, JobState.REPAIRABLE, JobState.UNKNOWN)
        timed_out = compat.is_deferral_timeout(error)
        if not attempt.is_overdue and self._resumable_is_at_limit(error, seen, told, timed_out=timed_out):
            self._resumable_failed(context, attempt, seen, error)
            raise error
        if runs and not attempt.is_overdue:
            seconds = compat.hand_back_seconds()
            self.log.warning(
                "resumable: waiting for %s failed, not the job (state %s); the task is started again in %.0f s: %r",
                attempt.record.handle,
                seen,
                seconds,
                error,
            )
            raise compat.hand_back(seconds) from error
        if runs:
            self._resumable_look_again_later(context, attempt, seen)
        self._resumable_failed(context, attempt, seen, error)
        raise error

    def _resumable_note_end(self, context: Any, error: Exception) -> None:
        """A verdict of the provider's that no other try is to follow: note what is seen of the job."""
        try:
            attempt = self._resumable_attempt = self._resumable_new_attempt(context)
            attempt.resume()
            if attempt.handle is not None:
                self._resumable_failed(context, attempt, attempt.look_once(), error)
        except ResumableError as e:
            self.log.debug("resumable: the outcome was not noted: %s", e)

    def _resumable_note_success(self, context: Any) -> None:
        try:
            attempt = self._resumable_new_attempt(context)
            attempt.resume()
            self._resumable_succeeded(context, attempt)
        except ResumableError as e:
            self.log.debug("resumable: the outcome was not noted: %s", e)

    def _resumable_job_adapter(self, context: Any) -> JobAdapter:  # noqa: ARG002
        return self  # type: ignore[return-value]

    def _resumable_has_own_on_kill(self) -> bool:
        """An ``on_kill`` of a class below ours: the provider's own does what `cancel` does, if it has one."""
        classes = type(self).__mro__
        written = next(c for c in classes if "on_kill" in vars(c))
        return classes.index(written) < classes.index(ReplayMixin)
