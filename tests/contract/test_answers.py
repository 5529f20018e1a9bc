"""An answer that has nothing of what it should have says nothing of a job: neither that it is gone nor that there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import JobRecord
from tests.contract.attempts import die_in_the_wait, task
from tests.contract.cases import Bench, Case
from tests.services import Refuse
from tests.support.runner import WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

EMPTY = [{}, "<html>Sign in</html>"]


def service_of(operator: Any) -> Any:
    return operator._resumable.of.service(operator)


def spoil(bench: Bench, body: Any, ask: Callable[[], Any]) -> Any:
    """From now on the calls that ``ask`` makes of the service are answered with ``body``; returns what it came to before."""
    before = len(bench.server.calls())
    answer = ask()
    for operation in {call.operation for call in bench.server.calls()[before:]} - {"GetCallerIdentity"}:
        bench.server.fault(operation, Refuse(status=200, body=body), times=-1)
    return answer


@pytest.mark.parametrize("body", EMPTY, ids=repr)
def test_an_answer_without_the_job_is_no_look_at_it(case: Case, bench: Bench, body: Any) -> None:
    if case.deferrable:
        pytest.skip("the look is the same")
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    service = service_of(instance.make())
    handle = JobRecord.from_json(instance.record).handle
    spoil(bench, body, lambda: service.observe(handle))
    try:
        seen = service.observe(handle)
    except Exception:
        return
    assert seen.state is JobState.UNKNOWN, seen


@pytest.mark.parametrize("body", EMPTY, ids=repr)
def test_an_answer_without_a_list_is_no_proof_that_no_job_carries_the_token(case: Case, bench: Bench, body: Any) -> None:
    service = service_of(task(case, bench).make())
    if case.deferrable or not (service.recovery is Recovery.LOOK_UP or service.finds_expired):
        pytest.skip("the look-up is the same, or there is none")
    if case.name == "sql-statements" and body == {}:
        pytest.skip("Databricks leaves out what is empty, and so answers with this where there is no statement")
    instance, intents = task(case, bench), []

    def listen(_: str) -> None:
        record = instance.data.get("resumable", {})
        intents.extend([record] if record.get("state") == "submitting" else [])
        instance.effects.dead = record.get("state") == "submitted"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    intent = JobRecord.from_json(intents[-1])
    service = service_of(instance.make())
    found = spoil(bench, body, lambda: service.find(intent))
    assert found.ids == JobRecord.from_json(instance.record).handle.ids
    with pytest.raises(Exception):
        service.find(intent)
