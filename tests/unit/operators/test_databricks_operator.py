"""The Databricks operators keep what the provider's arguments mean, whatever becomes of the worker."""

from __future__ import annotations

import json
from types import SimpleNamespace
from unittest import mock

import pytest
from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

from resumable import ForeignJobError, JobGoneError, RecordError
from resumable.operators.databricks import ResumableDatabricksOperator, ResumableDatabricksRunNowOperator
from tests.services import Drop, Refuse
from tests.support.names import DAG, AirflowFailException, AirflowTaskTimeout, mask_secret
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
QUICK = {"task_id": "task", "polling_period_seconds": 0, "databricks_retry_delay": 0}
MODES = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@pytest.fixture
def job(workspace):
    return workspace.add_job("nightly")


@pytest.fixture
def log(monkeypatch):
    """What the operators log; warnings(word) gives the texts of those that hold the word."""
    log = mock.MagicMock()
    for operator in (ResumableDatabricksOperator, ResumableDatabricksRunNowOperator):
        monkeypatch.setattr(operator, "log", log)

    def warnings(word):
        texts = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
        return [text for text in texts if word in text]

    return SimpleNamespace(warnings=warnings)


def submit_run(**arguments):
    if "tasks" not in arguments:
        arguments = {"json": NOTEBOOK, **arguments}
    return TaskInstance(lambda: ResumableDatabricksOperator(**{**QUICK, **arguments}))


def run_now(**arguments):
    return TaskInstance(lambda: ResumableDatabricksRunNowOperator(**{**QUICK, **arguments}))


def die_in_the_wait(instance):
    """Let an attempt submit and die at its first effect after the run was recorded."""
    before = instance.data.get("resumable", {}).get("job")

    def listen(effect):
        job = instance.data.get("resumable", {}).get("job")
        if job and job != before and effect != "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def die_in_doubt(instance, *, sent):
    """Let an attempt die with the intent written: with the submit sent and its answer lost, or before it is sent."""

    def listen(effect):
        is_submit = effect.startswith("http POST") and effect.endswith(("runs/submit", "run-now"))
        if is_submit if sent else instance.data.get("resumable", {}).get("state") == "submitting":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    assert instance.record["state"] == "submitting"


def finish(workspace, result="SUCCESS", message=""):
    for run in workspace.active():
        workspace.finish(run.run_id, result, message)


def submits(workspace):
    return workspace.calls("runs/submit") + workspace.calls("run-now")


def tokens(workspace):
    return [call.body.get("idempotency_token") for call in submits(workspace)]


# -- a token of the user's own -----------------------------------------------------------------------------------------

OWN_TOKEN = pytest.mark.parametrize(
    "arguments",
    [{"idempotency_token": "mine"}, {"json": {**NOTEBOOK, "idempotency_token": "mine"}}],
    ids=["argument", "json"],
)


@OWN_TOKEN
@MODES
def test_a_users_own_token_is_sent_as_it_is_and_warned_about_once_per_submit(workspace, log, arguments, deferrable):
    instance = submit_run(**arguments, deferrable=deferrable)
    die_in_the_wait(instance)
    assert tokens(workspace) == ["mine"]
    assert instance.record["token"] == "mine"
    assert len(log.warnings("idempotency_token='mine' is yours")) == 1
    finish(workspace)
    instance.attempt()
    assert tokens(workspace) == ["mine"]
    assert len(log.warnings("is yours")) == 1


def test_a_token_of_ours_is_not_warned_about(workspace, log):
    workspace.duration = 0
    submit_run().attempt()
    assert log.warnings("token") == []


@OWN_TOKEN
def test_a_users_own_token_finds_the_run_whose_answer_was_lost(workspace, arguments):
    instance = submit_run(**arguments)
    die_in_doubt(instance, sent=True)
    finish(workspace)
    instance.attempt()
    assert tokens(workspace) == ["mine", "mine"]
    assert len(workspace.runs) == 1


@OWN_TOKEN
@MODES
def test_a_users_own_token_after_a_failed_run_is_an_error_that_says_so(workspace, arguments, deferrable):
    instance = submit_run(**arguments, deferrable=deferrable)
    die_in_the_wait(instance)
    finish(workspace, "FAILED")
    instance.failing_attempt()
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"'mine' is used up.*No job was started.*Leave idempotency_token"):
            instance.attempt()
    assert len(workspace.runs) == 1


@OWN_TOKEN
@MODES
def test_a_users_own_token_after_a_clear_is_an_error_and_no_false_success(workspace, arguments, deferrable):
    workspace.duration = 0
    instance = submit_run(**arguments, deferrable=deferrable)
    instance.attempt()
    for _ in range(2):
        instance.try_number += 1
        instance.clear()
        with pytest.raises(AirflowFailException, match="'mine' is used up"):
            instance.attempt()
    assert len(workspace.runs) == 1


def test_a_users_own_token_after_a_clear_is_no_false_success_when_the_worker_dies_in_doubt(workspace):
    workspace.duration = 0
    instance = submit_run(idempotency_token="mine")
    instance.attempt()
    instance.try_number += 1
    instance.clear()
    die_in_doubt(instance, sent=True)
    with pytest.raises(AirflowFailException, match="'mine' is used up"):
        instance.attempt()


def test_a_users_own_token_after_a_clear_is_no_false_success_when_the_worker_dies_with_the_answer_kept(workspace):
    workspace.duration = 0
    instance = submit_run(idempotency_token="mine")
    instance.attempt()
    instance.try_number += 1
    instance.clear()

    def listen(effect):
        if len(tokens(workspace)) == 2 and effect == "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    with pytest.raises(AirflowFailException, match="'mine' is used up"):
        instance.attempt()


# -- cancel_previous_runs ----------------------------------------------------------------------------------------------


@MODES
def test_cancel_previous_runs_cancels_the_runs_of_others_before_a_first_submit(workspace, job, deferrable):
    others = DatabricksHook().run_now({"job_id": job})
    instance = run_now(job_id=job, cancel_previous_runs=True, deferrable=deferrable)
    die_in_the_wait(instance)
    assert workspace.runs[others].cancelled
    assert [run.run_id for run in workspace.active()] == [instance.record["job"]["run_id"]]


@MODES
def test_cancel_previous_runs_never_cancels_the_run_that_is_reattached_to(workspace, job, deferrable):
    instance = run_now(job_id=job, cancel_previous_runs=True, deferrable=deferrable)
    die_in_the_wait(instance)
    finish(workspace)
    others = DatabricksHook().run_now({"job_id": job})
    instance.attempt()
    assert workspace.count("runs/cancel-all") == 1
    assert workspace.runs[others].is_active
    assert instance.record["state"] == "succeeded"


@MODES
@pytest.mark.parametrize("sent", [True, False], ids=["answer-lost", "not-sent"])
def test_cancel_previous_runs_cancels_nothing_while_an_intent_is_in_doubt(workspace, job, deferrable, sent):
    instance = run_now(job_id=job, cancel_previous_runs=True, deferrable=deferrable)
    die_in_doubt(instance, sent=sent)

    def listen(effect):
        if effect == "store.set" and instance.record["job"]:
            finish(workspace)

    instance.attempt(listener=listen)
    assert workspace.count("runs/cancel-all") == 1
    assert [run.cancelled for run in workspace.runs.values()] == [False]
    assert instance.record["state"] == "succeeded"


def test_cancel_previous_runs_cancels_others_again_before_the_run_that_follows_a_failed_one(workspace, job):
    instance = run_now(job_id=job, cancel_previous_runs=True)
    die_in_the_wait(instance)
    finish(workspace, "FAILED")
    instance.failing_attempt()
    others = DatabricksHook().run_now({"job_id": job})
    die_in_the_wait(instance)
    assert workspace.runs[others].cancelled
    assert len(workspace.active()) == 1


# -- repair_run --------------------------------------------------------------------------------------------------------


def repairable(workspace, job, **arguments):
    """A task with repair_run, and a listener: its run fails at once, the repaired run succeeds at once."""
    instance = run_now(job_id=job, repair_run=True, **arguments)

    def listen(effect):
        for run in workspace.active():
            if run.repairs:
                workspace.finish(run.run_id)
            elif instance.data.get("resumable", {}).get("job"):
                workspace.finish(run.run_id, "FAILED", "boom")

    return instance, listen


def the_run(workspace):
    (run,) = workspace.runs.values()
    return run


@MODES
def test_a_failed_run_is_repaired_once_and_the_repaired_runs_success_is_the_tasks(workspace, job, deferrable):
    instance, listen = repairable(workspace, job, deferrable=deferrable)
    assert instance.attempt(listener=listen) is None
    assert the_run(workspace).repairs == 1
    assert len(submits(workspace)) == 1
    assert instance.record["state"] == "succeeded"
    assert instance.xcoms["run_id"] == the_run(workspace).run_id
    assert "run_page_url" in instance.xcoms


@MODES
def test_a_worker_that_dies_right_after_the_repair_leads_to_no_second_repair(workspace, job, deferrable):
    instance, listen = repairable(workspace, job, deferrable=deferrable)

    def listen_and_die(effect):
        if effect.endswith("runs/repair"):
            instance.effects.dead = True
        else:
            listen(effect)

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen_and_die)
    assert the_run(workspace).is_active
    instance.attempt(listener=listen)
    assert the_run(workspace).repairs == 1
    assert len(submits(workspace)) == 1
    assert instance.record["state"] == "succeeded"


@MODES
def test_a_repair_that_failed_too_is_not_repaired_again_after_the_worker_died(workspace, job, deferrable):
    instance, listen = repairable(workspace, job, deferrable=deferrable)

    def listen_and_die(effect):
        if effect.endswith("runs/repair"):
            instance.effects.dead = True
        else:
            listen(effect)

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen_and_die)
    finish(workspace, "FAILED", "boom again")
    instance.failing_attempt()
    die_in_the_wait(instance)
    assert [run.repairs for run in workspace.runs.values()] == [1, 0]
    assert len(workspace.active()) == 1


@MODES
def test_a_worker_that_dies_right_before_the_repair_leads_to_one_repair(workspace, job, monkeypatch, deferrable):
    instance, listen = repairable(workspace, job, deferrable=deferrable)

    def die(self, json):
        instance.effects.dead = True
        raise WorkerDied("before the repair")

    with monkeypatch.context() as patch:
        patch.setattr(DatabricksHook, "repair_run", die)
        with pytest.raises(WorkerDied):
            instance.attempt(listener=listen)
    assert the_run(workspace).repairs == 0
    instance.attempt(listener=listen)
    assert the_run(workspace).repairs == 1
    assert len(submits(workspace)) == 1
    assert instance.record["state"] == "succeeded"


@MODES
def test_a_repair_whose_answer_was_lost_leads_to_no_second_repair(workspace, job, deferrable):
    instance, listen = repairable(workspace, job, deferrable=deferrable)
    workspace.fault("runs/repair", Drop())
    workspace.fault("runs/repair", Refuse(status=400, body={"message": "Run cannot be repaired in its current state."}))

    try:
        instance.attempt(listener=listen)
    except Exception:  # the one failure that is allowed: the next try goes on with the repaired run
        instance.attempt(listener=listen)
    assert [run.repairs for run in workspace.runs.values()] == [1]
    assert instance.record["state"] == "succeeded"


def test_a_run_whose_failure_is_none_of_the_reasons_to_repair_is_not_repaired_on_a_retry_either(workspace, job):
    instance = run_now(job_id=job, repair_run=True, databricks_repair_reason_new_settings={"no capacity": {"x": "y"}})
    die_in_the_wait(instance)
    finish(workspace, "FAILED", "division by zero")
    instance.failing_attempt()
    die_in_the_wait(instance)
    assert [run.repairs for run in workspace.runs.values()] == [0, 0]


@MODES
def test_a_run_that_failed_while_nobody_watched_is_repaired_with_the_new_settings(workspace, job, deferrable):
    settings = {"no capacity": {"timeout_seconds": 7}}
    instance, listen = repairable(workspace, job, databricks_repair_reason_new_settings=settings, deferrable=deferrable)
    die_in_the_wait(instance)
    finish(workspace, "FAILED", "there was no capacity")
    instance.attempt(listener=listen)
    assert the_run(workspace).repairs == 1
    assert workspace.jobs[job]["timeout_seconds"] == "7"


@MODES
def test_a_clear_of_a_running_task_with_repair_run_cancels_its_run_and_submits_the_next(workspace, job, deferrable):
    instance = run_now(job_id=job, repair_run=True, deferrable=deferrable)
    die_in_the_wait(instance)
    instance.clear()
    die_in_the_wait(instance)
    assert [run.cancelled for run in workspace.runs.values()] == [True, False]
    assert len(workspace.active()) == 1


def test_a_clear_of_a_task_whose_run_failed_before_its_repair_submits_the_next(workspace, job):
    instance = run_now(job_id=job, repair_run=True)
    die_in_the_wait(instance)
    finish(workspace, "FAILED", "boom")
    instance.clear()
    die_in_the_wait(instance)
    assert [run.repairs for run in workspace.runs.values()] == [0, 0]


# -- a run that takes its time to stop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cleared", [False, True], ids=["retry", "clear"])
def test_a_run_that_was_told_to_stop_has_stopped_before_the_next_is_submitted(workspace, cleared):
    workspace.cancel_lag_reads = 4  # a cancel is asynchronous: TERMINATING meanwhile
    instance = submit_run()

    def time_out(effect):
        if effect == "xcom run_page_url":
            raise AirflowTaskTimeout("execution_timeout")

    with pytest.raises(AirflowTaskTimeout):
        instance.attempt(listener=time_out)
    assert the_run(workspace).life_cycle_state == "TERMINATING"
    if cleared:
        instance.clear()
    most = []

    def listen(effect):
        most.append(len(workspace.active()))
        for run in workspace.active():
            if not run.cancelled:
                workspace.finish(run.run_id)

    instance.attempt(listener=listen)
    assert len(workspace.runs) == 2
    assert max(most) == 1


# -- job_name ----------------------------------------------------------------------------------------------------------


@MODES
def test_a_job_name_that_no_longer_resolves_does_not_keep_a_task_from_reattaching(workspace, job, deferrable):
    instance = run_now(job_name="nightly", deferrable=deferrable)
    die_in_the_wait(instance)
    workspace.jobs[job]["name"] = "renamed"
    finish(workspace)
    instance.attempt()
    assert len(submits(workspace)) == 1
    assert instance.record["state"] == "succeeded"


def test_a_job_name_that_no_longer_resolves_does_not_hide_a_run_whose_answer_was_lost(workspace, job):
    instance = run_now(job_name="nightly")
    die_in_doubt(instance, sent=True)
    workspace.jobs[job]["name"] = "renamed"
    finish(workspace)
    instance.attempt()
    assert len(workspace.runs) == 1
    assert instance.record["state"] == "succeeded"


def test_a_job_name_that_means_another_job_at_the_retry_does_not_move_the_task(workspace, job):
    instance = run_now(job_name="nightly")
    die_in_the_wait(instance)
    workspace.jobs[job]["name"] = "renamed"
    workspace.add_job("nightly")
    finish(workspace)
    instance.attempt()
    assert [run.job_id for run in workspace.runs.values()] == [job]


# -- missing, impossible, elsewhere ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404])
@MODES
def test_a_run_that_the_service_forgot_counts_as_gone_as_400_and_as_404(workspace, status, deferrable):
    workspace.missing_status = status
    instance = submit_run(deferrable=deferrable)
    die_in_the_wait(instance)
    workspace.forget(instance.record["job"]["run_id"])
    assert isinstance(instance.failing_attempt(), JobGoneError)
    assert instance.record["state"] == "gone"
    die_in_the_wait(instance)
    assert len(set(tokens(workspace))) == len(submits(workspace)) == 2


@pytest.mark.parametrize("status", [400, 401, 403])
def test_another_refusal_to_show_the_run_is_not_taken_for_gone(workspace, status):
    instance = submit_run()
    die_in_the_wait(instance)
    refusal = Refuse(status=status, body={"error_code": "PERMISSION_DENIED", "message": "User does not exist here."})
    workspace.fault("runs/get", refusal, times=5)
    finish(workspace)
    instance.attempt()
    assert len(submits(workspace)) == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        (ResumableDatabricksOperator, DatabricksSubmitRunOperator, {"json": {"notebook_task": object()}}),
        (ResumableDatabricksOperator, DatabricksSubmitRunOperator, {"dbt_task": {"commands": ["dbt run"]}}),
        (
            ResumableDatabricksOperator,
            DatabricksSubmitRunOperator,
            {"pipeline_task": {"pipeline_id": "1", "pipeline_name": "n"}},
        ),
        (ResumableDatabricksRunNowOperator, DatabricksRunNowOperator, {"job_id": 1, "job_name": "nightly"}),
        (ResumableDatabricksRunNowOperator, DatabricksRunNowOperator, {"job_name": "no such job"}),
        (ResumableDatabricksRunNowOperator, DatabricksRunNowOperator, {"json": {"notebook_params": {"x": {1}}}, "job_id": 1}),
    ],
    ids=["type", "dbt", "pipeline", "id-and-name", "unknown-name", "set"],
)
@MODES
def test_an_invalid_payload_fails_as_the_providers_does_and_nothing_is_submitted(workspace, ours, theirs, arguments, deferrable):
    seen = []
    for operator in (theirs, ours):
        instance = TaskInstance(lambda kind=operator: kind(**{**QUICK, **arguments, "deferrable": deferrable}))
        with pytest.raises(Exception, match=r"\w") as caught:
            instance.attempt()
        seen.append((type(caught.value), str(caught.value)))
        assert instance.data == {}
    assert seen[0] == seen[1]
    assert submits(workspace) == []


@pytest.mark.parametrize("impossible", ["abc", {}, [], {"run_id": "7"}, {"run_id": None}, {"run_id": True}, [7], 7, 0])
@pytest.mark.parametrize("wait", [True, False], ids=["waits", "does-not-wait"])
@MODES
def test_a_record_with_an_id_of_impossible_shape_is_an_error_and_nothing_is_submitted(workspace, impossible, wait, deferrable):
    instance = submit_run(wait_for_termination=wait, deferrable=deferrable)
    die_in_the_wait(instance)
    instance.data["resumable"]["job"] = impossible
    kept = json.dumps(instance.record["job"])
    with pytest.raises(RecordError, match=r"Nothing was submitted.*delete the task state key 'resumable'"):
        instance.attempt()
    assert len(submits(workspace)) == 1
    assert (len(workspace.active()), workspace.count("runs/cancel")) == (1, 0)
    assert json.dumps(instance.record["job"]) == kept


@MODES
def test_an_answer_without_a_run_id_is_asked_for_again_with_the_same_token(workspace, deferrable):
    workspace.fault("runs/submit", Refuse(status=200, body={}, after_effect=True))
    instance = submit_run(deferrable=deferrable)
    with pytest.raises(KeyError, match="run_id"):  # the hook's own words
        instance.attempt()
    assert instance.record["state"] == "submitting"
    finish(workspace)
    instance.attempt()
    assert len(set(tokens(workspace))) == len(workspace.runs) == 1


@pytest.mark.parametrize("run_id", [None, "", "abc", True, {}])
def test_an_answer_with_an_impossible_run_id_is_an_error_that_tells_where_to_look(workspace, run_id):
    workspace.fault("runs/submit", Refuse(status=200, body={"run_id": run_id}, after_effect=True))
    instance = submit_run()
    with pytest.raises(Exception, match=r"which is no run's id. A run may be active: look for it"):
        instance.attempt()
    assert instance.record["state"] == "submitting"
    finish(workspace)
    instance.attempt()
    assert len(set(tokens(workspace))) == len(workspace.runs) == 1


def test_an_answer_with_an_impossible_run_id_leaves_the_next_try_that_its_message_promises(workspace):
    workspace.fault("runs/submit", Refuse(status=200, body={"run_id": None}, after_effect=True))
    with pytest.raises(Exception, match=r"The next try asks again with the same token") as caught:
        submit_run().attempt()
    assert not isinstance(caught.value, AirflowFailException)


@MODES
@pytest.mark.parametrize("in_doubt", [False, True], ids=["running", "in-doubt"])
def test_a_connection_that_points_at_another_workspace_is_an_error_that_names_both(workspace, monkeypatch, deferrable, in_doubt):
    instance = submit_run(deferrable=deferrable)
    die_in_doubt(instance, sent=True) if in_doubt else die_in_the_wait(instance)
    connection = {**json.loads(workspace.connection_json()), "host": "localhost"}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    with pytest.raises(ForeignJobError, match=r"127\.0\.0\.1.*localhost.*Nothing was submitted"):
        instance.attempt()
    assert (len(submits(workspace)), len(workspace.active()), workspace.count("runs/cancel")) == (1, 1, 0)
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", workspace.connection_json())
    finish(workspace)
    instance.attempt()
    assert len(workspace.runs) == 1


def test_a_connection_that_moved_after_the_run_was_seen_to_end_submits_there(workspace, monkeypatch):
    instance = submit_run()

    def fail(effect):
        if effect == "store.set" and instance.record["job"]:
            finish(workspace, "FAILED", "boom")

    with pytest.raises(Exception, match="boom"):
        instance.attempt(listener=fail)
    assert instance.record["state"] == "failed"
    connection = {**json.loads(workspace.connection_json()), "host": "localhost"}
    monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", json.dumps(connection))
    die_in_the_wait(instance)
    assert instance.record["place"]["workspace"] == "localhost"


# -- a submit in doubt whose repetition is refused -----------------------------------------------------------------------


def spoil_in_doubt(workspace):
    """A task whose first submit was never served and whose repetition the service refuses for what the author wrote."""
    instance = submit_run(json={**NOTEBOOK, "run_name": "bad"})
    instance.is_all_written = True
    workspace.fault("runs/submit", Refuse(503), times=3)
    with pytest.raises(Exception, match="(?i)503|retries|refused"):
        instance.attempt()
    workspace.fault("runs/submit", Refuse(400, body={"message": "bad payload"}), times=-1, text="bad")
    with pytest.raises(Exception, match="bad payload"):
        instance.attempt()
    return instance


@pytest.mark.parametrize("cleared", [False, True], ids=["edited", "edited-and-cleared"])
def test_an_author_who_mends_a_payload_that_was_refused_in_doubt_gets_it_submitted(workspace, cleared):
    instance = spoil_in_doubt(workspace)
    instance.make = submit_run(json={**NOTEBOOK, "run_name": "good"}).make
    if cleared:
        instance.clear()
    workspace.duration = 0
    instance.attempt()
    assert [run.payload["run_name"] for run in workspace.runs.values()] == ["good"]


def deleted_in_doubt(workspace, **arguments):
    """A task whose run was deleted before its id was known."""
    instance = submit_run(**arguments)
    die_in_doubt(instance, sent=True)
    workspace.forget(the_run(workspace).run_id)
    workspace.duration = 0
    return instance


@MODES
@pytest.mark.parametrize("cleared", [False, True], ids=["retry", "clear"])
def test_a_run_that_was_deleted_while_its_submit_was_in_doubt_counts_as_gone(workspace, cleared, deferrable):
    instance = deleted_in_doubt(workspace, deferrable=deferrable)
    if cleared:
        instance.clear()
    else:
        assert isinstance(instance.failing_attempt(), JobGoneError)
    instance.attempt()
    assert len(workspace.runs) == 1
    assert [tokens(workspace)[0] == token for token in tokens(workspace)] == [True, True, False]
    assert instance.record["submission"] == (0 if cleared else 1)
    assert instance.record["state"] == "succeeded"


def test_a_run_that_was_deleted_in_doubt_is_not_submitted_again_with_on_missing_fail(workspace):
    instance = deleted_in_doubt(workspace, resume_policy={"on_missing": "fail"})
    for _ in range(2):
        with pytest.raises(AirflowFailException, match="on_missing=fail"):
            instance.attempt()
    assert instance.record["state"] == "gone"
    assert len(submits(workspace)) == 2
    instance.clear()
    instance.attempt()
    assert len(workspace.runs) == 1


def test_a_run_that_was_deleted_between_two_requests_of_one_submit_counts_as_gone(workspace):
    workspace.fault("runs/submit", Refuse(503, after_effect=True))
    workspace.duration = 0
    instance = submit_run()
    left = [lambda: workspace.forget(the_run(workspace).run_id)]
    gone = instance.failing_attempt(listener=lambda effect: effect.endswith("runs/submit") and left and left.pop()())
    assert isinstance(gone, JobGoneError)
    instance.attempt()
    assert len(workspace.runs) == 1
    assert instance.record["submission"] == 1


def test_a_users_own_token_whose_run_was_deleted_is_asked_for_a_few_times_and_then_an_error(workspace):
    instance = deleted_in_doubt(workspace, idempotency_token="mine")
    with pytest.raises(Exception, match="deleted"):
        instance.attempt()
    assert len(submits(workspace)) < 8
    assert workspace.runs == {}


def test_a_refusal_that_does_not_speak_of_a_deleted_run_of_the_token_leaves_the_doubt(workspace):
    instance = deleted_in_doubt(workspace)
    for words in ("idempotency_token is too long", "the cluster was deleted"):
        workspace.fault("runs/submit", Refuse(400, body={"error_code": "INVALID_PARAMETER_VALUE", "message": words}))
        with pytest.raises(Exception, match=words):
            instance.attempt()
        assert instance.record["state"] == "submitting"
    assert workspace.runs == {}


# -- wait_for_termination=False ----------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("ending", ["RUNNING", "SUCCESS", "FAILED", "CANCELED"])
def test_a_task_that_does_not_wait_submits_once_and_a_retry_submits_nothing(workspace, deferrable, ending):
    instance = submit_run(wait_for_termination=False, deferrable=deferrable)
    die_in_the_wait(instance)
    if ending != "RUNNING":
        finish(workspace, ending)
    assert instance.attempt() is None
    instance.attempt()
    assert len(submits(workspace)) == len(workspace.runs) == 1
    assert instance.xcoms["run_id"] == instance.record["job"]["run_id"]
    assert instance.record["state"] == "submitted"


@MODES
def test_a_task_that_does_not_wait_submits_nothing_more_when_it_failed_after_a_submit_whose_run_failed_too(workspace, deferrable):
    instance = submit_run(wait_for_termination=False, deferrable=deferrable)
    workspace.fault("runs/get", Refuse(503), times=3)

    def fail(effect):
        if effect == "store.set" and instance.record["job"]:
            finish(workspace, "FAILED", "boom")

    with pytest.raises(Exception, match="503|refused|retries"):
        instance.attempt(listener=fail)
    instance.attempt()
    assert len(submits(workspace)) == 1


def test_a_task_that_does_not_wait_runs_again_when_cleared(workspace):
    instance = submit_run(wait_for_termination=False)
    instance.attempt()
    finish(workspace, "FAILED")
    instance.try_number += 1
    instance.clear()
    instance.attempt()
    assert len(set(tokens(workspace))) == 2


# -- what is kept ------------------------------------------------------------------------------------------------------

SECRET = "tr0ub4dor-and-3-horses"


def secret_at(depth):
    value = SECRET
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return {**NOTEBOOK, "deep": value}


def written_by(instance):
    """Run an attempt that dies once the intent is written; return everything that task state was given."""
    written = []

    def listen(effect):
        written.append(json.dumps(instance.data))
        instance.effects.dead = instance.data.get("resumable", {}).get("state") == "submitting"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    return written


@pytest.mark.parametrize("text", [SECRET, f"jdbc://user:{SECRET}@host"], ids=["alone", "inside"])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_secret_in_the_payload_is_never_written_to_task_state(workspace, text, depth):
    mask_secret(SECRET)
    payload = json.loads(json.dumps(secret_at(depth)).replace(SECRET, text))
    instance = submit_run(json=payload)
    assert not [state for state in written_by(instance) if SECRET in state]
    finish(workspace)
    workspace.duration = 0
    instance.attempt()
    assert SECRET not in json.dumps(instance.data)
    assert SECRET in json.dumps(submits(workspace)[-1].body)


def test_a_secret_deep_in_the_payload_is_never_written_to_task_state(workspace):
    mask_secret(SECRET)
    inner = {"notebook_task": {"notebook_path": "/x", "base_parameters": {"key": SECRET}}}
    tasks = [{"task_key": "all", "for_each_task": {"inputs": "[1]", "task": {"task_key": "one", **inner}}}]
    assert not [state for state in written_by(submit_run(tasks=tasks)) if SECRET in state]


def test_a_small_payload_is_kept_with_an_intent_and_sent_again_as_recorded(workspace):
    clock = iter(range(9))

    def make():
        return ResumableDatabricksOperator(**QUICK, json={**NOTEBOOK, "run_name": f"at {next(clock)}"})

    instance = TaskInstance(make)
    die_in_doubt(instance, sent=False)
    kept = instance.record["params"]
    workspace.duration = 0
    instance.attempt()
    (call,) = submits(workspace)
    assert kept["run_name"] == call.body["run_name"]
    assert {**kept, "idempotency_token": call.body["idempotency_token"]} == call.body
    assert "params" not in instance.record


def test_a_large_payload_is_not_kept_and_the_record_stays_small(workspace):
    tasks = [{"task_key": f"t{i}", "notebook_task": {"notebook_path": "/x" * 20}} for i in range(60)]
    instance = submit_run(tasks=tasks)
    die_in_doubt(instance, sent=True)
    assert "params" not in instance.record
    assert len(json.dumps(instance.record)) < 2000
    finish(workspace)
    instance.attempt()
    assert [len(call.body["tasks"]) for call in submits(workspace)] == [60, 60]
    assert len(workspace.runs) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"json": json.dumps(NOTEBOOK)},
        {"json": NOTEBOOK},
        {"notebook_task": NOTEBOOK["notebook_task"], "existing_cluster_id": "c", "json": None, "timeout_seconds": 5},
        {"tasks": [{"task_key": "a", **NOTEBOOK}, {"task_key": "b", **NOTEBOOK}]},
        {"json": {"tasks": [{"task_key": "a", **NOTEBOOK}]}, "run_name": "named"},
        {"json": NOTEBOOK, "params": {"day": "monday"}},
    ],
    ids=["text", "dict", "named", "tasks", "json-tasks", "params"],
)
@MODES
def test_the_payload_is_the_providers_whatever_form_it_was_given_in(workspace, arguments, deferrable):
    workspace.duration = 0
    given = {**QUICK, **arguments, "deferrable": deferrable}
    instance = TaskInstance(lambda: ResumableDatabricksOperator(**given))
    instance.attempt()
    TaskInstance(lambda: DatabricksSubmitRunOperator(**given)).attempt()
    ours, theirs = [call.body for call in workspace.calls("runs/submit")]
    assert ours.pop("idempotency_token") == instance.record["token"]
    assert ours == theirs


def test_the_record_tells_a_person_which_run_it_is_and_where(workspace, job):
    instance = run_now(job_id=job)
    die_in_the_wait(instance)
    record = instance.record
    assert record["service"] == "databricks"
    assert record["job"] == {"run_id": the_run(workspace).run_id, "job_id": str(job)}
    assert record["place"] == {"workspace": "127.0.0.1"}
    assert record["state"] == "submitted"
    assert record["token"] == the_run(workspace).token
    assert len(record["token"]) == 48
    assert record["submitted_at"] >= record["intended_at"]
    assert (record["submission"], record["attempt"], record["version"]) == (0, 1, 1)
    assert len(json.dumps(record)) < 2000
    finish(workspace)
    instance.attempt()
    assert instance.record["state"] == "succeeded"
    assert instance.record["attempt"] == 2


# -- mapped tasks ------------------------------------------------------------------------------------------------------


def mapped(operator, items, index, **partial):
    """One instance of a mapped task, expanded as the task runner does it."""

    def make():
        with DAG("dag", schedule=None) as dag:
            task = operator.partial(**{**QUICK, **partial}).expand(**items)
        context = {
            "run_id": "run",
            "ti": SimpleNamespace(map_index=index, task_id="task", dag_id="dag", run_id="run", is_mapped=True),
            "task": task,
            "dag": dag,
            "dag_run": SimpleNamespace(conf={}),
            "expanded_ti_count": len(next(iter(items.values()))),
        }
        task.render_template_fields(context)
        return context["task"]

    return TaskInstance(make, map_index=index)


MAPPED = pytest.mark.parametrize(
    ("operator", "items"),
    [
        (ResumableDatabricksOperator, {"json": [{**NOTEBOOK, "run_name": "a"}, {**NOTEBOOK, "run_name": "b"}]}),
        (ResumableDatabricksRunNowOperator, {"notebook_params": [{"x": "a"}, {"x": "b"}]}),
    ],
    ids=["submit-run", "run-now"],
)


def partial_of(operator, job):
    return {"job_id": job} if operator is ResumableDatabricksRunNowOperator else {}


@MAPPED
@MODES
def test_two_mapped_instances_have_different_tokens_and_specs(workspace, job, operator, items, deferrable):
    workspace.duration = 0
    records = []
    for index in (0, 1):
        instance = mapped(operator, items, index, deferrable=deferrable, **partial_of(operator, job))
        instance.is_all_written = True
        instance.attempt()
        records.append(instance.record)
    assert records[0]["token"] != records[1]["token"]
    assert records[0]["fingerprint"] != records[1]["fingerprint"]
    assert len(workspace.runs) == 2


@MAPPED
@MODES
def test_a_mapped_instance_reattaches_to_its_own_run(workspace, job, operator, items, deferrable):
    instances = [mapped(operator, items, i, deferrable=deferrable, **partial_of(operator, job)) for i in (0, 1)]
    for instance in instances:
        die_in_the_wait(instance)
    finish(workspace)
    for instance in reversed(instances):
        instance.attempt()
        assert instance.xcoms["run_id"] == instance.record["job"]["run_id"]
    assert len(submits(workspace)) == 2


@MAPPED
def test_swapped_items_of_a_mapped_task_are_seen_as_a_change(workspace, job, operator, items):
    ((name, values),) = items.items()
    policy = {"resume_policy": {"on_change": "fail"}, **partial_of(operator, job)}
    instance = mapped(operator, items, 0, **policy)
    instance.is_all_written = True
    die_in_the_wait(instance)
    instance.make = mapped(operator, {name: values[::-1]}, 0, **policy).make
    with pytest.raises(AirflowFailException, match="the author changed|The author changed"):
        instance.attempt()
    instance.make = mapped(operator, {name: [*values, *values]}, 0, **policy).make
    finish(workspace)
    instance.attempt()
    assert len(submits(workspace)) == 1


def test_arguments_of_ours_may_be_given_to_partial(workspace):
    instance = mapped(ResumableDatabricksOperator, {"json": [NOTEBOOK]}, 0, durable=False)
    workspace.duration = 0
    instance.attempt()
    assert "resumable" not in instance.data
    assert tokens(workspace) == [None]
