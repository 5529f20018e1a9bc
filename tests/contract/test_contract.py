"""What every ready-made operator promises, against its service, at every point where a worker can die."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import re
import signal
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import urllib3.util.connection

import resumable.operators
from resumable import JobGoneError, LostSightError, StateStoreError
from resumable.cleanup.reach import adapter_of
from resumable.jobs.decision import JobState
from resumable.jobs.operator import is_durable_class
from resumable.jobs.record import JobRecord
from resumable.stores.base import STORE_TRIES
from tests.contract.attempts import after, another_task, can_stop, die_in_the_wait, shape, task, undisturbed
from tests.contract.cases import CASES, DROP_ANSWER, SERVER_ERROR_AFTER_EFFECT, Bench, Case
from tests.services import Refuse
from tests.support.names import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
)
from tests.support.runner import TaskInstance, WorkerDied, in_fleet

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]


def refuses_beside_a_job_that_nothing_stops(instance: TaskInstance, bench: Bench) -> None:
    with pytest.raises(AirflowFailException, match="Nothing was submitted, the job runs on"):
        instance.attempt()
    assert (bench.active(), bench.jobs()) == (1, 1)


def test_every_ready_made_operator_is_under_contract() -> None:
    found = set()
    for module in pkgutil.iter_modules(resumable.operators.__path__):
        if not module.name.startswith("_"):
            home = importlib.import_module(f"resumable.operators.{module.name}")
            durable = {n: o for n, o in vars(home).items() if is_durable_class(o)}
            named = {n for n in durable if n.startswith("Resumable") and n != "ResumableMixin"}
            assert named <= set(home.__all__)
            found |= {o for n, o in durable.items() if n in home.__all__}
    assert found == {case.ours for case in CASES}


def test_an_undisturbed_run_gives_what_the_providers_operator_gives(case: Case, bench: Bench) -> None:
    result, xcoms, _ = undisturbed(case, bench)
    theirs = TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments(), **case.extra))
    their_result = theirs.attempt()
    assert shape(result) == shape(their_result)
    assert shape(xcoms) == shape(theirs.xcoms)
    assert bench.jobs() == 2


def test_a_retry_reattaches_to_the_active_job_and_gives_the_same(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    result = instance.attempt(listener=after("store.set", bench.finish))
    xcoms = dict(instance.xcoms)
    assert bench.jobs() == 1
    assert bench.server.count(bench.submit) == 1
    assert bench.cancels() == 0
    fresh_result, fresh_xcoms, _ = undisturbed(case, bench)
    assert shape(result) == shape(fresh_result)
    assert shape(xcoms) == shape(fresh_xcoms)
    assert instance.record["state"] == "succeeded"


def test_a_retry_delivers_a_job_that_succeeded_meanwhile(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    bench.finish()
    result = instance.attempt()
    assert bench.server.count(bench.submit) == bench.jobs() == 1
    assert shape(result) == shape(undisturbed(case, bench)[0])


def test_a_job_that_failed_is_followed_by_one_new_job(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    bench.finish(ok=False)
    instance.failing_attempt()
    assert (bench.jobs(), instance.record["state"]) == (1, "failed")
    instance.attempt(listener=after("xcom run_page_url", bench.finish) if "databricks" in case.name else _finish_soon(bench))
    assert bench.jobs() == 2
    assert bench.active() == 0


def _finish_soon(bench: Bench) -> Any:
    def listen(effect: str) -> None:
        if bench.jobs() == 2:
            bench.finish()

    return listen


def test_on_failed_fail_submits_nothing_more_and_wastes_no_try(case: Case, bench: Bench) -> None:
    instance = task(case, bench, resume_policy={"on_failed": "fail"})
    die_in_the_wait(instance, bench)
    bench.finish(ok=False)
    with pytest.raises(AirflowFailException, match="on_failed=fail. No other job is submitted"):
        instance.attempt()
    assert bench.jobs() == 1
    assert instance.record["state"] == "failed"


def test_a_failure_in_the_wait_is_noted_and_the_retry_submits_anew(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    with pytest.raises(Exception, match="(?i)fail|error|boom"):
        instance.attempt(listener=lambda effect: bench.active() and bench.finish(ok=False))
    bench.at_once()
    instance.attempt()
    assert bench.jobs() == 2


def lives(case: Case, wait: str) -> dict[str, Any]:
    """The arguments of a task that waits in the given way; skipped where its mode has another one."""
    if wait != "poll" and case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    return {"resume_policy": {"wait": wait}}


@pytest.mark.parametrize("wait", ["poll", "reschedule", "defer"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_job_that_keeps_failing_is_asked_for_once_a_try_and_each_failure_uses_one(
    case: Case, bench: Bench, wait: str, retries: int
) -> None:
    instance = task(case, bench, **lives(case, wait))
    instance.retries = instance.max_tries = retries

    def fail(_effect: str = "") -> None:
        if bench.active() and instance.data.get("resumable", {}).get("state") == "submitted":
            bench.finish(ok=False)

    listener = fail if wait == "poll" else None
    instance.on_defer = lambda _: fail()
    assert instance.run(between=fail, listener=listener) == "failed"
    assert (bench.jobs(), len(instance.errors), bench.cancels()) == (retries + 1, retries + 1, 0)
    assert instance.record["state"] == "failed"


def evict_in_the_wait(instance: TaskInstance) -> None:
    """A real SIGTERM while Airflow still has the task as running: it is handed back."""
    left = [lambda: os.kill(os.getpid(), signal.SIGTERM)]

    def listen(effect: str) -> None:
        if left and effect.startswith("http") and instance.data.get("resumable", {}).get("state") == "submitted":
            left.pop()()

    with pytest.raises(AirflowRescheduleException):
        instance.attempt(listener=listen)
    instance.try_number -= 1  # a hand-back uses up none


def test_a_job_that_fails_while_its_task_is_handed_back_is_the_failure_of_that_try(case: Case, bench: Bench) -> None:
    if case.deferrable:
        pytest.skip("no process waits that could be evicted")
    instance = task(case, bench)
    instance.retries = instance.max_tries = 0
    evict_in_the_wait(instance)
    assert (bench.active(), bench.cancels()) == (1, 0)
    assert instance.run(between=lambda: bench.finish(ok=False)) == "failed"
    assert (bench.jobs(), len(instance.errors), instance.record["state"]) == (1, 1, "failed")


def test_a_second_job_in_one_start_of_a_task_is_an_error_before_it_is_sent(case: Case, bench: Bench) -> None:
    class Loops(case.ours):  # type: ignore[misc, name-defined]
        def execute(self, context: Any, **_: Any) -> Any:
            return [super(Loops, self).execute(context) for _ in range(3)]

    if case.deferrable:
        pytest.skip("a deferral ends the start")
    bench.at_once()
    instance = TaskInstance(lambda: Loops(task_id="task", **{**bench.arguments(), **case.extra}))
    with pytest.raises(AirflowFailException, match="A second job was asked for in one start of a task"):
        instance.attempt()
    assert bench.jobs() == 1


def test_inside_another_task_it_runs_as_the_providers_and_leaves_no_record(
    case: Case, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrapper(BaseOperator):
        def execute(self, context: Any) -> Any:
            for n in range(2):
                case.ours(task_id=f"inner_{n}", **{**bench.arguments(), **case.extra}).execute(context)
                another_task(bench)

    if case.deferrable:
        pytest.skip("what is deferred inside of another task never comes back to it")
    bench.at_once()
    instance = TaskInstance(lambda: Wrapper(task_id="task"))
    instance.attempt()
    assert bench.jobs() == 2
    assert "resumable" not in instance.data
    assert capsys.readouterr().out.count("is executed inside task task and is not made durable") == 2


@pytest.mark.parametrize("wait", ["poll", "reschedule", "defer"])
def test_a_job_that_is_gone_fails_a_try_and_the_next_one_submits(case: Case, bench: Bench, wait: str) -> None:
    instance = task(case, bench, **lives(case, wait))
    die_in_the_wait(instance, bench)
    bench.finish()
    bench.forget()
    submits = bench.server.count(bench.submit)
    assert isinstance(instance.failing_attempt(), JobGoneError)
    assert (instance.record["state"], bench.server.count(bench.submit)) == ("gone", submits)
    bench.at_once()
    instance.attempt()
    assert bench.server.count(bench.submit) == submits + 1


def test_a_job_that_the_service_forgot_is_submitted_again_or_refused_by_policy(case: Case, bench: Bench) -> None:
    refusing = task(case, bench, resume_policy={"on_missing": "fail"})
    die_in_the_wait(refusing, bench)
    bench.finish()
    bench.forget()
    with pytest.raises(AirflowFailException, match="on_missing=fail"):
        refusing.attempt()
    submits = bench.server.count(bench.submit)
    bench.at_once()
    willing = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra}))
    willing.data = refusing.data
    willing.attempt()
    assert bench.server.count(bench.submit) == submits + 1


def test_an_unknown_state_is_never_a_reason_to_submit(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    bench.confuse()
    with pytest.raises(LostSightError, match="Nothing was submitted"):
        instance.attempt()
    assert bench.server.count(bench.submit) == 1


def test_a_status_that_cannot_be_had_is_waited_out(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    for operation in bench.status[:1]:
        bench.server.fault(operation, type(SERVER_ERROR_AFTER_EFFECT)(status=503), times=12)
    instance.attempt(listener=after("store.set", bench.finish))
    assert bench.server.count(bench.submit) == bench.jobs() == 1


def test_a_status_that_cannot_be_had_for_long_leaves_the_job_alone(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    with bench.server.outage(bench.status), pytest.raises(LostSightError, match="left as it is"):
        instance.attempt()
    assert (bench.active(), bench.cancels(), bench.server.count(bench.submit)) == (1, 0, 1)


@pytest.mark.parametrize("fault", [DROP_ANSWER, SERVER_ERROR_AFTER_EFFECT], ids=["dropped", "503-after-effect"])
def test_a_lost_answer_makes_no_second_job(case: Case, bench: Bench, fault: Any) -> None:
    bench.at_once()
    bench.server.fault(bench.submit, fault)
    instance = task(case, bench)
    result = instance.attempt()
    assert bench.jobs() == 1
    assert shape(result) == shape(undisturbed(case, bench)[0])


def sends_again_in_vain(case: Case, bench: Bench, *, clears: bool, is_up: Any) -> None:
    """The first request is served and its answer lost; what the client sends after it fails until ``is_up`` is called."""
    instance = task(case, bench)
    most = [0]

    def note(_: str) -> None:
        most[0] = max(most[0], bench.active())
        if instance.data.get("resumable", {}).get("job"):
            bench.finish()

    with contextlib.suppress(Exception):  # one that looks its job up may have found it
        instance.attempt(listener=note)
    assert bench.jobs() == 1
    assert instance.record["state"] != "rejected"
    is_up()
    if clears and can_stop(bench):
        instance.clear()
    instance.attempt(listener=note)
    assert most[0] <= 1
    assert bench.jobs() == 1 or clears


@pytest.mark.parametrize("clears", [True, False], ids=["clear", "retry"])
def test_a_repetition_that_finds_the_network_down_does_not_hide_the_job_of_the_first_request(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch, clears: bool
) -> None:
    connect, is_down = urllib3.util.connection.create_connection, [True]

    def connect_while_up(*args: Any, **kwargs: Any) -> Any:
        if is_down and bench.server.count(bench.submit):
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(*args, **kwargs)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect_while_up)
    bench.server.fault(bench.submit, DROP_ANSWER)
    sends_again_in_vain(case, bench, clears=clears, is_up=is_down.clear)


@pytest.mark.parametrize("clears", [True, False], ids=["clear", "retry"])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_repetition_that_is_refused_does_not_hide_the_job_of_the_first_request(
    case: Case, bench: Bench, status: int, clears: bool
) -> None:
    bench.server.fault(bench.submit, DROP_ANSWER)
    bench.server.fault(bench.submit, type(SERVER_ERROR_AFTER_EFFECT)(status=status, body={"message": "no"}))
    sends_again_in_vain(case, bench, clears=clears, is_up=bench.server.clear_faults)


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])
@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("page", ["<html><head><title>Blocked</title></head></html>", ""], ids=["page", "nothing"])
def test_a_proxys_page_in_answer_to_a_submit_is_no_refusal_of_the_services(
    case: Case, bench: Bench, page: str, status: int, is_made: bool
) -> None:
    bench.at_once()
    bench.server.fault(bench.submit, Refuse(status=status, body=page, after_effect=is_made))
    instance = task(case, bench)
    assert instance.run() == "success"
    assert bench.jobs() == 1
    assert len(instance.errors) <= 1


def test_a_refused_submit_is_tried_again_by_the_next_try(case: Case, bench: Bench) -> None:
    bench.at_once()
    bench.server.fault(bench.submit, type(SERVER_ERROR_AFTER_EFFECT)(status=403, body={"message": "no"}))
    instance = task(case, bench)
    with pytest.raises(Exception, match="403|no|denied"):
        instance.attempt()
    assert instance.record["state"] == "rejected"
    instance.attempt()
    assert bench.jobs() == 1


def test_a_clear_after_success_runs_again(case: Case, bench: Bench) -> None:
    bench.at_once()
    instance = task(case, bench)
    instance.attempt()
    instance.try_number += 1
    instance.clear()
    instance.attempt()
    assert bench.jobs() == 2


def test_a_clear_while_the_job_runs_cancels_it_before_the_next_is_submitted(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    instance.clear()
    if not can_stop(bench):
        refuses_beside_a_job_that_nothing_stops(instance, bench)
        return
    seen: list[int] = []

    def listen(effect: str) -> None:
        seen.append(bench.active())
        if bench.jobs() == 2:
            bench.finish()

    instance.attempt(listener=listen)
    assert (bench.jobs(), bench.cancels()) == (2, 1)
    assert max(seen) == 1


def test_on_clear_reattach_keeps_the_running_job(case: Case, bench: Bench) -> None:
    instance = task(case, bench, resume_policy={"on_clear": "reattach"})
    die_in_the_wait(instance, bench)
    instance.clear()
    instance.attempt(listener=after("store.set", bench.finish))
    assert (bench.jobs(), bench.cancels()) == (1, 0)


@pytest.mark.parametrize(("policy", "jobs", "cancels"), [("restart", 2, 1), ("reattach", 1, 0)])
def test_an_edit_of_a_running_job_follows_the_policy(case: Case, bench: Bench, policy: str, jobs: int, cancels: int) -> None:
    instance = task(case, bench, resume_policy={"on_change": policy})
    die_in_the_wait(instance, bench)
    instance.make = lambda: case.ours(
        task_id="task", **{**bench.other_arguments(), **case.extra}, resume_policy={"on_change": policy}
    )

    def listen(effect: str) -> None:
        if bench.jobs() == jobs and (jobs == 2 or effect == "store.set"):
            bench.finish()

    if cancels and not can_stop(bench):
        refuses_beside_a_job_that_nothing_stops(instance, bench)
        return
    instance.attempt(listener=listen)
    assert (bench.jobs(), bench.cancels()) == (jobs, cancels)


def test_on_change_fail_names_the_running_job_and_submits_nothing(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    instance.make = lambda: case.ours(
        task_id="task", **{**bench.other_arguments(), **case.extra}, resume_policy={"on_change": "fail"}
    )
    with pytest.raises(AirflowFailException, match="on_change=fail.*is left as it is"):
        instance.attempt()
    assert (bench.active(), bench.server.count(bench.submit)) == (1, 1)


def test_nothing_is_submitted_while_the_store_is_down(case: Case, bench: Bench) -> None:
    for verb in ("get", "set"):
        instance = task(case, bench)
        instance.store_down = lambda asked, verb=verb: asked == verb
        with pytest.raises(StateStoreError, match="Nothing was submitted"):
            instance.attempt()
    assert bench.server.count(bench.submit) == 0


def test_a_handle_that_cannot_be_written_is_written_at_a_later_look(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    failures: list[str] = []

    def down(verb: str) -> bool:
        fails = verb == "set" and bench.jobs() > 0 and len(failures) < STORE_TRIES
        if fails:
            failures.append(instance.record["state"])
        return fails

    instance.store_down = down
    bench.at_once()
    instance.attempt()
    assert set(failures) == {"submitting"}
    assert instance.record["state"] == "succeeded"
    assert instance.record["job"]
    assert bench.jobs() == 1


def test_a_worker_that_dies_with_an_unwritten_handle_is_followed_by_no_second_job(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    instance.store_down = lambda verb: verb == "set" and bench.jobs() > 0

    def listen(effect: str) -> None:
        if bench.jobs() and effect.startswith(("xcom", "http", "defer")) and bench.submit.split("/")[-1] not in effect:
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    assert instance.record["state"] == "submitting"
    instance.store_down = lambda verb: False
    instance.attempt(listener=after("store.set", bench.finish))
    assert bench.jobs() == 1


def test_durable_false_is_exactly_the_providers_operator(case: Case, bench: Bench) -> None:
    bench.at_once()
    ours = task(case, bench, durable=False)
    ours.attempt()
    theirs = TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments(), **case.extra))
    theirs.attempt()
    done = [[re.sub(r"\d+", "N", effect) for effect in whose.effects.done] for whose in (ours, theirs)]  # ids in paths
    assert done[0] == done[1]
    assert set(ours.data) == set(theirs.data)  # what the provider's own durability keeps, where it has one
    assert "idempotency_token" not in bench.server.calls(bench.submit)[0].body


def test_trouble_with_the_status_while_waiting_fails_no_try_and_makes_no_second_job(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    hits = {"left": 1}

    def listen(effect: str) -> None:
        if bench.jobs() and hits["left"]:
            hits["left"] = 0
            for operation in bench.status:
                bench.server.fault(operation, type(SERVER_ERROR_AFTER_EFFECT)(status=503), times=7)
        elif bench.jobs():
            bench.finish()

    try:
        instance.attempt(listener=listen)
    except AirflowRescheduleException:  # the trigger failed: the task is started again, which uses up no try
        assert case.deferrable
        bench.server.clear_faults()
        instance.try_number -= 1
        bench.finish()
        instance.attempt()
    assert (bench.jobs(), instance.try_number) == (1, 1)
    assert instance.record["state"] == "succeeded"


def test_wait_reschedule_gives_the_slot_back_between_looks_and_gives_the_same(case: Case, bench: Bench) -> None:
    if case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    instance = task(case, bench, resume_policy={"wait": "reschedule", "wait_interval": 60})
    for _ in range(3):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
        instance.try_number -= 1  # a reschedule uses up none
        waiting = dict(instance.xcoms)
    bench.finish()
    result = instance.attempt()
    xcoms = dict(instance.xcoms)
    assert (bench.jobs(), bench.server.count(bench.submit)) == (1, 1)
    fresh_result, fresh_xcoms, _ = undisturbed(case, bench)
    assert shape(result) == shape(fresh_result)
    assert shape(xcoms) == shape(fresh_xcoms)
    fresh_xcoms.pop("cloudwatch_events", None)  # a link that a provider shows once the job has ended
    assert shape(waiting) == shape(fresh_xcoms)


def test_wait_defer_gives_the_slot_back_until_the_job_has_ended_and_gives_the_same(case: Case, bench: Bench) -> None:
    if case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    instance = task(case, bench, resume_policy={"wait": "defer"})
    instance.retries = instance.max_tries = 0
    deferrals: list[TaskDeferred] = []
    waiting: dict[str, Any] = {}

    def run_trigger(deferred: TaskDeferred) -> tuple[str, dict[str, Any]]:
        deferrals.append(deferred)
        if len(deferrals) == 1:  # the scheduler's time-out is a look, and no more
            waiting.update(instance.xcoms)
            back = in_fleet(deferred)
            assert (bench.active(), back) == (1, ("__fail__", {"error": "Trigger timeout"}))
            return back
        return in_fleet(deferred, during=bench.finish)

    instance.run_trigger = run_trigger
    result = instance.attempt()
    xcoms = dict(instance.xcoms)
    assert (bench.jobs(), bench.server.count(bench.submit), bench.cancels(), len(deferrals)) == (1, 1, 0, 2)
    assert {deferred.method_name for deferred in deferrals} == {"execute"}
    fresh_result, fresh_xcoms, _ = undisturbed(case, bench)
    assert shape(result) == shape(fresh_result)
    assert shape(xcoms) == shape(fresh_xcoms)
    fresh_xcoms.pop("cloudwatch_events", None)  # a link that a provider shows once the job has ended
    assert shape(waiting) == shape(fresh_xcoms)


def test_a_short_job_pays_no_deferral(case: Case, bench: Bench) -> None:
    if case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    instance = task(case, bench, resume_policy={"wait": "defer"})
    instance.on_defer = lambda _: pytest.fail("deferred")
    bench.at_once()
    instance.attempt()
    assert bench.jobs() == 1


def test_a_stop_reaches_the_job_by_its_record_alone(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    record = JobRecord.from_json(json.loads(json.dumps(instance.record)))
    adapter = adapter_of(record.reach)
    assert adapter is not None
    assert record.handle is not None
    assert adapter.observe(record.handle).state is JobState.ACTIVE
    if not can_stop(bench):
        with pytest.raises(NotImplementedError):
            adapter.cancel(record.handle)
        assert (bench.active(), bench.jobs()) == (1, 1)
        return
    adapter.cancel(record.handle)
    assert (bench.active(), bench.cancels()) == (0, 1)


@pytest.mark.parametrize("ok", [True, False])
def test_a_job_that_has_ended_is_seen_by_its_record_alone_as_at_its_task_and_a_cancel_of_it_is_no_error(
    case: Case, bench: Bench, ok: bool
) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    record = JobRecord.from_json(json.loads(json.dumps(instance.record)))
    adapter = adapter_of(record.reach)
    bench.finish(ok=ok)
    assert adapter is not None
    assert record.handle is not None
    seen = adapter.observe(record.handle)
    assert seen.state is (JobState.SUCCEEDED if ok else JobState.FAILED)
    operator = instance.make()
    assert seen == type(operator)._resumable.service(operator).observe(record.handle)
    if can_stop(bench):
        adapter.cancel(record.handle)


def time_out_in_the_wait(instance: TaskInstance) -> None:
    left = [AirflowTaskTimeout("execution_timeout")]

    def listen(effect: str) -> None:
        if left and effect.startswith("http") and instance.data.get("resumable", {}).get("state") == "submitted":
            raise left.pop()

    with pytest.raises(AirflowTaskTimeout):
        instance.attempt(listener=listen)


def test_a_job_counts_as_cancelled_when_it_is_seen_to_stop_and_not_when_a_cancel_is_answered(case: Case, bench: Bench) -> None:
    if case.deferrable or not can_stop(bench):
        pytest.skip("there is no wait to be timed out, or no way to stop the job")
    instance = task(case, bench)
    bench.server.fault(bench.stop, type(SERVER_ERROR_AFTER_EFFECT)(status=200, body={}))
    time_out_in_the_wait(instance)
    assert (bench.active(), bench.cancels()) == (1, 1)
    assert "closed_at" not in instance.record
    instance.record["state"] = "cancelled"  # where an empty answer is a refusal, the next try would take the job up
    instance.attempt(listener=_finish_soon(bench))
    assert (bench.jobs(), bench.active(), bench.cancels()) == (2, 0, 2)


def test_a_job_that_is_seen_to_stop_is_closed_as_cancelled(case: Case, bench: Bench) -> None:
    if case.deferrable or not can_stop(bench):
        pytest.skip("there is no wait to be timed out, or no way to stop the job")
    instance = task(case, bench)
    time_out_in_the_wait(instance)
    assert (bench.active(), bench.cancels()) == (0, 1)
    assert instance.record["state"] == "cancelled"
    assert "closed_at" in instance.record


@pytest.mark.parametrize("wait", ["poll", "reschedule", "defer"])
def test_a_job_over_its_job_timeout_is_cancelled_and_the_task_fails_for_good(case: Case, bench: Bench, wait: str) -> None:
    if case.deferrable and wait != "poll":
        pytest.skip("two ways to give the slot back exclude each other")
    if not can_stop(bench):
        pytest.skip("nothing stops the job, so a job_timeout is refused")
    instance = task(case, bench, resume_policy={"job_timeout": 3600, "wait": wait, "wait_interval": 60})
    die_in_the_wait(instance, bench)
    long_ago = datetime.now(timezone.utc) - timedelta(hours=2)
    instance.record["submitted_at"] = long_ago.isoformat()
    with pytest.raises(AirflowFailException, match="job_timeout"):
        instance.attempt()
    assert (bench.active(), bench.jobs(), bench.cancels()) == (0, 1, 1)


def test_the_trigger_can_be_built_again_from_what_was_serialised(case: Case, bench: Bench) -> None:
    if not case.deferrable:
        pytest.skip("sync")
    triggers: list[Any] = []
    instance = task(case, bench)
    instance.on_defer = triggers.append
    instance.attempt(listener=lambda effect: bench.jobs() and effect == "defer" and bench.finish())
    path, kwargs = triggers[0].serialize()
    assert path.startswith("resumable.operators.")
    assert json.loads(json.dumps(kwargs)) == kwargs
