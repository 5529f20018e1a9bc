"""The records of jobs, in whatever of Airflow's own stores."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow.models import DagRun, TaskInstance, Variable
from airflow.utils.session import create_session
from airflow.utils.state import State as States
from sqlalchemy import delete, select, tuple_

from resumable import host
from resumable.cleanup.table import SUPERSEDED, Row, may_be_open
from resumable.host._beside.instances import TaskKey, TaskName, found_instances
from resumable.jobs.record import KEY
from resumable.stores.variables import GONE, PREFIX, name_of, opened

UNFINISHED = frozenset(str(getattr(state, "value", state)) for state in States.unfinished if state is not None)
"""States of a task instance that Airflow goes on with."""


@dataclass(frozen=True, slots=True)
class Kept:
    """
    A record, and what Airflow knows of its task instance.

    Attributes:
        row: the record's text and whose it is; ``state`` is ``gone`` if its DAG run is.
        variable: the name of the Variable that holds it; None: Airflow's task state store.
        try_number: of the task instance.
        max_tries: of the task instance.
        hostname: where it runs, or ran last.
        operator: the name of its class, as Airflow shows it.
    """

    row: Row
    variable: str | None = None
    try_number: int = 0
    max_tries: int = 0
    hostname: str = ""
    operator: str = ""

    @property
    def is_unfinished(self) -> bool:
        """Whether Airflow goes on with the task: a process, a trigger or the scheduler has it."""
        return self.row.state in UNFINISHED or self.row.state == "None"


def records(tasks: Collection[TaskName] | None = None, run_id: str | None = None, *, only_open: bool = True) -> Iterator[Kept]:
    """
    The records of jobs, in whatever of Airflow's own stores.

    Args:
        tasks: dag_id and task_id of each; None: of all.
        run_id: of that DAG run alone.
        only_open: those that may be of a job that still runs; else the closed ones as well.
    """
    with create_session() as session:
        if host.has_task_state():
            yield from _of_table(session, tasks, run_id, only_open)
        yield from _of_variables(session, tasks, run_id, only_open)


def _of_table(session: Any, tasks: Collection[TaskName] | None, run_id: str | None, only_open: bool) -> Iterator[Kept]:
    from airflow.models.task_state_store import TaskStateStoreModel as State

    place = host.task_state_place()
    query = (
        select(State.id, State.dag_id, State.run_id, State.task_id, place.index, State.value)
        .add_columns(TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, TaskInstance.id)
        .add_columns(TaskInstance.hostname, TaskInstance.operator)
        .add_columns(place.is_iteration.label("is_iteration"), place.is_superseded.label("is_superseded"))
        .outerjoin(TaskInstance, place.is_same)
        .execution_options(**place.options)
        .where(State.key == KEY)
    )
    if only_open:
        query = query.where(may_be_open(State.value))
    if tasks is not None:
        query = query.where(tuple_(State.dag_id, State.task_id).in_(list(tasks)))
    if run_id is not None:
        query = query.where(State.run_id == run_id)
    for id_, dag, run, task_id, index, value, state, number, most, ti_id, worker, operator, *iteration in session.execute(query):
        tries, word = (number or 0, most or 0), SUPERSEDED if iteration[1] else str(state)
        row = Row(id_, dag, run, task_id, index, word, tries[0] <= tries[1], value, KEY, str(ti_id), bool(iteration[0]))
        yield Kept(row, None, *tries, worker or "", operator or "")


def _of_variables(session: Any, tasks: Collection[TaskName] | None, run_id: str | None, only_open: bool) -> Iterator[Kept]:
    found: list[tuple[Row, str]] = []
    for variable in session.scalars(select(Variable).where(Variable.key.startswith(PREFIX, autoescape=True))):
        row = _row_of(variable)
        if row is None or (tasks is not None and (row.dag_id, row.task_id) not in tasks):
            continue
        if run_id is not None and row.run_id != run_id:
            continue
        if not only_open or '"submitt' in row.value or ('"cancelled"' in row.value and '"closed_at"' not in row.value):
            found.append((row, str(variable.key)))
    states = found_instances(session, {row.task for row, _ in found})
    for row, name in found:
        state, number, most, worker, operator = states.get(row.task, (GONE, 0, 0, "", ""))
        known = replace(row, state=str(state), has_tries_left=number <= most)
        yield Kept(known, name, number, most, worker or "", operator or "")


def _row_of(variable: Any) -> Row | None:
    """The job's record in a Variable; None if it holds something else."""
    try:
        ids, value = opened(str(variable.val))
    except ValueError:
        return None
    if not isinstance(value, dict) or "service" not in value or "token" not in value:
        return None
    where = {name: ids[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    return Row(variable.id, **where, state=GONE, has_tries_left=False, value=json.dumps(value))


class Records:
    """
    The same as a table for `resumable.cleanup.sweep.Sweep`, which stops jobs and writes what became of them.

    Args:
        kept: the records that it is about.
    """

    def __init__(self, kept: Sequence[Kept]) -> None:
        self._kept = {one.row: one for one in kept}

    def ended(self, runs: Any = None) -> Iterator[Row]:  # noqa: ARG002
        yield from self._kept

    def is_unchanged(self, row: Row) -> bool:
        """Whether record and task instance are still as they were."""
        now = list(records([(row.dag_id, row.task_id)], row.run_id, only_open=False))
        return row in [one.row for one in now]

    def write(self, row: Row, data: Mapping[str, Any]) -> bool:
        """Put ``data`` in the place of what ``row`` holds; False if somebody else has written since."""
        return write(self._kept[row], data)


def write(kept: Kept, data: Mapping[str, Any]) -> bool:
    """Put ``data`` in the place of what ``kept`` holds; False if somebody else has written since, or nothing is there."""
    if kept.variable is None:
        from resumable.cleanup.table import TaskStateTable

        return TaskStateTable().write(kept.row, data)
    from resumable.stores.variables import with_value

    with create_session() as session:
        variable = session.scalar(select(Variable).where(Variable.key == kept.variable).with_for_update())
        now = None if variable is None else _row_of(variable)
        if variable is None or now is None or now.value != kept.row.value:
            return False
        variable.set_val(with_value(str(variable.val), data))
    return True


def remove(kept: Kept) -> bool:
    """Delete a record that is still as in ``kept``."""
    with create_session() as session:
        if kept.variable is not None:
            variable = session.scalar(select(Variable).where(Variable.key == kept.variable).with_for_update())
            now = None if variable is None else _row_of(variable)
            if variable is None or now is None or now.value != kept.row.value:
                return False
            session.delete(variable)
            return True
        from airflow.models.task_state_store import TaskStateStoreModel as State

        done = session.execute(delete(State).where(State.id == kept.row.id, State.value == kept.row.value))
        return bool(done.rowcount)


def put_record(task: TaskKey, namespace: str, data: Mapping[str, Any]) -> bool:
    """
    Keep a record where the task will look for it; False if one is there already.

    Raises:
        LookupError: several task instances of the run have that index, each in an iteration of its own.
    """
    dag_id, run_id, task_id, map_index = task
    with create_session() as session:
        if host.has_task_state():
            from airflow.models.task_state_store import TaskStateStoreModel as State

            ids: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "key": KEY}
            ids |= _place(session, State, task)
            if session.scalar(select(State.id).filter_by(**ids)) is not None:
                return False
            run = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
            session.add(State(dag_run_id=run, value=json.dumps(data), expires_at=None, **ids))
            return True
        from resumable.identity import TaskIdentity
        from resumable.stores.variables import VariableStore

        identity = TaskIdentity(dag_id, run_id, task_id, map_index, namespace)
        name = name_of(identity)
        if session.scalar(select(Variable.id).where(Variable.key == name)) is not None:
            return False
        VariableStore(identity, _Rows(session)).set(KEY, dict(data))
        return True


def _place(session: Any, state: Any, task: TaskKey) -> dict[str, Any]:
    """The columns that tell the task instance from others of its task: a map index, or from 3.4 on an index in a region."""
    dag_id, run_id, task_id, map_index = task
    if hasattr(state, "map_index"):
        return {"map_index": map_index}
    of_index = select(TaskInstance.region_id, TaskInstance.region_index).where(
        TaskInstance.dag_id == dag_id,
        TaskInstance.run_id == run_id,
        TaskInstance.task_id == task_id,
        TaskInstance.region_index == map_index,
        TaskInstance.working_set.is_(True),
    )
    found = session.execute(of_index).all()
    if len(found) != 1:
        raise LookupError(f"{len(found)} task instances of {task_id} have the index {map_index} in run {run_id}")
    return {"region_id": found[0][0], "region_index": found[0][1]}


class _Rows:
    """`resumable.stores.base.Variables` in a session."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def get(self, name: str) -> str | None:
        found = self._session.scalar(select(Variable).where(Variable.key == name))
        return None if found is None else str(found.val)

    def set(self, name: str, text: str, description: str) -> None:
        self._session.add(Variable(key=name, val=text, description=description))

    def delete(self, name: str) -> None:
        self._session.execute(delete(Variable).where(Variable.key == name))
