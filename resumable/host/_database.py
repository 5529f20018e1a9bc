"""The metadata database, for maintenance beside the scheduler: the same rows on Airflow 2 and 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from airflow.models import DagModel, DagRun, TaskInstance, Variable
from airflow.utils.session import create_session

from resumable.stores.task_variables import DESCRIPTION
from resumable.stores.variables import GONE, PREFIX


def _place(task: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of `resumable.identity.TaskIdentity.ids`. In a loop (3.4) an iteration has no column of its own."""
    if "region" not in task:
        return dict(task)
    index = task["iteration"] if task["map_index"] < 0 else task["map_index"]
    run = {name: task[name] for name in ("dag_id", "run_id", "task_id")}
    return {**run, "region_id": UUID(task["region"]), "region_index": index}


class Database:
    """See `resumable.cleanup.variables.Deployment`."""

    def variables(self) -> Iterator[tuple[str, str]]:
        with create_session() as session:
            rows = session.query(Variable).filter(Variable.key.startswith(PREFIX, autoescape=True)).all()
            yield from [(str(row.key), str(row.val)) for row in rows]

    def marks(self) -> Iterator[tuple[str, str]]:
        named, told = Variable.key.contains(".resumable.watermark.", autoescape=True), Variable.description == DESCRIPTION
        with create_session() as session:
            rows = session.query(Variable).filter(named | told).all()
            yield from [(str(row.key), str(row.val)) for row in rows if not str(row.key).startswith(PREFIX)]

    def dags(self) -> list[str]:
        with create_session() as session:
            return [str(dag_id) for (dag_id,) in session.query(DagModel.dag_id).all()]

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        with create_session() as session:
            run = {"dag_id": task["dag_id"], "run_id": task["run_id"]}
            if session.query(DagRun.id).filter_by(**run).scalar() is None:
                return GONE
            state = session.query(TaskInstance.state).filter_by(**_place(task)).scalar()
            return None if state is None else str(getattr(state, "value", state))

    def delete(self, name: str) -> None:
        with create_session() as session:
            session.query(Variable).filter_by(key=name).delete()
