"""What Airflow loads by the ``airflow.plugins`` entry point: the listener."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin

from resumable import listener


class ResumablePlugin(AirflowPlugin):
    """Has the jobs stopped whose task a user ends while no process holds it (`resumable.listener`)."""

    name = "resumable"
    listeners: ClassVar = [listener]
