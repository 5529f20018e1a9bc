"""`decide` is the table of the design: what an attempt does about the job of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from resumable.errors import ForeignJobError, JobFailedError, JobGoneError, LostSightError, RecordError, RefusedError
from resumable.identity import Generation
from resumable.jobs.decision import (
    AttemptFacts,
    Conclude,
    Deliver,
    Find,
    JobState,
    Look,
    Observation,
    Reattach,
    Recovery,
    Refuse,
    Restart,
    Submit,
    decide,
    is_cleared,
)
from resumable.jobs.record import KEY, JobHandle, JobRecord, Outcome
from resumable.policy import OnChange, OnClear, OnFailed, OnMissing, ResumePolicy
from tests.support.fake_service import CLEARED, FIRST, Clock, FakeService, FaultyStore, new_attempt
from tests.support.specs import written

MISSED = (AssertionError, pytest.fail.Exception)
HANDLE = JobHandle("fake", 7, {"region": "eu"})
INTENT = JobRecord("fake", "t" * 48, FIRST, 2, "owner", 1, 1.0, spec=written("spec-a"), place={"region": "eu"}, try_number=1)
SUBMITTED = INTENT.with_handle(HANDLE, 2.0)
CLOSED = {outcome: SUBMITTED.closed(outcome, 3.0) for outcome in Outcome if outcome is not Outcome.REJECTED}
REJECTED = INTENT.closed(Outcome.REJECTED, 3.0)

SAME = AttemptFacts(FIRST, written("spec-a"), try_number=2)
CHANGED = AttemptFacts(FIRST, written("spec-b"), try_number=2)
AFTER_CLEAR = AttemptFacts(CLEARED, written("spec-a"), try_number=3)
SAME_TRY = replace(SAME, try_number=1)
ACTIVE, SUCCEEDED, FAILED = JobState.ACTIVE, JobState.SUCCEEDED, JobState.FAILED


def asked(record, state=None, claim=SAME, **policy):
    """Return the decision after one look that showed *state*."""
    seen = None if state is None else Observation(state)
    return decide(record, seen, ResumePolicy(**policy).resolved(), claim)


# -- record: none, or an intent ------------------------------------------------------------------------------


@pytest.mark.parametrize("recovery", Recovery)
def test_no_record_submits_the_first_submission(recovery):
    assert asked(None, claim=replace(SAME, recovery=recovery)) == Submit(0, "no job yet")


@pytest.mark.parametrize("claim", [SAME, CHANGED, AFTER_CLEAR], ids=["same", "changed", "cleared"])
def test_an_intent_goes_out_again_under_its_token_where_the_service_knows_tokens(claim):
    decision = asked(INTENT, claim=replace(claim, recovery=Recovery.REPEAT))
    assert isinstance(decision, Submit)
    assert decision.in_doubt
    assert decision.submission == INTENT.submission


@pytest.mark.parametrize("claim", [SAME, CHANGED, AFTER_CLEAR], ids=["same", "changed", "cleared"])
def test_an_intent_is_looked_up_before_anything_is_submitted_where_tokens_can_be_found(claim):
    assert asked(INTENT, claim=replace(claim, recovery=Recovery.LOOK_UP)) == Find()


@pytest.mark.parametrize("claim", [SAME, CHANGED], ids=["same", "changed"])
def test_an_intent_whose_token_no_job_carries_is_submitted_as_the_same_submission(claim):
    decision = asked(INTENT, JobState.ABSENT, replace(claim, recovery=Recovery.LOOK_UP))
    assert isinstance(decision, Submit)
    assert (decision.submission, decision.in_doubt) == (INTENT.submission, False)


def test_after_a_clear_an_intent_whose_token_no_job_carries_begins_the_new_generation():
    decision = asked(INTENT, JobState.ABSENT, replace(AFTER_CLEAR, recovery=Recovery.LOOK_UP))
    assert isinstance(decision, Submit)
    assert (decision.submission, decision.in_doubt) == (0, False)


def test_strict_refuses_where_a_lookup_finds_nothing():
    decision = asked(INTENT, JobState.ABSENT, replace(SAME, recovery=Recovery.LOOK_UP), strict=True)
    assert isinstance(decision, Refuse)
    assert decision.error is RefusedError
    assert "strict=True" in decision.reason


def test_strict_lets_a_clear_submit_after_a_lookup_that_found_nothing():
    assert isinstance(asked(INTENT, JobState.ABSENT, replace(AFTER_CLEAR, recovery=Recovery.LOOK_UP), strict=True), Submit)


def test_an_intent_older_than_its_token_is_never_submitted_again_by_itself():
    assert isinstance(asked(INTENT, claim=replace(SAME, recovery=Recovery.EXPIRED)), Refuse)


@pytest.mark.parametrize("claim", [SAME, CHANGED], ids=["same", "changed"])
def test_an_intent_that_nothing_can_clear_up_is_never_submitted_again_by_itself(claim):
    decision = asked(INTENT, claim=replace(claim, recovery=Recovery.MANUAL))
    assert isinstance(decision, Refuse)
    assert decision.error is RefusedError
    assert "find_job" in decision.advice


def test_a_clear_of_an_intent_that_nothing_can_clear_up_submits_with_a_warning():
    decision = asked(INTENT, claim=replace(AFTER_CLEAR, recovery=Recovery.MANUAL))
    assert isinstance(decision, Submit)
    assert (decision.submission, decision.warn) == (0, True)


# -- this generation, same spec ------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [SAME, CHANGED, AFTER_CLEAR], ids=["same", "changed", "cleared"])
def test_a_job_that_was_not_seen_to_end_is_looked_at_first(claim):
    assert asked(SUBMITTED, claim=claim) == Look()


def test_an_active_job_is_reattached_to():
    assert isinstance(asked(SUBMITTED, ACTIVE), Reattach)


def test_a_job_that_has_succeeded_is_delivered():
    assert isinstance(asked(SUBMITTED, SUCCEEDED), Deliver)


def test_a_job_that_was_seen_to_succeed_is_delivered_without_a_look():
    assert isinstance(asked(CLOSED[Outcome.SUCCEEDED]), Deliver)


@pytest.mark.parametrize("claim", [SAME, SAME_TRY], ids=["a later try", "the same try"])
def test_a_start_that_sees_its_job_fail_lets_the_operator_give_its_verdict_and_never_submits(claim):
    assert isinstance(asked(SUBMITTED, FAILED, claim), Conclude)
    assert isinstance(asked(SUBMITTED, FAILED, claim, on_failed="fail"), Conclude)


@pytest.mark.parametrize("claim", [SAME, SAME_TRY], ids=["a later try", "the same try"])
def test_a_start_that_sees_its_job_gone_closes_the_record_fails_the_try_and_never_submits(claim):
    decision = asked(SUBMITTED, JobState.GONE, claim)
    assert (type(decision), decision.error, decision.closes) == (Refuse, JobGoneError, Outcome.GONE)
    assert JobGoneError.retryable


@pytest.mark.parametrize("claim", [SAME, SAME_TRY], ids=["a later try", "the same try"])
def test_a_start_that_sees_its_job_failing_fails_the_try_and_leaves_the_record_open(claim):
    decision = asked(SUBMITTED, JobState.FAILING, claim)
    assert (type(decision), decision.error, decision.closes, decision.notes_failing) == (Refuse, JobFailedError, None, True)
    assert JobFailedError.retryable


NOTED = replace(SUBMITTED, failing_try=1)


def test_a_try_after_one_that_failed_for_a_failing_job_stops_the_rest_and_submits():
    assert asked(NOTED, JobState.FAILING).submission == INTENT.submission + 1
    assert isinstance(asked(NOTED, JobState.FAILING), Restart)
    assert isinstance(asked(NOTED, FAILED), Submit)
    assert isinstance(asked(NOTED, SUCCEEDED), Deliver)
    assert isinstance(asked(NOTED, JobState.FAILING, on_failed="fail"), Refuse)


def test_with_an_edit_that_reattaches_a_failing_job_costs_one_try_too():
    policy = {"on_change": "reattach"}
    assert asked(SUBMITTED, JobState.FAILING, CHANGED, **policy).notes_failing
    assert asked(NOTED, JobState.FAILING, CHANGED, **policy) == Restart(
        SUBMITTED.submission + 1, "the job had failed in an earlier try, and parts of it still run (FAILING)"
    )


def test_a_start_of_the_try_that_failed_for_a_failing_job_still_submits_nothing():
    assert isinstance(asked(NOTED, JobState.FAILING, SAME_TRY), Refuse)
    assert isinstance(asked(NOTED, FAILED, SAME_TRY), Conclude)


STOPPING = replace(SUBMITTED, stopping="the author changed the job")


@pytest.mark.parametrize("claim", [SAME, SAME_TRY, CHANGED, AFTER_CLEAR], ids=["same", "same try", "changed", "cleared"])
def test_a_job_that_an_attempt_had_told_to_stop_has_not_failed_by_itself(claim):
    assert isinstance(asked(STOPPING, FAILED, claim), Submit)
    assert isinstance(asked(STOPPING, ACTIVE, claim), Restart)
    assert isinstance(asked(STOPPING, ACTIVE, replace(claim), on_clear="reattach"), Restart)


def test_within_one_try_nothing_counts_as_a_change_of_the_author():
    changed = replace(CHANGED, try_number=1)
    assert isinstance(asked(SUBMITTED, ACTIVE, changed), Reattach)
    assert isinstance(asked(SUBMITTED, FAILED, changed), Conclude)
    assert isinstance(asked(SUBMITTED, SUCCEEDED, changed), Deliver)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.GONE])
def test_a_job_that_was_seen_to_end_badly_is_followed_by_the_next_submission_without_a_look(outcome):
    decision = asked(CLOSED[outcome])
    assert isinstance(decision, Submit)
    assert decision.submission == INTENT.submission + 1


@pytest.mark.parametrize("recovery", Recovery)
def test_a_job_that_was_gone_before_its_id_was_known_leaves_no_doubt_and_follows_on_missing(recovery):
    gone = INTENT.closed(Outcome.GONE, 3.0)
    claim = replace(SAME, recovery=recovery)
    decision = asked(gone, claim=claim)
    assert (decision.submission, decision.in_doubt) == (INTENT.submission + 1, False)
    assert "on_missing=fail" in asked(gone, claim=claim, on_missing="fail").reason
    cleared = asked(gone, claim=replace(AFTER_CLEAR, recovery=recovery), on_missing="fail")
    assert (cleared.submission, cleared.in_doubt) == (0, False)


@pytest.mark.parametrize("where", ["look", "record"])
@pytest.mark.parametrize(
    ("setting", "state", "outcome"),
    [("on_failed", FAILED, Outcome.FAILED), ("on_missing", JobState.GONE, Outcome.GONE)],
)
def test_the_policy_fail_submits_nothing_and_names_itself(setting, state, outcome, where):
    record, seen = (NOTED if state is FAILED else SUBMITTED, state) if where == "look" else (CLOSED[outcome], None)
    decision = asked(record, seen, **{setting: "fail"})
    assert isinstance(decision, Refuse)
    assert decision.error is RefusedError
    assert f"{setting}=fail" in decision.reason


def test_on_missing_says_nothing_of_failed_jobs_and_on_failed_nothing_of_missing_ones():
    assert isinstance(asked(CLOSED[Outcome.FAILED], on_missing="fail"), Submit)
    assert isinstance(asked(CLOSED[Outcome.GONE], on_failed="fail"), Submit)
    assert asked(SUBMITTED, JobState.GONE, on_failed="fail").error is JobGoneError


def test_a_failed_job_is_not_taken_for_a_missing_one_by_the_words_of_its_service():
    decision = decide(SUBMITTED, Observation(FAILED, "gone"), ResumePolicy(on_missing="fail").resolved(), SAME)
    assert isinstance(decision, Conclude)


def test_a_job_that_failed_while_parts_of_it_run_is_left_alone_under_on_failed_fail():
    decision = asked(SUBMITTED, JobState.FAILING, on_failed="fail")
    assert (type(decision), decision.error) == (Refuse, RefusedError)


@pytest.mark.parametrize("claim", [SAME, CHANGED, AFTER_CLEAR], ids=["same", "changed", "cleared"])
@pytest.mark.parametrize("record", [INTENT, SUBMITTED], ids=["intent", "submitted"])
def test_an_unknown_state_is_a_retryable_error_and_never_a_submit(record, claim):
    decision = asked(record, JobState.UNKNOWN, claim)
    assert isinstance(decision, Refuse)
    assert decision.error is LostSightError
    assert LostSightError.retryable


@pytest.mark.parametrize("claim", [SAME, CHANGED, AFTER_CLEAR], ids=["same", "changed", "cleared"])
@pytest.mark.parametrize("record", [INTENT, SUBMITTED], ids=["intent", "submitted"])
def test_a_connection_that_points_elsewhere_is_an_error_and_never_a_submit(record, claim):
    decision = decide(
        record,
        Observation(JobState.FOREIGN, "region us"),
        ResumePolicy().resolved(),
        replace(claim, recovery=Recovery.LOOK_UP),
    )
    assert isinstance(decision, Refuse)
    assert decision.error is ForeignJobError
    assert "region us" in decision.reason


def test_a_refused_submit_is_made_again_as_the_same_submission():
    decision = asked(REJECTED)
    assert isinstance(decision, Submit)
    assert (decision.submission, decision.in_doubt) == (INTENT.submission, False)


TOLD_TO_STOP = CLOSED[Outcome.CANCELLED]


def test_a_job_that_was_told_to_stop_is_looked_at_before_another_is_submitted():
    assert asked(TOLD_TO_STOP) == asked(TOLD_TO_STOP, claim=AFTER_CLEAR) == Look()
    assert isinstance(asked(TOLD_TO_STOP, ACTIVE), Restart)
    assert isinstance(asked(TOLD_TO_STOP, ACTIVE, AFTER_CLEAR), Restart)


def test_a_job_that_has_stopped_is_followed_by_the_next_submission_even_under_on_failed_fail():
    decision = asked(TOLD_TO_STOP, FAILED, on_failed="fail")
    assert isinstance(decision, Submit)
    assert decision.submission == INTENT.submission + 1


def test_a_job_that_succeeds_although_it_was_told_to_stop_is_delivered_but_after_a_clear_or_an_edit():
    assert isinstance(asked(TOLD_TO_STOP, SUCCEEDED), Deliver)
    assert isinstance(asked(TOLD_TO_STOP, SUCCEEDED, AFTER_CLEAR), Submit)
    assert isinstance(asked(TOLD_TO_STOP, SUCCEEDED, CHANGED), Submit)


@pytest.mark.parametrize("state", [None, ACTIVE])
def test_a_task_that_does_not_wait_delivers_a_submitted_job_as_it_is(state):
    assert isinstance(asked(SUBMITTED, state, replace(SAME, waits=False)), Deliver)


# -- this generation, the author changed the spec ------------------------------------------------------------


@pytest.mark.parametrize("state", [ACTIVE, JobState.FAILING])
def test_a_changed_job_that_runs_is_restarted_as_the_next_submission(state):
    decision = asked(SUBMITTED, state, CHANGED)
    assert isinstance(decision, Restart)
    assert decision.submission == INTENT.submission + 1


ONE_JOB = "its token 'mine' is your own and unchanged"


@pytest.mark.parametrize("claim", [CHANGED, AFTER_CLEAR])
def test_a_job_is_not_stopped_for_another_one_that_cannot_come(claim):
    decision = asked(SUBMITTED, ACTIVE, replace(claim, one_job=ONE_JOB))
    assert isinstance(decision, Reattach)
    assert decision.warn
    assert ONE_JOB in decision.reason
    assert "It is not cancelled. To have another job, change that as well" in decision.reason


@pytest.mark.parametrize("claim", [CHANGED, AFTER_CLEAR])
def test_what_still_runs_of_a_failing_job_is_not_stopped_for_another_one_that_cannot_come(claim):
    decision = asked(SUBMITTED, JobState.FAILING, replace(claim, one_job=ONE_JOB))
    assert isinstance(decision, Refuse)
    assert decision.error is RefusedError
    assert decision.notes_failing
    before = replace(SUBMITTED, failing_try=1)
    assert isinstance(asked(before, JobState.FAILING, replace(SAME, one_job=ONE_JOB)), Refuse)


def test_where_no_other_job_can_come_a_success_is_delivered_after_an_edit_and_never_after_a_clear():
    for record, state in ((SUBMITTED, SUCCEEDED), (CLOSED[Outcome.SUCCEEDED], None)):
        decision = asked(record, state, replace(CHANGED, one_job=ONE_JOB))
        assert isinstance(decision, Deliver)
        assert decision.warn
        assert isinstance(asked(record, state, replace(AFTER_CLEAR, one_job=ONE_JOB)), Submit)


def test_a_job_that_was_told_to_stop_is_stopped_also_where_no_other_can_come():
    assert isinstance(asked(TOLD_TO_STOP, ACTIVE, replace(AFTER_CLEAR, one_job=ONE_JOB)), Restart)


def test_a_changed_job_that_runs_is_reattached_to_where_the_policy_says_so():
    assert isinstance(asked(SUBMITTED, ACTIVE, CHANGED, on_change="reattach"), Reattach)


def test_a_changed_job_that_runs_is_an_error_where_the_policy_says_so():
    decision = asked(SUBMITTED, ACTIVE, CHANGED, on_change="fail")
    assert isinstance(decision, Refuse)
    assert decision.error is RefusedError


@pytest.mark.parametrize("on_change", [p.value for p in OnChange])
@pytest.mark.parametrize("state", [SUCCEEDED, FAILED, JobState.GONE])
def test_a_changed_job_whose_earlier_one_has_ended_is_submitted(state, on_change):
    decision = asked(SUBMITTED, state, CHANGED, on_change=on_change, on_failed="fail", on_missing="fail")
    assert isinstance(decision, Submit)
    assert decision.submission == INTENT.submission + 1


@pytest.mark.parametrize("outcome", [o for o in CLOSED if o is not Outcome.CANCELLED])
def test_a_changed_job_whose_earlier_one_was_seen_to_end_is_submitted_without_a_look(outcome):
    decision = asked(CLOSED[outcome], claim=CHANGED, on_failed="fail", on_missing="fail")
    assert isinstance(decision, Submit)
    assert decision.submission == INTENT.submission + 1


def test_a_changed_job_is_looked_at_also_by_a_task_that_does_not_wait():
    assert asked(SUBMITTED, claim=replace(CHANGED, waits=False)) == Look()


@pytest.mark.parametrize(("kept", "claimed"), [(None, written("spec-a")), (written("spec-a"), None)])
def test_a_spec_that_is_not_known_is_not_taken_for_a_change(kept, claimed):
    decision = asked(replace(SUBMITTED, spec=kept), ACTIVE, AttemptFacts(FIRST, claimed))
    assert isinstance(decision, Reattach)


# -- an older generation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [AFTER_CLEAR, AttemptFacts(CLEARED, written("spec-b"))], ids=["same spec", "changed"])
@pytest.mark.parametrize("state", [ACTIVE, JobState.FAILING])
def test_a_cleared_task_restarts_its_active_job_as_the_first_submission(state, claim):
    decision = asked(SUBMITTED, state, claim)
    assert isinstance(decision, Restart)
    assert decision.submission == 0


def test_a_cleared_task_reattaches_to_its_active_job_where_the_policy_says_so():
    assert isinstance(asked(SUBMITTED, ACTIVE, AFTER_CLEAR, on_clear="reattach"), Reattach)


@pytest.mark.parametrize("on_clear", [p.value for p in OnClear])
@pytest.mark.parametrize("state", [SUCCEEDED, FAILED, JobState.GONE])
def test_a_cleared_task_whose_job_has_ended_runs_again(state, on_clear):
    decision = asked(SUBMITTED, state, AFTER_CLEAR, on_clear=on_clear, on_failed="fail", on_missing="fail")
    assert isinstance(decision, Submit)
    assert decision.submission == 0


SEEN_TO_END = {o.value: record for o, record in CLOSED.items() if o is not Outcome.CANCELLED}


@pytest.mark.parametrize("record", [*SEEN_TO_END.values(), REJECTED], ids=[*SEEN_TO_END, "rejected"])
def test_a_cleared_task_whose_job_was_seen_to_end_runs_again_without_a_look(record):
    decision = asked(record, claim=AFTER_CLEAR, on_failed="fail", on_missing="fail")
    assert isinstance(decision, Submit)
    assert decision.submission == 0


def test_a_clear_after_a_noted_success_runs_again_although_max_tries_collides():
    clear_number_moved = replace(SAME, generation=Generation(1, 1, FIRST.run_started))
    assert isinstance(asked(CLOSED[Outcome.SUCCEEDED], claim=clear_number_moved), Submit)


def test_a_success_that_airflow_never_heard_of_is_delivered_although_a_sibling_was_cleared():
    done = replace(CLOSED[Outcome.SUCCEEDED], generation=replace(FIRST, retries=3))
    moved = Generation(FIRST.max_tries, 1, FIRST.run_started, 3)
    assert isinstance(asked(done, claim=AttemptFacts(moved, written("spec-a"))), Deliver)
    other_retries = AttemptFacts(replace(moved, retries=0), written("spec-a"))
    assert isinstance(asked(done, claim=other_retries), Submit)  # then max_tries may collide


def test_a_clear_of_a_sibling_neither_restarts_nor_repeats_a_job_that_is_not_known_to_have_ended():
    clear_number_moved = replace(SAME, generation=Generation(1, 1, FIRST.run_started))
    assert isinstance(asked(SUBMITTED, ACTIVE, clear_number_moved), Reattach)
    assert isinstance(asked(SUBMITTED, SUCCEEDED, clear_number_moved), Deliver)


# -- what cannot be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stored",
    [SUBMITTED.to_json() | {"version": 2}, {}, "text", 5, {"version": 1}],
    ids=["newer", "{}", "str", "int", "bare"],
)
def test_a_newer_or_unreadable_record_never_reaches_decide(stored, monkeypatch):
    monkeypatch.setattr("resumable.jobs.attempt.decide", lambda *_: pytest.fail("decide was asked"))
    service, store = FakeService(Recovery.REPEAT, Clock()), FaultyStore()
    store.memory.set(KEY, stored)
    with pytest.raises(RecordError):
        new_attempt(service, store).begin()
    assert service.calls == []


# -- everything at once --------------------------------------------------------------------------------------

RECORDS = [None, INTENT, SUBMITTED, NOTED, STOPPING, *CLOSED.values(), REJECTED]
POLICIES = [
    ResumePolicy(*choice, on_timeout=None, on_final_failure=None).resolved()
    for choice in product(OnFailed, OnMissing, OnChange, OnClear)
]
CLAIMS = [
    AttemptFacts(generation, spec, recovery, waits, try_number)
    for generation, spec, recovery, waits, try_number in product(
        (FIRST, CLEARED, Generation(1, 5, FIRST.run_started)),
        (written("spec-a"), written("spec-b"), None),
        Recovery,
        (True, False),
        (1, 2),
    )
]
RUNS_OR_CANNOT_BE_SEEN = {ACTIVE, JobState.FAILING, JobState.UNKNOWN, JobState.FOREIGN}
FINAL = Submit | Reattach | Deliver | Conclude | Restart | Refuse


def settled(record, truth, policy, claim):
    """Walk as an attempt does, the job being in state *truth*; return the final decision and "
    "the looks taken.
    """
    seen = Observation(truth) if truth is JobState.FOREIGN and record and record.outcome is None else None
    taken = []
    while isinstance(decision := decide(record, seen, policy, claim), Look | Find):
        taken.append(decision)
        assert len(taken) <= 2, "decide does not come to an end"
        if isinstance(decision, Look):
            assert record.handle is not None
            seen = Observation(truth)
        elif truth in (JobState.ABSENT, JobState.UNKNOWN):
            seen = Observation(truth)
        else:
            record, seen = record.with_handle(HANDLE, 2.0), None
    assert isinstance(decision, FINAL)
    return decision, taken


@pytest.mark.parametrize("truth", JobState)
def test_every_combination_comes_to_an_end_and_starts_no_second_job(truth):
    for record, policy, claim in product(RECORDS, POLICIES, CLAIMS):
        decision, taken = settled(record, truth, policy, claim)
        why = (record, policy, claim, decision)
        has_looked = bool(taken) or truth is JobState.FOREIGN
        if record is None or record.outcome not in (None, Outcome.CANCELLED):
            assert not taken, why
        elif has_looked and truth in RUNS_OR_CANNOT_BE_SEEN:
            assert not isinstance(decision, Submit), why
        if isinstance(decision, Restart | Reattach):
            assert truth in (ACTIVE, JobState.FAILING, JobState.REPAIRABLE), why
        if truth in (FAILED, JobState.FAILING, JobState.GONE) and has_looked and isinstance(decision, Submit | Restart):
            assert (
                is_cleared(record, claim)
                or record.outcome is Outcome.CANCELLED
                or record.stopping
                or (record.try_number != claim.try_number and (record.failing_try or record.spec != claim.spec))
                or decision.in_doubt
            ), why
        if isinstance(decision, Conclude):
            assert truth in (FAILED, JobState.ABSENT), why
        if isinstance(decision, Deliver) and claim.waits:
            assert truth is SUCCEEDED or record.outcome is Outcome.SUCCEEDED, why
        if isinstance(decision, Submit) and decision.in_doubt:
            assert record.in_doubt, why
            assert claim.recovery is Recovery.REPEAT, why


@pytest.mark.parametrize("seen", [None, *JobState], ids=str)
def test_every_combination_of_a_single_question_has_an_answer(seen):
    observation = None if seen is None else Observation(seen)
    for record, policy, claim in product(RECORDS, POLICIES, CLAIMS):
        decision = decide(record, observation, policy, claim)
        why = (record, policy, claim, decision)
        assert isinstance(decision, FINAL | Look | Find), why
        if record is not None and seen is JobState.UNKNOWN:
            assert isinstance(decision, Refuse), why
            assert decision.error is LostSightError, why
        if record is not None and record.handle and record.outcome is None and seen in RUNS_OR_CANNOT_BE_SEEN:
            assert not isinstance(decision, Submit), why
        if isinstance(decision, Look | Find):
            assert observation is None or record.in_doubt, why


def test_a_submission_number_never_falls_within_a_generation_and_moves_by_one_at_most():
    for record, policy, claim, truth in product(RECORDS[1:], POLICIES, CLAIMS, JobState):
        decision, _ = settled(record, truth, policy, claim)
        if isinstance(decision, Submit | Restart):
            allowed = (0, 2) if claim.generation == CLEARED or is_cleared(record, claim) else (2, 3)
            assert decision.submission in allowed, (record, policy, claim, truth, decision)


def test_every_refusal_says_what_can_be_done():
    for record, policy, claim, truth in product(RECORDS[1:], POLICIES, CLAIMS, JobState):
        decision, _ = settled(record, truth, policy, claim)
        if isinstance(decision, Refuse):
            assert len(decision.reason) > 20
            assert len(f"{decision.advice}{decision.next_try}") > 15
