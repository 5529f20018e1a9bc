"""What to do when a job is found in a state that leaves a choice.

Each setting is an enum; strings are taken as well. Of each enum the first member is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from resumable.errors import ConfigurationError


class OnFailed(str, Enum):
    """The job was seen to have failed: submit a new one on the retry, or fail the task for good."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class OnMissing(str, Enum):
    """The service no longer knows the job: submit a new one, or fail the task for good."""

    RESUBMIT = "resubmit"
    FAIL = "fail"


class OnChange(str, Enum):
    """The author changed the job while it runs: cancel it and submit the new one, keep waiting for it, or fail."""

    RESTART = "restart"
    REATTACH = "reattach"
    FAIL = "fail"


class OnClear(str, Enum):
    """The task was cleared while its job runs: cancel it and submit a new one, or keep waiting for it."""

    RESTART = "restart"
    REATTACH = "reattach"


class OnTimeout(str, Enum):
    """``execution_timeout`` struck: cancel the job, or leave it running for the retry to reattach to."""

    CANCEL = "cancel"
    DETACH = "detach"


class OnFinalFailure(str, Enum):
    """The last try failed although the job itself did not: leave the job running, or cancel it."""

    LEAVE = "leave"
    CANCEL = "cancel"


_ENUMS: dict[str, type[Enum]] = {
    "on_failed": OnFailed,
    "on_missing": OnMissing,
    "on_change": OnChange,
    "on_clear": OnClear,
    "on_timeout": OnTimeout,
    "on_final_failure": OnFinalFailure,
}

SETTINGS = tuple(_ENUMS)


def _member(setting: str, value: object, where: str) -> Enum:
    try:
        return _ENUMS[setting](value)
    except ValueError:
        allowed = ", ".join(repr(m.value) for m in _ENUMS[setting])
        msg = f"{where}: {setting}={value!r} is not a policy. Nothing was submitted. Use one of {allowed}."
        raise ConfigurationError(msg) from None


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """
    The choices of one operator; whatever is left out comes from ``[resumable]`` in airflow.cfg, then from the defaults.

    Args:
        on_failed: the job was seen to have failed (default ``resubmit``).
        on_missing: the service no longer knows the job (default ``resubmit``).
        on_change: the author changed the job while it runs (default ``restart``).
        on_clear: the task was cleared while its job runs (default ``restart``).
        on_timeout: ``execution_timeout`` struck (default ``cancel``).
        on_final_failure: the last try failed although the job itself did not (default ``leave``).

    Raises:
        ConfigurationError: a value is not one of its enum's; the message lists the right ones.
    """

    on_failed: OnFailed | str | None = None
    on_missing: OnMissing | str | None = None
    on_change: OnChange | str | None = None
    on_clear: OnClear | str | None = None
    on_timeout: OnTimeout | str | None = None
    on_final_failure: OnFinalFailure | str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, _member(field.name, value, "ResumePolicy"))

    @classmethod
    def of(cls, value: ResumePolicy | Mapping[str, Any] | None) -> ResumePolicy:
        """
        The policy that an operator's argument means: a ``ResumePolicy``, a mapping of its settings, or None.

        Raises:
            ConfigurationError: any other type, or a setting that does not exist.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            if unknown := sorted(set(value) - set(SETTINGS)):
                msg = f"resume_policy: no setting {unknown}. Nothing was submitted. Settings are {list(SETTINGS)}."
                raise ConfigurationError(msg)
            return cls(**value)
        msg = (
            f"resume_policy={value!r} is a {type(value).__name__}. Nothing was submitted. "
            f"Give a ResumePolicy, e.g. ResumePolicy(on_clear='reattach')."
        )
        raise ConfigurationError(msg)

    def resolved(self, configured: Mapping[str, str | None] | None = None) -> ResumePolicy:
        """The same policy with every setting filled in, from ``configured`` (airflow.cfg) or the default."""
        chosen: dict[str, Any] = {}
        for setting, enum in _ENUMS.items():
            value = getattr(self, setting)
            if value is None and (given := (configured or {}).get(setting)):
                value = _member(setting, given.strip().lower(), "airflow.cfg [resumable]")
            chosen[setting] = next(iter(enum)) if value is None else value
        return type(self)(**chosen)


def options() -> list[tuple[str, str, str]]:
    """Name, description and default of each setting, for airflow.cfg."""
    return [
        (name, f"{(enum.__doc__ or '').strip()} One of: {', '.join(m.value for m in enum)}.", next(iter(enum)).value)
        for name, enum in _ENUMS.items()
    ]
