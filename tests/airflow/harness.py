"""A real Airflow 3 on this machine, with LocalExecutor and SQLite, for tests that kill its workers."""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import psutil

from resumable import host
from resumable.stores.variables import PREFIX, opened
from tests.airflow.attempts import read_attempts
from tests.airflow.processes import Services, airflow_environment, free_port, kill, task_process, write_ahead
from tests.airflow.proxy import ExecutionApiProxy

_T = TypeVar("_T")
LOCKED_SECONDS = 60.0
"""How long a request to the REST API is repeated whose write found SQLite locked."""
_LOCKED = ("Database error", "Database is locked")
_HEALTH = {"api-server": "metadatabase", "dag-processor": "dag_processor"}


class HarnessError(AssertionError):
    """Airflow did not do what a test waits for; the message carries the end of the log that tells why."""


class Airflow:
    """
    Run the DAG files in `dags`, keeping everything Airflow writes under `home`.

    Task processes reach the api-server only through `proxy`, see `ExecutionApiProxy`. `env` is added to the
    environment of every process and can override any setting made here. Leaving the context ends every
    process, also on Ctrl-C; a program that gets SIGTERM must turn that into an exception itself.
    """

    start_timeout = 120.0

    python = sys.executable
    """The interpreter whose Airflow is run."""

    def __init__(self, home: Path, dags: Path, *, env: Mapping[str, str] | None = None, triggerer: bool = False) -> None:
        self.home, self.dags = home.resolve(), dags.resolve()
        self.names = ["api-server", "scheduler", "dag-processor"] + ["triggerer"] * triggerer
        self._env = dict(env or {})
        self._exit = ExitStack()

    def __enter__(self) -> Airflow:
        self.home.mkdir(parents=True, exist_ok=True)
        port = free_port()
        with ExitStack() as stack:
            self.url = f"http://127.0.0.1:{port}"
            self._http = stack.enter_context(httpx.Client(base_url=self.url, timeout=60, trust_env=False))
            self.proxy = stack.enter_context(ExecutionApiProxy(f"127.0.0.1:{port}"))
            env = airflow_environment(self.home, self.dags, port, self.proxy.port) | self._env
            self._services = Services(self.home, env, self.python)
            stack.callback(self._services.stop)
            self._services.start("db", "migrate")
            self._services.start("api-server")  # the slowest one needs no database yet
            if self._services.wait("db", self.start_timeout):
                raise HarnessError(f"db migrate failed\n{self._services.tail('db')}")
            write_ahead(self.home)
            self._start(self.names)
            self.wait_until("the DAGs to be listed", self._all_listed, self.start_timeout, "dag-processor")
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def restart(self, name: str) -> None:
        """
        Stop one service and all its processes, a scheduler's workers and tasks too, and start it again.

        While the api-server restarts, about ten seconds, a running task may reach its heartbeat timeout; an
        outage of a chosen length is better made with `proxy.fail`.
        """
        self.stop(name)
        self.start(name)

    def stop(self, name: str) -> None:
        """Stop one service and all its processes."""
        self._services.stop([name])

    def start(self, name: str) -> None:
        """Start a service that was stopped."""
        self._start([name])

    def start_what_has_ended(self) -> list[str]:
        """Start what has ended by itself again, as a deployment would; what it leaves behind is ended. Return the names."""
        ended = self._services.ended()
        for name in ended:
            warnings.warn(f"{name} had ended by itself\n{self._services.tail(name, 1500)}", stacklevel=3)
            self.restart(name)
        return ended

    def _start(self, names: list[str]) -> None:
        since = time.time()
        for name in names:
            if not self._services.is_up(name):
                self._services.start(name)
        for name in names:
            is_healthy = partial(self._healthy, name, since)
            self.wait_until(f"{name} to be healthy", is_healthy, self.start_timeout, name)

    def _healthy(self, name: str, since: float) -> bool:
        part = _HEALTH.get(name, name)
        with suppress(httpx.TransportError):
            health = self._http.get("/api/v2/monitor/health").json()[part]
            beat = health.get(f"latest_{part}_heartbeat")
            is_fresh = name == "api-server" or (beat and datetime.fromisoformat(beat).timestamp() > since)
            return bool(health["status"] == "healthy" and is_fresh)
        return False

    def _all_listed(self) -> bool:
        if errors := self.call("GET", "/importErrors")["import_errors"]:
            raise HarnessError("\n".join(error["stack_trace"] for error in errors))
        listed = {dag["relative_fileloc"] for dag in self.call("GET", "/dags")["dags"]}
        return all(str(file.relative_to(self.dags)) in listed for file in self._dag_files())

    def _dag_files(self) -> Iterable[Path]:
        for file in self.dags.rglob("*.py"):
            text = file.read_text().lower()
            if "airflow" in text and "dag" in text:  # Airflow's own rule, [core] dag_discovery_safe_mode
                yield file

    # --- what a test says ------------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> Any:
        """One request to the public REST API; `path` is relative to /api/v2."""
        if "Authorization" not in self._http.headers:
            token = self._http.get("/auth/token").raise_for_status().json()["access_token"]
            self._http.headers["Authorization"] = f"Bearer {token}"
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            answer = self._http.request(method, "/api/v2" + path, **options)
            is_locked = any(words in answer.text for words in _LOCKED) or answer.text == "Internal Server Error"
            if not answer.is_server_error or not is_locked or time.monotonic() > deadline:
                break
            time.sleep(0.2)  # SQLite was locked and nothing was done, see processes.py
        if answer.is_error:
            raise HarnessError(f"{method} {path} -> {answer.status_code} {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        """
        Start a DAG run and return its run_id.

        A scheduler that has ended by itself in an earlier test (as it does when SQLite was locked for too long) fails that test
        alone: it is started again, with a warning that shows how it ended.
        """
        self.start_what_has_ended()
        body = {"logical_date": None, "conf": conf or {}, **({"dag_run_id": run_id} if run_id else {})}
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def clear(self, dag_id: str, run_id: str, task_ids: list[Any] | None = None, **options: Any) -> None:
        """Clear tasks in any state, all of them by default; a pair (task_id, map_index) is one of many."""
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "task_ids": task_ids, **options}
        self.call("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a DAG run with everything that Airflow keeps of it."""
        self.call("DELETE", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task as "success", "failed" or "skipped"."""
        self.call("PATCH", _ti(dag_id, run_id, task_id, map_index), json={"new_state": state})

    def run(self, module: str, *arguments: str, timeout: float = 120) -> str:
        """Run `python -m module` as beside the scheduler, with its settings; return all that it printed."""
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, env=self._services.env, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise HarnessError(f"{module} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done.stdout + done.stderr

    # --- what a test sees ------------------------------------------------------------------------------

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return the task instance as the REST API shows it: `state`, `try_number`, `id`, ..."""
        return dict(self.call("GET", _ti(dag_id, run_id, task_id, map_index)))

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")["state"])

    def tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        """Every try, oldest first, the current one included unless it is up for retry."""
        found = self.call("GET", _ti(dag_id, run_id, task_id, map_index) + "/tries")["task_instances"]
        return sorted(found, key=lambda one: one["try_number"])

    def xcoms(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return the XComs of a task, key to value."""
        path = _ti(dag_id, run_id, task_id) + "/xcomEntries"
        query = {"map_index": map_index}
        keys = [entry["key"] for entry in self.call("GET", path, params=query)["xcom_entries"]]
        entries = [self.call("GET", f"{path}/{quote(key)}", params=query) for key in keys]
        return {entry["key"]: entry["value"] for entry in entries}

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the extra links of a task, name to URL."""
        path = _ti(dag_id, run_id, task_id) + "/links"
        return dict(self.call("GET", path, params={"map_index": map_index})["extra_links"])

    def state_store(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return the task's state, key to value, wherever this Airflow keeps it."""
        if not host.has_task_state():
            ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
            kept = [value for of, value in map(opened, self.variables().values()) if of == ids]
            return {"resumable": kept[0]} if kept else {}
        path = _ti(dag_id, run_id, task_id) + "/state-store"
        entries = self.call("GET", path, params={"map_index": map_index})["task_state_store"]
        return {entry["key"]: entry["value"] for entry in entries}

    def variables(self) -> dict[str, str]:
        """Return every Variable that is ours, name to text."""
        found = self.call("GET", "/variables", params={"limit": 1000})["variables"]
        return {one["key"]: one["value"] for one in found if one["key"].startswith(PREFIX)}

    def hold_record(self, run_id: str, state: str) -> Any:
        """Hold the next write of a record in this state: an object with `wait_reached` and `refuse`."""
        if host.has_task_state():

            def is_record(_: str, body: Any) -> bool:
                value = body["value"]  # the provider's own operators keep a bare id
                return (value.get("state") if isinstance(value, dict) else "submitted") == state

            return self.proxy.hold("PUT", r"/store/ti/", run_id=run_id, where=is_record)

        def is_it(_: str, body: Any) -> bool:
            task, value = opened(body["val"])
            return bool(task["run_id"] == run_id and value["state"] == state)

        return self.proxy.hold("PUT", rf"/variables/{re.escape(PREFIX)}", where=is_it)

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return a try's log as plain lines, from the file: what a killed try wrote is there at once."""
        parts = [f"dag_id={dag_id}", f"run_id={run_id}", f"task_id={task_id}"]
        parts += [f"map_index={map_index}"] * (map_index >= 0)
        file = Path(self.home, "airflow", "logs", *parts, f"attempt={try_number}.log")
        return "\n".join(map(_plain, file.read_text().splitlines())) if file.exists() else ""

    def attempts(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        """Return what `note_attempt` wrote in this task, oldest first."""
        key = (dag_id, run_id, task_id, map_index)
        fields = ("dag_id", "run_id", "task_id", "map_index")
        every = read_attempts(self.home / "attempts.jsonl")
        return [one for one in every if tuple(one[name] for name in fields) == key]

    def every_attempt(self) -> list[dict[str, Any]]:
        """Return what `note_attempt` wrote in every task, oldest first."""
        return read_attempts(self.home / "attempts.jsonl")

    # --- waiting ---------------------------------------------------------------------------------------

    def wait_until(self, what: str, ask: Callable[[], _T], timeout: float, log: str | None = None, pause: float = 0.1) -> _T:
        deadline = time.monotonic() + timeout
        while not (answer := ask()):
            if ended := self._services.ended():
                raise HarnessError(f"{ended[0]} has ended, before {what}\n{self._services.tail(ended[0])}")
            has_died = log is not None and not self._services.is_up(log)
            if has_died or time.monotonic() > deadline:
                tail = self._services.tail(log) if log else ""
                raise HarnessError(f"waited {timeout:g} s for {what}\n{tail}")
            time.sleep(pause)
        return answer

    def wait_run(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait for the end of a DAG run and return "success" or "failed"."""

        def ended() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in ("success", "failed") else None

        return str(self.wait_until(f"the end of {dag_id} {run_id}", ended, timeout))

    def wait_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: str | Collection[str],
        timeout: float = 60,
        map_index: int = -1,
    ) -> dict[str, Any]:
        """Wait until the task is in one of `states`; the error has the end of its last try's log."""
        wanted = {states} if isinstance(states, str) else set(states)
        seen: dict[str, Any] = {}

        def arrived() -> bool:
            with suppress(HarnessError):  # a mapped task instance does not exist yet
                seen.update(self.task(dag_id, run_id, task_id, map_index))
            return seen.get("state") in wanted

        try:
            self.wait_until(f"{task_id} to be {sorted(wanted)}", arrived, timeout)
        except HarnessError as error:
            number = seen.get("try_number") or 0
            log = self.log(dag_id, run_id, task_id, number, map_index)[-4000:]
            raise HarnessError(f"{error}it is {seen.get('state')} at try {number}\n{log}") from None
        return seen

    def wait_attempt(
        self, dag_id: str, run_id: str, task_id: str, number: int, timeout: float = 60, map_index: int = -1
    ) -> dict[str, Any]:
        """Wait for the `number`-th execution, counted from 1 in the order of `attempts`."""

        def noted() -> dict[str, Any] | None:
            return dict(enumerate(self.attempts(dag_id, run_id, task_id, map_index), 1)).get(number)

        return self.wait_until(f"attempt {number} of {task_id}", noted, timeout, "scheduler") or {}

    # --- killing ---------------------------------------------------------------------------------------

    def kill_worker(self, attempt: Mapping[str, Any]) -> None:
        """SIGKILL a task with its supervisor, like a node that dies: neither sees the other's end."""
        kill([self._supervisor(attempt)])

    def signal_worker(self, attempt: Mapping[str, Any], sig: int = signal.SIGTERM) -> None:
        """Send a signal to the supervisor alone; after SIGKILL the task runs on as an orphan."""
        self._supervisor(attempt).send_signal(sig)

    def evict(self, attempt: Mapping[str, Any]) -> None:
        """
        SIGTERM to the supervisor, as a node that is drained sends it, to be passed on to the task.

        An Airflow that passes it on to nobody leaves that to what runs the container: there the task gets it.
        """
        supervisor = self._supervisor(attempt)
        if not signals_are_passed_on():
            (supervisor,) = filter(None, [task_process(attempt)])
        supervisor.send_signal(signal.SIGTERM)

    def kill_orphan(self, attempt: Mapping[str, Any]) -> None:
        """SIGKILL a task, and what it started, whether or not its supervisor lives."""
        if (task := task_process(attempt)) is not None:
            kill([task])

    def _supervisor(self, attempt: Mapping[str, Any]) -> psutil.Process:
        if (supervisor := self._services.supervisor(attempt)) is None:
            which = f"try {attempt['try_number']} of {attempt['task_id']}"
            raise HarnessError(f"{which} is not running under a worker of this scheduler")
        return supervisor


@cache
def signals_are_passed_on() -> bool:
    """Whether a supervisor passes a SIGTERM on to its task: on 2.11 and 3.3, not on 3.0 to 3.2 and 3.4."""
    if not host.has_sdk():
        return True
    from airflow.sdk.execution_time import supervisor

    return "_forward_signal" in inspect.getsource(supervisor)


def _ti(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
    return path if map_index < 0 else f"{path}/{map_index}"


def _plain(line: str) -> str:
    try:
        entry = json.loads(line)
        errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or []]
        return " ".join([entry.get("timestamp", ""), entry.get("level", ""), entry["event"], *errors]).strip()
    except (ValueError, TypeError, KeyError):
        return line
