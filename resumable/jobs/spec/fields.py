"""Which of a task's values make up its job."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

from resumable.jobs.spec.codes import UNKNOWN

WAITED_FOR_OR_LOGGED = (
    "*conn_id",
    "region_name",
    "verify",
    "botocore_config",
    "wait",
    "wait_*",
    "*waiter*",
    "*poll*",
    "poke_interval",
    "check_interval",
    "deferrable",
    "durable",
    "reattach",
    "resume_policy",
    "*logs*",
    "*xcom*",
)
"""Arguments, by their names, that say how a job is reached, waited for or logged: an edit of one is no change of the job."""


def is_of_the_job(name: str) -> bool:
    """Whether an argument of this name makes the job what it is, and not only how it is reached, waited for or logged."""
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in WAITED_FOR_OR_LOGGED)


def spec_values(task: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """
    The values of a task's fields. One that fails, say for want of a connection, is not comparable.

    Args:
        task: an operator.
        names: of its attributes; default: its template fields, but for how the job is reached, waited for or logged.
    """
    if names is None:
        names = filter(is_of_the_job, getattr(task, "template_fields", ()))
    values: dict[str, Any] = {}
    for name in names:
        try:
            values[name] = getattr(task, name)
        except AttributeError:
            continue
        except Exception:
            values[name] = UNKNOWN
    return values


def named(names: Iterable[str], most: int = 5) -> str:
    """A few names for a log line."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
