"""
One attempt at a job: reads the record, acts on what `decide` says, keeps the record true; and, once it has a job, looks at it,
heeds its ``job_timeout``, stops it, and notes its end. No Airflow in here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from resumable.errors import LostSightError, ResumableError, StateStoreError, SupersededError
from resumable.jobs import history
from resumable.jobs.attempt_record import comparable, refuse_if_given_up
from resumable.jobs.decision import (
    AttemptFacts,
    Conclude,
    Deliver,
    Find,
    JobState,
    Look,
    Observation,
    Reattach,
    Recovery,
    Refuse,
    Restart,
    Submit,
    decide,
    failing,
)
from resumable.jobs.record import JobHandle, Outcome
from resumable.jobs.remote import has_ended
from resumable.jobs.spec import edited_fields, moved_fields, named
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
        return self._clock() - self._submitted_at > deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the job is overdue, None without a ``job_timeout``."""
        if self.policy.deadline is None or self.record is None:
            return None
        return max(1.0, self._submitted_at + self.policy.deadline - self._clock())

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
        found = self.record
        if found is None:
            return True
        owned = self._owned(found)
        try:
            self._records.save(owned, tries=1)
        except SupersededError:
            return False
        except StateStoreError:
            pass  # it may be written all the same: what is written next is to have the same owner
        if self.record is found:
            self.record = owned
        return True

    def forget(self) -> None:
        """Delete the record: Airflow has the task's success, nothing is left to be told. Never fails the task."""
        try:
            self._records.forget()
        except StateStoreError as e:
            self._log.warning("resumable: the record of a task that has succeeded was left behind, to be swept: %s", e)


class Attempt(Watching):
    """One start of a task's ``execute()``: what it decides. Its arguments are those of `AttemptRecord`."""

    def begin(self) -> None:
        """
        Read the record and settle what this attempt does: ``plan``.

        Raises:
            ResumableError: the store does not answer, the record cannot be used, the job cannot be seen, a policy says fail.
        """
        self.read()
        self._settle()

    def read(self) -> None:
        """Read the record, and number this attempt. Raises: as `begin`, but for what concerns the job."""
        self.record = record = self._records.load()
        self._is_read = True
        if record is not None and self._records.was_carried_over and self._is_cleared(record):
            self.record = record = None  # a Variable may be anybody's, and is no reason to stop a job
        if record is not None and record.attempt == 0:  # adopted by hand: it is this start's, whatever was cleared meanwhile
            self.record = record = replace(record, generation=self.claim.generation, spec=self.claim.spec)
        if record is not None:
            refuse_if_given_up(record, self.claim)
            self._number = record.attempt + 1
            self._is_next_look = self.policy.frees_the_slot and record.try_number == self._try
            if record.handle is not None and not self._is_next_look:
                self._count("reconnect_attempt")

    def is_in_reach(self) -> bool:
        """Whether the record's job is where the connection points."""
        return self._remote.location_mismatch(self.record) is None

    def take_up(self, handle: JobHandle, *, may_deliver: bool) -> None:
        """
        Instead of a first submit: go on with a job that the operator's own durability has left behind, from before this library
        came, if it runs, or if it has succeeded and ``may_deliver``.

        Raises:
            LostSightError: it cannot be seen. Nothing was submitted.
        """
        seen = self._remote.look(handle)
        if seen.state is JobState.UNKNOWN:
            raise LostSightError(
                f"{handle} was left behind by the operator's own durability and cannot be seen ({seen}). Nothing was submitted, "
                "it may be running. Check the connection and the service.",
                next_try="looks again",
            )
        if seen.state in (JobState.ACTIVE, JobState.REPAIRABLE):
            plan: Reattach | Deliver = Reattach("the operator's own durability had started it")
        elif seen.state is JobState.SUCCEEDED and may_deliver:
            plan = Deliver("the operator's own durability had started it, and it has succeeded")
        else:
            self._log.info("resumable: %s, of the operator's own durability, is not gone on with (state %s)", handle, seen)
            return
        intent = self._intent(Submit(0, plan.reason), None, None, handle.place)
        self.record = intent.submitted(handle, self._clock(), "by the operator's own durability")
        self.plan, self.seen = plan, seen
        self._keep()
        self._say("took up", plan.reason, seen)

    def resume(self) -> None:
        """
        Instead of `begin`, after a deferral: the attempt that deferred goes on, the record's job is its own.

        Raises: ResumableError: the store does not answer, the record cannot be used, or is a later try's.
        """
        self.record = self._records.load()
        self._is_read = True
        if self.record:
            refuse_if_given_up(self.record, self.claim)
            self._number, self.owner = self.record.attempt, self.record.owner
            if self.record.handle is not None:
                self.plan = Reattach("the task goes on")

    def failing(self, seen: Observation) -> ResumableError:
        """The error to fail the try with, of a job that is failing while parts of it still run; it is noted."""
        return self._refused(failing(seen, self.policy))

    def _settle(self) -> None:
        observation = self._remote.location_mismatch(self.record)
        while True:
            decision = decide(self.record, observation, self.policy, self._claim_now())
            match decision:
                case Look():
                    observation = self._remote.look(self._known_handle(), self._submitted_at)
                case Find():
                    observation = self._found_or_absent()
                case Reattach() | Deliver() | Conclude():
                    self._take(decision, observation)
                    return
                case Restart():
                    self._stop(decision)
                    self._plan_submit(Submit(decision.submission, decision.reason))
                    return
                case Submit():
                    self._plan_submit(decision)
                    return
                case Refuse():
                    self.seen = observation
                    raise self._refused(decision)

    def _refused(self, decision: Refuse) -> ResumableError:
        refusal = decision.error(self._refusal(decision), next_try=decision.next_try)
        if decision.closes is not None:
            self.close(decision.closes)
        if decision.notes_failing:
            self.note_failing()
        return refusal

    def _claim_now(self) -> AttemptFacts:
        """The claim, with what can come of another submit, and what its age makes of the service's promise to know the token."""
        lifetime, record = getattr(self.adapter, "token_lifetime", None), self.record
        if record is not None and record.handle is not None:
            return replace(self.claim, one_job=self._one_job(record))
        if lifetime is None or record is None or not record.in_doubt or self._clock() - record.intended_at < lifetime:
            return self.claim
        has_find = getattr(self.adapter, "finds_expired", False)
        return replace(self.claim, recovery=Recovery.LOOK_UP if has_find else Recovery.EXPIRED)

    def _plan_submit(self, plan: Submit) -> None:
        self._count("repeated_submit" if plan.in_doubt else "terminal_resubmit" if plan.submission else "fresh_submit")
        if self.record is not None:
            say = self._log.warning if plan.warn else self._log.info
            what = "asking again for" if plan.in_doubt else "submitting anew after"
            say("resumable: %s %s: %s", what, self._named(), plan.reason)
        self.plan = plan

    def _take(self, decision: Reattach | Deliver | Conclude, observation: Observation | None) -> None:
        assert self.record is not None
        self._refuse_the_same_job()
        mine = self.record.owner == self.owner
        self.record = comparable(replace(self._owned(self.record), decided_try=None), self.claim)
        if self._is_cleared(self.record):
            self.record = replace(self.record, generation=self.claim.generation)
        self.plan, self.seen = decision, observation
        if not mine and not self._is_next_look:
            is_reattached = isinstance(decision, Reattach)
            what = history.REATTACHED if is_reattached else history.DELIVERED if isinstance(decision, Deliver) else ""
            self.record = self.record.noting(what, self._clock()) if what else self.record
        if not mine or self._unsaved:
            self._keep()
        if not self._is_next_look and not isinstance(decision, Conclude):
            self._count("reconnect_success" if isinstance(decision, Reattach) else "already_succeeded")
        verb = "reattached to" if isinstance(decision, Reattach) else "no new submit for"
        warns = not isinstance(decision, Conclude) and decision.warn
        self._say(verb, decision.reason + self._moved(), observation, self._log.warning if warns else self._log.info)

    def _moved(self) -> str:
        """What differs from the job that is taken up although nobody edited it, in words."""
        record, spec = self._known_record(), self.claim.spec
        if spec is None or edited_fields(record.spec, spec, record.replaced) or not (moved := moved_fields(record.spec, spec)):
            return ""
        if record.spec is not None and edited_fields(record.spec, spec):
            return f"; {named(moved)} is as it was before an edit here, and the job is of after it"
        return f", although {named(moved)} moved: it is computed when the DAG file is parsed, which is no edit"

    def _stop(self, decision: Restart) -> None:
        self.wait_while_halted()  # the job may be the one that a user's stop has just cancelled
        owned = replace(self._owned(self._known_record()), stopping=decision.reason)
        self.record = owned.noting(history.TOLD_TO_STOP, self._clock(), decision.reason)
        # An attempt that was given up learns it here, before it cancels. One that takes over must not take what this one stops
        # for a failure of the job's own.
        self._records.save(self.record)
        self._log.info("resumable: cancelling %s: %s", self._named(), decision.reason)
        self._count("cancelled")
        try:
            self._remote.stop(self._known_handle(), decision.reason, self._submitted_at)
        except ResumableError:
            if self._remote.cancel_was_refused:  # it was not told to stop: whoever comes next decides anew
                self._note(replace(self._known_record(), stopping=None), self._log.warning)
            raise

    def _found_or_absent(self) -> Observation | None:
        record = self._known_record()
        found = self._remote.find(record, max(record.intended_at, self._lost_at))
        if found is None:
            return Observation(JobState.ABSENT)
        self.record = self._owned(record).submitted(found, record.intended_at, "found by its token")
        self._keep()
        return None

    def _refusal(self, refuse: Refuse) -> str:
        record = self.record
        known = record is not None and record.handle is not None
        job = f"{self._named()} is left as it is" if known else "no job is known"
        happened = refuse.reason[:1].upper() + refuse.reason[1:]
        advice = f" {refuse.advice}." if refuse.advice else ""
        sent = "The unanswered submit was repeated under its token, nothing else" if self._has_repeated else "Nothing"
        return f"{happened} [task {self.task}]. {sent} was submitted; {job}.{advice}"
