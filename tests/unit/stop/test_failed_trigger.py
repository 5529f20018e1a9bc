"""A trigger that failed, was lost or timed out says nothing about the job of the deferred task."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from resumable.operators.databricks import ResumableDatabricksOperator
from tests.services import DatabricksSimulator
from tests.support import runner
from tests.support.names import AirflowRescheduleException
from tests.support.runner import TaskInstance, TaskInstanceDouble

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FAILED, TIMED_OUT = {"error": "HTTPError(400)"}, {"error": "Trigger timeout"}

_real_sleep, _run_trigger = time.sleep, runner._run_trigger


@pytest.fixture
def workspace(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: _real_sleep(min(seconds, 0.002)))
    with DatabricksSimulator() as simulator:
        for name, value in simulator.env().items():
            monkeypatch.setenv(name, value)
        yield simulator


def deferred(monkeypatch, end, **arguments):
    """A task whose trigger ends like ``end``, once."""
    ends = [end]
    monkeypatch.setattr(runner, "_run_trigger", lambda d: ("__fail__", ends.pop()) if ends else _run_trigger(d))
    given = {"task_id": "task", "json": {"notebook_task": {}}, "polling_period_seconds": 0, "deferrable": True, **arguments}
    return TaskInstance(lambda: ResumableDatabricksOperator(**given))


@pytest.mark.parametrize("end", [FAILED, TIMED_OUT], ids=["failed", "timed out"])
def test_the_task_of_a_running_job_is_handed_back_and_defers_again(workspace, monkeypatch, end):
    instance = deferred(monkeypatch, end)
    with pytest.raises(AirflowRescheduleException):
        instance.attempt()
    instance.try_number = 1  # a hand-back uses up none
    instance.on_defer = lambda trigger: workspace.finish(instance.record["job"]["run_id"])
    instance.attempt()
    assert len(workspace.runs) == 1
    assert workspace.count("runs/cancel") == 0
    assert instance.record["state"] == "succeeded"


@pytest.mark.parametrize("end", [FAILED, TIMED_OUT], ids=["failed", "timed out"])
def test_a_job_that_has_succeeded_is_delivered(workspace, monkeypatch, end):
    instance = deferred(monkeypatch, end)
    instance.on_defer = lambda trigger: workspace.finish(instance.record["job"]["run_id"])
    instance.attempt()
    assert instance.record["state"] == "succeeded"
    assert len(workspace.runs) == 1


@pytest.mark.parametrize(("policy", "cancels"), [("cancel", 1), ("detach", 0)])
def test_an_execution_timeout_that_ended_the_deferral_follows_on_timeout(workspace, monkeypatch, policy, cancels):
    long_ago = datetime.now(timezone.utc) - timedelta(minutes=5)
    monkeypatch.setattr(TaskInstanceDouble, "start_date", long_ago, raising=False)
    choices = {"execution_timeout": timedelta(minutes=4), "resume_policy": {"on_timeout": policy}}
    instance = deferred(monkeypatch, TIMED_OUT, **choices)
    with pytest.raises(Exception, match="timeout") as caught:
        instance.attempt()
    assert not isinstance(caught.value, AirflowRescheduleException)
    assert workspace.count("runs/cancel") == cancels
    assert len(workspace.active()) == 1 - cancels


def test_a_deferral_that_timed_out_before_the_execution_timeout_goes_on(workspace, monkeypatch):
    monkeypatch.setattr(TaskInstanceDouble, "start_date", datetime.now(timezone.utc), raising=False)
    instance = deferred(monkeypatch, TIMED_OUT, execution_timeout=timedelta(minutes=4))
    with pytest.raises(AirflowRescheduleException):
        instance.attempt()
    assert workspace.count("runs/cancel") == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_process_that_ends_itself_after_a_deferral_says_why_the_run_goes_on(workspace, monkeypatch, error):
    class Leaves(ResumableDatabricksOperator):
        def execute_complete(self, context, event=None):
            raise error

    given = {"task_id": "task", "json": {"notebook_task": {}}, "polling_period_seconds": 0, "deferrable": True}
    instance = TaskInstance(lambda: Leaves(**given), retries=0)
    instance.run_trigger = lambda deferred: (deferred.method_name, {**(deferred.kwargs or {}), "event": {}})
    with pytest.raises(error):
        instance.attempt()
    assert (len(workspace.active()), instance.record["left"]) == (1, "on_final_failure=leave")
