"""Airflow 3.0 keeps a deferral over a failure: every later try is resumed with the old event, and has to start from the top."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from resumable import ResumableMixin
from resumable.errors import SupersededError
from resumable.operators.databricks import ResumableDatabricksOperator
from resumable.operators.emr import ResumableEmrServerlessStartJobOperator
from tests.services.aws_tokens import EmrServerless
from tests.support.names import BaseOperator, TaskDeferred
from tests.support.runner import Effects, TaskInstance, _as_the_runner, _outgoing_calls, _run_trigger

pytestmark = pytest.mark.usefixtures("no_waiting")


def run(instance, call):
    """One process of the task: what it returned, the deferral it ended with, or its error."""
    instance.effects = effects = Effects()
    operator, context = instance._process(effects)
    with _outgoing_calls(effects):
        try:
            return _as_the_runner(operator, lambda: call(operator, context))
        except (TaskDeferred, Exception) as e:
            return e


def execute(instance):
    return run(instance, lambda operator, context: operator.execute(context))


def resume(instance, deferral):
    method, kwargs = deferral
    return run(instance, lambda operator, context: operator.resume_execution(method, kwargs, context))


def deferred(instance):
    ended = execute(instance)
    assert isinstance(ended, TaskDeferred)
    return ended


def submit_run():
    job = {"notebook_task": {}}
    make = lambda: ResumableDatabricksOperator(task_id="task", json=job, polling_period_seconds=0, deferrable=True)
    return TaskInstance(make, retries=2)


def test_a_retry_that_is_given_the_old_event_submits_anew(workspace):
    instance = submit_run()
    first = deferred(instance)
    workspace.finish(instance.record["job"]["run_id"], "FAILED", "boom")
    stale = _run_trigger(first)
    assert isinstance(resume(instance, stale), Exception)
    instance.try_number = 2
    second = resume(instance, stale)
    assert isinstance(second, TaskDeferred)
    assert len(workspace.runs) == 2
    workspace.finish(instance.record["job"]["run_id"])
    assert not isinstance(resume(instance, _run_trigger(second)), BaseException)
    assert (len(workspace.runs), instance.record["state"]) == (2, "succeeded")


def test_a_retry_that_is_given_the_old_failure_of_a_trigger_starts_from_the_top(workspace):
    instance = submit_run()
    deferred(instance)
    instance.try_number = 2
    ended = resume(instance, ("__fail__", {"error": "Trigger timeout"}))
    assert isinstance(ended, TaskDeferred)
    assert len(workspace.runs) == 1  # it runs: reattached to


def test_the_event_of_the_tries_own_deferral_is_taken(workspace):
    instance = submit_run()
    ended = deferred(instance)
    workspace.finish(instance.record["job"]["run_id"])
    assert not isinstance(resume(instance, _run_trigger(ended)), BaseException)
    assert len(workspace.runs) == 1


def test_a_store_that_does_not_answer_leaves_the_deferral_as_it_is(workspace):
    instance = submit_run()
    ended = deferred(instance)
    workspace.finish(instance.record["job"]["run_id"])
    instance.store_down = lambda verb: verb == "get"
    assert not isinstance(resume(instance, _run_trigger(ended)), BaseException)


def test_a_deferral_before_the_submit_of_a_later_try_is_not_gone_back_on_for_ever(monkeypatch):
    """The provider defers for the start of its application, before this try has written anything."""
    given = {"execution_role_arn": "arn:aws:iam::123456789012:role/r", "job_driver": {"sparkSubmit": {"entryPoint": "a.py"}}}
    with EmrServerless() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        make = lambda: ResumableEmrServerlessStartJobOperator(
            task_id="task", application_id="app", waiter_delay=0, deferrable=True, aws_conn_id=None, **given
        )
        instance = TaskInstance(make)
        deferred(instance)
        service.finish(service.all[0], "FAILED")
        resume(instance, ("execute_complete", {"event": {"status": "failed"}}))
        service.application = "STOPPED"
        instance.try_number = 2
        waits_for_the_application = deferred(instance)
        assert waits_for_the_application.method_name == "execute"
        service.application = "STARTED"
        assert isinstance(resume(instance, ("execute", {"event": {"status": "success"}})), TaskDeferred)
        assert len(service.all) == 2


class DefersFirst(ResumableMixin, BaseOperator):
    """An operator of one's own that waits for something else before its job."""

    service_double = None

    def execute(self, context):
        self.defer(trigger=None, method_name="go")

    def go(self, context, event=None):
        return self.execute_resumable(context)

    def submit_job(self, context):
        return self.service_double.submit("x", self.idempotency_token)

    def get_job_status(self, external_id, context):
        return "FAILED" if context["ti"].try_number == 1 else "SUCCEEDED"

    def is_job_active(self, status):
        return False

    def is_job_succeeded(self, status):
        return status == "SUCCEEDED"

    def poll_until_complete(self, external_id, context):
        if context["ti"].try_number == 1:
            raise ValueError("no")

    def get_job_result(self, external_id, context):
        return external_id


def test_an_operator_of_ones_own_that_defers_first_is_not_sent_round(monkeypatch):
    """Where Airflow runs the task, such a deferral says of which try it is."""
    jobs = []
    double = type("Service", (), {"submit": lambda *_: jobs.append(1) or len(jobs)})
    monkeypatch.setattr(DefersFirst, "service_double", double(), raising=False)
    instance = TaskInstance(lambda: DefersFirst(task_id="task"))
    for number in (1, 2):
        instance.try_number = number
        monkeypatch.setattr("resumable.host.current_try_number", lambda number=number: number)
        ended = deferred(instance)
        result = resume(instance, (ended.method_name, {**(ended.kwargs or {}), "event": None}))
        assert not isinstance(result, TaskDeferred)
    assert len(jobs) == 2


@pytest.mark.parametrize("wakes_up", [("__fail__", {"error": "Trigger timeout"}), ("__fail__", {"error": "HTTPError(400)"})])
def test_a_start_that_airflow_has_given_up_after_its_deferral_cancels_and_notes_nothing(workspace, wakes_up):
    job = {"notebook_task": {}}
    arguments = {"execution_timeout": timedelta(seconds=1), "resume_policy": {"on_final_failure": "cancel"}}
    make = lambda: ResumableDatabricksOperator(task_id="task", json=job, polling_period_seconds=0, deferrable=True, **arguments)
    instance = TaskInstance(make, retries=1)
    instance.started = datetime(2026, 1, 1, tzinfo=timezone.utc)
    deferred(instance)
    instance.try_number = 2  # whoever was to go on stood still, until Airflow took it for dead
    deferred(instance)
    taken_over = dict(instance.record)
    instance.try_number = 1
    ended = resume(instance, wakes_up)
    assert isinstance(ended, SupersededError)
    assert instance.record == taken_over
    assert (len(workspace.active()), workspace.count("runs/cancel")) == (1, 0)
