"""A custom operator that defers by itself, with a trigger of its own: how its job ended is noted as where it polls."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.support.custom import JobFailedError, Service, WithCancel, task
from tests.support.names import AirflowFailException, AirflowRescheduleException, AirflowSkipException, AirflowTaskTimeout
from tests.support.runner import WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")


class Defers(WithCancel):
    """As an author writes one: it waits by a trigger of his own, and looks once more when that has fired."""

    timeout: timedelta | None = None

    def poll_until_complete(self, external_id, context):
        self.defer(trigger=object(), method_name="execute_complete", kwargs={"job_id": external_id}, timeout=self.timeout)

    def execute_complete(self, context, event=None, job_id=None):
        status = self.client.status(job_id)
        if status != "SUCCEEDED":
            raise JobFailedError(status)
        return self.get_job_result(job_id, context)


@pytest.fixture
def service():
    return Service()


def fires(instance, act=lambda: None):
    """Let the trigger fire when ``act`` is done."""

    def trigger(deferred):
        act()
        return deferred.method_name, {**(deferred.kwargs or {}), "event": {}}

    instance.run_trigger = trigger


def fails(instance, error="Trigger failure"):
    instance.run_trigger = lambda _: ("__fail__", {"error": error, "traceback": []})


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_each_failed_job_is_the_failure_of_one_try_and_followed_by_another_job(service, retries):
    instance = task(Defers, service, retries=retries)
    fires(instance, lambda: service.finish("FAILED"))
    assert instance.run() == "failed"
    assert [type(error) for error in instance.errors] == [JobFailedError] * (retries + 1)
    assert len(service.states) == retries + 1
    assert instance.record["state"] == "failed"


def test_after_a_failed_job_the_next_one_may_succeed(service):
    ends = iter(["FAILED", "SUCCEEDED"])
    instance = task(Defers, service)
    fires(instance, lambda: service.finish(next(ends)))
    assert instance.run() == "success"
    assert (len(service.states), instance.record["state"], instance.record["submission"]) == (2, "succeeded", 1)


def test_a_success_is_noted_and_a_clear_runs_again(service):
    instance = task(Defers, service)
    fires(instance, service.finish)
    assert instance.attempt()["of"] == 0
    assert instance.record["state"] == "succeeded"
    instance.clear()
    assert instance.attempt()["of"] == 1


def test_a_success_is_not_noted_of_a_job_that_runs_on(service):
    class Later(Defers):
        def execute_complete(self, context, event=None, job_id=None):
            return "another task waits for it"

    instance = task(Later, service)
    fires(instance)
    instance.attempt()
    assert (instance.record["state"], instance.record["left"]) == ("submitted", "the task does not wait for it")
    instance.clear()
    instance.attempt()
    assert (service.active, service.cancelled) == ([1], [0])


def test_on_failed_fail_holds(service):
    instance = task(Defers, service, resume_policy={"on_failed": "fail"})
    fires(instance, lambda: service.finish("FAILED"))
    with pytest.raises(AirflowFailException, match="on_failed=fail. No other job is submitted"):
        instance.attempt()
    assert (len(service.states), instance.record["state"]) == (1, "failed")


def test_a_trigger_that_failed_says_nothing_about_the_job(service):
    instance = task(Defers, service, retries=0)
    fails(instance)
    with pytest.raises(AirflowRescheduleException):
        instance.attempt()
    instance.try_number -= 1
    fires(instance, service.finish)
    assert instance.attempt()["of"] == 0
    assert len(service.states) == 1


def test_a_job_that_has_succeeded_is_delivered_though_its_trigger_failed(service):
    instance = task(Defers, service, retries=0)
    instance.run_trigger = lambda _: service.finish() or ("__fail__", {"error": "Trigger failure", "traceback": []})
    assert instance.attempt()["of"] == 0
    assert instance.record["state"] == "succeeded"


def test_a_time_that_the_author_gave_his_deferral_ends_the_try_and_the_next_one_reattaches(service):
    class Limited(Defers):
        timeout = timedelta(minutes=5)

    instance = task(Limited, service, retries=1)
    fails(instance, "Trigger timeout")
    error = instance.failing_attempt()
    assert not isinstance(error, AirflowRescheduleException)
    assert (service.active, instance.record["state"]) == ([0], "submitted")
    fires(instance, service.finish)
    assert instance.attempt()["of"] == 0


@pytest.mark.parametrize(
    ("verdict", "state"), [(ValueError("rows are missing"), "failed"), (AirflowSkipException("none"), "succeeded")]
)
def test_what_the_author_makes_of_a_job_that_succeeded_stands(service, verdict, state):
    class Judges(Defers):
        def execute_complete(self, context, event=None, job_id=None):
            raise verdict

    instance = task(Judges, service)
    fires(instance, service.finish)
    with pytest.raises(type(verdict)):
        instance.attempt()
    assert (len(service.states), instance.record["state"]) == (1, state)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, ValueError])
def test_whatever_ends_the_task_after_its_deferral_the_record_says_why_its_job_runs_on(service, error):
    class Ends(Defers):
        def execute_complete(self, context, event=None, job_id=None):
            raise error("before the job is asked for")

    instance = task(Ends, service, retries=0)
    fires(instance)
    with pytest.raises(error):
        instance.attempt()
    assert (service.active, instance.record["left"]) == ([0], "on_final_failure=leave")


@pytest.mark.parametrize(("policy", "cancelled"), [({}, [0]), ({"on_timeout": "detach"}, [])])
def test_an_execution_timeout_after_the_deferral_does_with_the_job_what_the_policy_says(service, policy, cancelled):
    class TakesLong(Defers):
        def execute_complete(self, context, event=None, job_id=None):
            raise AirflowTaskTimeout("Timeout, PID: 7")

    instance = task(TakesLong, service, retries=0, resume_policy=policy)
    fires(instance)
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    assert service.cancelled == cancelled
    assert instance.record["state"] == ("cancelled" if cancelled else "submitted")
    assert instance.record.get("left") == (None if cancelled else "on_timeout=detach")


def test_a_worker_that_dies_after_the_deferral_leaves_the_job_to_the_next_try(service):
    class Dies(Defers):
        def execute_complete(self, context, event=None, job_id=None):
            raise WorkerDied("after the deferral")

    instance = task(Dies, service)
    fires(instance, service.finish)
    with pytest.raises(WorkerDied):
        instance.attempt()
    assert instance.attempt()["of"] == 0
    assert len(service.states) == 1


def test_a_deferral_before_the_submit_is_nothing_of_the_job(service):
    class Waits(WithCancel):
        def execute(self, context):
            self.defer(trigger=object(), method_name="when_it_is_there")

        def when_it_is_there(self, context, event=None):
            return self.execute_resumable(context)

    service.on_poll = lambda: service.finish("FAILED")
    instance = task(Waits, service)
    fires(instance)
    assert type(instance.failing_attempt()) is JobFailedError
    assert (len(service.states), instance.record["state"]) == (1, "failed")


def test_a_deferral_before_the_submit_whose_trigger_failed_is_the_failure_of_the_try(service):
    class Waits(WithCancel):
        def execute(self, context):
            self.defer(trigger=object(), method_name="when_it_is_there")

    instance = task(Waits, service)
    fails(instance)
    assert not isinstance(instance.failing_attempt(), AirflowRescheduleException)
    assert service.states == {}
