"""
The ``[resumable]`` settings as this process has them: read once, and once more when something that they come from has changed.

A DAG file makes tasks by the thousand, and one look-up in Airflow's configuration takes more time than all that this library does
for a task besides. What may change a setting are an environment variable, the configuration's own section and another
configuration: these are compared, which takes about a microsecond.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


class Settings:
    """
    What was read and computed from the settings.

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
