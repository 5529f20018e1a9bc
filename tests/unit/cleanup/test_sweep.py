"""What becomes of a job whose task has ended, and what the listener makes of Airflow's events."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resumable import ResumableMixin, host
from resumable.cleanup import listener, sweep
from resumable.cleanup.ended import Asked, verdict
from resumable.cleanup.sweep import Sweep, Verdict, adapter_of
from resumable.cleanup.table import Row
from resumable.jobs.decision import JobState
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.jobs.service import path_of_class
from tests.support.swept import REACH, Cloud, Findable, Train, record


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


def row(kept: JobRecord, state: str = "success", tries: bool = True, number: int = 1) -> Row:
    return Row(number, "dag", f"run{number}", "job", -1, state, tries, json.dumps(kept.to_json()))


BY_USER = {("dag", "run1", "job", -1)}
"""A user is known to have ended the task of `row` number 1."""


@pytest.fixture(autouse=True)
def cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    Cloud.states, Cloud.cancelled, Cloud.token, Cloud.after_a_cancel = {7: "RUNNING"}, [], None, "FAILED"
    monkeypatch.setattr(sweep, "_sleep", lambda seconds: None)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", f"other, {Train.__module__}, {__name__}")


@pytest.mark.parametrize(
    ("state", "tries", "by_user", "expected"),
    [
        ("success", False, False, Verdict.UNEXPLAINED),
        ("skipped", True, False, Verdict.UNEXPLAINED),
        ("failed", True, False, Verdict.UNEXPLAINED),
        ("failed", False, False, Verdict.LOST),
        *[(state, tries, True, Verdict.STOP) for state in ("success", "skipped", "failed") for tries in (True, False)],
    ],
)
def test_only_a_known_users_stop_is_one_whatever_state_and_tries_look_like(
    state: str, tries: bool, by_user: bool, expected: Verdict
) -> None:
    assert verdict(record(), state, has_tries_left=tries, by_user=by_user) is expected


@pytest.mark.parametrize("state", ["success", "failed", "skipped"])
def test_a_running_job_that_nobody_is_known_to_have_ended_is_reported_and_runs_on(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A ``retry_policy``, code around ours, a swallowed exception: a task ends in many ways with its job running."""
    table = Table(row(record(), state))
    assert Sweep(table).run() == {"left": 1}
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "Train 7 of dag run1 job" in caplog.text
    assert "nobody is known to have ended the task" in caplog.text


@pytest.mark.parametrize(("state", "stopped"), [("skipped", True), ("failed", False), ("success", False)])
def test_a_run_that_a_user_or_its_timeout_ended_has_ended_the_tasks_that_it_made_skipped(state: str, stopped: bool) -> None:
    assert Sweep(Table(row(record(), state))).run(ended_runs=[("dag", "run1")]) == {"stopped" if stopped else "left": 1}
    assert bool(Cloud.cancelled) == stopped


def test_a_mark_says_nothing_of_a_later_start_of_the_task_after_a_clear() -> None:
    marked = ("dag", "run1", "job", -1, "0199-first")
    assert Sweep(Table(replace(row(record(), "failed", False), ti_id="0199-second"))).run(by_user=[marked]) == {"left": 1}
    assert Sweep(Table(replace(row(record(), "failed", False), ti_id="0199-first"))).run(by_user=[marked]) == {"stopped": 1}


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
    assert Sweep(table).run(by_user=BY_USER) == {"stopped": 1}
    assert Cloud.cancelled == [(7, "trainer")]
    assert JobRecord.from_json(table.written[1]).outcome is Outcome.CANCELLED
    assert "closed_at" in table.written[1]


def test_a_cancel_counts_when_the_job_is_seen_to_stop_and_else_the_next_sweep_looks_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Cloud.after_a_cancel = "RUNNING"
    table = Table(row(record()))
    first = Sweep(table)
    assert first.run(by_user=BY_USER) == {"stopping": 1}
    assert first.unsettled == {("dag", "run1")}
    assert "closed_at" not in table.written[1]
    assert "told to stop" in caplog.text
    table.rows = [replace(table.rows[0], value=json.dumps(table.written[1]))]
    Cloud.after_a_cancel = "FAILED"
    assert Sweep(table).run() == {"stopped": 1}  # whoever asks: it was told to
    assert (table.written[1]["state"], "closed_at" in table.written[1]) == ("cancelled", True)


@pytest.mark.parametrize(("status", "outcome"), [("DONE", "succeeded"), ("FAILED", "failed"), (None, "gone")])
@pytest.mark.parametrize("by_user", [(), BY_USER])
def test_a_job_that_has_ended_is_only_noted(status: str | None, outcome: str, by_user: Any) -> None:
    Cloud.states = {7: status} if status else {}
    table = Table(row(record()))
    assert Sweep(table).run(by_user=by_user) == {"ended": 1}
    assert (Cloud.cancelled, table.written[1]["state"]) == ([], outcome)


def test_a_job_whose_state_nobody_knows_is_left_to_the_next_sweep(caplog: pytest.LogCaptureFixture) -> None:
    Cloud.states = {7: "A_STATE_OF_NEXT_YEAR"}
    table = Table(row(record()))
    assert Sweep(table).run(by_user=BY_USER) == {"failed": 1}
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "the next sweep tries again" in caplog.text


def test_a_task_that_was_cleared_while_the_sweep_looked_keeps_its_job() -> None:
    table = Table(row(record()))
    table.moved = True
    assert Sweep(table).run(by_user=BY_USER) == {"left": 1}
    assert Cloud.cancelled == []


def test_a_dry_run_says_and_does_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = Table(row(record()))
    Sweep(table, dry_run=True).run(by_user=BY_USER)
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "Train 7 of dag run1 job" in caplog.text


def test_a_submit_in_doubt_and_an_operator_out_of_reach_are_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(row(record(handle=None), number=1), row(record(reach=None), number=2))
    assert Sweep(table).run(by_user=[*BY_USER, ("dag", "run2", "job", -1)]) == {"left": 2}
    assert "job with token tttt" in caplog.text
    assert "Train 7 of dag run2 job" in caplog.text


def in_doubt(**changes: Any) -> JobRecord:
    reach = {**REACH, "operator": f"{Train.__module__}:Findable"}
    return record(service="Findable", handle=None, reach=reach, **changes)


def test_a_submit_in_doubt_is_looked_up_where_it_can_be_and_its_job_is_stopped() -> None:
    Cloud.token = "t" * 48
    table = Table(row(in_doubt()))
    assert Sweep(table).run(by_user=BY_USER) == {"stopped": 1}
    assert Cloud.cancelled == [(7, "trainer")]
    assert JobRecord.from_json(table.written[1]).handle == JobHandle("Findable", 7)


def test_a_submit_in_doubt_whose_job_is_not_seen_stays_open_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(row(in_doubt()))
    assert Sweep(table).run(by_user=BY_USER) == {"left": 1}
    assert (Cloud.cancelled, table.written) == ([], {})
    assert "job with token tttt" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resumable", {"version": 99}),
        ("resumable", {"version": 1, "state": "submitted", "job": 7}),
        ("resumable", ["submitted"]),
        ("resumable", "submitted"),
        ("resumable", None),
        ("resumable.once.x", "made"),
        ("resumable.once.x", ["made"]),
        ("resumable.once.x", {"state": "made", "cleanup": 5}),
        ("resumable.once.x", {"state": "made", "cleanup": "os:system"}),
        ("resumable.once.x", {"made": 1, "state": ["made"]}),
    ],
)
def test_what_is_no_record_of_ours_is_one_line_in_the_log_and_harms_no_other(
    key: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    odd = replace(row(record(), number=2), value=json.dumps(value), key=key)
    found = Sweep(Table(odd, row(record()))).run(by_user=BY_USER)
    assert found["stopped"] == 1
    assert not found["failed"]
    about = [line for line in caplog.messages if "run2" in line]
    assert len(about) == found["unreadable"] <= 1


def test_text_that_is_no_json_harms_no_other_row() -> None:
    odd = [replace(row(record(), number=n), value=value) for n, value in enumerate(["{", "[" * 100_000, '"', "\\"], 2)]
    assert Sweep(Table(*odd, row(record()))).run(by_user=BY_USER) == {"unreadable": 4, "stopped": 1}


def test_a_record_cannot_write_lines_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    forged = record(handle=JobHandle("Train", "x\nresumable: all is well"), reach=None)
    Sweep(Table(row(forged))).run(by_user=BY_USER)
    assert not [line for line in caplog.messages if "\n" in line]


def test_only_a_class_that_another_process_can_import_is_named_in_a_record() -> None:
    class InAFunction(Train):
        pass

    in_a_dag_file = type("InADagFile", (Train,), {"__module__": "unusual_prefix_0a1b_dag"})
    assert path_of_class(Train) == f"{Train.__module__}:Train"
    assert path_of_class(InAFunction) == path_of_class(in_a_dag_file) == f"{Train.__module__}:Train"


def test_the_adapter_of_a_record_needs_no_dag_file() -> None:
    adapter = adapter_of(REACH)
    assert adapter is not None
    assert adapter.observe(JobHandle("Train", 7)).state is JobState.ACTIVE
    for reach in (None, {"operator": "no.such.module:Train"}, {"operator": f"{__name__}:Nobody"}):
        assert adapter_of(reach) is None


class Ti:
    dag_id, run_id, task_id, map_index, id = "dag", "run", "job", -1, "0199-a"


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(listener._reaper, "note", lambda *args, **more: found.append((*args, *more.items())))
    monkeypatch.setattr(host, "is_server", lambda: True)
    monkeypatch.setattr(host, "has_task_state", lambda: True)
    return found


def test_a_users_mark_is_noted_and_a_tasks_own_end_is_not(noted: list[Any]) -> None:
    listener.on_task_instance_failed(previous_state=None, task_instance=Ti)
    listener.on_task_instance_failed(previous_state="running", task_instance=Ti)
    assert noted == [(("dag", "run"), ("job", -1, "0199-a"))]


@pytest.mark.parametrize(
    ("msg", "is_stop"),
    [
        ("timed_out", True),
        ("Dag Run's state was manually set to `failed`.", True),
        ("task_failure", False),
        ("all_tasks_deadlocked", False),
        ("", False),
    ],
)
def test_a_run_is_ended_by_somebody_only_if_airflow_says_so(noted: list[Any], msg: str, is_stop: bool) -> None:
    listener.on_dag_run_failed(dag_run=Ti, msg=msg)
    assert noted == [(("dag", "run"), ("is_stop", is_stop))]


def test_airflow_gives_the_listener_the_reason_of_a_runs_end(noted: list[Any]) -> None:
    pluggy = pytest.importorskip("pluggy")
    spec = pytest.importorskip("airflow.listeners.spec.dagrun")
    manager = pluggy.PluginManager("airflow")
    manager.add_hookspecs(spec)
    manager.register(listener)
    manager.hook.on_dag_run_failed(dag_run=Ti, msg="timed_out")
    manager.hook.on_dag_run_success(dag_run=Ti, msg="success")
    assert noted == [(("dag", "run"), ("is_stop", True)), (("dag", "run"), ("is_stop", False))]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("RESUMABLE", "STORE", "resumable.stores.object_storage.ObjectStorageStore"),
        ("WORKERS", "STATE_STORE_BACKEND", "airflow.providers.common.io.state_store.backend.StateStoreObjectStorageBackend"),
        ("STATE_STORE", "BACKEND", "ours.state.Backend"),
    ],
)
def test_where_records_are_kept_elsewhere_sweep_and_listener_say_so_once_and_do_nothing(
    section: str, name: str, value: str, noted: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{section}__{name}", value)
    monkeypatch.setattr(host, "be_a_server", lambda: None)
    listener._say_once.cache_clear()
    for _ in range(3):
        listener.on_task_instance_failed(previous_state=None, task_instance=Ti)
    assert noted == []
    assert len([line for line in caplog.messages if value in line]) == 1
    with pytest.raises(SystemExit) as ended:
        sweep.main([])
    assert ended.value.code == 2
    assert value in capsys.readouterr().err


def test_outside_of_a_server_process_nothing_is_noted(noted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "is_server", lambda: False)
    listener.on_task_instance_success(previous_state=None, task_instance=Ti)
    listener.on_dag_run_failed(dag_run=Ti)
    assert noted == []


class Calm:
    """A `listener.Reaper` whose time passes only while it sleeps; ``again`` says which runs a sweep did not settle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rows: Row) -> None:
        self.now, self.swept, self.again = 0.0, [], lambda asked: set()
        self.reaper = listener.Reaper()
        monkeypatch.setattr(listener.threading, "Thread", lambda **_: type("T", (), {"start": lambda self: None})())
        monkeypatch.setattr(listener.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(listener.time, "sleep", self.sleep)
        monkeypatch.setattr(host, "sweep_delay", lambda: 15.0)
        monkeypatch.setattr(listener, "TaskStateTable", lambda: Table(*rows))
        monkeypatch.setattr(listener, "_sweep", self.sweep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def sweep(self, asked: Asked) -> Any:
        self.swept.append((self.now, asked))
        return self.again(asked)

    @property
    def when(self) -> list[tuple[float, list[str]]]:
        return [(at, [run for _, run in asked.runs]) for at, asked in self.swept]


def open_row(run: str, task: str = "job", state: str = "failed", ti_id: str = "", **changes: Any) -> Row:
    return Row(hash((run, task)), "dag", run, task, -1, state, True, json.dumps(record(**changes).to_json()), ti_id=ti_id)


def test_each_task_is_swept_its_delay_after_its_own_mark_and_no_later_mark_puts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Calm(monkeypatch, *[open_row("a", f"t{n}", ti_id=f"0199-{n}") for n in range(3)], open_row("b", state="skipped"))
    for n in range(3):
        calm.now = 5.0 * n
        calm.reaper.note(("dag", "a"), (f"t{n}", -1, f"0199-{n}"))
    calm.now = 12.0
    calm.reaper.note(("dag", "b"), is_stop=True)
    calm.reaper._work()
    assert calm.when == [(15.0, ["a"]), (20.0, ["a"]), (25.0, ["a"]), (27.0, ["b"])]
    assert [asked.by_user for _, asked in calm.swept[:3]] == [[("dag", "a", f"t{n}", -1, f"0199-{n}")] for n in range(3)]
    assert [len(asked.only or ()) for _, asked in calm.swept] == [1, 1, 1, 1]
    assert calm.swept[-1][1].ended_runs == [("dag", "b")]


def test_marks_of_many_tasks_at_once_start_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = Calm(monkeypatch, *[open_row("a", f"t{n}", ti_id=f"0199-{n}") for n in range(200)])
    for n in range(200):
        calm.reaper.note(("dag", "a"), (f"t{n}", -1, f"0199-{n}"))
    calm.reaper._work()
    assert [len(asked.only or ()) for _, asked in calm.swept] == [200]


def test_a_stop_that_the_service_does_not_take_is_tried_again_for_half_an_hour_and_holds_up_no_other_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calm = Calm(monkeypatch, open_row("a"), open_row("b"))
    calm.again = lambda asked: {("dag", "a")} if len(calm.swept) < 3 else set()
    calm.reaper.note(("dag", "a"), ("job", -1, ""))
    calm.reaper.note(("dag", "b"), ("job", -1, ""))
    calm.reaper._work()
    assert calm.when == [(15.0, ["a", "b"]), (45.0, ["a"]), (105.0, ["a"])]
    assert all(("dag", "a", "job", -1, "") in asked.by_user for _, asked in calm.swept)

    calm.swept, calm.again = [], lambda asked: set(asked.runs)
    calm.reaper.note(("dag", "b"), ("job", -1, ""))
    calm.reaper._work()
    assert 25 * 60 < calm.swept[-1][0] - calm.swept[0][0] < 35 * 60
    assert "by hand" in caplog.text


@pytest.mark.parametrize(
    "left",
    [
        {"left": "the task does not wait for it"},
        {"left": "on_final_failure=leave"},
        {"outcome": Outcome.SUCCEEDED, "closed_at": 1e9},
        {},  # nobody is known to have ended it
    ],
)
def test_the_end_of_a_run_starts_no_process_for_a_job_that_nothing_is_to_be_done_about(
    left: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = Calm(monkeypatch, open_row("a", state="success", **left))
    calm.reaper.note(("dag", "a"))
    calm.reaper._work()
    assert calm.swept == []


def test_the_end_of_a_run_starts_a_process_for_a_lost_last_try_whose_policy_says_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = replace(open_row("a", cancel_if_lost=True), has_tries_left=False)
    calm = Calm(monkeypatch, lost)
    calm.reaper.note(("dag", "a"))
    calm.reaper._work()
    assert calm.when == [(15.0, ["a"])]


def test_a_process_that_hangs_is_given_up_and_its_runs_are_swept_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_START", "import time; time.sleep(600)")
    monkeypatch.setattr(listener, "SWEEP_SECONDS", 0.5)
    assert listener._sweep(Asked(runs=[("dag", "a")])) == {("dag", "a")}


def test_what_the_process_says_stands_in_the_servers_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Airflow's loggers write to standard output, where the process also answers."""
    says = (
        'print(\'resumable: 1001 may be running. Stop it in the service.\'); print(\'{"counts": {}, "again": [["dag", "a"]]}\')'
    )
    monkeypatch.setattr(listener, "_START", says)
    assert listener._sweep(Asked(runs=[("dag", "a")])) == {("dag", "a")}
    assert "1001 may be running. Stop it in the service.\n" in capfd.readouterr().err


def test_the_process_finds_no_module_in_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There, on an API server of the official images, lie everybody's DAG files."""
    (tmp_path / "everybodys.py").write_text("")
    monkeypatch.chdir(tmp_path)
    found = "from importlib.util import find_spec; print(find_spec('everybodys'))"
    start = listener._START.partition("from resumable")[0]
    assert subprocess.run([sys.executable, "-c", start + found], capture_output=True, text=True, check=True).stdout == "None\n"
    assert "everybodys" in subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True).stdout


def test_a_row_that_hangs_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    status = Train.get_job_status
    monkeypatch.setattr(Train, "get_job_status", lambda self, i, context: hanging.wait() if i == 0 else status(self, i, context))
    monkeypatch.setattr(sweep, "WORKERS", 2)
    rows = [row(record(handle=JobHandle("Train", 0)), number=n) for n in range(2, 5)]
    by_user = [("dag", f"run{n}", "job", -1) for n in range(1, 5)]
    assert Sweep(Table(*rows, row(record())), row_seconds=0.2).run(by_user=by_user) == {"failed": 3, "stopped": 1}
    hanging.set()


def test_a_record_from_the_future_is_waited_for_no_longer_than_its_service_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sweep, "_sleep", slept.append)
    monkeypatch.setattr(Findable, "settle_time", 30.0)
    of_2100 = in_doubt(intended_at=4_102_444_800.0)
    assert Sweep(Table(row(of_2100))).run(by_user=BY_USER) == {"left": 1}
    assert sum(slept) < 60


class Stranger:
    """A class that is none of ours and has a method of the same name."""

    at_a_distance = pytest.fail


def test_a_record_brings_no_other_class_and_no_other_attribute_into_the_sweep() -> None:
    """A task can write anything into its state, and the sweep runs where the metadata database is."""
    for operator in ("Stranger", "Cloud", "adapter_of", "Nothing"):
        assert adapter_of({**REACH, "operator": f"{__name__}:{operator}"}) is None
    adapter = adapter_of({**REACH, "cancel_job": "x", "log": "x", "settle_time": 1e9})
    assert vars(adapter.operator) == {"conn_id": "trainer"}  # type: ignore[union-attr]


def test_a_job_that_nothing_can_stop_is_reported_and_no_failure_of_the_sweep(caplog: pytest.LogCaptureFixture) -> None:
    class Unstoppable(Train):
        service = "Train"
        cancel_job = ResumableMixin.cancel_job

    globals()["Unstoppable"] = Unstoppable
    Unstoppable.__qualname__ = "Unstoppable"
    table = Table(row(record(reach={**REACH, "operator": f"{__name__}:Unstoppable"})))
    assert Sweep(table).run(by_user=BY_USER) == {"left": 1}  # type: ignore[arg-type]
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


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "only_begins", [lambda value: asyncio.sleep(0), lambda value: (yield value), lambda value: map(str, [value])]
)
def test_a_clean_up_that_is_only_begun_is_not_said_to_be_done(monkeypatch: pytest.MonkeyPatch, only_begins: Any) -> None:
    table = Table(row_of_once())
    monkeypatch.setattr(f"{__name__}.remove_cluster", only_begins)
    assert Sweep(table).run() == {"failed": 1}  # type: ignore[arg-type]
    assert table.written == {}
