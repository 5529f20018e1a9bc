"""What one start of a task has of the record: who it is in there, and how what it knows is kept."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from resumable.errors import InvalidHandleError, StateStoreError, SupersededError
from resumable.identity import Generation, TaskIdentity
from resumable.jobs import history
from resumable.jobs.decision import (
    AttemptFacts,
    Conclude,
    Deliver,
    Observation,
    Reattach,
    Recovery,
    Submit,
    is_cleared,
)
from resumable.jobs.record import JobHandle, JobRecord
from resumable.jobs.remote import JobAdapter, Remote
from resumable.jobs.spec import Spec
from resumable.policy import OnFinalFailure, ResumePolicy
from resumable.stores.base import RecordStore

ROOM = 65_535
"""Bytes of JSON that Airflow's task state takes in one value, unless it is told otherwise."""


class AttemptRecord:
    """
    The record, as one attempt has it.

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
        claim: AttemptFacts,
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
        self._number, self._is_read = 1, False
        self._overdue, self._was_overdue, self._ask_overdue_at = threading.Lock(), False, 0.0
        self.cannot_cancel = False
        self.stop_reason = ""
        """Why the job was told to stop, for the record's history."""

    is_halted = False
    """Set by the signal handler: whatever the reason of the stop, this attempt submits nothing any more."""

    left_by: BaseException | None = None
    """What has taken the main thread out of the task, while this attempt is made in another."""

    is_perhaps_made = False
    """See `perhaps_made`."""

    _intended = False

    _is_next_look = False  # of a task that gives its slot back while it waits: no reconnect

    is_waiting = False
    """The code that waits for the job's end is at work; what it raises is its verdict, or trouble of the wait."""

    _has_repeated = _has_asked = False
    _recoveries = 0

    _lost_at = 0.0

    @property
    def number(self) -> int | None:
        """Which start of the task this is, as the record counts them; None before the record was read."""
        return self._number if self._is_read else None

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
    def recorded_params(self) -> Any:
        """The request of a submit that was left unanswered, if it was kept; without secrets."""
        return self.record.params if self.record is not None else None

    @property
    def token(self) -> str:
        """The token of the job that is watched, or of the one that is to be submitted."""
        plan = self.plan
        if isinstance(plan, Submit) and not plan.in_doubt and not self._intended:
            return self.task.token(self._generation(), plan.submission)
        return self._known_record().token

    @property
    def looks(self) -> int:
        """Starts of this try so far, this one included: a look each, where the task waits by being rescheduled."""
        first = self.record.first_look if self.record is not None else None
        return self._number - (first or self._number) + 1

    @property
    def is_kept(self) -> bool:
        """Nothing that this attempt knows is still to be written."""
        return not self._unsaved

    def flush(self) -> None:
        """Try again, once, to write a record whose write had failed."""
        if self._unsaved and self.record is not None:
            try:
                self._records.save(self.record, tries=1)
            except StateStoreError:
                return
            self._unsaved = False
            self._log.info("resumable: the record of %s is kept now", self.record.handle or self.record.service)

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
                f"If this worker dies before, {_way_back(self.adapter.recovery)}. %s",
                self.record.handle or self.record.service,
                e,
            )
        else:
            self._unsaved = False

    def _note(self, record: JobRecord, say: Callable[..., None]) -> None:
        """Keep what matters to whoever comes later, and is no reason to fail this task where it cannot be kept."""
        self.record = record
        try:
            self._records.save(record, tries=2)
        except (StateStoreError, SupersededError) as e:
            say("resumable: what became of %s was not noted in its record: %s", self._named(), e)

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
        if not self.policy.frees_the_slot:
            return None
        is_same_try = before is not None and before.try_number == self._try
        return before.first_look if is_same_try and before is not None and before.first_look else self._number

    @property
    def _not_waited_for(self) -> str | None:
        return None if self.claim.waits else "the task does not wait for it"

    @property
    def _cancel_if_lost(self) -> bool:
        return self.policy.on_final_failure is OnFinalFailure.CANCEL

    def _is_cleared(self, record: JobRecord) -> bool:
        return is_cleared(record, self.claim)

    def _generation(self) -> Generation:
        before = self.record
        return self.claim.generation if before is None or self._is_cleared(before) else before.generation

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

    def _refuse_the_same_job(self) -> None:
        """A user's own token may be answered with the job that this submission was to follow."""
        record = self.record
        if record is not None and record.handle is not None and record.handle.ids == record.replaces:
            raise InvalidHandleError(
                f"{record.service} answered the submit with {record.handle}, the job that has ended already: the token "
                f"{record.token!r} is used up. No job was started. Leave idempotency_token (or client_request_token) "
                "unset, so that each submission gets a token of its own, or make yours vary, and clear the task."
            )

    @property
    def is_first_submit(self) -> bool:
        """Nothing of this generation can be running: the provider may tidy up before it submits."""
        return isinstance(self.plan, Submit) and not self.plan.in_doubt

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


def refuse_if_given_up(record: JobRecord, claim: AttemptFacts) -> None:
    """Raises: SupersededError: a later try owns the record."""
    if record.try_number > claim.try_number and not claim.generation.is_of_later_run(record.generation):
        raise SupersededError(
            f"Try {record.try_number} owns the record, this is try {claim.try_number}: Airflow has given it up. It submits, "
            "cancels and writes nothing; the job is left to the other. Nothing needs to be done."
        )


def comparable(record: JobRecord, claim: AttemptFacts) -> JobRecord:
    """
    An earlier release kept nothing that tells an edit, of the job or of ``retries`` (which a sibling's clear is told from a
    clear by): what the author changes from now on is noticed.
    """
    if record.generation.retries is None:
        record = replace(record, generation=replace(record.generation, retries=claim.generation.retries))
    is_blind = record.spec is None or record.spec == Spec()
    return replace(record, spec=claim.spec) if is_blind and claim.spec is not None else record


def _age(seconds: float) -> str:
    minutes, s = divmod(max(0, int(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours:02}:{m:02}:{s:02}"


def _way_back(recovery: Recovery) -> str:
    """What becomes of a job whose handle was not kept."""
    if recovery in (Recovery.REPEAT, Recovery.LOOK_UP):
        return "the token finds the job"
    return "no try submits again until somebody has looked for the job, and has cleared the task"
