"""What a record tells of the past: short, for people, and at the cost of nothing that a decision needs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.identity import Generation
from resumable.jobs import history
from resumable.jobs.decision import Recovery
from resumable.jobs.history import MAX_EVENTS, Event
from resumable.jobs.record import MAX_BYTES, JobHandle, JobRecord, Outcome
from resumable.jobs.spec import Spec
from resumable.stores.memory import MemoryStore
from tests.support.fake_service import FIRST, Clock, FakeService, new_attempt, start

INTENT = JobRecord("fake", "t" * 48, FIRST, 0, "owner", 1, 1000.0)


class CountedStore(MemoryStore):
    writes = 0

    def set(self, key, value):
        self.writes += 1
        super().set(key, value)


def submit(service, store, **how):
    one = new_attempt(service, store, **how)
    start(one, service)
    return one


def again(service, store, **how):
    one = new_attempt(service, store, **how)
    one.begin()
    return one


def words(store):
    return [event.what for event in JobRecord.from_json(store.get("resumable")).history]


@pytest.fixture
def service():
    return FakeService(Recovery.REPEAT, Clock())


def test_a_lost_worker_and_the_reattachment_are_told(service):
    store = MemoryStore()
    submit(service, store)
    again(service, store, try_number=2)
    assert words(store) == ["submitted", "worker lost", "reattached"]


def test_a_task_that_was_handed_back_lost_no_worker(service):
    store = MemoryStore()
    submit(service, store)
    again(service, store)
    assert words(store) == ["submitted", "handed back", "reattached"]


def test_a_try_that_failed_while_its_job_ran_lost_no_worker(service):
    store = MemoryStore()
    one = submit(service, store)
    one.note_failed_try(TimeoutError("read timed out"))
    again(service, store, try_number=2)
    assert words(store) == ["submitted", "try failed", "reattached"]
    assert "read timed out" in json.dumps(store.get("resumable")["history"])


def test_a_clear_and_the_stop_of_the_earlier_job_are_told(service):
    store = MemoryStore()
    submit(service, store)
    submit(service, store, generation=Generation(7, 1, FIRST.run_started), try_number=2)
    assert words(store) == ["submitted", "cleared", "told to stop", "submitted"]


def test_a_worker_that_died_in_the_submit_is_told(service):
    store = MemoryStore()
    again(service, store).intend()
    submit(service, store, try_number=2)
    assert words(store) == ["worker lost", "submitted"]
    assert "not answered" in json.dumps(store.get("resumable")["history"])


def test_looks_of_a_task_that_waits_by_being_rescheduled_are_no_events(service):
    store = MemoryStore()
    submit(service, store, wait="reschedule")
    for _ in range(20):
        again(service, store, wait="reschedule")
    assert words(store) == ["submitted"]


def test_the_history_costs_no_write_of_its_own(service):
    store = CountedStore()
    one = submit(service, store)
    before = store.writes
    for _ in range(10):
        one.observe()
    assert store.writes == before == 2
    again(service, store, try_number=2)
    assert store.writes == 3


def test_who_cancelled_and_why_is_told(service):
    store = MemoryStore()
    one = submit(service, store)
    one.cancel("a user stopped the task")
    one.close(Outcome.CANCELLED)
    last = JobRecord.from_json(store.get("resumable")).history[-1]
    assert (last.what, last.note) == ("cancelled", "a user stopped the task")


words_ = st.sampled_from(["submitted", "x" * 20])
events = st.builds(Event, st.integers(0, 2**32).map(float), words_, st.integers(0, 99), st.text())


@settings(deadline=None)
@given(st.lists(events, max_size=40))
def test_however_much_happens_the_first_and_the_latest_twelve_stay(past):
    kept = ()
    for one in past:
        kept = history.extended(kept, one.at, one.what, one.try_number, one.note)
    assert len(kept) <= MAX_EVENTS
    assert [e.at for e in kept[:1]] == [e.at for e in past[:1]]
    assert [e.at for e in kept[1:]] == [e.at for e in past[1:]][-(MAX_EVENTS - 1) :]
    assert history.from_json(json.loads(json.dumps(history.to_json(kept, 100_000)))) == kept


@settings(deadline=None)
@given(st.lists(events, max_size=12), st.integers(0, 30))
def test_a_record_with_a_history_stays_readable_and_its_fingerprint_goes_first(past, fields):
    spec = Spec("text", {f"field_{n}": "0123456789" for n in range(fields)})
    record = replace(INTENT, spec=spec).with_handle(JobHandle("fake", "job-1"), 1001.0)
    plain = record.to_json()
    for one in past:
        record = record.noting(one.what, one.at, one.note)
    kept = record.to_json()
    assert len(json.dumps(kept)) <= MAX_BYTES
    assert {name: value for name, value in kept.items() if name != "history"} == plain


DAMAGED = ["x", 7, {"a": 1}, [1], [[]], [["when", "submitted", 1]], [["2026-01-01", "submitted", "x"]], [None]]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_history_is_no_reason_not_to_read_a_record(damaged):
    assert JobRecord.from_json({**INTENT.to_json(), "history": damaged}).history == ()
