"""Task loops (Airflow 3.4): each way to wait, mapped tasks, and what is kept for a task's own work."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule, task, task_group

from resumable import Checkpoint, ResumePolicy, Watermark, once
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.airflow.attempts import ATTEMPTS_FILE, note_attempt
from tests.crash.nightly import NightlyOperator
from tests.support.names import DAG

NOTED: dict[str, Any] = {"pre_execute": note_attempt, "retry_delay": timedelta(seconds=1), "retries": 2}
WAITS: dict[str, dict[str, Any]] = {
    "poll": {},
    "deferred": {"deferrable": True},
    "rescheduled": {"resume_policy": ResumePolicy(wait="reschedule", wait_interval=10)},
}


def run_of(path: str) -> dict[str, Any]:
    """A Databricks run by whose name a test finds the DAG run, and by whose path the iteration."""
    return {"run_name": "{{ run_id }}", "notebook_task": {"notebook_path": path}, "existing_cluster_id": "c"}


for name, how in WAITS.items():

    @task_group(group_id="rounds")
    def rounds(how: Any = how) -> None:
        ResumableDatabricksOperator(task_id="job", json=run_of("/{{ loop.index }}"), polling_period_seconds=1, **NOTED, **how)

    with DAG(f"loop_{name}", schedule=None) as dag:
        rounds.loop(max_iterations=3)
    globals()[dag.dag_id] = dag


@task_group(group_id="rounds")
def mapped_rounds() -> None:
    several = [run_of("/{{ loop.index }}/" + part) for part in ("a", "b")]
    ResumableDatabricksOperator.partial(task_id="job", polling_period_seconds=1, **NOTED).expand(json=several)


with DAG("loop_mapped", schedule=None) as loop_mapped:
    mapped_rounds.loop(max_iterations=2)


def tell(run_id: str, **what: Any) -> None:
    file = Path(os.environ[ATTEMPTS_FILE]).with_name(f"told-{run_id}.jsonl")
    with file.open("a") as lines:
        lines.write(json.dumps(what) + "\n")


@task(retries=1, retry_delay=timedelta(seconds=1), pre_execute=note_attempt)
def work(run_id: str | None = None, ti: Any = None, **context: Any) -> None:
    index = context["loop"].index
    made = once("cluster", lambda: f"cluster of iteration {index}")
    with Watermark("rows", start=0) as mark, Checkpoint("items") as checkpoint:
        for item in checkpoint.items(["a", "b", "c"]):
            if item == "c" and ti.try_number == 1 and index == 1:
                raise RuntimeError("the first try of the second iteration")
            tell(run_id, iteration=index, item=item)
        mark.advance(10 * (index + 1))
    tell(run_id, iteration=index, made=made, since=mark.since)


@task_group(group_id="rounds")
def working_rounds() -> None:
    work()


with DAG("loop_work", schedule=None) as loop_work:
    working_rounds.loop(max_iterations=3)


# -- no loop: a clear, in each way to wait -----------------------------------------------------------------------------

with DAG("clear_reattach", schedule=None) as clear_reattach:
    ResumableDatabricksOperator(
        task_id="job", json=run_of("/x"), polling_period_seconds=1, resume_policy=ResumePolicy(on_clear="reattach"), **NOTED
    )


@task(retries=0, pre_execute=note_attempt)
def items(run_id: str | None = None) -> None:
    gate = Path(os.environ[ATTEMPTS_FILE]).with_name(f"gate-{run_id}")
    with Checkpoint("items", every=1) as checkpoint:
        for item in checkpoint.items(["a", "b", "c"]):
            while item == "c" and not gate.exists():
                time.sleep(0.2)
            tell(str(run_id), item=item)
            time.sleep(0.5)


with DAG("clear_items", schedule=None) as clear_items:
    items.override(task_id="job")()


@task(retries=1, retry_delay=timedelta(minutes=10), pre_execute=note_attempt)
def cluster(run_id: str | None = None) -> None:
    def create(token: str) -> str:
        tell(str(run_id), made=token)
        return token

    once("cluster", create, cleanup=lambda value: tell(str(run_id), removed=value))
    while not Path(os.environ[ATTEMPTS_FILE]).with_name(f"gate-{run_id}").exists():
        time.sleep(0.2)


with DAG("clear_once", schedule=None) as clear_once:
    cluster.override(task_id="job")()


# -- a retry_policy that runs a failed try again without using one -----------------------------------------------------


class GivesUpOnce(NightlyOperator):
    """Its first wait fails by a bug of its own."""

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        self.gives_up = context["task_reschedule_count"] == 0
        super().poll_until_complete(external_id, context)


for name, kind in (("bug", GivesUpOnce), ("job", NightlyOperator)):
    AGAIN = RetryRule(
        exception=[LookupError, RuntimeError],
        action=RetryAction.RESCHEDULE,
        retry_delay=timedelta(seconds=1),
        max_reschedules=1,
    )
    with DAG(f"policy_{name}", schedule=None) as dag:
        kind(
            task_id="job",
            run_name="{{ run_id }}",
            retries=0,
            retry_policy=ExceptionRetryPolicy(rules=[AGAIN]),
            resume_policy=ResumePolicy(on_final_failure="cancel"),
            pre_execute=note_attempt,
        )
    globals()[dag.dag_id] = dag
