"""The steps of the simulated EMR: what it does to moto's step objects and how it words them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from moto.core.utils import utcnow


@dataclass(frozen=True)
class Step:
    """A step as the service has it."""

    id: str
    name: str
    state: str


class Rejected(Exception):
    """An answer with HTTP status 400 and an AWS error *code*."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def age(step: Any) -> float:
    """Return the seconds since its creation."""
    return float((utcnow() - step.creation_date_time).total_seconds())


def end(step: Any, state: str, reason: str = "") -> None:
    """Put a step into a final *state*."""
    step.state = state
    step.last_state_change_reason = reason
    step.end_date_time = utcnow()


def place(step: Any, *, is_running: bool) -> None:
    """Let an unfinished step run, or wait for its turn."""
    step.state = "RUNNING" if is_running else "PENDING"
    if is_running and step.start_date_time is None:
        step.start_date_time = utcnow()


def summary(step: Any) -> dict[str, Any]:
    """Return the StepSummary of ListSteps, which is also DescribeStep's Step, as botocore's model has it."""
    moments = {
        "CreationDateTime": step.creation_date_time,
        "StartDateTime": step.start_date_time,
        "EndDateTime": step.end_date_time,
    }
    status: dict[str, Any] = {
        "State": step.state,
        "StateChangeReason": {"Message": getattr(step, "last_state_change_reason", "")},
        "Timeline": {name: _epoch(moment) for name, moment in moments.items() if moment is not None},
    }
    if step.state == "FAILED":
        status["FailureDetails"] = {"Reason": "Unknown Error", "Message": step.last_state_change_reason}
    return {
        "Id": step.id,
        "Name": step.name,
        "Config": {"Jar": step.jar, "Args": step.args, "Properties": step.config["Properties"]},
        "ActionOnFailure": step.action_on_failure,
        "Status": status,
    }


def _epoch(moment: datetime.datetime) -> float:
    return (moment - datetime.datetime(1970, 1, 1)).total_seconds()  # moto's times are naive UTC
