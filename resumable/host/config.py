"""Airflow's configuration: the options of ``[resumable]``, and those of Airflow that this library goes by."""

from __future__ import annotations

import importlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeVar

from resumable import host
from resumable.host.versions import has
from resumable.policy import DEFAULTS, SETTINGS, ResumePolicy, boolean_of

T = TypeVar("T")

_log = logging.getLogger("resumable")

SECTION = "resumable"

ADOPTION = ("adopt", "adopt_dags", "adopt_skip", "adopt_new")
"""Options of adoption: asked for each task of each DAG."""

MAX_VALUE_BYTES = 65535

_AIRFLOWS_BACKEND = "airflow.state.metastore.MetastoreBackend"

HAND_BACK = 60.0
"""Seconds from a hand-back to the next start, where airflow.cfg says nothing."""

HAND_BACK_FLOOR = 10.0
"""Seconds below which a hand-back is never set, whatever airflow.cfg says."""

_NUMBERS: dict[str, tuple[float, str, Callable[[float], bool]]] = {
    "hand_back_seconds": (HAND_BACK, "a number of seconds", lambda number: 0 <= number < math.inf),
    "sweep_delay": (15.0, "a number of seconds", lambda number: 0 <= number < math.inf),
    "lost_sight_after": (21600.0, "a number of seconds above 0", lambda number: number > 0),
    "fleet_share": (0.4, "a number above 0, and at most 1", lambda number: 0 < number <= 1),
    "fleet_threads": (8.0, "a number from 1 to 1000", lambda number: 1 <= number <= 1000),
}
"""Options that are numbers: the default, what a value has to be, and whether it is."""

_FLAGS = {"adopt_new": True, "look_for_variables": True}
"""Options that are true or false, with the default."""


@cache
def configuration() -> Any:
    """The module that has Airflow's configuration: a test may put another one into it."""
    return importlib.import_module("airflow.sdk.configuration" if has("airflow.sdk.configuration") else "airflow.configuration")


def conf() -> Any:
    """Airflow's configuration."""
    return configuration().conf


class Settings:
    """
    The settings as this process has them: read once, and once more when something that they come from has changed.

    A DAG file makes tasks by the thousand, and one look-up in Airflow's configuration takes more time than all that this library
    does for a task besides. What may change a setting are an environment variable, the configuration's own section and another
    configuration: these are compared, which takes about a microsecond.

    Args:
        section: of airflow.cfg.
        names: the options that are looked after from the start; others join when they are asked for.
        conf: gives Airflow's configuration.
    """

    def __init__(self, section: str, names: Iterable[str], conf: Callable[[], Any]) -> None:
        self._section, self._conf = section, conf
        self._names: dict[str, Any] = {}
        for name in names:
            self._watch(name)
        self._seen: tuple[Any, ...] | None = None
        self._known: dict[Any, Any] = {}

    def read(self, name: str) -> str | None:
        """One option; None if it is not set, or empty."""
        if name not in self._names:
            self._watch(name)
        return self.once(("option", name), lambda: self._conf().get(self._section, name, fallback=None) or None)

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """What ``compute`` has returned since the settings changed last. An exception is not kept."""
        known = self._now()
        if key not in known:
            known[key] = compute()
        value: T = known[key]
        return value

    def _watch(self, name: str) -> None:
        variable = f"AIRFLOW__{self._section.upper()}__{name.upper()}"
        self._names[name] = os.environ.encodekey(variable)

    def _now(self) -> dict[Any, Any]:
        # The environment as the process has it, without decoding each value: ``os.environ.get`` takes ten times as long.
        environment = vars(os.environ).get("_data", os.environ)
        conf = self._conf()
        of_file = (vars(conf).get("_sections") or {}).get(self._section)
        seen = (conf, of_file and tuple(of_file.items()), *map(environment.get, tuple(self._names.values())))
        if seen != self._seen:
            self._seen, self._known = seen, {}
        return self._known


_WATCHED = (*SETTINGS, "store", "store_path", "hand_back_seconds", "namespace", *ADOPTION)

_settings = Settings(SECTION, _WATCHED, conf)


def configured_policy() -> dict[str, str | None]:
    """The ``[resumable]`` settings of a policy; None where airflow.cfg says nothing."""
    return {name: setting(name) for name in SETTINGS}


def resolved_policy(given: ResumePolicy) -> ResumePolicy:
    """``given`` with every setting filled in; one object for all tasks that say the same."""
    return _settings.once(given, lambda: given.resolved(configured_policy()))


def setting(name: str) -> str | None:
    """One ``[resumable]`` option of airflow.cfg or its environment variable."""
    return _settings.read(name)


def once_for_settings(name: str, compute: Callable[[], T]) -> T:
    """What ``compute`` makes of the settings, until they change."""
    return _settings.once(("computed", name), compute)


def say_once(text: str) -> None:
    """A warning about the configuration: one line in a process, however many tasks it concerns."""
    _settings.once(("said", text), lambda: _log.warning("resumable: %s", text))


def is_chosen(name: str) -> bool:
    """
    Whether somebody has chosen a policy's ``[resumable]`` option.

    The airflow.cfg that Airflow writes on its first start holds every option with its default (seen on 3.3.2), so one that stands
    there as the default is not chosen; as an environment variable it is.
    """
    variable = f"AIRFLOW__{SECTION}__{name}".upper()
    is_in_environment = any(one in os.environ for one in (variable, f"{variable}_CMD", f"{variable}_SECRET"))
    return is_in_environment or (setting(name) or "").strip().lower() not in ("", DEFAULTS[name])


def configured_names() -> set[str]:
    """The options of ``[resumable]`` that somebody has set, in airflow.cfg or in the environment of this process."""
    of_file = (vars(conf()).get("_sections") or {}).get(SECTION) or {}
    prefix = f"AIRFLOW__{SECTION.upper()}__"
    return {*of_file, *(name.removeprefix(prefix).lower() for name in os.environ if name.startswith(prefix))}


def origin_of(name: str) -> str:
    """Where the value of a ``[resumable]`` option comes from."""
    return "the environment" if f"AIRFLOW__{SECTION}__{name}".upper() in os.environ else "airflow.cfg"


def airflow_setting(section: str, name: str, default: str) -> str:
    """One option of Airflow's own."""
    found = conf().get(section, name, fallback=default)
    return default if found in (None, "") else str(found)


def killed_task_cleanup_time() -> float | None:
    """Seconds from SIGTERM to SIGKILL by ``[core] killed_task_cleanup_time``; None on Airflow 3, which does not read it."""
    return None if host.has_sdk() else float(airflow_setting("core", "killed_task_cleanup_time", "60"))


def hand_back_seconds() -> float:
    """How far ahead a hand-back puts the next start: ``[resumable] hand_back_seconds``, 60 by default."""
    return max(HAND_BACK_FLOOR, number("hand_back_seconds"))


def sweep_delay() -> float:
    """Seconds after a user's mark when its job is looked after: ``[resumable] sweep_delay``, 15 by default."""
    return number("sweep_delay")


def number(name: str) -> float:
    """A ``[resumable]`` option that is a number; the default, and a warning, where it is none."""
    default, what, _ = _NUMBERS[name]
    found = _number(name)
    if found is None:
        _say_wrong(name, what, f"{default:g}")
    return default if found is None else found


def flag(name: str) -> bool:
    """A ``[resumable]`` option that is true or false; the default, and a warning, where it is neither."""
    default, found = _FLAGS[name], _flag(name)
    if found is None:
        _say_wrong(name, _TRUE_OR_FALSE, _text(default))
    return default if found is None else found


def wrong_settings() -> Iterator[tuple[str, str, str]]:
    """Of each number and flag in ``[resumable]`` that is not followed: its name, what it is not, and what is taken instead."""
    for name, (default, what, _) in _NUMBERS.items():
        if _number(name) is None:
            yield name, what, f"{default:g}"
    for name, is_on in _FLAGS.items():
        if _flag(name) is None:
            yield name, _TRUE_OR_FALSE, _text(is_on)


_TRUE_OR_FALSE = "true or false"


def _text(is_on: bool) -> str:
    return "true" if is_on else "false"


def _flag(name: str) -> bool | None:
    """What is set, or the default; None if what is set is neither true nor false."""
    given = setting(name) or ""
    return boolean_of(given) if given.strip() else _FLAGS[name]


def _number(name: str) -> float | None:
    """What is set, or the default; None if what is set is no such number."""
    default, _, may_be = _NUMBERS[name]
    given = setting(name) or ""
    try:
        found = float(given) if given.strip() else default
    except ValueError:
        return None
    return found if may_be(found) else None


def _say_wrong(name: str, what: str, taken: str) -> None:
    say_once(f"airflow.cfg [resumable]: {name}={setting(name)!r} is not {what}; it is taken for {taken}")


def value_limit() -> int:
    """
    Bytes of JSON that one value of task state may have: 65535 unless airflow.cfg says otherwise; 0 there means that any may.

    Airflow refuses a longer one to its REST API only; to a task it gives a warning (3.3). So it is what the deployment wants.
    """
    limit = int(conf().getint("state_store", "max_value_storage_bytes", fallback=MAX_VALUE_BYTES))
    return limit if limit > 0 else sys.maxsize


def records_are_elsewhere() -> str | None:
    """Why the ``task_state_store`` table does not hold this deployment's records; None if it does."""
    if path := setting("store"):
        return f"records are kept by [resumable] store = {path}"
    if path := conf().get("workers", "state_store_backend", fallback=None):
        return f"task state is kept by [workers] state_store_backend = {path}"
    path = conf().get("state_store", "backend", fallback=None)
    return f"task state is kept by [state_store] backend = {path}" if path and path != _AIRFLOWS_BACKEND else None
