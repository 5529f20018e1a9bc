"""The watch over SIGTERM where things go wrong: in the thread, in the handler, in what a stop calls."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time

import pytest

from resumable import ConfigurationError, JobTimeoutError, host
from resumable.jobs.attempt import OVERDUE_PAUSE
from resumable.jobs.record import KEY, JobRecord
from resumable.policy import ResumePolicy
from resumable.stop import sigterm as interruption
from resumable.stop.sigterm import Interrupted, Interruption, Stop
from tests.support.attempts import Bench
from tests.support.custom import Plain, Service, WithCancel, WithOnKill, WithToken, final, task, time_out
from tests.support.names import AirflowFailException, AirflowRescheduleException, AirflowTaskTimeout

FEW_DESCRIPTORS = 1024


class Quiet:
    """An attempt without a job, whose answers a test may change."""

    is_halted = in_doubt = is_the_only_job = False
    handle, number = None, 1
    policy = ResumePolicy().resolved()

    def stop_if_overdue(self, stop):
        return False

    def note_end(self):
        return False

    def owns_record(self):
        return True

    def cancel(self, why):
        return False


class Log:
    def __init__(self):
        self.lines = []

    def info(self, text, *args):
        self.lines.append(text % args)

    debug = warning = info


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def watched(log):
    """Return a function that opens a watch which hears the SIGTERMs of this process."""
    before = signal.getsignal(signal.SIGTERM)
    opened = []

    def watch(attempt=None, state="failed", **choices):
        opened.append(Interruption(attempt or Quiet(), lambda: state, request_lock=threading.Lock(), log=log, **choices))
        signal.signal(signal.SIGTERM, lambda *_: opened[-1].notice())
        return opened[-1]

    yield watch
    for one in opened:
        one.close()
        one._thread.join(10)
    signal.signal(signal.SIGTERM, before)


class Holding(logging.Handler):
    """Is interrupted while it holds its lock, and stays there until some signals have come that want to raise."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def emit(self, record):
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 10
        while not self.watch._may_raise and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)


def test_a_stop_is_not_raised_out_of_a_log_call_and_comes_right_after_it(watched):
    logged = []
    with pytest.raises(Interrupted) as caught, watched() as watch:
        logged.append(Holding(watch).handle(logging.LogRecord("x", logging.INFO, "x", 1, "x", (), None)))
        until = time.monotonic() + 10
        while time.monotonic() < until:
            time.sleep(0.01)
    assert logged
    assert caught.value.stop is Stop.BY_USER


def stopped_by(seconds=10):
    """Send SIGTERM to this process; the reason that `Interrupted` comes with, None if it does not come."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            threading.Event().wait(0.01)
    except Interrupted as e:
        return e.stop
    return None


@pytest.mark.parametrize("error", [SystemExit(1), LookupError("a bug"), KeyboardInterrupt()], ids=repr)
def test_whatever_the_stop_of_the_job_raises_the_main_thread_is_told(watched, log, error):
    def cancel(why):
        raise error

    with watched(cancel=cancel) as watch:
        assert stopped_by() is Stop.BY_USER
        watch.close()
    assert "may run on" in log.lines[-1]


def holds_a_job(**policy):
    attempt, done = Quiet(), []
    attempt.policy = ResumePolicy.of(policy).resolved()
    attempt.cancel = lambda why: done.append(why) or True
    attempt.close = done.append
    return attempt, done


@pytest.mark.parametrize(("on_timeout", "is_cancelled"), [("cancel", True), ("detach", False)])
def test_a_signal_after_the_execution_timeout_is_the_supervisors_and_no_eviction(watched, on_timeout, is_cancelled):
    """Airflow 3.4 sends it to a task that does not react to its own time-out."""
    attempt, done = holds_a_job(on_timeout=on_timeout)
    with watched(attempt, state="running", is_out_of_time=lambda: True) as watch:
        assert stopped_by() is Stop.TIMED_OUT
        watch.close()
    assert bool(done) is is_cancelled


@pytest.mark.parametrize(("state", "stop"), [("failed", Stop.BY_USER), ("restarting", Stop.CLEARED)])
def test_a_users_stop_after_the_execution_timeout_is_the_users(watched, state, stop):
    attempt, done = holds_a_job(on_timeout="detach")
    with watched(attempt, state=state, is_out_of_time=lambda: True) as watch:
        assert stopped_by() is stop
        watch.close()
    assert done


@pytest.mark.parametrize(("grace", "least"), [(5.0, 4.0), (60.0, 30.0), (1.0, 4.0)])
def test_a_cancel_waits_for_the_answer_of_a_submit_as_long_as_airflow_lets_it(watched, monkeypatch, grace, least):
    monkeypatch.setattr(host, "users_stop_grace", lambda: grace)
    with watched() as watch:
        assert least <= watch._patience(Stop.BY_USER) < max(grace, 5)
        assert watch._patience(Stop.EVICTION) == interruption.HANDLE_GRACE_SECONDS
        watch.close()


def test_a_stop_is_heard_also_after_a_look_at_the_deadline_that_failed(watched, log, monkeypatch):
    monkeypatch.setattr(interruption, "_DEADLINE_PAUSE", 0.01)
    attempt, looked = Quiet(), threading.Event()

    def stop_if_overdue(stop):
        looked.set()
        raise ValueError("a record that nobody can read")

    attempt.stop_if_overdue = stop_if_overdue
    with watched(attempt, state="running") as watch:
        assert looked.wait(10)
        assert stopped_by() is Stop.EVICTION
        watch.close()


def test_a_stop_is_heard_by_a_process_with_many_open_files(watched):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FEW_DESCRIPTORS + 100
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("so many files may not be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < FEW_DESCRIPTORS:
            taken.append(os.dup(taken[0]))
        with watched(state="running") as watch:
            assert stopped_by() is Stop.EVICTION
            watch.close()
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_forked_child_that_lives_on_does_not_keep_the_thread(watched):
    release, hold = os.pipe()
    with watched() as watch:
        child = os.fork()
        if child == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
    try:
        assert not watch._thread.is_alive()
    finally:
        os.close(hold)
        os.close(release)
        os.waitpid(child, 0)


def test_a_signal_while_the_watch_closes_raises_nothing(watched):
    with watched() as watch:
        pass
    watch._stop, watch._may_raise = Stop.EVICTION, True  # as the thread leaves it that had just seen the watch open
    watch.notice()


def test_a_handle_whose_write_is_interrupted_is_written_on_the_way_out():
    bench = Bench()
    attempt = bench.attempt()
    attempt.begin()
    token, _ = attempt.intend()
    job, write = bench.service.submit(token, None), bench.store.set

    def interrupted(key, value):
        bench.store.set = write
        raise Interrupted(Stop.EVICTION)

    bench.store.set = interrupted
    with pytest.raises(Interrupted):
        attempt.submitted(attempt.adapter.handle(job))
    attempt.flush()
    assert JobRecord.from_json(bench.store.memory.get(KEY)).handle is not None


# -- job_timeout -------------------------------------------------------------------------------------------------------


def test_a_service_that_does_not_take_the_stop_of_an_overdue_job_is_not_asked_every_second():
    bench = Bench()
    attempt = bench.start(job_timeout=100)
    bench.service.faults.arm("cancel", times=99)
    bench.clock.now += 101
    asked = bench.service.count("cancel")
    for _ in range(int(OVERDUE_PAUSE)):
        assert not attempt.stop_if_overdue()
        bench.clock.now += 0.9
    assert bench.service.count("cancel") == asked + 1
    bench.service.faults.heal()
    bench.clock.now += OVERDUE_PAUSE
    assert attempt.stop_if_overdue()
    assert bench.service.active() == []


def test_job_timeout_without_a_way_to_stop_the_job_fails_when_the_dag_is_parsed():
    with pytest.raises(ConfigurationError, match="job_timeout=60 needs a way to stop the job, and Plain has none"):
        Plain(task_id="task", resume_policy={"job_timeout": 60})
    for operator in (WithCancel, WithOnKill):
        operator(task_id="task", resume_policy={"job_timeout": 60})
    Plain(task_id="task", durable=False, resume_policy={"job_timeout": 60})


@pytest.fixture
def overdue_wait(monkeypatch):
    """Return a service whose job is overdue as soon as it is waited for."""
    monkeypatch.setattr(interruption, "_DEADLINE_PAUSE", 0.01)
    service = Service()
    service.on_poll = lambda: threading.Event().wait(0.01)
    return service


def test_a_job_timeout_uses_on_kill_where_there_is_no_cancel_job(overdue_wait):
    instance = task(WithOnKill, overdue_wait, resume_policy={"job_timeout": 0.2})
    with pytest.raises(AirflowFailException, match="It was told to stop") as caught:
        instance.attempt()
    assert isinstance(caught.value.__cause__, JobTimeoutError)
    assert overdue_wait.cancelled == [0]


class StoppedIsFine(WithCancel):
    """As the provider's Glue operator: a job that was stopped is no failure."""

    def is_job_succeeded(self, status):
        return True

    def poll_until_complete(self, external_id, context):
        while self.client.status(external_id) == "RUNNING":
            self.client.on_poll()


@pytest.mark.parametrize("operator", [WithCancel, WithOnKill, StoppedIsFine])
def test_a_wait_that_sees_the_cancel_of_an_overdue_job_before_its_answer_is_there_makes_no_other_job(overdue_wait, operator):
    """The service stops the job at once, and answers later."""
    seen, cancel, status = threading.Event(), overdue_wait.cancel, overdue_wait.status

    def slow_cancel(job_id):
        cancel(job_id)
        assert seen.wait(5)
        time.sleep(0.3)

    def look(job_id):
        if (state := status(job_id)) == "CANCELLED" and threading.current_thread() is threading.main_thread():
            seen.set()
        return state

    overdue_wait.cancel, overdue_wait.status = slow_cancel, look
    instance = task(operator, overdue_wait, resume_policy={"job_timeout": 0.2})
    with pytest.raises(AirflowFailException, match="It was told to stop") as caught:
        instance.attempt()
    assert isinstance(caught.value.__cause__, JobTimeoutError)
    assert (overdue_wait.cancelled, instance.record["state"]) == ([0], "cancelled")


def test_no_look_is_nearer_than_the_floor_however_near_the_deadline_is(monkeypatch):
    handed_back = []
    monkeypatch.setattr(host, "hand_back", lambda seconds: handed_back.append(seconds) or AirflowRescheduleException(None))
    policy = {"wait": "reschedule", "wait_interval": 90, "job_timeout": 1.5}
    with pytest.raises(AirflowRescheduleException):
        task(WithCancel, Service(), resume_policy=policy).attempt()
    assert handed_back == [host.hand_back_seconds()]


# -- a submit without an answer ----------------------------------------------------------------------------------------


def without_an_answer(service, error):
    def on_submit():
        raise error

    service.on_submit = on_submit
    return service


@pytest.fixture
def warnings(capsys, caplog):
    """What was logged: Airflow 3 prints it, Airflow 2 keeps to the standard library."""
    return lambda: capsys.readouterr().out + caplog.text


@pytest.mark.parametrize("error", [TimeoutError("read"), AirflowTaskTimeout("execution_timeout")], ids=repr)
@pytest.mark.parametrize(("retries", "then"), [(0, "look for it in the service"), (3, "the next try")])
def test_a_try_that_ends_with_an_unanswered_submit_says_so_and_names_its_token(warnings, error, retries, then):
    service = without_an_answer(Service(), error)
    instance = task(WithToken, service, retries=retries)
    with pytest.raises(type(error)):
        instance.attempt()
    said = next(line for line in warnings().splitlines() if "was not answered" in line)
    assert instance.record["token"] in said
    assert then in said


def test_an_execution_timeout_while_the_job_is_looked_for_still_cancels_it():
    service = Service()
    instance = task(WithCancel, service)
    service.on_poll = lambda: final("the wait is tired")
    with pytest.raises(AirflowFailException):
        instance.attempt()
    looks, service.status = service.status, lambda job_id: time_out()
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    service.status = looks
    assert service.cancelled == [0]


# -- before and after the watch ----------------------------------------------------------------------------------------


def rendered(instance, service, then):
    """Run an attempt as Airflow does, which renders templates first; ``then`` is called after that."""

    def render(operator, context):
        operator._do_render_template_fields(operator, (), context, None, set())
        then(operator)

    return instance.attempt(render=render)


def test_an_eviction_between_rendering_and_execute_hands_the_task_back(monkeypatch):
    service = Service()
    instance = task(WithCancel, service)
    with pytest.raises(AirflowRescheduleException):
        rendered(instance, service, lambda operator: operator.on_kill())
    assert service.tokens == []


@pytest.mark.parametrize("base", [WithCancel, WithOnKill])
def test_a_users_stop_between_rendering_and_execute_submits_nothing(monkeypatch, base):
    monkeypatch.setattr(host, "end_stopped_task", lambda taken_over: None)
    service = Service()
    instance = task(base, service)
    instance.state = "failed"
    with pytest.raises(Exception, match="a user ended the task"):
        rendered(instance, service, lambda operator: operator.on_kill())
    assert service.tokens == []


def test_before_execute_the_operators_own_on_kill_is_called_as_ever():
    called = []
    operator = type("Mine", (Plain,), {"on_kill": lambda self: called.append(1)})(task_id="task")
    operator._do_render_template_fields(operator, (), {}, None, set())
    operator.on_kill()
    assert called == [1]


def test_the_on_kill_that_follows_an_execution_timeout_is_no_stop_of_a_later_attempt_in_the_same_process():
    service = Service()
    service.on_poll = time_out
    instance = task(WithCancel, service)
    with pytest.raises(AirflowTaskTimeout):
        instance.attempt()
    operator = instance.made[0]
    operator.on_kill()
    instance.make = lambda: operator  # as dag.test() goes on
    service.on_poll = service.finish
    assert instance.attempt()["rows"] == 7


def test_an_on_kill_that_exits_does_not_keep_cancel_job_from_being_called():
    class Exits(WithCancel):
        def on_kill(self):
            raise SystemExit(1)

    service = Service()
    service.on_poll = lambda: final("the wait is tired")
    instance = task(Exits, service, retries=0, resume_policy={"on_final_failure": "cancel"})
    with pytest.raises(AirflowFailException, match="tired"):
        instance.attempt()
    assert service.cancelled == [0]


def test_a_stop_that_comes_while_the_watch_is_closed_leaves_no_thread_that_signals_on(monkeypatch):
    service, opened, close = Service(), [], Interruption.close
    service.on_poll = service.finish

    def interrupted_close(self):
        opened.append(self)
        if len(opened) == 1:
            raise Interrupted(Stop.EVICTION)
        close(self)

    monkeypatch.setattr(Interruption, "close", interrupted_close)
    with pytest.raises(AirflowRescheduleException):
        task(WithCancel, service).attempt()
    assert not opened[0]._is_open
    opened[0]._thread.join(30)
    assert not opened[0]._thread.is_alive()
