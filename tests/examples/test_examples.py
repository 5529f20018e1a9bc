"""The example DAGs: each parses without any service, holds what it says, and survives Airflow's serialisation."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from werkzeug import Request, Response

from resumable import OnClear, OnTimeout, ResumePolicy
from resumable.jobs.operator import is_durable_class
from tests.services import Drop, ServiceServer
from tests.services.server import json_response
from tests.support.names import DagBag, DagSerialization
from tests.support.runner import TaskInstance, WorkerDied

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted((EXAMPLES / "dags").glob("*.py"))
EXPECTED = {
    "custom_operator": {"train": "TrainOperator"},
    "mapped": {"load": "ResumableDatabricksSubmitRunOperator"},
    "nightly": {"load": "ResumableDatabricksSubmitRunOperator", "report": "ResumableEmrAddStepsOperator"},
}


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(EXAMPLES / "dags", safe_mode=False)


def test_every_example_parses(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert {Path(dag.fileloc).name for dag in bag.dags.values()} == {file.name for file in FILES}


@pytest.mark.parametrize("dag_id", EXPECTED)
def test_an_example_holds_the_tasks_it_shows(bag: DagBag, dag_id: str) -> None:
    tasks = bag.dags[dag_id].tasks
    assert {task.task_id: task.task_type for task in tasks} == EXPECTED[dag_id]
    assert all(is_durable_class(getattr(task, "operator_class", type(task))) for task in tasks)
    assert all(task.retries == 3 for task in tasks)


@pytest.mark.parametrize("dag_id", EXPECTED)
def test_an_example_comes_back_whole_from_serialisation(bag: DagBag, dag_id: str) -> None:
    stored = json.loads(json.dumps(DagSerialization.to_dict(bag.dags[dag_id])))
    back = DagSerialization.from_dict(stored)
    assert {task.task_id: task.task_type for task in back.tasks} == EXPECTED[dag_id]


def test_the_mapped_task_keeps_its_policy(bag: DagBag) -> None:
    task: Any = bag.dags["mapped"].get_task("load")
    assert task.is_mapped
    unmapped = task.unmap({"json": {"run_name": "load at"}})
    assert isinstance(unmapped.resume_policy, ResumePolicy)
    assert (unmapped.resume_policy.on_clear, unmapped.resume_policy.on_timeout) == (OnClear.REATTACH, OnTimeout.DETACH)


def test_the_swap_is_two_import_lines() -> None:
    """The demo's upstream.py is swap.py with the provider's operators: nothing but the imports and the name differs."""
    ours, theirs = (
        {line for line in file.read_text().split('"""', 2)[2].splitlines() if not line.startswith("#")}
        for file in (EXAMPLES / "dags" / "swap.py", EXAMPLES / "demo_parts" / "dags" / "upstream.py")
    )
    assert sorted(re.sub(r"^from (\S+) import.* (\w+)$", r"\1 \2", line) for line in ours - theirs) == [
        "resumable.operators.databricks DatabricksSubmitRunOperator",
        "resumable.operators.emr EmrAddStepsOperator",
        next(line for line in ours if line.startswith('with DAG("nightly"')),
    ]
    assert len(theirs - ours) == 3


class JobService(ServiceServer):
    """The imaginary HTTP API of custom_operator.py: one job for each id that is posted."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, str] = {}
        self.cancelled: list[str] = []

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        return f"{request.method} {'/jobs' if request.path == '/jobs' else 'job'}", request.get_json(silent=True) or {}

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        if operation == "POST /jobs":
            self.jobs.setdefault(body["id"], "RUNNING")
            return json_response({"job": body["id"]})
        job, _, verb = request.path.removeprefix("/jobs/").partition("/")
        if job not in self.jobs:
            return json_response({}, 404)
        if verb == "cancel":
            self.jobs[job] = "CANCELLED"
            self.cancelled.append(job)
        return json_response({"status": self.jobs[job], "model_url": f"s3://models/{job}"})

    def end(self, status: str = "DONE") -> None:
        self.jobs.update({job: status for job, seen in self.jobs.items() if seen == "RUNNING"})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobService]:
    with JobService() as service:
        monkeypatch.setenv("AIRFLOW_CONN_TRAINING", json.dumps({"conn_type": "http", "host": service.url}))
        yield service


@pytest.fixture
def train(service: JobService) -> TaskInstance:
    path = EXAMPLES / "dags" / "custom_operator.py"
    spec = importlib.util.spec_from_file_location("custom_operator", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.TrainOperator.settle_time = 2.0  # the service here has no lag
    return TaskInstance(lambda: module.TrainOperator(task_id="train", model="m", data="d", poll_seconds=0.001))


def die_after(train: TaskInstance, effect: str, times: int = 1) -> None:
    """Run an attempt whose worker dies right after the n-th such effect."""
    left = [times]

    def listen(done: str) -> None:
        left[0] -= done.startswith(effect)
        train.effects.dead = train.effects.dead or left[0] == 0

    with pytest.raises(WorkerDied):
        train.attempt(listener=listen)


def test_the_custom_operator_finds_its_job_again_when_the_answer_died_with_the_worker(
    service: JobService, train: TaskInstance
) -> None:
    die_after(train, "http POST")
    assert train.record["state"] == "submitting"
    service.end()
    (job,) = service.jobs
    assert train.attempt() == f"s3://models/{job}"
    assert list(service.jobs) == [job]


def test_the_custom_operator_reattaches_to_its_running_job(service: JobService, train: TaskInstance) -> None:
    die_after(train, "http GET")
    looks = []

    def end_at_the_third_look(effect: str) -> None:
        looks.append(effect)
        if looks.count("http GET /jobs/" + next(iter(service.jobs))) == 3:
            service.end()

    (job,) = service.jobs
    assert train.attempt(listener=end_at_the_third_look) == f"s3://models/{job}"
    assert service.count("POST /jobs") == 1


def test_the_custom_operator_submits_again_what_failed_or_is_gone(service: JobService, train: TaskInstance) -> None:
    die_after(train, "http GET")
    service.end("FAILED")
    train.failing_attempt()
    die_after(train, "http GET")
    assert len(service.jobs) == 2
    service.jobs.popitem()
    train.failing_attempt()
    service.fault("POST /jobs", Drop(before_effect=True))
    with pytest.raises(requests.ConnectionError):
        train.attempt()
    train.attempt(listener=lambda _: service.end())
    assert service.count("POST /jobs") == 4
    assert len(service.jobs) == 2


def test_a_clear_cancels_the_running_job_of_the_custom_operator_first(service: JobService, train: TaskInstance) -> None:
    die_after(train, "http GET")
    train.clear()
    train.attempt(listener=lambda _: len(service.jobs) == 2 and service.end())
    assert service.cancelled == [next(iter(service.jobs))]
    assert len(service.jobs) == 2
