"""`make_resumable`: a durable class for operators that were written for Airflow's own mixin, those of providers included."""

from __future__ import annotations

import copy
import os
import pickle
import signal

import pytest
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator
from airflow.providers.common.compat.sdk import ResumableJobMixin
from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator, DatabricksSubmitRunOperator

from resumable import ConfigurationError, ResumableMixin, make_resumable
from resumable.jobs.methods import recovery_of
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.services import DatabricksSimulator, Drop
from tests.support.names import DAG, STOPPED, AirflowFailException, AirflowRescheduleException, BaseOperator, DagSerialization
from tests.support.runner import TaskInstance, WorkerDied
from tests.support.waits import real_sleep

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]


class Farm:
    """A render farm in memory."""

    def __init__(self):
        self.frames, self.stopped, self.on_look = {}, [], lambda: None

    def start(self, scene):
        self.frames[f"r-{len(self.frames)}"] = "QUEUED"
        return f"r-{len(self.frames) - 1}"

    def look(self, job):
        self.on_look()
        return self.frames[job]

    def stop(self, job):
        self.stopped.append(job)
        self.frames[job] = "STOPPED"

    def finish(self, state="RENDERED"):
        self.frames = {job: state if old == "QUEUED" else old for job, old in self.frames.items()}


FARM = Farm()


class RenderOperator(ResumableJobMixin, BaseOperator):
    """An operator of somebody else, with a service of its own."""

    template_fields = ("scene",)

    def __init__(self, *, scene, wait_for_completion=True, deferrable=False, **kwargs):
        super().__init__(**kwargs)
        self.scene, self.wait_for_completion, self.deferrable = scene, wait_for_completion, deferrable
        self.job = None

    def execute(self, context):
        self.execute_resumable(context)
        return {"job": self.job}

    def submit_job(self, context):
        self.job = FARM.start(self.scene)
        return self.job

    def get_job_status(self, external_id, context):
        return FARM.look(external_id)

    def is_job_active(self, status):
        return status == "QUEUED"

    def is_job_succeeded(self, status):
        return status == "RENDERED"

    def poll_until_complete(self, external_id, context):
        self.job = external_id
        while self.wait_for_completion and self.is_job_active(status := FARM.look(external_id)):
            real_sleep(0.002)
        if self.wait_for_completion and not self.is_job_succeeded(status):
            raise RuntimeError(f"{external_id} is {status}")

    def get_job_result(self, external_id, context):
        self.job = external_id

    def on_kill(self):
        FARM.stop(self.job)


ResumableRenderOperator = make_resumable(RenderOperator)


@make_resumable
class Decorated(RenderOperator):
    def submit_job(self, context):
        context["ti"].xcom_push(key="scene", value=self.scene)
        return super().submit_job(context)


class Cancelling(make_resumable(RenderOperator)):
    def cancel_job(self, external_id, context):
        FARM.stop(external_id)


@pytest.fixture(autouse=True)
def farm():
    FARM.__init__()
    return FARM


def render(operator=ResumableRenderOperator, **arguments):
    return TaskInstance(lambda: operator(**{"task_id": "task", "scene": "s", **arguments}))


def die_in_the_wait(instance):
    def listen(effect):
        if instance.data.get("resumable", {}).get("job") and effect == "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


# -- an operator of somebody else --------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [ResumableRenderOperator, Decorated, Cancelling])
def test_a_retry_reattaches_and_returns_what_the_operator_returns(farm, operator):
    instance = render(operator)
    die_in_the_wait(instance)
    farm.on_look = farm.finish
    assert instance.attempt() == {"job": "r-0"}
    assert len(farm.frames) == 1
    assert instance.record["state"] == "succeeded"


def test_a_job_that_succeeded_meanwhile_gives_the_result_without_airflows_own_store_key(farm):
    instance = render()
    die_in_the_wait(instance)
    farm.finish()
    assert instance.attempt() == {"job": "r-0"}
    assert set(instance.data) == {"resumable"}  # upstream's own durability is off


def test_a_failed_job_is_followed_by_one_new_job(farm):
    instance = render()
    die_in_the_wait(instance)
    farm.finish("BROKEN")
    instance.failing_attempt()
    farm.on_look = farm.finish
    assert instance.attempt() == {"job": "r-1"}


def test_a_try_that_died_in_its_submit_is_not_repeated_by_itself(farm):
    instance = render()

    def listen(effect):
        instance.effects.dead = instance.data.get("resumable", {}).get("state") == "submitting"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    with pytest.raises(AirflowFailException, match="no way to tell whether a job was made"):
        instance.attempt()
    assert farm.frames == {}


def test_without_durable_it_submits_on_every_try_and_keeps_nothing(farm):
    instance = render(durable=False)
    farm.on_look = farm.finish
    instance.attempt()
    instance.attempt()
    assert (len(farm.frames), instance.data) == (2, {})


def test_a_task_that_does_not_wait_submits_once(farm):
    instance = render(wait_for_completion=False)
    assert instance.attempt() == instance.attempt() == {"job": "r-0"}
    assert instance.record["state"] == "submitted"


def test_wait_reschedule_frees_the_slot_between_two_looks(farm):
    instance = render(resume_policy={"wait": "reschedule", "wait_interval": 60})
    for _ in range(2):
        with pytest.raises(AirflowRescheduleException):
            instance.attempt()
    farm.finish()
    assert instance.attempt() == {"job": "r-0"}


@pytest.mark.parametrize("again", [False, True], ids=["first-attempt", "reattached"])
@pytest.mark.parametrize("operator", [ResumableRenderOperator, Cancelling])
@pytest.mark.parametrize(("state", "stopped"), [("failed", ["r-0"]), ("running", [])])
def test_a_users_stop_stops_the_job_by_on_kill_once_and_an_eviction_does_not(farm, operator, again, state, stopped):
    instance = render(operator)
    made = []
    make = instance.make
    instance.make = lambda: made.append(make()) or made[-1]
    if again:
        die_in_the_wait(instance)
    instance.state, sent = state, []

    def send():
        if not sent and made[-1].job is not None:
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), sent[0])

    farm.on_look = send
    with pytest.raises(STOPPED):  # a hand-back, or the failure of the stop
        instance.attempt()
    assert farm.stopped == stopped
    assert instance.record["state"] == ("cancelled" if stopped else "submitted")


@pytest.mark.parametrize(("operator", "jobs"), [(Cancelling, 2), (ResumableRenderOperator, 1)])
def test_a_clear_of_a_running_task_restarts_the_job_if_the_subclass_can_cancel_it(farm, operator, jobs):
    instance = render(operator)
    die_in_the_wait(instance)
    instance.clear()
    if operator is Cancelling:
        die_in_the_wait_of_the_second(instance)
    else:
        with pytest.raises(AirflowFailException, match="has no cancel_job.*the job runs on"):
            instance.attempt()
    assert len(farm.frames) == jobs
    assert list(farm.frames.values()).count("QUEUED") == 1


def die_in_the_wait_of_the_second(instance):
    def listen(effect):
        instance.effects.dead = instance.record["job"] == "r-1"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def test_a_subclass_that_sends_the_token_may_repeat_a_submit(farm):
    class Sending(make_resumable(RenderOperator)):
        def submit_job(self, context):
            self.scene = f"{self.scene}#{self.idempotency_token}"
            return super().submit_job(context)

    assert recovery_of(Sending) is not recovery_of(ResumableRenderOperator)
    farm.on_look = farm.finish
    assert render(Sending).attempt() == {"job": "r-0"}


# -- the class ---------------------------------------------------------------------------------------------------------


def test_the_class_has_the_operators_name_the_callers_module_and_is_made_once():
    assert (ResumableRenderOperator.__name__, ResumableRenderOperator.__module__) == ("RenderOperator", __name__)
    assert issubclass(ResumableRenderOperator, RenderOperator)
    assert make_resumable(RenderOperator) is ResumableRenderOperator
    assert ResumableRenderOperator.__doc__ == RenderOperator.__doc__


@pytest.mark.parametrize("operator", [ResumableRenderOperator, Decorated, Cancelling])
def test_a_task_can_be_pickled_and_copied(operator):
    task = operator(task_id="task", scene="s", resume_policy={"on_clear": "reattach"})
    for again in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task), copy.copy(task)):
        assert type(again) is operator
        assert (again.scene, again.resume_policy) == ("s", task.resume_policy)


def test_a_class_that_is_bound_to_its_own_name_can_be_pickled():
    assert pickle.loads(pickle.dumps(Decorated)) is Decorated


@pytest.mark.parametrize("operator", [ResumableRenderOperator, Decorated, Cancelling])
def test_a_dag_with_it_can_be_serialized_and_read_back(operator):
    with DAG("dag", schedule=None) as dag:
        operator(task_id="one", scene="s", resume_policy={"on_clear": "reattach"})
        operator.partial(task_id="many", durable=True, resume_policy={"on_failed": "fail"}).expand(scene=["a", "b"])
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert read.task_dict["one"].task_type == operator.__name__
    assert type(read.task_dict["many"]).__name__.endswith("MappedOperator")


def test_default_args_reach_both_arguments():
    with DAG("dag", schedule=None, default_args={"durable": False, "resume_policy": {"on_failed": "fail"}}):
        task = ResumableRenderOperator(task_id="task", scene="s")
    assert task.durable is False
    assert task.resume_policy.on_failed.value == "fail"


def test_deferrable_is_refused_when_the_dag_is_parsed_and_allowed_without_durable():
    with pytest.raises(ConfigurationError, match="deferrable=True.*Nothing was submitted.*'reschedule'"):
        ResumableRenderOperator(task_id="task", scene="s", deferrable=True)
    assert ResumableRenderOperator(task_id="task", scene="s", deferrable=True, durable=False).deferrable


class Absent:
    """What the stand-in of `ResumableJobMixin` before 3.3 has of the six methods."""

    def __get__(self, *_):
        raise AttributeError


def without(name):
    class Lacking(RenderOperator):
        pass

    setattr(Lacking, name, ResumableJobMixin.__dict__.get(name) or Absent())
    return Lacking


class Never(RenderOperator):
    def execute(self, context):
        return self.submit_job(context)


class OfNothing(BaseOperator):
    def execute(self, context):
        return self.execute_resumable(context)


class Clashing(RenderOperator):
    def __init__(self, *, service, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        *((without(name), f"it has no {name}") for name in ("submit_job", "get_job_status", "is_job_active", "get_job_result")),
        (OfNothing, "it has no submit_job, get_job_status, .*docs/custom-operators.md"),
        (Never, "never calls execute_resumable"),
        (Clashing, "'service'"),
        (ResumableRenderOperator, "resumable already"),
        (Cancelling, "resumable already"),
        (ResumableDatabricksOperator, "resumable already"),
        (type("Custom", (ResumableMixin, BaseOperator), {}), "resumable already"),
        (dict, "no operator class"),
        ("GlueJobOperator", "no operator class"),
    ],
)
def test_what_cannot_be_made_resumable_is_an_error_when_the_class_is_made(operator, words):
    with pytest.raises(ConfigurationError, match=words):
        make_resumable(operator)


# -- operators of providers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (GlueJobOperator, {"job_name": "load"}),
        (RedshiftDataOperator, {"sql": "select 1", "database": "db", "workgroup_name": "wgr"}),
        (DatabricksSubmitRunOperator, {"json": {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}}),
        (DatabricksRunNowOperator, {"job_id": 1}),
    ],
)
def test_every_operator_of_the_installed_providers_that_has_the_six_methods_can_be_made_resumable(operator, arguments):
    task = make_resumable(operator)(task_id="task", **arguments, resume_policy={"on_clear": "reattach"})
    assert task.durable is True
    assert make_resumable(operator)(task_id="other", **arguments, durable=False).durable is False
    assert type(pickle.loads(pickle.dumps(task))) is make_resumable(operator)


@pytest.fixture
def redshift(monkeypatch):
    from moto import mock_aws
    from moto.redshiftdata import redshiftdata_backends

    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield redshiftdata_backends["123456789012"]["eu-west-1"].statements


def sql(**arguments):
    given = {"task_id": "task", "sql": "select 1", "database": "db", "workgroup_name": "wgr", "aws_conn_id": None}
    return TaskInstance(lambda: make_resumable(RedshiftDataOperator)(**given, **arguments))


def test_a_redshift_statement_is_reattached_to_and_its_ids_are_returned(redshift):
    instance = sql()
    die_in_the_wait(instance)
    (statement,) = redshift.values()
    statement.status = "FINISHED"
    assert instance.attempt() == [statement.id]
    assert len(redshift) == 1
    assert instance.record["state"] == "succeeded"


def test_a_redshift_statement_that_the_service_forgot_is_submitted_again(redshift):
    instance = sql()
    die_in_the_wait(instance)
    redshift.clear()
    instance.failing_attempt()
    die_in_the_wait_of_another(instance, instance.record["job"])
    assert len(redshift) == 1


def die_in_the_wait_of_another(instance, job):
    def listen(effect):
        instance.effects.dead = instance.record["job"] not in (None, job)

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


@pytest.fixture
def workspace(monkeypatch):
    with DatabricksSimulator(duration=0) as simulator:
        for name, value in simulator.env().items():
            monkeypatch.setenv(name, value)
        yield simulator


def run(**arguments):
    json = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
    quick = {"task_id": "task", "json": json, "polling_period_seconds": 0, "databricks_retry_delay": 0}
    return TaskInstance(lambda: make_resumable(DatabricksSubmitRunOperator)(**quick, **arguments))


def test_an_operator_with_an_idempotency_token_argument_sends_ours_there(workspace):
    workspace.fault("runs/submit", Drop())
    instance = run()
    instance.attempt()
    assert len(workspace.runs) == 1
    assert [c.body["idempotency_token"] for c in workspace.calls("runs/submit")] == [instance.record["token"]] * 2


def test_the_authors_own_token_is_sent_as_it_is(workspace):
    run(idempotency_token="mine").attempt()
    (call,) = workspace.calls("runs/submit")
    assert call.body["idempotency_token"] == "mine"


@pytest.mark.parametrize("how", ["edit", "clear"])
def test_a_job_is_not_cancelled_for_another_one_that_the_authors_own_token_keeps_from_coming(workspace, how):
    workspace.duration = None
    json = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}
    given = {"json": json}
    made = make_resumable(DatabricksSubmitRunOperator)
    quick = {"task_id": "task", "polling_period_seconds": 0, "databricks_retry_delay": 0, "idempotency_token": "mine"}
    instance = TaskInstance(lambda: made(**quick, **given))
    instance.is_all_written = True
    die_when_kept(instance)
    if how == "edit":
        given["json"] = {**json, "existing_cluster_id": "d"}
    else:
        instance.clear()
    looks = workspace.count("runs/get")
    instance.attempt(listener=lambda _: workspace.count("runs/get") > looks and [workspace.finish(r) for r in workspace.runs])
    assert (len(workspace.runs), workspace.count("runs/cancel"), instance.record["token"]) == (1, 0, "mine")


def test_after_a_failed_job_the_authors_own_token_is_used_up_and_the_task_says_so(workspace):
    workspace.duration = None
    instance = run(idempotency_token="mine")

    def fail(_):
        for one in workspace.active():
            workspace.finish(one.run_id, "FAILED", "boom")

    with pytest.raises(Exception, match="(?i)fail|boom"):
        instance.attempt(listener=fail)
    with pytest.raises(AirflowFailException, match="is used up.*No job was started"):
        instance.attempt()
    assert len(workspace.runs) == 1


def die_when_kept(instance):
    def listen(_):
        instance.effects.dead = "resumable" in instance.data and instance.record["job"] is not None

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
