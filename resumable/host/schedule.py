"""What the running task and its DAG say of runs and data intervals, for watermarks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any


def backfill_interval(context: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """The data interval of a backfill's run, None for any other run."""
    run = context["dag_run"]
    kind = getattr(run, "run_type", None)
    if str(getattr(kind, "value", kind)) != "backfill":
        return None
    return run.data_interval_start, run.data_interval_end


def dag_time_zone(context: Mapping[str, Any]) -> Any:
    """The time zone of the running task's DAG, in which its data intervals begin and end."""
    dag = context.get("dag") or getattr(context["task"], "dag", None)
    return getattr(dag, "timezone", None) or timezone.utc


def allows_runs_at_once(context: Mapping[str, Any]) -> bool:
    """Whether Airflow may run the task for two DAG runs at once."""
    task = context["task"]
    dag = getattr(task, "dag", None)
    is_alone = getattr(dag, "max_active_runs", None) == 1 or getattr(task, "max_active_tis_per_dag", None) == 1
    return not (is_alone or getattr(task, "depends_on_past", False))


def is_sensor(context: Mapping[str, Any]) -> bool:
    """Whether the running task is a sensor, which looks again and again for what is not there yet."""
    return callable(getattr(context["task"], "poke", None))


def is_inlet(context: Mapping[str, Any], asset: Any) -> bool:
    """Whether the running task names ``asset`` in its inlets. Airflow keeps these references of a DAG whose file is gone."""
    return any(getattr(inlet, "name", inlet) == getattr(asset, "name", asset) for inlet in context["task"].inlets)
