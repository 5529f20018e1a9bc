"""
Airflow 3.3 with ``[workers] state_store_backend``: values lie in object storage, Airflow keeps references.

The accessors and the backend are the real ones; only the server is a double.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from resumable import host
from resumable.errors import StateStoreError, SupersededError
from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import KEY, Outcome
from resumable.stores.base import RecordStore
from resumable.stores.slots import Slots
from resumable.stores.task_state import AssetStateStore, TaskStateStore
from tests.support.fake_service import Clock, FakeService, new_attempt, start

if not host.has_task_state():
    pytest.skip("this Airflow has no task state store", allow_module_level=True)
pytest.importorskip("airflow.providers.common.io.state_store.backend")

from airflow.sdk import NEVER_EXPIRE
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, context, task_runner
from airflow.sdk.state import TaskScope

BACKEND = "airflow.providers.common.io.state_store.backend.StateStoreObjectStorageBackend"
SCOPE = TaskScope(dag_id="etl", run_id="manual__1", task_id="train", map_index=-1)


class Server:
    """What the API server keeps, and its fence: one id of the task instance is current."""

    def __init__(self) -> None:
        self.rows: dict[str, Any] = {}
        self.current: Any = None

    def send(self, ask: Any) -> Any:
        name = type(ask).__name__
        is_task = hasattr(ask, "ti_id")
        if name.startswith("Get"):
            missing = ErrorType.TASK_STORE_NOT_FOUND if is_task else ErrorType.ASSET_STORE_NOT_FOUND
            if (is_task and ask.ti_id != self.current) or ask.key not in self.rows:
                return comms.ErrorResponse(error=missing, detail={"key": ask.key})
            result = comms.TaskStateStoreResult if is_task else comms.AssetStateStoreResult
            return result(value=self.rows[ask.key])
        if is_task and ask.ti_id != self.current:
            raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404}))
        if name.startswith("Set"):
            self.rows[ask.key] = json.loads(json.dumps(ask.value))
        elif name.startswith("Delete"):
            self.rows.pop(ask.key, None)
        else:
            raise AssertionError(ask)
        return None

    def a_try(self) -> TaskStateStore:
        """The store of a new try: Airflow gives the task instance a new id."""
        self.current = uuid.uuid4()
        return TaskStateStore(context.TaskStateStoreAccessor(self.current, SCOPE), NEVER_EXPIRE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=[0, 10_000], ids=["in objects", "small ones inline"])
def server(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.providers.common.io.state_store import backend

    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", BACKEND)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__STATE_STORE_OBJECTSTORAGE_PATH", folder.as_uri())
    monkeypatch.setenv("AIRFLOW__COMMON_IO__STATE_STORE_OBJECTSTORAGE_THRESHOLD", str(request.param))
    settings = (backend._get_base_path, backend._get_threshold, backend._get_compression)
    for cached in (context._get_worker_state_store_backend, *settings):
        cached.cache_clear()
    server = Server()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", server, raising=False)
    yield server
    monkeypatch.undo()
    for cached in (context._get_worker_state_store_backend, *settings):
        cached.cache_clear()


def test_what_is_set_is_there_for_the_next_try_and_gone_when_deleted(server: Server, folder: Path) -> None:
    assert server.a_try().get(KEY) is None
    for n in range(3):
        store = server.a_try()
        store.get(KEY)
        store.set(KEY, {"n": -1})
        store.set(KEY, {"n": n})
    store = server.a_try()
    assert store.get(KEY) == {"n": 2}
    store.set("other", 0)
    assert len(server.rows) == 4  # no write leaves an older one behind
    store.delete(KEY)
    assert (server.a_try().get(KEY), server.a_try().get("other")) == (None, 0)
    store = server.a_try()
    store.delete("other")
    assert server.rows == {}
    assert [file for file in folder.rglob("*") if file.is_file()] == []


def test_the_write_of_a_try_that_was_given_up_is_refused_and_changes_nothing(server: Server) -> None:
    given_up = server.a_try()
    given_up.set(KEY, {"by": "the first"})
    successor = server.a_try()
    for write in (lambda: given_up.set(KEY, {"by": "the first again"}), lambda: given_up.set("other", 1)):
        with pytest.raises(SupersededError):
            write()
        assert successor.get(KEY) == {"by": "the first"}
    successor.set(KEY, {"by": "the second"})
    with pytest.raises(SupersededError):
        given_up.set(KEY, {"by": "the first again"})
    assert server.a_try().get(KEY) == {"by": "the second"}


def test_without_slots_such_a_write_counts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `Slots` is for: if this fails, Airflow has come to ask the server first."""
    monkeypatch.setattr(host, "task_state_rows", lambda accessor: None)
    given_up = server.a_try()
    given_up.set(KEY, {"n": 1})
    successor = server.a_try()
    successor.set(KEY, {"n": 2})
    with pytest.raises(SupersededError):
        given_up.set(KEY, {"n": 1})
    assert successor.get(KEY) == {"n": 2 if _is_kept_inline(server) else 1}


def test_a_try_that_was_given_up_does_not_undo_what_its_successor_knows_of_the_job(server: Server) -> None:
    service = FakeService(Recovery.LOOK_UP, Clock())
    first = new_attempt(service, server.a_try(), try_number=1)
    start(first, service)
    second = new_attempt(service, server.a_try(), try_number=2)
    second.begin()
    service.finish(0, JobState.FAILED)
    second.close(Outcome.FAILED)
    third = new_attempt(service, server.a_try(), try_number=3)
    start(third, service)
    first.close(Outcome.FAILED)  # still alive, it sees the same failure
    fourth = new_attempt(service, server.a_try(), try_number=4)
    start(fourth, service)
    assert len(service.active()) == 1


@pytest.mark.parametrize("write", ["before any", "ours", "airflows"])
def test_a_value_that_is_gone_is_never_no_record(write: str, server: Server, folder: Path) -> None:
    if write == "airflows":  # by an earlier release
        server.a_try()._accessor.set(KEY, {"n": 1})
    elif write == "ours":
        server.a_try().set(KEY, {"n": 1})
    if write != "before any" and _is_kept_inline(server):
        pytest.skip("there is no object that could be gone")
    shutil.rmtree(folder)
    folder.mkdir()  # a mount that is missing on this worker
    records = RecordStore(server.a_try(), sleep=lambda _: None)
    if write == "before any":
        assert records.load() is None
        return
    with pytest.raises(StateStoreError, match="mounted here"):
        records.load()


def _is_kept_inline(server: Server) -> bool:
    return not any("file:" in json.dumps(row) for row in server.rows.values())


def test_what_was_written_before_the_backend_was_configured_is_read(server: Server) -> None:
    store = server.a_try()
    server.rows[KEY] = {"n": 1}
    assert store.get(KEY) == {"n": 1}
    store.set(KEY, {"n": 2})
    assert server.a_try().get(KEY) == {"n": 2}


def test_an_asset_whose_mark_is_gone_is_not_one_without_a_mark(server: Server, folder: Path) -> None:
    store = AssetStateStore(context.AssetStateStoreAccessor(name="orders"))
    assert store.get("mark") is None
    store.set("mark", 1)
    store.set("mark", 2)
    assert AssetStateStore(context.AssetStateStoreAccessor(name="orders")).get("mark") == 2
    if _is_kept_inline(server):
        return
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(Exception, match="mounted here"):
        store.get("mark")
    assert isinstance(store._slots, Slots)
