"""What to do when a job is found in a state that leaves a choice.

Each setting is an enum; strings are taken as well. Of each enum the first member is the default.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, cast

from resumable.errors import ConfigurationError

_log = logging.getLogger("resumable")


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


class Wait(str, Enum):
    """How the task waits: as the operator does; giving its worker slot back between two looks (no triggerer needed); or deferred,
    all jobs of an account asked about together in the triggerer.
    """

    POLL = "poll"
    RESCHEDULE = "reschedule"
    DEFER = "defer"


_ENUMS: dict[str, type[Enum]] = {
    "on_failed": OnFailed,
    "on_missing": OnMissing,
    "on_change": OnChange,
    "on_clear": OnClear,
    "on_timeout": OnTimeout,
    "on_final_failure": OnFinalFailure,
    "wait": Wait,
}

_SECONDS = {"wait_interval": 60.0, "job_timeout": None}

_FLAGS = {"strict": False}

SETTINGS = (*_ENUMS, *_SECONDS, *_FLAGS)

_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _member(setting: str, value: object, where: str) -> Enum:
    try:
        return _ENUMS[setting](value)
    except ValueError:
        allowed = ", ".join(repr(m.value) for m in _ENUMS[setting])
        msg = f"{where}: {setting}={value!r} is not a policy. Nothing was submitted. Use one of {allowed}."
        raise ConfigurationError(msg) from None


def seconds_of(setting: str, value: object, where: str) -> float:
    """
    Seconds that a number, a text with one or a timedelta means.

    Raises:
        ConfigurationError: it is none of these, or negative.
    """
    number = _number(value)
    if not number >= 0:
        raise ConfigurationError(f"{where}: {setting}={value!r} is no time. Nothing was submitted. Give seconds or a timedelta.")
    return number


def boolean_of(text: str) -> bool | None:
    """
    What a text says that stands for true or false; None if it says neither.

    It may be any that Airflow's own options may be (t, true, 1; what follows a # is left out), or Python's configparser knows.
    """
    return _BOOLEANS.get(text.partition("#")[0].strip().lower())


def _seconds(setting: str, value: object, where: str) -> float:
    number = _number(value)
    if not number > 0 or (setting == "wait_interval" and math.isinf(number)):
        msg = f"{where}: {setting}={value!r} is no time. Nothing was submitted. Give seconds (more than 0) or a timedelta."
        raise ConfigurationError(msg)
    return number


def _number(value: object) -> float:
    """Not a number (NaN) if it is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(cast("Any", value.total_seconds() if isinstance(value, timedelta) else value))
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _flag(setting: str, value: object, where: str) -> bool:
    chosen = boolean_of(value) if isinstance(value, str) else value
    if not isinstance(chosen, bool):
        raise ConfigurationError(f"{where}: {setting}={value!r} is neither True nor False. Nothing was submitted. Give a bool.")
    return chosen


def _reader(setting: str) -> Callable[[str, object, str], Any]:
    if setting in _FLAGS:
        return _flag
    return _seconds if setting in _SECONDS else _member


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
        wait: ``poll`` (default; also with ``deferrable=True``), ``reschedule`` or ``defer``.
        wait_interval: seconds or timedelta between two looks with ``wait="reschedule"`` (default 60), not less than ``[resumable]
            hand_back_seconds``: a nearer date loses a race in the scheduler. With ``wait="defer"`` the operator's own interval,
            unless this is given.
        job_timeout: seconds or timedelta after its submission, over all attempts, when a job that still runs is cancelled and the
            task fails for good. A custom operator needs ``cancel_job``, or an ``on_kill`` of its own, for it. Default: none.
        strict: True fails for good, instead of submitting again, where a submit was left unanswered and its job was not found,
            but might still appear: a lookup came back empty (look up), or the service may have forgotten the token (default
            False).

    Raises:
        ConfigurationError: a value is not one of its enum's; the message lists the right ones.
    """

    on_failed: OnFailed | str | None = None
    on_missing: OnMissing | str | None = None
    on_change: OnChange | str | None = None
    on_clear: OnClear | str | None = None
    on_timeout: OnTimeout | str | None = None
    on_final_failure: OnFinalFailure | str | None = None
    wait: Wait | str | None = None
    wait_interval: float | timedelta | None = None
    job_timeout: float | timedelta | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            value = getattr(self, setting)
            if value is not None:
                object.__setattr__(self, setting, _reader(setting)(setting, value, "ResumePolicy"))

    @classmethod
    def of(cls, value: ResumePolicy | Mapping[str, Any] | None) -> ResumePolicy:
        """
        The policy that an operator's argument means: a ``ResumePolicy``, a mapping of its settings, or None.

        Raises:
            ConfigurationError: any other type, or a setting that does not exist.
        """
        if value is None:
            return _NOTHING_GIVEN
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
        """
        The same policy with every setting filled in, from ``configured`` (airflow.cfg) or the default.

        A value in airflow.cfg that is none is not taken, and a warning says so: no DAG fails to be parsed because of it.
        """
        chosen: dict[str, Any] = {}
        for setting in SETTINGS:
            value = getattr(self, setting)
            if value is None and (given := (configured or {}).get(setting)):
                value = _configured(setting, given)
            chosen[setting] = _default(setting) if value is None else value
        return type(self)(**chosen)

    @property
    def frees_the_slot(self) -> bool:
        """Whether no process holds the task while it waits, of a resolved policy."""
        return self.wait in (Wait.RESCHEDULE, Wait.DEFER)

    @property
    def interval(self) -> float:
        """``wait_interval`` in seconds, of a resolved policy."""
        return float(cast("Any", self.wait_interval))

    @property
    def deadline(self) -> float | None:
        """``job_timeout`` in seconds, of a resolved policy."""
        return None if self.job_timeout is None else float(cast("Any", self.job_timeout))


_NOTHING_GIVEN = ResumePolicy()
"""What most tasks give: one object, because a DAG file may make thousands of them."""


def _configured(setting: str, given: str) -> Any:
    try:
        return _reader(setting)(setting, given.strip().lower(), "airflow.cfg [resumable]")
    except ConfigurationError as e:
        said = str(e).replace("Nothing was submitted. ", "")
        _log.warning("resumable: %s The default is taken: %s", said, getattr(_default(setting), "value", _default(setting)))
        return None


def _default(setting: str) -> Any:
    return next(iter(_ENUMS[setting])) if setting in _ENUMS else {**_SECONDS, **_FLAGS}[setting]


DEFAULTS = {name: next(iter(enum)).value for name, enum in _ENUMS.items()}
"""What each setting that is a choice is when nobody has chosen, as it stands in airflow.cfg."""


def options() -> list[tuple[str, str, str]]:
    """Name, description and default of each setting, for airflow.cfg."""
    return [
        *(
            (name, f"{(enum.__doc__ or '').strip()} One of: {', '.join(m.value for m in enum)}.", _default(name).value)
            for name, enum in _ENUMS.items()
        ),
        (
            "wait_interval",
            "Seconds between two looks with wait = reschedule, and with defer where an operator has no interval.",
            "60",
        ),
        ("job_timeout", "Seconds after its submission when a job that still runs is cancelled. Empty: never.", ""),
        ("strict", "Fail for good where a submit was left unanswered and its job is not found.", "False"),
    ]
