"""An attempt reads the record, acts on the decision, keeps the record true, whatever store and service do."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest

from resumable import errors
from resumable.errors import (
    ForeignJobError,
    InvalidHandleError,
    JobGoneError,
    LostSightError,
    RecordError,
    RefusedError,
    ResumableError,
    StateStoreError,
    StopNotTaken,
    SupersededError,
)
from resumable.identity import Generation
from resumable.jobs.decision import Conclude, Deliver, JobState, Observation, Reattach, Recovery
from resumable.jobs.record import KEY, JobHandle, JobRecord, Outcome
from resumable.jobs.remote import ABSENT_ANSWERS, ABSENT_SECONDS, MAX_LOOKS, MAX_STOP_LOOKS
from resumable.jobs.submission import RECOVERIES
from resumable.policy import OnClear, OnTimeout, ResumePolicy
from resumable.stop.sigterm import HANDLE_GRACE_SECONDS, Interrupted, Interruption, Stop, cancels, why
from resumable.stores import MemoryStore
from resumable.stores.base import STORE_TRIES
from tests.support.attempts import Bench
from tests.support.fake_service import (
    CLEARED,
    FIRST,
    TASK,
    FakeAdapter,
    Fault,
    FencedStore,
    JobFailedError,
    LostAnswerError,
    RefusedSubmitError,
    start,
    watch,
)
from tests.support.specs import written

MISSED = (AssertionError, pytest.fail.Exception)
"""How a test fails that shows a gap, as opposed to one that is out of date."""

KNOWS_TOKENS = [Recovery.REPEAT, Recovery.LOOK_UP]


@pytest.fixture
def bench():
    return Bench()


# -- the ways of an attempt ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", Recovery)
def test_the_intent_is_kept_before_the_submit_and_the_handle_right_after(recovery):
    bench = Bench(recovery)
    attempt = bench.attempt()
    attempt.begin()
    assert bench.store.memory.get(KEY) is None
    token, params = attempt.intend({"size": 1})
    kept = bench.record
    assert kept.in_doubt
    assert (kept.token, kept.params, kept.place) == (token, {"size": 1}, {"region": "eu"})
    assert bench.service.jobs == []
    attempt.submitted(JobHandle("fake", bench.service.submit(token, params), {"region": "eu"}))
    assert bench.record.handle == attempt.handle == JobHandle("fake", 0, {"region": "eu"})
    assert watch_finished(bench, attempt) == 0
    assert bench.record.outcome is Outcome.SUCCEEDED


def watch_finished(bench, attempt, verdict=JobState.SUCCEEDED):
    bench.service.finish(attempt.handle.ids, verdict)
    return watch(attempt, bench.service)


@pytest.mark.parametrize("recovery", Recovery)
def test_a_retry_reattaches_to_the_active_job(recovery):
    bench = Bench(recovery)
    bench.start()
    retry = bench.start()
    assert isinstance(retry.plan, Reattach)
    assert retry.replays
    assert bench.service.count("submit") == 1
    assert bench.record.owner == retry.owner
    assert bench.record.attempt == 2


@pytest.mark.parametrize("recovery", Recovery)
def test_a_retry_delivers_a_job_that_ended_while_nobody_watched(recovery):
    bench = Bench(recovery)
    bench.service.finish(bench.start().handle.ids)
    retry = bench.start()
    assert isinstance(retry.plan, Deliver)
    assert watch(retry, bench.service) == 0
    assert bench.service.count("submit") == 1


def test_a_result_that_was_noted_is_delivered_although_the_service_has_forgotten_the_job(bench):
    watch_finished(bench, bench.start())
    bench.service.jobs[0].forgotten = True
    assert watch(bench.start(on_missing="fail"), bench.service) == 0
    assert bench.service.count("submit") == 1


@pytest.mark.parametrize("seen_by", ["the attempt", "the retry"])
def test_a_failed_job_is_followed_by_a_submission_with_another_token(bench, seen_by):
    first = bench.start()
    if seen_by == "the attempt":
        with pytest.raises(JobFailedError):
            watch_finished(bench, first, JobState.FAILED)
    else:
        bench.fail()
    assert len(bench.service.jobs) == 1
    assert bench.record.outcome is Outcome.FAILED
    retry = bench.start()
    assert retry.handle.ids == 1
    assert retry.record.submission == 1
    assert bench.service.jobs[0].token != bench.service.jobs[1].token
    assert [job.token for job in bench.service.jobs] == [TASK.token(FIRST, n) for n in (0, 1)]


def test_a_start_that_finds_its_job_gone_fails_and_the_next_one_submits(bench):
    bench.start()
    bench.service.finish(0)
    bench.service.jobs[0].forgotten = True
    with pytest.raises(JobGoneError, match="The next try submits another job"):
        bench.start()
    assert (bench.record.outcome, len(bench.service.jobs)) == (Outcome.GONE, 1)
    assert bench.start().record.submission == 1


def test_a_job_is_believed_to_be_gone_after_several_answers_that_span_some_seconds(bench):
    bench.start()
    bench.service.jobs[0].forgotten = True
    before = bench.clock.now
    with pytest.raises(JobGoneError):
        bench.start()
    assert bench.service.count("observe") >= ABSENT_ANSWERS
    assert bench.clock.now - before >= ABSENT_SECONDS


@pytest.mark.parametrize("lies", range(1, 30))
def test_a_single_answer_that_the_job_is_gone_or_several_within_the_lag_are_not_believed(bench, lies):
    """However many of them come before the service's lag is over; and one that says so again after the truth begins anew."""
    adapter = FakeAdapter(bench.service)
    adapter.visible_after = 1e9
    truth, answers = adapter.observe, ["gone"] * lies
    adapter.observe = lambda handle: Observation(JobState.GONE) if answers and answers.pop() else truth(handle)
    bench.start()
    assert bench.start(adapter=adapter).handle.ids == 0
    assert len(bench.service.jobs) == 1


def test_an_answer_that_the_job_is_there_begins_the_count_anew(bench):
    adapter = FakeAdapter(bench.service)
    truth, answers = adapter.observe, ["gone", "gone", "unknown", "gone", "gone"]
    said = {"gone": JobState.GONE, "unknown": JobState.UNKNOWN}
    adapter.observe = lambda handle: Observation(said[answers.pop()]) if answers else truth(handle)
    bench.start()
    assert bench.start(adapter=adapter).handle.ids == 0


def test_a_clock_that_was_ahead_does_not_hold_up_the_belief_for_longer_than_the_lag(bench):
    bench.clock.now += 1e7
    bench.start()
    bench.clock.now -= 1e7
    adapter = FakeAdapter(bench.service)
    adapter.visible_after = 300.0
    bench.service.jobs[0].forgotten = True
    with pytest.raises(JobGoneError):
        bench.start(adapter=adapter)
    assert sum(bench.clock.slept) < 400


@pytest.mark.parametrize(("setting", "forgotten"), [("on_failed", False), ("on_missing", True)])
def test_a_policy_of_fail_submits_nothing(bench, setting, forgotten):
    bench.start()
    if forgotten:
        bench.service.jobs[0].forgotten = True
    else:
        bench.fail(on_failed="fail")
    with pytest.raises(RefusedError, match=f"{setting}=fail"):
        bench.start(**{setting: "fail"})
    assert bench.service.count("submit") == 1


def test_a_cleared_task_stops_its_job_and_starts_one_of_the_new_generation(bench):
    bench.start()
    cleared = bench.start(generation=CLEARED)
    assert [job.id for job in bench.service.active()] == [1] == [cleared.handle.ids]
    assert bench.service.jobs[1].token == TASK.token(CLEARED, 0)
    assert bench.record.generation == CLEARED


def test_a_cleared_task_that_reattaches_takes_the_job_into_the_new_generation(bench):
    bench.start()
    bench.start(generation=CLEARED, on_clear="reattach")
    assert bench.record.generation == CLEARED
    assert isinstance(bench.start(generation=CLEARED).plan, Reattach)
    assert bench.service.count("submit") == 1
    assert bench.service.count("cancel") == 0


def test_after_a_clear_an_attempt_and_its_retry_decide_alike_on_a_changed_job(bench):
    bench.start(on_clear="reattach")
    taken = bench.start(generation=CLEARED, spec=written("spec-b"), on_clear="reattach").handle
    assert bench.start(generation=CLEARED, spec=written("spec-b"), on_clear="reattach").handle == taken


def test_a_changed_task_stops_its_job_and_starts_one_of_the_new_spec(bench):
    bench.start()
    changed = bench.start(spec=written("spec-b"))
    assert [job.id for job in bench.service.active()] == [1] == [changed.handle.ids]
    assert (bench.record.spec, bench.record.submission) == (written("spec-b"), 1)


@pytest.mark.parametrize("siblings", [1, 2])
def test_the_clear_of_a_sibling_leaves_the_token_as_it_is(bench, siblings):
    bench.die_in_submit()
    bench.start(generation=Generation(FIRST.max_tries, siblings, FIRST.run_started))
    assert {job.token for job in bench.service.jobs} == {TASK.token(FIRST, 0)}


def test_a_task_that_does_not_wait_submits_once_and_asks_nothing(bench):
    bench.start(waits=False)
    assert isinstance(bench.start(waits=False).plan, Deliver)
    assert bench.service.calls == ["submit"]


# -- in doubt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
@pytest.mark.parametrize("lag", [0.0, 15.0])
def test_a_job_whose_answer_was_never_kept_is_found_by_its_token(recovery, lag):
    bench = Bench(recovery, lag=lag)
    bench.die_in_submit()
    retry = bench.start()
    assert isinstance(retry.plan, Reattach)
    assert len(bench.service.jobs) == 1
    assert bench.record.handle == retry.handle


@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
def test_an_intent_that_made_no_job_is_submitted_under_the_same_token(recovery):
    bench = Bench(recovery)
    bench.die_before_submit()
    bench.start()
    assert [job.token for job in bench.service.jobs] == [TASK.token(FIRST, 0)]


def test_no_job_is_believed_only_once_the_time_to_settle_is_over():
    bench = Bench(Recovery.LOOK_UP)
    bench.die_before_submit()
    died = bench.clock.now
    bench.clock.now += 5
    bench.start()
    assert bench.service.calls == ["find"] * ABSENT_ANSWERS + ["submit"]
    assert bench.clock.now - died >= 20


def test_a_single_lookup_that_finds_nothing_is_not_believed_even_long_after_the_submit():
    bench = Bench(Recovery.LOOK_UP)
    bench.die_in_submit()
    bench.clock.now += 3600
    adapter = FakeAdapter(bench.service)
    truth, lies = adapter.find, [True] * (ABSENT_ANSWERS - 1)
    adapter.find = lambda record: None if lies and lies.pop() else truth(record)
    bench.start(adapter=adapter)
    assert len(bench.service.jobs) == 1


@pytest.mark.parametrize("verdict", [JobState.FAILED, JobState.SUCCEEDED, JobState.ACTIVE])
@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
def test_a_job_that_answers_an_in_doubt_submit_is_looked_at_before_it_is_trusted(recovery, verdict):
    bench = Bench(recovery)
    bench.die_in_submit()
    bench.service.finish(0, verdict)
    retry = bench.start()
    assert (len(bench.service.jobs), retry.handle.ids) == (1, 0)
    assert type(retry.plan) is {JobState.FAILED: Conclude, JobState.SUCCEEDED: Deliver, JobState.ACTIVE: Reattach}[verdict]


def test_an_in_doubt_submit_goes_out_with_the_parameters_as_recorded(bench):
    bench.die_before_submit({"day": 1})
    bench.start({"day": 2})
    assert [job.params for job in bench.service.jobs] == [{"day": 1}]


def test_parameters_that_hold_a_secret_are_not_kept(bench):
    bench.die_before_submit({"password": "x"}, may_record=lambda params: "password" not in params)
    assert "params" not in bench.store.memory.get(KEY)
    bench.start({"password": "y"})
    assert [job.params for job in bench.service.jobs] == [{"password": "y"}]


@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
@pytest.mark.parametrize("taken", [True, False])
def test_a_cleared_task_stops_the_job_of_an_unanswered_submit(recovery, taken):
    bench = Bench(recovery)
    (bench.die_in_submit if taken else bench.die_before_submit)()
    cleared = bench.start(generation=CLEARED)
    assert [job.id for job in bench.service.active()] == [cleared.handle.ids]
    assert bench.service.jobs[cleared.handle.ids].token == TASK.token(CLEARED, 0)


def test_a_submit_that_nothing_can_clear_up_is_not_repeated():
    bench = Bench(Recovery.MANUAL)
    bench.die_in_submit()
    with pytest.raises(RefusedError, match="died while it submitted"):
        bench.start()
    assert bench.service.count("submit") == 1


def test_a_clear_repeats_a_submit_that_nothing_can_clear_up_and_warns():
    bench = Bench(Recovery.MANUAL)
    bench.die_in_submit()
    bench.start(generation=CLEARED)
    assert bench.service.count("submit") == 2
    assert "may still run" in "".join(bench.log.at("warning"))


@pytest.mark.parametrize("recovery", Recovery)
def test_a_refused_submit_leaves_no_doubt_and_keeps_its_token(recovery):
    bench = Bench(recovery)
    bench.service.faults.arm("submit", Fault.REFUSED)
    with pytest.raises(RefusedSubmitError):
        bench.start()
    assert bench.record.outcome is Outcome.REJECTED
    bench.start()
    assert [job.token for job in bench.service.jobs] == [TASK.token(FIRST, 0)]
    assert bench.service.count("find") == 0


def test_a_refused_repetition_does_not_prove_that_the_first_submit_made_no_job(bench):
    bench.die_in_submit()
    bench.service.faults.arm("submit", Fault.REFUSED)
    with pytest.raises(RefusedSubmitError):
        bench.start()
    bench.start(generation=CLEARED)
    assert len(bench.service.active()) == 1


# -- the answer is lost while the attempt lives --------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.UNREACHABLE])
def test_a_lost_answer_is_cleared_up_by_a_look_where_the_job_can_be_looked_up(fault):
    bench = Bench(Recovery.LOOK_UP, lag=15.0)
    bench.service.faults.arm("submit", fault)
    attempt = bench.start()
    assert len(bench.service.jobs) == 1
    assert bench.record.handle == attempt.handle
    assert "was lost" in bench.log.at("warning")[0]


def test_a_job_that_is_found_after_a_lost_answer_is_this_attempts_at_once():
    """A stop, or a time-out, that comes while it is first looked at reaches it."""
    bench = Bench(Recovery.LOOK_UP)
    bench.service.faults.arm("submit", Fault.LOST_ANSWER)
    attempt, known = bench.attempt(), []
    observe = attempt.adapter.observe
    attempt.adapter.observe = lambda handle: (known.append(attempt.known_job), observe(handle))[1]
    handle = start(attempt, bench.service)
    assert known == [handle]


def test_a_service_that_loses_every_answer_is_left_to_the_next_try_in_the_end():
    bench = Bench(Recovery.LOOK_UP)
    bench.service.faults.arm("submit", Fault.UNREACHABLE, times=99)
    with pytest.raises(LostAnswerError):
        bench.start()
    assert bench.service.count("submit") == RECOVERIES + 1
    bench.service.faults.heal()
    bench.start()
    assert len(bench.service.jobs) == 1


@pytest.mark.parametrize("fault", [Fault.LOST_ANSWER, Fault.UNREACHABLE])
def test_a_lost_answer_is_left_to_the_next_try_where_the_token_can_be_sent_again(bench, fault):
    bench.service.faults.arm("submit", fault)
    with pytest.raises(LostAnswerError):
        bench.start()
    assert bench.record.in_doubt
    bench.start()
    assert len(bench.service.jobs) == 1


def test_the_time_to_settle_begins_when_the_answer_was_lost():
    bench = Bench(Recovery.LOOK_UP, lag=5.0)
    bench.service.slow_submit = 60.0
    bench.service.faults.arm("submit", Fault.LOST_ANSWER)
    bench.start()
    assert len(bench.service.jobs) == 1


def test_each_decision_is_counted_once_under_upstreams_names(bench):
    counted = []
    bench.start(count=counted.append)
    bench.start(count=counted.append)
    bench.fail(count=counted.append)
    bench.start(count=counted.append)
    bench.service.finish(1, JobState.SUCCEEDED)
    bench.start(count=counted.append)
    assert counted == [
        "fresh_submit",
        *("reconnect_attempt", "reconnect_success"),
        "reconnect_attempt",
        *("reconnect_attempt", "terminal_resubmit"),
        *("reconnect_attempt", "already_succeeded"),
    ]


def test_a_repeated_submit_and_a_cancel_are_counted(bench):
    counted = []
    bench.die_in_submit()
    bench.start(count=counted.append).cancel("a test")
    assert counted == ["repeated_submit", "reconnect_success", "cancelled"]


def test_the_looks_of_a_task_that_is_rescheduled_are_not_counted_as_reconnects(bench):
    counted = []
    for try_number in (1, 1, 1, 2):
        bench.start(count=counted.append, wait="reschedule", try_number=try_number)
    assert counted == ["fresh_submit", "reconnect_attempt", "reconnect_success"]


# -- looking -------------------------------------------------------------------------------------------------


def test_a_job_that_cannot_be_seen_is_looked_at_for_half_an_hour_and_then_left_to_the_next_try(bench):
    bench.start()
    bench.service.faults.arm("observe", times=99)
    with pytest.raises(LostSightError) as caught:
        bench.start()
    assert bench.service.count("observe") == MAX_LOOKS
    assert 1500 < sum(bench.clock.slept) < 2400
    assert caught.value.retryable
    assert len(bench.service.active()) == 1
    assert bench.service.count("submit") == 1


def test_a_job_that_can_be_seen_again_is_reattached_to(bench):
    bench.start()
    bench.service.faults.arm("observe", times=MAX_LOOKS - 1)
    assert isinstance(bench.start().plan, Reattach)


def test_a_state_that_the_adapter_cannot_place_is_never_taken_for_a_failure(bench):
    bench.start()
    bench.service.finish(0, JobState.UNKNOWN)
    with pytest.raises(LostSightError):
        bench.start()
    assert bench.service.count("submit") == 1


def test_a_lookup_that_cannot_be_made_is_left_to_the_next_try():
    bench = Bench(Recovery.LOOK_UP)
    bench.die_in_submit()
    bench.service.faults.arm("find", times=99)
    with pytest.raises(LostSightError):
        bench.start()
    assert bench.service.count("submit") == 1
    bench.service.faults.heal()
    bench.start()
    assert bench.service.count("submit") == 1


@pytest.mark.parametrize("die", [Bench.start, Bench.die_in_submit], ids=["submitted", "intent"])
def test_a_connection_that_points_elsewhere_asks_nothing_and_submits_nothing(bench, die):
    die(bench)
    bench.service.calls.clear()
    moved = FakeAdapter(bench.service, place={"region": "us"})
    with pytest.raises(ForeignJobError, match="region us"):
        bench.start(adapter=moved)
    assert bench.service.calls == []
    assert isinstance(bench.start().plan, Reattach)


def test_a_job_that_was_seen_to_end_elsewhere_does_not_hinder_the_next(bench):
    watch_finished(bench, bench.start())
    bench.start(generation=CLEARED, adapter=FakeAdapter(bench.service, place={"region": "us"}))
    assert bench.record.handle.place == {"region": "us"}


def test_a_place_that_the_record_does_not_name_is_not_held_against_it(bench):
    bench.start()
    assert bench.start(adapter=FakeAdapter(bench.service, place={"region": "eu", "account": "1"})).handle.ids == 0


def test_a_record_of_another_service_is_left_alone(bench):
    bench.start()
    adapter = FakeAdapter(bench.service)
    adapter.service = "other"
    with pytest.raises(ForeignJobError, match="service other"):
        bench.start(adapter=adapter)


# -- restart -------------------------------------------------------------------------------------------------

RESTARTS = [{"spec": written("spec-b")}, {"generation": CLEARED}]


@pytest.mark.parametrize("restart", RESTARTS, ids=["changed", "cleared"])
def test_a_restart_submits_only_when_the_job_has_stopped(restart):
    bench = Bench(looks_to_stop=3)
    bench.start()
    bench.service.calls.clear()
    bench.start(**restart)
    assert bench.service.calls == ["observe", "cancel", *["observe"] * 4, "submit"]


def test_a_job_that_failed_as_a_whole_is_stopped_before_the_next_is_submitted():
    bench = Bench(looks_to_stop=3)
    bench.start()
    bench.service.finish(0, JobState.FAILING)
    with pytest.raises(errors.JobFailedError, match="The next try stops what still runs"):
        bench.start()
    assert bench.service.count("cancel") == 0
    assert (bench.record.outcome, bench.record.failing_try) == (None, 2)
    bench.start()
    assert [job.id for job in bench.service.active()] == [1]
    assert bench.service.count("cancel") == 1


def test_a_worker_that_dies_while_it_stops_a_job_does_not_have_the_stop_taken_for_a_failure():
    bench = Bench(looks_to_stop=1)
    bench.start()
    attempt = bench.attempt(spec=written("spec-b"), sleep=_die)
    with pytest.raises(_Died):
        attempt.begin()
    bench.service.finish(0, JobState.FAILED)
    bench.start(spec=written("spec-b"))
    assert len(bench.service.jobs) == 2


@pytest.mark.parametrize("refusal", [NotImplementedError("no"), StopNotTaken("not done")], ids=["no cancel", "refused"])
@pytest.mark.parametrize("then", [JobState.ACTIVE, JobState.SUCCEEDED], ids=["runs", "has succeeded"])
def test_a_job_whose_cancel_was_refused_was_not_told_to_stop(bench, refusal, then):
    """The author takes the edit back: the job is reattached to, or its result delivered."""
    bench.start()
    adapter = FakeAdapter(bench.service)

    def refuse(handle):
        raise refusal

    adapter.cancel = refuse
    with pytest.raises((RefusedError, LostSightError)):
        bench.start(spec=written("spec-b"), adapter=adapter)
    bench.service.finish(0, then)
    assert bench.start().handle.ids == 0
    assert len(bench.service.jobs) == 1


def test_a_job_whose_cancel_may_have_been_taken_was_told_to_stop(bench):
    bench.start()
    bench.service.faults.arm("cancel", Fault.LOST_ANSWER, times=99)
    with contextlib.suppress(LostSightError):
        bench.start(spec=written("spec-b"))
    bench.service.faults.heal()
    assert bench.start().handle.ids == 1


class _Died(BaseException):
    """SIGKILL."""


def _die(_seconds):
    raise _Died


@pytest.mark.parametrize("restart", RESTARTS, ids=["changed", "cleared"])
def test_a_job_that_does_not_stop_is_not_followed_by_another(restart):
    bench = Bench(looks_to_stop=MAX_STOP_LOOKS + 20)
    bench.start()
    with pytest.raises(LostSightError, match="has not stopped yet"):
        bench.start(**restart)
    assert bench.service.count("submit") == 1
    bench.start(**restart)
    assert [job.id for job in bench.service.active()] == [1]


def test_a_stop_that_the_service_does_not_take_is_not_followed_by_another_job(bench):
    bench.start()
    bench.service.faults.arm("cancel", times=99)
    with pytest.raises(LostSightError, match="did not take it"):
        bench.start(spec=written("spec-b"))
    assert bench.service.count("submit") == 1


def test_a_job_that_cannot_be_seen_while_it_stops_is_not_followed_by_another(bench):
    bench.start()
    bench.service.looks_to_stop = 999
    attempt = bench.attempt(spec=written("spec-b"))
    cancel = bench.service.cancel

    def cancel_and_vanish(job_id):
        cancel(job_id)
        bench.service.faults.arm("observe", times=999)

    bench.service.cancel = cancel_and_vanish
    with pytest.raises(LostSightError):
        start(attempt, bench.service)
    assert bench.service.count("submit") == 1


def test_a_job_that_nobody_can_cancel_is_not_followed_by_another(bench):
    bench.start()
    adapter = FakeAdapter(bench.service)
    adapter.cancel = cannot_cancel
    with pytest.raises(RefusedError, match="no cancel_job"):
        bench.start(spec=written("spec-b"), adapter=adapter)
    assert bench.service.count("submit") == 1


def cannot_cancel(handle):
    raise NotImplementedError


@pytest.mark.parametrize("then", [{}, {"generation": CLEARED}], ids=["retry", "clear"])
def test_a_job_that_was_told_to_stop_is_seen_to_have_stopped_before_another_is_submitted(then):
    bench = Bench(looks_to_stop=3)
    attempt = bench.start()
    # execution_timeout, on_timeout=cancel, as `ending.timed_out` does it; a user's stop does the same
    assert attempt.cancel("execution_timeout, on_timeout=cancel")
    attempt.close(Outcome.CANCELLED)
    at_once = []
    submit = bench.service.submit

    def counting(token, params):
        at_once.append(len(bench.service.active()))
        return submit(token, params)

    bench.service.submit = counting
    bench.start(**then)
    assert at_once == [0]


@pytest.mark.parametrize(("looks_to_stop", "is_closed"), [(0, True), (3, False)])
def test_a_record_is_closed_as_cancelled_only_when_the_job_is_seen_to_have_stopped(looks_to_stop, is_closed):
    bench = Bench(looks_to_stop=looks_to_stop)
    attempt = bench.start()
    assert attempt.cancel("a user ended the task")
    attempt.close(Outcome.CANCELLED)
    kept = JobRecord.from_json(attempt.record.to_json())
    assert (kept.outcome, kept.closed_at is not None) == (Outcome.CANCELLED, is_closed)


# -- a token of the user's own -------------------------------------------------------------------------------


def test_a_token_of_the_users_own_is_sent_as_it_is(bench):
    assert bench.start(token="mine").record.token == "mine"
    assert bench.service.jobs[0].token == "mine"


@pytest.mark.parametrize(("verdict", "then"), [(JobState.FAILED, {}), (JobState.SUCCEEDED, {"generation": CLEARED})])
def test_a_used_up_token_that_returns_the_finished_job_is_an_error(bench, verdict, then):
    attempt = bench.start(token="mine")
    bench.service.finish(0, verdict)
    assert attempt.observe().state is verdict
    if verdict is JobState.FAILED:
        attempt.close(Outcome.FAILED)
    with pytest.raises(InvalidHandleError, match="'mine' is used up") as caught:
        bench.start(token="mine", **then)
    assert "No job was started" in str(caught.value)
    assert not caught.value.retryable


def test_a_used_up_token_is_an_error_also_after_a_crash_in_between(bench):
    watch_finished(bench, bench.start(token="mine"))
    bench.die_in_submit(token="mine", generation=CLEARED)
    with pytest.raises(InvalidHandleError):
        bench.start(token="mine", generation=CLEARED)


@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
@pytest.mark.parametrize("evicted", [False, True], ids=["at once", "evicted in between"])
def test_an_edit_made_while_a_submit_was_in_doubt_restarts_the_job_that_answers(recovery, evicted):
    """Also where the try that finds the job has taken the record up, and is started again before it could decide."""
    bench = Bench(recovery)
    bench.die_in_submit(spec=written("spec-a"))
    if evicted:
        attempt = bench.attempt(spec=written("spec-b"))
        bench.service.faults.arm("observe", times=99)
        with contextlib.suppress(LostSightError):
            start(attempt, bench.service)
        bench.service.faults.heal()
        bench.tries -= 1
    retry = bench.start(spec=written("spec-b"))
    assert (retry.handle.ids, bench.service.count("cancel")) == (1, 1)
    assert bench.service.jobs[0].verdict is not JobState.ACTIVE


# -- the store fails -----------------------------------------------------------------------------------------


def test_a_store_that_cannot_be_read_submits_nothing(bench):
    bench.store.faults.arm("get", times=STORE_TRIES)
    with pytest.raises(StateStoreError, match="could not be read") as caught:
        bench.start()
    assert bench.service.calls == []
    assert caught.value.retryable


def test_a_store_that_does_not_take_the_intent_submits_nothing(bench):
    bench.store.faults.arm("set", times=STORE_TRIES)
    with pytest.raises(StateStoreError, match="could not be written"):
        bench.start()
    assert bench.service.calls == []


@pytest.mark.parametrize("call", ["get", "set"])
@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.LOST_ANSWER])
def test_a_store_that_comes_back_in_time_is_waited_for(bench, call, fault):
    bench.store.faults.arm(call, fault, times=STORE_TRIES - 1)
    bench.start()
    assert len(bench.service.jobs) == 1
    assert bench.record.handle.ids == 0


def with_a_handle_that_cannot_be_written(recovery):
    bench = Bench(recovery)
    attempt = bench.attempt()
    attempt.begin()
    token, _ = attempt.intend()
    bench.store.faults.arm("set", times=STORE_TRIES)
    attempt.submitted(JobHandle("fake", bench.service.submit(token, None), {"region": "eu"}))
    return bench, attempt


@pytest.mark.parametrize("recovery", KNOWS_TOKENS)
def test_a_handle_that_cannot_be_written_loses_no_job(recovery):
    bench, attempt = with_a_handle_that_cannot_be_written(recovery)
    assert attempt.handle.ids == 0
    assert bench.record.in_doubt
    assert "could not be written" in bench.log.at("warning")[0]
    # the worker dies before it could write it later
    assert bench.start().handle.ids == 0
    assert len(bench.service.jobs) == 1


@pytest.mark.parametrize("recovery", [*KNOWS_TOKENS, Recovery.MANUAL])
def test_what_a_handle_that_cannot_be_written_means_for_the_next_try_is_said_as_it_is(recovery):
    bench, _ = with_a_handle_that_cannot_be_written(recovery)
    said = bench.log.at("warning")[0]
    assert ("the token finds the job" in said) is (recovery is not Recovery.MANUAL)
    assert ("no try submits again" in said) is (recovery is Recovery.MANUAL)


def test_a_handle_that_could_not_be_written_is_written_at_a_later_look(bench):
    attempt = bench.attempt()
    attempt.begin()
    token, _ = attempt.intend()
    bench.store.faults.arm("set", times=STORE_TRIES + 1)
    attempt.submitted(JobHandle("fake", bench.service.submit(token, None), {"region": "eu"}))
    attempt.flush()
    assert bench.record.in_doubt
    attempt.flush()
    assert bench.record.handle == attempt.handle
    writes = bench.store.calls.count("set")
    attempt.flush()
    assert bench.store.calls.count("set") == writes


def test_a_reattachment_is_not_given_up_because_the_store_does_not_take_it(bench):
    bench.start()
    bench.store.faults.arm("set", times=STORE_TRIES)
    retry = bench.start()
    assert retry.handle.ids == 0
    retry.flush()
    assert bench.record.owner == retry.owner


def test_an_outcome_that_cannot_be_noted_does_not_fail_the_task(bench):
    attempt = bench.start()
    bench.service.finish(0)
    bench.store.faults.arm("set", times=99)
    assert watch(attempt, bench.service) == 0


@pytest.mark.parametrize("call", ["get", "set"])
def test_what_stops_the_process_is_not_retried_by_the_store(bench, call):
    class TimeOut(BaseException):
        pass

    attempt, struck = bench.attempt(), []
    real = getattr(bench.store, call)

    def strike_once(*args):
        if not struck:
            struck.append(call)
            raise TimeOut
        return real(*args)

    setattr(bench.store, call, strike_once)
    with pytest.raises(TimeOut):
        start(attempt, bench.service)


def test_what_stops_the_process_is_not_retried_by_a_cancel(bench):
    class TimeOut(BaseException):
        pass

    bench.start()
    adapter, struck = FakeAdapter(bench.service), []

    def strike(handle):
        struck.append(handle)
        raise TimeOut

    adapter.cancel = strike
    with pytest.raises(TimeOut):
        bench.start(spec=written("spec-b"), adapter=adapter)
    assert len(struck) == 1


# -- two attempts alive --------------------------------------------------------------------------------------


@pytest.fixture(params=["fenced", "unfenced"])
def pair(request):
    """Return a bench with two views of its store: of a try that was given up, and of the one after it."""
    bench = Bench()
    current = ["old"]
    if request.param == "fenced":
        bench.old = FencedStore(bench.store, lambda: current[0] == "old")
        bench.new = FencedStore(bench.store, lambda: current[0] == "new")
    else:
        bench.old = bench.new = bench.store
    bench.hand_over = lambda: current.__setitem__(0, "new")
    return bench


def test_a_zombies_late_handle_does_not_overwrite_the_record(pair):
    zombie = pair.die_in_submit(store=pair.old)
    pair.hand_over()
    owner = pair.start(store=pair.new)
    kept = pair.record
    with pytest.raises(SupersededError):
        zombie.submitted(JobHandle("fake", 0, {"region": "eu"}))
    zombie.close(Outcome.FAILED)
    assert pair.record == kept
    assert pair.record.owner == owner.owner


def test_a_zombie_that_has_not_announced_its_submit_sends_nothing(pair):
    zombie = pair.attempt(store=pair.old)
    zombie.begin()
    pair.hand_over()
    owner = pair.start(store=pair.new)
    with pytest.raises(SupersededError, match=r"[Aa]nother"):
        zombie.intend()
    assert len(pair.service.jobs) == 1
    assert pair.record.owner == owner.owner


def test_a_zombie_that_sends_late_is_answered_with_the_one_job(pair):
    zombie = pair.die_before_submit(store=pair.old)
    pair.hand_over()
    pair.start(store=pair.new)
    assert pair.service.submit(zombie.record.token, None) == 0
    assert len(pair.service.jobs) == 1


def test_a_zombie_leaves_at_the_look_at_which_it_would_write(pair):
    zombie = pair.attempt(store=pair.old)
    zombie.begin()
    token, _ = zombie.intend()
    pair.store.faults.arm("set", times=STORE_TRIES)
    zombie.submitted(JobHandle("fake", pair.service.submit(token, None), {"region": "eu"}))
    pair.hand_over()
    owner = pair.start(store=pair.new)
    with pytest.raises(SupersededError):
        zombie.flush()
    assert pair.record.owner == owner.owner


def test_a_zombies_outcome_is_not_noted(pair):
    zombie = pair.start(store=pair.old)
    pair.hand_over()
    pair.start(store=pair.new)
    zombie.close(Outcome.CANCELLED)
    assert pair.record.outcome is None


def test_a_zombie_whose_time_is_up_leaves_the_job_to_its_owner(pair):
    from resumable.jobs import ending

    zombie = pair.start(store=pair.old)
    pair.hand_over()
    pair.start(store=pair.new)
    ending.timed_out(SimpleNamespace(attempt=zombie, context={}, log=pair.log))
    assert len(pair.service.active()) == 1


def test_a_zombie_that_had_decided_to_restart_cancels_nothing(pair):
    pair.start(store=pair.old)
    zombie = pair.attempt(store=pair.old, spec=written("spec-b"))
    observe = pair.service.observe

    def taken_over_meanwhile(job_id):
        pair.service.observe = observe
        pair.hand_over()
        pair.start(store=pair.new)  # the author took the change back
        return observe(job_id)

    pair.service.observe = taken_over_meanwhile
    with pytest.raises(SupersededError):
        zombie.begin()
    assert [job.id for job in pair.service.active()] == [0]


def test_an_attempt_that_reads_the_record_of_a_later_generation_leaves():
    bench = Bench()
    late = bench.attempt(generation=FIRST)
    bench.start(generation=CLEARED)
    with pytest.raises(SupersededError):
        late.begin()
    assert bench.service.count("cancel") == 0


# -- what is told --------------------------------------------------------------------------------------------


def is_complete(line):
    """Whether an INFO line names the job, the attempt, the age and the reason."""
    return re.fullmatch(
        r"resumable: [a-z ]+ fake \S.* "
        r"\(attempt \d+, try \d+, submission \d+, age \d\d:\d\d:\d\d(, state .+)?\): .{5,}",
        line,
    )


def told(bench):
    """Return what the INFO lines begin with; each is complete."""
    lines = bench.log.at("info")
    bench.log.kept.clear()
    assert all(is_complete(line) for line in lines), lines
    return [line.removeprefix("resumable: ").split(" fake ")[0] for line in lines]


def test_each_decision_is_told_in_one_line_that_names_job_attempt_age_and_reason(bench):
    bench.start()
    assert told(bench) == ["submitted"]
    bench.start()
    assert told(bench) == ["reattached to"]
    bench.service.finish(0)
    bench.start()
    assert told(bench) == ["no new submit for"]


def test_a_resubmission_is_told_with_the_job_that_ended_and_with_the_new_one(bench):
    bench.start()
    bench.fail()
    bench.start()
    assert told(bench) == ["submitted", "no new submit for", "submitting anew after", "submitted"]


def test_a_restart_is_told_before_it_cancels(bench):
    bench.start()
    bench.start(spec=written("spec-b"))
    assert told(bench) == ["submitted", "cancelling", "submitting anew after", "submitted"]


def test_a_repeated_submit_is_told_with_its_token_and_with_the_job_that_answered(bench):
    bench.die_in_submit()
    bench.start()
    assert TASK.token(FIRST, 0) in bench.log.at("info")[0]
    assert told(bench) == ["asking again for", "reattached to"]


def test_the_age_is_that_of_the_job_and_not_of_the_attempt(bench):
    bench.start()
    bench.clock.now += 3725
    bench.start()
    assert "age 01:02:05" in bench.log.at("info")[-1]


def test_the_age_of_a_job_that_was_looked_up_counts_from_its_intent():
    bench = Bench(Recovery.LOOK_UP)
    bench.die_in_submit()
    bench.clock.now += 3725
    bench.start()
    assert "age 01:02:05" in bench.log.at("info")[-1]


def lost_sight(bench):
    bench.start()
    bench.service.faults.arm("observe", times=99)
    bench.start()


def lost_sight_of_token(bench):
    bench.service.recovery = Recovery.LOOK_UP
    bench.die_in_submit()
    bench.service.faults.arm("find", times=99)
    bench.start()


def on_failed(bench):
    bench.start()
    bench.fail()
    bench.start(on_failed="fail")


def is_failing(bench):
    bench.start()
    bench.service.finish(0, JobState.FAILING)
    bench.start()


def gone(bench):
    bench.start()
    bench.service.jobs[0].forgotten = True
    bench.start()


def on_missing(bench):
    bench.start()
    bench.service.jobs[0].forgotten = True
    bench.start(on_missing="fail")


def on_change(bench):
    bench.start()
    bench.start(spec=written("spec-b"), on_change="fail")


def foreign(bench):
    bench.start()
    bench.start(adapter=FakeAdapter(bench.service, place={"region": "us"}))


def died_in_submit(bench):
    bench.service.recovery = Recovery.MANUAL
    bench.die_in_submit()
    bench.start()


def does_not_stop(bench):
    bench.service.looks_to_stop = 999
    bench.start()
    bench.start(spec=written("spec-b"))


def cannot_be_stopped(bench):
    bench.start()
    bench.service.faults.arm("cancel", times=99)
    bench.start(spec=written("spec-b"))


def has_no_cancel(bench):
    bench.start()
    adapter = FakeAdapter(bench.service)
    adapter.cancel = cannot_cancel
    bench.start(spec=written("spec-b"), adapter=adapter)


def used_up(bench):
    bench.start(token="mine")
    bench.fail()
    bench.start(token="mine")


def store_unreadable(bench):
    bench.store.faults.arm("get", times=99)
    bench.start()


def store_unwritable(bench):
    bench.store.faults.arm("set", times=99)
    bench.start()


def newer_record(bench):
    bench.start()
    bench.store.memory.set(KEY, bench.store.memory.get(KEY) | {"version": 2})
    bench.start()


def damaged_record(bench):
    bench.store.memory.set(KEY, {"version": 1})
    bench.start()


def superseded(bench):
    zombie = bench.attempt()
    zombie.begin()
    bench.start()
    zombie.intend()


def no_id(bench):
    attempt = bench.attempt()
    attempt.begin()
    attempt.intend()
    attempt.submitted(JobHandle("fake", None))


WAYS_TO_FAIL = {
    lost_sight: LostSightError,
    lost_sight_of_token: LostSightError,
    does_not_stop: LostSightError,
    cannot_be_stopped: LostSightError,
    on_failed: RefusedError,
    is_failing: errors.JobFailedError,
    gone: JobGoneError,
    on_missing: RefusedError,
    on_change: RefusedError,
    died_in_submit: RefusedError,
    has_no_cancel: RefusedError,
    foreign: ForeignJobError,
    used_up: InvalidHandleError,
    no_id: InvalidHandleError,
    store_unreadable: StateStoreError,
    store_unwritable: StateStoreError,
    newer_record: RecordError,
    damaged_record: RecordError,
    superseded: SupersededError,
}
JOB_NOW = re.compile(r"[Nn]othing was submitted|[Nn]o job was started|submits, cancels and writes nothing|A job may be running")
ADVICE = re.compile(
    r"\b([Ll]ook|[Cc]heck|[Cc]lear|[Ss]top|[Pp]oint|[Dd]elete|[Uu]ndo|[Uu]pgrade|[Mm]ake|[Ll]eave)\b"
    r"|next try (looks|goes|stops|submits)"
    r"|Nothing needs to be done"
)


@pytest.mark.parametrize(("way", "kind"), WAYS_TO_FAIL.items(), ids=[way.__name__ for way in WAYS_TO_FAIL])
def test_every_error_says_what_happened_what_became_of_the_job_and_what_to_do(bench, way, kind):
    with pytest.raises(kind) as caught:
        way(bench)
    text = str(caught.value)
    happened, job_now = text[: JOB_NOW.search(text).start()], JOB_NOW.search(text)
    assert type(caught.value) is kind
    assert len(happened) > 20
    assert ADVICE.search(text[job_now.end() :]), text
    assert text.endswith(".") or "Record: " in text
    assert len(bench.service.active()) <= 1


def test_an_error_after_a_repeated_submit_does_not_say_that_nothing_was_submitted(bench):
    bench.die_before_submit()
    bench.service.faults.arm("observe", times=99)
    with pytest.raises(LostSightError) as caught:
        bench.start()
    assert "Nothing was submitted" not in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)] + [SupersededError],
)
def test_every_error_survives_a_pickle(kind):
    again = pickle.loads(pickle.dumps(kind("what happened")))
    assert (type(again), str(again)) == (kind, "what happened")


def test_only_errors_that_no_other_try_can_mend_are_not_retryable():
    final = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, ResumableError) and not k.retryable}
    assert final == {
        *(errors.ConfigurationError, RefusedError, InvalidHandleError),
        *(errors.JobTimeoutError, errors.UnseenSubmitError),
    }


# -- a cancel ------------------------------------------------------------------------------------------------


def test_a_cancel_goes_out_once_and_is_told(bench):
    attempt = bench.start()
    told(bench)
    assert attempt.cancel("a user ended the task")
    assert bench.service.count("cancel") == 1
    assert told(bench) == ["cancelled"]


def test_a_cancel_that_fails_is_a_warning_and_no_error(bench):
    attempt = bench.start()
    bench.service.faults.arm("cancel")
    assert not attempt.cancel("a user ended the task")
    assert "may run on" in bench.log.at("warning")[0]


def test_there_is_nothing_to_cancel_before_there_is_a_job(bench):
    assert not bench.attempt().cancel("a user ended the task")
    assert bench.service.calls == []


# -- job_timeout -------------------------------------------------------------------------------------------


def test_the_time_of_a_job_counts_from_its_submission_over_all_attempts(bench):
    bench.start(job_timeout=100)
    bench.clock.now += 60
    retry = bench.start(job_timeout=100)
    assert not retry.is_overdue
    assert retry.remaining == pytest.approx(40)
    bench.clock.now += 41
    assert retry.is_overdue
    assert retry.remaining == 1.0


def test_a_job_that_was_seen_to_end_or_has_no_deadline_is_never_overdue(bench):
    attempt = bench.start(job_timeout=100)
    assert bench.start().remaining is None
    bench.clock.now += 1000
    assert attempt.is_overdue
    attempt.close(Outcome.SUCCEEDED)
    assert not attempt.is_overdue
    assert not bench.start().is_overdue


@pytest.mark.parametrize(("end", "is_stopped"), [(JobState.SUCCEEDED, False), (JobState.FAILED, True)])
def test_a_job_that_succeeds_while_it_is_told_to_stop_was_not_stopped(bench, end, is_stopped):
    attempt = bench.start(job_timeout=100)
    assert not attempt.was_stopped_overdue()
    bench.clock.now += 101
    attempt.adapter.cancel = lambda handle: bench.service.finish(handle.ids, end)
    assert attempt.stop_if_overdue()
    assert attempt.was_stopped_overdue() is is_stopped


def test_two_threads_that_find_a_job_overdue_cancel_it_once_and_both_know(bench):
    attempt = bench.start(job_timeout=100)
    bench.clock.now += 101
    told, both_look = [], threading.Barrier(2)
    observe = attempt.adapter.observe

    def observe_together(handle):
        seen = observe(handle)
        with contextlib.suppress(threading.BrokenBarrierError):
            both_look.wait(0.3)
        return seen

    attempt.adapter.observe = observe_together

    def ask():
        told.append(attempt.stop_if_overdue())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (bench.service.count("cancel"), told) == (1, [True, True])


def test_an_attempt_that_comes_back_from_a_deferral_is_the_one_that_deferred(bench):
    deferred = bench.start()
    resumed = bench.attempt()
    resumed.resume()
    assert (resumed.handle, resumed.owner) == (deferred.handle, deferred.owner)
    assert resumed.owns_record()
    resumed.close(Outcome.SUCCEEDED)
    assert (bench.record.outcome, bench.record.attempt) == (Outcome.SUCCEEDED, 1)


# -- a stop --------------------------------------------------------------------------------------------------

STATES = {
    "running": Stop.EVICTION,
    "restarting": Stop.CLEARED,
    "failed": Stop.BY_USER,
    "success": Stop.BY_USER,
    "skipped": Stop.BY_USER,
    "removed": Stop.BY_USER,
    "up_for_retry": Stop.SUPERSEDED,
    "up_for_reschedule": Stop.SUPERSEDED,
    "scheduled": Stop.SUPERSEDED,
    "queued": Stop.SUPERSEDED,
    None: Stop.SUPERSEDED,
    "a state of a later Airflow": Stop.SUPERSEDED,
}


@pytest.mark.parametrize(("state", "stop"), STATES.items(), ids=str)
def test_the_tasks_own_state_tells_why_it_is_stopped(state, stop):
    assert why(state) is stop


@pytest.mark.parametrize("on_timeout", OnTimeout)
@pytest.mark.parametrize("on_clear", OnClear)
@pytest.mark.parametrize("stop", Stop)
def test_only_a_users_stop_or_a_timeout_cancels_the_job(stop, on_clear, on_timeout):
    wanted = {
        Stop.BY_USER: True,
        Stop.CLEARED: on_clear is OnClear.RESTART,
        Stop.TIMED_OUT: on_timeout is OnTimeout.CANCEL,
    }
    assert cancels(stop, ResumePolicy(on_clear=on_clear, on_timeout=on_timeout).resolved()) is wanted.get(stop, False)


class Pauses:
    """Takes the place of `time` in the watching thread: what it waits for is a test's to say."""

    def __init__(self, clock):
        self.monotonic = clock
        self.caught = threading.Event()
        self.at_each = lambda: None
        self.pauses = 0
        self._clock = clock

    def sleep(self, seconds):
        if seconds < 1:
            self.pauses += 1
            self._clock.now += seconds
            self.at_each()
            threading.Event().wait(0.001)
        else:  # time for the main thread to leave, before it is told once more
            self.caught.wait(30)


def wait_to_be_told():
    """Wait for an exception of the signal handler, in short waits: a signal right before one is"
    " seen after it.
    """
    for _ in range(3000):
        threading.Event().wait(0.01)


def terminate_and_wait():
    os.kill(os.getpid(), signal.SIGTERM)
    wait_to_be_told()


@pytest.fixture
def pauses(bench, monkeypatch):
    pauses = Pauses(bench.clock)
    monkeypatch.setattr("resumable.stop.sigterm.time", pauses)
    return pauses


@pytest.fixture
def on_sigterm():
    """Return a function that says what a SIGTERM of this process calls."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda call: signal.signal(signal.SIGTERM, lambda *_: call())
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def terminate(bench, pauses, on_sigterm):
    """Return a function that sends SIGTERM to an attempt that waits, and returns what came out "
    "of the wait.
    """

    def terminate(attempt, ask, lock=None):
        lock = lock or threading.Lock()
        with Interruption(attempt, ask, request_lock=lock, log=bench.log) as interruption:
            on_sigterm(interruption.notice)
            with pytest.raises(Interrupted) as caught:
                terminate_and_wait()
            interruption.close()
            pauses.caught.set()
        wait_for_watchers()
        return caught.value.stop

    return terminate


OTHERS = set()
"""Threads of other tests, whose simulated process has died and never ended its watch."""


@pytest.fixture(autouse=True)
def other_watchers():
    OTHERS.clear()
    OTHERS.update(threading.enumerate())


def wait_for_watchers():
    """Wait until the threads that ask have done so; they leave once the attempt is over."""
    for thread in threading.enumerate():
        if thread.name.startswith("resumable") and thread not in OTHERS:
            thread.join(30)
            assert not thread.is_alive(), "".join(traceback.format_stack(sys._current_frames()[thread.ident]))


@pytest.mark.parametrize("state", STATES, ids=str)
def test_a_stop_leaves_the_wait_and_cancels_for_users_only(bench, terminate, state):
    attempt = bench.start()
    assert terminate(attempt, lambda: state) is STATES[state]
    wanted = STATES[state] in (Stop.BY_USER, Stop.CLEARED)
    assert bench.service.count("cancel") == int(wanted)
    assert ("is left running" in bench.log.at("info")[-1]) is not wanted


def test_a_clear_cancels_nothing_where_the_next_attempt_is_to_reattach(bench, terminate):
    assert terminate(bench.start(on_clear="reattach"), lambda: "restarting") is Stop.CLEARED
    assert bench.service.count("cancel") == 0


def test_a_stop_whose_reason_cannot_be_learned_leaves_the_job_running(bench, terminate):
    def ask():
        raise ConnectionError

    assert terminate(bench.start(), ask) is Stop.UNKNOWN
    assert bench.service.count("cancel") == 0
    assert "is left running" in bench.log.at("warning")[-1]


def test_a_zombie_that_a_user_seems_to_stop_leaves_the_job_to_its_owner(pair, terminate):
    zombie = pair.start(store=pair.old)
    pair.hand_over()
    pair.start(store=pair.new)
    assert terminate(zombie, lambda: "failed") is Stop.SUPERSEDED
    assert pair.service.count("cancel") == 0


def test_a_users_stop_is_not_lost_because_the_store_does_not_answer(bench, terminate):
    attempt = bench.start()
    bench.store.faults.arm("get", times=99)
    assert terminate(attempt, lambda: "failed") is Stop.BY_USER
    assert bench.service.count("cancel") == 1


def test_a_job_that_takes_too_long_is_cancelled_and_the_wait_left(bench, pauses, on_sigterm, monkeypatch):
    monkeypatch.setattr("resumable.stop.sigterm._DEADLINE_PAUSE", 0.01)
    attempt = bench.start(job_timeout=100)
    bench.clock.now += 101
    with Interruption(attempt, pytest.fail, request_lock=threading.Lock(), log=bench.log) as interruption:
        on_sigterm(interruption.notice)
        with pytest.raises(Interrupted) as caught:
            wait_to_be_told()
        interruption.close()
        pauses.caught.set()
    wait_for_watchers()
    assert caught.value.stop is Stop.JOB_TIMEOUT
    assert bench.service.active() == []


def test_a_cancel_that_the_service_does_not_take_leaves_the_wait_all_the_same(bench, terminate):
    attempt = bench.start()
    bench.service.faults.arm("cancel", times=99)
    assert terminate(attempt, lambda: "failed") is Stop.BY_USER
    assert bench.record.outcome is None
    assert "may run on" in bench.log.at("warning")[-1]


def test_without_a_stop_nothing_is_asked(bench, pauses):
    asked = []
    with Interruption(bench.start(), lambda: asked.append(1), request_lock=threading.Lock(), log=bench.log):
        pass
    wait_for_watchers()
    assert asked == []
    assert pauses.pauses == 0
    assert bench.service.count("cancel") == 0


def test_a_stop_after_the_end_neither_raises_nor_cancels(bench, on_sigterm):
    with Interruption(bench.start(), lambda: "failed", request_lock=threading.Lock(), log=bench.log) as interruption:
        on_sigterm(interruption.notice)
        interruption.close()
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for_watchers()
    assert bench.service.count("cancel") == 0


@pytest.mark.parametrize("state", ["failed", "restarting", "running", "queued"])
def test_a_signal_during_a_request_to_the_supervisor_neither_asks_nor_raises_before_its_end(bench, pauses, on_sigterm, state):
    attempt, requests, asked_in = bench.start(), threading.Lock(), []

    def ask():
        with requests:  # as any request to Airflow's supervisor does
            asked_in.append(threading.get_ident())
            return state

    handled = []
    with Interruption(attempt, ask, request_lock=requests, log=bench.log) as interruption:

        def handler():
            handled.append(requests.locked())
            interruption.notice()

        on_sigterm(handler)
        with requests:
            os.kill(os.getpid(), signal.SIGTERM)
            assert handled == [True]
            threading.Event().wait(0.05)  # the thread has its chance to do something wrong
            assert handled == [True]
            assert asked_in == []
        with pytest.raises(Interrupted):
            wait_to_be_told()
        interruption.close()
        pauses.caught.set()
    wait_for_watchers()
    assert len(asked_in) == 1
    assert asked_in[0] != threading.get_ident()
    assert bench.service.count("cancel") == int(state in ("failed", "restarting"))


def test_the_main_thread_is_told_again_if_code_swallows_the_interruption(bench, pauses, on_sigterm):
    swallowed = []
    with Interruption(bench.start(), lambda: "running", request_lock=threading.Lock(), log=bench.log) as interruption:
        on_sigterm(interruption.notice)
        try:
            terminate_and_wait()
        except BaseException as e:
            swallowed.append(e)
        pauses.caught.set()
        with pytest.raises(Interrupted):
            wait_to_be_told()
        interruption.close()
    wait_for_watchers()
    assert len(swallowed) == 1


def test_a_signal_that_the_main_thread_slept_through_is_sent_again(bench, pauses, on_sigterm, monkeypatch):
    sent = []
    heard = threading.Event()

    def kill(pid, signum):
        sent.append(signum)
        if len(sent) > 1:
            os.kill(pid, signum)
            heard.wait(10)  # `pauses` take no time here: without this the next sending might overtake the main thread

    double = SimpleNamespace(pipe=os.pipe, read=os.read, write=os.write, close=os.close, getpid=os.getpid, kill=kill)
    monkeypatch.setattr("resumable.stop.sigterm.os", double)
    with Interruption(bench.start(), lambda: "running", request_lock=threading.Lock(), log=bench.log) as interruption:
        on_sigterm(interruption.notice)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            while pauses.pauses < 500:  # ten seconds
                threading.Event().wait(0.01)
        except Interrupted:
            pass
        pauses.caught.set()
        heard.set()
        interruption.close()
    wait_for_watchers()
    assert len(sent) == 2


def test_an_answer_that_is_still_waited_for_is_still_followed_by_the_cancel(bench, no_answer, pauses, terminate):
    late = bench.clock.now + HANDLE_GRACE_SECONDS + 1
    answer = JobHandle("fake", 0, {"region": "eu"})
    pauses.at_each = lambda: bench.clock.now > late and no_answer.in_doubt and no_answer.submitted(answer)
    terminate(no_answer, lambda: "failed")
    assert bench.service.active() == [] or no_answer.in_doubt


def test_a_users_stop_waits_for_the_answer_of_a_submit_that_is_under_way(bench, pauses, terminate):
    attempt = bench.attempt()
    attempt.begin()
    token, _ = attempt.intend()
    answer = JobHandle("fake", bench.service.submit(token, None), {"region": "eu"})
    pauses.at_each = lambda: attempt.in_doubt and attempt.submitted(answer)
    assert terminate(attempt, lambda: "failed") is Stop.BY_USER
    assert bench.service.active() == []


@pytest.fixture
def no_answer(bench):
    """Return an attempt whose submit stays without an answer."""
    attempt = bench.attempt()
    attempt.begin()
    bench.service.submit(attempt.intend()[0], None)
    return attempt


def test_a_users_stop_waits_for_an_answer_within_the_seconds_that_are_left_and_warns(bench, no_answer, terminate):
    assert HANDLE_GRACE_SECONDS < 5
    assert terminate(no_answer, lambda: "failed") is Stop.BY_USER
    assert bench.record.in_doubt
    assert "its submit was not answered" in "".join(bench.log.at("warning"))


def test_a_users_stop_while_the_attempt_still_looks_cancels_the_job_of_the_record(bench, terminate):
    bench.start()
    bench.service.faults.arm("observe", times=99)
    attempt = bench.attempt()
    with pytest.raises(LostSightError):
        attempt.begin()
    terminate(attempt, lambda: "failed")
    assert bench.service.active() == []


# -- the doubles ---------------------------------------------------------------------------------------------


def test_the_store_in_memory_keeps_no_reference_to_what_it_was_given():
    store, value = MemoryStore(), {"a": [1]}
    store.set("k", value)
    value["a"].append(2)
    store.get("k")["a"].append(3)
    assert store.get("k") == {"a": [1]}
    store.delete("k")
    store.delete("k")
    assert store.get("k") is None


def test_the_store_in_memory_refuses_what_a_real_one_cannot_keep():
    with pytest.raises(TypeError):
        MemoryStore().set("k", object())
