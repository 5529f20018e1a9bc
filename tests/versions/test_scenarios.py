"""
What the tables of the guarantees promise, on a real scheduler of whatever Airflow is installed here.

    python3 dev.py matrix 2.11          this file and the other tests, in an environment with that Airflow
    python3 dev.py matrix 2.11 --core   the scenarios that CI runs

What a version cannot do is in `CANNOT`, and must be seen not to be done: an entry that is out of date is a failure.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from resumable.stores.variables import opened
from tests.airflow.harness import Airflow
from tests.crash import scenarios, stops
from tests.crash.scenarios import Remote
from tests.crash.stops import Task
from tests.versions.cannot import VERSION, why_not

pytestmark = [pytest.mark.airflow, pytest.mark.versions, pytest.mark.timeout(1500)]

CORE = bool(os.environ.get("MATRIX_CORE"))
TABLE = os.environ.get("MATRIX_TABLE")
AT_ONCE = 6

Run = Callable[[Task], None]


def _is_one_job_when_killed(scenario: str, t: Task) -> None:
    t.dag_id = f"ours_{t.kind}"
    scenarios.SCENARIOS[scenario](t.airflow, t.remote, t.kind, t.dag_id, t.run_id)
    number = t.attempt(2)["try_number"]  # a try may be used up without an execution
    t.until("a job", lambda: t.jobs > 0)
    said = ("reattached", "submitted", "no new submit")
    t.until("the second attempt", lambda: any(f"resumable: {words}" in t.log(number) for words in said))
    t.end()
    assert (t.jobs, t.cancels) == (1, 0), t.log(number)


def a_signal_that_reaches_the_task_itself_hands_it_back_at_no_cost(t: Task) -> None:
    """What an eviction is where the supervisor is told nothing, or passes nothing on."""
    t.start("_r0")
    attempt = t.in_the_wait()
    os.kill(attempt["pid"], signal.SIGTERM)
    t.state("up_for_reschedule")
    assert (t.active, t.cancels) == (1, 0)
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)


KILLED = {
    f"killed {scenario}-{kind}": (kind, partial(_is_one_job_when_killed, scenario))
    for kind in ("databricks", "emr", "databricks_deferrable", "emr_deferrable")
    for scenario in scenarios.SCENARIOS
    if not (kind.endswith("deferrable") and scenario in ("in the wait", "before the submit"))
}
STOPPED = {
    "-".join((words.replace("_", " "), kind)): of
    for name, of in stops.SCENARIOS.items()
    for words, _, kind in [name.rpartition("-")]
}
DIRECT = {
    f"a signal that reaches the task itself hands it back at no cost-{kind}": (
        kind,
        a_signal_that_reaches_the_task_itself_hands_it_back_at_no_cost,
    )
    for kind in ("databricks", "emr")
}
EVERY: dict[str, tuple[str, Run]] = {**KILLED, **STOPPED, **DIRECT}
CHOSEN = {
    "killed in the wait-emr",
    "killed answer in flight-databricks",
    "killed right after the answer-emr",
    "killed before the submit-databricks",
    "killed answer in flight-emr_deferrable",
    "an eviction leaves the job and uses no try not even with retries 0-databricks",
    "a task marked failed cancels its job once-emr",
    "a clear while running stops the old job before the new one-databricks",
    "a clear after success runs again-emr",
    "wait reschedule holds no slot between looks and uses no try-databricks",
}
assert set(EVERY) >= CHOSEN
MEANINGLESS = {"2.11": "lost the api server"}  # a task of Airflow 2 asks none
EVERY = {name: of for name, of in EVERY.items() if MEANINGLESS.get(VERSION, "\n") not in name}
PLAN = {name: of for name, of in EVERY.items() if name in CHOSEN or not CORE}


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, airflow: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(_run, airflow, remote, name) for name in stops.asked_for(request, PLAN)}


def _run(airflow: Airflow, remote: Remote, name: str) -> None:
    kind, run = PLAN[name]
    run(Task(airflow, remote, kind, name.replace(" ", "-")))


@pytest.mark.parametrize("name", PLAN)
def test(running: dict[str, Future[None]], name: str) -> None:
    error = running[name].exception()
    _note(name, "no" if error else "yes")
    why = why_not(name)
    if why is None and error is not None:
        raise error
    assert (error is None) == (why is None), f"Airflow {VERSION} is said not to do this ({why}), and does"


def test_no_variable_is_left_of_a_task_that_has_succeeded(airflow: Airflow, running: dict[str, Future[None]]) -> None:
    for future in running.values():
        future.exception()

    def has_succeeded(task: Any, value: Any) -> bool:
        row = airflow.task(task["dag_id"], task["run_id"], task["task_id"], task["map_index"])
        return bool(value["state"] == "succeeded" and row["state"] == "success")  # nobody has marked it since

    def left() -> list[str]:
        return [name for name, text in airflow.variables().items() if has_succeeded(*opened(text))]

    airflow.wait_until("no Variable of a success", lambda: not left(), 30)  # it goes right after the state has been reported


def _note(name: str, found: str) -> None:
    if TABLE:
        with Path(TABLE).open("a") as file:
            file.write(json.dumps({"airflow": VERSION, "scenario": name, "found": found}) + "\n")
