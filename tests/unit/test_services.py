"""The simulated services behave as the real ones are documented to, seen through the real clients."""

from __future__ import annotations

import asyncio
import inspect
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))

import boto3
import pytest
import requests
from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from tests.services import Drop, EmrService, Hold, Refuse

NOTEBOOK = {"run_name": "nightly", "tasks": [{"task_key": "load"}]}
STEP = {"Name": "load", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {"Jar": "command-runner.jar"}}


@pytest.fixture
def hook(workspace):
    """The provider's hook without its retries, which would hide what a single request does."""
    return DatabricksHook(retry_limit=1)


@pytest.fixture
def aws(monkeypatch):
    with EmrService() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def emr(aws):
    return client()


def client(**config):
    """Return a boto3 client that sends every request once."""
    return boto3.client("emr", config=Config(retries={"total_max_attempts": 1}, **config))


def add_steps(emr, cluster_id, count=1):
    return emr.add_job_flow_steps(JobFlowId=cluster_id, Steps=[STEP] * count)["StepIds"]


def run(trigger):
    """Run a trigger in an event loop of its own and return its events."""

    async def events():
        return [event async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(events(), 20))


# -- Databricks --------------------------------------------------------------------------------------


def test_databricks_token_returns_the_same_run_whatever_its_state_and_payload(workspace, hook):
    first = hook.submit_run({**NOTEBOOK, "idempotency_token": "t"})
    workspace.finish(first, "FAILED")
    assert hook.submit_run({"run_name": "other", "idempotency_token": "t"}) == first
    assert list(workspace.runs) == [first]


def test_databricks_without_token_starts_a_run_for_each_post(workspace, hook):
    assert hook.submit_run(NOTEBOOK) != hook.submit_run(NOTEBOOK)
    assert len(workspace.active()) == 2


def test_databricks_concurrent_posts_of_one_token_start_one_run(workspace, hook):
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(hook.submit_run, [{**NOTEBOOK, "idempotency_token": "t"}] * 16))
    assert answers == set(workspace.runs)
    assert len(answers) == 1


def test_databricks_token_may_have_64_characters_and_no_more(hook):
    hook.submit_run({**NOTEBOOK, "idempotency_token": "t" * 64})
    with pytest.raises(AirflowException, match=r"INVALID_PARAMETER_VALUE.*Status Code: 400"):
        hook.submit_run({**NOTEBOOK, "idempotency_token": "t" * 65})


def test_databricks_token_of_a_deleted_run_is_an_error(workspace, hook):
    run_id = hook.submit_run({**NOTEBOOK, "idempotency_token": "t"})
    with pytest.raises(AirflowException, match="is active"):
        hook.delete_run(run_id)
    hook.cancel_run(run_id)
    hook.delete_run(run_id)
    with pytest.raises(AirflowException, match="was deleted"):
        hook.submit_run({**NOTEBOOK, "idempotency_token": "t"})


@pytest.mark.parametrize(("status", "code"), [(400, "INVALID_PARAMETER_VALUE"), (404, "RESOURCE_DOES_NOT_EXIST")])
def test_databricks_missing_run_is_400_or_as_set(workspace, hook, status, code):
    workspace.missing_status = status
    run_id = hook.submit_run(NOTEBOOK)
    workspace.forget(run_id)
    with pytest.raises(AirflowException, match=rf"{code}.*Run {run_id} does not exist.*Status Code: {status}"):
        hook.get_run(run_id)


def test_databricks_drop_leaves_one_run_and_a_client_error(workspace, hook, capfd):
    workspace.fault("runs/submit", Drop())
    with pytest.raises(AirflowException, match="failed 1 times"):
        hook.submit_run(NOTEBOOK)
    assert len(workspace.runs) == 1
    assert [call.answer for call in workspace.calls("runs/submit")] == ["dropped"]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_databricks_hook_retry_after_a_drop_starts_a_second_run_unless_a_token_is_sent(workspace):
    hook = DatabricksHook(retry_args={"wait": lambda _: 0, "stop": lambda state: state.attempt_number == 3})
    workspace.fault("runs/submit", Drop())
    hook.submit_run(NOTEBOOK)
    assert len(workspace.runs) == 2
    workspace.fault("runs/submit", Drop())
    hook.submit_run({**NOTEBOOK, "idempotency_token": "t"})
    assert len(workspace.runs) == 3
    assert workspace.count("runs/submit") == 4


@pytest.mark.parametrize("after_effect", [False, True])
def test_databricks_refuse_does_the_work_only_with_after_effect(workspace, hook, after_effect):
    workspace.fault("*", Refuse(503, after_effect=after_effect))
    with pytest.raises(AirflowException):
        hook.submit_run(NOTEBOOK)
    assert len(workspace.runs) == after_effect
    call = workspace.calls("runs/submit")[0]
    assert (call.answer, call.status) == ("refused", 503)


def test_databricks_outage_refuses_only_while_it_lasts(workspace, hook):
    run_id = hook.submit_run(NOTEBOOK)
    with workspace.outage(["runs/get"]):
        with pytest.raises(AirflowException):
            hook.get_run(run_id)
        hook.cancel_run(run_id)
    assert hook.get_run_state(run_id).result_state == "CANCELED"
    with workspace.outage(seconds=0.0):
        hook.get_run(run_id)


@pytest.mark.parametrize("before_effect", [False, True])
def test_databricks_hold_keeps_the_caller_waiting_before_or_after_the_work(workspace, hook, before_effect):
    hold = Hold(before_effect=before_effect)
    workspace.fault("runs/submit", hold)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(hook.submit_run, NOTEBOOK)
        hold.wait_reached(5)
        assert len(workspace.runs) == (not before_effect)
        assert workspace.calls("runs/submit")[0].answer == "held"
        assert not answer.done()
        hold.release()
        assert answer.result(5) in workspace.runs


@pytest.mark.parametrize("before_effect", [False, True])
def test_databricks_hold_released_with_drop_is_a_connection_error(workspace, hook, before_effect):
    hold = Hold(before_effect=before_effect)
    workspace.fault("runs/submit", hold)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(hook.submit_run, NOTEBOOK)
        hold.wait_reached(5)
        hold.release(drop=True)
        with pytest.raises(AirflowException, match="failed 1 times"):
            answer.result(5)
    assert len(workspace.runs) == (not before_effect)


def test_databricks_request_of_a_client_that_gave_up_is_still_carried_out(workspace):
    hold = Hold(before_effect=True)
    workspace.fault("runs/submit", hold)
    with pytest.raises(requests.Timeout):
        requests.post(f"{workspace.url}/api/2.1/jobs/runs/submit", json={}, headers={"Authorization": "x"}, timeout=0.2)
    assert not workspace.runs
    hold.release()
    workspace.wait_for("runs/submit", answered=True)
    assert len(workspace.runs) == 1


def test_databricks_wait_for_returns_when_the_calls_have_come(workspace, hook):
    with pytest.raises(TimeoutError):
        workspace.wait_for("runs/submit", 1, timeout=0.05)
    threading.Timer(0.1, hook.submit_run, [NOTEBOOK]).start()
    (call,) = workspace.wait_for("runs/submit", 1, timeout=5)
    assert call.body == NOTEBOOK


def test_databricks_request_without_credentials_is_401(workspace):
    assert requests.get(f"{workspace.url}/api/2.2/jobs/runs/list").status_code == 401


def test_databricks_cancelled_run_is_terminating_for_the_lag_then_canceled(workspace, hook):
    workspace.cancel_lag_reads = 2
    run_id = hook.submit_run(NOTEBOOK)
    hook.cancel_run(run_id)
    states = [hook.get_run_state(run_id) for _ in range(3)]
    assert [state.life_cycle_state for state in states] == ["TERMINATING", "TERMINATING", "TERMINATED"]
    assert states[-1].result_state == "CANCELED"
    assert workspace.runs[run_id].cancelled


def test_databricks_cancel_all_ends_the_active_runs_of_that_job_only(workspace, hook):
    mine, other = workspace.add_job("mine"), workspace.add_job("other")
    runs = [hook.run_now({"job_id": job_id}) for job_id in (mine, mine, other)]
    workspace.finish(runs[0], "SUCCESS")
    hook.cancel_all_runs(mine)
    assert [workspace.runs[run_id].result_state for run_id in runs] == ["SUCCESS", "CANCELED", None]


def test_databricks_runs_end_by_themselves_after_the_duration(workspace, hook):
    workspace.duration = 60.0
    run_id = hook.submit_run(NOTEBOOK)
    assert hook.get_run_state(run_id).life_cycle_state == "RUNNING"
    workspace.runs[run_id].since -= 60.0
    assert hook.get_run_state(run_id).is_successful
    assert not workspace.active()


def test_databricks_failed_run_names_its_tasks_and_can_be_repaired(workspace, hook):
    job_id = workspace.add_job("nightly", tasks=[{"task_key": "load"}, {"task_key": "check"}])
    run_id = hook.run_now({"job_id": job_id})
    workspace.finish(run_id, "FAILED", "out of disk")
    run = hook.get_run(run_id)
    assert [task["task_key"] for task in run["tasks"]] == ["load", "check"]
    assert hook.get_run_output(run["tasks"][0]["run_id"])["error"] == "out of disk"
    assert hook.get_latest_repair_id(run_id) is None
    repair_id = hook.repair_run({"run_id": run_id, "rerun_all_failed_tasks": True})
    assert hook.get_run_state(run_id).life_cycle_state == "RUNNING"
    assert hook.get_latest_repair_id(run_id) == repair_id
    workspace.finish(run_id)
    assert hook.get_run_state(run_id).is_successful
    assert hook.get_job_id(run_id) == job_id
    assert hook.get_run_page_url(run_id).startswith(workspace.url)


def test_databricks_jobs_are_found_by_name_over_several_pages_and_updated(workspace, hook):
    ids = [workspace.add_job(f"job {number}") for number in range(60)]
    assert len(hook.list_jobs()) == 60
    assert hook.find_job_id_by_name("job 41") == ids[41]
    hook.update_job(str(ids[41]), {"name": "renamed"})
    assert hook.find_job_id_by_name("renamed") == ids[41]


def test_databricks_runs_list_pages_the_newest_first_and_filters_active(workspace, hook):
    ids = [hook.submit_run(NOTEBOOK) for _ in range(22)]
    workspace.finish(ids[0])
    listing = f"{workspace.url}/api/2.2/jobs/runs/list"

    def page(**query):
        return requests.get(listing, params=query, headers={"Authorization": "x"}).json()

    first = page()
    second = page(page_token=first["next_page_token"])
    assert [run["run_id"] for run in first["runs"] + second["runs"]] == ids[::-1]
    assert ids[0] not in [run["run_id"] for run in page(active_only="true", page_token="20")["runs"]]
    assert page(run_type="JOB_RUN")["runs"] == []
    assert len(page(run_type="SUBMIT_RUN")["runs"]) == 20


def test_databricks_trigger_of_the_provider_sees_the_run_end(workspace, hook):
    run_id = hook.submit_run(NOTEBOOK)
    trigger = DatabricksExecutionTrigger(run_id, "databricks_default", polling_period_seconds=0.05)
    threading.Timer(0.2, workspace.finish, [run_id, "FAILED", "out of disk"]).start()
    (event,) = run(trigger)
    assert event.payload["errors"][0]["error"] == "out of disk"


# -- EMR ---------------------------------------------------------------------------------------------


def test_emr_steps_are_listed_newest_first_in_pages_of_50(aws, emr):
    cluster_id = aws.create_cluster()
    ids = add_steps(emr, cluster_id, 60)
    pages = list(emr.get_paginator("list_steps").paginate(ClusterId=cluster_id))
    assert [len(page["Steps"]) for page in pages] == [50, 10]
    assert [step["Id"] for page in pages for step in page["Steps"]] == ids[::-1]


def test_emr_list_refuses_more_than_ten_step_ids(aws, emr):
    cluster_id = aws.create_cluster()
    ids = add_steps(emr, cluster_id, 11)
    assert len(emr.list_steps(ClusterId=cluster_id, StepIds=ids[:10])["Steps"]) == 10
    with pytest.raises(emr.exceptions.InvalidRequestException):
        emr.list_steps(ClusterId=cluster_id, StepIds=ids)


def test_emr_unknown_steps_and_clusters_are_invalid_requests(aws, emr):
    cluster_id = aws.create_cluster()
    (step_id,) = add_steps(emr, cluster_id)
    aws.forget(step_id)
    with pytest.raises(emr.exceptions.InvalidRequestException, match="Step id"):
        emr.list_steps(ClusterId=cluster_id, StepIds=[step_id])
    with pytest.raises(emr.exceptions.InvalidRequestException, match="Step id"):
        emr.describe_step(ClusterId=cluster_id, StepId=step_id)
    with pytest.raises(emr.exceptions.InvalidRequestException, match="Cluster id 'j-NONE' is not valid."):
        emr.list_steps(ClusterId="j-NONE")


def test_emr_new_step_is_not_listed_during_the_list_lag(aws, emr):
    cluster_id = aws.create_cluster()
    aws.list_lag = 60.0
    ids = add_steps(emr, cluster_id)
    assert emr.list_steps(ClusterId=cluster_id)["Steps"] == []
    assert [step.id for step in aws.steps(cluster_id)] == ids
    aws.list_lag = 0.0
    assert [step["Id"] for step in emr.list_steps(ClusterId=cluster_id)["Steps"]] == ids


def test_emr_steps_run_one_after_another_and_complete_after_the_duration(aws, emr):
    cluster_id = aws.create_cluster()
    add_steps(emr, cluster_id, 2)
    assert [step.state for step in aws.steps(cluster_id)] == ["RUNNING", "PENDING"]
    assert emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"] == "RUNNING"
    aws.finish(aws.steps(cluster_id)[0].id)
    assert [step.state for step in aws.steps(cluster_id)] == ["COMPLETED", "RUNNING"]
    aws.duration = 0.0
    listed = emr.list_steps(ClusterId=cluster_id)["Steps"]
    assert [step["Status"]["State"] for step in listed] == ["COMPLETED", "COMPLETED"]
    assert "EndDateTime" in listed[0]["Status"]["Timeline"]
    assert emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"] == "WAITING"


def test_emr_failed_step_tells_the_reason(aws, emr):
    cluster_id = aws.create_cluster()
    (step_id,) = add_steps(emr, cluster_id)
    aws.finish(step_id, "FAILED", "exit code 1")
    status = emr.describe_step(ClusterId=cluster_id, StepId=step_id)["Step"]["Status"]
    assert (status["State"], status["FailureDetails"]["Message"]) == ("FAILED", "exit code 1")


def test_emr_cancel_steps_cancels_pending_and_running_ones_only(aws, emr):
    cluster_id = aws.create_cluster()
    ids = add_steps(emr, cluster_id, 3)
    aws.finish(ids[0])
    answer = emr.cancel_steps(ClusterId=cluster_id, StepIds=ids, StepCancellationOption="SEND_INTERRUPT")
    statuses = [info["Status"] for info in answer["CancelStepsInfoList"]]
    assert statuses == ["FAILED", "SUBMITTED", "SUBMITTED"]
    assert [step.state for step in aws.steps(cluster_id)] == ["COMPLETED", "CANCELLED", "CANCELLED"]
    assert aws.calls("CancelSteps")[0].body["StepIds"] == ids


@pytest.mark.parametrize("by_api", [False, True])
def test_emr_terminated_cluster_cancels_its_steps_and_takes_no_more(aws, emr, by_api):
    cluster_id = aws.create_cluster()
    add_steps(emr, cluster_id, 2)
    if by_api:
        emr.terminate_job_flows(JobFlowIds=[cluster_id])
    else:
        aws.terminate_cluster(cluster_id)
    assert {step.state for step in aws.steps(cluster_id)} == {"CANCELLED"}
    with pytest.raises(ClientError, match="ValidationException"):
        add_steps(emr, cluster_id)


def test_emr_drop_leaves_one_step_and_a_client_error(aws, emr):
    cluster_id = aws.create_cluster()
    aws.fault("AddJobFlowSteps", Drop())
    with pytest.raises(ConnectionClosedError):
        add_steps(emr, cluster_id)
    assert len(aws.steps(cluster_id)) == 1


def test_emr_botocore_default_retries_submit_a_second_step(aws):
    cluster_id = aws.create_cluster()
    aws.fault("AddJobFlowSteps", Refuse(503, after_effect=True))
    add_steps(boto3.client("emr"), cluster_id)
    assert len(aws.steps(cluster_id)) == 2
    assert [call.answer for call in aws.calls("AddJobFlowSteps")] == ["refused", "sent"]


def test_emr_hold_before_effect_is_a_request_accepted_after_its_client_gave_up(aws):
    cluster_id = aws.create_cluster()
    hold = Hold(before_effect=True)
    aws.fault("AddJobFlowSteps", hold)
    with pytest.raises(ReadTimeoutError):
        add_steps(client(read_timeout=0.2), cluster_id)
    assert aws.steps(cluster_id) == []
    hold.release()
    aws.wait_for("AddJobFlowSteps", answered=True)
    assert len(aws.steps(cluster_id)) == 1


def test_emr_cluster_started_by_the_api_ends_with_its_last_step(aws, emr):
    cluster_id = emr.run_job_flow(Name="c", Instances={}, ReleaseLabel="emr-7.0.0", Steps=[STEP])["JobFlowId"]
    aws.finish(aws.steps(cluster_id)[0].id)
    assert emr.describe_cluster(ClusterId=cluster_id)["Cluster"]["Status"]["State"] == "TERMINATED"


def test_sts_knows_the_caller(aws):
    assert boto3.client("sts").get_caller_identity()["Account"]
    assert aws.count("GetCallerIdentity") == 1


@pytest.mark.parametrize("result", ["COMPLETED", "FAILED"])
def test_emr_trigger_of_the_provider_sees_the_steps_end(aws, emr, result):
    cluster_id = aws.create_cluster()
    ids = add_steps(emr, cluster_id, 2)
    where = {"region_name": "us-east-1"} if "region_name" in inspect.signature(EmrAddStepsTrigger).parameters else {}
    trigger = EmrAddStepsTrigger(cluster_id, ids, waiter_delay=1, waiter_max_attempts=5, aws_conn_id=None, **where)
    timers = [threading.Timer(0.3, aws.finish, [step_id, result, "done"]) for step_id in ids]
    for timer in timers:
        timer.start()
    (event,) = run(trigger)
    assert event.payload["status"] == ("success" if result == "COMPLETED" else "error")
