"""Both simulated services, asked for the jobs of one task instance, with the times that tell which ran beside which."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.services import DatabricksSimulator, EmrService, Refuse
from tests.soak.plan import Key

CANCEL_SECONDS = 1.5
"""How long a cancelled Databricks run takes to stop."""

PARTS = 2
"""Steps of one EMR job."""


@dataclass(frozen=True)
class Job:
    """
    A job as its service shows it.

    Attributes:
        id: as the task returns it: the run id, or the ids of the steps.
        end: "success", "failed", "cancelled", or "" while it runs.
    """

    task: str
    id: Any
    started: float
    ended: float | None
    end: str

    @property
    def is_active(self) -> bool:
        return self.ended is None

    @property
    def age(self) -> float:
        return (self.ended or time.time()) - self.started

    @property
    def ids(self) -> tuple[Any, ...]:
        return tuple(self.id) if isinstance(self.id, list) else (self.id,)


class SoakEmr(EmrService):
    """With the steps' times, and room for every step at once."""

    def create_cluster(self, name: str = "cluster") -> str:
        cluster_id = super().create_cluster(name)
        self._cluster(cluster_id).step_concurrency_level = 1024
        return cluster_id

    def timeline(self, cluster_id: str) -> list[tuple[str, str, str, float, float | None]]:
        """Return id, name, state, start and end of every step, oldest first."""
        with self.lock:
            self._progress()
            return [
                (step.id, step.name, step.state, _since_epoch(step.creation_date_time), _since_epoch(step.end_date_time))
                for step in self._cluster(cluster_id).steps
            ]


def _since_epoch(moment: Any) -> Any:
    import datetime

    return None if moment is None else moment.replace(tzinfo=datetime.timezone.utc).timestamp()


class Cloud:
    """Jobs of one kind of operators, whose names all begin with what `of` was given."""

    def __init__(self, databricks: DatabricksSimulator, emr: SoakEmr) -> None:
        self.databricks, self.emr = databricks, emr
        databricks.cancel_lag_reads = 10**9  # a cancelled run stops after a time, see `progress`
        self._told: dict[int, float] = {}
        self.cluster = emr.create_cluster()

    def env(self) -> dict[str, str]:
        return {**self.databricks.env(), **self.emr.env(), "SOAK_EMR_CLUSTER": self.cluster}

    def service(self, key: Key) -> Any:
        return self.databricks if key.service == "databricks" else self.emr

    def progress(self) -> None:
        """Let time do to cancelled runs what it does at the service."""
        now = time.time()
        with self.databricks.lock:
            for run in self.databricks.runs.values():
                if run.cancelled and run.is_active and now - self._told.setdefault(run.run_id, now) > CANCEL_SECONDS:
                    run.end("CANCELED", "Run cancelled.")

    def jobs(self) -> dict[str, list[Job]]:
        """Every job by the name of its task, oldest first."""
        found: dict[str, list[Job]] = {}
        with self.databricks.lock:
            for run in self.databricks.runs.values():
                end = {None: "", "SUCCESS": "success", "CANCELED": "cancelled", "FAILED": "failed"}[run.result_state]
                found.setdefault(run.payload["run_name"], []).append(
                    Job(run.payload["run_name"], run.run_id, run.started, run.ended, end)
                )
        steps: dict[str, list[Any]] = {}
        for step in self.emr.timeline(self.cluster):
            steps.setdefault(step[1].split(" ")[0], []).append(step)
        for name, every in steps.items():
            # the steps of one request are next to each other
            found[name] = [_job(name, every[n : n + PARTS]) for n in range(0, len(every), PARTS)]
        return found

    def finish(self, job: Job) -> None:
        """Let a job succeed."""
        if isinstance(job.id, list):
            for step in job.id:
                self.emr.finish(step)
        else:
            self.databricks.finish(job.id)

    def fail(self, job: Job, *, in_part: bool = False) -> None:
        """Let a job fail; ``in_part``: one step of it does, while the other runs on."""
        if isinstance(job.id, list):
            for step in job.id[:1] if in_part else reversed(job.id):
                self.emr.finish(step, "FAILED", "it ran out of memory")
        else:
            self.databricks.finish(job.id, "FAILED", "it ran out of memory")

    def throttle(self, key: Key, job: Job, times: int) -> None:
        """Refuse the next requests about a job: too many of them."""
        for one in job.ids[:1]:
            status = 429 if key.service == "databricks" else 400  # EMR's own way to say so, see `EmrService.error_body`
            self.service(key).fault("*", Refuse(status), times, text=str(one))

    def deny(self, key: Key, job: Job) -> None:
        """Answer the next request about a job, once, that there is none of that id."""
        one = job.ids[0]
        said = {
            "databricks": {"error_code": "INVALID_PARAMETER_VALUE", "message": f"Run {one} does not exist."},
            "emr": {"__type": "InvalidRequestException", "message": f"Step id '{one}' is not valid."},
        }[key.service]
        self.service(key).fault("*", Refuse(400, said), text=str(one))

    def looks(self) -> dict[Any, list[float]]:
        """When each job was looked at, by the id of the run or of a step."""
        found: dict[Any, list[float]] = {}
        for call in self.databricks.calls("runs/get"):
            found.setdefault(int(call.body.get("run_id", 0)), []).append(call.time)
        for call in [*self.emr.calls("DescribeStep"), *self.emr.calls("ListSteps")]:
            for step in [call.body.get("StepId"), *(call.body.get("StepIds") or [])]:
                found.setdefault(step, []).append(call.time)
        return found

    def cancel_requests(self) -> int:
        return self.databricks.count("runs/cancel") + self.emr.count("CancelSteps")


def _job(name: str, steps: list[Any]) -> Job:
    states = {step[2] for step in steps}
    is_active = bool(states & {"PENDING", "RUNNING", "CANCEL_PENDING"})
    end = "" if is_active else "success" if states == {"COMPLETED"} else "failed" if "FAILED" in states else "cancelled"
    return Job(name, [step[0] for step in steps], steps[0][3], None if is_active else max(step[4] for step in steps), end)
