"""What an error of a look means for the looks that follow: pure decisions about exceptions, no Airflow, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from resumable.errors import chain
from resumable.jobs.rejection import is_refusal, status_of

_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RESOURCE_EXHAUSTED",
        "REQUEST_LIMIT_EXCEEDED",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""botocore's own list (``botocore/retries/standard.py``, ThrottledRetryableChecker), and Databricks' and gRPC's codes."""

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "NotAuthorized",
        "PERMISSION_DENIED",
        "UnauthorizedOperation",
    }
)
_STATUS = re.compile(r"Status Code: (\d{3})|\b(4\d\d|5\d\d) (?:Client|Server) Error")
_THROTTLED_WORDS = re.compile(r"\b429\b.*Too Many Requests|Too Many Requests|Rate exceeded|REQUEST_LIMIT_EXCEEDED", re.IGNORECASE)
_DENIED_WORDS = re.compile(r"\bPERMISSION_DENIED\b|\bnot authorized to perform\b")


class Fault(Enum):
    """What an error of a look says."""

    THROTTLED = "throttled"  # too many calls
    DENIED = "denied"  # this caller may not make this call
    REFUSED = "refused"  # the service does not take the request as it is: one of its ids, say
    TROUBLE = "trouble"  # no answer, or none that says anything


def fault_of(error: BaseException) -> Fault:
    """Where an error of a look belongs. In doubt TROUBLE, of which nothing follows but another look."""
    causes = list(chain(error))
    codes = {_code_of(cause) for cause in causes}
    statuses = [status for cause in causes if (status := _status_in(cause)) is not None]
    text = " ".join(map(str, causes))
    if codes & _THROTTLED or 429 in statuses or _THROTTLED_WORDS.search(text):
        return Fault.THROTTLED
    if codes & _DENIED or 403 in statuses or _DENIED_WORDS.search(text):
        return Fault.DENIED
    if statuses and is_refusal(statuses[0]) and statuses[0] not in {401, 407}:
        return Fault.REFUSED
    return Fault.TROUBLE


def _code_of(error: BaseException) -> str:
    response = getattr(error, "response", None)
    answer: Any = response.get("Error") if isinstance(response, Mapping) else None
    return str(answer.get("Code", "")) if isinstance(answer, Mapping) else ""


def _status_in(error: BaseException) -> int | None:
    if (status := status_of(error)) is not None:
        return status
    words = _STATUS.search(str(error))
    return int(words[1] or words[2]) if words else None
