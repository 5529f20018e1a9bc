"""
Deletes the Airflow Variables of jobs that nobody can ask about any more: for Airflow before 3.3, and for once after an upgrade.

    python -m resumable.maintenance [--dry-run]      where Airflow's own commands work: beside the scheduler, or as a cron job

A Variable is deleted by its own task when that succeeds. It stays when the task has failed for good (a clear may want to know of
the job), or died in the moment after its success. A daily run of this, also as a DAG (``examples/dags/sweep_variables.py``),
takes those away whose DAG run is gone, and those whose task has succeeded. Every other one is left alone, also what cannot be
read.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from resumable import compat
from resumable.errors import ConfigurationError
from resumable.stores.variables import PREFIX, opened

log = logging.getLogger("resumable")

GONE = "gone"
"""What a deployment answers about a task instance whose DAG run does not exist."""


class Deployment(Protocol):
    """The Airflow to sweep. Every method may raise anything; an error never means that something is gone."""

    def variables(self) -> Iterable[tuple[str, str]]:
        """Names and texts of the Variables whose names begin with `PREFIX`."""

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        """The state of a task instance, None if it has none, `GONE` if there is no such DAG run."""

    def delete(self, name: str) -> None: ...


def sweep_variables(airflow: Deployment, *, dry_run: bool = False) -> list[str]:
    """
    Delete the Variables that nobody needs; with ``dry_run`` only tell which.

    Returns: their names. Each is logged with the reason and, if it has one that may still run, with its job.
    """
    swept = []
    for name, text in list(airflow.variables()):
        try:
            task, value = opened(text)
            state = airflow.task_state(task)
        except ValueError as e:
            log.warning("resumable: the Variable %s is left alone, it cannot be read: %s", name, e)
            continue
        if why := _reason(state, value):
            if not dry_run:
                airflow.delete(name)
            log.info("resumable: %s %s: %s%s", "would delete" if dry_run else "deleted", name, why, _open_job(value))
            swept.append(name)
    return swept


def sweep_from_task(conn_id: str = "airflow_api", *, dry_run: bool = False) -> list[str]:
    """
    `sweep_variables` of the deployment that runs this task.

    Args:
        conn_id: on Airflow 3, where a task cannot list Variables by itself, a connection to Airflow's own REST API: ``host`` is
            its URL, ``login`` and ``password`` are a user's who may read DAG runs and delete Variables. Airflow 2 needs none.
        dry_run: only tell.
    """
    if not compat.has_sdk():
        return sweep_variables(compat.database(), dry_run=dry_run)
    given = compat.connection(conn_id)
    with RestApi(given.host, given.login, given.password) as api:
        return sweep_variables(api, dry_run=dry_run)


def _reason(state: str | None, value: Any) -> str | None:
    if state == GONE:
        return "its DAG run is gone"
    if state == "success" and isinstance(value, dict) and _is_settled(value):
        return "its task has succeeded"
    return None


def _is_settled(value: Mapping[str, Any]) -> bool:
    """Whether nothing stands open in what is kept of a task that has succeeded: no job, and nothing that `once` made."""
    if "job" in value or "service" in value:
        return value.get("state") == "succeeded"
    if "made_at" in value:
        return value.get("state") != "made" or not value.get("cleanup")
    return value.get("state") == "succeeded" or bool({"kind", "ids", "moves"} & set(value))  # a checkpoint, its list, an interval


def _open_job(value: Any) -> str:
    if isinstance(value, dict) and value.get("state") == "made" and value.get("cleanup"):
        return f"; once made {value.get('value')!r:.200}, and nobody has cleaned it up: look there"
    if not isinstance(value, dict) or value.get("state") not in ("submitting", "submitted"):
        return ""
    job = f"{value.get('service')} {value.get('job') or 'job with token ' + str(value.get('token'))}"
    return f"; {job} was not seen to end: look there"


class RestApi:
    """
    An Airflow 3 through its public REST API.

    Raises:
        ConfigurationError: the URL is none, or the login is refused.
    """

    def __init__(self, url: str | None, login: str | None = None, password: str | None = None) -> None:
        import httpx

        if not url or not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"The Airflow REST API at {url!r} is no URL. No Variable was deleted. Put e.g. http://api-server:8080 into the "
                "host of the connection."
            )
        self._http = httpx.Client(base_url=url.rstrip("/"), timeout=60)
        if login:
            answer = self._http.post("/auth/token", json={"username": login, "password": password})
        else:
            answer = self._http.get("/auth/token")
        if answer.is_error:
            raise ConfigurationError(
                f"Airflow's REST API at {url} refuses the login {login!r} ({answer.status_code}). No Variable was deleted. "
                "Give the connection the login and password of a user who may read DAG runs and delete Variables."
            )
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def __enter__(self) -> RestApi:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def variables(self) -> Iterator[tuple[str, str]]:
        offset, page = 0, 100
        while True:
            found = self._get("/variables", {"limit": page, "offset": offset, "order_by": "id"})["variables"]
            yield from ((one["key"], one["value"]) for one in found if one["key"].startswith(PREFIX))
            if len(found) < page:
                return
            offset += page

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        run = f"/dags/{quote(task['dag_id'], safe='')}/dagRuns/{quote(task['run_id'], safe='')}"
        if self._get(run) is None:
            return GONE
        path = f"{run}/taskInstances/{quote(task['task_id'], safe='')}"
        found = self._get(path if task["map_index"] < 0 else f"{path}/{task['map_index']}")
        return None if found is None else found["state"]

    def delete(self, name: str) -> None:
        answer = self._http.delete(f"/api/v2/variables/{quote(name, safe='')}")
        if answer.status_code != 404:
            answer.raise_for_status()

    def _get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        answer = self._http.get(f"/api/v2{path}", params=params)
        return None if answer.status_code == 404 else answer.raise_for_status().json()


def main(arguments: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.setLevel(logging.INFO)
    unknown = set(arguments) - {"--dry-run"}
    if unknown:
        log.error("%s: no such argument. Usage: python -m resumable.maintenance [--dry-run]", sorted(unknown)[0])
        return 2
    swept = sweep_variables(compat.database(), dry_run=bool(arguments))
    log.info("resumable: %d Variables %s", len(swept), "would be deleted" if arguments else "deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
