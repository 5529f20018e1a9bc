"""
A plug-in of the harness's schedulers: Airflow 3.4.0b2 without its fault that a lost heartbeat ends the scheduler.

`SchedulerJobRunner._purge_task_instances_without_heartbeats` sends the callback of a lost task in the middle of its transaction,
and `process_executor_events` does so for a task that has callbacks. `DatabaseCallbackSink.send` takes the same session of the
thread for it, commits it and closes it. Then the task instance belongs to no session, `TaskInstance.archive` changes no row, and
the row of the next try fails: UNIQUE constraint ... working_set. Here such a callback is part of the transaction it is sent in.

`tests/versions/test_beta.py` tells when the fault is gone, and this file with it.
"""

from __future__ import annotations

import sys
from typing import Any


def mend() -> None:
    from airflow import settings
    from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
    from airflow.models.db_callback_request import DbCallbackRequest
    from airflow.models.taskinstance import TaskInstance

    if not hasattr(TaskInstance, "archive"):
        return
    sent = DatabaseCallbackSink.send

    def send(self: Any, callback: Any, **options: Any) -> None:
        session = settings.Session()
        if options or not session.in_transaction():
            sent(self, callback, **options)
        else:
            session.add(DbCallbackRequest(callback=callback, priority_weight=1))

    DatabaseCallbackSink.send = send


if sys.argv[1:2] == ["scheduler"]:
    mend()
