"""AWS jobs whose name the operator holds in an argument: class A, the name holds the token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from resumable.attempt import Attempt
from resumable.lifecycle import Submit
from resumable.operators._aws import AwsReplay

SHORT_TOKEN = 24
"""Hex characters of a token where people read it: 96 bits tell any two submissions apart."""


class AwsNamedJob(AwsReplay):
    """While the seam is open, the operator's argument is the name of this attempt's job, which the provider's code then uses."""

    name_argument: ClassVar[str]
    """The provider's argument that holds the name."""

    name_param: ClassVar[str]
    """The member of the request that holds it."""

    name_length: ClassVar[int]

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        theirs = getattr(self, self.name_argument)
        setattr(self, self.name_argument, self.name_for(attempt, theirs))
        try:
            with super().seam(attempt):
                yield
        finally:
            setattr(self, self.name_argument, theirs)

    def name_for(self, attempt: Attempt, base: Any) -> str:
        """The name of the job there is or may be, else the author's with the token: an edit of a name must not make a second."""
        if attempt.handle is not None:
            return self.ids(attempt.handle, "name")[0]
        if isinstance(attempt.plan, Submit) and attempt.plan.in_doubt and attempt.record is not None:
            return str(attempt.record.place["name"])
        return named(base, attempt.token, self.name_length)

    def where(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {"name": str(params[self.name_param])}


def named(base: Any, token: str, length: int, digits: int = SHORT_TOKEN) -> str:
    """A job's name: as much as fits of the author's, and the token in short."""
    mark = token[:digits]
    return f"{str(base)[: length - digits - 1].rstrip('-')}-{mark}" if base else mark


def account_of(arn: Any) -> str | None:
    """The account in an ARN (``arn:partition:service:region:account:resource``), None if it has none."""
    parts = str(arn).split(":", 5)
    return parts[4] or None if len(parts) == 6 and parts[0] == "arn" else None
