"""One attempt at a job: reads the record, acts on what `decide` says, keeps the record true. No Airflow in here."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from resumable import history
from resumable.errors import InvalidHandleError, LostSightError, ResumableError, StateStoreError
from resumable.identity import Generation, TaskIdentity
from resumable.kept_request import digest, filled, without_secrets
from resumable.lifecycle import (
    Certainty,
    Claim,
    Conclude,
    Deliver,
    Find,
    JobState,
    Look,
    Observation,
    Reattach,
    Refuse,
    Restart,
    Submit,
    changes,
    decide,
    failing,
    gone,
    is_cleared,
)
from resumable.policy import OnFinalFailure, ResumePolicy, Wait
from resumable.record import JobHandle, JobRecord, Outcome
from resumable.remote import JobAdapter, Remote, has_ended
from resumable.spec import edited_fields, moved_fields, named, replaced_marks
from resumable.stores.base import RecordStore, SupersededError

RECOVERIES = 3
"""Lost answers in a row that one attempt clears up by looking for the job, before it leaves that to the next."""


ROOM = 65_535
"""Bytes of JSON that Airflow's task state takes in one value, unless it is told otherwise."""

OVERDUE_PAUSE = 30.0
"""Seconds between two requests to stop a job that is over its ``job_timeout``, while the service does not take them."""


class Again(BaseException):
    """Raised out of the provider's code when the submit's answer shows that another submission is due: execute once more.

    A BaseException, so that a provider's ``except Exception`` does not take it for a failure of its own.
    """


class Attempt:
    """
    One start of a task's ``execute()``.

    Args:
        task: the task instance.
        claim: generation, spec fingerprint, how doubt is cleared up, whether the task waits.
        policy: resolved.
        records: the record store.
        adapter: the service.
        log: any logger with ``info`` and ``warning``.
        try_number: Airflow's.
        may_record: whether a request may be kept in task state (no secrets in it).
        redact: a request with its secrets hidden; they are not kept.
        room: bytes of JSON that the store takes.
        reach: how another process reaches the job, see `JobRecord.reach`.
        one_job: why the service would take no other submit of this attempt than the one that the given record's job came of,
            in words; empty if it would.
        count: is told of each decision, for a metric: ``fresh_submit``, ``repeated_submit``, ``terminal_resubmit``,
            ``reconnect_attempt``, ``reconnect_success``, ``already_succeeded``, ``cancelled``.
    """

    def __init__(
        self,
        *,
        task: TaskIdentity,
        claim: Claim,
        policy: ResumePolicy,
        records: RecordStore,
        adapter: JobAdapter,
        log: Any = None,
        try_number: int = 1,
        may_record: Callable[[Any], bool] = lambda _: True,
        redact: Callable[[Any], Any] = lambda request: request,
        room: int = ROOM,
        reach: Mapping[str, Any] | None = None,
        one_job: Callable[[JobRecord], str] = lambda _: "",
        count: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.task, self.policy, self.adapter = task, policy, adapter
        self.claim = replace(claim, try_number=try_number)
        self.record: JobRecord | None = None
        self.plan: Submit | Reattach | Deliver | Conclude | None = None
        self.owner = uuid.uuid4().hex[:12]
        self._records, self._try, self._reach = records, try_number, reach
        self._may_record, self._redact, self._room = may_record, redact, room
        self._log = log or logging.getLogger("resumable")
        self._one_job, self._count = one_job, count
        self._clock = clock
        self._remote = Remote(adapter, log=self._log, clock=clock, sleep=sleep or time.sleep)
        self.seen: Observation | None = None
        self._unsaved = False
        self._number = 1
        self._overdue, self._was_overdue, self._ask_overdue_at = threading.Lock(), False, 0.0
        self.cannot_cancel = False
        self.stop_reason = ""
        """Why the job was told to stop, for the record's history."""

    # -- what the glue asks -------------------------------------------------------------------------------------------

    @property
    def handle(self) -> JobHandle | None:
        """The job that this attempt watches: set only by a submit or a reattachment, never by a mere look."""
        return self.record.handle if self.record and not isinstance(self.plan, Submit | None) else None

    @property
    def known_job(self) -> JobHandle | None:
        """The job that this attempt watches or, while it is still being looked at, the one of the record."""
        return None if self.record is None or isinstance(self.plan, Submit) else self.record.handle

    @property
    def replays(self) -> bool:
        """The submit is to be answered from the record."""
        return self.handle is not None

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
    def in_doubt(self) -> bool:
        """A submit of this attempt went out and no answer was kept."""
        return isinstance(self.plan, Submit) and self.record is not None and self.record.in_doubt and self._intended

    @property
    def recorded_params(self) -> Any:
        """The request of a submit that was left unanswered, if it was kept; without secrets."""
        return self.record.params if self.record is not None else None

    @property
    def is_the_only_job(self) -> bool:
        """No other job could follow on the one that is watched, unless its token or name is edited."""
        return self.handle is not None and bool(self._one_job(self._known_record()))

    @property
    def is_unseen(self) -> bool:
        """A submit is due, and none was asked for yet: where the provider's code watches a job, it has passed us by."""
        return isinstance(self.plan, Submit) and not self._has_asked

    @property
    def is_first_submit(self) -> bool:
        """Nothing of this generation can be running: the provider may tidy up before it submits."""
        return isinstance(self.plan, Submit) and not self.plan.in_doubt

    @property
    def token(self) -> str:
        """The token of the job that is watched, or of the one that is to be submitted."""
        plan = self.plan
        if isinstance(plan, Submit) and not plan.in_doubt and not self._intended:
            return self.task.token(self._generation(), plan.submission)
        return self._known_record().token

    def begin(self) -> None:
        """
        Read the record and settle what this attempt does: ``plan``.

        Raises:
            ResumableError: the store does not answer, the record cannot be used, the job cannot be seen, a policy says fail.
        """
        self.record = record = self._records.load()
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
            self._is_next_look = self.policy.wait is Wait.RESCHEDULE and record.try_number == self._try
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
        if self.record:
            self._number, self.owner = self.record.attempt, self.record.owner
            if self.record.handle is not None:
                self.plan = Reattach("the task goes on")

    def intend(self, params: Any = None, *, token: str | None = None, where: Mapping[str, str] | None = None) -> tuple[str, Any]:
        """
        Write the intent; nothing may be sent before. Returns the token and the parameters to send.

        Args:
            params: the request, kept with the intent without its secrets: when the answer is lost, the same token must go out
                with the same request.
            token: the user's own idempotency token, which takes the place of ours.
            where: what `JobAdapter.find` needs besides the adapter's place, e.g. the cluster.

        Raises:
            StateStoreError: it could not be written. SupersededError: another attempt owns the record.
        """
        self.wait_while_halted()
        plan, self._has_asked = self.plan, True
        if not isinstance(plan, Submit):
            msg = "a submit was asked for although the plan is to reattach: a bug in the adapter"
            raise RuntimeError(msg)  # noqa: TRY004
        if plan.in_doubt and self.record is not None:
            record, params = self._repeated(self.record, params)
        else:
            record = self._intent(plan, params, token, where or {})
        self._records.save(record)
        if self.record is None or self.record.token != record.token:
            self.is_perhaps_made = False
        self.record, self._intended = record, True
        if self.is_halted:
            self._intended = False  # nothing goes out under this intent
            self.wait_while_halted()
        return record.token, params

    def _repeated(self, record: JobRecord, own: Any) -> tuple[JobRecord, Any]:
        """
        What to send again: the request that was kept, with the secrets of this try's own.

        The record stays of the generation that it was intended in until it is known which job answers: one from before a clear is
        not delivered after it.
        """
        is_mended = record.is_refused and changes(record, self.claim) and not self._is_cleared(record)
        record = self._owned(record)
        if is_mended:
            # The author has mended what the service refused. If the first submit did make a job, the token still finds it.
            return self._with_request(replace(record, spec=self.claim.spec, is_refused=False), own), own
        if record.spec is None:
            record = replace(record, spec=self.claim.spec)
        if record.params is not None:
            try:
                return record, filled(record.params, record.omitted, own)
            except LookupError:
                self._say_moved("its secrets are not in it")
        elif record.digest is not None and self._with_request(record, own).digest != record.digest:
            self._say_moved("it is not what was sent then, which was too large to be kept")
        return record, own

    def _say_moved(self, why: str) -> None:
        self._log.warning(
            "resumable: the unanswered submit to %s is repeated with the request of this try, and %s. If the service does not "
            "answer with the job, look for it there, wait for its end or stop it, and clear the task",
            self.adapter.service,
            why,
        )

    def _with_request(self, record: JobRecord, params: Any) -> JobRecord:
        """The record with as much of the request as may be kept and as there is room for."""
        record = replace(record, params=None, omitted=(), digest=None)
        if params is None:
            return record
        try:
            kept, omitted = without_secrets(params, self._redact)
        except ValueError:
            return record
        if not self._may_record(kept):
            return record
        whole = replace(record, params=kept, omitted=omitted)
        fits = len(json.dumps(whole.to_json())) <= self._room
        return whole if fits else replace(record, digest=digest(kept))

    @property
    def is_repeatable(self) -> bool:
        """The next try can send the same request again, whatever has become of its own."""
        return self.record is not None and self.record.params is not None

    @property
    def repeats_after_clear(self) -> bool:
        """The submit in doubt is one from before a clear."""
        is_repetition = self.in_doubt and isinstance(self.plan, Submit) and self.plan.in_doubt
        return is_repetition and self._is_cleared(self._known_record())

    def give_up_doubt(self, error: BaseException) -> bool:
        """
        The service has refused to repeat a submit from before a clear, so nothing tells what became of it: the clear counts.
        True: the submit is to be asked for again, as the first of the new generation.
        """
        self._log.warning(
            "resumable: the unanswered submit to %s was repeated under its token %s and refused (%r). The task was cleared: a "
            "job is submitted anew. One of the earlier submit may still run: look for it in the service",
            self.adapter.service,
            self._known_record().token,
            error,
        )
        self.record = self._known_record().ended(Outcome.GONE, self._clock())
        self._intended = False
        self._keep()
        self._settle()
        return True

    def wait_while_halted(self) -> None:
        """From SIGTERM on nothing new is submitted: the main thread waits here until `Interrupted` takes it out."""
        while self.is_halted:
            time.sleep(0.02)

    def submitted(self, handle: JobHandle) -> None:
        """
        Keep the handle: the first thing after the answer.

        A write that fails does not lose the job: it is tried again at later looks (`flush`), and the token finds the job if
        this worker dies meanwhile.

        Raises:
            Again: the answer of an in-doubt submit is a job that another submission has to follow.
            ResumableError: as `begin`, after an in-doubt submit.
        """
        plan, record = self.plan, self.record
        assert isinstance(plan, Submit)
        assert record is not None
        self.record = record.submitted(handle, record.intended_at if plan.in_doubt else self._clock())
        self.plan = Reattach(plan.reason)
        self._intended = False
        self._keep()
        self._refuse_the_same_job()
        if plan.in_doubt:
            self._has_repeated = True
            self._settle()
            if isinstance(self.plan, Submit):
                raise Again
        else:
            self._say("submitted", plan.reason)

    def perhaps_made(self) -> None:
        """
        A request of this submit went out, and nobody knows what came of it. To be told by a seam whose client repeats requests by
        itself: whatever the last one comes to, the submit was not rejected.
        """
        self.is_perhaps_made = True

    def rejected(self, *, used_up: bool = False) -> None:
        """
        The service refused the submit for certain: there is no job of it, and no doubt unless this was a repetition.

        Args:
            used_up: the service may remember its no under the token, so that the next submit needs another.
        """
        if not self.in_doubt or self.record is None:
            return
        if isinstance(self.plan, Submit) and self.plan.in_doubt:
            # The no to a repetition says nothing of the first.
            self.record = replace(self.record, is_refused=True)
        else:
            closed = self.record.ended(Outcome.REJECTED, self._clock())
            self.record = replace(closed, submission=closed.submission + 1) if used_up else closed
        self._intended = False
        self._keep()

    def token_spent(self) -> bool:
        """
        The service said that the job of this submit's token was deleted: there is no doubt any more, and no job. True if the
        submit may be asked for again, because the task was cleared.

        Raises:
            ResumableError: it was not; the next try submits another job, unless ``on_missing`` is ``fail``.
        """
        if not self.in_doubt:
            return False
        is_cleared = self._is_cleared(self._known_record())
        self.record = self._known_record().ended(Outcome.GONE, self._clock())
        self._intended = False
        self._keep()
        if not is_cleared:
            raise self._refused(gone(Observation(JobState.GONE, "the job of its token was deleted"), self.policy))
        self._settle()
        return True

    def recover(self, error: Exception) -> bool:
        """
        After a lost answer, where the job can be looked up: do so and decide. True if the submit may be asked for again: it is
        then answered from the record, or goes out once more because no job carries the token.
        """
        if not self.in_doubt or self.adapter.certainty is not Certainty.FIND or self._recoveries >= RECOVERIES:
            return False
        self._recoveries += 1
        self._log.warning(
            "resumable: the answer to the submit to %s was lost (%r); looking the job up by its token",
            self.adapter.service,
            error,
        )
        self._intended = self.is_perhaps_made = False
        self._lost_at = self._clock()
        self._settle()
        return True

    def flush(self) -> None:
        """Try again, once, to write a record whose write had failed."""
        if self._unsaved and self.record is not None:
            try:
                self._records.save(self.record, tries=1)
            except StateStoreError:
                return
            self._unsaved = False
            self._log.info("resumable: the record of %s is kept now", self.record.handle or self.record.service)

    def close(self, outcome: Outcome) -> None:
        """
        Note how the job ended. Never fails the task.

        CANCELLED notes that it was told to stop: an answer to a cancel is a promise, so the record is closed (``closed_at``) only
        if one look then shows the job ended or stopping, and is left to the sweep otherwise.
        """
        record = self.record
        if record is None or record.handle is None or record.outcome is not None:
            return
        closed = record.ended(outcome, self._clock(), self.stop_reason if outcome is Outcome.CANCELLED else "")
        if outcome is Outcome.CANCELLED:
            self._note(replace(closed, closed_at=None), self._log.debug)  # before the look: SIGKILL may be near
            if not self._stops(record.handle):
                self._log.info("resumable: %s was told to stop and is not seen to: its record stays open", record.handle)
                return
        self._note(closed, self._log.debug)

    def _stops(self, handle: JobHandle) -> bool:
        seen = self._remote.observe(handle)
        return has_ended(seen) or bool(getattr(self.adapter, "is_stopping", lambda _: False)(seen))

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

    def _note(self, record: JobRecord, say: Callable[..., None]) -> None:
        """Keep what matters to whoever comes later, and is no reason to fail this task where it cannot be kept."""
        self.record = record
        try:
            self._records.save(record, tries=2)
        except (StateStoreError, SupersededError) as e:
            say("resumable: what became of %s was not noted in its record: %s", self._named(), e)

    @property
    def outlives_success(self) -> bool:
        """Whether the record may be left behind when the task has succeeded."""
        return self._records.outlives_success

    def forget(self) -> None:
        """Delete the record: Airflow has the task's success, nothing is left to be told. Never fails the task."""
        try:
            self._records.forget()
        except StateStoreError as e:
            self._log.warning("resumable: the record of a task that has succeeded was left behind, to be swept: %s", e)

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

    def cancel(self, why: str) -> bool:
        """Ask the service to stop the job of this attempt. True if the request went through; never raises."""
        self.stop_reason = why
        handle = self.known_job
        if handle is None:
            doubt = "its submit was not answered: a later start looks for it" if self.in_doubt else "none was submitted"
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

    def has_ended(self) -> bool:
        """One look: whether the job is seen to have ended."""
        handle = None if self.record is None else self.record.handle
        return handle is not None and has_ended(self._remote.observe(handle))

    def note_end(self) -> bool:
        """One look, before a cancel: whether the job has ended by itself. How is noted then, and it is not to be cancelled."""
        handle, record = self.known_job, self.record
        if handle is None or record is None or record.outcome is not None:
            return False
        outcome = {JobState.SUCCEEDED: Outcome.SUCCEEDED, JobState.FAILED: Outcome.FAILED}.get(self._remote.observe(handle).state)
        if outcome is not None:
            self.close(outcome)
        return outcome is not None

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

    def _stop_overdue(self, stop: Callable[[str], bool]) -> None:
        is_told = stop(f"it has run for longer than job_timeout={self.policy.deadline:g} s")
        if is_told:
            self.close(Outcome.CANCELLED)
        elif self.cannot_cancel:
            self.leave("job_timeout, and the operator cannot stop it")
        self._was_overdue = is_told or self.cannot_cancel

    def failing(self, seen: Observation) -> ResumableError:
        """The error to fail the try with, of a job that is failing while parts of it still run; it is noted."""
        return self._refused(failing(seen, self.policy))

    def look_once(self) -> Observation:
        """One look at the job of this attempt."""
        return self._remote.observe(self._known_handle())

    def observe(self) -> Observation:
        """Look at the job of this attempt, patiently; UNKNOWN if it cannot be seen."""
        return self._remote.look(self._known_handle(), self._submitted_at)

    # -- the decision loop --------------------------------------------------------------------------------------------

    is_halted = False
    """Set by the signal handler: whatever the reason of the stop, this attempt submits nothing any more."""

    is_perhaps_made = False
    """See `perhaps_made`."""

    _intended = False
    _is_next_look = False  # of a task that waits by being rescheduled: no reconnect
    is_waiting = False
    """The code that waits for the job's end is at work; what it raises is its verdict, or trouble of the wait."""
    _has_repeated = _has_asked = False
    _recoveries = 0
    _lost_at = 0.0

    def _settle(self) -> None:
        observation = self._remote.elsewhere(self.record)
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

    def _claim_now(self) -> Claim:
        """The claim, with what can come of another submit, and what its age makes of the service's promise to know the token."""
        lifetime, record = getattr(self.adapter, "token_lifetime", None), self.record
        if record is not None and record.handle is not None:
            return replace(self.claim, one_job=self._one_job(record))
        if lifetime is None or record is None or not record.in_doubt or self._clock() - record.intended_at < lifetime:
            return self.claim
        has_find = getattr(self.adapter, "finds_expired", False)
        return replace(self.claim, certainty=Certainty.FIND if has_find else Certainty.EXPIRED)

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
        self.record = replace(self._owned(self.record), decided_try=None)
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

    def _owned(self, record: JobRecord) -> JobRecord:
        return replace(
            self._taken_over(record),
            owner=self.owner,
            attempt=self._number,
            try_number=self._try,
            decided_try=None if record.decided_in == self._try else record.decided_in,
            first_look=self._first_look(record),
            left=self._not_waited_for,
            reach=self._reach,
            cancel_if_lost=self._cancel_if_lost,
        )

    def _taken_over(self, record: JobRecord) -> JobRecord:
        """The record with what must have become of the attempt that had it before."""
        if record.owner == self.owner or self._is_next_look or record.attempt == 0:
            return record
        last = record.history[-1].what if record.history else ""
        if self._is_cleared(record):
            what = history.CLEARED
        elif record.outcome is not None or record.left or last == history.TRY_FAILED:
            return record
        else:
            what = history.HANDED_BACK if record.try_number == self._try else history.WORKER_LOST
        return record.noting(what, self._clock(), "" if record.handle else "its submit was not answered")

    def _first_look(self, before: JobRecord | None) -> int | None:
        if self.policy.wait is not Wait.RESCHEDULE:
            return None
        is_same_try = before is not None and before.try_number == self._try
        return before.first_look if is_same_try and before is not None and before.first_look else self._number

    @property
    def looks(self) -> int:
        """Starts of this try so far, this one included: a look each, where the task waits by being rescheduled."""
        first = self.record.first_look if self.record is not None else None
        return self._number - (first or self._number) + 1

    @property
    def _not_waited_for(self) -> str | None:
        return None if self.claim.waits else "the task does not wait for it"

    @property
    def _cancel_if_lost(self) -> bool:
        return self.policy.on_final_failure is OnFinalFailure.CANCEL

    def _is_cleared(self, record: JobRecord) -> bool:
        return is_cleared(record, self.claim)

    def _intent(self, plan: Submit, params: Any, token: str | None, where: Mapping[str, str]) -> JobRecord:
        before = self.record
        generation = self._generation()
        record = JobRecord(
            service=self.adapter.service,
            token=token or self.task.token(generation, plan.submission),
            generation=generation,
            submission=plan.submission,
            owner=self.owner,
            attempt=self._number,
            try_number=self._try,
            first_look=self._first_look(before),
            replaces=before.handle.ids if token and before is not None and before.handle else None,
            intended_at=self._clock(),
            spec=self.claim.spec,
            replaced=self._replaced(),
            place={**self.adapter.place(), **where},
            left=self._not_waited_for,
            reach=self._reach,
            cancel_if_lost=self._cancel_if_lost,
            history=() if before is None else self._taken_over(before).history,
        )
        return self._with_request(record, params)

    def _replaced(self) -> tuple[str, ...]:
        before = self.record
        if before is None:
            return ()
        return replaced_marks(() if self._is_cleared(before) else before.replaced, before.spec, self.claim.spec)

    def _generation(self) -> Generation:
        before = self.record
        return self.claim.generation if before is None or self._is_cleared(before) else before.generation

    def _refuse_the_same_job(self) -> None:
        """A user's own token may be answered with the job that this submission was to follow."""
        record = self.record
        if record is not None and record.handle is not None and record.handle.ids == record.replaces:
            raise InvalidHandleError(
                f"{record.service} answered the submit with {record.handle}, the job that has ended already: the token "
                f"{record.token!r} is used up. No job was started. Leave idempotency_token (or client_request_token) "
                "unset, so that each submission gets a token of its own, or make yours vary, and clear the task."
            )

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

    def _known_record(self) -> JobRecord:
        assert self.record is not None
        return self.record

    @property
    def _submitted_at(self) -> float:
        record = self._known_record()
        return record.submitted_at or record.intended_at

    def _known_handle(self) -> JobHandle:
        handle = self._known_record().handle
        assert handle is not None
        return handle

    def _found_or_absent(self) -> Observation | None:
        record = self._known_record()
        found = self._remote.find(record, max(record.intended_at, self._lost_at))
        if found is None:
            return Observation(JobState.ABSENT)
        self.record = self._owned(record).submitted(found, record.intended_at, "found by its token")
        self._keep()
        return None

    # -- keeping and telling ------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        assert self.record is not None
        self._unsaved = True  # also if `Interrupted` comes in between
        try:
            self._records.save(self.record)
        except SupersededError:
            self._unsaved = False
            raise
        except StateStoreError as e:
            self._log.warning(
                "resumable: the record of %s could not be written; the job runs on and the write is tried again at later looks. "
                "If this worker dies before, the token finds the job. %s",
                self.record.handle or self.record.service,
                e,
            )
        else:
            self._unsaved = False

    def _say(
        self, verb: str, reason: str, observation: Observation | None = None, say: Callable[..., None] | None = None
    ) -> None:
        state = f", state {observation}" if observation else ""
        (say or self._log.info)("resumable: %s %s: %s", verb, self._named(state), reason)

    def _named(self, more: str = "") -> str:
        record = self.record
        if record is None:
            return self.adapter.service
        age = _age(self._clock() - (record.submitted_at or record.intended_at))
        job = record.handle or f"{record.service} job with token {record.token}"
        return f"{job} (attempt {self._number}, try {self._try}, submission {record.submission}, age {age}{more})"

    def _refusal(self, refuse: Refuse) -> str:
        record = self.record
        known = record is not None and record.handle is not None
        job = f"{self._named()} is left as it is" if known else "no job is known"
        happened = refuse.reason[:1].upper() + refuse.reason[1:]
        advice = f" {refuse.advice}." if refuse.advice else ""
        sent = "The unanswered submit was repeated under its token, nothing else" if self._has_repeated else "Nothing"
        return f"{happened} [task {self.task}]. {sent} was submitted; {job}.{advice}"


def _age(seconds: float) -> str:
    minutes, s = divmod(max(0, int(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours:02}:{m:02}:{s:02}"
