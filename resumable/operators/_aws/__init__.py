"""
What the AWS operators have in common: `AwsCall`, names that authors choose (`names`), the trigger.

May import: `resumable.jobs`, `stop`, `host`. May be imported by: the services' modules beside it, `resumable.adapters`.
"""

from collections.abc import Iterator, Sequence

from resumable.operators._aws.call import AwsCall
from resumable.operators._aws.trigger import ResumableAwsTrigger, require_taken

__all__ = ["HOUR", "TAG", "AwsCall", "ResumableAwsTrigger", "chunks", "require_taken"]

HOUR = 3600.0

TAG = "resumable-token"
"""The tag that carries the token where a job can be tagged."""


def chunks(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """``ids`` in pieces of what one request takes."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])
