"""What the deployment is made of: its processes, pools and DAGs; and who asks."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.models import DagModel
from airflow.utils.session import create_session
from sqlalchemy import select

from resumable import host

BEAT = 90.0
"""Seconds without a heartbeat after which a scheduler or a triggerer is taken for dead."""


def is_alive(kind: str) -> bool:
    """Whether one is alive: ``Scheduler``, ``Triggerer``, ``DagProcessor``."""
    now = datetime.now(timezone.utc)
    return any(name.startswith(kind) and (now - at).total_seconds() < BEAT for name, _, at in heartbeats())


def require_tables() -> None:
    """Raises: an error of SQLAlchemy's: the database does not answer, or is that of another Airflow."""
    from airflow.models import TaskInstance

    with create_session() as session:
        session.execute(select(TaskInstance).limit(1)).all()
        if host.has_task_state():
            from airflow.models.task_state_store import TaskStateStoreModel

            session.execute(select(TaskStateStoreModel).limit(1)).all()


def heartbeats() -> list[tuple[str, str, Any]]:
    """Kind, host and last heartbeat of the schedulers, triggerers and DAG processors that are said to run."""
    from airflow.jobs.job import Job

    with create_session() as session:
        query = select(Job.job_type, Job.hostname, Job.latest_heartbeat).where(Job.state == "running")
        return [tuple(one) for one in session.execute(query)]


def pools() -> list[tuple[str, bool]]:
    """Names of the pools, and whether each counts deferred tasks."""
    from airflow.models.pool import Pool

    with create_session() as session:
        return [(name, bool(counts)) for name, counts in session.execute(select(Pool.pool, Pool.include_deferred))]


def tags(dag_id: str) -> set[str]:
    """The tags of a DAG."""
    from airflow.models.dag import DagTag

    with create_session() as session:
        return {str(name) for (name,) in session.execute(select(DagTag.name).where(DagTag.dag_id == dag_id))}


def dag_ids() -> list[str]:
    """Of the DAGs that are parsed at present."""
    is_live = DagModel.is_stale.is_(False) if hasattr(DagModel, "is_stale") else DagModel.is_active.is_(True)
    with create_session() as session:
        return [str(dag_id) for (dag_id,) in session.execute(select(DagModel.dag_id).where(is_live))]


def user() -> str:
    """Who runs this command, for the history of what it does: never an error."""
    import getpass
    import os
    import socket

    try:
        return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):
        return "somebody"
