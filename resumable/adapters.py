"""What a durable class of one's own for somebody else's operator is made of: ``docs/custom-operators.md`` shows how.

`HookCall` makes one call of an operator's hook durable, `AwsCall` one call of its botocore client; `durable_operator` puts either
into an operator. The other names are what their methods take and give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resumable.errors import InvalidAnswerError
from resumable.jobs.decision import JobState, Observation, Recovery
from resumable.jobs.operator import durable_operator
from resumable.jobs.provider_job import HookCall
from resumable.jobs.record import JobHandle, JobRecord

if TYPE_CHECKING:
    from resumable.operators._aws import AwsCall

__all__ = [
    "AwsCall",
    "HookCall",
    "InvalidAnswerError",
    "JobHandle",
    "JobRecord",
    "JobState",
    "Observation",
    "Recovery",
    "durable_operator",
]


def __getattr__(name: str) -> Any:
    if name == "AwsCall":  # lazy: it needs botocore
        from resumable._extras import provider_import

        with provider_import("amazon"):
            from resumable.operators._aws import AwsCall
        return AwsCall
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
