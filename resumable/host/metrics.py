"""Airflow's metrics."""

from __future__ import annotations

from typing import Any

from resumable.host.versions import first_of


def stats() -> Any:
    """Airflow's ``Stats``: ``incr``, ``gauge`` and ``timing``."""
    return first_of("Stats", "airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")


def count(event: str, operator: str) -> None:
    """Add one to Airflow's metric ``resumable_job.<event>``, as Airflow 3.3's own mixin names and tags its own."""
    stats().incr(f"resumable_job.{event}", tags={"operator": operator})
