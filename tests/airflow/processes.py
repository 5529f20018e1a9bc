"""The operating-system half of the harness: environment, start, and an end that leaves no process behind."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.airflow.attempts import ATTEMPTS_FILE, read_attempts

ROOT = Path(__file__).parents[2]
MENDS = Path(__file__).parent / "mends"
"""What keeps faults of Airflow itself from ending the tests: one file a fault, with its place in Airflow's source."""
_OPTIONS = {"scheduler": ["--skip-serve-logs"], "triggerer": ["--skip-serve-logs"]}  # they would share a port


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def airflow_environment(home: Path, dags: Path, api_port: int, execution_port: int) -> dict[str, str]:
    """Return this process's environment without its Airflow settings and with the harness's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    settings = {
        "core.dags_folder": dags,
        "core.load_examples": False,
        "core.dags_are_paused_at_creation": False,
        "core.executor": "LocalExecutor",
        "core.plugins_folder": MENDS,
        "core.parallelism": 8,
        "core.simple_auth_manager_all_admins": True,
        "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "core.execution_api_server_url": f"http://127.0.0.1:{execution_port}/execution/",
        "database.sql_alchemy_conn": f"sqlite:///{home}/airflow/airflow.db?timeout=30",
        "database.load_default_connections": False,
        "database.check_migrations": False,  # the api-server starts while they run
        "api.host": "127.0.0.1",
        "api.port": api_port,
        "api.base_url": f"http://127.0.0.1:{api_port}",
        "api.workers": 1,
        "api.secret_key": secrets.token_urlsafe(32),
        "api_auth.jwt_secret": secrets.token_urlsafe(64),
        "scheduler.task_instance_heartbeat_timeout": 12,
        "scheduler.task_instance_heartbeat_timeout_detection_interval": 2,
        "scheduler.scheduler_heartbeat_sec": 1,
        "dag_processor.stale_dag_threshold": 3600,  # 3.0 takes a file that it only runs callbacks of for one without DAGs
        "scheduler.scheduler_idle_sleep_time": 0.5,
        "scheduler.scheduler_health_check_threshold": 15,  # then a killed scheduler's tasks are orphans ...
        "scheduler.orphaned_tasks_check_interval": 5,  # ... which the next one looks for this often
        "scheduler.trigger_timeout_check_interval": 2,
        "workers.min_heartbeat_interval": 2,
        "workers.execution_api_timeout": 60,  # a request the proxy holds is not sent again meanwhile
        "dag_processor.refresh_interval": 1,
        "dag_processor.bundle_refresh_check_interval": 1,
        "dag_processor.min_file_process_interval": 15,  # a changed file does not wait for it
        "dag_processor.parsing_processes": 1,
        "logging.colored_console_log": False,
    }
    for name, value in settings.items():
        section, _, option = name.upper().partition(".")
        env[f"AIRFLOW__{section}__{option}"] = str(value)
    env |= {
        "AIRFLOW_HOME": str(home / "airflow"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")])),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
        ATTEMPTS_FILE: str(home / "attempts.jsonl"),
    }
    if env.pop("PYTHONDONTWRITEBYTECODE", None):  # Airflow's start takes half the time with compiled files
        env["PYTHONPYCACHEPREFIX"] = str(_bytecode_folder())
    return env


def write_ahead(home: Path) -> None:
    """Let readers and a writer of the database not wait for each other: the default from 3.3 on, and it stays with the file."""
    with sqlite3.connect(home / "airflow" / "airflow.db", timeout=30) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _api_server_database(env: Mapping[str, str]) -> dict[str, str]:
    """
    Return a setting that keeps the api-server from waiting for a lock that it holds itself.

    An audited request (trigger, clear, mark) commits on the event loop; if a worker's write is open at that
    moment it cannot go on, so the loop waits for itself until SQLite gives up and the answer is a 500.
    """
    name = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
    return {name: env[name].replace("?timeout=30", "?timeout=1")}


def _bytecode_folder() -> Path:
    folder = ROOT / ".pytest_cache" / "airflow-bytecode"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


class Services:
    """Airflow's long-running processes by the name of their command, and everything they started."""

    grace = 5.0  # seconds from SIGTERM to SIGKILL; a scheduler with a running task uses all of them

    def __init__(self, home: Path, env: Mapping[str, str], python: str = sys.executable) -> None:
        self.home = home
        self.env = env
        self.python = python
        self._running: dict[str, psutil.Popen] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start `airflow <name>` in a process group of its own, its output in logs-<name>.txt."""
        command = [self.python, "-m", "airflow", name, *arguments, *_OPTIONS.get(name, [])]
        with (self.home / f"logs-{name}.txt").open("ab") as log:
            self._running[name] = psutil.Popen(
                command,
                cwd=self.home,
                env={**self.env, **(_api_server_database(self.env) if name == "api-server" else {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def spawn(self, arguments: list[str], log: Path, env: Mapping[str, str]) -> psutil.Popen:
        """Start one more `airflow ...` with something added to its environment; whoever asks for it ends it."""
        command = [sys.executable, "-m", "airflow", *arguments]
        with log.open("ab") as out:
            options = {"cwd": self.home, "env": {**self.env, **env}, "stdin": subprocess.DEVNULL, "start_new_session": True}
            return psutil.Popen(command, stdout=out, stderr=out, **options)

    def wait(self, name: str, timeout: float) -> int:
        """Wait for a command that ends by itself."""
        return int(self._running[name].wait(timeout))

    def is_up(self, name: str) -> bool:
        """Tell whether the service's own process runs."""
        service = self._running.get(name)
        return service is not None and service.poll() is None

    def ended(self) -> list[str]:
        """The services that have ended by themselves."""
        return [name for name in list(self._running) if name != "db" and not self.is_up(name)]

    def tail(self, name: str, size: int = 4000) -> str:
        """Return the end of a service's output."""
        return f"--- end of the log of {name}:\n" + (self.home / f"logs-{name}.txt").read_text()[-size:]

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop the named services, or all, with every process they started."""
        stopping = [name for name in (self._running if names is None else names) if name in self._running]
        family = self._family(stopping)
        for name in stopping:
            if self.is_up(name):
                self._running[name].terminate()
        deadline = time.monotonic() + self.grace
        while time.monotonic() < deadline and any(self.is_up(name) for name in stopping):
            time.sleep(0.05)
            family |= self._family(stopping)
        kill(family | self._family(stopping))
        for name in stopping:
            self._running.pop(name).wait(10)

    def _family(self, names: Iterable[str]) -> set[psutil.Process]:
        roots = [psutil.Process(self._running[name].pid) for name in names if self.is_up(name)]
        if "scheduler" in names:  # a task whose supervisor died is nobody's descendant any more
            attempts = read_attempts(self.home / "attempts.jsonl")
            roots += [task for one in attempts if (task := task_process(one)) is not None]
        return with_children(roots)

    def supervisor(self, attempt: Mapping[str, Any]) -> psutil.Process | None:
        """Return the LocalExecutor worker that supervises this attempt, if both still run."""
        task = task_process(attempt)
        supervisor = task and task.parent()
        if supervisor is None or supervisor.pid != attempt["ppid"]:
            return None
        scheduler = psutil.Process(self._running["scheduler"].pid)
        return supervisor if supervisor in scheduler.children(recursive=True) else None


def task_process(attempt: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process that wrote this attempt's line, if it still runs."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(attempt["pid"])
        is_same = process.create_time() < attempt["time"] + 1  # a later process was only given the same pid
        return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def with_children(roots: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Return the processes and all their descendants."""
    family = set(roots)
    for root in list(family):
        with suppress(psutil.NoSuchProcess):
            family.update(root.children(recursive=True))
    return family


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL the processes and their descendants; all are stopped first, so none reacts to another's end."""
    doomed: set[psutil.Process] = set()
    while new := with_children(processes) - doomed:
        for process in new:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        doomed |= new
    for process in doomed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(_runs, doomed)):
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
