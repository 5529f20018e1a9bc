"""The provider's verdict on a job that has ended stands, whether anybody saw it end; and to deliver it changes nothing."""

from __future__ import annotations

import types

import pytest
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.databricks.hooks.databricks import RunState

from resumable import ResumableMixin
from resumable.jobs.decision import JobState
from resumable.operators._databricks_runs import job_state_of
from resumable.operators.ecs import ResumableEcsRunTaskOperator
from resumable.operators.glue import ResumableGlueJobOperator
from tests.contract.aws_cases import CASES
from tests.support.aws_tasks import tasks
from tests.support.names import AirflowRescheduleException, AirflowSkipException, AirflowTaskTimeout, BaseOperator
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

OPERATORS = {name: (ours, bench) for name, ours, _, bench, _ in CASES}


@pytest.fixture
def run(monkeypatch):
    with tasks(OPERATORS, monkeypatch) as make:
        yield make


def die_in_the_wait(instance):
    """The first attempt submits, and its worker dies at the first thing that it does after the handle is kept."""

    def listen(effect):
        instance.effects.dead = bool(instance.data.get("resumable", {}).get("job")) and effect != "store.set"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def container(code=0, status="STOPPED", **more):
    return {"name": "main", "lastStatus": status, **({} if code is None else {"exitCode": code}), **more}


STOPPED_TASKS = {
    "well": {"containers": [container()]},
    "no containers": {"containers": []},
    "badly": {"containers": [container(1)]},
    "without an exit code": {"containers": [container(None)]},
    "skip": {"containers": [container(99)]},
    "skip of the second": {"containers": [container(), container(99)]},
    "skip, then badly": {"containers": [container(99), container(1)]},
    "badly, then skip": {"containers": [container(1), container(99)]},
    "never started": {"containers": [], "stopCode": "TaskFailedToStart", "stoppedReason": "no image"},
    "host terminated": {"containers": [container()], "stoppedReason": "Host EC2 (instance i-1) terminated."},
    "host stopped": {"containers": [container()], "stoppedReason": "Host EC2 (instance i-1) stopped."},
    "scaled in": {"containers": [container()], "stoppedReason": "Essential container in task exited"},
    "pending": {"containers": [container(None, "PENDING")]},
    "error at the launch": {"containers": [container(None, "CREATED", reason="CannotStartContainerError: x")]},
    "running beside": {"containers": [container(), container(None, "RUNNING")]},
}


@pytest.mark.parametrize("kind", STOPPED_TASKS)
@pytest.mark.parametrize("skips", [None, 99, [98, 99]])
def test_ecs_a_stopped_task_is_judged_as_the_provider_judges_it(kind, skips):
    task = {"taskArn": "arn", "lastStatus": "STOPPED", **STOPPED_TASKS[kind]}
    answer = types.SimpleNamespace(describe_tasks=lambda **_: {"tasks": [task], "failures": []})
    given = {"task_id": "task", "cluster": "c", "task_definition": "d", "overrides": {}, "skip_on_exit_code": skips}
    theirs = EcsRunTaskOperator(**given)
    vars(theirs)["client"], theirs.arn = answer, "arn"
    try:
        theirs._check_success_task()
        expected = "success"
    except AirflowSkipException:
        expected = "skipped"
    except Exception:
        expected = "failed"
    ours = ResumableEcsRunTaskOperator(**given)
    vars(ours)["hook"] = types.SimpleNamespace(conn=answer, conn_region_name="us-east-1")
    job = type(ours)._resumable.service(ours)
    seen = job.observe(job.handle({"cluster": "c", "task": "arn"}))
    assert seen.state is (JobState.FAILED if expected == "failed" else JobState.SUCCEEDED)
    assert seen.detail.startswith({"success": "STOPPED", "failed": "EXITED", "skipped": "SKIPPED"}[expected])


def test_ecs_a_task_that_is_not_shown_for_another_reason_is_not_taken_for_gone():
    answer = types.SimpleNamespace(describe_tasks=lambda **_: {"tasks": [], "failures": [{"arn": "arn", "reason": "DENIED"}]})
    ours = ResumableEcsRunTaskOperator(task_id="task", cluster="c", task_definition="d", overrides={})
    vars(ours)["hook"] = types.SimpleNamespace(conn=answer, conn_region_name="us-east-1")
    job = type(ours)._resumable.service(ours)
    with pytest.raises(RuntimeError, match="does not show"):
        job.observe(job.handle({"cluster": "c", "task": "arn"}))


@pytest.mark.parametrize("on_failed", ["resubmit", "fail"])
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_ecs_an_exit_code_that_skips_skips_the_task_when_nobody_saw_it(run, on_failed, deferrable):
    server, instance = run("ecs", skip_on_exit_code=99, deferrable=deferrable, resume_policy={"on_failed": on_failed})
    die_in_the_wait(instance)
    server.finish(server.all[0], "STOPPED 99")
    with pytest.raises(AirflowSkipException):
        instance.attempt()
    assert len(server.all) == server.count("RunTask") == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_ecs_an_exit_code_that_skips_skips_the_task_that_watches(run, deferrable):
    server, instance = run("ecs", skip_on_exit_code=99, deferrable=deferrable, resume_policy={"on_failed": "fail"})

    def end(effect):
        for job in server.running():
            server.finish(job, "STOPPED 99")

    with pytest.raises(AirflowSkipException):
        instance.attempt(listener=end)
    assert len(server.all) == 1


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_ecs_an_exit_code_that_skips_skips_the_task_once_ecs_has_forgotten_it(run, deferrable):
    server, instance = run("ecs", skip_on_exit_code=99, deferrable=deferrable)

    def end(effect):
        if server.running() and instance.data.get("resumable", {}).get("job"):
            server.finish(server.all[0], "STOPPED 99")
            raise AirflowTaskTimeout("execution_timeout")

    with pytest.raises(AirflowTaskTimeout):
        instance.attempt(listener=end)
    assert instance.data["resumable"]["state"] == "succeeded"
    server.forget()
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        instance.attempt()
    assert server.count("RunTask") == 1


@pytest.mark.parametrize("mode", [{}, {"deferrable": True}, {"resume_policy": {"wait": "reschedule"}}], ids=str)
@pytest.mark.parametrize("application", ["STOPPED", "TERMINATED", "STOPPING"])
def test_emr_serverless_to_deliver_a_job_its_application_is_not_started(run, mode, application):
    server, instance = run("emr-serverless", **mode)
    die_in_the_wait(instance)
    instance.try_number = 2
    server.finish(server.all[0])
    server.application = application
    assert instance.attempt() == server.all[0].id
    assert server.count("StartApplication") == 0
    assert (server.application, len(server.all)) == (application, 1)


def test_emr_serverless_a_job_that_runs_is_watched_whatever_its_application_is_said_to_be(run):
    server, instance = run("emr-serverless")
    die_in_the_wait(instance)
    server.application = "STOPPED"
    server.duration = 0
    instance.attempt()
    assert server.count("StartApplication") == 0


def test_emr_serverless_a_first_job_starts_its_application_as_ever(run):
    server, instance = run("emr-serverless")
    server.application, server.duration = "STOPPED", 0
    instance.attempt()
    assert server.count("StartApplication") == 1


@pytest.fixture
def uploads(monkeypatch):
    done = []
    monkeypatch.setattr("airflow.providers.amazon.aws.hooks.s3.S3Hook.load_file", lambda self, name, *_, **__: done.append(name))
    return done


GLUE = {"script_location": "/dags/job.py", "s3_bucket": "b", "iam_role_arn": "arn:aws:iam::123456789012:role/r"}


@pytest.mark.parametrize("ends", [False, True], ids=["reattached", "delivered"])
def test_glue_a_local_script_is_uploaded_for_a_new_run_only(run, uploads, ends):
    server, instance = run("glue", update_config=True, replace_script_file=True, **GLUE)
    die_in_the_wait(instance)
    assert uploads == ["/dags/job.py"]
    if ends:
        server.finish(server.all[0])
    server.duration = 0
    instance.attempt()
    assert (uploads, server.count("StartJobRun")) == (["/dags/job.py"], 1)
    instance.clear()
    instance.try_number += 1
    instance.attempt()
    assert (uploads, server.count("StartJobRun")) == (["/dags/job.py"] * 2, 2)
    script = {call.body["JobUpdate"]["Command"]["ScriptLocation"] for call in server.calls("UpdateJob")}
    assert script == {"s3://b/artifacts/glue-scripts/job.py"}


def test_glue_with_durable_false_the_script_is_uploaded_as_by_the_provider(uploads):
    operator = ResumableGlueJobOperator(task_id="task", job_name="j", durable=False, aws_conn_id=None, **GLUE)
    assert operator._hook_parameters["script_location"] == "s3://b/artifacts/glue-scripts/job.py"
    assert uploads == ["/dags/job.py"]


def test_ecs_a_task_is_seen_at_a_distance_too():
    """The sweep knows nothing of the author's exit codes: it only needs to know that the task has ended."""
    task = ResumableEcsRunTaskOperator._resumable.service.of_record(
        ResumableEcsRunTaskOperator, {"operator": "x", "aws_conn_id": None, "region_name": "us-east-1"}
    )
    answer = {"tasks": [{"taskArn": "arn", "lastStatus": "STOPPED", "containers": [container(99)]}], "failures": []}
    task._own_hook = types.SimpleNamespace(
        conn=types.SimpleNamespace(describe_tasks=lambda **_: answer), conn_region_name="us-east-1"
    )
    assert task.observe(task.handle({"cluster": "c", "task": "arn"})).state is JobState.FAILED


@pytest.mark.parametrize("life", ["TERMINATED", "SKIPPED", "INTERNAL_ERROR"])
@pytest.mark.parametrize(
    "result",
    [
        "SUCCESS",
        "FAILED",
        "TIMEDOUT",
        "CANCELED",
        "EXCLUDED",
        "UPSTREAM_FAILED",
        "UPSTREAM_CANCELED",
        "SUCCESS_WITH_FAILURES",
        "MAXIMUM_CONCURRENT_RUNS_REACHED",
        "A_RESULT_OF_NEXT_YEAR",
    ],
)
def test_databricks_a_run_that_has_ended_is_judged_as_the_provider_judges_it(life, result):
    theirs = RunState(life, result)
    assert theirs.is_terminal
    assert job_state_of(life, result) is (JobState.SUCCEEDED if theirs.is_successful else JobState.FAILED)


@pytest.mark.parametrize("life", RunState.RUN_LIFE_CYCLE_STATES)
def test_databricks_every_state_that_the_provider_knows_is_placed(life):
    assert job_state_of(life, "SUCCESS") is (JobState.SUCCEEDED if RunState(life).is_terminal else JobState.ACTIVE)


class SkipsOnNothing(ResumableMixin, BaseOperator):
    """An operator of one's own whose job says by failing that there was nothing to do."""

    jobs: list[str]

    def execute(self, context):
        return self.execute_resumable(context)

    def submit_job(self, context):
        self.jobs.append("running")
        return len(self.jobs) - 1

    def get_job_status(self, external_id, context):
        return self.jobs[external_id]

    def is_job_active(self, status):
        return status == "running"

    def is_job_succeeded(self, status):
        return status == "done"

    def poll_until_complete(self, external_id, context):
        if self.jobs[external_id] == "running":
            raise WorkerDied("while it runs")
        raise AirflowSkipException("nothing to do")

    def get_job_result(self, external_id, context):
        return external_id


@pytest.mark.parametrize("policy", [{"on_failed": "fail"}, {"on_failed": "resubmit"}, {"wait": "reschedule"}], ids=str)
def test_custom_a_skip_out_of_the_wait_skips_the_task_whatever_the_policy(policy, monkeypatch):
    jobs = []
    monkeypatch.setattr(SkipsOnNothing, "jobs", jobs, raising=False)
    instance = TaskInstance(lambda: SkipsOnNothing(task_id="task", resume_policy=policy))
    with pytest.raises((WorkerDied, AirflowRescheduleException)):
        instance.attempt()
    jobs[0] = "nothing"
    with pytest.raises(AirflowSkipException):
        instance.attempt()
    assert len(jobs) == 1
