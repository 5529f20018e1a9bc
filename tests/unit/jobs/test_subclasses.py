"""A subclass may do what it may with the provider's class, and a provider that goes another way is noticed."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.databricks.hooks import databricks as hooks
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

from resumable import ResumableMixin, _extras, host
from resumable.adapters import HookCall, JobHandle, JobState, Observation, Recovery, durable_operator
from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.contract import aws_cases
from tests.support.names import AirflowFailException, AirflowTaskTimeout, BaseOperator, TaskDeferred
from tests.support.runner import TaskInstance, WorkerDied
from tests.support.waits import real_sleep

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting_of_the_task")]

JOB = {"existing_cluster_id": "c", "notebook_task": {"notebook_path": "/x"}}
ARGUMENTS = {"task_id": "task", "json": JOB, "polling_period_seconds": 0, "databricks_retry_delay": 0}


@pytest.fixture
def athena(monkeypatch):
    make = {name: make for name, _, _, make, _ in aws_cases.CASES}["athena"]
    with make(monkeypatch) as bench:
        bench.server.duration = 0
        yield bench


def rendered(operator, context):
    operator._do_render_template_fields(operator, operator.template_fields, context, operator.get_template_env(), set())


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        real_sleep(0.005)
    assert condition()


# -- an execute of its own --------------------------------------------------------------------------------------------


def submits_itself(base):
    class Own(base):
        """As the provider's class allows: it submits and waits by the hook."""

        def execute(self, context):
            self.run_id = self._hook.submit_run(self.json)
            while self._hook.get_run_state(self.run_id).life_cycle_state in ("PENDING", "RUNNING"):
                real_sleep(0.01)

    return Own


@pytest.mark.parametrize("base", [DatabricksSubmitRunOperator, ResumableDatabricksOperator], ids=lambda base: base.__name__)
def test_a_users_stop_of_a_subclass_whose_execute_never_reaches_ours_cancels_the_run(workspace, base):
    instance = TaskInstance(lambda: submits_itself(base)(**ARGUMENTS))
    instance.state = "failed"

    def stop():
        until(lambda: workspace.runs and workspace.calls("runs/get"))
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    instance.attempt(render=rendered)
    [run] = workspace.runs.values()
    assert run.result_state == "CANCELED"


class Follows:
    """What comes after the job, and is stopped by an ``on_kill`` of its own."""

    is_stopped = False

    def follow(self):
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: self.is_stopped)
        return "stopped"

    def on_kill(self):
        super().on_kill()
        self.is_stopped = True


class FollowsInExecute(Follows, ResumableDatabricksOperator):
    def execute(self, context):
        super().execute(context)
        return self.follow()


class FollowsADeferral(Follows, ResumableDatabricksOperator):
    def execute_complete(self, context, event=None):
        super().execute_complete(context, event)
        return self.follow()


@pytest.mark.parametrize("operator", [FollowsInExecute, FollowsADeferral], ids=lambda operator: operator.__name__)
def test_what_an_author_does_after_the_job_is_stopped_by_his_own_on_kill(workspace, operator):
    instance = TaskInstance(lambda: operator(**ARGUMENTS, deferrable=operator is FollowsADeferral))
    instance.on_defer = lambda _trigger: setattr(workspace, "duration", 0)
    if operator is FollowsInExecute:
        workspace.duration = 0
    assert instance.attempt(render=rendered) == "stopped"
    assert workspace.count("runs/cancel") <= 1  # of the provider's on_kill, to a run that has ended
    assert instance.record["state"] == "succeeded"


def test_after_an_execution_timeout_no_on_kill_of_an_author_is_called_for_a_job_that_was_dealt_with(workspace):
    class Own(ResumableDatabricksOperator):
        is_killed = False

        def execute(self, context):
            try:
                return super().execute(context)
            finally:
                self.on_kill()  # as Airflow does right after it

        def on_kill(self):
            type(self).is_killed = True

    def time_out(effect):
        if "runs/get" in effect:
            raise AirflowTaskTimeout("execution_timeout")

    instance = TaskInstance(lambda: Own(**ARGUMENTS, resume_policy={"on_timeout": "detach"}))
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt(render=rendered, listener=time_out)
    assert not Own.is_killed
    assert len(workspace.active()) == 1


def test_an_on_kill_that_raises_before_there_is_a_job_does_not_fail_a_task_that_is_told_early(workspace):
    class Own(ResumableDatabricksOperator):
        def on_kill(self):
            raise AttributeError("no run yet")

    def evicted(operator, context):
        rendered(operator, context)
        operator.on_kill()  # as Airflow's handler of SIGTERM does

    instance = TaskInstance(lambda: Own(**ARGUMENTS))
    with pytest.raises(Exception) as caught:
        instance.attempt(render=evicted)
    assert host.is_hand_back(caught.value)


def test_a_subclass_whose_execute_never_reaches_ours_is_warned_of_once_when_its_class_is_made(caplog):
    own = submits_itself(ResumableDatabricksOperator)
    [line] = [line for line in caplog.messages if "is not durable" in line]
    assert f"{own.__qualname__}.execute calls no super().execute" in line
    for _ in range(3):
        own(**ARGUMENTS)
    type("Below", (own,), {})
    assert len([line for line in caplog.messages if "is not durable" in line]) == 1


def test_a_subclass_whose_execute_reaches_ours_by_whatever_way_is_not_warned_of(caplog):
    class Direct(ResumableDatabricksOperator):
        def execute(self, context):
            return super().execute(context)

    class ByName(ResumableAthenaOperator):
        def execute(self, context):
            return ResumableAthenaOperator.execute(self, context)

    class ByHelper(ResumableDatabricksOperator):
        def execute(self, context):
            return self.run_it(context)

        def run_it(self, context):
            return super().execute(context)

    class Twice(Direct):
        def execute(self, context):
            return super().execute(context)

    assert [line for line in caplog.messages if "is not durable" in line] == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_a_subclass_does_around_super_execute_it_does_and_attributes_can_be_read_afterwards(workspace, deferrable):
    seen = []

    class Around(ResumableDatabricksOperator):
        def execute(self, context):
            seen.append("before")
            result = super().execute(context)
            seen.append("after")
            return result

        def post_execute(self, context, result=None):
            seen.append(self.run_id)

    operators = []

    def make():
        operators.append(Around(**ARGUMENTS, deferrable=deferrable))
        return operators[-1]

    instance = TaskInstance(make)

    def die(call):
        if "runs/get" in call:
            raise WorkerDied(call)

    if not deferrable:
        with pytest.raises(WorkerDied):
            instance.attempt(listener=die)
    workspace.duration = 0
    instance.attempt()
    operators[-1].post_execute({})
    if not deferrable:
        assert seen == ["before", "before", "after", 1001]
    assert len(workspace.runs) == 1


class Raises(dict):
    def values(self):
        raise RuntimeError("not now")


def test_whatever_a_subclass_keeps_on_itself_a_retry_reattaches(workspace):
    class Keeps(ResumableDatabricksOperator):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.graph = {"nodes": []}
            self.graph["self"] = self.graph
            self.lazy = Raises(key="value")

    def die(effect):
        if "runs/get" in effect:
            raise WorkerDied(effect)

    instance = TaskInstance(lambda: Keeps(**ARGUMENTS))
    with pytest.raises(WorkerDied):
        instance.attempt(listener=die)
    workspace.duration = 0
    instance.attempt()
    assert len(workspace.runs) == 1


# -- deferring --------------------------------------------------------------------------------------------------------


def test_what_an_author_makes_of_a_job_that_has_succeeded_when_its_deferral_is_over_is_not_overruled(athena):
    """No result is delivered past his ``execute_complete``: neither where it says no, nor where the trigger has failed."""

    class Checks(ResumableAthenaOperator):
        def execute_complete(self, context, event=None):
            super().execute_complete(context, event)
            raise ValueError("the table is empty")

    instance = TaskInstance(lambda: Checks(task_id="task", deferrable=True, **athena.arguments()), retries=1)
    ways = iter([lambda deferred: ("__fail__", {"error": "Trigger failure"}), instance.run_trigger])
    instance.run_trigger = lambda deferred: next(ways)(deferred)
    assert instance.run() == "failed"
    assert "the table is empty" in str(instance.errors[-1])
    assert athena.jobs() == 1


def test_a_subclass_defers_for_a_purpose_of_its_own_with_its_own_trigger(workspace):
    """A trigger that is not the provider's is left as it is."""

    class OwnTrigger(TimeDeltaTrigger):
        pass

    class Rests(ResumableDatabricksOperator):
        def execute(self, context):
            super().execute(context)
            self.defer(trigger=OwnTrigger(timedelta(seconds=1)), method_name="rested")

        def rested(self, context, event=None):
            return "rested"

    workspace.duration = 0
    seen = []
    instance = TaskInstance(lambda: Rests(**ARGUMENTS))
    instance.on_defer = seen.append

    def stop(trigger):
        seen.append(trigger)
        raise WorkerDied("deferred")

    instance.on_defer = stop
    with pytest.raises(WorkerDied):
        instance.attempt()
    assert type(seen[0]) is OwnTrigger


def test_a_defer_of_a_subclass_is_called_as_with_the_provider(workspace):
    calls = []

    class Counts(ResumableDatabricksOperator):
        def defer(self, *, trigger, method_name, **kwargs):
            calls.append(method_name)
            super().defer(trigger=trigger, method_name=method_name, **kwargs)

    instance = TaskInstance(lambda: Counts(**ARGUMENTS, deferrable=True))
    instance.on_defer = lambda trigger: workspace.finish(list(workspace.runs)[-1])
    instance.attempt()
    assert calls == ["execute_complete"]


# -- users' own unit tests --------------------------------------------------------------------------------------------


def contexts():
    ti = mock.MagicMock()
    return {
        "{}": {},
        "None": None,
        "MagicMock": mock.MagicMock(),
        "ti": {"ti": mock.MagicMock()},
        "ti and run": {"ti": ti, "task_instance": ti, "dag_run": mock.MagicMock()},
        "ti of words, no run": {"ti": mock.MagicMock(dag_id="d", run_id="r", task_id="t", try_number=1, max_tries=0)},
    }


@pytest.mark.parametrize("name", contexts())
@pytest.mark.parametrize("base", [AthenaOperator, ResumableAthenaOperator], ids=lambda base: base.__name__)
def test_execute_works_with_the_contexts_of_unit_tests(athena, base, name, caplog):
    context = contexts()[name]
    for _ in range(2):
        assert base(task_id="task", **athena.arguments()).execute(context).startswith("query-")
    assert athena.jobs() == 2  # the second test does not find the first one's job
    if base is ResumableAthenaOperator:
        assert any("kept in memory for this call" in line for line in caplog.messages)


@pytest.mark.parametrize("name", contexts())
def test_a_custom_operator_gets_the_context_that_its_unit_test_gave(name):
    context, seen = contexts()[name], []

    class Train(ResumableMixin, BaseOperator):
        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            seen.append(context)
            return 7

        def get_job_status(self, external_id, context):
            seen.append(context)
            return "DONE"

        is_job_active = lambda self, status: False
        is_job_succeeded = lambda self, status: True

        def poll_until_complete(self, external_id, context):
            self.get_job_status(external_id, context)

        def get_job_result(self, external_id, context):
            return external_id

    operator = Train(task_id="task")
    assert [operator.execute(context), operator.execute(context)] == [7, 7]
    assert all(one is context for one in seen)


def test_a_failed_submit_in_a_unit_test_raises_what_the_provider_raises(athena):
    with mock.patch.object(AthenaOperator, "hook", new_callable=mock.PropertyMock) as hook:
        hook.return_value.run_query.side_effect = ValueError("mine")
        for base in (AthenaOperator, ResumableAthenaOperator):
            with pytest.raises(ValueError, match="mine"):
                base(task_id="task", **athena.arguments()).execute({})


@pytest.mark.parametrize("base", [AthenaOperator, ResumableAthenaOperator], ids=lambda base: base.__name__)
def test_a_mocked_client_is_no_provider_that_goes_another_way(athena, base):
    with mock.patch.object(AthenaOperator, "hook", new_callable=mock.PropertyMock) as hook:
        hook.return_value.run_query.return_value = "query-9"
        hook.return_value.get_session.return_value.client.return_value.get_caller_identity.return_value = {"Account": "1"}
        with pytest.raises(TaskDeferred):
            base(task_id="task", deferrable=True, **athena.arguments()).execute({})


def test_a_context_of_a_real_task_is_never_taken_for_a_unit_tests(monkeypatch):
    monkeypatch.setattr(host._three, "supervisor", lambda: object())
    broken = {"ti": mock.MagicMock()}
    if host.has_sdk():
        assert host.task_context(broken, None) is broken


# -- a provider that goes another way ---------------------------------------------------------------------------------


def newer_submit(self, context):
    self.run_id = self._hook._do_api_call(hooks.SUBMIT_RUN_ENDPOINT, self.json)["run_id"]
    return self.run_id


@pytest.fixture
def another_way(monkeypatch):
    monkeypatch.setattr(DatabricksSubmitRunOperator, "submit_job", newer_submit)


UNSEEN = r"databricks.*started by a way which.*does not cover.*A job may run: look for it in databricks"


@pytest.mark.parametrize("choices", [{}, {"resume_policy": {"wait": "reschedule"}}], ids=["poll", "reschedule"])
def test_a_submit_that_goes_another_way_ends_the_task_for_good_before_it_waits(workspace, another_way, choices):
    instance = TaskInstance(lambda: ResumableDatabricksOperator(**ARGUMENTS, **choices))
    with pytest.raises(AirflowFailException, match=UNSEEN):
        instance.attempt()
    assert len(workspace.runs) == 1


def test_a_submit_that_goes_another_way_ends_the_task_for_good_before_it_defers(workspace, monkeypatch):
    def execute(self, context):
        run_id = newer_submit(self, context)
        trigger = DatabricksExecutionTrigger(run_id=run_id, databricks_conn_id=self.databricks_conn_id)
        self.defer(trigger=trigger, method_name="execute_complete")

    monkeypatch.setattr(DatabricksSubmitRunOperator, "execute", execute)
    with pytest.raises(AirflowFailException, match=UNSEEN):
        TaskInstance(lambda: ResumableDatabricksOperator(**ARGUMENTS, deferrable=True)).attempt()


def test_a_submit_that_goes_another_way_and_is_not_waited_for_is_an_error_in_the_log(workspace, another_way, capsys):
    TaskInstance(lambda: ResumableDatabricksOperator(**ARGUMENTS, wait_for_termination=False)).attempt()
    assert re.search(f"error.*{UNSEEN}", capsys.readouterr().out)


def test_a_submit_that_goes_another_way_is_counted(workspace, another_way, monkeypatch):
    counted = []
    monkeypatch.setattr(host, "count", lambda event, operator: counted.append(event))
    with pytest.raises(AirflowFailException):
        TaskInstance(lambda: ResumableDatabricksOperator(**ARGUMENTS)).attempt()
    assert "unseen_submit" in counted


def test_a_result_that_is_there_already_stands(athena, monkeypatch, capsys):
    """The provider submits by another client: no event of ours is fired, and it has waited by itself."""
    monkeypatch.setattr(AthenaOperator, "execute", lambda self, context: "the result")
    assert TaskInstance(lambda: ResumableAthenaOperator(task_id="task", **athena.arguments())).attempt() == "the result"
    assert re.search("error.*athena.*does not cover.*A job may run", capsys.readouterr().out)


def test_a_look_at_an_aws_job_that_went_another_way_is_noticed(athena, monkeypatch):
    def execute(self, context):
        self.hook.conn.get_query_execution(QueryExecutionId="query-1")

    monkeypatch.setattr(AthenaOperator, "execute", execute)
    with pytest.raises(AirflowFailException, match="athena.*does not cover"):
        TaskInstance(lambda: ResumableAthenaOperator(task_id="task", **athena.arguments())).attempt()


class Farm:
    """Somebody's hook, which starts jobs by two ways."""

    def __init__(self):
        self.jobs = []

    def start(self, name, token=None):
        self.jobs.append(name)
        return len(self.jobs) - 1

    start_in_a_new_way = start

    def look(self, job):
        return "DONE"


class Render(BaseOperator):
    new = False

    def __init__(self, *, farm, **kwargs):
        super().__init__(**kwargs)
        self.hook = farm

    def execute(self, context):
        job = self.hook.start_in_a_new_way("film") if self.new else self.hook.start("film")
        return self.hook.look(job)


class RenderJob(HookCall):
    service, recovery, submit_method, look_methods = "farm", Recovery.REPEAT, "start", ("look",)

    def add_token(self, arguments, token):
        arguments["token"] = token

    def observe(self, handle: JobHandle):
        return Observation(JobState.SUCCEEDED, "DONE")

    def cancel(self, handle):
        """Nothing to stop."""


@durable_operator(RenderJob)
class ResumableRender(Render):
    pass


@pytest.mark.parametrize("new", [False, True])
def test_an_adapter_of_ones_own_notices_it_too(new):
    operator = type("Newer", (ResumableRender,), {"new": new})
    instance = TaskInstance(lambda: operator(task_id="task", farm=Farm()))
    if new:
        with pytest.raises(AirflowFailException, match="farm.*does not cover"):
            instance.attempt()
    else:
        assert instance.attempt() == "DONE"


# -- versions of the providers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", _extras.COVERED)
def test_the_extras_ask_for_the_versions_that_are_covered(extra):
    least, below = _extras.COVERED[extra]
    text = (Path(_extras.__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(rf"apache-airflow-providers-{extra}(\[\w+\])?>={re.escape(least)},<{below}\"", text)


@pytest.mark.parametrize(
    ("version", "is_covered"),
    [("7.20.0", True), ("7.23.0", True), ("7.99.1", True), ("8.0.0", False), ("8.0.0rc1", False), ("7.19.9", False), ("", True)],
)
def test_a_provider_that_is_not_covered_is_one_warning(monkeypatch, caplog, version, is_covered):
    import airflow.providers.databricks as provider

    _extras._check_version.cache_clear()
    monkeypatch.setattr(provider, "__version__", version)
    for _ in range(3):
        with _extras.provider_import("databricks"):
            pass
    _extras._check_version.cache_clear()
    lines = [line for line in caplog.messages if "is not covered" in line]
    assert len(lines) == (0 if is_covered else 1)
    assert all(f"apache-airflow-providers-databricks {version} is not covered (7.20.0 up to 8)" in line for line in lines)


def test_the_installed_providers_are_covered(caplog):
    for extra in _extras.COVERED:
        _extras._check_version.cache_clear()
        with contextlib.suppress(ImportError):
            _extras._check_version(extra)
    assert [line for line in caplog.messages if "is not covered" in line] == []


# -- a hook of its own ------------------------------------------------------------------------------------------------


def hook_anew(base, name):
    """A subclass whose hook is a plain property, as many are written: another object each time it is asked for."""
    theirs = inspect.getattr_static(base, name)
    return type("Own", (base,), {name: property(theirs.func)})


def hook_anew_by_a_mixin(base, name):
    theirs = inspect.getattr_static(base, name)
    mixin = type("OwnHook", (), {name: property(theirs.func)})
    return type("Own", (mixin, base), {})


def give_a_result_of_one_job(make, jobs):
    instance = TaskInstance(make)
    instance.attempt()
    instance.try_number += 1
    instance.attempt()
    assert jobs() == 1
    assert instance.record["job"]


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("own", [hook_anew, hook_anew_by_a_mixin])
def test_a_hook_that_is_made_anew_each_time_submits_through_us(workspace, athena, own, deferrable):
    workspace.duration = 0
    runs = own(ResumableDatabricksOperator, "_hook")
    give_a_result_of_one_job(lambda: runs(**ARGUMENTS, deferrable=deferrable), lambda: len(workspace.runs))
    query = {"task_id": "task", **athena.arguments(), "deferrable": deferrable}
    give_a_result_of_one_job(lambda: own(ResumableAthenaOperator, "hook")(**query), athena.jobs)


def test_without_durable_and_outside_of_a_start_an_own_hook_is_what_its_author_wrote():
    operator = hook_anew(ResumableDatabricksOperator, "_hook")(**ARGUMENTS)
    assert operator._hook is not operator._hook
    assert not [name for name in vars(operator) if name == "_hook"]


def test_a_hook_whose_client_is_another_each_time_is_refused_before_anything_is_submitted(athena):
    class Hook(ResumableAthenaOperator.aws_hook_class):
        @property
        def conn(self):
            return self.get_client_type()

    operator = type("Own", (ResumableAthenaOperator,), {"aws_hook_class": Hook})
    instance = TaskInstance(lambda: operator(task_id="task", **athena.arguments()))
    with pytest.raises(AirflowFailException, match="another client each time.*Nothing was submitted"):
        instance.attempt()
    assert athena.jobs() == 0
