"""Airflow 2: a task talks to the metadata database itself, and its SIGTERM handler raises once ``on_kill`` has returned."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from resumable.identity import TaskIdentity

DATABASE_LOCK = threading.Lock()
"""Held while this library talks to the database, so that no interruption falls in the middle of it."""


def start_again_in_time(operator: Any) -> None:
    """See `resumable.host`. Airflow 2 heeds the date of a reschedule for tasks that have the dependency of sensors."""
    from airflow.models import BaseOperator
    from airflow.ti_deps.deps.ready_to_reschedule import ReadyToRescheduleDep

    def get_serialized_fields(cls: Any) -> frozenset[str]:
        return super(operator, cls).get_serialized_fields() | {"reschedule"}  # type: ignore[no-any-return]

    operator.reschedule = True
    operator.deps = BaseOperator.deps | {ReadyToRescheduleDep()}
    operator.get_serialized_fields = classmethod(get_serialized_fields)


@contextmanager
def session() -> Iterator[Any]:
    """A session of our own: the one that ``create_session`` gives is shared with the code that runs the task."""
    from airflow import settings

    with DATABASE_LOCK:
        own = settings.Session.session_factory()
        try:
            yield own
            own.commit()
        except BaseException:
            own.rollback()
            raise
        finally:
            own.close()


def is_run_by_airflow(ti: Any) -> bool:
    """A task that a scheduler had started has a job; ``dag.test()``, ``airflow tasks test`` and unit tests give it none."""
    return isinstance(getattr(ti, "job_id", None), int | str)


def execute_guard(operator: Any) -> dict[str, Any]:
    """What Airflow 2's task runner gives to ``execute`` to prove that it is the caller."""
    from airflow.models.base import _sentinel

    return {f"{type(operator).__name__}__sentinel": _sentinel}


def state_of(ti: Any) -> Any:
    """
    The task instance's state; ``restarting`` also when the scheduler has already gone on from there.

    A clear marks task instance and job as restarting, and the scheduler takes such a job for a dead one: it may move the task
    instance on to ``up_for_retry`` or ``queued`` before the process is told to stop (seen on 2.11.2). The job keeps the mark.
    """
    from airflow.jobs.job import Job
    from airflow.models import TaskInstance

    with session() as own:
        ids = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        row = own.query(TaskInstance.state).filter_by(**ids).one_or_none()
        if row is None:
            return "deleted"
        state = row[0]
        if state in ("running", "failed", "success", "skipped") or not is_run_by_airflow(ti):
            return state
        return "restarting" if own.query(Job.state).filter_by(id=ti.job_id).scalar() == "restarting" else state


def recorded_state_of(task: TaskIdentity) -> Any:
    """The state of a task instance of any DAG run; None also if there is no such run."""
    from airflow.models import TaskInstance

    ids = {"dag_id": task.dag_id, "run_id": task.run_id, "task_id": task.task_id, "map_index": task.map_index}
    with session() as own:
        return own.query(TaskInstance.state).filter_by(**ids).scalar()


class OrmVariables:
    """
    Airflow Variables as rows: ``Variable.get`` takes a database that does not answer for a Variable that does not exist.

    A Variable of the same name in a secrets backend or in the environment is not looked at.
    """

    def get(self, name: str) -> str | None:
        from airflow.models import Variable

        with session() as own:
            row = own.query(Variable).filter_by(key=name).one_or_none()
            if row is None:
                return None
            if row.val is None:
                raise RuntimeError(f"the Variable {name} cannot be decrypted: check fernet_key on this worker")
            return str(row.val)

    def set(self, name: str, text: str, description: str) -> None:
        from airflow.models import Variable

        with session() as own:
            row = own.query(Variable).filter_by(key=name).one_or_none()
            if row is None:
                own.add(Variable(key=name, val=text, description=description))
            else:
                row.val = text

    def delete(self, name: str) -> None:
        from airflow.models import Variable

        with session() as own:
            own.query(Variable).filter_by(key=name).delete()


@contextmanager
def sigterm_calls(on_kill: Callable[[], None]) -> Iterator[None]:
    """
    Make SIGTERM call ``on_kill`` and nothing else, as on Airflow 3.

    Airflow 2's own handler calls it too, and then raises out of whatever the task is doing, before anybody has asked why.
    """
    theirs = signal.getsignal(signal.SIGTERM)
    if not callable(theirs) or threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def handle(signum: int, frame: Any) -> None:
        if os.getpid() == pid:
            on_kill()
        else:
            theirs(signum, frame)  # a process that the task has forked: it ends there

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, theirs)


def after_success(ti: Any, forget: Callable[[], None]) -> None:
    """Call ``forget`` once the success is committed. (``on_success_callback`` runs before that.)"""
    from airflow.listeners import hookimpl
    from airflow.listeners.listener import get_listener_manager

    key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)

    class Listener:
        @hookimpl  # type: ignore[untyped-decorator]
        def on_task_instance_success(self, task_instance: Any) -> None:
            done = task_instance
            if (done.dag_id, done.run_id, done.task_id, done.map_index) == key:
                get_listener_manager().pm.unregister(self)
                forget()

    get_listener_manager().add_listener(Listener())
