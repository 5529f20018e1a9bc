"""Errors that mean that the deployment cannot be asked from here, in words for whoever is on call."""

from __future__ import annotations

import re
from importlib import metadata

from resumable import host

_OTHER_TABLES = re.compile(
    "no such (table|column)|(relation|column|table) .{0,200}does(n't| not) exist|unknown column", re.I | re.S
)
"""How SQLite, PostgreSQL and MySQL say that the tables are not those that were expected."""


def why_unusable(error: Exception) -> str | None:
    """Why nothing can be asked here, in words, where the deployment and not the command is the reason."""
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if type(error).__module__.startswith("sqlalchemy"):
        where = f"Airflow's database {host.database_url()}"
        if _OTHER_TABLES.search(str(error)):
            version = metadata.version("apache-airflow")
            return (
                f"{where} is not one of Airflow {version} ({said}). Run the command with the AIRFLOW_HOME, the settings and the "
                "Airflow of the scheduler; `airflow db check-migrations` says whether the database was migrated"
            )
        return f"{where} does not answer ({said}). Run the command beside the scheduler, with its AIRFLOW_HOME and its settings"
    if isinstance(error, ImportError) or type(error).__module__.startswith("airflow."):
        return (
            f"Airflow cannot be used here ({said}). Run the command beside the scheduler, with its AIRFLOW_HOME and its settings"
        )
    return None
