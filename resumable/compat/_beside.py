"""What the command reads and does beside the scheduler, in the metadata database: the same on Airflow 2 and 3."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from airflow.models import DagModel, DagRun, TaskInstance, Variable
from airflow.utils.session import create_session
from airflow.utils.state import State as States
from sqlalchemy import and_, delete, or_, select, tuple_, update

from resumable import compat
from resumable.record import KEY
from resumable.stores.slots import POINTER, REFERENCE
from resumable.stores.table import RUNS_A_QUERY, SUPERSEDED, Row
from resumable.stores.variables import GONE, PREFIX, name_of, opened

TaskKey = tuple[str, str, str, int]

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


def records(task: str | None = None, run_id: str | None = None, *, only_open: bool = True) -> Iterator[Kept]:
    """
    The records of jobs, in whatever of Airflow's own stores.

    Args:
        task: ``dag_id.task_id``; None: of all.
        run_id: of that DAG run alone.
        only_open: those that may be of a job that still runs; else the closed ones as well.
    """
    with create_session() as session:
        if compat.has_task_state():
            yield from _of_table(session, task, run_id, only_open)
        yield from _of_variables(session, task, run_id, only_open)


def _of_table(session: Any, task: str | None, run_id: str | None, only_open: bool) -> Iterator[Kept]:
    from airflow.models.task_state_store import TaskStateStoreModel as State

    place = compat.task_state_place()
    query = (
        select(State.id, State.dag_id, State.run_id, State.task_id, place.index, State.value)
        .add_columns(TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, TaskInstance.id)
        .add_columns(TaskInstance.hostname, TaskInstance.operator)
        .add_columns(place.is_iteration.label("is_iteration"), place.is_superseded.label("is_superseded"))
        .outerjoin(TaskInstance, place.is_same)
        .execution_options(**place.options)
        .where(State.key == KEY)
    )
    if only_open:  # by what an open record has, as the sweep's own query
        kept_elsewhere = or_(State.value.like(f"%{REFERENCE}%"), State.value.like(f"%{POINTER}%"))
        told = and_(State.value.like('%"cancelled%'), State.value.not_like('%"closed_at%'))
        query = query.where(or_(State.value.like('%"submitt%'), told, kept_elsewhere))
    if task is not None:
        query = query.where(State.dag_id + "." + State.task_id == task)
    if run_id is not None:
        query = query.where(State.run_id == run_id)
    for id_, dag, run, task_id, index, value, state, number, most, ti_id, host, operator, *iteration in session.execute(query):
        tries, word = (number or 0, most or 0), SUPERSEDED if iteration[1] else str(state)
        row = Row(id_, dag, run, task_id, index, word, tries[0] <= tries[1], value, KEY, str(ti_id), bool(iteration[0]))
        yield Kept(row, None, *tries, host or "", operator or "")


def _of_variables(session: Any, task: str | None, run_id: str | None, only_open: bool) -> Iterator[Kept]:
    found: list[tuple[Row, str]] = []
    for variable in session.scalars(select(Variable).where(Variable.key.startswith(PREFIX, autoescape=True))):
        row = _row_of(variable)
        if row is None or (task is not None and f"{row.dag_id}.{row.task_id}" != task):
            continue
        if run_id is not None and row.run_id != run_id:
            continue
        if not only_open or '"submitt' in row.value or ('"cancelled"' in row.value and '"closed_at"' not in row.value):
            found.append((row, str(variable.key)))
    states = _task_instances(session, {row.task for row, _ in found})
    for row, name in found:
        state, number, most, host, operator = states.get(row.task, (GONE, 0, 0, "", ""))
        known = replace(row, state=str(state), has_tries_left=number <= most)
        yield Kept(known, name, number, most, host or "", operator or "")


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


def _task_instances(session: Any, tasks: Iterable[TaskKey]) -> dict[TaskKey, tuple[Any, ...]]:
    found: dict[TaskKey, tuple[Any, ...]] = {}
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    more = (TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, TaskInstance.hostname, TaskInstance.operator)
    asked = iter(sorted(tasks))
    while some := list(islice(asked, RUNS_A_QUERY)):
        for one in session.execute(select(*columns, *more).where(tuple_(*columns).in_(some))):
            found[one[0], one[1], one[2], one[3]] = tuple(one[4:])
    return found


class Records:
    """
    The same as a table for `resumable.sweep.Sweep`, which stops jobs and writes what became of them.

    Args:
        kept: the records that it is about.
    """

    def __init__(self, kept: Sequence[Kept]) -> None:
        self._kept = {one.row: one for one in kept}

    def ended(self, runs: Any = None) -> Iterator[Row]:  # noqa: ARG002
        yield from self._kept

    def is_unchanged(self, row: Row) -> bool:
        """Whether record and task instance are still as they were."""
        now = list(records(f"{row.dag_id}.{row.task_id}", row.run_id, only_open=False))
        return row in [one.row for one in now]

    def write(self, row: Row, data: Mapping[str, Any]) -> bool:
        """Put ``data`` in the place of what ``row`` holds; False if somebody else has written since."""
        return write(self._kept[row], data)


def write(kept: Kept, data: Mapping[str, Any]) -> bool:
    """Put ``data`` in the place of what ``kept`` holds; False if somebody else has written since, or nothing is there."""
    if kept.variable is None:
        from resumable.stores.table import TaskStateTable

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


@dataclass(frozen=True, slots=True)
class Instance:
    """
    A task instance.

    Attributes:
        task: dag_id, run_id, task_id, map_index.
        state: None if it has none yet.
        generation: what `resumable.identity.Generation` is made of.
    """

    task: TaskKey
    state: str | None
    try_number: int
    max_tries: int
    generation: Mapping[str, Any] = field(default_factory=dict)


def instances(task: str, run_id: str | None, map_index: int) -> list[Instance]:
    """Task instances of ``dag_id.task_id``, of all runs or of one."""
    with create_session() as session:
        query = (
            select(TaskInstance, DagRun)
            .join(DagRun, and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id))
            .where(TaskInstance.dag_id + "." + TaskInstance.task_id == task, TaskInstance.map_index == map_index)
        )
        if run_id is not None:
            query = query.where(TaskInstance.run_id == run_id)
        return [_instance(ti, run) for ti, run in session.execute(query)]


def _instance(ti: Any, run: Any) -> Instance:
    generation = {
        "max_tries": ti.max_tries,
        "clear_number": getattr(run, "clear_number", None),
        "run_started": run.start_date.isoformat() if run.start_date else None,
    }
    key = (ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
    state = None if ti.state is None else str(getattr(ti.state, "value", ti.state))
    return Instance(key, state, ti.try_number, ti.max_tries, generation)


def put_record(task: TaskKey, namespace: str, data: Mapping[str, Any]) -> bool:
    """Keep a record where the task will look for it; False if one is there already."""
    dag_id, run_id, task_id, map_index = task
    with create_session() as session:
        if compat.has_task_state():
            from airflow.models.task_state_store import TaskStateStoreModel as State

            ids: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "key": KEY}
            if hasattr(State, "map_index"):
                ids["map_index"] = map_index
            elif map_index >= 0:
                raise LookupError("where this Airflow keeps the state of one of several mapped tasks is its own matter")
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


def operator_of(dag_id: str, task_id: str) -> Any:
    """The task as Airflow's database has it; None if the DAG is not there any more."""
    dag = _dag(dag_id)
    return dag.task_dict.get(task_id) if dag is not None else None


def _dag(dag_id: str) -> Any:
    from airflow.models.serialized_dag import SerializedDagModel

    with create_session() as session:
        found = SerializedDagModel.get(dag_id, session=session)
        return None if found is None else found.dag


def mark_failed(task: TaskKey) -> bool:
    """
    Mark a task instance failed as the UI does, so that whoever has it stops its job. False if it was not unfinished any more.

    Raises:
        LookupError: Airflow's database has no such DAG or task.
    """
    dag_id, run_id, task_id, map_index = task
    dag = _dag(dag_id)
    if dag is None or task_id not in dag.task_dict:
        raise LookupError(f"Airflow's database has no task {task_id} of a DAG {dag_id}")
    with create_session() as session:
        done = dag.set_task_instance_state(
            task_id=task_id, map_indexes=[map_index], run_id=run_id, state="failed", commit=True, session=session
        )
        return bool(done)


def state_of(task: TaskKey) -> str | None:
    """The state that a task instance has now; None if there is no such task instance."""
    with create_session() as session:
        found = _task_instances(session, [task]).get(task)
    return None if found is None else str(found[0])


def user() -> str:
    """Who runs this command, for the history of what it does: never an error."""
    import getpass
    import os
    import socket

    try:
        return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):
        return "somebody"


# -- marks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """
    The mark of a `resumable.Watermark`.

    Attributes:
        whose: the asset, or the Variable that holds it.
        key: under which it stands there; of a Variable, its name.
        value: what is kept.
    """

    whose: str
    key: str
    value: Any
    asset_id: int | None = None

    def __str__(self) -> str:
        return f"{self.whose}:{self.key}" if self.asset_id is not None else self.key


def marks(prefix: str) -> list[Mark]:
    """All marks: keys that begin with ``prefix`` in the state of assets, and Variables of tasks."""
    from resumable.compat._database import Database

    found = [Mark("Variable", name, _json(text)) for name, text in Database().marks()]
    if not compat.has_task_state():
        return found
    from airflow.models.asset import AssetModel
    from airflow.models.asset_state_store import AssetStateStoreModel as State

    with create_session() as session:
        query = select(AssetModel.name, AssetModel.id, State.key, State.value).join(AssetModel, AssetModel.id == State.asset_id)
        for name, asset_id, key, value in session.execute(query.where(State.key.startswith(prefix, autoescape=True))):
            found.append(Mark(name, key, _json(value), asset_id))
    return found


def write_mark(mark: Mark, value: Any) -> bool:
    """Put ``value`` in the place of what ``mark`` holds, None deletes it; False if it has moved meanwhile."""
    with create_session() as session:
        if mark.asset_id is None:
            variable = session.scalar(select(Variable).where(Variable.key == mark.key).with_for_update())
            if variable is None or _json(variable.val) != mark.value:
                return False
            if value is None:
                session.delete(variable)
            else:
                variable.set_val(json.dumps(value))
            return True
        from airflow.models.asset_state_store import AssetStateStoreModel as State

        which = (State.asset_id == mark.asset_id, State.key == mark.key)
        now = session.scalar(select(State.value).where(*which))
        if now is None or _json(now) != mark.value:
            return False
        unmoved = (*which, State.value == now)
        text = json.dumps(json.dumps(value)) if isinstance(json.loads(now), str) else json.dumps(value)
        change = delete(State).where(*unmoved) if value is None else update(State).where(*unmoved).values(value=text)
        done = session.execute(change)
        return bool(done.rowcount)


def _json(text: Any) -> Any:
    try:
        data = json.loads(text)
        return json.loads(data) if isinstance(data, str) else data
    except (TypeError, ValueError):
        return text


# -- the deployment -------------------------------------------------------------------------------------------------------


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
