"""The records of all tasks as the metadata database has them, for the sweep: on an API server or a scheduler, never in a task."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resumable.record import KEY

ONCE = "resumable.once."
"""What the key of a value of `once` begins with; its name follows."""

RunId = tuple[str, str]
"""dag_id and run_id."""

TaskId = tuple[str, str, str, int]
"""dag_id, run_id, task_id, map_index."""


@dataclass(frozen=True, slots=True)
class Row:
    """An open record of a task instance that has ended: of its job, or of what `once` made and something is to clean up."""

    id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    """Of the task instance: success, failed, skipped, upstream_failed or removed."""
    has_tries_left: bool
    value: str
    key: str = KEY

    def __str__(self) -> str:
        index = "" if self.map_index < 0 else f" map_index={self.map_index}"
        return f"{self.dag_id} {self.run_id} {self.task_id}{index}"

    @property
    def data(self) -> Any:
        """The record as JSON data."""
        data = json.loads(self.value)
        return json.loads(data) if isinstance(data, str) else data


class TaskStateTable:
    """
    Airflow's ``task_state_store`` table (3.3 and later), of its default backend.

    A job's record is open until it says ``closed_at``, the one of `once` while its state is ``made`` and it has a clean-up.
    """

    def ended(self, runs: Collection[RunId] | None = None) -> Iterator[Row]:
        """The open records whose task instance has ended, in ``runs`` or, with None, in all."""
        from airflow.models.task_state_store import TaskStateStoreModel as State  # noqa: TID251
        from airflow.models.taskinstance import TaskInstance  # noqa: TID251
        from airflow.utils.session import create_session
        from airflow.utils.state import State as States
        from sqlalchemy import and_, or_, select, tuple_

        of_task = and_(
            TaskInstance.dag_id == State.dag_id,
            TaskInstance.run_id == State.run_id,
            TaskInstance.task_id == State.task_id,
            TaskInstance.map_index == State.map_index,
        )
        query = (
            select(State.id, State.dag_id, State.run_id, State.task_id, State.map_index, State.value)
            .add_columns(TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, State.key)
            .join(TaskInstance, of_task)
            .where(
                TaskInstance.state.in_(States.finished),
                or_(
                    and_(State.key == KEY, State.value.not_like('%"closed_at%')),
                    and_(State.key.startswith(ONCE, autoescape=True), State.value.like('%"made%')),
                ),
            )
        )
        if runs is not None:
            query = query.where(tuple_(State.dag_id, State.run_id).in_(list(runs)))
        with create_session() as session:
            found = session.execute(query).all()
        for id_, dag_id, run_id, task_id, map_index, value, state, try_number, max_tries, key in found:
            row = Row(id_, dag_id, run_id, task_id, map_index, str(state), try_number <= max_tries, value, key)
            if key == KEY or (row.data.get("state") == "made" and row.data.get("cleanup")):
                yield row

    def is_unchanged(self, row: Row) -> bool:
        """Whether record and task instance are still as in ``row``."""
        return row in self.ended([(row.dag_id, row.run_id)])

    def write(self, row: Row, data: Mapping[str, Any]) -> bool:
        """Put ``data`` in the place of what ``row`` holds; False if somebody else has written since."""
        from airflow.models.task_state_store import TaskStateStoreModel as State  # noqa: TID251
        from airflow.utils.session import create_session
        from sqlalchemy import update

        text = json.dumps(data)
        value = json.dumps(text) if isinstance(json.loads(row.value), str) else text
        with create_session() as session:
            done = session.execute(update(State).where(State.id == row.id, State.value == row.value).values(value=value))
        return bool(done.rowcount)
