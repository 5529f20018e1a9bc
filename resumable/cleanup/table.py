"""The records of all tasks as the metadata database has them, for the sweep: on an API server or a scheduler, never in a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from resumable import host
from resumable.errors import RecordError
from resumable.jobs.record import KEY, VERSION
from resumable.stores.slots import POINTER, REFERENCE

ONCE = "resumable.once."
"""What the key of a value of `once` begins with; its name follows."""

RunId = tuple[str, str]
"""dag_id and run_id."""

TaskId = tuple[str, str, str, int]
"""dag_id, run_id, task_id, map_index."""

DELETED = "deleted"
"""`Row.state` of a task instance whose DAG run a user has deleted."""

SUPERSEDED = "superseded"
"""`Row.state` of a task instance that a user's clear of an earlier iteration has taken out of its loop (Airflow 3.4)."""

RUNS_A_QUERY = 200


@dataclass(frozen=True, slots=True)
class Row:
    """An open record of a task instance that has ended: of its job, or of what `once` made and something is to clean up."""

    id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str
    """Of the task instance: success, failed, skipped, upstream_failed or removed; ``deleted``: its DAG run is gone;
    ``superseded``: its loop goes on without it."""
    has_tries_left: bool
    value: str
    key: str = KEY
    ti_id: str = ""
    """Airflow's id of this start of the task instance: every try and every clear has another."""
    is_iteration: bool = False
    """Whether ``map_index`` is the number of an iteration of a loop, as Airflow 3.4 keeps it."""

    def __str__(self) -> str:
        name = "iteration" if self.is_iteration else "map_index"
        index = "" if self.map_index < 0 else f" {name}={self.map_index}"
        return f"{self.dag_id} {self.run_id} {self.task_id}{index}"

    @property
    def run(self) -> RunId:
        return self.dag_id, self.run_id

    @property
    def task(self) -> TaskId:
        return self.dag_id, self.run_id, self.task_id, self.map_index

    @property
    def data(self) -> dict[str, Any]:
        """
        The value as JSON data.

        Raises:
            RecordError: it is no JSON object. A task may keep anything under any key.
        """
        try:
            data = json.loads(self.value)
            data = json.loads(data) if isinstance(data, str) else data
        except (ValueError, RecursionError) as e:
            raise RecordError(f"it is no JSON: {e}") from e
        if not isinstance(data, dict):
            raise RecordError(f"it is a {type(data).__name__}, and no JSON object")
        return data

    @property
    def is_deleted(self) -> bool:
        return self.state == DELETED

    @property
    def is_by_user(self) -> bool:
        """Whether the state alone tells that a user has ended the task."""
        return self.state in (DELETED, SUPERSEDED)

    @property
    def is_elsewhere(self) -> bool:
        """Whether the value itself is kept where ``[workers] state_store_backend`` says."""
        return any(f'"{name}"' in self.value or f'\\"{name}\\"' in self.value for name in (REFERENCE, POINTER))


class TaskStateTable:
    """
    Airflow's ``task_state_store`` table (3.3 and later), of its default backend.

    A job's record is open while its state is ``submitting`` or ``submitted``, or ``cancelled`` without ``closed_at``; the one of
    `once` while its state is ``made`` and it has a clean-up. What a task left running on purpose, or does not wait for, stays
    open.
    """

    def ended(self, runs: Collection[RunId] | None = None) -> Iterator[Row]:
        """
        The records whose task instance has ended and that may be open, in ``runs`` or, with None, in all.

        What cannot be read, or is kept elsewhere, is among them: whoever asks deals with one row at a time.
        """
        if runs is None:
            yield from self._found()
            return
        asked = iter(sorted(runs))
        while some := list(islice(asked, RUNS_A_QUERY)):
            yield from self._found(runs=some)

    def of_runs(self, runs: Iterable[RunId], execute: Callable[[Any], Any]) -> list[Row]:
        """
        The records of task instances in any state, of runs that are about to be deleted: as they will be then.

        Args:
            runs: the DAG runs.
            execute: of the connection or session that deletes them.
        """
        found = execute(_query(list(runs), is_ended=False)).all()
        return [replace(row, state=DELETED) for row in _rows(found)]

    def is_unchanged(self, row: Row) -> bool:
        """Whether record and task instance are still as in ``row``; for one whose run was deleted, whether it still is."""
        if row.is_deleted:
            return not self._has_run(row.run)
        return row in self._found(id_=row.id)

    def write(self, row: Row, data: Mapping[str, Any]) -> bool:
        """Put ``data`` in the place of what ``row`` holds; False if somebody else has written since, or nothing is there."""
        from airflow.models.task_state_store import TaskStateStoreModel as State  # noqa: TID251
        from airflow.utils.session import create_session
        from sqlalchemy import update

        if row.is_deleted:
            return False
        text = json.dumps(data)
        value = json.dumps(text) if isinstance(json.loads(row.value), str) else text
        with create_session() as session:
            done = session.execute(update(State).where(State.id == row.id, State.value == row.value).values(value=value))
        return bool(done.rowcount)

    def _has_run(self, run: RunId) -> bool:
        from airflow.models.dagrun import DagRun  # noqa: TID251
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.execute(select(DagRun.id).where(DagRun.dag_id == run[0], DagRun.run_id == run[1])).first()
        return found is not None

    def _found(self, **which: Any) -> Iterator[Row]:
        from airflow.utils.session import create_session

        with create_session() as session:
            found = session.execute(_query(**which)).all()
        yield from _rows(found)


def may_be_open(value: Any) -> Any:
    """
    The condition for a record that is open, cannot be read, or is kept elsewhere: by what an open one has, never by what a closed
    one has, which may stand anywhere in an open one too.

    Args:
        value: the column of task state.
    """
    from sqlalchemy import and_, or_

    is_closed = value.like('%"closed_at%')
    names = ('"version": ', '"version":', '"version_": ', '"version_":')  # in text within text the quotation mark is escaped
    is_of_this_release = or_(*(value.like(f"%{name}{VERSION},%") for name in names))
    return or_(
        value.like('%"submitting%'),
        value.like('%"submitted"%'),
        value.like('%"submitted_"%'),
        and_(value.like('%"cancelled%'), ~is_closed),  # told to stop, not seen to
        and_(~is_of_this_release, ~is_closed),
        is_kept_elsewhere(value),
    )


def is_kept_elsewhere(value: Any) -> Any:
    """The condition for what ``[workers] state_store_backend`` keeps."""
    from sqlalchemy import or_

    return or_(value.like(f"%{REFERENCE}%"), value.like(f"%{POINTER}%"))


def _rows(found: Iterable[Any]) -> Iterator[Row]:
    for row_id, dag_id, run_id, task_id, index, value, state, *of_task, key, ti_id, is_iteration, is_superseded in found:
        has_tries_left = not is_superseded and of_task[0] <= of_task[1]
        state = SUPERSEDED if is_superseded else str(state)
        yield Row(row_id, dag_id, run_id, task_id, index, state, has_tries_left, value, key, str(ti_id), bool(is_iteration))


def _query(runs: list[RunId] | None = None, *, id_: int | None = None, is_ended: bool = True) -> Any:
    from airflow.models.task_state_store import TaskStateStoreModel as State  # noqa: TID251
    from airflow.models.taskinstance import TaskInstance  # noqa: TID251
    from airflow.utils.state import State as States
    from sqlalchemy import and_, or_, select, tuple_

    elsewhere = is_kept_elsewhere(State.value)
    place = host.task_state_place()
    query = (
        select(State.id, State.dag_id, State.run_id, State.task_id, place.index, State.value)
        .add_columns(TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, State.key, TaskInstance.id)
        .add_columns(place.is_iteration.label("is_iteration"), place.is_superseded.label("is_superseded"))
        .join(TaskInstance, place.is_same)
        .execution_options(**place.options)
        .where(
            or_(
                and_(State.key == KEY, may_be_open(State.value)),
                and_(State.key.startswith(ONCE, autoescape=True), or_(State.value.like('%"made%'), elsewhere)),
            ),
        )
    )
    if is_ended:
        query = query.where(or_(TaskInstance.state.in_(States.finished), place.is_superseded))
    if runs is not None:
        query = query.where(tuple_(State.dag_id, State.run_id).in_(runs))
    return query if id_ is None else query.where(State.id == id_)
