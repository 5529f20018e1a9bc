"""
The ready-made operators under contract, each with a bench: its service, seen the same way for all.

An operator that is not in CASES fails `test_every_ready_made_operator_is_under_contract`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

from resumable.operators.databricks import ResumableDatabricksOperator, ResumableDatabricksRunNowOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.contract import aws_cases, aws_jobs, databricks_cases
from tests.services import DatabricksSimulator, Drop, EmrService, Refuse


class Bench(Protocol):
    """A service as the contract sees it. A job is whatever one submit makes."""

    server: Any
    submit: str
    status: tuple[str, ...]
    stop: str

    def arguments(self) -> dict[str, Any]: ...
    def other_arguments(self) -> dict[str, Any]: ...
    def jobs(self) -> int: ...
    def active(self) -> int: ...
    def finish(self, *, ok: bool = True) -> None: ...
    def at_once(self) -> None: ...
    def forget(self) -> None: ...
    def confuse(self) -> None: ...
    def cancels(self) -> int: ...


class DatabricksBench:
    status = ("runs/get",)
    stop = "runs/cancel"

    def __init__(self, server: DatabricksSimulator, submit: str) -> None:
        self.server, self.submit = server, submit
        self._job_id = server.add_job("nightly")

    def arguments(self) -> dict[str, Any]:
        job = (
            {"json": {"job_id": self._job_id}}
            if self.submit == "run-now"
            else {"json": {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}}
        )
        return {**job, "polling_period_seconds": 0, "databricks_retry_delay": 0}

    def other_arguments(self) -> dict[str, Any]:
        arguments = self.arguments()
        return {**arguments, "json": {**arguments["json"], "notebook_params": {"edited": "yes"}}}

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


class EmrBench:
    submit = "AddJobFlowSteps"
    status = ("ListSteps", "DescribeStep")
    stop = "CancelSteps"

    def __init__(self, server: EmrService) -> None:
        self.server = server
        self.cluster = server.create_cluster()

    def _steps(self, *args: str) -> list[dict[str, Any]]:
        jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", *args]}
        return [{"Name": n, "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar} for n in ("load", "count")]

    def arguments(self) -> dict[str, Any]:
        return {
            "job_flow_id": self.cluster,
            "steps": self._steps("a.py"),
            "wait_for_completion": True,
            "waiter_delay": 1,
            "aws_conn_id": None,
        }

    def other_arguments(self) -> dict[str, Any]:
        return {**self.arguments(), "steps": self._steps("edited.py")}

    def jobs(self) -> int:
        return len(self.server.steps(self.cluster)) // 2

    def active(self) -> int:
        states = [s.state for s in self.server.steps(self.cluster)]
        return sum(any(s in ("PENDING", "RUNNING") for s in states[i : i + 2]) for i in range(0, len(states), 2))

    def finish(self, *, ok: bool = True) -> None:
        for step in self.server.steps(self.cluster):
            if step.state in ("PENDING", "RUNNING"):
                self.server.finish(step.id, "COMPLETED" if ok else "FAILED", "" if ok else "boom")

    def fail_in_part(self) -> None:
        """The first of the steps that run fails, the second goes on."""
        running = [step for step in self.server.steps(self.cluster) if step.state in ("PENDING", "RUNNING")]
        if len(running) > 1:
            self.server.finish(running[0].id, "FAILED", "boom")

    def at_once(self) -> None:
        self.server.duration = 0

    def forget(self) -> None:
        for step in self.server.steps(self.cluster):
            self.server.forget(step.id)

    def confuse(self) -> None:
        for step in self.server.steps(self.cluster):
            self.server.finish(step.id, "A_STATE_OF_NEXT_YEAR")

    def cancels(self) -> int:
        return self.server.count("CancelSteps")


@contextlib.contextmanager
def databricks(environ: Any, submit: str) -> Iterator[Bench]:
    with DatabricksSimulator() as server:
        for name, value in server.env().items():
            environ.setenv(name, value)
        yield DatabricksBench(server, submit)


@contextlib.contextmanager
def emr(environ: Any) -> Iterator[Bench]:
    with EmrService() as server:
        for name, value in server.env().items():
            environ.setenv(name, value)
        yield EmrBench(server)


@dataclass(frozen=True)
class Case:
    """One operator in one mode."""

    name: str
    ours: type[Any]
    theirs: type[Any]
    bench: Callable[[Any], contextlib.AbstractContextManager[Bench]]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def deferrable(self) -> bool:
        return bool(self.extra.get("deferrable"))

    def __str__(self) -> str:
        return self.name + ("-deferrable" if self.deferrable else "-sync")


def _both_modes(name: str, ours: type[Any], theirs: type[Any], bench: Any) -> list[Case]:
    return [Case(name, ours, theirs, bench), Case(name, ours, theirs, bench, {"deferrable": True})]


CASES: list[Case] = [
    *_both_modes(
        "databricks-submit-run",
        ResumableDatabricksOperator,
        DatabricksSubmitRunOperator,
        lambda environ: databricks(environ, "runs/submit"),
    ),
    *_both_modes(
        "databricks-run-now",
        ResumableDatabricksRunNowOperator,
        DatabricksRunNowOperator,
        lambda environ: databricks(environ, "run-now"),
    ),
    *_both_modes("emr-steps", ResumableEmrAddStepsOperator, EmrAddStepsOperator, emr),
    *(Case(*case, mode) for *case, modes in (*aws_cases.CASES, *aws_jobs.CASES, *databricks_cases.CASES) for mode in modes),
]

DROP_ANSWER = Drop()
SERVER_ERROR_AFTER_EFFECT = Refuse(status=503, after_effect=True)
