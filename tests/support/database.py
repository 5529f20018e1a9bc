"""The tables of a real Airflow 3.3 in a database of this test run's own, with task instances and what they keep."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import Any

from resumable.jobs.record import KEY

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@cache
def make_tables() -> None:
    """Once in a process."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    if "ab_user" not in Base.metadata.tables:  # of the auth manager's own, which tables of Airflow 2 refer to
        from sqlalchemy import Column, Integer, Table

        Table("ab_user", Base.metadata, Column("id", Integer, primary_key=True))
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # the processes of one test run have one AIRFLOW_HOME
        settings.SQL_ALCHEMY_CONN = f"sqlite:///{os.environ['AIRFLOW_HOME']}/{worker}.db"
        settings.configure_orm()
    Base.metadata.create_all(settings.engine)


def url() -> str:
    """Of this test run's database."""
    make_tables()
    from airflow import settings

    return str(settings.SQL_ALCHEMY_CONN)


def empty() -> None:
    make_tables()
    from airflow.models.base import Base
    from airflow.utils.session import create_session

    with create_session() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


def _place(map_index: int) -> dict[str, Any]:
    """The column of a mapped task's index, which Airflow 3.4 has renamed."""
    from airflow.models.task_state_store import TaskStateStoreModel

    return {"region_index" if hasattr(TaskStateStoreModel, "region_index") else "map_index": map_index}


def put(
    dag_id: str,
    run_id: str,
    task_id: str,
    state: str | None,
    value: Any,
    *,
    key: str = KEY,
    tries: tuple[int, int] = (1, 3),
    map_index: int = -1,
    run_state: str = "running",
    region: Any = None,
) -> str:
    """A task instance in ``state`` and a value of its task state; the id of its start. ``tries``: try_number and max_tries."""
    import uuid

    from airflow.models import DagRun, TaskInstance
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select

    place = _place(map_index) | ({} if region is None else {"region_id": region})
    with create_session() as session:
        run = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            if not session.scalar(select(DagBundleModel.name).where(DagBundleModel.name == "bundle")):
                session.execute(insert(DagBundleModel).values(name="bundle"))
            values = {"dag_id": dag_id, "run_id": run_id, "state": run_state, "run_type": "manual", "clear_number": 0}
            session.execute(insert(DagRun).values(**values, run_after=NOW, start_date=NOW))
            run = session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        ids = {"dag_id": dag_id, "task_id": task_id, "run_id": run_id, **place}
        ti_id = session.scalar(select(TaskInstance.id).filter_by(**ids))
        if ti_id is None:
            ti_id = uuid.uuid4()
            more = {"state": state, "try_number": tries[0], "max_tries": tries[1], "pool": "default_pool", "pool_slots": 1}
            session.execute(insert(TaskInstance).values(id=ti_id, **ids, **more))
        kept = {"dag_run_id": run, **ids, "key": key, "value": value if isinstance(value, str) else json.dumps(value)}
        session.execute(insert(TaskStateStoreModel).values(**kept))
    return str(ti_id)


def change(dag_id: str, run_id: str, task_id: str, **values: Any) -> None:
    """Columns of a task instance, as its ``state``, or its ``id`` after a clear."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    of_it = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id)
    with create_session() as session:
        session.execute(update(TaskInstance).where(*of_it).values(**values))


def kept(dag_id: str, task_id: str, key: str = KEY) -> Any:
    from airflow.models.task_state_store import TaskStateStoreModel as State
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(State.value).where(State.dag_id == dag_id, State.task_id == task_id, State.key == key)
    with create_session() as session:
        return json.loads(session.scalar(query))


def keys(task_id: str) -> set[str]:
    """The keys of all that is kept of a task."""
    from airflow.models.task_state_store import TaskStateStoreModel as State
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return set(session.scalars(select(State.key).where(State.task_id == task_id)))


def states(task_id: str) -> dict[str, str]:
    """Of all starts of the task, by their ids."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.execute(select(TaskInstance.id, TaskInstance.state).where(TaskInstance.task_id == task_id))
        return {str(ti_id): str(state) for ti_id, state in found}


def task_instance(session: Any, task_id: str) -> Any:
    from airflow.models import TaskInstance
    from sqlalchemy import select

    return session.scalar(select(TaskInstance).where(TaskInstance.task_id == task_id))


def clear(session: Any, task_id: str) -> None:
    """As the API server does it."""
    from airflow.models.taskinstance import clear_task_instances

    clear_task_instances([task_instance(session, task_id)], session)


def discard(session: Any, dag_id: str, run_id: str, task_id: str) -> None:
    """What the API server does with the state of a task that is cleared (3.4), or that a user has it delete."""
    from airflow._shared.state import TaskScope
    from airflow.state.metastore import MetastoreBackend

    MetastoreBackend().clear(scope=TaskScope(dag_id=dag_id, run_id=run_id, task_id=task_id), session=session)


def has_loops() -> bool:
    """Whether this Airflow (3.4) keeps each try in a row of its own, and has loops that leave some of them behind."""
    from airflow.models import TaskInstance

    return hasattr(TaskInstance, "working_set")


def supersede(task_id: str) -> None:
    """What a clear of an earlier iteration makes of a later one."""
    from airflow.utils.session import create_session

    with create_session() as session:
        task_instance(session, task_id).archive(reason="superseded", session=session)


def put_team(name: str, dag_id: str) -> None:
    """A team, and a DAG of it."""
    from airflow.models import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.team import Team
    from airflow.utils.session import create_session

    with create_session() as session:
        bundle = DagBundleModel(name=f"bundle_{name}")
        bundle.teams.append(Team(name=name))
        session.add(bundle)
        session.flush()
        session.add(DagModel(dag_id=dag_id, bundle_name=bundle.name, fileloc="x", relative_fileloc="x"))


def put_connection(conn_id: str, host: str, team: str | None = None) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id=conn_id, conn_type="http", host=host, team_name=team))


def delete_run(dag_id: str, run_id: str, *, but: Exception | None = None) -> None:
    """As the API server does it. ``but`` is raised before the end."""
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        session.delete(session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)))
        session.flush()
        if but is not None:
            raise but


def delete_dag(dag_id: str) -> None:
    """As the API server does it."""
    from airflow.api.common.delete_dag import delete_dag
    from airflow.models import DagModel
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(DagModel(dag_id=dag_id, bundle_name="bundle", fileloc="x", relative_fileloc="x"))
    delete_dag(dag_id)


def put_variable(name: str, text: str, description: str | None = None) -> None:
    from airflow.models import Variable
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Variable(key=name, val=text, description=description))


def put_many(dag_id: str, values: list[tuple[str, str, Any]]) -> None:
    """Failed tasks with a record each: run_id, task_id, record. Their ids are 1, 2, …, as UUIDs."""
    import uuid

    from airflow.models import DagRun, TaskInstance
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    runs = {run_id: number for number, run_id in enumerate(dict.fromkeys(run_id for run_id, _, _ in values), 1)}
    common = {"state": "failed", "run_type": "manual", "clear_number": 0, "run_after": NOW, "start_date": NOW}
    of_task = {"state": "failed", "try_number": 4, "max_tries": 3, "pool": "default_pool", "pool_slots": 1, **_place(-1)}
    tis, kept_ = [], []
    for number, (run_id, task_id, value) in enumerate(values):
        ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        tis.append({"id": uuid.UUID(int=number + 1), **ids, **of_task})
        kept_.append({**ids, "dag_run_id": runs[run_id], **_place(-1), "key": KEY, "value": json.dumps(value)})
    with create_session() as session:
        made = [{"id": n, "dag_id": dag_id, "run_id": run_id, **common} for run_id, n in runs.items()]
        session.execute(insert(DagRun.__table__), made)
        session.execute(insert(TaskInstance.__table__), tis)
        session.execute(insert(TaskStateStoreModel.__table__), kept_)


def put_task(dag_id: str, run_id: str, task_id: str, state: str | None, map_index: int = -1) -> None:
    """A task instance and its run, in the tables of any version of Airflow."""
    import uuid

    import sqlalchemy
    from airflow.models import DagRun, TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select

    run = {"dag_id": dag_id, "run_id": run_id, "state": "running", "run_type": "manual", "clear_number": 0}
    logical = NOW + timedelta(seconds=sum(run_id.encode()))
    run |= {"run_after": NOW, "start_date": NOW, "execution_date": logical, "logical_date": logical}
    ti_id = uuid.uuid4() if hasattr(sqlalchemy, "Uuid") else str(uuid.uuid4())
    index = {"map_index": map_index, "region_index": map_index}  # 3.4 calls it so
    ti = {"id": ti_id, "dag_id": dag_id, "run_id": run_id, "task_id": task_id, **index, "state": state}
    ti |= {"try_number": 1, "max_tries": 3, "pool": "default_pool", "pool_slots": 1}
    with create_session() as session:
        if session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)) is None:
            session.execute(insert(DagRun.__table__), _columns_of(DagRun, run))
        session.execute(insert(TaskInstance.__table__), _columns_of(TaskInstance, ti))


def _columns_of(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in model.__table__.columns}


def put_dag(dag: Any) -> None:
    """A DAG as the DAG processor has it written, in the tables of any version of Airflow."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    from resumable import host
    from resumable.host import versions

    if not host.has_sdk():
        dag.sync_to_db()
        SerializedDagModel.write_dag(dag)
        return
    from airflow.models.dagbundle import DagBundleModel
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    dag.relative_fileloc = "x"
    is_lazy = hasattr(LazyDeserializedDAG, "from_dag")  # 3.1 and later
    places = ("airflow.serialization.definitions.dag", "airflow.serialization.serialized_objects")
    if is_lazy:
        written = LazyDeserializedDAG.from_dag(dag)
    else:
        serialized = versions.first_of("SerializedDAG", *places)
        written = serialized.from_dict(serialized.to_dict(dag))
    writer = versions.first_of("SerializedDAG", *places) if is_lazy else versions.first_of("DAG", "airflow.models.dag")
    with create_session() as session:
        session.execute(insert(DagBundleModel).values(name="bundle"))
        writer.bulk_write_to_db("bundle", None, [written], session=session)
        SerializedDagModel.write_dag(written, bundle_name="bundle", session=session)


def put_process(kind: str, seconds_ago: float = 0.0) -> None:
    """A ``SchedulerJob``, ``TriggererJob`` or ``DagProcessorJob`` and when its heart has beaten last."""
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    now = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
    values = {"job_type": kind, "state": "running", "hostname": "here", "start_date": now, "latest_heartbeat": now}
    with create_session() as session:
        session.execute(insert(Job.__table__), _columns_of(Job, values))


def put_pool(name: str, *, include_deferred: bool) -> None:
    """A pool of two slots."""
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Pool(pool=name, slots=2, description="", include_deferred=include_deferred))
