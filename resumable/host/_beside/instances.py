"""Task instances, and the tasks that they are of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import UUID

from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import State as States
from sqlalchemy import and_, select, tuple_

from resumable.cleanup.table import RUNS_A_QUERY

TaskKey = tuple[str, str, str, int]
"""dag_id, run_id, task_id, map_index."""

TaskName = tuple[str, str]
"""dag_id and task_id."""

_FINISHED = frozenset(str(getattr(state, "value", state)) for state in States.finished)


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


def instances(tasks: Collection[TaskName], run_id: str | None) -> list[Instance]:
    """Task instances of the tasks, of all runs or of one."""
    with create_session() as session:
        query = (
            select(TaskInstance, DagRun)
            .join(DagRun, and_(DagRun.dag_id == TaskInstance.dag_id, DagRun.run_id == TaskInstance.run_id))
            .where(tuple_(TaskInstance.dag_id, TaskInstance.task_id).in_(list(tasks)))
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


def operator_of(dag_id: str, task_id: str) -> Any:
    """The task as Airflow's database has it; None if the DAG is not there any more."""
    dag = _dag(dag_id)
    return dag.task_dict.get(task_id) if dag is not None else None


def argument_of(task: Any, name: str) -> dict[str, Any]:
    """
    What Airflow's database has of an argument of a task: its value, by the name, or nothing where it is the default.

    Raises:
        LookupError: that is not known. What is no template field is not kept, and what is mapped differs from one to the next.
    """
    partial = getattr(task, "partial_kwargs", None)
    if partial is not None and name in partial:
        return {name: partial[name]}
    if partial is not None and not _is_mapped_over(task, name):
        return {}
    if partial is not None or name not in task.template_fields:
        raise LookupError(name)
    return {name: getattr(task, name, None)}


def _is_mapped_over(task: Any, name: str) -> bool:
    values = task._get_specified_expand_input().value
    if isinstance(values, Mapping):
        return name in values
    return not isinstance(values, list | tuple) or any(not isinstance(one, Mapping) or name in one for one in values)


def _dag(dag_id: str) -> Any:
    from airflow.models.serialized_dag import SerializedDagModel

    with create_session() as session:
        found = SerializedDagModel.get(dag_id, session=session)
        return None if found is None else found.dag


def mark_failed(task: TaskKey, ti_id: str = "") -> bool:
    """
    Mark a task instance failed as the UI does, so that whoever has it stops its job. False if it has ended meanwhile: then
    nothing is done.

    Args:
        task: which one.
        ti_id: Airflow's id of its start. From 3.4 on several task instances of a run may have the same index: of an iteration, or
            of a mapped task in each of them.

    Raises:
        LookupError: Airflow's database has no such DAG or task.
    """
    dag_id, run_id, task_id, map_index = task
    dag = _dag(dag_id)
    if dag is None or task_id not in dag.task_dict:
        raise LookupError(f"Airflow's database has no task {task_id} of a DAG {dag_id}")
    with create_session() as session:
        if ti_id and hasattr(TaskInstance, "region_id"):
            return _mark_start_failed(session, ti_id)
        state = found_instances(session, [task]).get(task, (None,))[0]
        if str(getattr(state, "value", state)) in _FINISHED:
            return False
        done = dag.set_task_instance_state(
            task_id=task_id, map_indexes=[map_index], run_id=run_id, state="failed", commit=True, session=session
        )
        return bool(done)


def _mark_start_failed(session: Any, ti_id: str) -> bool:
    ti = session.scalar(select(TaskInstance).where(TaskInstance.id == UUID(ti_id)).with_for_update())
    if ti is None or str(getattr(ti.state, "value", ti.state)) in _FINISHED:
        return False
    return bool(ti.set_state("failed", session=session))


def state_of(task: TaskKey) -> str | None:
    """The state that a task instance has now; None if there is no such task instance."""
    with create_session() as session:
        found = found_instances(session, [task]).get(task)
    return None if found is None else str(found[0])


def found_instances(session: Any, tasks: Iterable[TaskKey]) -> dict[TaskKey, tuple[Any, ...]]:
    """State, try_number, max_tries, hostname and operator of those of ``tasks`` that are there."""
    found: dict[TaskKey, tuple[Any, ...]] = {}
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    more = (TaskInstance.state, TaskInstance.try_number, TaskInstance.max_tries, TaskInstance.hostname, TaskInstance.operator)
    asked = iter(sorted(tasks))
    while some := list(islice(asked, RUNS_A_QUERY)):
        for one in session.execute(select(*columns, *more).where(tuple_(*columns).in_(some))):
            found[one[0], one[1], one[2], one[3]] = tuple(one[4:])
    return found
