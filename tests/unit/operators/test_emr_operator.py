"""EMR steps: one set, whatever the number of steps, the state of the cluster and the fate of the answer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time

import boto3
import pytest
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from botocore.exceptions import ClientError

from resumable import ForeignJobError, InvalidHandleError, JobFailedError, LostSightError, RecordError
from resumable.operators.emr import ResumableEmrAddStepsOperator
from tests.services import Drop, EmrService, Refuse
from tests.support.names import STOPPED, AirflowFailException
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting_of_the_task")]

MODES = pytest.mark.parametrize("mode", [{"wait_for_completion": True}, {"deferrable": True}], ids=["sync", "deferrable"])
ACTIVE = ("PENDING", "RUNNING")
THROTTLED = Refuse(400)  # the service's word for it: ThrottlingException
NOT_VALID = {"__type": "InvalidRequestException", "message": "Cluster id 'j-X' is not valid."}


@pytest.fixture
def service(monkeypatch):
    with EmrService() as service:
        for name, value in service.env().items():
            monkeypatch.setenv(name, value)
        yield service


@pytest.fixture
def cluster(service):
    return service.create_cluster("etl")


def steps(count=2, name="step {}"):
    jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "a.py"]}
    return [{"Name": name.format(i), "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar} for i in range(count)]


def arguments(**more):
    fixed = {"task_id": "task", "waiter_delay": 1, "aws_conn_id": None}
    return {**fixed, **({} if "steps" in more else {"steps": steps()}), **more}


def add_steps(**more):
    given = {"wait_for_completion": True, **arguments(**more)}
    return TaskInstance(lambda: ResumableEmrAddStepsOperator(**given))


def sets(service, cluster):
    """The steps of a cluster by the submit that made them, oldest first, as lists of states."""
    found = {}
    for step in service.steps(cluster):
        found.setdefault(step.name.rpartition(" [r:")[2][:24], []).append(step.state)
    return list(found.values())


def active_sets(service, cluster):
    return sum(any(state in ACTIVE for state in states) for states in sets(service, cluster))


def finish(service, cluster, state="COMPLETED"):
    for step in service.steps(cluster):
        if step.state in ACTIVE:
            service.finish(step.id, state)


def submits(service):
    return service.count("AddJobFlowSteps")


def die_in_the_wait(instance):
    before = instance.data.get("resumable", {}).get("job")

    def listen(effect):
        job = instance.data.get("resumable", {}).get("job")
        if job and job != before and effect != "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def die_in_doubt(instance):
    """Let an attempt die when its submit was served and nothing of the answer was kept."""

    def listen(effect):
        instance.effects.dead = effect == "http AddJobFlowSteps"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    assert instance.record["state"] == "submitting"


# -- many steps, steps as text -----------------------------------------------------------------------------------------


@MODES
def test_twelve_steps_are_waited_for_and_their_ids_returned_in_order(service, cluster, mode):
    service.duration = 0
    instance = add_steps(job_flow_id=cluster, steps=steps(12), **mode)
    result = instance.attempt()
    assert result == [step.id for step in service.steps(cluster)]
    assert len(result) == 12
    assert instance.record["job"]["steps"] == result
    assert instance.record["state"] == "succeeded"


def test_the_providers_own_trigger_fails_with_more_than_ten_steps(service, cluster):
    service.duration = 0
    given = arguments(job_flow_id=cluster, steps=steps(11), deferrable=True)
    with pytest.raises(Exception, match="maximum of 10"):
        TaskInstance(lambda: EmrAddStepsOperator(**given)).attempt()


@MODES
def test_a_retry_reattaches_to_all_of_twelve_steps(service, cluster, mode):
    instance = add_steps(job_flow_id=cluster, steps=steps(12), **mode)
    die_in_the_wait(instance)
    finish(service, cluster)
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert submits(service) == 1


@pytest.mark.parametrize("failed", [0, 11])
@MODES
def test_a_failure_of_any_of_twelve_steps_is_the_tasks(service, cluster, mode, failed):
    instance = add_steps(job_flow_id=cluster, steps=steps(12), **mode)
    service.duration = 0

    def fail_one(effect):
        if effect == "http AddJobFlowSteps":
            service.finish(service.steps(cluster)[failed].id, "FAILED")

    with pytest.raises(Exception, match="(?i)fail|error"):
        instance.attempt(listener=fail_one)
    instance.attempt()
    assert [len(states) for states in sets(service, cluster)] == [12, 12]


def test_twelve_steps_are_found_after_a_lost_answer(service, cluster):
    instance = add_steps(job_flow_id=cluster, steps=steps(12))
    die_in_doubt(instance)
    finish(service, cluster)
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert submits(service) == 1


@pytest.mark.parametrize("text", [str(steps(3)), json.dumps(steps(3))], ids=["python", "json"])
@MODES
def test_steps_may_be_a_text_as_the_provider_takes_it(service, cluster, text, mode):
    service.duration = 0
    result = add_steps(job_flow_id=cluster, steps=text, **mode).attempt()
    assert len(result) == 3
    assert [step.name[:6] for step in service.steps(cluster)] == ["step 0", "step 1", "step 2"]


# -- the cluster -------------------------------------------------------------------------------------------------------


@MODES
def test_a_cluster_name_that_means_another_cluster_by_now_reattaches_on_the_old_one(service, cluster, mode):
    instance = add_steps(job_flow_name="etl", cluster_states=["WAITING", "RUNNING"], **mode)
    die_in_the_wait(instance)
    service._cluster(cluster).name = "renamed"
    other = service.create_cluster("etl")
    finish(service, cluster)
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert service.steps(other) == []
    assert instance.xcoms["job_flow_id"] == cluster
    assert submits(service) == 1


def test_a_cluster_name_that_means_nothing_by_now_reattaches_on_the_old_one(service, cluster):
    instance = add_steps(job_flow_name="etl", cluster_states=["WAITING"])  # it is RUNNING the steps by now
    die_in_the_wait(instance)
    finish(service, cluster)
    service.terminate_cluster(cluster)
    instance.attempt()
    assert submits(service) == 1
    assert instance.record["state"] == "succeeded"


def test_a_lost_answer_is_looked_for_on_the_cluster_that_the_name_meant_then(service, cluster):
    instance = add_steps(job_flow_name="etl", cluster_states=["WAITING", "RUNNING"])
    die_in_doubt(instance)
    service._cluster(cluster).name = "renamed"
    other = service.create_cluster("etl")
    finish(service, cluster)
    instance.attempt()
    assert service.steps(other) == []
    assert submits(service) == 1


@MODES
def test_steps_on_a_cluster_that_has_terminated_are_not_added_to_another(service, cluster, mode):
    other = service.create_cluster("etl")
    instance = add_steps(job_flow_id=cluster, **mode)
    die_in_the_wait(instance)
    service.terminate_cluster(cluster)
    instance.failing_attempt()
    for _ in range(2):
        with pytest.raises(ClientError, match="shutting down, terminated, or finished may not be modified"):
            instance.attempt()
        assert instance.record["state"] == "rejected"
    assert sets(service, cluster) == [["CANCELLED", "CANCELLED"]]
    assert service.steps(other) == []


def test_steps_that_were_done_before_their_cluster_terminated_are_a_success(service, cluster):
    instance = add_steps(job_flow_id=cluster)
    die_in_the_wait(instance)
    finish(service, cluster)
    service.terminate_cluster(cluster)
    assert instance.attempt() == instance.record["job"]["steps"]
    assert submits(service) == 1


def test_a_submit_in_doubt_to_a_cluster_that_has_terminated_is_an_error_and_no_success(service, cluster):
    instance = add_steps(job_flow_id=cluster)
    die_in_doubt(instance)
    service.terminate_cluster(cluster)
    assert "may not be modified" not in str(instance.failing_attempt())
    with pytest.raises(ClientError, match="may not be modified"):
        instance.attempt()
    assert sets(service, cluster) == [["CANCELLED", "CANCELLED"]]


# -- half failed -------------------------------------------------------------------------------------------------------


@MODES
def test_two_sets_are_never_active_the_rest_of_a_failed_one_is_cancelled_first(service, cluster, mode):
    instance = add_steps(job_flow_id=cluster, **mode)
    die_in_the_wait(instance)
    service.finish(service.steps(cluster)[0].id, "FAILED")
    assert [step.state for step in service.steps(cluster)] == ["FAILED", "RUNNING"]
    seen = []

    def listen(effect):
        seen.append(active_sets(service, cluster))
        if len(sets(service, cluster)) == 2:
            finish(service, cluster)

    assert isinstance(instance.failing_attempt(listener=listen), JobFailedError)
    assert (instance.record["state"], service.count("CancelSteps")) == ("submitted", 0)
    instance.attempt(listener=listen)
    assert sets(service, cluster) == [["FAILED", "CANCELLED"], ["COMPLETED", "COMPLETED"]]
    assert max(seen) == 1
    assert service.count("CancelSteps") == 1


def test_two_sets_are_never_active_when_the_rest_does_not_stop(service, cluster, monkeypatch):
    instance = add_steps(job_flow_id=cluster)
    die_in_the_wait(instance)
    service.finish(service.steps(cluster)[0].id, "FAILED")
    instance.failing_attempt()
    monkeypatch.setattr(service, "_cancel_steps", lambda body: {"CancelStepsInfoList": []})
    with pytest.raises(LostSightError, match="told to stop.*has not stopped yet"):
        instance.attempt()
    assert submits(service) == 1


def test_with_on_failed_fail_a_half_failed_set_is_refused_and_nothing_is_submitted(service, cluster):
    instance = add_steps(job_flow_id=cluster, resume_policy={"on_failed": "fail"})
    die_in_the_wait(instance)
    service.finish(service.steps(cluster)[0].id, "FAILED")
    with pytest.raises(AirflowFailException, match="on_failed=fail"):
        instance.attempt()
    assert submits(service) == 1


# -- marks and lookups -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["load", "x" * 256, "é" * 256, ""], ids=["short", "256", "accents", "empty"])
def test_marks_fit_the_name_keep_its_start_and_tell_steps_of_one_name_apart(service, cluster, name):
    service.duration = 0
    given = steps(12, name)
    made = []
    instance = TaskInstance(
        lambda: made.append(ResumableEmrAddStepsOperator(**arguments(job_flow_id=cluster, steps=given))) or made[-1]
    )
    instance.attempt()
    names = [step.name for step in service.steps(cluster)]
    assert len(set(names)) == 12
    assert max(map(len, names)) <= 256
    assert all(given_name.startswith(name[:200]) for given_name in names)
    assert given == steps(12, name)  # the template field is the author's
    assert made[0].steps == steps(12, name)


def clearing_lag(service, after):
    """A time.sleep that lets the list catch up once so many seconds were slept."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if sum(slept) >= after:
            service.list_lag = 0.0

    return sleep


@pytest.mark.parametrize("dies", [True, False], ids=["next-try", "same-try"])
def test_a_set_is_found_after_a_lost_answer_even_where_the_list_lags(service, cluster, monkeypatch, dies):
    instance = add_steps(job_flow_id=cluster)
    service.list_lag = 3600.0
    service.duration = 0
    monkeypatch.setattr(time, "sleep", clearing_lag(service, after=10))
    if dies:
        die_in_doubt(instance)
    else:
        service.fault("AddJobFlowSteps", Drop())
    assert len(instance.attempt()) == 2
    assert submits(service) == 1


def test_a_set_is_found_behind_sixty_later_steps_of_others(service, cluster):
    instance = add_steps(job_flow_id=cluster)
    die_in_doubt(instance)
    boto3.client("emr").add_job_flow_steps(JobFlowId=cluster, Steps=steps(60, "of others"))
    finish(service, cluster)
    assert len(instance.attempt()) == 2
    assert submits(service) == 2  # the other one is the others'


def hide(service, monkeypatch, marks, looks=10**6):
    """Let ListSteps leave out the steps with these marks, for so many calls."""
    listed, left = service._list_steps, [looks]

    def partly(body):
        page = listed(body)
        left[0] -= 1
        hidden = [s for s in page["Steps"] if left[0] >= 0 and not body.get("StepIds") and s["Name"].endswith(marks)]
        return {**page, "Steps": [s for s in page["Steps"] if s not in hidden]}

    monkeypatch.setattr(service, "_list_steps", partly)


@pytest.mark.parametrize("marks", [(":0/2]",), (":1/2]",)], ids=["first", "last"])
@pytest.mark.parametrize("dies", [True, False], ids=["next-try", "same-try"])
def test_a_set_of_which_a_part_is_visible_never_leads_to_a_submit(service, cluster, monkeypatch, marks, dies):
    instance = add_steps(job_flow_id=cluster)
    hide(service, monkeypatch, marks)
    if dies:
        die_in_doubt(instance)
    else:
        service.fault("AddJobFlowSteps", Drop())
    for _ in range(2):
        with pytest.raises(LostSightError, match=r"1 of 2 steps.*Nothing was submitted; a job may be running"):
            instance.attempt()
    assert submits(service) == 1


def test_a_set_of_which_a_part_is_visible_is_reattached_to_once_all_of_it_is(service, cluster, monkeypatch):
    service.duration = 0
    instance = add_steps(job_flow_id=cluster)
    hide(service, monkeypatch, (":1/2]",), looks=3)
    die_in_doubt(instance)
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert submits(service) == 1


@pytest.mark.parametrize("dies", [True, False], ids=["next-try", "same-try"])
def test_a_throttled_lookup_is_waited_out(service, cluster, dies):
    service.duration = 0
    instance = add_steps(job_flow_id=cluster)
    if dies:
        die_in_doubt(instance)
    else:
        service.fault("AddJobFlowSteps", Drop())
    service.fault("ListSteps", THROTTLED, times=22)
    assert len(instance.attempt()) == 2
    assert submits(service) == 1


def test_a_lookup_that_stays_throttled_submits_nothing_and_leaves_the_doubt_to_the_next_try(service, cluster):
    service.duration = 0
    instance = add_steps(job_flow_id=cluster)
    die_in_doubt(instance)
    service.fault("ListSteps", THROTTLED, times=-1)
    with pytest.raises(LostSightError, match="Throttling.*Nothing was submitted"):
        instance.attempt()
    service.clear_faults()
    assert len(instance.attempt()) == 2
    assert submits(service) == 1


def test_a_throttled_submit_is_sent_again_for_the_service_refused_it(service, cluster):
    service.duration = 0
    service.fault("AddJobFlowSteps", THROTTLED, times=2)
    add_steps(job_flow_id=cluster).attempt()
    assert [len(states) for states in sets(service, cluster)] == [2]


# -- not waiting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [None, "COMPLETED", "FAILED"])
def test_by_default_the_task_does_not_wait_and_a_retry_submits_nothing(service, cluster, ending):
    instance = TaskInstance(lambda: ResumableEmrAddStepsOperator(**arguments(job_flow_id=cluster)))

    def die_after_the_submit(effect):
        instance.effects.dead = effect == "store.set" and bool(instance.record["job"])

    with pytest.raises(WorkerDied):
        instance.attempt(listener=die_after_the_submit)
    if ending:
        finish(service, cluster, ending)
    ids = [step.id for step in service.steps(cluster)]
    assert instance.attempt() == ids
    assert instance.attempt() == ids
    assert submits(service) == 1
    assert instance.record["state"] == "submitted"


def test_a_task_that_does_not_wait_finds_its_set_after_a_lost_answer(service, cluster):
    instance = add_steps(job_flow_id=cluster, wait_for_completion=False)
    service.fault("AddJobFlowSteps", Drop())
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert submits(service) == 1


# -- a stop ------------------------------------------------------------------------------------------------------------


def stopped(service, cluster, state, **policy):
    """Run an attempt that gets SIGTERM in the wait, with Airflow's state of the task as given; return the instance."""
    made = []
    given = {"wait_for_completion": True, **arguments(job_flow_id=cluster, resume_policy=policy)}
    instance = TaskInstance(lambda: made.append(ResumableEmrAddStepsOperator(**given)) or made[-1])
    instance.state = state
    sent = []

    def listen(effect):
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and effect == "http DescribeStep" and instance.record["job"] and not sent:
            sent.append(effect)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda signum, frame: made[-1].on_kill())  # as Airflow's task runner does
    try:
        with contextlib.suppress(*STOPPED):
            instance.attempt(listener=listen)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sent
    return instance


@pytest.mark.parametrize("state", ["failed", "success", "skipped"])
def test_a_users_stop_cancels_the_steps(service, cluster, state):
    instance = stopped(service, cluster, state)
    assert sets(service, cluster) == [["CANCELLED", "CANCELLED"]]
    assert service.count("CancelSteps") == 1
    assert instance.record["state"] == "cancelled"


@pytest.mark.parametrize("state", ["running", "up_for_retry", "queued", None])
def test_an_eviction_leaves_the_steps_running_and_the_next_attempt_reattaches(service, cluster, state):
    instance = stopped(service, cluster, state)
    assert service.count("CancelSteps") == 0
    assert active_sets(service, cluster) == 1
    finish(service, cluster)
    instance.state = "running"
    instance.attempt()
    assert submits(service) == 1


def test_a_clear_cancels_the_steps_with_on_clear_restart(service, cluster):
    instance = stopped(service, cluster, "restarting")
    assert sets(service, cluster) == [["CANCELLED", "CANCELLED"]]
    service.duration = 0
    instance.clear()
    instance.attempt()
    assert [len(states) for states in sets(service, cluster)] == [2, 2]


def test_a_clear_leaves_the_steps_running_with_on_clear_reattach(service, cluster):
    instance = stopped(service, cluster, "restarting", on_clear="reattach")
    assert service.count("CancelSteps") == 0
    instance.clear()
    finish(service, cluster)
    assert submits(service) == 1


# -- strangers and broken answers --------------------------------------------------------------------------------------


def answer_as_another_account(service):
    service.fault("ListSteps", Refuse(400, body=NOT_VALID), times=-1)
    identity = "<GetCallerIdentityResult><Account>999999999999</Account></GetCallerIdentityResult>"
    body = f'<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{identity}</GetCallerIdentityResponse>'
    service.fault("GetCallerIdentity", Refuse(200, body=body), times=-1)


def test_a_cluster_that_the_service_no_longer_knows_is_gone(service, cluster):
    instance = add_steps(job_flow_id=cluster, resume_policy={"on_missing": "fail"})
    die_in_the_wait(instance)
    service.fault("ListSteps", Refuse(400, body=NOT_VALID), times=-1)
    with pytest.raises(AirflowFailException, match="on_missing=fail"):
        instance.attempt()


@pytest.mark.parametrize("policy", ["resubmit", "fail"])
def test_steps_that_another_account_does_not_know_are_not_taken_for_gone(service, cluster, policy):
    instance = add_steps(job_flow_id=cluster, resume_policy={"on_missing": policy})
    die_in_the_wait(instance)
    answer_as_another_account(service)
    with pytest.raises(ForeignJobError, match=r"123456789012.*999999999999"):
        instance.attempt()
    assert submits(service) == 1


def test_steps_found_after_a_lost_answer_are_not_taken_for_gone_either(service, cluster):
    instance = add_steps(job_flow_id=cluster)
    die_in_doubt(instance)
    die_in_the_wait(instance)
    answer_as_another_account(service)
    with pytest.raises(ForeignJobError, match="999999999999"):
        instance.attempt()
    assert submits(service) == 1


def test_a_lookup_in_another_account_submits_nothing(service, cluster):
    instance = add_steps(job_flow_id=cluster)
    die_in_doubt(instance)
    answer_as_another_account(service)
    with pytest.raises(LostSightError, match="Nothing was submitted"):
        instance.attempt()
    assert submits(service) == 1


def test_another_region_is_told_from_the_connection_alone_and_named(service, cluster, monkeypatch):
    instance = add_steps(job_flow_id=cluster)
    die_in_the_wait(instance)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(ForeignJobError, match=r"us-east-1.*eu-central-1"):
        instance.attempt()
    assert submits(service) == 1


@pytest.mark.parametrize("ids", [["s-1"], [], None, ["s-1", ""], ["s-1", 7]], ids=["fewer", "none", "null", "empty", "int"])
def test_an_answer_with_fewer_step_ids_than_steps_is_an_error_and_nothing_more_is_submitted(service, cluster, ids):
    service.fault("AddJobFlowSteps", Refuse(200, body={"StepIds": ids}, after_effect=True))
    instance = add_steps(job_flow_id=cluster)
    with pytest.raises(Exception, match=r"EMR answered 2 steps with the ids|Invalid|type") as caught:
        instance.attempt()
    assert InvalidHandleError.__name__ in repr(caught.value.__cause__) or isinstance(caught.value, InvalidHandleError)
    assert instance.record["state"] == "submitting"
    finish(service, cluster)
    assert instance.attempt() == [step.id for step in service.steps(cluster)]
    assert submits(service) == 1


def test_an_answer_with_fewer_step_ids_leaves_the_next_try_that_its_message_promises(service, cluster):
    service.fault("AddJobFlowSteps", Refuse(200, body={"StepIds": ["s-1"]}, after_effect=True))
    with pytest.raises(Exception, match="The next try looks them up by their mark") as caught:
        add_steps(job_flow_id=cluster).attempt()
    assert not isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    "impossible",
    ["abc", {}, ["s-1"], {"cluster": "j-1"}, {"cluster": "j-1", "steps": []}, {"cluster": 7, "steps": ["s-1"]}],
    ids=str,
)
@pytest.mark.parametrize("wait", [True, False], ids=["waits", "does-not-wait"])
def test_a_record_with_ids_of_impossible_shape_is_an_error_and_nothing_is_submitted(service, cluster, impossible, wait):
    instance = add_steps(job_flow_id=cluster)
    die_in_the_wait(instance)
    instance.data["resumable"]["job"] = impossible
    instance.make = add_steps(job_flow_id=cluster, wait_for_completion=wait).make
    with pytest.raises(RecordError, match=r"Nothing was submitted.*delete the task state key 'resumable'"):
        instance.attempt()
    assert submits(service) == 1


# -- the client --------------------------------------------------------------------------------------------------------


def operations(service):
    return [call.operation for call in service.calls() if call.operation in ("AddJobFlowSteps", "ListSteps")]


def test_botocore_re_sends_no_submit_the_lookup_comes_first(service, cluster):
    service.duration = 0
    service.fault("AddJobFlowSteps", Refuse(503))
    add_steps(job_flow_id=cluster).attempt()
    assert operations(service)[:2] == ["AddJobFlowSteps", "ListSteps"]
    assert [len(states) for states in sets(service, cluster)] == [2]


@pytest.mark.parametrize("fault", [Refuse(503, after_effect=True), Drop()], ids=["503", "dropped"])
def test_botocore_re_sends_no_submit_that_was_served(service, cluster, fault):
    service.duration = 0
    service.fault("AddJobFlowSteps", fault)
    add_steps(job_flow_id=cluster).attempt()
    assert submits(service) == 1


def test_botocore_re_sends_the_submit_of_the_providers_operator(service, cluster):
    service.duration = 0
    service.fault("AddJobFlowSteps", Refuse(503, after_effect=True))
    given = arguments(job_flow_id=cluster, wait_for_completion=True)
    TaskInstance(lambda: EmrAddStepsOperator(**given)).attempt()
    assert submits(service) == 2


def test_botocore_re_sends_every_other_call_as_before(service, cluster):
    service.duration = 0
    for operation in ("DescribeCluster", "DescribeStep"):
        service.fault(operation, Refuse(503), times=2)
    instance = add_steps(job_flow_id=cluster)
    instance.attempt()
    assert (submits(service), service.count("DescribeStep")) == (1, 2 + 2)


@pytest.mark.parametrize("end", ["success", "failure", "death", "reattached"])
def test_the_operators_client_is_its_own_again_after_execute(service, cluster, end):
    made = []
    given = {"wait_for_completion": True, **arguments(job_flow_id=cluster)}
    instance = TaskInstance(lambda: made.append(ResumableEmrAddStepsOperator(**given)) or made[-1])
    if end == "success":
        service.duration = 0
        instance.attempt()
    elif end == "failure":
        service.fault("AddJobFlowSteps", Refuse(400, body={"__type": "ValidationException", "message": "no"}))
        with pytest.raises(ClientError, match="no"):
            instance.attempt()
    else:
        die_in_the_wait(instance)
        if end == "reattached":
            finish(service, cluster)
            instance.attempt()
    kept, before = dict(instance.data), len(service.steps(cluster))
    client = made[-1].hook.conn
    service.fault("AddJobFlowSteps", Refuse(503))
    client.add_job_flow_steps(JobFlowId=cluster, Steps=steps(1, "mine"))  # re-sent by botocore, not stamped, not answered
    assert [step.name for step in service.steps(cluster)][before:] == ["mine"]
    assert instance.data == kept
