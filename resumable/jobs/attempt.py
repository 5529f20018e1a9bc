"""One attempt at a job: reads the record, acts on what `decide` says, keeps the record true. No Airflow in here."""

from __future__ import annotations

from dataclasses import replace

from resumable.errors import LostSightError, ResumableError, SupersededError
from resumable.jobs import history
from resumable.jobs.attempt_record import comparable
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
    is_cleared,
)
from resumable.jobs.record import JobHandle
from resumable.jobs.spec import edited_fields, moved_fields, named
from resumable.jobs.watching import Watching


class Attempt(Watching):
    """One start of a task's ``execute()``: what it decides. Its arguments are those of `AttemptRecord`."""

    def begin(self) -> None:
        """
        Read the record and settle what this attempt does: ``plan``.

        Raises:
            ResumableError: the store does not answer, the record cannot be used, the job cannot be seen, a policy says fail.
        """
        self.record = record = self._records.load()
        self._is_read = True
        if record is not None and self._records.was_carried_over and is_cleared(record, self.claim):
            self.record = record = None  # a Variable may be anybody's, and is no reason to stop a job
        if record is not None and record.attempt == 0:  # adopted by hand: it is this start's, whatever was cleared meanwhile
            self.record = record = replace(record, generation=self.claim.generation, spec=self.claim.spec)
        if record is not None:
            if record.try_number > self._try and not self.claim.generation.is_of_later_run(record.generation):
                raise SupersededError(
                    f"Try {record.try_number} owns the record, this is try {self._try}: Airflow has given it up. It submits, "
                    "cancels and writes nothing; the job is left to the other. Nothing needs to be done."
                )
            self._number = record.attempt + 1
            self._is_next_look = self.policy.frees_the_slot and record.try_number == self._try
            if record.handle is not None and not self._is_next_look:
                self._count("reconnect_attempt")
        self._settle()

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
        """Instead of `begin`, after a deferral: the attempt that deferred goes on, the record's job is its own."""
        self.record = self._records.load()
        self._is_read = True
        if self.record:
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
            say(
                "resumable: %s %s: %s",
                "asking again for" if plan.in_doubt else "submitting anew after",
                self._named(),
                plan.reason,
            )
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
