"""
Kills the workers of a real Airflow while their jobs run, and counts the jobs: `python3 dev.py demo`.

The example DAG `dags/swap.py` runs beside the same DAG with the provider's own operators, against simulators of
Databricks and EMR in this process. Nothing outside of this machine is asked for anything. What Airflow wrote,
logs and database, stays in `.demo/`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.airflow.harness import Airflow
from tests.services import DatabricksSimulator, EmrService, Hold

JOB_SECONDS = 45.0
KILL_AT = 0.3  # of the job's time
COLUMNS = 100
QUIET = 8.0  # seconds without news, then a line says how far the jobs are

HERE = Path(__file__).parent
HOME = HERE.parent / ".demo"
DAGS = {"ours": "nightly", "theirs": "nightly_upstream"}
IN_THE_WAIT, IN_FLIGHT = "its job runs", "the submit's answer is on its way"
OPERATORS = {"load": "Databricks submit run", "report": "EMR add steps"}
SUBMIT = {"load": "runs/submit", "report": "AddJobFlowSteps"}
PROVIDERS = "apache-airflow-providers-"
LEGEND = f"""\
ours: examples/dags/swap.py with airflow-resumable {version("airflow-resumable")}; theirs: the same DAG with the operators of
{PROVIDERS}databricks {version(f"{PROVIDERS}databricks")} and {PROVIDERS}amazon {version(f"{PROVIDERS}amazon")}.
time lost: seconds that jobs ran for nothing. Every try's log is below .demo/airflow/logs/"""
TOLD = re.compile(r"resumable: (?!asking|the answer)|Run submitted|Reconnecting|added to JobFlow|Reattach")

_started = _last = time.monotonic()


def say(text: str) -> None:
    """One line of progress, with the elapsed seconds; wrapped to the terminal."""
    global _last  # noqa: PLW0603
    _last = time.monotonic()
    lines = textwrap.wrap(text, COLUMNS - 10, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    print(f"{time.monotonic() - _started:6.1f} s  " + ("\n" + " " * 10).join(lines), flush=True)


@dataclass
class Job:
    """A job as its service shows it."""

    name: str
    started: float
    ended: float | None

    @property
    def age(self) -> float:
        return (self.ended or time.time()) - self.started


class Cloud:
    """Both simulated services, asked for the jobs of one task of one DAG run."""

    def __init__(self, databricks: DatabricksSimulator, emr: EmrService) -> None:
        import boto3

        self.databricks, self.emr = databricks, emr
        account = emr.env()
        self._client = boto3.client(
            "emr",
            endpoint_url=account["AWS_ENDPOINT_URL"],
            region_name=account["AWS_DEFAULT_REGION"],
            aws_access_key_id=account["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=account["AWS_SECRET_ACCESS_KEY"],
        )
        self.cluster = emr.create_cluster()
        self._client.modify_cluster(ClusterId=self.cluster, StepConcurrencyLevel=16)

    def env(self) -> dict[str, str]:
        """What points the example DAG, unchanged, at the simulators, and makes it hurry."""
        return {
            **self.databricks.env(),
            **self.emr.env(),
            "AIRFLOW_CONN_AWS_DEFAULT": '{"conn_type": "aws"}',
            "AIRFLOW_VAR_EMR_CLUSTER": self.cluster,
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "AIRFLOW__CORE__PARALLELISM": "24",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(HERE / "demo_parts" / "plugins"),
            "NIGHTLY_POLL_SECONDS": "1",
        }

    def service(self, task_id: str) -> Any:
        return self.databricks if task_id == "load" else self.emr

    def jobs(self, task_id: str, run_id: str) -> list[Job]:
        return list(self._runs(run_id) if task_id == "load" else self._steps(run_id))

    def _runs(self, run_id: str) -> Iterator[Job]:
        self.databricks.active()  # brings the runs up to now
        for run in self.databricks.runs.values():
            if run.payload["run_name"] == f"load {run_id}":
                yield Job(f"Databricks run {run.run_id}", run.started, run.ended)

    def _steps(self, run_id: str) -> Iterator[Job]:
        pages = self._client.get_paginator("list_steps").paginate(ClusterId=self.cluster)
        for step in reversed([step for page in pages for step in page["Steps"]]):  # the newest comes first
            if f"{step['Name']} ".startswith(f"report {run_id} "):
                times = step["Status"]["Timeline"]
                ended = times.get("EndDateTime")
                yield Job(f"EMR step {step['Id']}", times["CreationDateTime"].timestamp(), ended and ended.timestamp())


@dataclass
class Task:
    """One task whose worker is killed, from its first job to its end."""

    airflow: Airflow
    cloud: Cloud
    whose: str
    task_id: str
    killed_while: str
    run_id: str
    hold: Hold | None = None
    is_killed: bool = False
    state: str = ""
    _told: set[str] = field(default_factory=set)

    @property
    def dag_id(self) -> str:
        return DAGS[self.whose]

    def __str__(self) -> str:
        return f"{self.run_id:8} {self.task_id:6}"

    def jobs(self) -> list[Job]:
        return self.cloud.jobs(self.task_id, self.run_id)

    def attempts(self) -> list[dict[str, Any]]:
        return self.airflow.attempts(self.dag_id, self.run_id, self.task_id)

    def progress(self) -> str:
        """Whose job is how far, if one runs."""
        ages = [f"{job.age / JOB_SECONDS:.0%}" for job in self.jobs() if job.ended is None]
        return f"{self.run_id} {self.task_id} {' and '.join(ages)}" if ages else ""

    def lost(self) -> float:
        """Seconds that jobs ran beyond what the one job needs whose result was delivered."""
        return sum(job.age for job in self.jobs()) - JOB_SECONDS if len(self.jobs()) > 1 else 0.0

    # -- what happens, in this order -------------------------------------------------------------

    def begin(self) -> None:
        if self.killed_while == IN_FLIGHT:
            self.hold = Hold()
            self.cloud.service(self.task_id).fault(SUBMIT[self.task_id], self.hold, text=self.run_id)

    def advance(self) -> None:
        """Look once; kill when it is time; tell what is new."""
        for number, job in enumerate(self.jobs(), 1):
            self._tell(job.name, f"{job.name} {'is running' if number == 1 else 'IS A SECOND JOB'}")
        if not self.is_killed:
            self._kill_if_due()
            return
        log = self.airflow.log(self.dag_id, self.run_id, self.task_id, 2).splitlines()
        for line in filter(TOLD.search, log):
            self._tell("try 2", f"try 2: {line.split(' ', 2)[2]}")  # without time and level
        self.state = str(self.airflow.task(self.dag_id, self.run_id, self.task_id)["state"])
        if self.has_ended:
            self._tell("end", self.state)

    @property
    def has_ended(self) -> bool:
        return self.state in ("success", "failed")

    def _kill_if_due(self) -> None:
        if not (attempts := self.attempts()):
            return
        if self.hold is not None:
            try:
                self.hold.wait_reached(0)
            except TimeoutError:
                return
            where = "a job, no id yet"
        else:
            jobs = self.jobs()
            if not jobs or jobs[0].age < KILL_AT * JOB_SECONDS:
                return
            where = f"job at {jobs[0].age / JOB_SECONDS:.0%}"
        self.airflow.kill_worker(attempts[0])
        self.is_killed = True
        self._tell("kill", f"killed the worker (pid {attempts[0]['ppid']}) and the task (pid {attempts[0]['pid']}): {where}")
        if self.hold is not None:
            self.hold.release(drop=True)

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            say(f"{self}  {text}")


def run(stack: ExitStack) -> list[Task]:
    say("starting the simulators of Databricks and EMR")
    databricks = stack.enter_context(DatabricksSimulator(duration=JOB_SECONDS))
    cloud = Cloud(databricks, stack.enter_context(EmrService(duration=JOB_SECONDS)))
    dags = HOME / "dags"
    dags.mkdir(parents=True)
    shutil.copy(HERE / "dags" / "swap.py", dags)
    shutil.copy(HERE / "demo_parts" / "dags" / "upstream.py", dags)
    say(f"starting Airflow {version('apache-airflow')} (scheduler, API server, DAG processor, SQLite): half a minute")
    airflow = stack.enter_context(Airflow(HOME, dags, env=cloud.env()))
    say(f"Airflow is up. ours: {DAGS['ours']} (examples/dags/swap.py); theirs: {DAGS['theirs']}, the provider's operators")
    every: list[Task] = []
    for number, killed_while in enumerate((IN_THE_WAIT, IN_FLIGHT), 1):
        print()
        say(f"Round {number}: the worker dies while {killed_while} (jobs last {JOB_SECONDS:.0f} s)")
        tasks = [
            Task(airflow, cloud, whose, task_id, killed_while, f"{whose}-{number}") for whose in DAGS for task_id in OPERATORS
        ]
        for task in tasks:
            task.begin()
        for whose, dag_id in DAGS.items():
            airflow.trigger(dag_id, run_id=f"{whose}-{number}")
        _see(every + tasks, lambda tasks=tasks: all(task.is_killed for task in tasks), 90)
        every += tasks
    print()
    say("All are killed. Airflow misses their heartbeats after 12 s and starts the retries")
    _see(every, lambda: all(task.has_ended for task in every), 150)
    return every


def _see(tasks: list[Task], is_done: Any, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done after {patience:.0f} s; Airflow's logs are in {HOME.name}/")
        for task in tasks:
            task.advance()
        if time.monotonic() > _last + QUIET and (running := [text for task in tasks if (text := task.progress())]):
            say(f"running: {', '.join(running)}")
        time.sleep(0.2)


def table(tasks: list[Task]) -> str:
    row = "{:35} {:22} {:7} {:>8} {:>5} {:>9}  {}".format
    lines = [row("worker killed while", "operator", "whose", "attempts", "jobs", "time lost", "state"), "-" * 98]
    for killed_while in (IN_THE_WAIT, IN_FLIGHT):
        for task_id, operator in OPERATORS.items():
            for task in tasks:
                if (task.killed_while, task.task_id) == (killed_while, task_id):
                    cells = (len(task.attempts()), len(task.jobs()), f"{task.lost():.0f} s", task.state)
                    lines.append(row(killed_while, operator, task.whose, *cells))
    return "\n".join(lines)


def _interrupt(*_: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not stop the clearing up
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for name in [name for name in os.environ if name.startswith(("AWS_", "DATABRICKS_"))]:
        del os.environ[name]  # no account of yours is in this
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        with ExitStack() as stack:
            tasks = run(stack)
            print(f"\n{table(tasks)}\n\n{LEGEND}\n")
            good = all(len(t.jobs()) == 1 and t.state == "success" for t in tasks if t.whose == "ours")
            say("ending Airflow")
    except KeyboardInterrupt:
        say("stopped; no process is left")
        return 130
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
