"""Step Functions: one execution of one name; EXPRESS is refused; redrives; an execution that timed out ends the wait."""

from __future__ import annotations

import asyncio

import pytest

from resumable.operators.step_function import ResumableStepFunctionStartExecutionOperator
from tests.services import Drop, Refuse
from tests.services.aws_jobs import StepFunctions
from tests.support.names import AirflowFailException
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def service(monkeypatch):
    with StepFunctions() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        yield service


def start(**more):
    given = {"task_id": "task", "state_machine_arn": StepFunctions.machine, "name": "nightly", "waiter_delay": 0}
    return TaskInstance(lambda: ResumableStepFunctionStartExecutionOperator(**given | {"aws_conn_id": None} | more))


def die_after(instance, effect):
    def listen(done):
        instance.effects.dead = done == effect

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def names(service):
    return [job.id.rpartition(":")[2] for job in service.all]


@pytest.mark.parametrize("name", ["nightly", "x" * 80, None])
def test_the_name_holds_the_authors_and_the_token_and_fits(service, name):
    instance = start(name=name)
    arn = instance.attempt()
    made = arn.rpartition(":")[2]
    assert made == (name or instance.record["token"][:24])


def test_without_deferral_the_task_ends_with_the_start_and_a_retry_starts_nothing(service):
    instance = start()
    die_after(instance, "http StartExecution")
    arn = instance.attempt()
    assert [arn] == [job.id for job in service.all]
    assert [arn] == [instance.attempt()]
    assert len(service.all) == 1


def test_a_start_that_is_in_doubt_finds_its_execution_when_that_has_ended_too(service):
    instance = start(deferrable=True)
    die_after(instance, "http StartExecution")
    service.finish(service.all[0])
    assert instance.attempt() == service.all[0].id
    assert service.count("StartExecution") == 2
    assert len(service.all) == 1


def test_a_start_that_is_in_doubt_keeps_its_name_when_the_author_edits_name_and_input(service):
    instance = start(deferrable=True, state_machine_input={"x": "y" * 4000}, resume_policy={"on_change": "reattach"})
    instance.is_all_written = True
    die_after(instance, "http StartExecution")
    edited = start(name="edited", deferrable=True, state_machine_input={"x": "z"}, resume_policy={"on_change": "reattach"})
    instance.make = edited.make
    instance.attempt(listener=lambda effect: effect == "defer" and service.finish(service.all[0]))
    assert len(service.all) == 1


def test_a_start_that_is_in_doubt_and_has_failed_meanwhile_is_followed_by_one_of_another_name(service):
    instance = start(deferrable=True)
    die_after(instance, "http StartExecution")
    service.finish(service.all[0], "FAILED")
    service.duration = 0
    instance.failing_attempt()
    instance.attempt()
    assert len(set(names(service))) == 2


@pytest.mark.parametrize("qualifier", ["", ":7", ":live"], ids=["plain", "version", "alias"])
def test_an_execution_that_exists_is_taken_up_whatever_qualifies_its_state_machine(service, qualifier):
    instance = start(deferrable=True, state_machine_arn=StepFunctions.machine + qualifier)
    die_after(instance, "http StartExecution")
    service.finish(service.all[0])
    assert instance.attempt() == f"arn:aws:states:us-east-1:123456789012:execution:nightly:{names(service)[0]}"


def test_an_express_state_machine_is_refused_before_anything_is_started(service):
    service.type = "EXPRESS"
    with pytest.raises(AirflowFailException, match="EXPRESS.*durable=False"):
        start().attempt()
    assert service.all == []
    start(durable=False).attempt()
    assert len(service.all) == 1


def test_without_the_permission_to_ask_it_is_taken_for_a_standard_one(service):
    service.fault("DescribeStateMachine", Refuse(403, {"__type": "AccessDeniedException", "message": "no"}))
    start().attempt()
    assert len(service.all) == 1


def test_an_execution_that_timed_out_ends_the_wait_and_fails(service):
    instance = start(deferrable=True, waiter_max_attempts=10_000)

    def time_out(effect):
        if effect == "defer":
            service.finish(service.all[0], "TIMED_OUT")

    with pytest.raises(Exception, match="Trigger error"):
        instance.attempt(listener=time_out)
    assert instance.record["state"] == "failed"


def test_an_execution_that_cannot_be_seen_yet_is_not_taken_for_gone(service):
    instance = start(deferrable=True, resume_policy={"on_missing": "resubmit"})
    die_after(instance, "xcom _state_machine_executions_details")
    known = dict(service._known)
    service.forget()
    service.duration = 0

    def is_seen_at_the_fifth_look(effect):
        if service.count("DescribeExecution") >= 4:
            service._known.update(known)

    instance.attempt(listener=is_seen_at_the_fifth_look)
    assert len(service.all) == 1


def test_a_stop_of_the_deferred_task_stops_the_execution(service):
    instance = start(deferrable=True)
    triggers = []
    instance.on_defer = triggers.append
    die_after(instance, "defer")
    asyncio.run(triggers[0].cancel())
    assert service.all[0].state == "ABORTED"


def redrive(service, **more):
    arn = service.start_execution({"stateMachineArn": StepFunctions.machine, "name": "old"})["executionArn"]
    service.finish(service.all[0], "FAILED")
    return arn, start(name="old", is_redrive_execution=True, deferrable=True, **more)


def test_a_redrive_restarts_the_named_execution_once_although_its_answer_is_lost(service):
    arn, instance = redrive(service)
    service.fault("RedriveExecution", Drop())
    assert instance.attempt(listener=lambda effect: effect == "defer" and service.finish(service.all[0])) == arn
    assert len(service.redrives) == len(service.all) == 1


@pytest.mark.parametrize("state", ["RUNNING", "SUCCEEDED"])
def test_a_redrive_in_doubt_takes_up_the_execution_it_restarted_also_when_its_token_is_forgotten(service, state):
    arn, instance = redrive(service)
    die_after(instance, "http RedriveExecution")
    service.redrives.clear()
    if state == "SUCCEEDED":
        service.finish(service.all[0])
    assert instance.attempt(listener=lambda effect: effect == "defer" and service.finish(service.all[0])) == arn
    assert service.redrives == {}


def test_a_redrive_without_a_name_is_the_providers_error_and_asks_for_nothing(service):
    instance = start(is_redrive_execution=True, deferrable=True, name=None)
    with pytest.raises(AirflowFailException, match="name is required"):
        instance.attempt()
    assert service.count("RedriveExecution") == 0


def test_a_redrive_of_an_execution_that_did_not_fail_is_refused_as_by_the_provider(service):
    _, instance = redrive(service)
    service.finish(service.all[0])
    for _ in range(2):
        with pytest.raises(Exception, match="not redrivable"):
            instance.attempt()
        assert instance.record["state"] == "rejected"
