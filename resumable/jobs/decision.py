"""What an attempt does about the job that an earlier one may have left: one pure function, no Airflow, no I/O.

``decide`` is asked again after every look: it answers `Look` (or `Find`) while it needs to know more, and the caller comes
back with an `Observation`. Everything else it answers is final. More than 400 lines, because the table is read as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from resumable.errors import ForeignJobError, JobFailedError, JobGoneError, LostSightError, RefusedError, ResumableError
from resumable.identity import Generation, Relation
from resumable.jobs.record import JobRecord, Outcome
from resumable.jobs.spec import Spec, edited_fields, named
from resumable.policy import OnChange, OnClear, OnFailed, OnMissing, ResumePolicy


class JobState(Enum):
    """What was seen of a job. A state that an adapter does not know is UNKNOWN, never a failure."""

    ACTIVE = "active"
    FAILING = "failing"  # failed as a whole already, while parts of it still run
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REPAIRABLE = "repairable"  # failed, and the provider's own code is about to mend it where the task goes on watching
    GONE = "gone"  # the service answers, in the handle's own place, that there is no such job
    ABSENT = "absent"  # answer to Find: no job carries the token
    FOREIGN = "foreign"  # the connection points elsewhere than the handle: asking would mean nothing
    UNKNOWN = "unknown"  # throttled, unreachable, or a state that the adapter cannot place


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at a job: its state as we place it, and the service's own words for it."""

    state: JobState
    detail: str = ""

    def __post_init__(self) -> None:
        detail: Any = self.detail
        if not isinstance(detail, str) or isinstance(detail, Enum):  # an author's client may have statuses of its own type
            text = "" if detail is None else str(detail.value if isinstance(detail, Enum) else detail)
            object.__setattr__(self, "detail", text)

    def __str__(self) -> str:
        return self.detail or self.state.value.upper()


class Recovery(Enum):
    """What clears up a submit whose answer was lost."""

    REPEAT = "resend"  # the service answers the same token, or name, with the same job
    LOOK_UP = "find"  # the token is put on the job and can be looked up
    EXPIRED = "expired"  # later than the service promises to know the token, and nothing to look the job up by
    MANUAL = "none"  # nothing does; never submitted twice without a person having looked


@dataclass(frozen=True, slots=True)
class Submit:
    """Submit a job as this submission of this generation, after closing what went before.

    With ``in_doubt`` an earlier attempt may have done so: the same token goes out again, with the parameters as recorded,
    and whatever job answers is looked at before it is trusted.
    """

    submission: int
    reason: str
    in_doubt: bool = False
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the service for the state of the record's job."""


@dataclass(frozen=True, slots=True)
class Find:
    """Ask the service for the job that carries the record's token."""


@dataclass(frozen=True, slots=True)
class Reattach:
    """Watch the record's job; submit nothing."""

    reason: str
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Deliver:
    """The record's job is done: hand over its result; submit nothing, wait for nothing."""

    reason: str
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Conclude:
    """
    The record's job has failed, and no try has failed for it yet: let the operator's own code give its verdict on it.

    Nothing is submitted. The verdict closes the record and, unless it is a success or a skip, fails the try, as it would have
    done to whoever had watched the job to its end. A later start finds the record closed and submits.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Cancel the record's job, wait until it has stopped, then submit as ``submission``."""

    submission: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """
    Submit nothing, fail the attempt. ``reason`` says why, ``advice`` what can be done, ``next_try`` what the next try does.

    ``closes``: the outcome to close the record with. ``notes_failing``: the record stays open and says that this try failed
    because its job is failing.
    """

    error: type[ResumableError]
    reason: str
    advice: str
    closes: Outcome | None = None
    notes_failing: bool = False
    next_try: str = ""


Decision = Submit | Look | Find | Reattach | Deliver | Conclude | Restart | Refuse


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """
    What an attempt brings to the decision: its generation, its spec, how doubt is cleared, whether it waits at all, the try that
    it belongs to, and, in words, why no submit of it can bring another job than the record's, if none can. Several attempts are
    of one try: a reschedule, a hand-back and a deferral use up none.
    """

    generation: Generation
    spec: Spec | None
    recovery: Recovery = Recovery.REPEAT
    waits: bool = True
    try_number: int = 0
    one_job: str = ""


def decide(record: JobRecord | None, observation: Observation | None, policy: ResumePolicy, claim: AttemptFacts) -> Decision:
    """
    Decide what to do about ``record``'s job.

    Args:
        record: what task state holds, or None.
        observation: the last look at the record's job, None before the first.
        policy: with every setting filled in (`ResumePolicy.resolved`).
        claim: who is asking.
    """
    if record is None:
        return Submit(0, "no job yet")
    if observation is not None and observation.state is JobState.UNKNOWN:
        return _lost(observation)
    if observation is not None and observation.state is JobState.FOREIGN:
        return _foreign(record, observation)
    cleared = is_cleared(record, claim)
    if record.in_doubt:
        return _in_doubt(record, observation, policy, claim, cleared)
    decision = (_cleared if cleared else _same_generation)(record, observation, policy, claim)
    if claim.one_job and not _stop_of(record):
        return _of_one_job(decision, record, observation, claim, cleared=cleared)
    return decision


def _of_one_job(
    decision: Decision, record: JobRecord, observation: Observation | None, claim: AttemptFacts, *, cleared: bool
) -> Decision:
    """No other job can follow on the record's: so it is not stopped for one, and what it came to stands, but after a clear."""
    state = None if observation is None else observation.state
    advice = "To have another job, change that as well, or leave it unset"
    if isinstance(decision, Restart) and state is JobState.FAILING:
        reason = f"{decision.reason}, but {claim.one_job}"
        return Refuse(RefusedError, reason, f"{advice}, and clear the task", notes_failing=True)
    if isinstance(decision, Restart):
        return Reattach(f"{decision.reason}, but {claim.one_job}. It is not cancelled. {advice}", warn=True)
    has_succeeded = state is JobState.SUCCEEDED or record.outcome is Outcome.SUCCEEDED
    if isinstance(decision, Submit) and has_succeeded and not cleared:
        return Deliver(f"{decision.reason}, but {claim.one_job}. {advice}, and clear the task", warn=True)
    return decision


def is_cleared(record: JobRecord, claim: AttemptFacts) -> bool:
    """
    Whether the task was cleared since ``record`` was written.

    A ``clear_number`` that moved alone is most likely a sibling's clear, and the job of a record without an outcome may still
    run. Once the outcome was noted, another attempt means a clear, or that Airflow never heard of the outcome (its API server was
    down, the worker died that very moment). A clear of an ended task moves ``max_tries``, unless ``retries`` was edited: so
    ``clear_number`` counts only then, and where a record does not say what ``retries`` was.
    """
    earlier = record.generation
    if claim.generation.relation_to(earlier) is Relation.CLEARED:
        return True
    is_edited = earlier.retries is None or earlier.retries != claim.generation.retries
    return record.outcome is not None and is_edited and claim.generation.clear_number != earlier.clear_number


def _lost(observation: Observation) -> Refuse:
    return Refuse(
        LostSightError,
        f"the job's state cannot be learned ({observation})",
        "Check the connection and the service",
        next_try="looks again",
    )


def _foreign(record: JobRecord, observation: Observation) -> Refuse:
    place = " ".join(str(v) for v in record.place.values())
    job = record.handle or f"{record.service} job with token {record.token} at {place}"
    return Refuse(
        ForeignJobError,
        f"the record's job is {job}, but the connection points at {observation.detail}",
        "Point the connection back until that job is done, or, once it no longer matters, delete the task state key "
        "'resumable' of this task instance",
    )


def _in_doubt(
    record: JobRecord, observation: Observation | None, policy: ResumePolicy, claim: AttemptFacts, cleared: bool
) -> Decision:
    absent = observation is not None and observation.state is JobState.ABSENT
    if claim.recovery is Recovery.LOOK_UP and not absent:
        return Find()
    if claim.recovery is Recovery.REPEAT:
        return Submit(record.submission, "an earlier submit was left unanswered; same token again", in_doubt=True)
    if cleared:
        if claim.recovery in (Recovery.MANUAL, Recovery.EXPIRED):
            return Submit(0, "the task was cleared; a job of the earlier, unanswered submit may still run", warn=True)
        return Submit(0, "the task was cleared, its earlier submit made no job")
    if claim.recovery is Recovery.MANUAL:
        return Refuse(
            RefusedError,
            "an earlier attempt died while it submitted, and this operator has no way to tell whether a job was made",
            "Look in the service; if a job runs there, wait for it or stop it; then clear the task. To have this done for "
            "you, send self.idempotency_token with the submit or implement find_job",
        )
    if claim.recovery is Recovery.EXPIRED:
        return _left_open("an earlier submit was left unanswered, longer ago than the service is known to keep its token")
    if policy.strict:
        return _left_open("an earlier submit was left unanswered, no job that carries its token is to be seen, and strict=True")
    return Submit(record.submission, "an earlier submit was left unanswered, no job carries its token")


def _left_open(reason: str) -> Refuse:
    advice = "Look in the service for a job of that time; wait for it or stop it; then clear the task to run it again"
    return Refuse(RefusedError, reason, advice)


def _cleared(record: JobRecord, observation: Observation | None, policy: ResumePolicy, claim: AttemptFacts) -> Decision:
    if stop := _stop_of(record):
        return _told_to_stop(observation, 0, f"the task was cleared: run again; {stop}")
    if record.outcome is not None:
        return Submit(0, "the task was cleared: run again")
    if observation is None:
        return Look()
    if observation.state in (JobState.ACTIVE, JobState.FAILING):
        if policy.on_clear is OnClear.REATTACH and (changed := changes(record, claim)):
            return _changed(changed, record, observation, policy, claim, following=0)
        if policy.on_clear is OnClear.REATTACH:
            return Reattach("the task was cleared, on_clear=reattach")
        return Restart(0, "the task was cleared, on_clear=restart")
    return Submit(0, f"the task was cleared, its earlier job had ended ({observation}): run again")


def _same_generation(record: JobRecord, observation: Observation | None, policy: ResumePolicy, claim: AttemptFacts) -> Decision:
    changed = changes(record, claim)
    following = record.submission + 1
    if stop := _stop_of(record):
        if not changed and observation is not None and observation.state is JobState.SUCCEEDED:
            return Deliver(f"{stop}, and has succeeded for all that")
        return _told_to_stop(observation, following, stop)
    if record.outcome is not None:
        return _closed(record, record.outcome, policy, changed=changed)
    if not claim.waits and not changed:
        return Deliver("the job is submitted, and this task does not wait for it")
    if observation is None:
        return Look()
    if changed:
        return _changed(changed, record, observation, policy, claim, following=following)
    return _unchanged(record, observation, policy, claim)


def _unchanged(record: JobRecord, observation: Observation, policy: ResumePolicy, claim: AttemptFacts) -> Decision:
    match observation.state:
        case JobState.ACTIVE | JobState.REPAIRABLE:
            return Reattach("an earlier attempt started it")
        case JobState.SUCCEEDED:
            return Deliver("the job has succeeded meanwhile")
        case JobState.GONE:
            return gone(observation, policy)
        case JobState.FAILING:
            return _while_failing(record, observation, policy, claim, record.submission + 1)
        case _ if _has_failed_a_try(record, claim):
            return _after_end(str(observation), policy, record.submission + 1)
        case _:
            return Conclude(f"the job has failed ({observation}) and no try has failed for it yet")


def gone(observation: Observation, policy: ResumePolicy) -> Refuse:
    """What is done about a job that is believed to be gone: the try fails, and `ResumePolicy.on_missing` says what follows."""
    reason = f"the service no longer knows the job ({observation})"
    if policy.on_missing is OnMissing.FAIL:
        advice = "Look for the job in the service, then clear the task to run it again"
        return Refuse(RefusedError, f"{reason}, on_missing=fail", advice, closes=Outcome.GONE)
    reason, then = f"{reason}, on_missing=resubmit", "submits another job"
    return Refuse(JobGoneError, reason, "", closes=Outcome.GONE, next_try=then)


def failing(observation: Observation, policy: ResumePolicy) -> Refuse:
    """What is done about a job that is failing: the try fails and the record stays open, for what still runs."""
    reason = f"the job has failed ({observation}) while parts of it still run"
    if policy.on_failed is OnFailed.FAIL:
        advice = "Stop what still runs of it, or wait for it; then clear the task to run it again"
        return Refuse(RefusedError, f"{reason}, on_failed=fail", advice, notes_failing=True)
    then = "stops what still runs of it, waits until it has stopped, and submits another job"
    return Refuse(JobFailedError, f"{reason}, on_failed=resubmit", "", notes_failing=True, next_try=then)


def _has_failed_a_try(record: JobRecord, claim: AttemptFacts) -> bool:
    """Whether an earlier try has failed because the job was failing."""
    return record.failing_try is not None and record.failing_try != claim.try_number


def _while_failing(
    record: JobRecord, observation: Observation, policy: ResumePolicy, claim: AttemptFacts, following: int
) -> Decision:
    if not _has_failed_a_try(record, claim):
        return failing(observation, policy)
    if policy.on_failed is OnFailed.FAIL:
        return _after_end(str(observation), policy, following)
    return Restart(following, f"the job had failed in an earlier try, and parts of it still run ({observation})")


def _closed(record: JobRecord, outcome: Outcome, policy: ResumePolicy, *, changed: str) -> Decision:
    following = record.submission + 1
    match outcome:
        case Outcome.REJECTED if record.forgotten_by:
            return Submit(record.submission, f"the earlier job was forgotten by {record.forgotten_by}")
        case Outcome.REJECTED:
            return Submit(record.submission, "the service had refused the earlier submit")
        case _ if changed:
            return Submit(following, f"{changed}, the earlier job had ended")
        case Outcome.SUCCEEDED:
            return Deliver("the job had succeeded")
        case _:
            return _after_end(None if outcome is Outcome.GONE else outcome.value, policy, following)


def _changed(
    changed: str, record: JobRecord, observation: Observation, policy: ResumePolicy, claim: AttemptFacts, *, following: int
) -> Decision:
    if observation.state not in (JobState.ACTIVE, JobState.FAILING):
        return Submit(following, f"{changed}, the earlier job had ended ({observation})")
    match policy.on_change:
        case OnChange.RESTART:
            return Restart(following, f"{changed}, on_change=restart")
        case OnChange.REATTACH if observation.state is JobState.FAILING:
            return _while_failing(record, observation, policy, claim, following)
        case OnChange.REATTACH:
            return Reattach(f"{changed}, on_change=reattach")
        case _:
            return Refuse(
                RefusedError,
                f"{changed} while the job runs, on_change=fail",
                "Undo the change, or clear the task once the job has ended",
            )


def changes(record: JobRecord, claim: AttemptFacts) -> str:
    """What the author changed of the job, in words; empty if nothing, and within one try: there it is what it was started for."""
    if record.decided_in == claim.try_number:
        return ""
    edited = edited_fields(record.spec, claim.spec, record.replaced)
    return f"the author changed {named(edited)}" if edited else ""


def _stop_of(record: JobRecord) -> str | None:
    """Why the record's job was told to stop, if it was and has not ended by itself."""
    if record.outcome is Outcome.CANCELLED:
        return "the earlier job was cancelled"
    return f"the earlier job was told to stop ({record.stopping})" if record.stopping and record.outcome is None else None


def _told_to_stop(observation: Observation | None, following: int, reason: str) -> Decision:
    """A cancel is a request: the next job is submitted when this one has been seen to have ended."""
    if observation is None:
        return Look()
    if observation.state in (JobState.ACTIVE, JobState.FAILING):
        return Restart(following, f"{reason}, and still runs")
    return Submit(following, reason)


def _after_end(words: str | None, policy: ResumePolicy, following: int) -> Decision:
    gone = words is None
    setting, choice = ("on_missing", policy.on_missing) if gone else ("on_failed", policy.on_failed)
    what = "the service no longer knows the job" if gone else f"the job has failed ({words})"
    if choice in (OnMissing.FAIL, OnFailed.FAIL):
        return Refuse(RefusedError, f"{what}, {setting}=fail", "Look at the job, then clear the task to run it again")
    return Submit(following, f"{what}, {setting}=resubmit")
