"""An Airflow 3's public REST API, for maintenance from within a task, which cannot ask the database there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from resumable.errors import ConfigurationError
from resumable.stores.variables import GONE, PREFIX


def _place(task: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters that say which iteration of a loop is meant (3.4)."""
    if "region" not in task:
        return None
    return {"region_id": task["region"], "region_index": task["iteration"] if task["map_index"] < 0 else task["map_index"]}


class RestApi:
    """
    See `resumable.cleanup.variables.Deployment`.

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
        """In pages of as many as this Airflow gives at once (``[api] maximum_page_limit``)."""
        seen: set[str] = set()
        offset = 0
        while True:
            answer = self._get("/variables", {"limit": 100, "offset": offset, "order_by": "id"}).raise_for_status().json()
            for one in answer["variables"]:
                if one["key"].startswith(PREFIX) and one["key"] not in seen:
                    seen.add(one["key"])
                    yield one["key"], one["value"]
            offset += len(answer["variables"])
            if not answer["variables"] or offset >= answer["total_entries"]:
                return

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        if "/" in task["run_id"]:
            return None  # this API finds no run by such an id, gone or not; beside the scheduler it can be asked for
        run = f"/dags/{quote(task['dag_id'], safe='')}/dagRuns/{quote(task['run_id'], safe='')}"
        if self._is_missing(self._get(run), "DagRun"):
            return GONE
        path = f"{run}/taskInstances/{quote(task['task_id'], safe='')}"
        answer = self._get(path if task["map_index"] < 0 else f"{path}/{task['map_index']}", _place(task))
        return None if self._is_missing(answer, "Task Instance") else answer.json()["state"]

    def _is_missing(self, answer: Any, what: str) -> bool:
        """
        Whether Airflow says that there is no such thing.

        A 404 alone does not: a proxy that finds no server, or a wrong path, says 404 as well.
        """
        if answer.status_code == 404 and answer.headers.get("content-type", "").startswith("application/json"):
            detail = str(answer.json().get("detail"))
            if detail.startswith(f"The {what} with ") and detail.endswith("was not found"):
                return True
        answer.raise_for_status()
        return False

    def delete(self, name: str) -> None:
        answer = self._http.delete(f"/api/v2/variables/{quote(name, safe='')}")
        if answer.status_code != 404:  # the task has deleted it meanwhile
            answer.raise_for_status()

    def _get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        return self._http.get(f"/api/v2{path}", params=params)
