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
    token: str | None = None


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


class Findable(Train):
    """One whose service can be asked for the token of a job."""

    settle_time = 0.0

    def find_job(self, token: str, context: Any) -> Any:
        return 7 if token == Cloud.token else None


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
    Cloud.states, Cloud.cancelled, Cloud.token = {7: "RUNNING"}, [], None


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


def in_doubt(**changes: Any) -> JobRecord:
    reach = {"operator": f"{__name__}:Findable", "conn_id": "trainer"}
    return record(service="Findable", handle=None, reach=reach, **changes)


def test_a_submit_in_doubt_is_looked_up_where_it_can_be_and_its_job_is_stopped() -> None:
    Cloud.token = "t" * 48
    table = Table(row(in_doubt()))
    assert Sweep(table).run() == {"stopped": 1}
    assert Cloud.cancelled == [(7, "trainer")]
    assert JobRecord.from_json(table.written[1]).handle == JobHandle("Findable", 7)


def test_a_submit_in_doubt_whose_job_is_not_seen_stays_open_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(row(in_doubt()))
    assert Sweep(table).run() == {"left": 1}
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "job with token tttt" in caplog.text


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


class Calm:
    """A `listener.Reaper` whose time passes only while it sleeps; ``settles`` says whether a sweep settles everything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.swept, self.settles = 0.0, [], lambda: True
        self.reaper = listener.Reaper()
        monkeypatch.setattr(listener.threading, "Thread", lambda **_: type("T", (), {"start": lambda self: None})())
        monkeypatch.setattr(listener.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(listener.time, "sleep", self.sleep)
        monkeypatch.setattr(compat, "sweep_delay", lambda: 15.0)
        monkeypatch.setattr(listener.TaskStateTable, "ended", lambda table, runs: iter([1]))
        monkeypatch.setattr(listener, "_sweep", self.sweep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def sweep(self, runs: Any, by_user: Any) -> bool:
        self.swept.append((self.now, runs, by_user))
        return self.settles()


def test_a_run_is_swept_no_sooner_than_its_delay_after_the_last_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Calm(monkeypatch)
    calm.reaper.note(("dag", "a"), ("job", -1))
    calm.now = 10.0
    calm.reaper.note(("dag", "b"))
    calm.reaper._work()
    assert calm.swept == [(15.0, {("dag", "a")}, {("dag", "a", "job", -1)}), (25.0, {("dag", "b")}, set())]


def test_a_stop_that_the_service_does_not_take_is_tried_again_for_half_an_hour(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calm = Calm(monkeypatch)
    calm.settles = lambda: len(calm.swept) > 2
    calm.reaper.note(("dag", "a"), ("job", -1))
    calm.reaper._work()
    assert [at for at, _, _ in calm.swept] == [15.0, 45.0, 105.0]
    assert all(by_user == {("dag", "a", "job", -1)} for _, _, by_user in calm.swept)

    calm.swept, calm.settles = [], lambda: False
    calm.reaper.note(("dag", "b"))
    calm.reaper._work()
    assert 25 * 60 < calm.swept[-1][0] - calm.swept[0][0] < 35 * 60
    assert "by hand" in caplog.text


class Stranger:
    """A class that is none of ours and has a method of the same name."""

    at_a_distance = pytest.fail


def test_a_record_brings_no_other_class_and_no_other_attribute_into_the_sweep() -> None:
    """A task can write anything into its state, and the sweep runs where the metadata database is."""
    for operator in ("Stranger", "Cloud", "adapter_of", "Nothing"):
        assert adapter_of({**REACH, "operator": f"{__name__}:{operator}"}) is None
    adapter = adapter_of({**REACH, "cancel_job": "x", "log": "x", "settle_time": 1e9})
    assert vars(adapter._operator) == {"conn_id": "trainer"}  # type: ignore[union-attr]


def test_a_job_that_nothing_can_stop_is_reported_and_no_failure_of_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    class Unstoppable(Train):
        service = "Train"
        cancel_job = ResumableMixin.cancel_job

    globals()["Unstoppable"] = Unstoppable
    Unstoppable.__qualname__ = "Unstoppable"
    table = Table(row(record(reach={**REACH, "operator": f"{__name__}:Unstoppable"})))
    assert Sweep(table).run() == {"left": 1}  # type: ignore[arg-type]
    assert "nothing can stop it" in caplog.text
    assert table.written == {}


# -- what `once` made -------------------------------------------------------------------------------------------------

REMOVED: list[Any] = []


def remove_cluster(value: Any) -> None:
    """A clean-up of a module that other processes can import."""
    REMOVED.append(value)


def row_of_once(cleanup: str | None = f"{__name__}:remove_cluster", state: str = "failed") -> Row:
    kept = {"version": 1, "state": "made", "value": "cluster-1", "cleanup": cleanup}
    return Row(7, "dag", "run", "task", -1, state, False, json.dumps(kept), "resumable.once.cluster")


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    REMOVED.clear()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__CLEANUP_MODULES", f"other, {__name__}")


@pytest.mark.usefixtures("allowed")
def test_what_once_made_is_cleaned_up_when_no_process_of_the_task_is_left() -> None:
    table = Table(row_of_once())
    assert Sweep(table).run() == {"cleaned up": 1}  # type: ignore[arg-type]
    assert REMOVED == ["cluster-1"]
    assert table.written[7]["state"] == "cleaned up"


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("how", ["dry run", "cleared meanwhile"])
def test_what_once_made_is_left_alone_in(how: str) -> None:
    table = Table(row_of_once())
    table.moved = how == "cleared meanwhile"
    assert Sweep(table, dry_run=how == "dry run").run() == {"left": 1}  # type: ignore[arg-type]
    assert (REMOVED, table.written) == ([], {})


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("cleanup", ["os:system", "a function of the DAG file", f"{__name__}:Nothing", "no.such.module:f"])
def test_no_function_is_called_that_airflow_cfg_does_not_allow_and_the_log_says_what_is_left(
    cleanup: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A task can write any name into its state, and the sweep runs where the metadata database is."""
    assert Sweep(Table(row_of_once(cleanup))).run() == {"left": 1}  # type: ignore[arg-type]
    assert "'cluster-1', which once made for dag run task" in caplog.text
    assert "cleanup_modules" in caplog.text


def test_without_cleanup_modules_the_sweep_calls_nothing() -> None:
    REMOVED.clear()
    assert Sweep(Table(row_of_once())).run() == {"left": 1}  # type: ignore[arg-type]
    assert REMOVED == []


@pytest.mark.usefixtures("allowed")
def test_a_clean_up_that_fails_is_tried_again_by_the_next_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(row_of_once())
    monkeypatch.setattr(f"{__name__}.remove_cluster", lambda value: 1 / 0)
    assert Sweep(table).run() == {"failed": 1}  # type: ignore[arg-type]
    assert table.written == {}
