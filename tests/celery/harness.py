"""Redis and PostgreSQL as Debian packages them, and Celery workers that a test can stop."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.airflow.harness import Airflow
from tests.airflow.processes import free_port, kill, task_process
from tests.crash.scenarios import Remote

START_TIMEOUT = 60.0


def _program(name: str) -> str | None:
    """A program of Debian's packages; those of PostgreSQL's server are not on the PATH."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, homes)]))


def missing_programs() -> list[str]:
    """What has to be installed first."""
    return [name for name in ("redis-server", "postgres", "initdb") if _program(name) is None]


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Run Redis and PostgreSQL on free ports of 127.0.0.1 with data of their own; the environment for Airflow."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="resumable-celery-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis, postgres = free_port(), free_port()
        command = [_program("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        stack.enter_context(_server(command, folder / "redis.txt"))
        stack.enter_context(_postgres(folder, postgres))
        database = f"postgresql+psycopg2://airflow@127.0.0.1:{postgres}/postgres"
        yield {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.replace("psycopg2", "asyncpg"),
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__CORE__PARALLELISM": "32",  # the executor counts a task whose worker is lost as running, for hours
        }


@contextmanager
def _postgres(folder: Path, port: int) -> Iterator[None]:
    """PostgreSQL does not run as root: then it runs as the user of Debian's package."""
    import psycopg2

    data = folder / "postgres"
    data.mkdir()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        folder.chmod(0o711)
        os.chown(data, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    initdb = [_program("initdb"), "-D", data, "-U", "airflow", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=data, **user)
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "max_connections": "200"}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    command = [_program("postgres"), "-D", str(data), "-p", str(port), *settings]
    with _server(command, folder / "postgres.txt", cwd=data, **user) as server:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg2.connect(host="127.0.0.1", port=port, user="airflow", dbname="postgres").close()
                break
            except psycopg2.OperationalError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield


@contextmanager
def _server(command: list[Any], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server and end it, by its own pid."""
    with log.open("ab") as out:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield server
    finally:
        server.send_signal(signal.SIGINT)  # Redis ends, and PostgreSQL does not wait for its clients
        with suppress(subprocess.TimeoutExpired):
            server.wait(10)
        server.kill()


class Worker:
    """One `airflow celery worker` with its pool, its supervisors and their tasks."""

    def __init__(self, airflow: CeleryAirflow, name: str, env: Mapping[str, str]) -> None:
        self.name, self.log_file = name, airflow.home / f"logs-worker-{name}.txt"
        self.broker = airflow.broker
        command = ["celery", "worker", "--concurrency", "4", "--celery-hostname", name, "--skip-serve-logs", "--without-gossip"]
        self.process = airflow.start_process(command, self.log_file, env)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def has(self, attempt: Mapping[str, Any]) -> bool:
        """Whether the attempt's task runs on this worker."""
        task = task_process(attempt)
        return task is not None and self.process.pid in [parent.pid for parent in task.parents()]

    @property
    def is_up(self) -> bool:
        return bool(self.process.poll() is None)

    @property
    def waits_for_a_message(self) -> bool:
        """Whether Redis has a request for the next message from this worker: one that stops does not take it back."""
        import redis

        own = {f"{link.laddr.ip}:{link.laddr.port}" for link in self.process.net_connections("tcp")}
        clients = redis.Redis.from_url(self.broker).client_list()
        return any(client["addr"] in own and "b" in client["flags"] for client in clients)

    def signal(self, sig: int) -> None:
        """Send a signal to the worker's main process alone, as a container's init does by default for Celery."""
        self.process.send_signal(sig)

    def lose(self) -> None:
        """SIGKILL the worker, if it still runs, with all that it started: the node is gone, or the container."""
        kill([process for process in psutil.process_iter() if _session(process) == self.process.pid])


def _session(process: psutil.Process) -> int:
    with suppress(ProcessLookupError, PermissionError):
        return os.getsid(process.pid)
    return 0


class CeleryAirflow(Airflow):
    """`Airflow` without workers of its own: `worker` starts one. Give it the environment of `servers`."""

    remote: Remote

    def __enter__(self) -> CeleryAirflow:
        self.workers: list[Worker] = []
        super().__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.lose()
        for attempt in self.every_attempt():
            self.kill_orphan(attempt)
        super().__exit__(*exc)

    def worker(self, name: str, **env: str) -> Worker:
        """Start a worker and wait until it takes messages."""
        worker = Worker(self, name, env)
        self.workers.append(worker)
        self.wait_until(f"worker {name}", lambda: "ready." in worker.log, START_TIMEOUT)
        return worker

    @property
    def broker(self) -> str:
        """The URL of Redis."""
        return self._env["AIRFLOW__CELERY__BROKER_URL"]

    def start_process(self, arguments: list[str], log: Path, env: Mapping[str, str]) -> psutil.Popen:
        return self._services.spawn(arguments, log, env)
