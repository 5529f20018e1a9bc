"""
A plug-in of the harness's schedulers: Airflow 3.4.0b2 without two faults that end the scheduler.

A lost heartbeat: `SchedulerJobRunner._purge_task_instances_without_heartbeats` sends the callback of a lost task in the middle
of its transaction, and `process_executor_events` does so for a task that has callbacks. `DatabaseCallbackSink.send` takes the
same session of the thread for it, commits it and closes it. Then the task instance belongs to no session, `TaskInstance.archive`
changes no row, and the row of the next try fails: UNIQUE constraint ... working_set. Here such a callback is part of the
transaction it is sent in.

A run that is deleted while the scheduler is about to look at it: `SchedulerJobRunner._schedule_all_dag_runs` logs the error with
``run.run_id``, which cannot be read any more, and that raises what nobody catches. Here such a run has nothing to schedule.

`tests/versions/test_beta.py` tells when the first fault is gone. The second is a race, and is looked for in that method's source.
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

    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

    looked = SchedulerJobRunner._schedule_dag_run

    def look(self: Any, dag_run: Any, session: Any) -> Any:
        try:
            return looked(self, dag_run, session=session)
        except ObjectDeletedError:
            return None
        except StaleDataError:
            session.rollback()
            return None

    SchedulerJobRunner._schedule_dag_run = look


if sys.argv[1:2] == ["scheduler"]:
    mend()
