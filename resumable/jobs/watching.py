"""The job of an attempt, once it has one: looks at it, its ``job_timeout``, its stop, and what is noted of its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from resumable.errors import StateStoreError, SupersededError
from resumable.jobs import history
from resumable.jobs.decision import (
    JobState,
    Observation,
)
from resumable.jobs.record import Outcome
from resumable.jobs.remote import has_ended
from resumable.jobs.submission import Submission

OVERDUE_PAUSE = 30.0
"""Seconds between two requests to stop a job that is over its ``job_timeout``, while the service does not take them."""


class Watching(Submission):
    """The part of an attempt that watches its job."""

    @property
    def is_overdue(self) -> bool:
        """The job has run for longer than ``job_timeout``, counted from its submission."""
        deadline, handle, record = self.policy.deadline, self.handle, self.record
        if deadline is None or handle is None or record is None or record.outcome is not None:
            return False
        return self._clock() - (record.submitted_at or record.intended_at) > deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the job is overdue, None without a ``job_timeout``."""
        if self.policy.deadline is None or self.record is None:
            return None
        began = self.record.submitted_at or self.record.intended_at
        return max(1.0, began + self.policy.deadline - self._clock())

    @property
    def age(self) -> float:
        """Seconds since the job was submitted, by this worker's clock."""
        return max(0.0, self._clock() - self._submitted_at)

    @property
    def is_the_only_job(self) -> bool:
        """No other job could follow on the one that is watched, unless its token or name is edited."""
        return self.handle is not None and bool(self._one_job(self._known_record()))

    def look_once(self) -> Observation:
        """One look at the job of this attempt."""
        return self._remote.observe(self._known_handle())

    def observe(self) -> Observation:
        """Look at the job of this attempt, patiently; UNKNOWN if it cannot be seen."""
        return self._remote.look(self._known_handle(), self._submitted_at)

    def has_ended(self) -> bool:
        """One look: whether the job is seen to have ended."""
        handle = None if self.record is None else self.record.handle
        return handle is not None and has_ended(self._remote.observe(handle))

    def note_end(self, *, is_last_try: bool = False) -> bool:
        """
        One look, before a cancel: whether the job has ended by itself, and is not to be cancelled. A success is noted; a failure
        is not, unless this is the last try: what it means (failed, skipped) is for the operator's own code to say, in the next.
        """
        handle, record = self.known_job, self.record
        if handle is None or record is None or record.outcome is not None:
            return False
        seen = self._remote.observe(handle)
        outcome = {JobState.SUCCEEDED: Outcome.SUCCEEDED, JobState.FAILED: Outcome.FAILED}.get(seen.state)
        if outcome is Outcome.SUCCEEDED or (outcome is not None and is_last_try):
            self.close(outcome, seen)
        return outcome is not None

    def cancel(self, why: str) -> bool:
        """Ask the service to stop the job of this attempt. True if the request went through; never raises."""
        self.stop_reason = why
        handle = self.known_job
        if handle is None:
            doubt = "its submit was not answered: a later start looks for it" if self.in_doubt else "none was submitted"
            if self.number is None:
                doubt = "its record was not read: a job of an earlier start runs on"
            self._log.warning("resumable: no job to cancel (%s): %s", why, doubt)
            return False
        try:
            self._remote.cancel(handle)
        except Exception as e:
            self.cannot_cancel = isinstance(e, NotImplementedError)
            self._log.warning("resumable: could not cancel %s (%s), it may run on: %r. Stop it there.", handle, why, e)
            return False
        self._log.info("resumable: cancelled %s: %s", self._named(), why)
        self._count("cancelled")
        return True

    def close(self, outcome: Outcome, seen: Observation | None = None) -> None:
        """
        Note how the job ended; ``seen``: the look that showed it. Never fails the task.

        CANCELLED notes that it was told to stop: an answer to a cancel is a promise, so the record is closed (``closed_at``) only
        if one look then shows the job ended or stopping, and is left to the sweep otherwise.
        """
        record = self.record
        if record is None or record.handle is None or record.outcome is not None:
            return
        closed = record.ended(outcome, self._clock(), self.stop_reason if outcome is Outcome.CANCELLED else "")
        if seen is not None:
            closed = replace(closed, ended_as=getattr(self.adapter, "end_to_keep", lambda _: "")(seen) or None)
        if outcome is Outcome.CANCELLED:
            self._note(replace(closed, closed_at=None), self._log.debug)  # before the look: SIGKILL may be near
            if not self._remote.stopping(record.handle)[0]:
                self._log.info("resumable: %s was told to stop and is not seen to: its record stays open", record.handle)
                return
        self._note(closed, self._log.debug)

    def stop_if_overdue(self, stop: Callable[[str], bool] | None = None) -> bool:
        """
        Stop a job that still runs after its ``job_timeout``, once; by ``stop``, or else by `cancel`.

        Returns:
            Whether the task is to end: this attempt told the job to stop, or the operator has no way to.
        """
        with self._overdue:  # the main thread and the one that stands by for signals both ask
            if not self._was_overdue and self.is_overdue and self._clock() >= self._ask_overdue_at:
                self._ask_overdue_at = self._clock() + OVERDUE_PAUSE
                if not has_ended(self._remote.observe(self._known_handle())):
                    self._stop_overdue(stop or self.cancel)
            return self._was_overdue

    def was_stopped_overdue(self) -> bool:
        """Whether this attempt has told the job to stop for its ``job_timeout``, and the job has not succeeded for all that."""
        with self._overdue:
            return self._was_overdue and self._remote.observe(self._known_handle()).state is not JobState.SUCCEEDED

    def _stop_overdue(self, stop: Callable[[str], bool]) -> None:
        is_told = stop(f"it has run for longer than job_timeout={self.policy.deadline:g} s")
        if is_told:
            self.close(Outcome.CANCELLED)
        elif self.cannot_cancel:
            self.leave("job_timeout, and the operator cannot stop it")
        self._was_overdue = is_told or self.cannot_cancel

    def note_failing(self) -> None:
        """Note that this try fails because its job is failing while parts of it still run. Never fails the task."""
        record = self.record
        if record is not None and record.outcome is None and record.failing_try != self._try:
            self._note(replace(record, failing_try=self._try), self._log.warning)

    def leave(self, why: str) -> None:
        """Note that the task ends and its job runs on, on purpose: nobody is to clean it up. Never fails the task."""
        if self.record is not None and self.record.outcome is None:
            self._note(replace(self.record, left=why).noting(history.LEFT, self._clock(), why), self._log.warning)

    def note_failed_try(self, error: BaseException) -> None:
        """Note that this try fails while its job runs, and that another one follows. Never fails the task."""
        if self.record is not None and self.record.outcome is None:
            said = f"{type(error).__name__}: {self._redact(str(error))}"
            noted = self.record.noting(history.TRY_FAILED, self._clock(), said)
            self._note(noted, self._log.debug)

    @property
    def outlives_success(self) -> bool:
        """Whether the record may be left behind when the task has succeeded."""
        return self._records.outlives_success

    def owns_record(self) -> bool:
        """
        Whether no other attempt has taken over: told by a write, which is refused then. (A read may find nothing also because
        Airflow's ``clear_on_success`` has cleared the state.) True if the store does not answer: a user's stop must not be lost.
        """
        if self.record is None:
            return True
        try:
            self._records.save(self._owned(self.record), tries=1)
        except SupersededError:
            return False
        except StateStoreError:
            return True
        return True

    def forget(self) -> None:
        """Delete the record: Airflow has the task's success, nothing is left to be told. Never fails the task."""
        try:
            self._records.forget()
        except StateStoreError as e:
            self._log.warning("resumable: the record of a task that has succeeded was left behind, to be swept: %s", e)
