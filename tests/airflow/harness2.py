"""A real Airflow 2.11 on this machine, with LocalExecutor and SQLite: in the words of `Airflow`, without api-server and proxy."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.airflow.gates import GATES_FOLDER, Gate
from tests.airflow.harness import Airflow, HarnessError
from tests.airflow.processes import Services, airflow_environment, write_ahead

SETTINGS = {
    "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
    "AIRFLOW__RESUMABLE__STORE": "tests.airflow.gates.GatedStore",
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "12",
    # a dead task is reported until a DAG file processor has failed it; what is reported twice fails a later try, too
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "2",
    "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "15",
    "TEST_TIMEOUT_SECONDS": "20",  # a task takes longer to start than on Airflow 3
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
}


class Airflow2(Airflow):
    """See `Airflow`. What it has no use for is not here: `call`, `proxy`."""

    def __init__(self, home: Path, dags: Path, *, env: Any = None, triggerer: bool = False) -> None:
        super().__init__(home, dags, env=env, triggerer=triggerer)
        self.names = ["scheduler"] + ["triggerer"] * triggerer
        self._turn = threading.Lock()

    def __enter__(self) -> Airflow2:
        self.home.mkdir(parents=True, exist_ok=True)
        self._gates = self.home / "gates"
        self._gates.mkdir(exist_ok=True)
        with ExitStack() as stack:
            env = airflow_environment(self.home, self.dags, 0, 0) | SETTINGS | {GATES_FOLDER: str(self._gates)} | self._env
            self._services = Services(self.home, env)
            stack.callback(self._services.stop)
            self._services.start("db", "migrate")
            if self._services.wait("db", self.start_timeout):
                raise HarnessError(f"db migrate failed\n{self._services.tail('db')}")
            write_ahead(self.home)
            command = [sys.executable, "-m", "tests.airflow.orm"]
            log = stack.enter_context((self.home / "logs-orm.txt").open("ab"))
            self._orm = subprocess.Popen(
                command, cwd=self.home, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
            stack.callback(self._orm.kill)
            self._start(self.names)
            self.wait_until("the DAGs to be listed", self._all_listed, self.start_timeout, "scheduler")
            self._exit = stack.pop_all()
        return self

    def _ask(self, order: str, **arguments: Any) -> Any:
        with self._turn:
            assert self._orm.stdin
            assert self._orm.stdout
            self._orm.stdin.write(json.dumps([order, arguments]) + "\n")
            self._orm.stdin.flush()
            line = self._orm.stdout.readline()
        answer = json.loads(line) if line else {"error": (self.home / "logs-orm.txt").read_text()[-4000:]}
        if "error" in answer:
            raise HarnessError(f"{order} {arguments}\n{answer['error']}")
        return answer["answer"]

    def _healthy(self, name: str, since: float) -> bool:
        return bool(self._ask("ready", since=since, names=[name])[name])

    def _all_listed(self) -> bool:
        found = self._ask("listed")
        if found["errors"]:
            raise HarnessError("\n".join(found["errors"]))
        return {str(file) for file in self._dag_files()} <= set(found["files"])

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None) -> str:
        return str(self._ask("trigger", dag_id=dag_id, conf=conf or {}, run_id=run_id))

    def clear(self, dag_id: str, run_id: str, task_ids: list[Any] | None = None, **_: Any) -> None:
        self._ask("clear", dag_id=dag_id, run_id=run_id, task_ids=task_ids)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        self._ask("mark", dag_id=dag_id, run_id=run_id, task_id=task_id, state=state, map_index=map_index)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        self._ask("delete_run", dag_id=dag_id, run_id=run_id)

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._ask("run_state", dag_id=dag_id, run_id=run_id))

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return dict(self._ask("task", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index))

    def tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[dict[str, Any]]:
        found = self._ask("tries", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
        return sorted(found, key=lambda one: one["try_number"])

    def xcoms(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return dict(self._ask("xcoms", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index))

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        return dict(self._ask("links", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index))

    def variables(self) -> dict[str, str]:
        return dict(self._ask("variables"))

    def state_store(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return dict(self._ask("state_store", dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index))

    def hold_record(self, run_id: str, state: str) -> Any:
        return Gate(self._gates, run_id, state).close()
