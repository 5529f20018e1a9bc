"""DataSync: what the provider does around the one execution: locations, tasks, a delete, and a cancel on any exception."""

from __future__ import annotations

import time

import pytest

from resumable.operators.datasync import ResumableDataSyncOperator
from tests.contract import aws_jobs
from tests.contract.cases import Case
from tests.contract.crash_points import deaths, undisturbed
from tests.services import Drop, Refuse
from tests.services.aws_jobs import DataSync
from tests.support.aws_tasks import die_after
from tests.support.names import AirflowRescheduleException
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.usefixtures("no_waiting")

MAKING = {
    "create_source_location_kwargs": {"S3BucketArn": "arn:aws:s3:::from", "S3Config": {"BucketAccessRoleArn": aws_jobs.ROLE}},
    "create_destination_location_kwargs": {"S3BucketArn": "arn:aws:s3:::to", "S3Config": {"BucketAccessRoleArn": aws_jobs.ROLE}},
    "create_task_kwargs": {"Name": "nightly"},
}


@pytest.fixture
def server(monkeypatch):
    with DataSync() as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


def transfer(**more):
    return TaskInstance(
        lambda: ResumableDataSyncOperator(
            task_id="task", aws_conn_id=None, **{**aws_jobs.transfer("files"), **more}, region_name="us-east-1"
        )
    )


def of_a_task_that_is_made_and_deleted():
    made = {**MAKING, "delete_task_after_execution": True}
    bench = aws_jobs.bench(DataSync, *aws_jobs.DATASYNC, lambda word: {**aws_jobs.transfer(word), **made})
    return Case("datasync", ResumableDataSyncOperator, None, bench)


@pytest.mark.slow
def test_wherever_the_worker_dies_there_is_one_execution_although_its_task_is_made_and_deleted(monkeypatch):
    fresh, effects = undisturbed(of_a_task_that_is_made_and_deleted(), monkeypatch)
    assert {"http CreateLocationS3", "http CreateTask", "http UpdateTask", "http DeleteTask"} <= set(effects)
    for point in deaths(of_a_task_that_is_made_and_deleted(), monkeypatch, effects):
        assert point.jobs == fresh.jobs == 1, point.name
        assert set(point.result) == {"TaskArn", "TaskExecutionArn"}, point.name
        assert set(point.xcoms) == set(fresh.xcoms), point.name


@pytest.mark.parametrize("call", ["CreateLocationS3", "CreateTask"])
@pytest.mark.parametrize("fault", [Refuse(503, after_effect=True), Drop()], ids=["503", "dropped"])
def test_a_lost_answer_to_what_makes_a_location_or_a_task_makes_no_second_one(server, call, fault):
    server.fault(call, fault)
    server.duration = 0
    instance = transfer(**MAKING)
    with pytest.raises(Exception, match=f"{call}|Connection"):
        instance.attempt()
    instance.attempt()
    assert (len(server.locations), len(server.tasks), len(server.all)) == (2, 1, 1)


def test_a_reattachment_looks_for_no_task_and_changes_none(server):
    server.seed()
    instance = transfer()
    die_after(instance, "http DescribeTaskExecution")
    done = server.count("ListTasks"), server.count("UpdateTask")
    server.duration = 0
    instance.attempt()
    assert (server.count("ListTasks"), server.count("UpdateTask")) == done
    assert len(server.all) == 1


def test_wait_reschedule_deletes_the_task_when_its_execution_has_ended_and_not_before(server):
    server.seed()
    policy = {"wait": "reschedule", "wait_interval": 60}
    instance = transfer(delete_task_after_execution=True, resume_policy=policy)
    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
        instance.try_number -= 1
    assert server.count("DeleteTask") == 0
    server.finish(server.all[0])
    assert instance.attempt()["TaskExecutionArn"] == server.all[0].id
    assert (server.count("DeleteTask"), server.tasks, len(server.all)) == (1, {}, 1)


def test_trouble_with_the_status_cancels_nothing(server):
    server.seed()
    instance = transfer()

    def listen(effect):
        if effect == "http StartTaskExecution":
            server.fault("DescribeTaskExecution", Refuse(503), times=7)
        elif server.count("DescribeTaskExecution") > 7:
            server.duration = 0

    instance.attempt(listener=listen)
    assert (len(server.all), server.count("CancelTaskExecution")) == (1, 0)


def test_an_execution_that_somebody_cancels_is_waited_for_to_its_end(server):
    server.seed()
    instance = transfer()
    looks = []

    def listen(effect):
        if effect == "http DescribeTaskExecution":
            looks.append(effect)
            server.all[0].state = "CANCELLING" if len(looks) < 4 else "ERROR"

    with pytest.raises(Exception, match="Failed TaskExecutionArn"):
        instance.attempt(listener=listen)
    assert (instance.record["state"], server.count("CancelTaskExecution")) == ("failed", 0)


@pytest.mark.parametrize(("policy", "cancels"), [("cancel", 1), ("detach", 0)])
def test_max_iterations_follows_on_timeout(server, policy, cancels):
    server.seed()
    instance = transfer(max_iterations=2, resume_policy={"on_timeout": policy})
    with pytest.raises(BaseException, match="Max iterations"):
        instance.attempt()
    assert server.count("CancelTaskExecution") == cancels


def test_max_iterations_alone_leave_the_execution_to_the_next_try(server):
    server.seed()
    instance = transfer(max_iterations=2)
    with pytest.raises(Exception, match="Max iterations"):
        instance.attempt()
    assert server.count("CancelTaskExecution") == 0
    server.finish(server.all[0])
    instance.attempt()
    assert len(server.all) == 1


def test_durable_false_cancels_as_the_provider_does(server):
    server.seed()
    instance = transfer(max_iterations=2, durable=False)
    with pytest.raises(BaseException, match="Max iterations"):
        instance.attempt()
    assert server.count("CancelTaskExecution") == 1


def test_in_doubt_the_execution_is_found_among_others_of_its_task(server):
    task = server.seed()
    for _ in range(5):
        server.finish(server.get(server.start_task_execution({"TaskArn": task})["TaskExecutionArn"]))
    instance = transfer()
    die_after(instance, "http StartTaskExecution")
    server.finish(server.all[-1])
    server.finish(server.get(server.start_task_execution({"TaskArn": task})["TaskExecutionArn"]))
    assert instance.attempt()["TaskExecutionArn"] == server.all[5].id
    assert len(server.all) == 7


def test_in_doubt_it_is_found_although_neither_list_nor_task_shows_it_yet(server, monkeypatch):
    server.seed()
    instance = transfer()
    die_after(instance, "http StartTaskExecution")
    server.list_lag, server.duration, slept = 3600, 0, []

    def sleep(seconds):
        slept.append(seconds)
        server.list_lag = 0 if sum(slept) >= 15 else 3600

    monkeypatch.setattr(time, "sleep", sleep)
    instance.attempt()
    assert len(server.all) == 1


def test_the_authors_own_tags_stay(server):
    server.seed()
    server.duration = 0
    instance = transfer(task_execution_kwargs={"Tags": [{"Key": "team", "Value": "data"}]})
    instance.attempt()
    tags = {tag["Key"]: tag["Value"] for tag in server.all[0].body["Tags"]}
    assert tags == {"team": "data", "resumable-token": instance.record["token"]}
