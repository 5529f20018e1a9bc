"""A user deletes a DAG run, or a DAG, whose job runs: the record goes with it, the job is stopped all the same."""

from __future__ import annotations

import types
from typing import Any

import pytest

from resumable import host
from resumable.cleanup import listener
from resumable.cleanup.ended import Asked, Ended
from resumable.cleanup.sweep import Sweep
from resumable.jobs.record import Outcome
from resumable.stop.sigterm import Stop, why
from tests.support.swept import (
    REACH,
    Cloud,
    database,  # noqa: F401
    record,
)

# ruff: noqa: F811 - fixtures are arguments

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="before 3.3 the record is a Variable, and stays")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Rows of deleted runs that are to be swept."""
    found: list[Any] = []
    monkeypatch.setattr(listener._reaper, "note", lambda run, task=None, deleted=None, **_: found.append(deleted))
    listener.hear_of_deletions()
    listener.hear_of_deletions()
    return found


def put_all(database: Any) -> None:
    open_ = record(reach=REACH)
    database.put("etl", "one", "runs", "up_for_reschedule", open_.to_json(), run_state="failed")
    database.put("etl", "one", "left", "success", record(left="the task does not wait for it").to_json())
    database.put("etl", "one", "done", "success", open_.closed(Outcome.SUCCEEDED, 1e9).to_json())
    database.put("etl", "one", "odd", "success", ["submitted"])
    database.put("etl", "two", "runs", "deferred", open_.to_json(), run_state="failed")
    database.put("other", "one", "runs", "deferred", open_.to_json())


def test_what_is_open_of_a_deleted_run_is_kept_to_be_stopped(database: Any, noted: list[Any]) -> None:
    put_all(database)
    database.delete_run("etl", "one")
    assert [(row.run_id, row.task_id, row.state) for row in noted] == [("one", "runs", "deleted")]


def test_what_is_open_of_a_deleted_dag_is_kept_to_be_stopped(database: Any, noted: list[Any]) -> None:
    put_all(database)
    database.delete_dag("etl")
    assert sorted((row.dag_id, row.run_id, row.task_id) for row in noted) == [("etl", "one", "runs"), ("etl", "two", "runs")]


def test_the_job_of_a_deleted_run_is_stopped_and_the_one_of_a_run_that_was_not_deleted_in_the_end_is_not(
    database: Any, noted: list[Any]
) -> None:
    put_all(database)
    with pytest.raises(LookupError):
        database.delete_run("etl", "two", but=LookupError("rolled back"))
    database.delete_run("etl", "one")
    two, one = noted
    told = Asked.from_json(Asked(runs=[two.run, one.run], deleted=[two, one], only=set()).to_json())
    assert Sweep().run(told.runs, deleted=told.deleted, only=told.only) == {"left": 1, "stopped": 1}
    assert Cloud.cancelled == [(7, "trainer")]


def test_a_deletion_goes_through_whatever_goes_wrong_here(database: Any, noted: list[Any], monkeypatch: Any, caplog: Any) -> None:
    put_all(database)
    monkeypatch.setattr(listener, "judged", lambda *_: 1 / 0)
    database.delete_run("etl", "one")
    assert noted == []
    assert "1 DAG runs are deleted" in caplog.text


def test_the_listener_has_the_rows_of_deleted_runs_swept(database: Any, noted: list[Any], monkeypatch: Any) -> None:
    put_all(database)
    database.delete_run("etl", "one")
    asked = listener._asked([listener.Note(noted[0].run, deleted=noted[0])])
    assert asked is not None
    assert asked.deleted == noted
    assert Ended().has(noted[0])


def test_a_task_whose_run_is_deleted_under_it_knows_that_a_user_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from resumable.stop.triggers import MARKED

    monkeypatch.setattr("resumable.host.states._PAUSE", 0.0)
    answers: list[Any] = [{"run": {"task": None}}, {}, {}, {}, {"run": {"task": "running"}}, None]
    ti = types.SimpleNamespace(
        dag_id="dag", run_id="run", task_id="task", map_index=-1, get_task_states=lambda **_: answers.pop(0)
    )
    states = [host.own_state({"ti": ti}) for _ in range(4)]
    assert states == [None, "deleted", "running", None]  # asked for once more
    assert [why(state) for state in states] == [Stop.SUPERSEDED, Stop.BY_USER, Stop.EVICTION, Stop.SUPERSEDED]
    assert host.DELETED in MARKED
