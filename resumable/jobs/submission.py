"""The submit of an attempt: the intent that is written before it, its answer, and what a lost answer leaves to do."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from resumable.errors import ControlFlow, ResumableError
from resumable.jobs.attempt_record import AttemptRecord, comparable
from resumable.jobs.decision import (
    JobState,
    Observation,
    Reattach,
    Recovery,
    Refuse,
    Submit,
    changes,
    gone,
)
from resumable.jobs.record import JobHandle, JobRecord, Outcome, Path
from resumable.jobs.spec import replaced_marks

RECOVERIES = 3
"""Lost answers in a row that one attempt clears up by looking for the job, before it leaves that to the next."""


class Again(ControlFlow):
    """Raised out of the provider's code when the submit's answer shows that another submission is due: execute once more."""


class Submission(AttemptRecord, ABC):
    """The part of an attempt that submits."""

    @abstractmethod
    def _settle(self) -> None:
        """Decide anew what this attempt does."""

    @abstractmethod
    def _refused(self, decision: Refuse) -> ResumableError:
        """The error to fail the try with."""

    @property
    def in_doubt(self) -> bool:
        """A submit of this attempt went out and no answer was kept."""
        return isinstance(self.plan, Submit) and self.record is not None and self.record.in_doubt and self._intended

    @property
    def is_unseen(self) -> bool:
        """A submit is due, and none was asked for yet: where the provider's code watches a job, it has passed us by."""
        return isinstance(self.plan, Submit) and not self._has_asked

    @property
    def is_repeatable(self) -> bool:
        """The next try can send the same request again, whatever has become of its own."""
        return self.record is not None and self.record.params is not None

    @property
    def repeats_after_clear(self) -> bool:
        """The submit in doubt is one from before a clear."""
        is_repetition = self.in_doubt and isinstance(self.plan, Submit) and self.plan.in_doubt
        return is_repetition and self._is_cleared(self._known_record())

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
        record = comparable(record, self.claim)
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

    def wait_while_halted(self) -> None:
        """From SIGTERM on nothing new is submitted: the main thread waits here until `Interrupted` takes it out."""
        while self.is_halted:
            _wait_to_be_taken_out(self.left_by)

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

    def recover(self, error: Exception) -> bool:
        """
        After a lost answer, where the job can be looked up: do so and decide. True if the submit may be asked for again: it is
        then answered from the record, or goes out once more because no job carries the token.
        """
        if not self.in_doubt or self.adapter.recovery is not Recovery.LOOK_UP or self._recoveries >= RECOVERIES:
            return False
        self._recoveries += 1
        self._log.warning(
            "resumable: the answer to the submit to %s was lost (%r); looking the job up by its token",
            self.adapter.service,
            error,
        )
        self._intended = self.is_perhaps_made = False
        self._lost_at = self._clock()
        self.plan = None  # what is found is this attempt's job at once: a stop, or a time-out, that comes now reaches it
        self._settle()
        return True

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


# -- the request ----------------------------------------------------------------------------------------------------------------
#
# It is kept until the answer is there: the same token has to go out again with the same request. It may hold secrets, which are
# left out and come from the request of the try that repeats it. It may be large, and is packed then (`resumable.jobs.record`).


def without_secrets(params: Any, redact: Callable[[Any], Any]) -> tuple[Any, tuple[Path, ...]]:
    """
    The request with "***" for each value that ``redact`` would hide, and the paths of those.

    Raises:
        ValueError: JSON cannot carry it as it is.
    """
    try:
        plain = json.loads(json.dumps(params, allow_nan=False))
    except TypeError as e:
        raise ValueError(str(e)) from e
    if plain != _with_lists(params):
        raise ValueError("JSON changes it")
    omitted: list[Path] = []
    return _kept(plain, redact(copy.deepcopy(plain)), (), omitted), tuple(omitted)


def _with_lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _with_lists(one) for key, one in value.items()}
    return [_with_lists(one) for one in value] if isinstance(value, list | tuple) else value


def _kept(value: Any, shown: Any, path: Path, omitted: list[Path]) -> Any:
    if isinstance(value, dict) and isinstance(shown, dict) and value.keys() == shown.keys():
        return {key: _kept(one, shown[key], (*path, key), omitted) for key, one in value.items()}
    if isinstance(value, list) and isinstance(shown, list | tuple) and len(value) == len(shown):
        return [_kept(one, shown[index], (*path, index), omitted) for index, one in enumerate(value)]
    if value == shown:
        return value
    omitted.append(path)
    return "***"


def filled(kept: Any, omitted: tuple[Path, ...], own: Any) -> Any:
    """
    The kept request, with what was left out as the request of this try has it.

    Raises:
        LookupError: this try's has no such value.
    """
    whole = copy.deepcopy(kept)
    for path in omitted:
        try:
            value = _at(own, path)
            if not path:
                return copy.deepcopy(value)
            _at(whole, path[:-1])[path[-1]] = copy.deepcopy(value)
        except (TypeError, AttributeError) as e:
            raise LookupError(str(path)) from e
    return whole


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def digest(kept: Any) -> str:
    """Tells whether another try's request is the same, without secrets."""
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def _wait_to_be_taken_out(left_by: BaseException | None) -> None:
    if left_by is not None:  # of the main thread, which this is not
        raise left_by
    time.sleep(0.02)
