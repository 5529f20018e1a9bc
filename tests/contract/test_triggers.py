"""What the trigger of every deferrable operator does when the triggerer stops it: a user's mark cancels the job, nothing else."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from resumable import host
from resumable.jobs.decision import JobState
from resumable.jobs.record import JobRecord
from resumable.stop.triggers import MARKED
from tests.contract.attempts import can_stop, die_in_the_wait, shape, task, undisturbed
from tests.contract.cases import CASES, Bench, Case

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

EARLIER = json.loads((Path(__file__).parents[1] / "unit" / "stop" / "triggers" / "0.1.0.json").read_text())

NOT_ENDED = ("deferred", "scheduled", "queued", "running", "up_for_retry", "restarting", None)
"""What a trigger may be told that was given to another triggerer, or whose task was cleared."""


@pytest.fixture(params=[case for case in CASES if case.deferrable], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


class Deferred(Exception):
    pass


def deferred(case: Case, bench: Bench, **more: Any) -> tuple[Any, Any]:
    """A task instance that has been deferred, and its trigger as the triggerer makes it."""
    held: list[Any] = []

    def hold(trigger: Any) -> None:
        held.append(trigger)
        raise Deferred

    instance = task(case, bench, **more)
    instance.on_defer = hold
    with pytest.raises(Deferred):
        instance.attempt()
    _, kwargs = held[0].serialize()
    trigger = type(held[0])(**kwargs)
    trigger.task_instance = None
    assert bench.active() == 1
    return instance, trigger


def told(monkeypatch: pytest.MonkeyPatch, state: str | Exception | None) -> None:
    """What a trigger hears when it asks for its task's state."""

    async def state_seen(ti: Any) -> str | None:
        if isinstance(state, Exception):
            raise state
        return state

    monkeypatch.setattr("resumable.host.state_seen_by_trigger", state_seen)


def test_a_trigger_that_is_merely_stopped_leaves_the_job_and_a_users_mark_cancels_it(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trigger = deferred(case, bench)
    for state in NOT_ENDED:
        told(monkeypatch, state)
        asyncio.run(trigger.on_kill())
    assert (bench.cancels(), bench.active()) == (0, 1)
    if can_stop(bench):
        told(monkeypatch, "failed")
        asyncio.run(trigger.on_kill())
        assert (bench.cancels(), bench.active()) == (1, 0)


@pytest.mark.parametrize("case", [case for case in CASES if not case.deferrable], ids=str)
def test_the_trigger_of_wait_defer_leaves_the_job_when_it_is_merely_stopped_and_cancels_it_for_a_users_mark(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trigger = deferred(case, bench, resume_policy={"wait": "defer"})
    path, kwargs = trigger.serialize()
    assert path == "resumable.fleet.trigger.JobTrigger"
    assert json.loads(json.dumps(kwargs)) == kwargs
    for state in NOT_ENDED:
        told(monkeypatch, state)
        asyncio.run(trigger.on_kill())
    assert (bench.cancels(), bench.active()) == (0, 1)
    if can_stop(bench):
        told(monkeypatch, "failed")
        asyncio.run(trigger.on_kill())
        assert (bench.cancels(), bench.active()) == (1, 0)


@pytest.mark.parametrize("state", MARKED)
def test_each_state_that_only_a_user_gives_a_deferred_task_cancels_the_job(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    if not can_stop(bench):
        pytest.skip("nothing stops the job")
    _, trigger = deferred(case, bench, resume_policy={"on_clear": "reattach"})
    told(monkeypatch, state)
    asyncio.run(trigger.on_kill())
    assert bench.active() == 0


def test_a_trigger_that_cannot_ask_cancels_nothing_and_says_so_once(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trigger = deferred(case, bench)
    told(monkeypatch, OSError("no answer"))
    log = mock.Mock()
    monkeypatch.setattr(type(trigger), "log", log, raising=False)
    asyncio.run(trigger.on_kill())
    assert (bench.cancels(), bench.active()) == (0, 1)
    assert log.warning.call_count == 1
    assert "could not ask why" in log.warning.call_args.args[0]


def test_a_triggerer_of_the_earlier_release_can_run_it_and_asks_before_it_cancels(case: Case, bench: Bench) -> None:
    """It knows these arguments and no others, and asks for the state only where ``keeps_on_clear`` is True."""
    _, trigger = deferred(case, bench)
    path, kwargs = trigger.serialize()
    earlier = EARLIER[case.name]
    assert path == earlier["path"]
    assert set(kwargs) == set(earlier["kwargs"])
    assert kwargs["keeps_on_clear"] is True


def test_a_trigger_that_wakes_up_after_the_job_is_done_undoes_nothing(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its triggerer stood still; another one saw the job through, and the task has succeeded: it is no user's mark."""
    instance, trigger = deferred(case, bench)
    record = JobRecord.from_json(instance.record)
    assert record.handle is not None
    bench.finish()
    told(monkeypatch, "success")
    asyncio.run(trigger.on_kill())
    operator = instance.make()
    assert type(operator)._resumable.service(operator).observe(record.handle).state is JobState.SUCCEEDED


def test_a_trigger_that_has_failed_costs_neither_a_try_nor_the_result_of_a_job_that_has_succeeded(
    case: Case, bench: Bench
) -> None:
    """The provider's code would defer once more: there is nothing to wait for, and the trigger would fail again."""
    instance = task(case, bench)
    instance.retries = instance.max_tries = 0

    def fail(_deferred: Any) -> tuple[str, dict[str, Any]]:
        bench.finish()
        return "__fail__", {"error": "Trigger failure", "traceback": ["the triggerer has no such module"]}

    instance.run_trigger = fail
    result = instance.attempt()
    assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")
    expected, xcoms, _ = undisturbed(case, bench)
    assert shape(result) == shape(expected)
    assert shape(instance.xcoms) == shape(xcoms)


def extended(case: Case) -> tuple[Case, list[Any]]:
    """The case of a subclass with an ``execute_complete`` of its own, and the events that it was called with."""
    events: list[Any] = []

    class Extended(case.ours):
        def execute_complete(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
            events.append(event)
            return super().execute_complete(context, event=event, **kwargs)

    return replace(case, ours=Extended), events


@pytest.mark.parametrize("wait_ends", ["with a failed trigger", "unseen"])
def test_an_execute_complete_of_the_authors_has_its_word_on_a_job_that_has_succeeded(
    case: Case, bench: Bench, wait_ends: str
) -> None:
    """Where the provider's code defers for a job that is done, as some of it does not."""
    mine, events = extended(case)
    instance = task(mine, bench)
    instance.retries = instance.max_tries = 1

    def fail(_deferred: Any) -> tuple[str, dict[str, Any]]:
        bench.finish()
        return "__fail__", {"error": "Trigger failure", "traceback": ["the triggerer has no such module"]}

    if wait_ends == "unseen":
        die_in_the_wait(instance, bench)
        bench.finish()
    else:
        instance.max_tries, instance.run_trigger = 0, fail
    result = instance.attempt()
    assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")
    heard, xcoms = len(events), dict(instance.xcoms)
    expected, expected_xcoms, _ = undisturbed(mine, bench)
    assert heard == len(events) - heard
    assert shape(result) == shape(expected)
    assert shape(xcoms) == shape(expected_xcoms)


def test_how_a_job_has_failed_is_the_operators_own_to_say_also_where_its_trigger_failed(case: Case, bench: Bench) -> None:
    def ends_with(run_trigger: Any) -> Exception:
        instance = task(case, bench)
        instance.run_trigger = run_trigger
        error = instance.failing_attempt()
        assert (instance.record["state"], bench.active()) == ("failed", 0)
        return error

    def fail(_deferred: Any) -> tuple[str, dict[str, Any]]:
        bench.finish(ok=False)
        return "__fail__", {"error": "Trigger failure", "traceback": ["the triggerer has no such module"]}

    error = ends_with(fail)
    assert bench.jobs() == 1
    has_no_other_wait = case.name == "step-functions"
    assert host.is_deferral_error(error) is has_no_other_wait, error
