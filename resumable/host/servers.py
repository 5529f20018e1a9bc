"""
Beside the tasks: what the API server, the scheduler, the sweep, the command and the tidying of Variables see of the deployment.

The parts that need the metadata database or the REST API are modules of their own, imported where they are asked for.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from resumable import host
from resumable.host.versions import first_of

_PROCESS_CONTEXT = "_AIRFLOW_PROCESS_CONTEXT"


def is_server() -> bool:
    """Whether this process is an API server or a scheduler, with the metadata database at hand (Airflow 3)."""
    return os.environ.get(_PROCESS_CONTEXT) == "server"


def be_a_server() -> None:
    """Have connections come from where the API server and the scheduler take them, the metadata database included."""
    os.environ[_PROCESS_CONTEXT] = "server"


def parses_dag_files(job_type: str) -> bool:
    """Whether a component of that job type forks the processes that parse DAG files; on Airflow 2 the scheduler may."""
    return job_type == "DagProcessorJob" or (job_type == "SchedulerJob" and not host.has_sdk())


def team_of(dag_id: str) -> str | None:
    """See `resumable.host._server`. On a server."""
    from resumable.host import _server

    return _server.team_of(dag_id)


def task_state_place() -> Any:
    """See `resumable.host._server`. On a server."""
    from resumable.host import _server

    return _server.task_state_place()


def connections_of(dag_id: str, conn_ids: Sequence[Any]) -> AbstractContextManager[None]:
    """See `resumable.host._server`. On a server."""
    from resumable.host import _server

    return _server.connections_of(dag_id, conn_ids)


def database() -> Any:
    """The deployment's Variables and task states, read from its metadata database: not from within a task of Airflow 3."""
    from resumable.host import _database

    return _database.Database()


def database_url() -> str:
    """Of the metadata database, without its password; empty if that is not known."""
    try:
        url = importlib.import_module("airflow.settings").engine.url
        return str(url.render_as_string(hide_password=True) if hasattr(url, "render_as_string") else repr(url))
    except Exception:  # it is for a message about another error
        return ""


def beside() -> Any:
    """What the command reads and does in the metadata database: `resumable.host._beside`."""
    return importlib.import_module("resumable.host._beside")


@contextmanager
def deployment(conn_id: str) -> Iterator[Any]:
    """
    The Airflow that runs this task, for `resumable.maintenance`: the database on Airflow 2, on Airflow 3 its REST API.

    Raises:
        ConfigurationError: the connection ``conn_id`` is of no use.
    """
    if not host.has_sdk():
        yield database()
        return
    from resumable.host._rest import RestApi

    given = _connection(conn_id)
    with RestApi(given.host, given.login, given.password) as api:
        yield api


def _connection(conn_id: str) -> Any:
    return first_of("BaseHook", "airflow.sdk", "airflow.hooks.base").get_connection(conn_id)


def plugin_names() -> set[str]:
    """Of the plug-ins that Airflow has loaded in this process."""
    manager = importlib.import_module("airflow.plugins_manager")
    if hasattr(manager, "_get_plugins"):  # 3.2 and later
        return {str(plugin.name) for plugin in manager._get_plugins()[0]}
    manager.ensure_plugins_loaded()
    return {str(plugin.name) for plugin in manager.plugins or ()}


def dag_bag(folder: str | None) -> Any:
    """The DAGs of a folder as they are parsed here, ``dags`` and ``import_errors``; None: of airflow.cfg's folder."""
    bag = first_of("DagBag", "airflow.dag_processing.dagbag", "airflow.models.dagbag")
    examples = {"include_examples": False} if "include_examples" in inspect.signature(bag).parameters else {}
    return bag(folder or host.airflow_setting("core", "dags_folder", ""), **examples)


def has_dag_processor() -> bool:
    """Whether DAG files are parsed by a process of its own, which somebody has to start (Airflow 3)."""
    return host.has_sdk()


def lost_heartbeat_setting() -> str:
    """The setting of ``[scheduler]`` with the seconds after which a task without a heartbeat is given up."""
    return "task_instance_heartbeat_timeout" if host.has_sdk() else "scheduler_zombie_task_threshold"
