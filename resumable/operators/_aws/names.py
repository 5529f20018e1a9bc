"""AWS jobs whose name the author chooses; recovery: repeat by name. The service takes no name twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from botocore.exceptions import ClientError

from resumable.errors import chain
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Submit
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.operators._aws import AwsCall

SHORT_TOKEN = 24
"""Hex characters of a token where people read it: 96 bits tell any two submissions apart."""

SUFFIX = 8
"""Hex characters of a token after a name that others look for, which is to stay short."""


class AwsOwnNamedJob(AwsCall):
    """
    Jobs whose name the author chooses, because others look for them there; the service takes no name twice.

    While the seam is open, the operator's argument is the name of this attempt's job, which the provider's code then uses. The
    first job of a task instance has the author's name, one that follows it has `SUFFIX` hex characters more. A name that is
    taken may be taken by somebody else: the job is ours only if a submit of ours is in doubt and it began after that. Without a
    name of the author's the job is named by its token, and is ours beyond doubt.
    """

    name_argument: ClassVar[str]
    """The provider's argument that holds the name."""

    name_param: ClassVar[str]
    """The member of the request that holds it."""

    name_length: ClassVar[int]

    name_id: ClassVar[str] = "name"
    """The member of the handle's ids that holds it."""

    warns_of_name: ClassVar[bool] = False
    """Whether a name need not be given, so that the author is told what his own means."""

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        theirs = self.author_name()
        self.use_name(self.name_for(attempt, theirs))
        try:
            with super().intercept(attempt):
                yield
        except BaseException:  # what is executed again starts from what the author gave; what has succeeded tells its job's name
            self.use_name(theirs)
            raise

    def author_name(self) -> Any:
        return getattr(self.operator, self.name_argument)

    def use_name(self, name: Any) -> None:
        setattr(self.operator, self.name_argument, name)

    def name_in(self, handle: JobHandle) -> str:
        name: str = self.ids(handle, self.name_id)[0]
        return name

    def name_for(self, attempt: Attempt, given: Any) -> str:
        """The name of the job there is or may be, else a new one: an edit of a name must not make a second job."""
        if attempt.handle is not None:
            return self.name_in(attempt.handle)
        if isinstance(attempt.plan, Submit) and attempt.plan.in_doubt and attempt.record is not None:
            return str(attempt.record.place["name"])
        return self.new_name(attempt, given)

    def new_name(self, attempt: Attempt, given: Any) -> str:
        """The name of a job that is yet to be."""
        if not given:
            return named(None, attempt.token, self.name_length)
        record, wanted = attempt.record, str(given)
        if record is None or not self._is_used(record, wanted):
            if self.warns_of_name:
                self.log.warning(
                    "resumable: %s=%r is yours, and sent as it is: if a job that is not of this task has it, the try fails. A "
                    "job that follows after a failure or a clear has %d characters more. Leave it unset to get a name for each.",
                    self.name_argument,
                    wanted,
                    SUFFIX + 1,
                )
            return wanted
        name = named(wanted, attempt.token, self.name_length, SUFFIX)
        self.log.info("resumable: a job of this task has the name %s, which %s takes once: now %s", wanted, self.service, name)
        return name

    def _is_used(self, record: JobRecord, given: str) -> bool:
        """Whether a job of this task has the author's name. One that was refused has none; an edited name is free."""
        if record.handle is not None:
            last = self.name_in(record.handle)
        else:
            last = str(record.place.get("name"))
            if record.outcome is Outcome.REJECTED and last == given:
                return False
        return last in (given, named(given, record.token, self.name_length, SUFFIX))

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"name": str(params[self.name_param])}

    @staticmethod
    def is_named_by(name: str, token: str) -> bool:
        """Whether a name holds so much of the token that no other job has it."""
        return token[:SHORT_TOKEN] in name

    def may_be_ours(self, answer: Mapping[str, Any], began: datetime | None) -> bool:
        """Whether the job that ``answer`` says has the name already can be of this submission: it began no earlier."""
        attempt = self.known_attempt
        if attempt is None or attempt.record is None or self.is_anothers(answer):
            return False
        ours = began is None or began >= self.oldest(attempt.record)
        if not ours:
            self.say_not_ours(f"it began before the submit in doubt, at {began}")
        return ours

    def say_not_ours(self, why: str) -> None:
        self.log.warning(
            "resumable: %s has a job of that name which is not ours: %s. Nothing was submitted. Free the name there, or, if no "
            "job of ours is to be seen, delete the task state key 'resumable' of this task instance",
            self.service,
            why,
        )

    def is_anothers(self, answer: Mapping[str, Any]) -> bool:
        """The very first request of a submission was answered with "taken": nothing of ours can have been there."""
        attempt = self.known_attempt
        sent_again = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        return attempt is not None and attempt.is_first_submit and not attempt.is_perhaps_made and not sent_again

    def is_rejection(self, error: BaseException) -> bool:
        for cause in chain(error):
            if isinstance(cause, ClientError) and self.is_conflict(cause.response["Error"]):
                return self.is_anothers(cause.response)
        return super().is_rejection(error)


def named(base: Any, token: str, length: int, digits: int = SHORT_TOKEN) -> str:
    """A job's name: as much as fits of the author's, and the token in short."""
    mark = token[:digits]
    return f"{str(base)[: length - digits - 1].rstrip('-')}-{mark}" if base else mark
