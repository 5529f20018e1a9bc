"""What Airflow calls for every task when its DAG is parsed (entry point ``airflow.policy``): see `resumable.adoption`."""

from __future__ import annotations

from typing import Any

from airflow.policies import hookimpl

from resumable import host


@hookimpl  # type: ignore[untyped-decorator]
def task_policy(task: Any) -> None:
    """Make the task ours, if ``[resumable] adopt`` names it."""
    if host.setting("adopt") is None:
        return
    from resumable import adoption

    adoption.adopt(task)
