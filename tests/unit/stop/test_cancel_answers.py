"""A cancel that is answered with HTTP 200, and "not done" inside, is no cancel: at a task, in a trigger, and for the sweep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from resumable.cleanup.ended import Verdict, verdict
from resumable.cleanup.reach import adapter_of
from resumable.errors import StopNotTaken
from resumable.jobs.decision import JobState
from resumable.jobs.record import JobRecord
from tests.contract.cases import CASES, Bench, Case
from tests.services.faults import Refuse
from tests.support.names import TaskDeferred
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

NOT_DONE: dict[str, dict[str, Any]] = {
    "emr-steps": {"CancelStepsInfoList": [{"StepId": "s", "Status": "FAILED", "Reason": "Step cannot be cancelled"}]},
    "glue": {"SuccessfulSubmissions": [], "Errors": [{"JobRunId": "r", "ErrorDetail": {"ErrorCode": "Cannot"}}]},
    "appflow-run": {"invalidExecutions": ["execution-1"]},
    "redshift-data": {"Status": False},
    "quicksight-ingestion": {"Status": 500},
    "comprehend-pii": {"JobId": "j", "JobStatus": "IN_PROGRESS"},
    "ecs": {"task": {"lastStatus": "RUNNING", "desiredStatus": "RUNNING"}},
    "mwaa-trigger-dag-run": {"RestApiStatusCode": 200, "RestApiResponse": {"state": "running"}},
}


@pytest.fixture(params=NOT_DONE)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(name: str, monkeypatch: pytest.MonkeyPatch, *, deferrable: bool = False) -> Iterator[tuple[Case, Bench]]:
    case = next(c for c in CASES if c.name == name and c.deferrable == deferrable)
    with case.bench(monkeypatch) as bench:
        yield case, bench


@pytest.fixture
def desk(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Case, Bench]]:
    with opened(name, monkeypatch) as both:
        yield both


def test_the_answer_that_nothing_was_stopped_is_an_error_and_the_job_runs_on(name: str, desk: tuple[Case, Bench]) -> None:
    case, bench = desk
    record = left_behind(case, bench)
    adapter = adapter_of(record.reach)
    assert adapter is not None
    assert record.handle is not None
    bench.server.fault(bench.stop, Refuse(status=200, body=NOT_DONE[name]))
    with pytest.raises(StopNotTaken, match="not done"):
        adapter.cancel(record.handle)
    assert bench.active() == 1
    adapter.cancel(record.handle)
    assert bench.active() == 0


def test_the_same_answer_about_a_job_that_has_ended_is_none(name: str, desk: tuple[Case, Bench]) -> None:
    case, bench = desk
    record = left_behind(case, bench)
    adapter = adapter_of(record.reach)
    assert adapter is not None
    assert record.handle is not None
    bench.finish()
    bench.server.fault(bench.stop, Refuse(status=200, body=NOT_DONE[name]))
    adapter.cancel(record.handle)
    assert adapter.observe(record.handle).state is JobState.SUCCEEDED


@pytest.mark.parametrize("name", [n for n in NOT_DONE if any(c.name == n and c.deferrable for c in CASES)])
def test_a_trigger_reads_the_answer_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(name, monkeypatch, deferrable=True) as (case, bench):
        instance = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra}))
        operator, context = instance._process(instance.effects)
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        bench.server.fault(bench.stop, Refuse(status=200, body=NOT_DONE[name]))
        with pytest.raises(StopNotTaken):
            asyncio.run(deferred.value.trigger.cancel())
        assert bench.active() == 1


def test_the_sweep_stops_a_job_that_was_told_to_and_not_seen_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("athena", monkeypatch) as (case, bench):
        data = left_behind(case, bench).to_json()
        told = JobRecord.from_json({**data, "state": "cancelled", "left": "the task does not wait for it"})
        assert verdict(told, "failed", has_tries_left=False, by_user=False) is Verdict.STOP


def left_behind(case: Case, bench: Bench) -> JobRecord:
    """The record of a try that died while its job ran."""
    instance = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra}))

    def listen(effect: str) -> None:
        instance.effects.dead = bool(instance.data.get("resumable", {}).get("job")) and effect != "store.set"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    return JobRecord.from_json(json.loads(json.dumps(instance.record)))
