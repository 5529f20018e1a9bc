"""Airflow's secrets masker."""

from __future__ import annotations

import json
from typing import Any

from resumable.host.versions import first_of

_MAX_DEPTH = 50
"""Levels of a nested value that are masked."""


def _redact() -> Any:
    masker = ("airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    return first_of("redact", "airflow.sdk.log", *masker)


def redacted(text: str, name: str | None = None) -> str:
    """``text`` as Airflow's secrets masker leaves it; all of it hidden if ``name`` says that it is a secret."""
    return str(_redact()(text, name))


def holds_secret(value: Any) -> bool:
    """Whether Airflow's secrets masker would hide anything in ``value``."""
    text = json.dumps(value, default=str)
    return bool(masked(value) != value or masked(text) != text)


def masked(value: Any) -> Any:
    """``value``, of whatever kind, as Airflow's secrets masker shows it."""
    return _redact()(value, max_depth=_MAX_DEPTH)
