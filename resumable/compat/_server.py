"""Airflow 3.3 as the API server and the scheduler see it: whose connections a DAG's task may use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from resumable.errors import ConfigurationError


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
