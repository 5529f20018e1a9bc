"""Airflow's metrics."""

from __future__ import annotations

from resumable.host.versions import first_of


def count(event: str, operator: str) -> None:
    """Add one to Airflow's metric ``resumable_job.<event>``, as Airflow 3.3's own mixin names and tags its own."""
    stats = first_of("Stats", "airflow.sdk.observability.stats", "airflow.observability.stats", "airflow.stats")
    stats.incr(f"resumable_job.{event}", tags={"operator": operator})
