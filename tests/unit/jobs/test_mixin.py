"""A custom operator on `ResumableMixin`: what it must write, what it may write, and what each buys."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import inspect
import itertools
import os
import re
import signal
import sys
from collections import namedtuple
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import requests
from airflow.providers.common.compat.sdk import ResumableJobMixin

from resumable import (
    ConfigurationError,
    JobGoneError,
    JobNotFound,
    LostSightError,
    NotSubmitted,
    ResumableMixin,
    ResumePolicy,
    host,
)
from resumable.jobs.record import Outcome
from resumable.jobs.remote import MAX_LOOKS
from resumable.operators.databricks import ResumableDatabricksOperator
from tests.services import DatabricksSimulator
from tests.support.custom import (
    JobFailedError,
    Plain,
    Service,
    SixMethods,
    WithCancel,
    WithOnKill,
    WithToken,
    die_in_the_wait,
    final,
    task,
    time_out,
)
from tests.support.names import (
    DAG,
    STOPPED,
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
)
from tests.support.runner import TaskInstance, WorkerDied
from tests.support.waits import real_sleep

pytestmark = pytest.mark.usefixtures("no_waiting_of_the_task")

AIRFLOWS_OWN = [ResumableJobMixin] if host.has_task_state() else []  # before 3.3 it is a stand-in that resumes nothing


@pytest.fixture
def service():
    return Service()


class Upstream(SixMethods, ResumableJobMixin, BaseOperator):
    pass


class WithFind(WithToken):
    settle_time = 0.0

    def find_job(self, token, context):
        return next((job_id for job_id, (_, of) in self.client.states.items() if of == token), None)


def die_in_doubt(instance, service, *, before=False):
    """Let the worker die with the intent written: with the job started and no answer, or with none started."""

    def die(*_):
        instance.effects.dead = True
        raise WorkerDied("in doubt")

    start = service.start
    if before:
        service.start = die
    else:
        service.on_submit = die
    with pytest.raises(WorkerDied):
        instance.attempt()
    service.start, service.on_submit, service.on_poll = start, lambda: None, service.finish


@pytest.mark.skipif(not host.has_task_state(), reason="Airflow's own mixin counts nothing there")
def test_decisions_are_counted_under_the_names_and_tags_of_airflows_own_mixin(service, monkeypatch):
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk.observability import stats

    counted = {}
    service.ids = itertools.count(1)  # to Airflow's, 0 is no id
    backend = SimpleNamespace(incr=lambda name, tags, **_: counted[base].append((name, tags)))
    stats.initialize(factory=lambda: backend, export_legacy_names=False)
    try:
        for base in (ResumableJobMixin, ResumableMixin):
            counted[base] = []
            operator = type("TrainOperator", (SixMethods, base, BaseOperator), {})
            instance = task(operator, service)
            die_in_the_wait(instance, service)
            die_in_the_wait(instance, service)
            service.finish("FAILED")
            if base is ResumableMixin:
                instance.failing_attempt()  # the failure is a try's, Airflow's own submits at once
            die_in_the_wait(instance, service)
            service.finish()
            instance.attempt()
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=False)
    ours, theirs = ([name.rpartition(".")[2] for name, _ in counted[base]] for base in (ResumableMixin, ResumableJobMixin))
    assert {tags["operator"] for base in counted for _, tags in counted[base]} == {"TrainOperator"}
    assert len(theirs) == 7
    seen_to_fail = theirs.index("terminal_resubmit")
    assert ours == [*theirs[:seen_to_fail], "reconnect_attempt", *theirs[seen_to_fail:]]


def test_a_second_job_in_one_execute_is_an_error_and_not_given_the_first_ones_result(service):
    class Twice(Plain):
        def execute(self, context):
            return [self.execute_resumable(context), self.execute_resumable(context)]

    service.on_poll = service.finish
    with pytest.raises(AirflowFailException, match="twice"):
        task(Twice, service).attempt()
    assert len(service.states) == 1


# -- one body, two bases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", [*AIRFLOWS_OWN, ResumableMixin])
def test_an_operator_of_airflows_own_mixin_runs_on_ours_and_gets_its_result_on_every_way(service, base):
    operator = type("TrainOperator", (SixMethods, base, BaseOperator), {})
    results = {}

    service.on_poll = service.finish
    results["fresh"] = task(operator, service).attempt()

    reattached = task(operator, service)
    die_in_the_wait(reattached, service)
    results["reattached"] = reattached.attempt()

    finished = task(operator, service)
    die_in_the_wait(finished, service)
    service.finish()
    results["finished meanwhile"] = finished.attempt()

    submits = len(service.tokens)
    rows = {way: result and result["rows"] for way, result in results.items()}
    if base is ResumableMixin:
        assert submits == 3
        assert rows == {"fresh": 7, "reattached": 7, "finished meanwhile": 7}
    else:
        assert submits == 3
        assert rows == {"fresh": 7, "reattached": None, "finished meanwhile": 7}  # the result of a reconnect is lost


def test_durable_false_is_plain_and_nothing_is_kept(service):
    service.on_poll = service.finish
    instance = task(Plain, service, durable=False)
    assert instance.attempt() == {"rows": 7, "of": 0}
    assert instance.data == {}
    assert instance.effects.done == []
    die_in_the_wait(instance, service)
    instance.attempt()
    assert len(service.tokens) == 3


def test_a_failed_job_is_followed_by_one_new_one_and_its_result(service):
    instance = task(Plain, service)
    die_in_the_wait(instance, service)
    service.finish("FAILED")
    assert isinstance(instance.failing_attempt(), JobFailedError)
    assert instance.record["state"] == "failed"
    assert instance.attempt()["of"] == 1


def test_the_operators_own_exception_for_a_failed_job_is_what_the_task_fails_with(service):
    service.on_poll = lambda: service.finish("FAILED")
    with pytest.raises(JobFailedError):
        task(Plain, service).attempt()


# -- ids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("external_id", [0, "0", 7, False, ["a"], {"a": 1}, "x" * 500], ids=str)
def test_any_json_value_that_is_not_empty_is_an_id_and_comes_back_as_it_was(external_id):
    seen = []

    class Operator(Plain):
        def submit_job(self, context):
            return external_id

        def get_job_status(self, external_id, context):
            seen.append(external_id)
            if len(seen) == 1:
                raise WorkerDied("in the wait")
            return "RUNNING" if len(seen) == 2 else "SUCCEEDED"

    instance = task(Operator, Service())
    with pytest.raises(WorkerDied):
        instance.attempt()
    assert instance.attempt()["of"] == external_id
    assert len(seen) == 3
    assert all(one == external_id and type(one) is type(external_id) for one in seen)


Ref = namedtuple("Ref", "cluster run")


@pytest.mark.parametrize(
    ("external_id", "kept"),
    [(Ref("c", 1), ["c", 1]), ((1, 2), [1, 2]), ({1: "a"}, {"1": "a"}), (Outcome.FAILED, "failed")],
    ids=["namedtuple", "tuple", "int key", "text enum"],
)
def test_the_first_attempt_has_the_id_as_a_later_one_will(external_id, kept):
    seen = []

    class Operator(Plain):
        def submit_job(self, context):
            return external_id

        def get_job_status(self, external_id, context):
            seen.append(external_id)
            return "SUCCEEDED"

    assert task(Operator, Service()).attempt()["of"] == kept
    assert [(type(one), one) for one in seen] == [(type(kept), kept)]


@pytest.mark.parametrize("external_id", [None, "", [], {}, ()], ids=repr)
@pytest.mark.parametrize("base", [Plain, WithToken, WithFind])
def test_an_empty_id_is_refused_with_an_error_that_says_what_to_do(service, external_id, base):
    class Operator(base):
        def submit_job(self, context):
            super().submit_job(context)
            return external_id

    instance = task(Operator, service)
    with pytest.raises(AirflowFailException) as caught:
        instance.attempt()
    for words in (repr(external_id), "is no id", "A job may be running", "Make submit_job return the job's id"):
        assert words in str(caught.value)
    assert service.looks == 0
    assert len(service.tokens) == 1
    assert instance.record["state"] == "submitting"


@pytest.mark.parametrize("external_id", [object(), {1, 2}, b"1", {"of": object()}], ids=lambda v: type(v).__name__)
def test_an_id_that_is_no_json_is_refused(service, external_id):
    operator = type("Operator", (Plain,), {"submit_job": lambda self, context: external_id})
    with pytest.raises(AirflowFailException, match="cannot be kept as JSON"):
        task(operator, service).attempt()


# -- a submit that raises, a submit in doubt ---------------------------------------------------------------------------


def failing(error):
    left = [error]

    def on_submit():
        if left:
            raise left.pop()

    return on_submit


@pytest.mark.parametrize("error", [NotSubmitted("no such cluster"), ConnectionRefusedError()], ids=repr)
def test_a_submit_that_the_service_refused_is_made_again_by_the_next_try(service, error):
    service.on_submit, service.on_poll = failing(error), service.finish
    instance = task(Plain, service)
    with pytest.raises(type(error)):
        instance.attempt()
    assert instance.record["state"] == "rejected"
    assert instance.attempt()["rows"] == 7
    assert len(service.tokens) == 2


@pytest.mark.parametrize("error", [TimeoutError("read"), ConnectionResetError(), OSError("broken pipe"), EOFError()], ids=repr)
def test_a_submit_whose_answer_may_be_lost_is_not_made_again_without_a_token(service, error):
    service.on_submit, service.on_poll = failing(error), service.finish
    instance = task(Plain, service)
    with pytest.raises(type(error)):
        instance.attempt()
    assert instance.record["state"] == "submitting"
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"no way to tell.*send self.idempotency_token.*or implement find_job"):
            instance.attempt()
    assert len(service.tokens) == 1


def test_a_lost_answer_that_the_operator_wrapped_in_its_own_exception_is_still_one(service):
    class Operator(Plain):
        def submit_job(self, context):
            try:
                return super().submit_job(context)
            except TimeoutError as e:
                raise RuntimeError("the service does not answer") from e

    service.on_submit = failing(TimeoutError())
    instance = task(Operator, service)
    with pytest.raises(RuntimeError):
        instance.attempt()
    assert instance.record["state"] == "submitting"


def defer_to(method_name):
    raise TaskDeferred(trigger=object(), method_name=method_name)


def handled(error, then):
    try:
        raise error
    except type(error):
        then()


NOT_YET = {
    "reschedule": lambda: raise_it(AirflowRescheduleException(datetime.now(timezone.utc))),
    "skip": lambda: raise_it(AirflowSkipException("no files today")),
    "deferral": lambda: defer_to("execute"),
}
PERHAPS = {
    "deferral for a job": lambda: defer_to("execute_complete"),
    "reschedule after a lost answer": lambda: handled(requests.ConnectionError("reset"), NOT_YET["reschedule"]),
    "fail": lambda: raise_it(AirflowFailException("bad")),
}


def raise_it(error):
    raise error


@pytest.mark.parametrize(("ends", "state"), [*((end, "rejected") for end in NOT_YET), *((end, "submitting") for end in PERHAPS)])
@pytest.mark.parametrize("base", [Plain, WithToken])
def test_a_submit_that_waits_for_something_or_has_nothing_to_do_leaves_no_doubt(service, base, ends, state):
    ways = iter([(NOT_YET | PERHAPS)[ends]])

    class Operator(base):
        def submit_job(self, context):
            next(ways, lambda: None)()
            return super().submit_job(context)

    instance = task(Operator, service)
    instance.run_trigger = lambda deferred: raise_it(WorkerDied("deferred"))
    with pytest.raises((AirflowException, WorkerDied)):
        instance.attempt()
    assert (instance.record["state"], service.states) == (state, {})
    service.on_poll = service.finish
    if state == "rejected":
        assert instance.attempt()["of"] == 0


def test_is_rejection_lets_an_operator_say_so_itself(service):
    operator = type("Operator", (Plain,), {"is_rejection": lambda self, error: "quota" in str(error)})
    service.on_submit, service.on_poll = failing(TimeoutError("quota")), service.finish
    instance = task(operator, service)
    with pytest.raises(TimeoutError):
        instance.attempt()
    instance.attempt()
    assert len(service.tokens) == 2


def test_a_clear_lets_a_submit_in_doubt_be_made_again(service):
    instance = task(Plain, service)
    die_in_doubt(instance, service)
    with pytest.raises(AirflowFailException, match="then clear the task"):
        instance.attempt()
    instance.clear()
    assert instance.attempt()["rows"] == 7
    assert len(service.tokens) == 2


@pytest.mark.parametrize("before", [True, False], ids=["not-started", "started"])
def test_with_the_token_a_submit_in_doubt_goes_out_again_under_the_same_one(service, before):
    instance = task(WithToken, service)
    die_in_doubt(instance, service, before=before)
    assert instance.attempt()["rows"] == 7
    assert len(service.states) == 1
    assert len(set(service.tokens)) == 1
    assert len(service.tokens) == (1 if before else 2)


@pytest.mark.parametrize("before", [True, False], ids=["absent", "found"])
def test_with_find_job_a_submit_in_doubt_is_looked_up_first(service, before):
    instance = task(WithFind, service)
    die_in_doubt(instance, service, before=before)
    assert instance.attempt()["rows"] == 7
    assert len(service.tokens) == len(service.states) == 1


def test_with_find_job_a_lost_answer_is_cleared_up_in_the_same_attempt(service):
    service.on_submit, service.on_poll = failing(ConnectionResetError()), service.finish
    assert task(WithFind, service).attempt()["rows"] == 7
    assert len(service.tokens) == 1


def test_a_find_job_that_raises_leaves_the_doubt_to_the_next_try(service):
    class Operator(WithFind):
        down = True

        def find_job(self, token, context):
            if Operator.down:
                raise ConnectionError("throttled")
            return super().find_job(token, context)

    instance = task(Operator, service)
    die_in_doubt(instance, service)
    with pytest.raises(LostSightError, match="Nothing was submitted; a job may be running"):
        instance.attempt()
    Operator.down = False
    instance.attempt()
    assert len(service.tokens) == 1


@pytest.mark.parametrize("operator", [WithToken, WithFind])
def test_the_token_is_the_same_on_every_try_and_another_after_a_failed_job(service, operator):
    instance = task(operator, service)
    die_in_the_wait(instance, service)
    service.finish("FAILED")
    instance.failing_attempt()
    die_in_the_wait(instance, service)
    first, second = service.tokens
    assert first != second
    assert all(len(token) == 48 and set(token) <= set("0123456789abcdef") for token in service.tokens)


def test_a_token_used_in_a_helper_of_submit_job_is_seen():
    class Operator(Plain):
        def submit_job(self, context):
            return self._start()

        def _start(self):
            return next(self.client.start(token) for token in [self.idempotency_token])

    service = Service()
    instance = task(Operator, service)
    die_in_doubt(instance, service)
    assert instance.attempt()["rows"] == 7
    assert len(service.states) == 1


def test_submit_is_idempotent_false_is_believed_though_the_token_is_used(service):
    operator = type("Operator", (WithToken,), {"submit_is_idempotent": False})
    instance = task(operator, service)
    die_in_doubt(instance, service)
    with pytest.raises(AirflowFailException, match="no way to tell"):
        instance.attempt()


# -- idempotency_token outside of submit_job ---------------------------------------------------------------------------


def test_the_token_outside_of_an_attempt_is_an_error():
    with pytest.raises(RuntimeError, match="while submit_job runs"):
        _ = Plain(task_id="task").idempotency_token


def test_an_operator_that_sends_its_token_runs_without_durable_too_with_another_token_each_time(service):
    service.on_poll = service.finish
    instance = task(WithToken, service, durable=False)
    assert [instance.attempt()["of"], instance.attempt()["of"]] == [0, 1]
    assert len(set(service.tokens)) == 2
    assert all(re.fullmatch("[0-9a-f]{48}", token) for token in service.tokens)
    assert instance.data == {}


def test_two_operators_that_send_their_token_run_by_hand_within_another_task_as_they_would_without_ours(service):
    class Both(BaseOperator):
        def execute(self, context):
            return [self.inner(name).execute(context)["of"] for name in ("load", "publish")]

        def inner(self, name):
            made = WithToken(task_id=name)
            made.client = service
            return made

    service.on_poll = service.finish
    assert TaskInstance(lambda: Both(task_id="task")).attempt() == [0, 1]
    assert len(set(service.tokens)) == 2


@pytest.mark.parametrize("method", ["poll_until_complete", "get_job_result", "get_job_status"])
def test_the_token_in_another_method_is_an_error_on_a_reattachment(service, method):
    operator = type("Operator", (Plain,), {})
    instance = task(operator, service)
    die_in_the_wait(instance, service)
    setattr(operator, method, lambda self, external_id, context: self.idempotency_token)
    with pytest.raises((RuntimeError, LostSightError), match="while submit_job runs"):
        instance.attempt()


@pytest.mark.parametrize("method", ["poll_until_complete", "get_job_result"])
def test_the_token_in_another_method_is_an_error_on_the_first_run_already(service, method):
    operator = type("Operator", (Plain,), {method: lambda self, external_id, context: self.idempotency_token})
    service.on_submit = service.finish
    with pytest.raises(RuntimeError, match="while submit_job runs"):
        task(operator, service).attempt()


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["on_clear", "on_change"])
def test_without_cancel_job_a_restart_is_refused_with_what_to_do(service, policy):
    operator = type("Operator", (Plain,), {"template_fields": ("sql",), "sql": "select 1"})
    instance = task(operator, service)
    instance.is_all_written = True
    die_in_the_wait(instance, service)
    if policy == "on_clear":
        instance.clear()
    else:
        operator.sql = "select 2"
    words = rf"{policy}=restart.*has no cancel_job. Nothing was submitted, the job runs on. Stop it in the service"
    with pytest.raises(AirflowFailException, match=words):
        instance.attempt()
    assert (len(service.tokens), service.active) == (1, [0])


def test_with_cancel_job_a_clear_cancels_the_job_before_the_next_is_submitted(service):
    instance = task(WithCancel, service)
    die_in_the_wait(instance, service)
    instance.clear()
    service.on_submit = lambda: None if len(service.active) == 1 else pytest.fail("two jobs at once")
    assert instance.attempt()["of"] == 1
    assert service.cancelled == [0]


def test_a_status_that_is_neither_active_nor_succeeded_has_failed_by_default(service):
    instance = task(Plain, service)
    die_in_the_wait(instance, service)
    service.finish("A_STATE_OF_NEXT_YEAR")
    instance.failing_attempt()
    assert instance.attempt()["of"] == 1


def test_a_status_that_is_job_failed_does_not_know_is_never_a_reason_to_submit(service):
    operator = type("Operator", (Plain,), {"is_job_failed": lambda self, status: status == "FAILED"})
    instance = task(operator, service)
    die_in_the_wait(instance, service)
    service.finish("A_STATE_OF_NEXT_YEAR")
    with pytest.raises(LostSightError, match="A_STATE_OF_NEXT_YEAR.*Nothing was submitted"):
        instance.attempt()
    service.states[0] = ("FAILED", None)
    instance.failing_attempt()
    assert instance.attempt()["of"] == 1


@pytest.mark.parametrize("nothing", [None, "", "  ", {}, []], ids=repr)
@pytest.mark.parametrize("wait", ["poll", "reschedule"])
def test_an_empty_status_says_nothing_of_the_job_and_is_never_a_reason_to_submit(service, nothing, wait):
    instance = task(Plain, service, resume_policy={"wait": wait})
    die_in_the_wait(instance, service) if wait == "poll" else instance.failing_attempt()
    service.states[0] = (nothing, None)
    with pytest.raises(LostSightError, match="Nothing was submitted"):
        instance.attempt()
    service.states[0] = ("FAILED", None)
    instance.failing_attempt()
    assert len(service.tokens) == 1


def test_an_operator_that_takes_an_empty_status_for_a_failure_says_so_by_is_job_failed(service):
    operator = type("Operator", (Plain,), {"is_job_failed": lambda self, status: status is None})
    instance = task(operator, service)
    die_in_the_wait(instance, service)
    service.states[0] = (None, None)
    assert isinstance(instance.failing_attempt(), JobFailedError)


def test_a_status_that_cannot_be_had_is_never_a_reason_to_submit(service):
    instance = task(Plain, service)
    die_in_the_wait(instance, service)

    def down(job_id):
        raise ConnectionError("down")

    service.status = down
    with pytest.raises(LostSightError, match="Nothing was submitted"):
        instance.attempt()
    assert len(service.tokens) == 1


@pytest.mark.parametrize(("policy", "submits"), [("resubmit", 2), ("fail", 1)])
def test_job_not_found_follows_on_missing(service, policy, submits):
    instance = task(Plain, service, resume_policy={"on_missing": policy})
    die_in_the_wait(instance, service)
    service.states.clear()
    if policy == "fail":
        with pytest.raises(AirflowFailException, match="no longer knows the job.*on_missing=fail"):
            instance.attempt()
    else:
        assert isinstance(instance.failing_attempt(), JobGoneError)
        instance.attempt()
    assert len(service.tokens) == submits


def test_one_answer_in_the_wait_that_the_job_is_not_there_fails_no_try(service):
    instance = task(Plain, service, retries=0)
    lies = [JobNotFound("404 of a proxy")]

    def lie():
        service.on_poll = service.finish
        raise lies.pop()

    service.on_poll = lie
    assert instance.attempt()["of"] == 0
    assert (len(service.tokens), instance.try_number, lies) == (1, 1, [])


class DoesNotWait(WithCancel):
    def poll_until_complete(self, external_id, context):
        """As with ``wait=False`` of the author's own."""


class LooksOnce(WithCancel):
    def poll_until_complete(self, external_id, context):
        self.get_job_status(external_id, context)


@pytest.mark.parametrize("operator", [DoesNotWait, LooksOnce])
def test_a_job_that_is_not_waited_for_is_left_running_and_a_clear_stops_it_first(service, operator):
    instance = task(operator, service)
    assert instance.attempt()["of"] == 0
    assert (instance.record["state"], instance.record["left"]) == ("submitted", "the task does not wait for it")
    instance.clear()
    assert instance.attempt()["of"] == 1
    assert (service.active, service.cancelled) == ([1], [0])


@pytest.mark.parametrize("operator", [DoesNotWait, LooksOnce])
def test_a_job_whose_end_is_seen_elsewhere_has_succeeded(service, operator):
    instance = task(operator, service)
    service.on_submit = service.finish
    instance.attempt()
    assert (instance.record["state"], instance.record.get("left")) == ("succeeded", None)


# -- arguments ---------------------------------------------------------------------------------------------------------

METHODS = ["submit_job", "get_job_status", "is_job_active", "is_job_succeeded", "poll_until_complete", "get_job_result"]


def lacking(base, method):
    body = {name: value for name, value in vars(SixMethods).items() if name not in (method, "__dict__", "__weakref__")}
    return type("Operator", (base, BaseOperator), body)


@pytest.mark.parametrize("base", [*filter(inspect.isabstract, AIRFLOWS_OWN), ResumableMixin])  # 3.3.0's is not abstract
@pytest.mark.parametrize("method", METHODS)
def test_an_operator_that_lacks_a_method_fails_when_the_dag_is_parsed(base, method):
    with DAG("dag", schedule=None), pytest.raises(TypeError, match=rf"abstract.*{method}"):
        lacking(base, method)(task_id="task")


async def of_a_coroutine(self, *_):
    """Nobody awaits it: a wait that is never begun has ended at once."""


@pytest.mark.parametrize("method", [*METHODS, "cancel_job", "find_job", "is_job_failed", "is_rejection", "is_wait_trouble"])
def test_a_method_that_nobody_would_await_is_an_error_when_the_dag_is_parsed(method):
    with pytest.raises(ConfigurationError, match=rf"{method} is async, and nothing would await it.*plain method"):
        type("Operator", (Plain,), {method: of_a_coroutine})(task_id="task")


@pytest.mark.parametrize(
    ("setting", "given"),
    [
        ("spec_fields", "spec"),
        ("spec_fields", 5),
        ("reach_fields", "conn_id"),
        ("reach_fields", {"a": 1}),
        ("reach_fields", (1,)),
        ("submit_is_idempotent", "yes"),
    ],
)
def test_a_setting_of_another_type_is_an_error_when_the_dag_is_parsed(setting, given):
    with pytest.raises(ConfigurationError, match=rf"Operator: {setting}={re.escape(repr(given))} is .*Nothing was submitted"):
        type("Operator", (WithCancel,), {setting: given})(task_id="task")


def test_the_mixin_behind_base_operator_is_an_error_when_its_class_is_made():
    with pytest.raises(ConfigurationError, match=r"Write it first: class Operator\(ResumableMixin, BaseOperator\)"):
        type("Operator", (SixMethods, BaseOperator, ResumableMixin), {})


@pytest.mark.parametrize("policy", [{"on_clear": "reattach"}, ResumePolicy(on_clear="reattach")], ids=["dict", "object"])
def test_both_arguments_work_through_default_args(policy):
    with DAG("dag", schedule=None, default_args={"durable": False, "resume_policy": policy}):
        given = Plain(task_id="given")
        own = Plain(task_id="own", durable=True, resume_policy={"on_clear": "restart"})
    assert (given.durable, given.resume_policy.on_clear) == (False, "reattach")
    assert (own.durable, own.resume_policy.on_clear) == (True, "restart")


@pytest.mark.parametrize("operator", [Plain, ResumableDatabricksOperator])
@pytest.mark.parametrize(
    "arguments", [{"resume_policy": {"wait": "nope"}}, {"resume_policy": "reattach"}, {"durable": "yes"}], ids=str
)
def test_a_wrong_argument_of_a_mapped_task_fails_when_the_dag_is_parsed(operator, arguments):
    with DAG("dag", schedule=None), pytest.raises(ConfigurationError, match="Nothing was submitted"):
        operator.partial(task_id="task", **arguments)


def test_both_arguments_reach_an_operator_with_an_init_of_its_own():
    class Strict(SixMethods, ResumableMixin, BaseOperator):
        def __init__(self, *, spec, **kwargs):
            super().__init__(**kwargs)
            self.spec = spec

    with DAG("dag", schedule=None, default_args={"durable": False, "resume_policy": {"on_failed": "fail"}}):
        operator = Strict(task_id="task", spec="s")
    assert (operator.durable, operator.resume_policy.on_failed) == (False, "fail")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"durable": "yes"}, "durable='yes'"), ({"resume_policy": {"on_clear": "never"}}, "'restart', 'reattach'")],
)
def test_a_wrong_default_arg_fails_when_the_dag_is_parsed(arguments, words):
    with DAG("dag", schedule=None, default_args=arguments), pytest.raises(ConfigurationError, match=words):
        Plain(task_id="task")


# -- a stop ------------------------------------------------------------------------------------------------------------


def stop_in_the_wait(instance, service, state):
    """SIGTERM in the wait, with Airflow's state of the task as given; what Airflow's task runner does of it."""
    sent = []

    def send():
        if not sent:
            sent.append(state)
            os.kill(os.getpid(), signal.SIGTERM)
        real_sleep(0.01)

    instance.state = state
    service.on_poll = send
    before = signal.signal(signal.SIGTERM, lambda signum, frame: instance.made[-1].on_kill())
    try:
        with contextlib.suppress(*STOPPED):
            instance.attempt()
    finally:
        signal.signal(signal.SIGTERM, before)
        instance.state = "running"
        service.on_poll = service.finish
    assert sent


class OnKillAbove(WithOnKill):
    def on_kill(self):
        self.log.info("going")
        super().on_kill()


class OnKillBeside(WithCancel):
    def on_kill(self):
        self.log.info("going")
        super().on_kill()


@pytest.mark.parametrize("operator", [WithOnKill, WithCancel, OnKillAbove, OnKillBeside])
@pytest.mark.parametrize("state", ["failed", "success", "restarting"])
def test_a_users_stop_calls_the_operators_own_on_kill_or_cancel_job(service, operator, state):
    instance = task(operator, service)
    stop_in_the_wait(instance, service, state)
    assert (service.cancelled, service.active) == ([0], [])
    assert instance.record["state"] == "cancelled"


@pytest.mark.parametrize("operator", [WithOnKill, WithCancel, OnKillAbove, OnKillBeside])
@pytest.mark.parametrize("state", ["running", "up_for_retry", None])
def test_an_eviction_calls_neither_the_operators_own_on_kill_nor_cancel_job(service, operator, state):
    instance = task(operator, service)
    stop_in_the_wait(instance, service, state)
    assert (service.cancelled, service.active) == ([], [0])
    assert instance.attempt()["of"] == 0
    assert len(service.tokens) == 1


@pytest.mark.parametrize("state", ["failed", "restarting"])
def test_a_job_that_on_kill_did_not_cancel_is_not_noted_as_cancelled(service, state):
    instance = task(WithOnKill, service)
    die_in_the_wait(instance, service)
    stop_in_the_wait(instance, service, state)  # this attempt has reattached: submit_job did not run, job_id is None
    assert service.active == [] or instance.record["state"] == "submitted"
    instance.clear()
    with contextlib.suppress(AirflowFailException):  # the restart is refused, for want of cancel_job
        instance.attempt()
    assert len(service.states) == 1 or service.states[0][0] != "RUNNING"


def test_an_on_kill_that_extends_the_one_of_a_ready_made_operator_still_cancels_the_run(monkeypatch):
    class Mine(ResumableDatabricksOperator):
        def on_kill(self):
            self.log.info("going")
            super().on_kill()

    with DatabricksSimulator() as workspace:
        monkeypatch.setenv("AIRFLOW_CONN_DATABRICKS_DEFAULT", workspace.connection_json())
        made = []
        given = {"task_id": "task", "json": {"notebook_task": {}}, "polling_period_seconds": 1}
        instance = TaskInstance(lambda: made.append(Mine(**given)) or made[-1])
        instance.state = "failed"
        sent = []

        def listen(effect):
            if effect.endswith("runs/get") and not sent:
                sent.append(effect)
                os.kill(os.getpid(), signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, lambda signum, frame: made[-1].on_kill())
        try:
            with contextlib.suppress(*STOPPED):
                instance.attempt(listener=listen)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert sent
        assert workspace.active() == []


@pytest.mark.parametrize("operator", [WithOnKill])
def test_with_durable_false_on_kill_is_the_operators_own(service, operator):
    instance = task(operator, service, durable=False)

    def kill():
        instance.made[-1].on_kill()

    service.on_poll = kill
    with pytest.raises(JobFailedError):
        instance.attempt()
    assert service.cancelled == [0]


# -- trouble while waiting ---------------------------------------------------------------------------------------------


def unseen(service, looks):
    """From now on the service does not tell a job's status, as often as that."""
    status, left = service.status, [looks]

    def refuse(job_id):
        left[0] -= 1
        if left[0] < 0:
            return status(job_id)
        raise ConnectionError("credentials have expired")

    service.status = refuse


def test_a_wait_that_cannot_see_its_job_for_half_an_hour_goes_on_where_it_can_again(service):
    service.on_poll = lambda: unseen(service, MAX_LOOKS - 1) or setattr(service, "on_poll", service.finish)
    instance = task(WithCancel, service)
    assert instance.attempt()["of"] == 0
    assert len(service.tokens) == 1


@pytest.mark.parametrize("retries", [0, 3])
def test_a_wait_that_has_lost_sight_of_its_job_for_good_says_so_and_leaves_it_running(service, retries):
    service.on_poll = lambda: unseen(service, 10**6)
    instance = task(WithCancel, service, retries=retries)
    with pytest.raises(LostSightError, match="neither for failed nor for ended"):
        instance.attempt()
    assert (service.cancelled, service.active, len(service.tokens)) == ([], [0], 1)


# -- execution_timeout, the last try -----------------------------------------------------------------------------------


class WithOnKillOnly(WithOnKill):
    """No cancel_job: on_kill is all that can stop the job."""


@pytest.mark.parametrize(
    "operator",
    [
        WithCancel,
        pytest.param(WithOnKillOnly),
    ],
)
def test_execution_timeout_cancels_the_job_by_default(service, operator):
    instance = task(operator, service)
    service.on_poll = time_out
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    instance.made[-1].on_kill()  # as Airflow does after the exception
    assert (service.cancelled, service.active) == ([0], [])
    service.on_poll = service.finish
    assert instance.attempt()["of"] == 1


def test_execution_timeout_with_detach_leaves_the_job_to_the_next_try(service):
    instance = task(WithCancel, service, resume_policy={"on_timeout": "detach"})
    service.on_poll = time_out
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    instance.made[-1].on_kill()
    assert (service.cancelled, service.active) == ([], [0])
    service.on_poll = service.finish
    assert instance.attempt()["of"] == 0


def test_execution_timeout_without_a_way_to_cancel_leaves_the_job_to_the_next_try(service):
    instance = task(Plain, service)
    service.on_poll = time_out
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    service.on_poll = service.finish
    assert instance.attempt()["of"] == 0
    assert len(service.tokens) == 1


@pytest.mark.parametrize(("policy", "cancelled"), [("leave", []), ("cancel", [0])])
def test_a_last_try_that_fails_while_the_job_is_active_follows_on_final_failure(service, policy, cancelled):
    instance = task(WithCancel, service, retries=0, resume_policy={"on_final_failure": policy})
    instance.try_number = 1
    service.on_poll = final
    with pytest.raises(AirflowFailException, match="tired"):
        instance.attempt()
    assert service.cancelled == cancelled


def test_on_final_failure_cancel_uses_on_kill_where_there_is_no_cancel_job(service):
    instance = task(WithOnKillOnly, service, retries=0, resume_policy={"on_final_failure": "cancel"})
    service.on_poll = final
    with pytest.raises(AirflowFailException, match="tired"):
        instance.attempt()
    assert service.cancelled == [0]


def bug():
    raise LookupError("a bug in the wait")


@pytest.mark.parametrize(("policy", "cancelled"), [("leave", []), ("cancel", [0])])
def test_a_wait_that_keeps_failing_fails_the_last_try_and_follows_on_final_failure(service, policy, cancelled):
    instance = task(WithCancel, service, retries=0, resume_policy={"on_final_failure": policy})
    service.on_poll = bug
    with pytest.raises(LookupError):
        instance.attempt()
    assert service.cancelled == cancelled
    assert len(service.tokens) == 1


def test_a_try_that_is_not_the_last_cancels_nothing_whatever_on_final_failure_says(service):
    instance = task(WithCancel, service, retries=1, resume_policy={"on_final_failure": "cancel"})
    service.on_poll = bug
    with pytest.raises(LookupError):
        instance.attempt()
    if service.cancelled:
        pytest.fail("the job was cancelled although a try is left")
    assert "left" not in instance.record
    service.on_poll = service.finish
    assert instance.attempt()["of"] == 0


@pytest.mark.parametrize(("policy", "cancelled"), [("leave", []), ("cancel", [0])])
def test_an_error_that_wants_no_other_try_is_a_final_failure_whatever_tries_are_left(service, policy, cancelled):
    instance = task(WithCancel, service, retries=3, resume_policy={"on_final_failure": policy})
    service.on_poll = final
    with pytest.raises(AirflowFailException, match="tired"):
        instance.attempt()
    assert service.cancelled == cancelled
    assert instance.record.get("left") == (None if cancelled else "on_final_failure=leave")


# -- a retry policy of Airflow 3.3 -------------------------------------------------------------------------------------


def fails_on(error):
    """A task's ``retry_policy`` by which ``error`` ends the task, whatever tries are left."""
    policies = pytest.importorskip("airflow.sdk.definitions.retry_policy")
    rule = policies.RetryRule(exception=error, action=policies.RetryAction.FAIL)
    return policies.ExceptionRetryPolicy(rules=[rule])


@pytest.mark.parametrize(("policy", "cancelled"), [("leave", []), ("cancel", [0])])
def test_an_error_that_the_retry_policy_makes_final_is_a_final_failure_whatever_tries_are_left(service, policy, cancelled):
    how = {"retry_policy": fails_on(LookupError), "resume_policy": {"on_final_failure": policy}}
    instance = task(WithCancel, service, retries=3, **how)
    service.on_poll = bug
    with pytest.raises(LookupError):
        instance.attempt()
    assert service.cancelled == cancelled
    assert instance.record.get("left") == (None if cancelled else "on_final_failure=leave")


def test_an_execution_timeout_that_the_retry_policy_makes_final_is_noted_as_the_end_of_the_task(service):
    how = {"retry_policy": fails_on(AirflowTaskTimeout), "resume_policy": {"on_timeout": "detach"}}
    instance = task(WithCancel, service, retries=3, **how)
    service.on_poll = time_out
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    assert (service.cancelled, instance.record["left"]) == ([], "on_timeout=detach")


def reschedules(error, **limits):
    """A task's ``retry_policy`` by which the try that fails with ``error`` runs again (3.4)."""
    policies = pytest.importorskip("airflow.sdk.definitions.retry_policy")
    if not hasattr(policies.RetryAction, "RESCHEDULE"):
        pytest.skip("this Airflow's policies reschedule nothing")
    rule = policies.RetryRule(exception=error, action=policies.RetryAction.RESCHEDULE, **limits)
    return policies.ExceptionRetryPolicy(rules=[rule])


@pytest.mark.parametrize("policy", ["leave", "cancel"])
def test_a_last_try_that_the_retry_policy_runs_again_is_not_the_last(service, policy):
    how = {"retry_policy": reschedules(LookupError, max_reschedules=3), "resume_policy": {"on_final_failure": policy}}
    instance = task(WithCancel, service, retries=0, **how)
    service.on_poll = bug
    with pytest.raises(LookupError):
        instance.attempt()
    assert (service.cancelled, "left" in instance.record) == ([], False)
    instance.try_number = 1  # uses up none
    service.on_poll = service.finish
    assert instance.attempt()["of"] == 0


def test_a_retry_policy_that_has_rescheduled_as_often_as_it_may_makes_the_last_try_the_last():
    policy = reschedules(LookupError, max_reschedules=3)
    ti = SimpleNamespace(try_number=1, max_tries=0, get_first_reschedule_date=lambda context: None)
    context = {"ti": ti, "task": SimpleNamespace(retry_policy=policy), "task_reschedule_count": 2}
    assert not host.is_last_try(context, LookupError())
    assert host.is_last_try({**context, "task_reschedule_count": 3}, LookupError())


def test_a_retry_policy_that_has_rescheduled_for_as_long_as_it_may_makes_the_last_try_the_last():
    policy = reschedules(LookupError, max_reschedules=None, reschedule_timeout=timedelta(hours=1))
    for hours, is_last in ((0.5, False), (2, True)):
        since = datetime.now(timezone.utc) - timedelta(hours=hours)
        ti = SimpleNamespace(try_number=1, max_tries=0, get_first_reschedule_date=lambda context, since=since: since)
        context = {"ti": ti, "task": SimpleNamespace(retry_policy=policy), "task_reschedule_count": 9}
        assert host.is_last_try(context, LookupError()) is is_last


def test_a_job_that_failed_in_a_try_that_the_retry_policy_runs_again_is_followed_by_one_other(service):
    """Jobs of a generation are as many as its tries and those reschedules."""
    instance = task(WithCancel, service, retries=0, retry_policy=reschedules(JobFailedError, max_reschedules=1))
    service.on_poll = lambda: service.finish("FAILED")
    for _ in range(2):
        with pytest.raises(JobFailedError):
            instance.attempt()
        instance.try_number = 1
    assert len(service.tokens) == 2


class Broken:
    """A retry policy that fails itself, as one that asks a service may: Airflow then counts tries."""

    def evaluate(self, **_):
        raise ConnectionError("no answer")


@pytest.mark.parametrize("policy", [None, Broken()])
def test_a_retry_policy_that_says_nothing_leaves_the_tries_to_be_counted(policy):
    context = {"ti": SimpleNamespace(try_number=1, max_tries=3), "task": SimpleNamespace(retry_policy=policy)}
    assert not host.is_last_try(context, LookupError())
    assert host.is_last_try({**context, "ti": SimpleNamespace(try_number=4, max_tries=3)}, LookupError())


# -- a task that ends while its job runs: the record says why ----------------------------------------------------------


def exits():
    sys.exit(1)


def out_of_memory():
    raise MemoryError


def loses_sight(service):
    unseen(service, 10**6)


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize(("end", "left"), [(exits, "SystemExit"), (out_of_memory, "on_final_failure=leave")])
def test_whatever_ends_the_task_the_record_says_why_its_job_runs_on(service, end, left, retries):
    instance = task(WithCancel, service, retries=retries)
    service.on_poll = end
    with pytest.raises((SystemExit, MemoryError)):
        instance.attempt()
    assert (service.active, service.cancelled) == ([0], [])
    assert (left in instance.record.get("left", "")) is (retries == 0)


def test_a_last_try_that_cannot_see_its_job_when_it_starts_notes_that_it_leaves_it(service):
    instance = task(WithCancel, service, retries=1)
    die_in_the_wait(instance, service)
    loses_sight(service)
    with pytest.raises(LostSightError):
        instance.attempt()
    assert instance.record["left"] == "LostSightError, on_final_failure=leave"


class Nameless(SixMethods, ResumableMixin, BaseOperator):
    """Neither token nor lookup: a submit that was not answered stays in doubt."""


def test_a_last_try_whose_submit_was_not_answered_notes_that(service):
    instance = task(Nameless, service, retries=0)

    def lost():
        raise ConnectionError("hung up")

    service.on_submit = lost
    with pytest.raises(ConnectionError):
        instance.attempt()
    assert (instance.record["state"], instance.record["left"]) == ("submitting", "ConnectionError: its submit was not answered")


@pytest.mark.parametrize("why", ["on_final_failure", "on_timeout"])
def test_a_cancel_that_the_service_does_not_take_on_the_last_try_is_left_to_the_sweep(service, why):
    instance = task(WithCancel, service, retries=0, resume_policy={why: "cancel"})
    service.on_poll = bug if why == "on_final_failure" else time_out

    def refuse(job_id):
        service.cancelled.append(job_id)
        raise ConnectionError("503")

    service.cancel = refuse
    with pytest.raises((LookupError, AirflowTaskTimeout)):
        instance.attempt()
    assert (service.active, service.cancelled) == ([0], [0])
    assert (instance.record["state"], "closed_at" in instance.record, "left" in instance.record) == ("cancelled", False, False)


def test_a_hand_back_and_a_failure_with_tries_left_note_nothing(service):
    instance = task(WithCancel, service, retries=3)
    service.on_poll = bug
    with pytest.raises(LookupError):
        instance.attempt()
    assert "left" not in instance.record


class Kind(enum.Enum):
    ON = "RUNNING"
    DONE = "SUCCEEDED"


@pytest.mark.parametrize(
    ("on", "done"),
    [(Kind.ON, Kind.DONE), ({"state": "RUNNING"}, {"state": "DONE"}), (b"R", b"D"), (True, False), (1, 0), (["R"], None)],
)
def test_a_status_may_be_of_any_type(service, on, done, caplog, capsys):
    class OfItsOwn(Plain):
        def get_job_status(self, external_id, context):
            return on if self.client.status(external_id) == "RUNNING" else done

        def is_job_active(self, status):
            return status is on

        def is_job_succeeded(self, status):
            return status is done

    instance = task(OfItsOwn, service)
    die_in_the_wait(instance, service)
    with caplog.at_level("INFO"):
        assert instance.attempt()["of"] == 0
    assert (len(service.tokens), instance.try_number) == (1, 2)
    assert "reattached to" in caplog.text + capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("policy", ["leave", "cancel"])
def test_whatever_ends_the_last_try_its_job_is_dealt_with_as_on_final_failure_says(service, error, policy):
    def end():
        raise error

    service.on_poll = end
    instance = task(WithCancel, service, retries=0, resume_policy={"on_final_failure": policy})
    with pytest.raises(error):
        instance.attempt()
    assert bool(service.active) is (policy == "leave")
    if policy == "leave":
        assert "on_final_failure=leave" in instance.record["left"]


@pytest.mark.parametrize("settle", [0, "0", timedelta(0), 0.0])
def test_settle_time_is_a_number_of_seconds_or_a_timedelta(service, settle):
    instance = task(type("Operator", (WithFind,), {"settle_time": settle}), service)
    die_in_doubt(instance, service, before=True)
    assert instance.attempt()["of"] == 0


@pytest.mark.parametrize("settle", [None, "soon", -1, True, [30]])
def test_a_settle_time_that_is_no_time_is_an_error_before_anything_is_submitted(service, settle):
    instance = task(type("Operator", (WithFind,), {"settle_time": settle}), service)
    with pytest.raises(AirflowFailException, match="settle_time=.* is no time. Nothing was submitted"):
        instance.attempt()
    assert not service.tokens


def test_a_find_job_that_raises_job_not_found_has_found_none(service):
    class Finds(WithFind):
        def find_job(self, token, context):
            job = super().find_job(token, context)
            if job is None:
                raise JobNotFound(token)
            return job

    instance = task(Finds, service)
    die_in_doubt(instance, service, before=True)
    instance.attempt()
    assert len(service.states) == 1


@pytest.mark.parametrize("found", [[], "", {}, False, True])
def test_what_is_neither_an_id_nor_none_is_no_answer_of_find_job_and_the_error_says_so(service, found):
    class Finds(WithFind):
        def find_job(self, token, context):
            return found

    instance = task(Finds, service)
    die_in_doubt(instance, service)
    with pytest.raises(LostSightError, match="find_job returned .* or None if there is certainly none"):
        instance.attempt()
    assert len(service.states) == 1


def _decorated(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)

    return inner


class InAProperty(Plain):
    @property
    def request(self):
        return {"token": self.idempotency_token}

    def submit_job(self, context):
        return self.client.start(**self.request)


class InACachedProperty(InAProperty):
    request = functools.cached_property(InAProperty.request.fget)


class Decorated(Plain):
    @_decorated
    def submit_job(self, context):
        return self.client.start(self.idempotency_token)


class ExtendsIt(WithToken):
    def submit_job(self, context):
        return super().submit_job(context)


class NamesItsParent(WithToken):
    def submit_job(self, context):
        return WithToken.submit_job(self, context)


@pytest.mark.parametrize("operator", [InAProperty, InACachedProperty, Decorated, ExtendsIt, NamesItsParent])
def test_a_token_that_is_sent_by_a_property_a_decorated_or_an_extended_method_is_seen(service, operator):
    instance = task(operator, service)
    die_in_doubt(instance, service)
    assert instance.attempt()["of"] == 0
    assert len(service.states) == 1


def test_a_submit_that_no_longer_sends_the_token_of_its_parent_is_not_repeated_when_in_doubt(service):
    class Replaces(WithToken):
        def submit_job(self, context):
            return self.client.start()

    instance = task(Replaces, service)
    die_in_doubt(instance, service)
    with pytest.raises(AirflowFailException, match="no way to tell whether a job was made"):
        instance.attempt()
    assert len(service.states) == 1


@pytest.mark.parametrize("service_of_author", [object(), None, "", {"url": "x"}])
def test_an_operator_that_keeps_its_client_as_service_is_named_by_its_class(service, service_of_author):
    class HasAClient(Plain):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.service = service_of_author

    instance = task(HasAClient, service)
    die_in_the_wait(instance, service)
    assert instance.attempt()["of"] == 0
    assert (len(service.tokens), instance.record["service"]) == (1, "HasAClient")
