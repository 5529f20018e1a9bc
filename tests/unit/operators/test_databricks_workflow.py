"""A workflow is one run: its launch task starts it once, and its tasks only watch."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from airflow.providers.databricks.operators import databricks_workflow as provider
from airflow.providers.databricks.operators.databricks import DatabricksNotebookOperator, DatabricksTaskOperator
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

from resumable import ConfigurationError, LostSightError, host
from resumable.operators.databricks import ResumableDatabricksNotebookOperator, ResumableDatabricksTaskOperator
from resumable.operators.databricks_workflow import ResumableDatabricksWorkflowTaskGroup, WorkflowRun
from tests.services import Drop, Refuse
from tests.support.names import (
    DAG,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowTaskTerminated,
    BaseOperator,
    DagSerialization,
)
from tests.support.runner import TaskInstance, WorkerDied, in_fleet

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
OURS = (ResumableDatabricksWorkflowTaskGroup, ResumableDatabricksNotebookOperator, ResumableDatabricksTaskOperator)
THEIRS = (DatabricksWorkflowTaskGroup, DatabricksNotebookOperator, DatabricksTaskOperator)


def workflow(classes=OURS, path="/load", member=None, **group):
    """A DAG with one workflow of two tasks."""
    kind, notebook, task = classes
    quick = {"existing_cluster_id": "c", "polling_period_seconds": 0, "databricks_retry_delay": 0, **(member or {})}
    with DAG("dag", schedule=None) as dag, kind(group_id="flow", databricks_conn_id="databricks_default", **group):
        load = notebook(task_id="load", notebook_path=path, source="WORKSPACE", **quick)
        count = task(task_id="count", task_config={"spark_python_task": {"python_file": "/c.py"}}, **quick)
        load >> count
    return dag


def launch(**arguments):
    return TaskInstance(lambda: workflow(**arguments).task_dict["flow.launch"])


def watcher(metadata, task="flow.load", **arguments):
    def make():
        operator = workflow(**arguments).task_dict[task]
        operator.workflow_run_metadata = metadata  # as it is rendered from launch's XCom
        return operator

    return TaskInstance(make)


def die_after(instance, effect):
    def listen(done):
        instance.effects.dead = done.endswith(effect)

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def die_with_the_run_kept(instance):
    def listen(effect):
        instance.effects.dead = effect == "store.set" and bool(instance.record["job"])

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def stop(instance, state, when):
    """SIGTERM after an effect, with Airflow's state of the task as given."""
    if when.startswith("xcom") and not host.has_sdk():
        pytest.skip("on Airflow 2 the provider pushes no link")
    sent = []

    def listen(effect):
        if effect.endswith(when) and not sent:
            sent.append(instance.state)
            instance.state = state
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises((AirflowRescheduleException, LostSightError, AirflowTaskTerminated)):
        instance.attempt(listener=listen)
    instance.state = "running"
    assert sent


def the_run(workspace):
    (run,) = workspace.runs.values()
    return run


# -- launch ------------------------------------------------------------------------------------------------------------


def test_launch_gives_what_the_providers_gives(workspace):
    ours, theirs = launch(), launch(classes=THEIRS)
    results = [instance.attempt() for instance in (ours, theirs)]
    assert [sorted(result) for result in results] == [["conn_id", "job_id", "run_id"]] * 2
    assert results[0]["job_id"] == results[1]["job_id"]
    assert set(ours.xcoms) == set(theirs.xcoms)
    first, second = [call.body for call in workspace.calls("run-now")]
    assert first.pop("idempotency_token") == ours.record["token"]
    assert first == second


def test_the_providers_launch_starts_a_second_run_on_a_retry(workspace):
    instance = launch(classes=THEIRS)
    die_after(instance, "run-now")
    instance.attempt()
    assert len(workspace.runs) == 2


@pytest.mark.parametrize("ending", [None, "SUCCESS", "FAILED", "CANCELED"])
def test_a_retry_takes_up_the_run_that_runs_or_has_ended_and_leaves_the_job_as_it_is(workspace, ending):
    instance = launch()
    die_with_the_run_kept(instance)
    if ending:
        workspace.finish(the_run(workspace).run_id, ending)
    assert instance.attempt()["run_id"] == the_run(workspace).run_id
    assert (workspace.count("jobs/create"), workspace.count("jobs/reset"), workspace.count("run-now")) == (1, 0, 1)
    assert instance.record["state"] == "submitted"


@pytest.mark.parametrize("ending", [None, "SUCCESS"])
def test_a_run_whose_answer_was_lost_is_taken_up(workspace, ending):
    instance = launch()
    die_after(instance, "run-now")
    if ending:
        workspace.finish(the_run(workspace).run_id, ending)
    assert instance.attempt()["run_id"] == the_run(workspace).run_id
    assert (workspace.count("jobs/reset"), workspace.count("run-now")) == (0, 2)


def test_a_dropped_answer_makes_no_second_run(workspace):
    workspace.fault("run-now", Drop())
    launch().attempt()
    assert len(workspace.runs) == 1


def test_one_run_wherever_the_worker_dies(workspace):
    instance = launch()
    instance.attempt()
    for index in range(len(instance.effects.done)):
        for side in ("before", "after"):
            with workspace.lock:
                workspace.runs.clear()
            again = launch()
            again.map_index = index * 2 + (side == "after")  # a token of its own
            with pytest.raises(WorkerDied):
                again.attempt(die_at=(index, side))
            again.attempt()
            assert len(workspace.runs) == 1, (index, side)


def test_a_run_that_is_queued_is_waited_for(workspace):
    instance = launch()

    def listen(effect):
        run = next(iter(workspace.runs.values()), None)
        if run and effect == "store.set" and instance.record["job"]:
            workspace.set_state(run.run_id, "QUEUED")
        elif run and run.life_cycle_state == "QUEUED" and effect.endswith("runs/get"):
            workspace.set_state(run.run_id, "RUNNING")

    assert instance.attempt(listener=listen)["run_id"] == the_run(workspace).run_id


@pytest.mark.parametrize("state", ["SKIPPED", "INTERNAL_ERROR"])
def test_a_run_that_never_began_is_followed_by_another(workspace, state):
    instance = launch()

    def listen(effect):
        if effect == "store.set" and instance.record["job"]:
            workspace.set_state(the_run(workspace).run_id, state)

    with pytest.raises(Exception, match=f"Could not start the workflow job. State: {state}"):
        instance.attempt(listener=listen)
    assert instance.record["state"] == "failed"
    assert instance.attempt()["run_id"] == max(workspace.runs)
    assert len(workspace.runs) == 2


def test_a_run_that_began_is_never_followed_by_another_without_a_clear(workspace):
    instance = launch()
    workspace.fault("runs/get", Refuse(503), times=3)
    with pytest.raises(Exception, match="503|failed 3 times"):
        instance.attempt()
    workspace.finish(the_run(workspace).run_id, "FAILED", "boom")
    instance.attempt()
    assert len(workspace.runs) == 1


@pytest.mark.parametrize(("policy", "runs", "cancels"), [("restart", 2, 1), ("reattach", 1, 0)])
def test_a_clear_of_a_launched_workflow_follows_on_clear(workspace, policy, runs, cancels):
    instance = launch(resume_policy={"on_clear": policy})
    instance.attempt()
    workspace.cancel_lag_reads = 2
    instance.try_number += 1
    instance.clear()
    most = []
    instance.attempt(listener=lambda effect: most.append(len(workspace.active())))
    assert (len(workspace.runs), workspace.count("runs/cancel"), max(most)) == (runs, cancels, 1)


def test_an_edit_of_a_task_of_the_workflow_is_a_change_of_the_job(workspace):
    instance = launch(resume_policy={"on_change": "fail"})
    instance.is_all_written = True
    die_with_the_run_kept(instance)
    instance.make = launch(path="/other", resume_policy={"on_change": "fail"}).make
    with pytest.raises(AirflowFailException, match="on_change=fail"):
        instance.attempt()
    assert len(workspace.runs) == 1


@pytest.mark.parametrize(
    ("written", "edited"),
    [
        ({"member": {"existing_cluster_id": "c"}}, {"member": {"existing_cluster_id": "d"}}),
        ({"member": {"max_retries": 1}}, {"member": {"max_retries": 2}}),
        ({}, {"member": {"trigger_rule": "all_done"}}),
        ({}, {"notebook_packages": [{"pypi": {"package": "x"}}]}),
        ({"notebook_packages": [{"pypi": {"package": "x"}}]}, {"notebook_packages": [{"pypi": {"package": "y"}}]}),
        ({"notebook_params": {"x": "1"}}, {"notebook_params": {"x": "2"}}),
    ],
    ids=repr,
)
def test_whatever_an_edit_changes_in_the_workflow_is_a_change_of_the_job(workspace, written, edited):
    instance = launch(resume_policy={"on_change": "fail"}, **written)
    instance.text = lambda: repr(written)
    die_with_the_run_kept(instance)
    instance.make = launch(resume_policy={"on_change": "fail"}, **edited).make
    instance.text = lambda: repr(edited)
    with pytest.raises(AirflowFailException, match="on_change=fail"):
        instance.attempt()
    assert len(workspace.runs) == 1


@pytest.mark.parametrize(("state", "cancels"), [("failed", 1), ("running", 0)])
def test_a_users_stop_of_launch_cancels_the_run_and_an_eviction_does_not(workspace, state, cancels):
    instance = launch()
    listener_of_pending(workspace, instance)
    stop(instance, state, "runs/get")
    assert workspace.count("runs/cancel") == cancels
    if not cancels:
        workspace.set_state(the_run(workspace).run_id, "RUNNING")
        instance.attempt()
        assert len(workspace.runs) == 1


def listener_of_pending(workspace, instance):
    start = workspace._start

    def start_pending(body, job_id, tasks):
        answer = start(body, job_id, tasks)
        workspace.set_state(answer["run_id"], "PENDING")
        return answer

    workspace._start = start_pending


# -- the group ---------------------------------------------------------------------------------------------------------


def test_the_group_leaves_the_providers_module_as_it_was_also_after_an_error():
    before = provider._CreateDatabricksWorkflowOperator
    theirs = workflow(classes=THEIRS)
    workflow()
    with (
        pytest.raises(RuntimeError, match="an author's error"),
        DAG("dag", schedule=None),
        ResumableDatabricksWorkflowTaskGroup(group_id="flow", databricks_conn_id="x"),
    ):
        raise RuntimeError("an author's error")
    assert provider._CreateDatabricksWorkflowOperator is before
    assert type(theirs.task_dict["flow.launch"]) is before
    assert isinstance(workflow().task_dict["flow.launch"], before)


def test_the_arguments_of_ours_reach_launch_from_the_group_and_from_default_args():
    group = workflow(durable=False, resume_policy={"on_clear": "reattach"}).task_dict["flow.launch"]
    assert (group.durable, group.resume_policy.on_clear.value) == (False, "reattach")
    defaults = workflow(default_args={"resume_policy": {"on_failed": "fail"}}).task_dict
    assert defaults["flow.launch"].resume_policy.on_failed.value == "fail"
    assert defaults["flow.load"].resume_policy.on_failed.value == "fail"
    with pytest.raises(ConfigurationError, match="on_clear='never'"):
        workflow(resume_policy={"on_clear": "never"})


def test_durable_false_launches_exactly_as_the_provider(workspace):
    instance = launch(durable=False)
    instance.attempt()
    assert instance.data == {}
    assert "idempotency_token" not in workspace.calls("run-now")[0].body


def test_a_dag_with_a_workflow_can_be_serialized_and_read_back():
    read = DagSerialization.from_dict(DagSerialization.to_dict(workflow()))
    assert set(read.task_dict) == {"flow.launch", "flow.load", "flow.count"}
    assert read.task_dict["flow.load"].upstream_task_ids == {"flow.launch"}


# -- the tasks of the group --------------------------------------------------------------------------------------------


@pytest.fixture
def metadata(workspace):
    return launch().attempt()


def finish(workspace, result="SUCCESS"):
    for run in workspace.active():
        workspace.finish(run.run_id, result, "" if result == "SUCCESS" else "boom")


@MODES
@pytest.mark.parametrize("task", ["flow.load", "flow.count"])
def test_a_task_of_a_workflow_submits_and_keeps_nothing_and_gives_what_the_providers_gives(workspace, metadata, task, deferrable):
    ours, theirs = (watcher(metadata, task, classes=classes, member={"deferrable": deferrable}) for classes in (OURS, THEIRS))
    finish(workspace)
    assert ours.attempt() == theirs.attempt() is None
    assert ours.xcoms == theirs.xcoms
    assert (len(workspace.runs), ours.data) == (1, {})


@MODES
def test_a_task_of_a_workflow_that_is_evicted_leaves_its_part_alone_and_watches_it_again(workspace, metadata, deferrable):
    instance = watcher(metadata, member={"deferrable": deferrable})
    stop(instance, "running", "xcom databricks_job_run_link")
    assert workspace.count("runs/cancel") == 0
    finish(workspace)
    instance.attempt()
    assert len(workspace.runs) == 1


def test_a_users_mark_of_one_task_cancels_its_part_by_one_request_and_a_clear_of_it_none(workspace, metadata):
    part = next(run_id for run_id, key in the_run(workspace).tasks.items() if key == key_of("flow.load"))
    stop(watcher(metadata), "restarting", "xcom databricks_job_run_link")
    assert workspace.count("runs/cancel") == 0
    stop(watcher(metadata), "failed", "xcom databricks_job_run_link")
    assert [call.body["run_id"] for call in workspace.calls("runs/cancel")] == [part]


def key_of(task):
    return workflow().task_dict[task].databricks_task_key


@MODES
def test_a_part_that_failed_fails_its_task_on_each_try_until_the_run_is_repaired(workspace, metadata, deferrable):
    instance = watcher(metadata, member={"deferrable": deferrable})
    finish(workspace, "FAILED")
    for _ in range(2):
        with pytest.raises(Exception, match="boom|FAILED"):
            instance.attempt()
    the_run(workspace).repair(7)
    finish(workspace)
    instance.attempt()
    assert len(workspace.runs) == 1


def test_trouble_with_the_status_is_waited_out(workspace, metadata):
    instance = watcher(metadata)
    workspace.fault("runs/get", Refuse(503), times=4)
    instance.attempt(listener=lambda effect: len(workspace.calls("runs/get")) > 6 and finish(workspace))
    assert instance.try_number == 1


def test_wait_reschedule_frees_the_slot_between_two_looks(workspace, metadata):
    instance = watcher(metadata, member={"resume_policy": {"wait": "reschedule", "wait_interval": 60}})
    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
    finish(workspace)
    instance.attempt()


def test_wait_defer_watches_the_part_of_the_task_alone_and_a_users_mark_cancels_it_alone(workspace, metadata, monkeypatch):
    parts = {key: run_id for run_id, key in the_run(workspace).tasks.items()}
    instance = watcher(metadata, member={"resume_policy": {"wait": "defer"}})
    held = []
    instance.run_trigger = lambda deferred: held.append(deferred.trigger) or in_fleet(deferred, lambda: finish(workspace))
    instance.attempt()
    assert (len(held), len(workspace.runs), workspace.count("runs/cancel")) == (1, 1, 0)
    assert held[0].job["ids"]["task"] == key_of("flow.load")

    async def marked(_):
        return "failed"

    monkeypatch.setattr("resumable.host.state_seen_by_trigger", marked)
    trigger = type(held[0])(**held[0].serialize()[1])
    trigger.task_instance = None
    asyncio.run(trigger.on_kill())
    assert [call.body["run_id"] for call in workspace.calls("runs/cancel")] == [parts[key_of("flow.load")]]


def test_a_task_takes_run_and_connection_from_launch_where_they_were_not_rendered(workspace, metadata, monkeypatch):
    instance = watcher(None)
    pulled = []

    def xcom_pull(self, task_ids):
        pulled.append(task_ids)
        return metadata

    monkeypatch.setattr("tests.support.runner.TaskInstanceDouble.xcom_pull", xcom_pull, raising=False)
    finish(workspace)
    instance.attempt()
    assert pulled == ["flow.launch"]


def test_the_tasks_of_a_workflow_of_the_providers_own_group_may_be_resumable(workspace):
    classes = (DatabricksWorkflowTaskGroup, *OURS[1:])
    metadata = launch(classes=classes).attempt()
    finish(workspace)
    watcher(metadata, classes=classes).attempt()


def test_a_task_of_the_workflow_that_cannot_tell_what_it_is_counts_by_its_template_fields():
    class Quacks(BaseOperator):
        template_fields = ("sql", "databricks_conn_id")
        databricks_conn_id = "databricks_default"

        def __init__(self, *, sql, **kwargs):
            super().__init__(**kwargs)
            self.sql = sql

    class Fails(Quacks):
        def _get_task_base_json(self):
            raise RuntimeError("needs a connection")

    operator = launch().make()
    operator.tasks_to_convert = {"a": Quacks(task_id="a", sql="select 1"), "b": Fails(task_id="b", sql="select 2")}
    assert WorkflowRun.spec_values(operator)["tasks"] == {"a": {"sql": "select 1"}, "b": {"sql": "select 2"}}
