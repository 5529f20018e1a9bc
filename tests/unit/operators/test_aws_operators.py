"""The AWS operators of classes B and C: what is special to a service, beyond the contract that all of them keep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from datetime import datetime, timedelta, timezone

import boto3
import pytest

from resumable import ForeignJobError
from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.batch import ResumableBatchOperator
from resumable.operators.ecs import ResumableEcsRunTaskOperator
from resumable.operators.emr import (
    ResumableEmrContainerOperator,
    ResumableEmrCreateJobFlowOperator,
    ResumableEmrServerlessStartJobOperator,
    ResumableEmrStartNotebookExecutionOperator,
)
from resumable.operators.glue import GlueJobRun, ResumableGlueJobOperator
from resumable.operators.redshift_data import ResumableRedshiftDataOperator
from tests.contract import aws_cases
from tests.services import Drop, Refuse
from tests.services.aws_tokens import Glue
from tests.support.names import STOPPED, AirflowFailException
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting_of_the_task")]


BENCHES = {name: make for name, _, _, make, _ in aws_cases.CASES}


class Task(TaskInstance):
    """One operator on its simulated service."""

    def __init__(self, bench, operator, **more):
        self.bench, self.server = bench, bench.server
        super().__init__(lambda: operator(task_id="task", **{**bench.arguments(), **more}))

    def submits(self):
        return self.server.count(self.bench.submit)

    def die_in_doubt(self):
        """An attempt dies when its submit was served, and nothing of the answer was kept."""

        def listen(effect):
            self.effects.dead = effect == f"http {self.bench.submit}"

        with pytest.raises(WorkerDied):
            self.attempt(listener=listen)
        assert self.record["state"] == "submitting"

    def die_in_the_wait(self):
        def listen(effect):
            if self.data.get("resumable", {}).get("job") and effect != "store.set":
                self.effects.dead = True

        with pytest.raises(WorkerDied):
            self.attempt(listener=listen)

    def age(self, **delta):
        """Make the record's submit older."""
        at = datetime.fromisoformat(self.record["intended_at"]) - timedelta(**delta)
        self.record["intended_at"] = at.astimezone(timezone.utc).isoformat()


@pytest.fixture
def task(monkeypatch):
    with contextlib.ExitStack() as stack:

        def make(name, operator, /, **more):
            return Task(stack.enter_context(BENCHES[name](monkeypatch)), operator, **more)

        yield make


OPERATORS = [(name, ours) for name, ours, _, _, _ in aws_cases.CASES]
DEFERRABLE = [(name, ours) for name, ours, _, _, modes in aws_cases.CASES if {"deferrable": True} in modes]
FINDS = [
    ("batch", ResumableBatchOperator),
    ("glue", ResumableGlueJobOperator),
    ("emr-cluster", ResumableEmrCreateJobFlowOperator),
    ("emr-notebook", ResumableEmrStartNotebookExecutionOperator),
]
REFUSES = [
    ("athena", ResumableAthenaOperator, 2),
    ("emr-serverless", ResumableEmrServerlessStartJobOperator, 2),
    ("redshift-data", ResumableRedshiftDataOperator, 8),
]
FINDS_EXPIRED = [("emr-eks", ResumableEmrContainerOperator), ("ecs", ResumableEcsRunTaskOperator)]


# -- class C ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "operator"), FINDS)
def test_a_submit_without_a_token_goes_out_once(task, name, operator):
    one = task(name, operator)
    one.server.duration = 0
    one.server.fault(one.bench.submit, Refuse(503, after_effect=True))
    one.attempt()
    assert (one.submits(), one.bench.jobs()) == (1, 1)


@pytest.mark.parametrize(("name", "operator"), FINDS)
def test_a_job_is_found_by_its_mark_although_the_list_lags(task, monkeypatch, name, operator):
    one = task(name, operator)
    one.die_in_doubt()
    one.server.list_lag = 3600
    one.server.duration = 0
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if sum(slept) >= 15:
            one.server.list_lag = 0

    monkeypatch.setattr(time, "sleep", sleep)
    one.attempt()
    assert (one.submits(), one.bench.jobs()) == (1, 1)


@pytest.mark.parametrize(("name", "operator"), FINDS)
def test_a_job_of_the_same_name_without_our_mark_is_not_ours(task, name, operator):
    strangers = task(name, operator, durable=False)
    strangers.server.duration = 0
    strangers.attempt()
    one = TaskInstance(lambda: operator(task_id="other", **strangers.bench.arguments()))
    strangers.server.fault(strangers.bench.submit, Drop(before_effect=True))
    one.attempt()
    assert strangers.bench.jobs() == 2


@pytest.mark.parametrize(("name", "operator"), FINDS)
def test_strict_fails_for_good_where_the_lookup_finds_nothing(task, name, operator):
    one = task(name, operator, resume_policy={"strict": True})
    one.server.fault(one.bench.submit, Drop(before_effect=True))
    with pytest.raises(AirflowFailException, match="strict=True.*Look in the service"):
        one.attempt()
    assert (one.submits(), one.bench.jobs()) == (1, 0)


@pytest.mark.parametrize(("name", "operator"), FINDS)
def test_strict_reattaches_where_the_lookup_finds_the_job(task, name, operator):
    one = task(name, operator, resume_policy={"strict": True})
    one.server.duration = 0
    one.server.fault(one.bench.submit, Drop())
    one.attempt()
    assert one.submits() == 1


@pytest.mark.parametrize(("name", "field"), [("batch", "jobName"), ("emr-cluster", "Name")])
def test_the_mark_may_be_in_the_name_instead_of_a_tag(task, name, field):
    operator = type("Named", (dict(FINDS)[name],), {"mark_in": "name"})
    one = task(name, operator)
    one.die_in_doubt()
    one.server.duration = 0
    one.attempt()
    [call] = one.server.calls(one.bench.submit)
    assert call.body[field].startswith("nightly")
    assert "resumable-token" not in str(call.body)


# -- class B ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "operator", "hours"), REFUSES)
def test_a_doubt_that_is_older_than_the_token_is_refused(task, name, operator, hours):
    one = task(name, operator)
    one.die_in_doubt()
    one.age(hours=hours)
    with pytest.raises(AirflowFailException, match="longer ago than the service is known to keep its token"):
        one.attempt()
    assert (one.submits(), one.bench.jobs()) == (1, 1)


@pytest.mark.parametrize(("name", "operator"), FINDS_EXPIRED)
def test_a_doubt_that_is_older_than_the_token_is_looked_up(task, name, operator):
    one = task(name, operator)
    one.die_in_doubt()
    one.age(hours=2)
    one.server.token_lifetime = 0
    one.server.duration = 0
    one.attempt()
    assert (one.submits(), one.bench.jobs()) == (1, 1)


@pytest.mark.parametrize(("name", "operator"), FINDS_EXPIRED)
def test_strict_refuses_a_doubt_that_is_older_than_the_token_and_finds_nothing(task, name, operator):
    one = task(name, operator, resume_policy={"strict": True})
    one.die_in_doubt()
    one.age(hours=2)
    one.server.forget()
    with pytest.raises(AirflowFailException, match="strict=True"):
        one.attempt()
    assert one.submits() == 1


# -- all: another account, a stop ------------------------------------------------------------------------------------


ASKED = [(name, ours) for name, ours in OPERATORS if ours._resumable.service.asks_account]


@pytest.mark.parametrize(("name", "operator"), ASKED)
def test_a_doubt_of_another_account_submits_nothing_here(task, name, operator):
    one = task(name, operator)
    one.die_in_doubt()
    one.record["place"]["account"] = "999999999999"
    if operator._resumable.service.recovery.value == "find":
        one.server.forget()
    with pytest.raises(ForeignJobError, match="999999999999"):
        one.attempt()
    assert one.submits() == 1


@pytest.mark.parametrize(("name", "operator"), ASKED)
def test_a_job_that_another_account_does_not_know_is_not_taken_for_gone(task, name, operator):
    one = task(name, operator)
    one.die_in_the_wait()
    one.record["place"]["account"] = "999999999999"
    one.server.forget()
    with pytest.raises(ForeignJobError, match="999999999999"):
        one.attempt()
    assert one.submits() == 1


def test_an_account_that_sts_does_not_tell_costs_nothing_but_the_check(task):
    one = task("athena", ResumableAthenaOperator)
    one.server.duration = 0
    one.server.fault("GetCallerIdentity", Refuse(403), times=-1)
    one.attempt()
    assert "account" not in one.record["place"]


def stopped(one, state):
    """An attempt gets SIGTERM in the wait, with Airflow's state of the task as given."""
    made, sent, make = [], [], one.make
    one.state, one.make = state, lambda: made.append(make()) or made[-1]

    def listen(effect):
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and effect == f"http {one.bench.status[0]}" and one.record["job"] and not sent:
            sent.append(effect)
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(*STOPPED):
        one.attempt(listener=listen)
    assert sent


@pytest.mark.parametrize(("name", "operator"), OPERATORS)
def test_a_users_stop_cancels_the_job_with_one_request_and_an_eviction_does_not(task, name, operator):
    one = task(name, operator)
    stopped(one, "running")
    assert (one.bench.cancels(), one.bench.active()) == (0, 1)
    stopped(one, "failed")
    assert (one.bench.cancels(), one.bench.active(), one.submits()) == (1, 0, 1)
    assert one.record["state"] == "cancelled"


def trigger_of(one):
    """The trigger with which a task defers, as the triggerer makes it."""

    class Deferred(Exception):
        pass

    def hold(trigger):
        raise Deferred(trigger)

    one.on_defer = hold
    with pytest.raises(Deferred) as held:
        one.attempt()
    _, kwargs = held.value.args[0].serialize()
    trigger = type(held.value.args[0])(**kwargs)
    trigger.task_instance = None
    return trigger


@pytest.mark.parametrize(("name", "operator"), DEFERRABLE)
@pytest.mark.parametrize("state", ["deferred", "scheduled", "queued", "running", "up_for_retry", "restarting", None, "no answer"])
def test_the_on_kill_of_a_trigger_leaves_the_job_of_a_task_that_no_user_has_ended(task, name, operator, state, monkeypatch):
    """Airflow 3.3.0 to 3.3.2 call it when the trigger is merely given to another triggerer. After a clear the next start acts."""
    one = task(name, operator, deferrable=True)
    trigger = trigger_of(one)
    answers(state, monkeypatch)
    asyncio.run(trigger.on_kill())
    assert (one.bench.cancels(), one.bench.active()) == (0, 1)


@pytest.mark.parametrize(("name", "operator"), DEFERRABLE)
@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed"])
def test_a_users_mark_of_a_deferred_task_cancels_the_job(task, name, operator, state, monkeypatch):
    one = task(name, operator, deferrable=True, resume_policy={"on_clear": "reattach"})
    trigger = trigger_of(one)
    answers(state, monkeypatch)
    asyncio.run(trigger.on_kill())
    assert (one.bench.cancels(), one.bench.active()) == (1, 0)


def answers(state, monkeypatch):
    """What a trigger is told when it asks for the state of its task."""

    async def state_seen(ti):
        if state == "no answer":
            raise OSError(state)
        return state

    monkeypatch.setattr("resumable.host.state_seen_by_trigger", state_seen)


@pytest.mark.parametrize(("name", "operator"), DEFERRABLE)
@pytest.mark.parametrize(("state", "is_told", "cancels"), [("failed", False, 1), ("success", False, 1), ("failed", True, 0)])
def test_a_cancelled_trigger_asks_what_became_of_its_task_where_airflow_does_not_say(
    task, name, operator, state, is_told, cancels, monkeypatch
):
    assert cancels_of_a_cancelled_trigger(task(name, operator, deferrable=True), state, is_told, monkeypatch) == cancels


@pytest.mark.parametrize("state", ["deferred", "queued", "scheduled", None, "no answer"])
def test_a_cancelled_trigger_leaves_the_job_of_a_task_that_no_user_has_ended(task, state, monkeypatch):
    name, operator = DEFERRABLE[0]
    assert cancels_of_a_cancelled_trigger(task(name, operator, deferrable=True), state, False, monkeypatch) == 0


def cancels_of_a_cancelled_trigger(one, state, is_told, monkeypatch):
    """How often a trigger cancels its job when the triggerer cancels it, as before Airflow 3.3 for whatever reason."""
    trigger = trigger_of(one)

    answers(state, monkeypatch)
    monkeypatch.setattr("resumable.host.tells_triggers", lambda: is_told)
    monkeypatch.setattr("resumable.host.cancelled_triggers_may_ask", lambda: True)

    async def wait():
        looked = asyncio.Event()

        async def look():
            looked.set()
            async for _ in trigger.run():
                pytest.fail("the job is still running")

        waiting = asyncio.create_task(look())
        await looked.wait()
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(wait())
    return one.bench.cancels()


# -- ECS -------------------------------------------------------------------------------------------------------------


def test_a_task_whose_parameters_have_moved_is_reattached_to_by_the_conflict(task):
    one = task("ecs", ResumableEcsRunTaskOperator)
    one.die_in_doubt()
    one.server.all[0].body = {**one.server.all[0].body, "group": "as the service has it"}
    one.server.duration = 0
    one.attempt()
    assert one.bench.jobs() == 1
    assert one.record["job"]["task"] == one.server.all[0].id


def test_no_capacity_leaves_no_doubt_and_the_next_try_has_another_token(task):
    one = task("ecs", ResumableEcsRunTaskOperator)
    one.server.has_capacity = False
    with pytest.raises(Exception, match="RESOURCE:MEMORY"):
        one.attempt()
    assert one.record["state"] == "rejected"
    one.server.has_capacity, one.server.duration = True, 0
    one.attempt()
    tokens = [call.body["clientToken"] for call in one.server.calls("RunTask")]
    assert len(set(tokens)) == 2
    assert one.bench.jobs() == 1


def test_a_task_that_has_succeeded_and_is_forgotten_is_delivered(task):
    one = task("ecs", ResumableEcsRunTaskOperator)
    one.server.duration = 0
    one.attempt()
    one.server.forget()
    one.attempt()
    assert one.submits() == 1


@pytest.mark.parametrize("operator", [ResumableEcsRunTaskOperator])
def test_the_providers_reattach_is_not_in_effect(task, operator):
    one = task("ecs", operator, reattach=True)
    one.server.duration = 0
    one.attempt()
    assert one.server.count("ListTasks") == 0


# -- Glue ------------------------------------------------------------------------------------------------------------


def test_a_reattachment_changes_no_job_definition(task):
    script = {"script_location": "s3://b/x.py", "iam_role_arn": "arn:aws:iam::123456789012:role/glue", "update_config": True}
    one = task("glue", ResumableGlueJobOperator, s3_bucket="b", job_desc="as it is now", **script)
    one.die_in_the_wait()
    assert one.server.count("UpdateJob") == 1
    one.bench.finish()
    one.attempt()
    assert (one.server.count("UpdateJob"), one.submits()) == (1, 1)


@pytest.mark.parametrize("word", ["ERROR", "EXPIRED"])
def test_a_run_that_ends_in_a_state_that_the_providers_wait_does_not_know_ends_the_task(task, word):
    one = task("glue", ResumableGlueJobOperator)

    def listen(effect):
        for job in one.server.running():
            one.server.finish(job, word)

    with pytest.raises(Exception, match="(?i)fail"):
        one.attempt(listener=listen)
    assert one.record["state"] == "failed"


def test_a_run_that_waits_in_a_queue_and_tells_no_start_is_found_beside_others(task, monkeypatch):
    shown = Glue._shown
    monkeypatch.setattr(Glue, "_shown", lambda self, job: {k: v for k, v in shown(self, job).items() if k != "StartedOn"})
    monkeypatch.setattr(GlueJobRun, "settle", 0.0)
    one = task("glue", ResumableGlueJobOperator)
    one.server.start_job_run({"JobName": "nightly", "Arguments": {}})  # somebody else's
    one.die_in_doubt()
    one.server.start_job_run({"JobName": "nightly", "Arguments": {}})
    one.server.duration = 0
    one.attempt()
    assert (one.submits(), one.record["state"]) == (1, "succeeded")
    one.clear()
    one.die_in_doubt()
    one.server.all.pop()  # it never came to be: nothing of this token is listed
    one.attempt()
    assert one.record["state"] == "succeeded"


def test_the_providers_own_search_for_a_run_is_off(task):
    one = task("glue", ResumableGlueJobOperator, deferrable=True)
    one.server.duration = 0
    one.attempt()
    [call] = one.server.calls("StartJobRun")
    assert set(call.body["Arguments"]) == {"--word", "--resumable_token"}


# -- EMR -------------------------------------------------------------------------------------------------------------


def test_an_application_that_has_to_start_first_defers_for_that_and_then_for_the_job(task):
    one = task("emr-serverless", ResumableEmrServerlessStartJobOperator, deferrable=True)
    one.server.application, one.server.duration = "CREATED", 0
    one.attempt()
    assert (one.submits(), one.record["state"]) == (1, "succeeded")


@pytest.mark.parametrize("name", ["mine", None])
def test_a_job_runs_name_is_the_same_on_every_try(task, name):
    one = task("emr-serverless", ResumableEmrServerlessStartJobOperator, name=name)
    one.die_in_doubt()
    one.server.duration = 0
    one.attempt()
    names = {call.body["name"] for call in one.server.calls("StartJobRun")}
    assert len(names) == 1
    assert one.bench.jobs() == 1


def test_a_deferred_job_run_that_failed_is_told_as_such(task):
    one = task("emr-serverless", ResumableEmrServerlessStartJobOperator, deferrable=True)
    with pytest.raises(RuntimeError, match="EMR Serverless job failed"):
        one.attempt(listener=lambda effect: effect == "defer" and one.bench.finish(ok=False))
    assert one.record["state"] == "failed"


def test_a_deferred_wait_for_the_steps_of_a_cluster_ends_with_the_cluster(task):
    from airflow.providers.amazon.aws.utils.waiter import WaitPolicy

    more = {"wait_policy": WaitPolicy.WAIT_FOR_STEPS_COMPLETION, "wait_for_completion": None, "deferrable": True}
    one = task("emr-cluster", ResumableEmrCreateJobFlowOperator, **more)
    looks = []

    def look(body, seen=one.server.describe_cluster):
        looks.append(body)
        if len(looks) > 6:
            one.server.finish(one.server.all[0], "TERMINATED")
        elif len(looks) > 2:
            one.server.finish(one.server.all[0], "WAITING")
        return seen(body)

    one.server.describe_cluster = look
    one.attempt()
    assert len(looks) > 6


# -- Redshift --------------------------------------------------------------------------------------------------------


def test_several_statements_go_out_as_one_batch_and_their_ids_come_back(task):
    one = task("redshift-data", ResumableRedshiftDataOperator, sql=["SELECT 1", "SELECT 2"])
    one.server.duration = 0
    one.server.fault("BatchExecuteStatement", Drop())
    assert one.attempt() == [f"{one.server.all[0].id}:{n}" for n in (1, 2)]
    assert one.bench.jobs() == 1


# -- the client ------------------------------------------------------------------------------------------------------


def test_another_call_on_the_same_service_is_not_touched(task):
    one = task("athena", ResumableAthenaOperator)
    one.server.duration = 0
    one.attempt()
    boto3.client("athena").start_query_execution(QueryString="SELECT 2", ResultConfiguration={"OutputLocation": "s3://x/"})
    assert one.bench.jobs() == 2
