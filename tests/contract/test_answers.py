"""An answer that has nothing of what it should have says nothing of a job: neither that it is gone nor that there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import botocore.client
import botocore.session
import pytest

from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import JobRecord
from tests.contract.attempts import die_in_the_wait, task
from tests.contract.cases import Bench, Case
from tests.services import Refuse
from tests.support.runner import TaskInstance, WorkerDied

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


def die_with_the_handle_kept(case: Case, bench: Bench) -> tuple[TaskInstance, JobRecord]:
    """The task instance, and its record as it was before the submit was answered."""
    instance, intents = task(case, bench), []

    def listen(_: str) -> None:
        record = instance.data.get("resumable", {})
        intents.extend([record] if record.get("state") == "submitting" else [])
        instance.effects.dead = record.get("state") == "submitted"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    return instance, JobRecord.from_json(intents[-1])


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
    instance, intent = die_with_the_handle_kept(case, bench)
    service = service_of(instance.make())
    found = spoil(bench, body, lambda: service.find(intent))
    assert found.ids == JobRecord.from_json(instance.record).handle.ids
    with pytest.raises(Exception):
        service.find(intent)


@pytest.fixture
def pages_begin_empty(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each list of AWS begins with a page that has nothing in it, and names another. Returns the lists that were asked for."""
    call, asked = botocore.client.BaseClient._make_api_call, []
    models = botocore.session.get_session()

    def called(client: Any, operation: str, params: dict[str, Any]) -> Any:
        if not operation.startswith("List") and operation != "GetJobRuns":
            return call(client, operation, params)
        asked.append(operation)
        page = models.get_paginator_model(client.meta.service_model.service_name).get_paginator(operation)
        if params.get(page["input_token"]) != "page 2":
            return {page["result_key"]: [], page["output_token"]: "page 2"}
        return call(client, operation, {name: value for name, value in params.items() if name != page["input_token"]})

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", called)
    return asked


def test_a_page_with_nothing_in_it_is_not_the_end_of_a_list(case: Case, bench: Bench, pages_begin_empty: list[str]) -> None:
    service = service_of(task(case, bench).make())
    if case.deferrable or not (service.recovery is Recovery.LOOK_UP or service.finds_expired):
        pytest.skip("the look-up is the same, or there is none")
    instance, intent = die_with_the_handle_kept(case, bench)
    pages_begin_empty.clear()
    found = service_of(instance.make()).find(intent)
    assert pages_begin_empty or "databricks" in type(service).__module__, "no list was asked for"
    assert found is not None
    assert found.ids == JobRecord.from_json(instance.record).handle.ids
