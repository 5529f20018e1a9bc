"""
A clear deletes the state of its tasks (Airflow 3.4): what is ours stays, since ``on_clear`` says what a clear means for it.

The sessions are those of a real Airflow's tables, and the statements those that its server makes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from resumable import host
from resumable.cleanup import listener
from resumable.cleanup.ended import Ended, Verdict, judged
from resumable.cleanup.sweep import Sweep
from tests.support.custom import Plain, Service, die_in_the_wait, task
from tests.support.runner import TaskInstanceDouble
from tests.support.swept import REACH, Cloud, database, record  # noqa: F401

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="before 3.3 the record is a Variable, and stays")

OURS = ("resumable", "resumable.checkpoint.rows", "resumable.once.cluster", "resumable.0123456789ab")
THEIRS = ("resumable_of_somebody_else", "job_id", "resumablexcheckpoint")


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch, database: Any) -> list[Any]:  # noqa: F811
    """Runs that are looked at because a clear has taken something out of them."""
    found: list[Any] = []
    monkeypatch.setattr(listener._reaper, "note", lambda run, task=None, *, is_clear=False, **_: is_clear and found.append(run))
    listener.hear_of_deletions()
    listener.hear_of_deletions()
    return found


def put(database: Any, *task_ids: str, state: str = "failed") -> None:  # noqa: F811
    for task_id in task_ids:
        for key in (*OURS, *THEIRS):
            database.put("etl", "one", task_id, state, record(reach=REACH).to_json(), key=key)


@pytest.mark.parametrize("state", [None, "restarting"])
def test_a_clear_that_discards_the_state_of_a_task_leaves_what_is_ours(database: Any, noted: Any, state: Any) -> None:  # noqa: F811
    from airflow.utils.session import create_session

    put(database, "job", "other")
    with create_session() as session:
        database.task_instance(session, "job").state = state
        session.flush()
        database.discard(session, "etl", "one", "job")
    assert database.keys("job") == {*OURS}
    assert database.keys("other") == {*OURS, *THEIRS}


def test_what_a_user_deletes_without_a_clear_is_deleted(database: Any, noted: Any) -> None:  # noqa: F811
    from airflow.utils.session import create_session

    put(database, "cleared", "deleted")
    with create_session() as session:
        database.task_instance(session, "cleared").state = None
    with create_session() as session:  # Airflow uses one session object again and again
        database.discard(session, "etl", "one", "deleted")
    assert database.keys("deleted") == set()


def test_a_clear_by_airflows_own_code_leaves_the_record(database: Any, noted: Any) -> None:  # noqa: F811
    from airflow.utils.session import create_session

    put(database, "job")
    with create_session() as session:
        database.clear(session, "job")
        database.discard(session, "etl", "one", "job")
    assert database.keys("job") == {*OURS}


def test_what_is_not_loaded_is_not_asked_for_while_airflow_writes(database: Any, noted: Any) -> None:  # noqa: F811
    """A question to the database would be asked within a flush, perhaps of an asynchronous session, where it is an error."""
    from airflow.utils.session import create_session
    from sqlalchemy import event

    put(database, "job")
    asked: list[str] = []
    note = lambda *given: asked.append(given[2])
    with create_session() as session:
        one = database.task_instance(session, "job")
        one.pool_slots = 2
        session.expire(one, ["state", "dag_id", "run_id"])
        event.listen(session.get_bind(), "before_cursor_execute", note)
        listener._some_are_cleared(session)
        event.remove(session.get_bind(), "before_cursor_execute", note)
    assert asked == []


def _first_try_after_a_clear(**of_ti: Any) -> dict[str, Any]:
    ti = {"region_id": UUID(int=0), "try_number": 2, "max_tries": 4}  # it was cleared at try 1, with three retries
    run = SimpleNamespace(start_date=None, clear_number=1)
    task = SimpleNamespace(retries=3)
    return {"ti": SimpleNamespace(**{**ti, **of_ti}), "dag_run": run, "task": task, "task_state_store": object()}


def test_the_first_try_after_a_clear_that_finds_no_record_knows_that_there_may_have_been_one() -> None:
    assert host.may_have_lost_its_record(_first_try_after_a_clear())
    assert not host.may_have_lost_its_record(_first_try_after_a_clear(try_number=3))  # it had its own chance to write one
    assert not host.may_have_lost_its_record(_first_try_after_a_clear(max_tries=3, try_number=1))  # never ran before
    assert not host.may_have_lost_its_record({**_first_try_after_a_clear(), "task_state_store": None})
    before_3_4 = _first_try_after_a_clear()
    del before_3_4["ti"].region_id
    assert not host.may_have_lost_its_record(before_3_4)


def test_where_a_clear_takes_the_record_away_the_next_try_says_that_a_job_may_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    instance = task(Plain, service, retries=0)
    die_in_the_wait(instance, service)
    instance.max_tries, instance.clear_number = 1, 1
    instance.data.clear()
    monkeypatch.setattr(TaskInstanceDouble, "region_id", UUID(int=0), raising=False)
    instance.attempt()
    assert "that job may run beside the new one" in "".join(capsys.readouterr())
    assert len(service.tokens) == 2


# -- what a clear takes out of a loop ----------------------------------------------------------------------------------


@pytest.fixture
def supersede(database: Any) -> Any:  # noqa: F811
    if not database.has_loops():
        pytest.skip("this Airflow has no loops")
    return database.supersede


def test_the_job_of_an_iteration_that_a_clear_took_out_of_its_loop_is_stopped(database: Any, noted: Any, supersede: Any) -> None:  # noqa: F811
    database.put("etl", "one", "job", "deferred", record(reach=REACH).to_json())
    supersede("job")
    assert set(noted) == {("etl", "one")}
    asked = listener._asked([listener.Note(("etl", "one"), is_clear=True)])
    assert asked is not None
    assert Sweep().run(asked.runs, asked.by_user, ended_runs=asked.ended_runs, deleted=asked.deleted, only=asked.only) == {
        "stopped": 1
    }
    assert Cloud.cancelled


@pytest.mark.parametrize("state", [None, "up_for_retry", "up_for_reschedule", "queued"])
def test_whatever_state_it_was_in(database: Any, noted: Any, supersede: Any, state: Any) -> None:  # noqa: F811
    from resumable.cleanup.table import SUPERSEDED, TaskStateTable

    database.put("etl", "one", "job", state, record(reach=REACH).to_json())
    supersede("job")
    (row,) = TaskStateTable().ended()
    assert (row.state, row.has_tries_left) == (SUPERSEDED, False)
    assert judged(row, Ended())[0] is Verdict.STOP


def test_a_clear_of_a_loop_has_no_other_job_of_the_run_looked_at(database: Any, noted: Any) -> None:  # noqa: F811
    database.put("etl", "one", "lost", "failed", record(reach=REACH).to_json())
    assert listener._asked([listener.Note(("etl", "one"), is_clear=True)]) is None


def test_an_earlier_try_of_a_task_that_lives_is_no_task_of_its_own(database: Any, noted: Any, supersede: Any) -> None:  # noqa: F811
    from airflow.utils.session import create_session

    from resumable.cleanup.table import TaskStateTable

    database.put("etl", "one", "job", "failed", record(reach=REACH).to_json())
    with create_session() as session:
        database.task_instance(session, "job").prepare_db_for_next_try(session).state = "running"
    assert list(TaskStateTable().ended()) == []
