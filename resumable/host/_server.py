"""Airflow 3.3 and later as the API server and the scheduler see it: whose connections a task may use, where its state is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from resumable.errors import ConfigurationError


@dataclass(frozen=True)
class Place:
    """
    SQL expressions by which a row of task state finds its task instance.

    Airflow 3.3 has a map index for it. From 3.4 on there is a region as well, and each earlier try of a task instance is a row
    beside the current one.

    Attributes:
        index: of a mapped task, or of the iteration of a loop; -1 of any other.
        is_iteration: whether that index is one of a loop.
        is_same: the task instance of a row.
        is_superseded: the task instance has no place in its run any more: a clear has made that part of the run anew.
        options: of the query.
    """

    index: Any
    is_iteration: Any
    is_same: Any
    is_superseded: Any
    options: dict[str, Any]


def task_state_place() -> Place:
    from airflow.models.task_state_store import TaskStateStoreModel as State
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import and_, false, or_, select

    names = ("dag_id", "run_id", "task_id")
    of_task = and_(*(getattr(TaskInstance, name) == getattr(State, name) for name in names))
    if not hasattr(State, "region_index"):
        return Place(State.map_index, false(), and_(of_task, TaskInstance.map_index == State.map_index), false(), {})
    from airflow.models.dynamic_region import SENTINEL_REGION_ID, DynamicRegion

    of_place = and_(TaskInstance.region_id == State.region_id, TaskInstance.region_index == State.region_index)
    is_superseded = and_(TaskInstance.working_set.is_(None), TaskInstance.archived_reason == "superseded")
    is_mapped = select(DynamicRegion.id).where(DynamicRegion.id == State.region_id, DynamicRegion.node_id == State.task_id)
    return Place(
        index=State.region_index,
        is_iteration=and_(State.region_id != SENTINEL_REGION_ID, ~is_mapped.exists()),
        is_same=and_(of_task, of_place, or_(TaskInstance.working_set.is_(True), is_superseded)),
        is_superseded=is_superseded,
        options={"include_all_attempts": True},
    )


def team_of(dag_id: str) -> str | None:
    """The team that the DAG belongs to, None without multi-team."""
    from airflow.configuration import conf
    from airflow.models.dag import DagModel

    if not conf.getboolean("core", "multi_team", fallback=False):
        return None
    name = DagModel.get_team_name(dag_id)
    return None if name is None else str(name)


@contextmanager
def connections_of(dag_id: str, conn_ids: Sequence[Any]) -> Iterator[None]:
    """
    With multi-team: have ``conn_ids`` found as the DAG's own tasks find them, those of its team and those of no team.

    A server knows no team when it asks for a connection, so it would find those of no team only, and what it does not find some
    hooks replace by the server's own credentials.

    Raises:
        ConfigurationError: no connection is named, or one that the DAG's team has none of.
    """
    from airflow.configuration import conf

    if not conf.getboolean("core", "multi_team", fallback=False):
        yield
        return
    from airflow.exceptions import AirflowNotFoundException
    from airflow.models.connection import Connection
    from airflow.sdk.execution_time.context import _preset_connections

    if not conn_ids:
        raise ConfigurationError(f"With multi-team a job of {dag_id} is reached by a connection of its team, and none is named")
    found, team = {}, team_of(dag_id)
    for conn_id in conn_ids:
        try:
            if not isinstance(conn_id, str) or not conn_id:
                raise AirflowNotFoundException(conn_id)
            found[conn_id] = _for_tasks(Connection.get_connection_from_secrets(conn_id, team_name=team))
        except AirflowNotFoundException:
            raise ConfigurationError(
                f"The connection {conn_id!r} is none that a task of {dag_id} (team {team}) may use. Nothing was looked at"
            ) from None
    preset = _preset_connections.set({**(_preset_connections.get() or {}), **found})
    try:
        yield
    finally:
        _preset_connections.reset(preset)


def _for_tasks(one: Any) -> Any:
    from airflow.sdk import Connection

    names = ("conn_id", "conn_type", "description", "host", "schema", "login", "password", "port", "extra")
    return Connection(**{name: getattr(one, name) for name in names})
