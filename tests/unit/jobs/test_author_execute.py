"""An ``execute`` of the author's own may catch what it likes: a task that is handed back has neither failed nor succeeded."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resumable import LostSightError, ResumableMixin
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.support.custom import JobFailedError, Service, WithCancel, task
from tests.support.names import AirflowException, AirflowRescheduleException, BaseOperator
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting_of_the_task")]

JOB = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/x"}}
ARGUMENTS = {"task_id": "task", "json": JOB, "polling_period_seconds": 0, "databricks_retry_delay": 0}
RESCHEDULE = {"wait": "reschedule", "wait_interval": 60}


class Alerts:
    """What many teams put before an operator: whatever goes wrong is told somebody, and made an error of their own."""

    told: list[str] = []

    def execute(self, context):
        try:
            return super().execute(context)
        except Exception as e:
            self.told.append(type(e).__name__)
            raise AirflowException("the job failed") from e


class Swallows:
    """A job that is not important: the task is to be green."""

    def execute(self, context):
        try:
            return super().execute(context)
        except Exception:
            return "never mind"


def before(around: type, base: type) -> type:
    """Written as a mixin, which is no subclass of ours."""
    return type("Op", (around, base), {"__module__": __name__})


def below(around: type, base: type) -> type:
    """Written as a subclass of a subclass."""
    own = type("Own", (base,), {"execute": lambda self, context: super(own, self).execute(context)})
    return type("Op", (around, own), {"execute": lambda self, context: around.execute(self, context)})


@pytest.fixture(autouse=True)
def nothing_told():
    Alerts.told.clear()


@pytest.fixture(params=[Alerts, Swallows])
def around(request):
    return request.param


@pytest.fixture(params=[before, below], ids=lambda made: made.__name__)
def made(request):
    return request.param


def evicted(workspace: Any) -> None:
    workspace.wait_for("runs/get")
    os.kill(os.getpid(), signal.SIGTERM)


def test_an_evicted_task_is_handed_back_through_it_and_its_run_goes_on(workspace, around, made):
    instance = TaskInstance(lambda: made(around, ResumableDatabricksOperator)(**ARGUMENTS), retries=0)
    thread = threading.Thread(target=evicted, args=(workspace,), daemon=True)
    thread.start()
    with pytest.raises(AirflowRescheduleException):
        instance.attempt()
    thread.join()
    assert len(workspace.active()) == 1
    assert Alerts.told == []
    instance.try_number, workspace.duration = 1, 0
    assert instance.attempt() is None
    assert len(workspace.runs) == 1


class InAThread:
    """The author has the job waited for in a thread of his own, for example to do something else meanwhile."""

    def execute(self, context):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().execute, context).result()


class InALoop:
    def execute(self, context):
        return asyncio.run(asyncio.to_thread(super().execute, context))


@pytest.mark.parametrize("base", ["ready-made", "custom"])
@pytest.mark.parametrize(
    ("thread_of", "state", "active"), [(InAThread, "running", 1), (InALoop, "running", 1), (InAThread, "failed", 0)]
)
def test_a_stop_of_a_task_that_has_its_job_in_a_thread_of_its_own_is_as_any_other(workspace, thread_of, state, active, base):
    service, looks = Service(), threading.Event()
    service.on_poll = lambda: looks.set() or time.sleep(0.01)
    if base == "custom":
        instance = task(type("Op", (thread_of, WithCancel), {}), service, retries=0)
    else:
        made = type("Op", (thread_of, ResumableDatabricksOperator), {})
        instance = TaskInstance(lambda: made(**{**ARGUMENTS, "polling_period_seconds": 0.05}), retries=0)
    instance.state = state

    def stop():
        _ = looks.wait(20) if base == "custom" else workspace.wait_for("runs/get")
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    before = set(threading.enumerate())
    with pytest.raises(AirflowRescheduleException if state == "running" else LostSightError):
        instance.attempt()
    thread.join()
    assert len(service.active if base == "custom" else workspace.active()) == active
    assert instance.record["state"] == ("submitted" if active else "cancelled")
    service.finish()
    workspace.duration = 0
    for left in set(threading.enumerate()) - before:  # in life it ends with the process
        if not left.daemon:
            left.join(20)
            assert not left.is_alive()


def test_a_task_that_looks_and_leaves_does_so_through_it(workspace, around, made):
    instance = TaskInstance(lambda: made(around, ResumableDatabricksOperator)(**ARGUMENTS, resume_policy=RESCHEDULE), retries=0)
    ends = iter([lambda: None, lambda: None, lambda: setattr(workspace, "duration", 0)])
    assert instance.run(between=lambda: next(ends)()) == "success"
    assert list(ends) == []
    assert Alerts.told == []
    assert len(workspace.runs) == 1


class AsMixin(WithCancel):
    """A custom operator whose own ``execute`` calls ``execute_resumable``, and catches what comes out of it."""

    def execute(self, context):
        try:
            return self.execute_resumable(context)
        except Exception as e:
            raise AirflowException("the job failed") from e


class AboveMixin(WithCancel):
    def execute_resumable(self, context):
        try:
            return super().execute_resumable(context)
        except Exception as e:
            raise AirflowException("the job failed") from e


class Base(BaseOperator):
    """Somebody's base class, from before this library."""

    def execute(self, context):
        try:
            return self.execute_resumable(context)
        except Exception as e:
            raise AirflowException("the job failed") from e


class OverABase(ResumableMixin, Base):
    submit_job, get_job_status = WithCancel.submit_job, WithCancel.get_job_status
    is_job_active, is_job_succeeded = WithCancel.is_job_active, WithCancel.is_job_succeeded
    poll_until_complete, get_job_result = WithCancel.poll_until_complete, WithCancel.get_job_result


@pytest.mark.parametrize("operator", [AsMixin, AboveMixin, OverABase])
def test_a_custom_operator_may_catch_what_comes_out_of_its_job_too(operator):
    service = Service()
    instance = task(operator, service, retries=0, resume_policy=RESCHEDULE)
    ends = iter([lambda: None, lambda: None, service.finish])
    assert instance.run(between=lambda: next(ends)()) == "success"
    assert list(ends) == []
    assert list(service.states) == [0]


@pytest.mark.parametrize("operator", [AsMixin, AboveMixin, OverABase])
def test_a_failure_is_the_authors_to_catch_as_ever(operator):
    service = Service()
    service.on_poll = lambda: service.finish("FAILED")
    instance = task(operator, service, retries=0)
    assert instance.run() == "failed"
    [error] = instance.errors
    assert type(error) is AirflowException
    assert isinstance(error.__cause__, JobFailedError)


def test_a_failed_run_is_the_authors_to_tell_of_once(workspace, made):
    instance = TaskInstance(lambda: made(Alerts, ResumableDatabricksOperator)(**ARGUMENTS), retries=0)
    with pytest.raises(AirflowException, match="the job failed"):
        instance.attempt(listener=lambda _: [workspace.finish(run.run_id, "FAILED", "boom") for run in workspace.active()])
    assert len(Alerts.told) == 1


def test_an_operator_with_an_execute_of_its_own_is_copied_pickled_and_patched_as_ever(monkeypatch):
    operator = AsMixin(task_id="task")
    assert pickle.loads(pickle.dumps(operator)).task_id == "task"
    assert "execute" not in vars(operator)
    assert AsMixin.execute.__name__ == "execute"
    monkeypatch.setattr(AsMixin, "execute", lambda self, context: "patched")
    assert operator.execute({}) == "patched"


def test_a_mixin_that_is_patched_in_a_test_is_what_runs(monkeypatch):
    operator = before(Swallows, ResumableDatabricksOperator)(**ARGUMENTS)
    monkeypatch.setattr(Swallows, "execute", lambda self, context: "patched")
    assert operator.execute({}) == "patched"


def test_durable_false_leaves_an_execute_of_its_own_as_it_is(workspace):
    workspace.duration = 0
    assert TaskInstance(lambda: before(Alerts, ResumableDatabricksOperator)(**ARGUMENTS, durable=False)).attempt() is None
