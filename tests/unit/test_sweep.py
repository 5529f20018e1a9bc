"""What becomes of a job whose task has ended, and what the listener makes of Airflow's events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from resumable import JobNotFound, ResumableMixin, compat, listener
from resumable.identity import Generation
from resumable.lifecycle import JobState
from resumable.mixin import _import_path
from resumable.record import JobHandle, JobRecord, Outcome
from resumable.stores.table import Row
from resumable.sweep import Sweep, Verdict, adapter_of, verdict


class Cloud:
    """The service of `Train`, for this process."""

    states: dict[int, str] = {}
    cancelled: list[tuple[int, str]] = []


class Train(ResumableMixin, compat.base_operator()):
    """A custom operator of a package, which other processes can import."""

    reach_fields = ("conn_id",)

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def submit_job(self, context: Any) -> Any:
        raise AssertionError

    def get_job_status(self, external_id: Any, context: Any) -> str:
        if external_id not in Cloud.states:
            raise JobNotFound(f"no job {external_id}")
        return Cloud.states[external_id]

    def is_job_active(self, status: str) -> bool:
        return status == "RUNNING"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "DONE"

    def is_job_failed(self, status: str) -> bool:
        return status == "FAILED"

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        raise AssertionError

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        raise AssertionError

    def cancel_job(self, external_id: Any, context: Any) -> None:
        Cloud.cancelled.append((external_id, self.conn_id))


class Table:
    """Open records in memory."""

    def __init__(self, *rows: Row) -> None:
        self.rows, self.written, self.moved = list(rows), {}, False

    def ended(self, runs: Any = None) -> Iterator[Row]:
        yield from (row for row in self.rows if runs is None or (row.dag_id, row.run_id) in runs)

    def is_unchanged(self, row: Row) -> bool:
        return not self.moved

    def write(self, row: Row, data: Mapping[str, Any]) -> bool:
        self.written[row.id] = data
        return True


REACH = {"operator": f"{__name__}:Train", "conn_id": "trainer"}


def record(**changes: Any) -> JobRecord:
    base = JobRecord("Train", "t" * 48, Generation(3, 0, None), 0, "owner", 1, 1e9, handle=JobHandle("Train", 7), reach=REACH)
    return replace(base, **changes)


def row(kept: JobRecord, state: str = "success", tries: bool = True, number: int = 1) -> Row:
    return Row(number, "dag", f"run{number}", "job", -1, state, tries, json.dumps(kept.to_json()))


@pytest.fixture(autouse=True)
def cloud() -> None:
    Cloud.states, Cloud.cancelled = {7: "RUNNING"}, []


@pytest.mark.parametrize(
    ("state", "tries", "by_user", "expected"),
    [
        ("success", False, False, Verdict.STOP),
        ("skipped", False, False, Verdict.STOP),
        ("failed", True, False, Verdict.STOP),
        ("failed", False, True, Verdict.STOP),
        ("failed", False, False, Verdict.LOST),
    ],
)
def test_only_a_lost_last_try_looks_like_no_ones_doing(state: str, tries: bool, by_user: bool, expected: Verdict) -> None:
    assert verdict(record(), state, has_tries_left=tries, by_user=by_user) is expected


def test_a_lost_last_try_is_stopped_where_the_policy_says_so() -> None:
    kept = record(cancel_if_lost=True)
    assert verdict(kept, "failed", has_tries_left=False, by_user=False) is Verdict.STOP


@pytest.mark.parametrize("state", ["success", "failed", "skipped"])
def test_a_job_that_its_task_left_running_on_purpose_is_never_touched(state: str) -> None:
    table = Table(row(record(left="on_final_failure=leave"), state))
    assert Sweep(table).run(by_user={("dag", "run1", "job", -1)}) == {"left": 1}
    assert (Cloud.cancelled, table.written) == ([], {})


def test_a_running_job_of_an_ended_task_is_cancelled_through_its_own_connection_and_noted() -> None:
    table = Table(row(record()))
    assert Sweep(table).run() == {"stopped": 1}
    assert Cloud.cancelled == [(7, "trainer")]
    assert JobRecord.from_json(table.written[1]).outcome is Outcome.CANCELLED


@pytest.mark.parametrize(("status", "outcome"), [("DONE", "succeeded"), ("FAILED", "failed"), (None, "gone")])
def test_a_job_that_has_ended_is_only_noted(status: str | None, outcome: str) -> None:
    Cloud.states = {7: status} if status else {}
    table = Table(row(record()))
    assert Sweep(table).run() == {"ended": 1}
    assert (Cloud.cancelled, table.written[1]["state"]) == ([], outcome)


def test_a_job_whose_state_nobody_knows_is_left_to_the_next_sweep(caplog: pytest.LogCaptureFixture) -> None:
    Cloud.states = {7: "A_STATE_OF_NEXT_YEAR"}
    table = Table(row(record()))
    assert Sweep(table).run() == {"failed": 1}
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "the next sweep tries again" in caplog.text


def test_a_task_that_was_cleared_while_the_sweep_looked_keeps_its_job() -> None:
    table = Table(row(record()))
    table.moved = True
    assert Sweep(table).run() == {"left": 1}
    assert Cloud.cancelled == []


def test_a_dry_run_says_and_does_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = Table(row(record()))
    Sweep(table, dry_run=True).run()
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "Train 7 of dag run1 job" in caplog.text


def test_a_submit_in_doubt_and_an_operator_out_of_reach_are_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(row(record(handle=None), number=1), row(record(reach=None), number=2))
    assert Sweep(table).run() == {"left": 2}
    assert "job with token tttt" in caplog.text
    assert "Train 7 of dag run2 job" in caplog.text


def test_one_unreadable_record_does_not_keep_the_others_from_being_settled(caplog: pytest.LogCaptureFixture) -> None:
    broken = replace(row(record(), number=2), value='{"version": 99}')
    assert Sweep(Table(broken, row(record()))).run() == {"failed": 1, "stopped": 1}


def test_only_a_class_that_another_process_can_import_is_named_in_a_record() -> None:
    class InAFunction(Train):
        pass

    in_a_dag_file = type("InADagFile", (Train,), {"__module__": "unusual_prefix_0a1b_dag"})
    assert _import_path(Train) == f"{__name__}:Train"
    assert _import_path(InAFunction) == _import_path(in_a_dag_file) == f"{__name__}:Train"


def test_the_adapter_of_a_record_needs_no_dag_file() -> None:
    adapter = adapter_of(REACH)
    assert adapter is not None
    assert adapter.observe(JobHandle("Train", 7)).state is JobState.ACTIVE
    for reach in (None, {"operator": "no.such.module:Train"}, {"operator": f"{__name__}:Nobody"}):
        assert adapter_of(reach) is None


class Ti:
    dag_id, run_id, task_id, map_index = "dag", "run", "job", -1


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(listener._reaper, "note", lambda *args: found.append(args))
    monkeypatch.setattr(compat, "is_server", lambda: True)
    monkeypatch.setattr(compat, "has_task_state", lambda: True)
    return found


def test_a_users_mark_is_noted_and_a_tasks_own_end_is_not(noted: list[Any]) -> None:
    listener.on_task_instance_failed(previous_state=None, task_instance=Ti)
    listener.on_task_instance_failed(previous_state="running", task_instance=Ti)
    assert noted == [(("dag", "run"), ("job", -1))]


def test_outside_of_a_server_process_nothing_is_noted(noted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "is_server", lambda: False)
    listener.on_task_instance_success(previous_state=None, task_instance=Ti)
    listener.on_dag_run_failed(dag_run=Ti)
    assert noted == []


def test_a_run_is_swept_no_sooner_than_its_delay_after_the_last_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits, swept = [0.0], [], []
    reaper = listener.Reaper()
    monkeypatch.setattr(listener.threading, "Thread", lambda **_: type("T", (), {"start": lambda self: None})())
    monkeypatch.setattr(listener.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(compat, "sweep_delay", lambda: 15.0)
    monkeypatch.setattr(listener.TaskStateTable, "ended", lambda self, runs: iter([1]))
    monkeypatch.setattr(listener, "_sweep", lambda runs, by_user: swept.append((now[0], runs, by_user)))

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(listener.time, "sleep", sleep)
    reaper.note(("dag", "a"), ("job", -1))
    now[0] = 10.0
    reaper.note(("dag", "b"))
    reaper._work()
    assert swept == [(15.0, {("dag", "a")}, {("dag", "a", "job", -1)}), (25.0, {("dag", "b")}, set())]
