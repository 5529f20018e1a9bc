"""Tells the demo which processes run a task, so that it can kill them; the example DAG need not know of it."""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from tests.airflow.attempts import note_attempt


class _Listener:
    @hookimpl
    def on_task_instance_running(self, task_instance: Any) -> None:
        note_attempt({"ti": task_instance})


class NoteAttempts(AirflowPlugin):
    name = "note_attempts"
    listeners = [_Listener()]
