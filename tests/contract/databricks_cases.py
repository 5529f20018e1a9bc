"""The Databricks operators that mirror a task or an SQL statement, under contract."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from airflow.providers.databricks.operators.databricks import (
    DatabricksNotebookOperator,
    DatabricksSQLStatementsOperator,
    DatabricksTaskOperator,
)

from resumable.operators.databricks import (
    ResumableDatabricksNotebookOperator,
    ResumableDatabricksSQLStatementsOperator,
    ResumableDatabricksTaskOperator,
)
from tests.services import DatabricksSimulator

BOTH: tuple[dict[str, Any], ...] = ({}, {"deferrable": True})
QUICK = {"polling_period_seconds": 0, "databricks_retry_delay": 0}


def notebook(word: str) -> dict[str, Any]:
    return {"notebook_path": "/x", "source": "WORKSPACE", "notebook_params": {"word": word}, "existing_cluster_id": "c"}


def task(word: str) -> dict[str, Any]:
    return {"task_config": {"spark_python_task": {"python_file": f"/{word}.py"}}, "existing_cluster_id": "c"}


def sql(word: str) -> dict[str, Any]:
    return {"statement": f"INSERT INTO t VALUES ('{word}')", "warehouse_id": "w"}


class RunBench:
    submit = "runs/submit"
    status = ("runs/get",)
    stop = "runs/cancel"

    def __init__(self, server: DatabricksSimulator, spec: Callable[[str], dict[str, Any]]) -> None:
        self.server, self._spec = server, spec

    def arguments(self) -> dict[str, Any]:
        return {**self._spec("as written"), **QUICK}

    def other_arguments(self) -> dict[str, Any]:
        return {**self._spec("edited"), **QUICK}

    def jobs(self) -> int:
        return len(self.server.runs)

    def active(self) -> int:
        return len(self.server.active())

    def finish(self, *, ok: bool = True) -> None:
        for run in self.server.active():
            self.server.finish(run.run_id, "SUCCESS" if ok else "FAILED", "" if ok else "boom")

    def at_once(self) -> None:
        self.server.duration = 0

    def forget(self) -> None:
        for run_id in list(self.server.runs):
            self.server.forget(run_id)

    def confuse(self) -> None:
        for run in self.server.active():
            self.server.set_state(run.run_id, "A_STATE_OF_NEXT_YEAR")

    def cancels(self) -> int:
        return self.server.count("runs/cancel")


class StatementBench(RunBench):
    submit = "sql/statements"
    status = ("sql/get",)
    stop = "sql/cancel"

    def jobs(self) -> int:
        return len(self.server.sql.all)

    def active(self) -> int:
        return len(self.server.sql.active())

    def finish(self, *, ok: bool = True) -> None:
        self.server.sql.finish("SUCCEEDED" if ok else "FAILED", "" if ok else "boom")

    def at_once(self) -> None:
        self.server.sql.duration = 0

    def forget(self) -> None:
        self.server.sql.all.clear()

    def confuse(self) -> None:
        self.server.sql.finish("A_STATE_OF_NEXT_YEAR")

    def cancels(self) -> int:
        return self.server.count("sql/cancel")


def bench(kind: type[RunBench], spec: Callable[[str], dict[str, Any]]) -> Any:
    @contextlib.contextmanager
    def opened(environ: Any) -> Iterator[RunBench]:
        with DatabricksSimulator() as server:
            for name, value in server.env().items():
                environ.setenv(name, value)
            yield kind(server, spec)

    return opened


CASES: list[tuple[str, type[Any], Any, Any, tuple[dict[str, Any], ...]]] = [
    (
        "databricks-notebook",
        ResumableDatabricksNotebookOperator,
        DatabricksNotebookOperator,
        bench(RunBench, notebook),
        BOTH,
    ),
    ("databricks-task", ResumableDatabricksTaskOperator, DatabricksTaskOperator, bench(RunBench, task), BOTH),
    (
        "sql-statements",
        ResumableDatabricksSQLStatementsOperator,
        DatabricksSQLStatementsOperator,
        bench(StatementBench, sql),
        BOTH,
    ),
]
