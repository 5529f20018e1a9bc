"""A record is small, readable by a person, and readable by every later release."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable.errors import InvalidHandleError, RecordError
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.record import KEY, MAX_BYTES, MAX_HANDLE_BYTES, VERSION, JobHandle, JobRecord, Outcome
from resumable.jobs.spec import Spec
from resumable.stores import MemoryStore, RecordStore
from tests.support.specs import written

MISSED = (AssertionError, pytest.fail.Exception)
GOLDEN = Path(__file__).parent / "records"
TOKEN = "5d0c7f1be2a94c6f83e1f0b7a6d2c94e1f3a5b7c9d0e2f41"
FIRST = Generation(1, 0, "2026-01-01T00:00:07.250000+00:00")
WORKSPACE = {"workspace": "adb-1.azuredatabricks.net"}
INTENT = JobRecord(
    "databricks",
    TOKEN,
    FIRST,
    0,
    "3f9d2c71ab04",
    1,
    1767225660.125,
    spec=written("as written"),
    params={"run_name": "nightly", "tasks": [{"task_key": "load"}]},
    place=WORKSPACE,
)
RUN = JobHandle("databricks", {"run_id": 734912}, WORKSPACE)

# -- round trips ---------------------------------------------------------------------------------------------

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(max_size=20)
scalars = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
ids = values.filter(lambda v: v is not None and v not in ("", [], {}))
places = st.dictionaries(texts, texts, max_size=3)
times = st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000)


@st.composite
def records(draw):
    """Records of every kind. A record with a handle lives where its handle does."""
    place = draw(places)
    record = JobRecord(
        service=draw(texts),
        token=draw(texts),
        generation=Generation(draw(st.integers()), draw(st.none() | st.integers()), draw(st.none() | texts)),
        submission=draw(st.integers(0)),
        owner=draw(texts),
        attempt=draw(st.integers(0)),
        intended_at=draw(times),
        spec=draw(st.none() | texts.map(written)),
        params=draw(values),
        place=place,
    )
    if draw(st.booleans()):
        record = record.with_handle(JobHandle(record.service, draw(ids), place), draw(times))
    if draw(st.booleans()):
        allowed = set(Outcome) - {Outcome.REJECTED} if record.handle else {Outcome.REJECTED}
        record = record.closed(draw(st.sampled_from(sorted(allowed))), draw(times))
    return record


@UNHURRIED
@given(records())
def test_a_record_comes_back_from_the_store_as_it_was(record):
    store = RecordStore(MemoryStore())
    store.save(record)
    kept = store.load()
    assert kept == record


@UNHURRIED
@given(records())
def test_what_a_record_says_survives_a_second_trip_unchanged(record):
    once = record.to_json()
    assert JobRecord.from_json(json.loads(json.dumps(once))).to_json() == once


@UNHURRIED
@given(records())
def test_a_record_is_in_doubt_until_its_handle_or_its_outcome_is_kept(record):
    state = record.to_json()["state"]
    assert record.in_doubt == (state == "submitting")
    assert JobRecord.from_json(record.to_json()).in_doubt == record.in_doubt


def test_times_are_kept_for_people_in_utc_to_the_millisecond():
    assert INTENT.to_json()["intended_at"] == "2026-01-01T00:01:00.125+00:00"


@pytest.mark.parametrize("zero", [0, "0", 0.0, False, [0], {"run_id": 0}])
def test_zero_is_an_id_and_comes_back(zero):
    record = INTENT.with_handle(JobHandle("fake", zero), 1.0)
    assert JobRecord.from_json(json.loads(json.dumps(record.to_json()))).handle.ids == zero


@pytest.mark.parametrize("nothing", [None, "", [], (), {}])
def test_an_empty_id_is_refused_and_the_job_is_said_to_run_unseen(nothing):
    with pytest.raises(InvalidHandleError) as caught:
        JobHandle("databricks", nothing)
    text = str(caught.value)
    assert repr(nothing) in text
    assert "A job may be running there" in text
    assert "look the job up" in text
    assert not caught.value.retryable


UNKEPT = [2**64, {"run": -(2**64)}, float("nan"), "\ud800"]
"""What the store of a task's state does not take."""


@pytest.mark.parametrize("ids", [object(), {1, 2}, b"x", {"a": object()}, "x" * MAX_HANDLE_BYTES, *UNKEPT])
def test_an_id_that_cannot_be_kept_is_refused(ids):
    with pytest.raises(InvalidHandleError, match="A job may be running there"):
        JobHandle("databricks", ids)


# -- size ----------------------------------------------------------------------------------------------------

LONG_TASK = TaskIdentity("d" * 250, "scheduled__2026-01-01T00:00:00+00:00", "t" * 250, 999_999, "production")


@pytest.mark.parametrize(
    "handle",
    [
        JobHandle(
            "databricks",
            {"run_id": 2**63, "job_id": 2**63},
            {"workspace": "adb-1234567890123456.7.azuredatabricks.net"},
        ),
        JobHandle(
            "emr",
            {"cluster": "j-2AXXXXXXGAPLF", "steps": [f"s-{i:013}" for i in range(12)]},
            {"region": "ap-southeast-2", "account": "123456789012"},
        ),
        JobHandle("glue", "jr_" + "0123456789abcdef" * 4, {"region": "eu-central-1", "account": "123456789012"}),
        JobHandle(
            "stepfunctions",
            "arn:aws:states:eu-central-1:123456789012:execution:" + "n" * 160,
            {"region": "eu-central-1"},
        ),
    ],
    ids=lambda handle: handle.service,
)
def test_the_record_of_an_ordinary_job_stays_under_two_kilobytes(handle):
    token = LONG_TASK.token(FIRST, 0)
    record = replace(INTENT, token=token).with_handle(handle, 1767225661.5).closed(Outcome.SUCCEEDED, 1767230000.0)
    assert len(json.dumps(record.to_json())) < MAX_BYTES


@UNHURRIED
@given(st.integers(0, 4000))
def test_an_intent_with_compressible_parameters_stays_under_two_kilobytes(size):
    record = replace(INTENT, params={"code": "x" * size})
    kept = record.to_json()
    assert len(json.dumps(kept)) <= MAX_BYTES
    assert ("params" in kept) == (len(json.dumps(kept | {"params": record.params})) <= MAX_BYTES)


def test_parameters_that_json_cannot_carry_are_left_out_of_the_intent():
    from datetime import datetime, timezone

    assert "params" not in replace(INTENT, params={"from": datetime(2026, 1, 1, tzinfo=timezone.utc)}).to_json()


def test_a_handle_of_256_emr_steps_can_be_kept():
    JobHandle("emr", {"cluster": "j-2AXXXXXXGAPLF", "steps": [f"s-{i:022}" for i in range(256)]})


def test_a_handle_names_its_job_and_its_place_in_few_words():
    many = JobHandle("emr", {"cluster": "j-1", "steps": [f"s-{i}" for i in range(12)]}, {"region": "eu-central-1"})
    assert str(many) == "emr cluster=j-1 steps=[s-0, … 12 in all] at eu-central-1"
    assert str(JobHandle("fake", 0)) == "fake 0"


def test_parameters_are_forgotten_once_the_answer_is_there():
    assert INTENT.with_handle(RUN, 1.0).params is None
    assert INTENT.closed(Outcome.REJECTED, 1.0).params is None


# -- what cannot be read -------------------------------------------------------------------------------------

GOOD = INTENT.with_handle(RUN, 1767225661.5).to_json()


def without(name):
    return {k: v for k, v in GOOD.items() if k != name}


def check_three_parts(text):
    assert "Nothing was submitted" in text
    assert "left alone" in text
    assert f"delete the task state key {KEY!r}" in text


@pytest.mark.parametrize("version", [VERSION + 1, 99])
@pytest.mark.parametrize("rest", [GOOD, {"shape": "unknown to us"}], ids=["same shape", "other shape"])
def test_a_record_of_a_newer_release_is_refused_with_what_to_do(version, rest):
    with pytest.raises(RecordError, match=f"version {version}.*newer release wrote it") as caught:
        JobRecord.from_json({**rest, "version": version})
    check_three_parts(str(caught.value))
    assert "Upgrade airflow-resumable" in str(caught.value)
    assert caught.value.retryable  # the next try may land on a worker that is upgraded


DAMAGED = {
    "None": None,
    "text": "x",
    "number": 5,
    "list": [],
    "{}": {},
    **{f"without {name}": without(name) for name in ("service", "job", "state", "token", "generation", "submission", "owner")},
    **{f"without {name}": without(name) for name in ("attempt", "intended_at")},
    "unknown state": GOOD | {"state": "paused"},
    "state None": GOOD | {"state": None},
    "submission": GOOD | {"submission": "first"},
    "attempt": GOOD | {"attempt": None},
    "time": GOOD | {"intended_at": "yesterday"},
    "time as number": GOOD | {"intended_at": 5},
    "submitted_at": GOOD | {"submitted_at": {}},
    "generation": GOOD | {"generation": 1},
    "generation {}": GOOD | {"generation": {}},
    "max_tries": GOOD | {"generation": {"max_tries": None, "clear_number": 0, "run_started": None}},
    "place": GOOD | {"place": 5},
    "empty job": GOOD | {"job": {}},
}
NOT_NOTICED = {
    "version as text": GOOD | {"version": "2"},
    "version as float": GOOD | {"version": 2.0},
    "without version": without("version"),
    "intended_at None": GOOD | {"intended_at": None},
    "token None": GOOD | {"token": None},
    "owner None": GOOD | {"owner": None},
    "succeeded without a job": GOOD | {"state": "succeeded", "job": None},
    "submitted without a job": GOOD | {"job": None},
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_refused_with_what_to_do(data):
    with pytest.raises(RecordError, match="cannot be read") as caught:
        JobRecord.from_json(data)
    check_three_parts(str(caught.value))
    assert repr(data) in str(caught.value)


@pytest.mark.parametrize("data", NOT_NOTICED.values(), ids=NOT_NOTICED)
def test_a_record_that_no_release_wrote_is_refused_with_what_to_do(data):
    with pytest.raises(RecordError) as caught:
        JobRecord.from_json(data)
    check_three_parts(str(caught.value))


@pytest.mark.parametrize("name", ["submission", "attempt"])
def test_a_number_that_is_none_is_refused_with_what_to_do(name):
    with pytest.raises(RecordError):
        JobRecord.from_json(GOOD | {name: json.loads("Infinity")})


@pytest.mark.parametrize("name", ["reach", "left", "stopping", "ended_as", "forgotten_by", "failing_try", "decided_try"])
@pytest.mark.parametrize("odd", [[1], 1.5])
def test_a_field_that_may_be_left_out_is_refused_where_it_is_odd(name, odd):
    """The command would end in a traceback over it, and an attempt might take it for a reason."""
    with pytest.raises(RecordError, match=name):
        JobRecord.from_json(GOOD | {name: odd})


@UNHURRIED
@given(st.sampled_from(sorted(GOOD)), values)
def test_whatever_one_field_holds_the_record_is_read_or_refused_and_nothing_else(name, value):
    with suppress(RecordError):
        assert isinstance(JobRecord.from_json(GOOD | {name: value}), JobRecord)


def test_a_damaged_record_stays_damaged_when_its_error_crosses_a_process():
    with pytest.raises(RecordError) as caught:
        JobRecord.from_json({})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (RecordError, str(caught.value))


# -- every released version stays readable -------------------------------------------------------------------

RELEASED = {
    "v1-intent": INTENT,
    "v1-submitted-databricks": INTENT.with_handle(
        JobHandle("databricks", {"run_id": 734912, "job_id": 88}, WORKSPACE), 1767225661.5
    ),
    "v1-closed": replace(INTENT.with_handle(RUN, 1767225661.5).closed(Outcome.FAILED, 1767234600.0), submission=2, attempt=5),
    "v1-emr-12-steps": replace(INTENT, service="emr", place={"region": "eu-central-1", "account": "123456789012"}).with_handle(
        JobHandle(
            "emr",
            {"cluster": "j-2AXXXXXXGAPLF", "steps": [f"s-{i:02}EXAMPLE000" for i in range(12)]},
            {"region": "eu-central-1", "account": "123456789012"},
        ),
        1767225661.5,
    ),
    "v1-cleared-generation": replace(
        INTENT.with_handle(JobHandle("databricks", {"run_id": 734977}, WORKSPACE), 1767344405.0),
        generation=Generation(4, 3, "2026-01-02T09:00:00+00:00"),
        attempt=3,
    ),
    "v1-rejected": INTENT.closed(Outcome.REJECTED, 1767225661.0),
    "v1-gone-in-doubt": INTENT.closed(Outcome.GONE, 1767225661.0),
}


def golden(name, folder="."):
    return json.loads((GOLDEN / folder / f"{name}.json").read_text())


@pytest.mark.parametrize("folder", [".", "0.1.0"])
def test_every_golden_record_is_read_by_a_test(folder):
    assert {path.stem for path in (GOLDEN / folder).glob("*.json")} == set(RELEASED)


@pytest.mark.parametrize("name", RELEASED)
def test_every_released_version_stays_readable(name):
    assert JobRecord.from_json(golden(name)) == RELEASED[name]


@pytest.mark.parametrize("name", RELEASED)
def test_what_0_1_0_kept_of_the_spec_is_not_comparable_and_all_else_is_read(name):
    assert JobRecord.from_json(golden(name, "0.1.0")) == replace(RELEASED[name], spec=Spec())


@pytest.mark.parametrize("name", [name for name in RELEASED if name.startswith(f"v{VERSION}-")])
def test_this_release_writes_what_its_golden_records_hold(name):
    written = RELEASED[name].to_json()
    assert written == golden(name)
    assert len(json.dumps(written)) < MAX_BYTES
