"""``wait="defer"``: when a task defers, what rings it, and what it makes of that; its limits; who may wait so."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta, timezone

import pytest

from resumable import ConfigurationError, LostSightError, WaitLimitError, host
from resumable.errors import RecordError
from resumable.fleet import current_fleet
from resumable.fleet.trigger import JobTrigger
from resumable.host import config
from resumable.jobs.make_resumable import make_resumable
from resumable.operators.athena import ResumableAthenaOperator
from resumable.operators.batch import ResumableBatchOperator
from tests.support import custom
from tests.support.names import AirflowFailException, AirflowRescheduleException, AirflowTaskTimeout
from tests.support.runner import in_fleet
from tests.support.simulated_time import simulated

pytestmark = pytest.mark.usefixtures("no_waiting")

DEFER = {"wait": "defer"}
QUERY = {"task_id": "task", "query": "SELECT 1", "database": "d", "output_location": "s3://b/o"}


class Reached(custom.WithCancel):
    """As an author writes one for it: its client is found by what is kept, the name of a connection."""

    reach_fields = ("conn_id",)
    conn_id = "mine"
    service_now: custom.Service

    @property
    def client(self):
        return type(self).service_now

    @client.setter
    def client(self, service):
        type(self).service_now = service


@pytest.fixture
def service():
    made = custom.Service()
    Reached.service_now = made
    return made


def task(service, **given):
    policy = {**DEFER, **given.pop("policy", {})}
    instance = custom.task(Reached, service, resume_policy=policy, **given)
    instance.started = datetime.now(timezone.utc)
    return instance


def long_ago(instance, **since):
    instance.started = datetime.now(timezone.utc) - timedelta(**since)


# -- from begin to end ------------------------------------------------------------------------------------------------


def test_an_operator_of_ones_own_waits_in_the_fleet_and_delivers_its_result(service):
    instance = task(service)
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=service.finish)
    assert instance.attempt() == {"rows": 7, "of": 0}
    assert (len(service.tokens), service.cancelled, instance.record["state"]) == (1, [], "succeeded")


def test_an_operator_of_ones_own_whose_job_fails_fails_its_try(service):
    instance = task(service, retries=0)
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=lambda: service.finish("FAILED"))
    assert isinstance(instance.failing_attempt(), custom.JobFailedError)
    assert (len(service.tokens), instance.record["state"]) == (1, "failed")


def test_a_task_that_goes_on_with_a_job_defers_at_once_and_without_another_submit(service):
    instance = task(service)
    polled = custom.task(Reached, service)
    custom.die_in_the_wait(polled, service)
    instance.data, instance.try_number = polled.data, 2
    instance.record["submitted_at"] = (datetime.now(timezone.utc) - timedelta(hours=2)).isoformat()
    before = service.looks
    deferrals = []
    instance.on_defer = lambda trigger: deferrals.append((service.looks - before, trigger.submitted_at))
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=service.finish)
    instance.attempt()
    (looks, submitted_at) = deferrals[0]
    assert looks == 1
    assert abs(datetime.now(timezone.utc).timestamp() - 7200 - submitted_at) < 60
    assert len(service.tokens) == 1


def test_a_task_whose_record_cannot_be_written_does_not_leave_its_process(service):
    instance = task(service)
    looks = []
    instance.store_down = lambda verb: verb == "set" and bool(service.tokens) and len(looks) < 70

    def look(job_id):
        looks.append(job_id)
        return custom.Service.status(service, job_id)

    service.status = look
    deferrals = []
    instance.on_defer = lambda _: deferrals.append((len(looks), instance.record["job"]))
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=service.finish)
    instance.attempt(listener=None)
    assert deferrals[0][0] >= 70
    assert deferrals[0][1] == 0
    assert len(service.tokens) == 1


# -- what rings the alarm is not believed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ("execute", {"event": {"version": 1, "state": "succeeded", "detail": "DONE"}}),
        ("execute", {"event": {"version": 1, "state": "failed", "detail": "BROKEN"}}),
        ("execute", {"event": {"version": 1, "state": "gone", "detail": "no such job"}}),
        ("execute", {"event": {"version": 9, "state": "of next year", "detail": "", "more": 1}}),
        ("__fail__", {"error": "Trigger failure", "traceback": ["ImportError: no such operator"]}),
        ("__fail__", {"error": "Trigger failure", "traceback": None}),
    ],
    ids=str,
)
def test_a_false_alarm_fails_no_try_makes_no_job_and_does_not_go_round(service, answer):
    instance = task(service)
    rung = []

    def run_trigger(deferred):
        rung.append(deferred)
        assert len(rung) < 3, "round and round"
        return answer

    instance.run_trigger = run_trigger
    with pytest.raises(AirflowRescheduleException) as handed_back:
        instance.attempt()
    assert len(rung) == 1
    assert handed_back.value.reschedule_date > datetime.now(timezone.utc) + timedelta(seconds=50)
    assert (len(service.tokens), service.active, service.cancelled) == (1, [0], [])


def test_the_schedulers_time_out_is_a_look_after_which_the_task_defers_again(service):
    instance = task(service)
    rung = []

    def run_trigger(deferred):
        rung.append(deferred.timeout)
        if len(rung) == 3:
            service.finish()
        return "__fail__", {"error": "Trigger timeout"}

    instance.run_trigger = run_trigger
    instance.attempt()
    assert rung == [timedelta(hours=1)] * 3
    assert len(service.tokens) == 1


def test_a_job_that_nobody_has_seen_for_long_wakes_the_task_which_looks_itself(service, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__LOST_SIGHT_AFTER", "1800")
    instance = task(service)
    down = []

    def look(job_id):
        if down:
            raise ConnectionError("down")
        return custom.Service.status(service, job_id)

    service.status = look
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=lambda: down.append(1))
    with pytest.raises(LostSightError, match="Nothing was submitted") as lost:
        instance.attempt()
    assert str(lost.value.handle) in str(lost.value)
    assert (len(service.tokens), service.active) == (1, [0])
    down.clear()
    service.finish()
    instance.attempt()
    assert len(service.tokens) == 1


def test_a_service_that_is_down_for_half_an_hour_is_told_of_in_one_line_and_waited_out(service, caplog):
    caplog.set_level(logging.INFO)
    instance = task(service)
    looks = iter(range(10_000))

    def look(job_id):
        n = next(looks)
        if instance.is_deferred and n - instance.is_deferred < 40:
            raise ConnectionError("down")
        service.finish() if instance.is_deferred else None
        return custom.Service.status(service, job_id)

    instance.is_deferred = 0
    instance.on_defer = lambda _: setattr(instance, "is_deferred", next(looks))
    service.status = look
    instance.run_trigger = in_fleet
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobTrigger, "log", _Log(told), raising=False)
        instance.attempt()
    assert [line for line in told if "cannot be seen since" in line]
    assert len([line for line in told if "cannot be seen since" in line]) == 1
    assert len([line for line in told if "is seen again" in line]) == 1
    assert len(service.tokens) == 1


class _Log:
    def __init__(self, told):
        self.info = self.warning = lambda text, *args: told.append(text % args)


# -- limits -----------------------------------------------------------------------------------------------------------


def timeouts(instance):
    """What the task's deferrals are given, the first of which ends it."""
    found = []

    def run_trigger(deferred):
        found.append(deferred.timeout.total_seconds())
        raise Left

    instance.run_trigger = run_trigger
    with pytest.raises(Left):
        instance.attempt()
    return found[0]


class Left(Exception):
    pass


def test_a_deferral_ends_in_time_for_job_timeout_and_for_the_last_minute_of_execution_timeout(service):
    assert timeouts(task(service)) == 3600
    assert 500 < timeouts(task(service, policy={"job_timeout": 600})) <= 600
    instance = task(service, execution_timeout=timedelta(minutes=10))
    assert 530 < timeouts(instance) <= 540
    long_ago(instance := task(service, execution_timeout=timedelta(minutes=10)), minutes=5)
    assert 230 < timeouts(instance) <= 240


def test_execution_timeout_counts_from_the_first_start_of_the_try_and_its_last_minute_is_waited_in_the_task(service):
    instance = task(service, execution_timeout=timedelta(minutes=10))

    def run_trigger(deferred):
        long_ago(instance, minutes=9, seconds=58)
        return "__fail__", {"error": "Trigger timeout"}

    instance.run_trigger = run_trigger
    service.on_poll = lambda: None
    with pytest.raises(AirflowTaskTimeout, match="counted from the first start of this try"):
        instance.attempt()
    assert (service.cancelled, instance.record["state"]) == ([0], "cancelled")


def test_execution_timeout_leaves_the_job_where_the_policy_says_so(service):
    instance = task(service, execution_timeout=timedelta(minutes=10), policy={"on_timeout": "detach"})
    instance.run_trigger = lambda _: long_ago(instance, minutes=11) or ("__fail__", {"error": "Trigger timeout"})
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    assert (service.cancelled, service.active) == ([], [0])


def test_a_job_over_its_job_timeout_is_cancelled_by_the_look_that_the_time_out_brings(service):
    instance = task(service, policy={"job_timeout": 600})

    def run_trigger(deferred):
        instance.record["submitted_at"] = (datetime.now(timezone.utc) - timedelta(hours=2)).isoformat()
        return "__fail__", {"error": "Trigger timeout"}

    instance.run_trigger = run_trigger
    with pytest.raises(AirflowFailException, match="job_timeout"):
        instance.attempt()
    assert service.cancelled == [0]


# -- who may wait so --------------------------------------------------------------------------------------------------


def test_what_cannot_wait_so_is_an_error_that_names_the_other_way():
    for operator in (custom.WithCancel, make_resumable(Theirs)):
        with pytest.raises(ConfigurationError, match=r"no reach_fields.*Nothing was submitted.*wait='reschedule'"):
            operator(task_id="task", resume_policy=DEFER)

    class OfADagFile(custom.WithCancel):
        reach_fields = ("conn_id",)

    class LooksInItsOwnWay(Reached):
        def get_job_status(self, external_id, context):
            return "RUNNING"

    class ReturnsSomethingElse(Reached):
        def get_job_result(self, external_id, context):
            return "ours"

    for operator in (OfADagFile, LooksInItsOwnWay):
        with pytest.raises(ConfigurationError, match="no class that the triggerer can import"):
            operator(task_id="task", resume_policy=DEFER)
    ReturnsSomethingElse(task_id="task", resume_policy=DEFER)
    with pytest.raises(ConfigurationError, match="Choose one"):
        ResumableAthenaOperator(**QUERY, deferrable=True, resume_policy=DEFER)


class Theirs(custom.SixMethods, custom.BaseOperator):
    def execute_resumable(self, context):
        """Airflow's own."""


@pytest.fixture
def of_the_deployment(monkeypatch, caplog):
    config._settings._known.clear()
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__WAIT", "defer")
    return lambda: [line for line in caplog.messages if "airflow.cfg" in line]


def test_a_deployment_that_defers_lets_those_poll_that_cannot_and_says_so_once(of_the_deployment):
    assert [custom.WithCancel(task_id="task").resume_policy.wait.value for _ in range(3)] == ["poll"] * 3
    (line,) = of_the_deployment()
    assert "wait=defer is not followed by WithCancel" in line


def test_deferrable_of_the_author_keeps_the_providers_trigger_and_that_of_airflow_cfg_yields(of_the_deployment, monkeypatch):
    asked = ResumableAthenaOperator(**QUERY, deferrable=True)
    assert (asked.deferrable, asked.resume_policy.wait.value) == (True, "poll")
    asked = ResumableAthenaOperator(**QUERY, default_args={"deferrable": True})
    assert (asked.deferrable, asked.resume_policy.wait.value) == (True, "poll")
    plain = ResumableAthenaOperator(**QUERY)
    assert (plain.deferrable, plain.resume_policy.wait.value) == (False, "defer")
    default = type("ByDefault", (_DeferrableByDefault,), {})(task_id="task")
    assert (default.deferrable, default.resume_policy.wait.value) == (False, "defer")
    assert of_the_deployment() == []
    polls = ResumableAthenaOperator(**QUERY, resume_policy={"wait": "poll"})
    assert polls.resume_policy.wait.value == "poll"


class _Provider(custom.BaseOperator):
    def __init__(self, *, deferrable=True, **kwargs):
        super().__init__(**kwargs)
        self.deferrable = deferrable


class _DeferrableByDefault(custom.SixMethods, custom.ResumableMixin, _Provider):
    reach_fields = ("conn_id",)


def test_the_interval_is_the_authors_or_else_the_operators_own():
    def interval(operator):
        from types import SimpleNamespace

        from resumable.jobs import alarm

        ours = operator._resumable
        return alarm.interval_of(SimpleNamespace(task=ours, policy=ours.policy, operator=operator, service=ours.of.service))

    batch = {"task_id": "task", "job_name": "n", "job_queue": "q", "job_definition": "d"}
    assert interval(ResumableAthenaOperator(**QUERY, resume_policy=DEFER)) == 30
    assert interval(ResumableAthenaOperator(**QUERY, sleep_time=7, resume_policy=DEFER)) == 7
    assert interval(ResumableAthenaOperator(**QUERY, sleep_time=7, resume_policy={**DEFER, "wait_interval": 90})) == 90
    assert interval(ResumableBatchOperator(**batch, poll_interval=None, resume_policy=DEFER)) == 60


def test_a_limit_of_the_authors_ends_the_try_after_as_many_seconds_as_its_looks_take(service, monkeypatch):
    from resumable.jobs.limits import Limit
    from resumable.jobs.methods import OperatorMethods

    class Limited(Reached):
        def __init__(self, *, most=9, pause=1, **kwargs):
            super().__init__(**kwargs)
            self.most, self.pause = most, pause

    monkeypatch.setattr(OperatorMethods, "limits", (Limit("most", "pause"),))
    instance = custom.task(Limited, service, resume_policy=DEFER, most=20, pause=60)
    instance.started = datetime.now(timezone.utc)
    assert 1190 < timeouts(instance) <= 1200
    long_ago(instance, minutes=21)
    with pytest.raises(WaitLimitError, match="most is reached"):
        instance.attempt()
    assert (service.cancelled, len(service.active)) == ([], 1)


# -- the trigger ------------------------------------------------------------------------------------------------------

FIRST = {
    "job": {"service": "Reached", "ids": 0, "place": {}},
    "reach": {"operator": f"{__name__}:Reached", "conn_id": "mine"},
    "client": {},
    "submitted_at": 1_700_000_000.0,
    "interval": 30.0,
    "version": 1,
}
"""As the first release that had it has serialised it: it stays readable."""


def test_a_trigger_of_the_first_release_is_made_and_serialised_as_ever():
    trigger = JobTrigger(**FIRST)
    assert trigger.serialize() == ("resumable.fleet.trigger.JobTrigger", FIRST)
    assert json.loads(json.dumps(FIRST)) == FIRST
    assert str(trigger.handle) == "Reached 0" or "0" in str(trigger.handle)


def test_a_trigger_of_a_later_release_is_refused_in_words_and_one_with_more_arguments_is_not():
    assert JobTrigger(**FIRST, more="of next year").serialize()[1] == FIRST
    with pytest.raises(RecordError, match="newer airflow-resumable"):
        JobTrigger(**{**FIRST, "version": 2})._operator()
    with pytest.raises(RecordError, match="no operator of ours that the triggerer can import"):
        JobTrigger(**{**FIRST, "reach": {"operator": "os:system"}})._operator()


def test_many_triggers_of_one_loop_wait_in_real_threads_and_nothing_is_left_of_them(service):
    started = [service.start() for _ in range(20)]
    service.finish()

    async def wait():
        made = [
            JobTrigger(**{**FIRST, "job": {"service": "Reached", "ids": job, "place": {}}, "interval": 1.0}) for job in started
        ]
        events = await asyncio.wait_for(asyncio.gather(*(anext(one.watch()) for one in made)), 60)
        assert len(current_fleet()) == 0
        return [event.payload["state"] for event in events]

    assert asyncio.run(wait()) == ["succeeded"] * 20
    assert service.looks == 20


def test_what_is_secret_in_an_answer_is_not_in_the_event(service, monkeypatch):
    monkeypatch.setattr(host, "masked", lambda value: str(value).replace("hunter2", "***"))
    service.states[0] = ("FAILED hunter2", None)

    async def wait():
        return (await anext(JobTrigger(**{**FIRST, "interval": 1.0}).watch())).payload

    assert asyncio.run(wait())["detail"] == "FAILED ***"


def test_nothing_secret_of_the_client_is_given_to_the_trigger(service, monkeypatch):
    from resumable.jobs.methods import OperatorMethods

    monkeypatch.setattr(OperatorMethods, "more_of_client", lambda self: {"config": {"proxies": {"https": "http://u:hunter2@p"}}})
    monkeypatch.setattr(host, "holds_secret", lambda value: "hunter2" in str(value))
    instance = task(service)
    kept = []
    instance.on_defer = lambda trigger: kept.append(trigger.serialize()[1])
    instance.run_trigger = lambda deferred: in_fleet(deferred, during=service.finish)
    instance.attempt()
    assert kept[0]["client"] == {}


@pytest.mark.parametrize(
    ("name", "value", "of"),
    [
        ("fleet_share", "0.1", lambda fleet: fleet.budgets.allowed("emr:ListSteps").per_second == pytest.approx(1.0)),
        ("fleet_share", "2", lambda fleet: fleet.budgets.allowed("emr:ListSteps").per_second == pytest.approx(4.0)),
        ("fleet_rates", "emr:ListSteps=7/9", lambda fleet: fleet.budgets.allowed("emr:ListSteps").per_second == 7),
        ("fleet_rates", "nonsense", lambda fleet: fleet.budgets.allowed("emr:ListSteps").per_second == pytest.approx(4.0)),
        ("fleet_threads", "3", lambda fleet: fleet._settings.at_once == 3),
        ("fleet_threads", "-1", lambda fleet: fleet._settings.at_once == 8),
        ("lost_sight_after", "60", lambda fleet: fleet._settings.lost_after == 60),
        ("lost_sight_after", "soon", lambda fleet: fleet._settings.lost_after == 6 * 3600),
    ],
)
def test_the_fleet_is_as_airflow_cfg_wants_it_and_what_is_no_setting_is_not_followed(monkeypatch, name, value, of):
    monkeypatch.setenv(f"AIRFLOW__RESUMABLE__{name.upper()}", value)

    async def made():
        return current_fleet()

    with simulated() as loop:
        assert of(loop.run_until_complete(made()))
