"""The errors that a caller can tell apart.

Every message says three things: what happened, what became of the remote job, and what to do. ``retryable`` tells
the glue to Airflow whether another try can help; the ones that are not are raised as Airflow's ``AirflowFailException``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resumable.jobs.record import JobHandle


class ResumableError(Exception):
    """
    Base of all errors of this library.

    Args:
        args: the message.
        next_try: what the next try does about it, as in "looks again"; not said where Airflow starts no other (``no_other_try``).

    Attributes:
        service: name of the job's service; None where the error is not of a job.
        handle: the job that the start of the task knew of when the error left it; None if there was none.
        attempt: which start of the task it was of, as the record counts them; None before the record was read.
    """

    retryable = True
    service: str | None = None
    handle: JobHandle | None = None
    attempt: int | None = None
    no_other_try = ""
    """Why no other try follows, and what to do, where that is known: one sentence."""

    def __init__(self, *args: object, next_try: str = "") -> None:
        super().__init__(*args)
        self.next_try = next_try

    def __str__(self) -> str:
        then = self.no_other_try or f"The next try {self.next_try}."
        return f"{super().__str__()} {then}" if self.next_try else super().__str__()


class ConfigurationError(ResumableError, ValueError):
    """A wrong argument, policy or ``[resumable]`` setting. Nothing was submitted."""

    retryable = False


class StateStoreError(ResumableError):
    """The task state could not be read or written. Nothing was submitted because of it; another try may work."""


class RecordError(ResumableError):
    """The stored record is unreadable, or a newer release wrote it. Nothing was submitted, the job is left alone.

    Retryable: while workers are being upgraded, the next try may land on one that can read the record.
    """


class DamagedRecordError(RecordError, StateStoreError):
    """What the store holds was cut short, or is somebody else's: there is no reading it, and asking again does not help."""


class LostSightError(ResumableError):
    """The job's state could not be learned (throttled, unreachable, unknown). It may run on; the next try looks again."""


class ForeignJobError(ResumableError):
    """The record's job lives in another account, region or workspace than the connection points at."""


class JobFailedError(ResumableError):
    """The job has failed. The next try submits another one, unless ``on_failed`` is ``fail``."""


class JobGoneError(ResumableError):
    """The service no longer knows the job. The next try submits another one, unless ``on_missing`` is ``fail``."""


class RefusedError(ResumableError):
    """A policy (``on_failed``, ``on_missing``, ``on_change`` = ``fail``) or a doubt forbids to submit."""

    retryable = False


class UnseenSubmitError(ResumableError):
    """The provider's code started its job by a way that is not covered, so nothing of it was kept. A job may run."""

    retryable = False


class JobTimeoutError(ResumableError):
    """``job_timeout`` struck: the job was cancelled, and the task fails for good."""

    retryable = False


class WaitLimitError(ResumableError):
    """The author's own limit of the wait (``waiter_max_attempts`` ...) is reached. The job runs on; the next try reattaches."""


class InvalidHandleError(ResumableError):
    """What a submit returned cannot identify a job (None, empty, wrong shape). The job may be running unseen."""

    retryable = False


class InvalidAnswerError(InvalidHandleError):
    """The service's answer to a submit names no job. The next try asks again under the same token, or looks the job up."""

    retryable = True


class SupersededError(ResumableError):
    """Another attempt of this task instance owns the record now. This one must submit, cancel and write nothing."""


class SweepError(ResumableError):
    """Airflow did not answer about some Variables: those are left alone."""


class ItemsFailedError(ResumableError):
    """Some items of a checkpoint failed; the others are done and stay done. The next try works the failed ones again."""


class JobNotFound(Exception):
    """Raise it in ``get_job_status``, or ``find_job``, when the service says that it does not know the job (any more)."""


class NotSubmitted(Exception):
    """Raise it in ``submit_job`` when it is certain that no job was made: the next try then submits, without a doubt left."""


class StopNotTaken(RuntimeError):
    """A cancel was answered with HTTP 200, and the answer says that the job was not told to stop."""


class ControlFlow(BaseException):
    """
    Raised by us through somebody's code, and caught by us alone. A BaseException, so that an ``except Exception`` there does not
    take it for a failure of its own.
    """


class HandedBack(ControlFlow):
    """A task is handed back: carries the ``hand_back`` that Airflow is to get past the code of the operator's author."""

    def __init__(self, hand_back: BaseException) -> None:
        super().__init__("the task is handed back, and started again")
        self.hand_back = hand_back


def chain(error: BaseException) -> Iterator[BaseException]:
    """
    ``error`` and what it came of, each once.

    ``except Wrapper as e: raise e.__cause__`` makes a circle of the two: each is what the other came of.
    """
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
