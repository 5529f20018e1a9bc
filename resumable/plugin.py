"""What Airflow loads by the ``airflow.plugins`` entry point: the listener."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from resumable.cleanup import listener


class ResumablePlugin(AirflowPlugin):
    """Has the jobs stopped whose task a user ends while no process holds it (`resumable.cleanup.listener`)."""

    name = "resumable"
    listeners: ClassVar = [listener]

    @classmethod
    def on_load(cls, *args: Any, **kwargs: Any) -> None:  # noqa: ARG003
        listener.hear_of_deletions()
