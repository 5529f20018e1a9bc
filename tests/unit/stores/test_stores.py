"""Where records are kept: Airflow Variables before 3.3, object storage, a store of one's own, and the way through an upgrade."""

from __future__ import annotations

import functools
import json
import os
import re
import types
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

import pytest

import resumable
from resumable import Checkpoint, ResumableMixin, host, once
from resumable.checkpoint.kept import ObjectFolder
from resumable.errors import ConfigurationError, RefusedError, StateStoreError, SupersededError
from resumable.host import _three, _two, versions
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.decision import Recovery
from resumable.jobs.record import KEY, JobHandle, JobRecord, Outcome
from resumable.jobs.spec import Spec
from resumable.stores import MemoryStore, RecordStore
from resumable.stores.object_storage import ObjectStorageStore
from resumable.stores.task_state import AfterUpgrade, TaskStateStore
from resumable.stores.task_variables import TaskVariableStore
from resumable.stores.variables import VariableStore, _prefix, name_of
from tests.support.fake_service import TASK as FAKE_TASK
from tests.support.fake_service import Clock, FakeService, new_attempt, start
from tests.support.runner import TaskInstance

TASK = TaskIdentity("etl", "manual__2026-01-01T00:00:00+00:00", "train")
ODD = [
    TASK,
    TaskIdentity("etl", "a/b?c=d#e %2F\n", "train.step"),
    TaskIdentity("d" * 250, "r" * 250, "t" * 250, 1023),
    TaskIdentity("größe", "лог", "任务", 0),
    TaskIdentity("rotate_secrets", "token-refresh", "api_key_password"),
    TaskIdentity("", "", ""),
    TaskIdentity("a.b", "c", "d"),
    TaskIdentity("a", "c", "b.d"),
    TaskIdentity("a", "c", "d", 1),
    TaskIdentity("a", "c", "d", -1),
    TaskIdentity("a", "c", "1.d", -1),
]


class Names:
    """Airflow Variables in a dict."""

    def __init__(self):
        self.kept = {}

    def get(self, name):
        return self.kept.get(name)

    def set(self, name, text, description):
        self.kept[name] = text

    def delete(self, name):
        self.kept.pop(name, None)


def record(owner="one", **more):
    return JobRecord("demo", "t" * 48, Generation(1, 0, "2026-01-01T00:00:00+00:00"), 0, owner, 1, 1_767_225_600.0, **more)


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())
    return tmp_path


@pytest.fixture(params=["memory", "variables", "object storage"])
def make(request, storage):
    """A function from a task instance to its store; two calls are two processes."""
    names, memory = Names(), {}
    return {
        "memory": lambda task: memory.setdefault(task, MemoryStore()),
        "variables": lambda task: VariableStore(task, names),
        "object storage": ObjectStorageStore,
    }[request.param]


def test_what_is_set_is_there_for_the_next_process_and_gone_when_deleted(make):
    assert make(TASK).get(KEY) is None
    make(TASK).set(KEY, {"a": [1, None, "ü"]})
    make(TASK).set(KEY, {"a": [2]})
    make(TASK).set("other", 0)
    assert make(TASK).get(KEY) == {"a": [2]}
    assert make(TASK).get("other") == 0
    for _ in range(2):
        make(TASK).delete(KEY)
        assert make(TASK).get(KEY) is None
    assert make(TASK).get("other") == 0


def test_no_two_task_instances_share_a_value_whatever_their_ids(make):
    for number, task in enumerate(ODD):
        make(task).set(KEY, {"number": number})
    assert [make(task).get(KEY)["number"] for task in ODD] == list(range(len(ODD)))


@pytest.mark.parametrize("keys", [("resumable.once.a.b", "resumable.once.a-b"), ("o" * 90 + "1", "o" * 90 + "2")])
def test_no_two_keys_of_a_task_share_a_value(make, keys):
    one, other = keys
    make(TASK).set(one, 1)
    assert make(TASK).get(other) is None
    make(TASK).set(other, 2)
    assert (make(TASK).get(one), make(TASK).get(other)) == (1, 2)


@pytest.mark.parametrize("names", [("Files", "files"), ("ORDERS.eu", "orders.eu"), ("a-B", "a-b")])
def test_no_two_keys_of_a_task_are_one_file_where_capitals_do_not_count(storage, names):
    """As on a shared folder of Windows, macOS or Azure Files."""
    for name in names:
        ObjectStorageStore(TASK).set(f"resumable.checkpoint.{name}", name)
    files = [path for path in storage.rglob("*.json")]
    assert len({str(path).lower() for path in files}) == len(files) == 2


def test_mapped_tasks_that_write_at_once_keep_each_their_own(make):
    def run(index):
        store = make(TaskIdentity("etl", "run", "mapped", index))
        for turn in range(20):
            store.set(KEY, [index, turn])
            assert store.get(KEY) == [index, turn]
        store.delete(KEY)
        return store.get(KEY)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(run, range(16))) == {None}


def test_an_attempt_that_was_given_up_does_not_write_over_its_successor(make):
    old, new = RecordStore(make(TASK)), RecordStore(make(TASK))
    old.save(record("old"))
    new.load()
    new.save(record("new"))
    with pytest.raises(SupersededError, match="Another attempt"):
        old.save(record("old"))
    assert RecordStore(make(TASK)).load().owner == "new"


# -- Variables ---------------------------------------------------------------------------------------------------------


MASKERS = (
    "airflow.sdk._shared.secrets_masker",
    "airflow._shared.secrets_masker",
    "airflow.sdk.execution_time.secrets_masker",
    "airflow.utils.log.secrets_masker",
)


def should_hide():
    return versions.first_of("should_hide_value_for_key", *MASKERS)


@pytest.mark.parametrize("word", sorted(versions.first_of("DEFAULT_SENSITIVE_FIELDS", *MASKERS)))
def test_no_word_for_which_airflow_hides_a_value_is_left_in_a_name(word):
    for dag_id in (word, f"sync_{word.upper()}s", word.replace("_", "")):
        task = TaskIdentity(dag_id, "run", word)
        for name in (name_of(task), name_of(task, word), TaskVariableStore(task, Names())._named(word)):
            assert not should_hide()(name)


def test_what_a_variable_holds_is_shown_by_airflow_as_it_is():
    pytest.importorskip("airflow.sdk")
    from airflow.api_fastapi.core_api.datamodels.variables import VariableResponse

    names = Names()
    RecordStore(VariableStore(TASK, names)).save(record())
    ((name, text),) = names.kept.items()
    shown = VariableResponse(key=name, value=text, description=None, is_encrypted=True, team_name=None).val
    assert json.loads(shown) == json.loads(text)
    assert "t" * 48 in shown
    assert RecordStore(VariableStore(TASK, names)).load() == record()


@pytest.mark.parametrize("task", ODD, ids=str)
def test_a_name_is_short_readable_fit_for_a_url_and_never_masked(task):
    masker = should_hide()
    name = name_of(task)
    assert name.startswith("resumable.")
    assert len(name) < 250
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
    assert not masker(name)
    assert not masker(name_of(task, "token of a checkpoint"))


def test_a_name_says_which_task_it_is():
    assert name_of(TASK).startswith("resumable.etl.train.manual__2026-01-01T00-00-00-00-00.")
    assert name_of(TaskIdentity("etl", "run", "train", 7)).startswith("resumable.etl.train.7.run.")


def test_a_name_never_changes_because_a_job_may_be_in_flight_under_it():
    assert name_of(TASK) == "resumable.etl.train.manual__2026-01-01T00-00-00-00-00.0d8fbcd57d71e8af2adf"


def vars_of(task):
    return {name: getattr(task, name) for name in ("dag_id", "run_id", "task_id", "map_index")}


def test_a_variable_of_somebody_else_is_an_error_and_not_nothing():
    names = Names()
    names.kept[name_of(TASK)] = json.dumps({"task": {**vars_of(TASK), "dag_id": "another"}, "value": {}})
    with pytest.raises(StateStoreError, match="not about etl"):
        RecordStore(VariableStore(TASK, names), sleep=lambda _: None).load()
    names.kept[name_of(TASK)] = "hello"
    with pytest.raises(StateStoreError):
        RecordStore(VariableStore(TASK, names), sleep=lambda _: None).load()


# -- Airflow 3: the supervisor's answers -------------------------------------------------------------------------------


@pytest.fixture
def supervisor(monkeypatch):
    """A supervisor that answers with what `answer` holds, and questions for a state with `states`."""
    pytest.importorskip("airflow.sdk")
    from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

    told = types.SimpleNamespace(answer=None, asked=[], states=TaskStatesResult(task_states={}))

    def send(ask):
        told.asked.append(ask)
        if isinstance(ask, GetTaskStates):
            return told.states() if callable(told.states) else told.states
        if isinstance(told.answer, BaseException):
            raise told.answer
        return told.answer

    comms = types.SimpleNamespace(send=send)
    monkeypatch.setattr(_three, "_comms", lambda: comms)
    return told


def test_only_not_found_is_no_variable_and_every_other_error_is_an_error(supervisor):
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, VariableResult

    variables = _three.SupervisorVariables(TASK)
    supervisor.answer = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": "k"})
    assert variables.get("k") is None
    supervisor.answer = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
    for order in (lambda: variables.get("k"), lambda: variables.set("k", "v", ""), lambda: variables.delete("k")):
        with pytest.raises(AirflowRuntimeError):
            order()
    for answer in (EOFError("closed"), None, VariableResult(key="other", value="1"), VariableResult(key="k", value=None)):
        supervisor.answer = answer
        with pytest.raises((EOFError, RuntimeError)):
            variables.get("k")
    supervisor.answer = VariableResult(key="k", value="text")
    assert variables.get("k") == "text"


def test_a_server_that_cannot_ask_its_database_is_not_one_without_the_variable(supervisor):
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, TaskStatesResult, VariableResult

    def is_back():
        supervisor.answer = VariableResult(key="k", value="text")
        return TaskStatesResult(task_states={})

    variables = _three.SupervisorVariables(TASK)
    supervisor.answer = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": "k"})
    supervisor.states = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
    with pytest.raises(AirflowRuntimeError):
        variables.get("k")
    supervisor.states = is_back
    assert variables.get("k") == "text"


def test_airflow_3_says_not_found_when_its_database_fails(monkeypatch):
    """Why `SupervisorVariables` asks again: what the API server of 3.0 to 3.3 answers a task with."""
    pytest.importorskip("airflow.sdk")
    from airflow.models import variable  # noqa: TID251

    class Down:
        def get_variable(self, **_):
            raise OSError("the database is down")

    monkeypatch.setattr(variable, "ensure_secrets_loaded", lambda *_: [Down()])
    assert variable.Variable.get_variable_from_secrets("k") is None


def test_a_supervisor_connection_without_a_lock_is_given_one():
    class Decoder:
        def send(self, msg):
            return lock.locked()

    comms = Decoder()
    lock = _three.request_lock(comms)
    assert comms.send("ask") is True
    assert not lock.locked()
    assert _three.request_lock(Decoder()) is lock
    own = types.SimpleNamespace(_thread_lock=object())
    assert _three.request_lock(own) is own._thread_lock


# -- which one ---------------------------------------------------------------------------------------------------------


class Accessor(MemoryStore):
    """``context["task_state_store"]``."""

    def set(self, key, value, *, retention=None):
        super().set(key, value)


def context(**more):
    ti = types.SimpleNamespace(dag_id="etl", run_id="run", task_id="train", map_index=-1, try_number=1)
    for name in [name for name in more if name != "task_state_store"]:
        setattr(ti, name, more.pop(name))
    return {"ti": ti, **more}


def test_a_unit_test_gets_a_store_in_memory_that_lasts_for_the_process(caplog):
    MemoryStore.of_process.clear()
    host.state_store(context()).set(KEY, 1)
    assert host.state_store(context()).get(KEY) == 1
    assert host.state_store(context(map_index=3)).get(KEY) is None
    assert "memory of this process" in caplog.text


def test_a_task_that_airflow_runs_is_never_kept_in_memory(monkeypatch):
    monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
    monkeypatch.setattr(host, "has_task_state", lambda: False)
    assert isinstance(host.state_store(context()), VariableStore)
    monkeypatch.setattr(host, "has_task_state", lambda: True)
    with pytest.raises(Exception, match="Nothing was submitted"):
        host.state_store(context())


def test_the_configured_store_comes_before_every_other(storage, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "resumable.stores.object_storage.ObjectStorageStore")
    host.state_store(context(task_state_store=Accessor())).set(KEY, {"a": 1})
    assert [json.loads(file.read_text()) for file in storage.rglob("*.json")] == [{"a": 1}]
    assert not [file for file in storage.rglob(".*") if file.is_file()]


class NoArgument(MemoryStore):
    pass


class Nothing:
    def __init__(self, task):
        pass


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("resumable.stores.nowhere.Store", "cannot be imported"),
        ("Store", "cannot be imported"),
        ("resumable.stores.memory.Missing", "cannot be imported"),
        ("broken_store_module.Store", "RuntimeError: broken on import"),
        (f"{__name__}.Nothing", "no store: it has no get"),
        (f"{__name__}.record", "no store"),
        (f"{__name__}.NoArgument", "cannot be called with a TaskIdentity"),
    ],
)
def test_a_store_that_cannot_be_used_is_an_error_while_a_dag_is_parsed(store, says, monkeypatch, tmp_path):
    (tmp_path / "broken_store_module.py").write_text("raise RuntimeError('broken on import')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", store)
    with pytest.raises(ConfigurationError, match=says) as error:
        host.require_store()
    assert "Nothing was submitted" in str(error.value)


@pytest.mark.parametrize(("path", "says"), [("", "no URL"), ("/srv/state", "no URL"), ("nosuch://b/state", "cannot be opened")])
def test_an_object_storage_path_that_cannot_be_used_is_an_error_while_a_dag_is_parsed(path, says, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "resumable.stores.object_storage.ObjectStorageStore")
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", path)
    with pytest.raises(ConfigurationError, match=says):
        host.require_store()


def test_a_shared_folder_that_is_not_mounted_here_is_not_an_empty_store(storage, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", (storage / "mounted").as_uri())
    for order in (lambda store: store.get(KEY), lambda store: store.set(KEY, {})):
        with pytest.raises(OSError, match="mounted here"):
            order(ObjectStorageStore(TASK))
    assert not list(storage.iterdir())


def test_an_object_is_there_as_a_whole_or_not_at_all(storage, monkeypatch):
    ObjectStorageStore(TASK).set(KEY, {"a": 1})
    monkeypatch.setattr("os.replace", lambda *_: pytest.fail("died"))
    with pytest.raises(BaseException, match="died"):
        ObjectStorageStore(TASK).set(KEY, {"a": 2})
    assert ObjectStorageStore(TASK).get(KEY) == {"a": 1}


class Disk:
    """What a file system still has after a power failure: contents and names whose file or folder was synced after the change."""

    def __init__(self, monkeypatch):
        self.names, self.synced, self.turn = {}, {}, 0
        self._real = {name: getattr(os, name) for name in ("fsync", "replace", "mkdir")}
        for name in self._real:
            monkeypatch.setattr(os, name, functools.partial(self._called, name))

    def _called(self, name, *arguments, **more):
        self.turn += 1
        done = self._real[name](*arguments, **more)
        if name == "fsync":
            self.synced[str(Path(f"/proc/self/fd/{arguments[0]}").readlink())] = self.turn
        elif name == "replace":
            assert self.synced.get(str(arguments[0])), "the content was not synced before it got its name"
            self.names[str(arguments[1])] = self.turn
        else:
            self.names[str(arguments[0])] = self.turn
        return done

    def lost(self):
        return [name for name, turn in self.names.items() if self.synced.get(str(Path(name).parent), 0) < turn]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux, to know which file is synced")
@pytest.mark.parametrize("writes", ["a record", "what a checkpoint has no other room for"])
def test_what_was_written_to_a_shared_folder_is_still_there_after_a_power_failure(storage, monkeypatch, writes):
    """Its content, its name, and each folder on the way to it."""
    disk = Disk(monkeypatch)
    if writes == "a record":
        ObjectStorageStore(TASK).set(KEY, {"a": 1})
        ObjectStorageStore(TASK).set(KEY, {"a": 2})
    else:
        ObjectFolder(storage.as_uri(), TASK).put("bitmap", b"content")
    assert any(name.endswith((".json", "bitmap")) for name in disk.names)
    assert disk.lost() == []


@pytest.mark.parametrize("try_number", [1, 2])  # a task that was deferred is started from the top, as its first try
def test_after_an_upgrade_the_first_attempt_finds_the_variable_of_the_old_airflow(try_number, monkeypatch):
    names, accessor = Names(), Accessor()
    monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
    monkeypatch.setattr(host, "variables", lambda task: names)
    old = record("old").with_handle(JobHandle("demo", 7), 1_767_225_601.0)
    task = host.task_identity(context())
    RecordStore(VariableStore(task, names)).save(old)

    records = RecordStore(host.state_store(context(task_state_store=accessor, try_number=try_number)))
    assert records.load() == old
    assert names.kept == {}
    assert JobRecord.from_json(accessor.get(KEY)) == old
    records.save(record("new").with_handle(JobHandle("demo", 7), 1_767_225_601.0))
    assert names.kept == {}
    assert accessor.get(KEY)["owner"] == "new"


@pytest.mark.parametrize("word", ["False", "off", "no", "0", "f"])
def test_where_nothing_from_before_the_upgrade_can_be_in_flight_a_new_airflow_asks_its_own_store_alone(monkeypatch, word):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__LOOK_FOR_VARIABLES", word)
    monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
    monkeypatch.setattr(host, "variables", lambda task: pytest.fail("no Variable is wanted"))
    records = RecordStore(host.state_store(context(task_state_store=Accessor())))
    assert records.load() is None
    records.save(record())


# -- after an upgrade: every task may write any Variable ---------------------------------------------------------------

RUN_STARTED = datetime(2026, 1, 1, tzinfo=timezone.utc)
OTHER_RUN = "2025-01-01T00:00:00+00:00"
ANOTHER = Spec("another text", {"run_name": "0a1b2c"})


def upgraded(names, accessor, monkeypatch, **run):
    """The store of a task's first start on 3.3, of a DAG run that was started at `RUN_STARTED`."""
    monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
    monkeypatch.setattr(host, "variables", lambda task: names)
    dag_run = types.SimpleNamespace(**{"clear_number": 0, "start_date": RUN_STARTED, "run_id": "run", **run})
    return host.state_store({**context(task_state_store=accessor, max_tries=1), "dag_run": dag_run})


def forged(**changes):
    """What anybody can write: the ids are known, and the name is computed from them."""
    return record("x", handle=JobHandle("demo", 7), submitted_at=1_767_225_601.0, **changes)


@pytest.mark.parametrize("changes", [{}, {"try_number": 99}, {"spec": ANOTHER}])
def test_a_variable_of_another_run_is_not_believed(changes, monkeypatch, caplog):
    names, accessor = Names(), Accessor()
    task = host.task_identity(context())
    RecordStore(VariableStore(task, names)).save(replace(forged(**changes), generation=Generation(1, 0, OTHER_RUN)))
    assert RecordStore(upgraded(names, accessor, monkeypatch)).load() is None
    assert "is not believed" in caplog.text
    assert accessor.data == {}


def test_a_variable_of_this_run_brings_no_spec_that_could_have_changed_and_no_later_try(monkeypatch):
    names, accessor = Names(), Accessor()
    task = host.task_identity(context())
    RecordStore(VariableStore(task, names)).save(forged(try_number=99, spec=ANOTHER))
    found = RecordStore(upgraded(names, accessor, monkeypatch)).load()
    assert (found.handle.ids, found.spec, found.try_number) == (7, None, 1)


def test_a_variable_of_this_run_is_no_reason_to_stop_a_job_after_a_clear(monkeypatch):
    names, accessor = Names(), Accessor()
    task = host.task_identity(context())
    RecordStore(VariableStore(task, names)).save(replace(forged(), generation=Generation(9, 0, RUN_STARTED.isoformat())))
    with pytest.raises(RefusedError, match=r"demo job 7.*Nothing was submitted"):
        RecordStore(upgraded(names, accessor, monkeypatch)).load()
    assert accessor.data == {}


@pytest.mark.parametrize(
    "text",
    ["hello", "[]", "{}", '{"task": {}, "value": 1}', json.dumps({"task": vars_of(TASK), "value": {}})],
)
def test_a_variable_that_is_none_of_ours_fails_no_task(text, monkeypatch):
    names, accessor = Names(), Accessor()
    names.kept[name_of(host.task_identity(context()))] = text
    assert RecordStore(upgraded(names, accessor, monkeypatch)).load() is None


def test_what_a_variable_says_that_once_made_is_not_cleaned_up_for_a_clear(monkeypatch):
    names, accessor = Names(), Accessor()
    task = host.task_identity(context())
    made = {"version": 1, "state": "made", "value": "precious", "generation": Generation(9, 0, OTHER_RUN).to_json()}
    VariableStore(task, names).set("resumable.once.x", made)
    assert upgraded(names, accessor, monkeypatch).get("resumable.once.x") is None


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_forged_variable_makes_no_victim_stop_a_job(is_guarded, monkeypatch):
    service = FakeService(Recovery.REPEAT, Clock())
    service.submit("another team's", None)  # job 0, active
    names, accessor = Names(), MemoryStore()
    mine = Generation(1, 0, "2026-01-01T00:00:00+00:00")
    poison = {**forged().to_json(), "service": "fake", "job": 0, "place": {"region": "eu"}}
    VariableStore(FAKE_TASK, names).set(KEY, {**poison, "generation": Generation(1, 0, OTHER_RUN).to_json()})
    store = AfterUpgrade(accessor, VariableStore(FAKE_TASK, names), generation=mine if is_guarded else None)
    if not is_guarded:
        monkeypatch.setattr(RecordStore, "was_carried_over", False)
    start(new_attempt(service, store), service)
    assert bool(service.count("cancel")) is not is_guarded


def test_a_fresh_start_on_a_new_airflow_costs_one_request_more_than_its_own_store_whatever_keys_it_has(supervisor, monkeypatch):
    comms = pytest.importorskip("airflow.sdk.execution_time.comms")
    if not hasattr(comms, "GetVariableKeys"):
        pytest.skip("this Airflow cannot list Variables")
    supervisor.answer = comms.VariableKeysResult(keys=[], total_entries=0)
    monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
    given = context(task_state_store=Accessor())
    for key in (KEY, "resumable.once.a", "resumable.checkpoint.b"):
        assert host.state_store(given).get(key) is None
        host.state_store(given).delete(key)
    assert [type(ask).__name__ for ask in supervisor.asked] == ["GetVariableKeys"]
    assert supervisor.asked[0].prefix == "resumable.etl.train.run."


@pytest.mark.parametrize("task", ODD, ids=str)
def test_the_names_of_a_tasks_variables_begin_with_what_is_asked_for(task):
    for key in (KEY, "resumable.once.token", "resumable.checkpoint.passwords"):
        assert name_of(task, key).startswith(_prefix(task))


def test_a_list_that_does_not_tell_of_all_is_no_answer(supervisor, monkeypatch):
    comms = pytest.importorskip("airflow.sdk.execution_time.comms")
    if not hasattr(comms, "GetVariableKeys"):
        pytest.skip("this Airflow cannot list Variables")
    variables = _three.SupervisorVariables(TASK)
    supervisor.answer = comms.VariableKeysResult(keys=["resumable.a"], total_entries=2)
    assert variables.names("resumable.") is None
    supervisor.answer = comms.VariableKeysResult(keys=["resumable.a"], total_entries=1)
    assert variables.names("resumable.") == {"resumable.a"}
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    assert variables.names("resumable.") is None


def test_a_death_between_the_new_store_and_the_old_one_loses_nothing():
    class Dies(MemoryStore):
        def delete(self, key):
            raise KeyboardInterrupt

    store, older = MemoryStore(), Dies()
    older.set(KEY, 1)
    with pytest.raises(KeyboardInterrupt):
        AfterUpgrade(store, older).get(KEY)
    assert AfterUpgrade(store, older).get(KEY) == 1


def test_a_try_that_airflow_has_given_up_carries_nothing_over():
    class Refusing(MemoryStore):
        def set(self, key, value):
            raise SupersededError

    older = MemoryStore()
    older.set(KEY, 1)
    with pytest.raises(SupersededError):
        AfterUpgrade(Refusing(), older).get(KEY)
    assert older.get(KEY) == 1


def test_an_old_store_that_does_not_answer_is_not_taken_for_an_empty_one():
    class Down(MemoryStore):
        def get(self, key):
            raise OSError("down")

    with pytest.raises(StateStoreError):
        RecordStore(AfterUpgrade(MemoryStore(), Down()), sleep=lambda _: None).load()


def test_airflows_clean_up_leaves_the_record_of_a_job_that_may_run(monkeypatch):
    context_of_tasks = pytest.importorskip("airflow.sdk.execution_time.context")
    if not host.has_task_state():
        pytest.skip("this Airflow has no task state store")
    from airflow.sdk.execution_time import task_runner

    sent = []
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", types.SimpleNamespace(send=sent.append), raising=False)
    accessor = context_of_tasks.TaskStateStoreAccessor(uuid.uuid4(), None)
    store = host.state_store(context(task_state_store=accessor))
    submitting = record()
    submitted = submitting.with_handle(JobHandle("demo", 7), 1.0)
    for one in (submitting, submitted, submitted.closed(Outcome.SUCCEEDED, 2.0)):
        RecordStore(store).save(one)
    assert [message.expires_at is None for message in sent] == [True, True, False]


# -- when it is deleted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "kept"), [("success", False), ("up_for_retry", True), ("queued", True), (None, True)])
def test_a_record_is_deleted_only_when_airflow_has_taken_note_of_the_success(state, kept, monkeypatch):
    monkeypatch.setattr(host, "has_sdk", lambda: True)
    told = []
    operator = types.SimpleNamespace(on_success_callback=[lambda _: told.append("theirs")])
    ti = types.SimpleNamespace(
        dag_id="etl", run_id="run", task_id="train", map_index=-1, get_task_states=lambda **_: {"run": {"train": state}}
    )
    host.after_success(operator, {"ti": ti}, lambda: told.append("deleted"))
    for callback in operator.on_success_callback:
        callback({})
    assert told == (["theirs"] if kept else ["theirs", "deleted"])


def test_a_record_is_kept_when_airflow_does_not_say_what_became_of_the_task(monkeypatch):
    monkeypatch.setattr(host, "has_sdk", lambda: True)
    monkeypatch.setattr(host, "own_state", lambda context: 1 / 0)
    operator = types.SimpleNamespace()
    host.after_success(operator, {}, lambda: pytest.fail("deleted"))
    operator.on_success_callback[0]({})


# -- Airflow 2's own signal handler ------------------------------------------------------------------------------------


def test_sigterm_calls_on_kill_alone_and_the_old_handler_is_back_afterwards():
    import os
    import signal

    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("theirs"))
    try:
        with _two.sigterm_calls(lambda: told.append("ours")):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == ["ours", "theirs"]


# -- versions ----------------------------------------------------------------------------------------------------------


def test_nothing_outside_of_host_asks_which_airflow_this_is():
    """`has_task_state` may be asked for: what a deployment has, and not which version it is."""
    root = Path(resumable.__file__).parent
    words = re.compile(r"has_sdk|AIRFLOW_V_|(from|import) airflow\.sdk|airflow\.__version__|airflow import __version__|packaging")
    files = [file for file in root.rglob("*.py") if "host" not in file.relative_to(root).parts]
    assert len(files) > 40
    assert [f"{file}: {found}" for file in files if (found := words.search(file.read_text()))] == []


class Minimal:
    """A store of one's own that says nothing about itself."""

    data: ClassVar[dict] = {}

    def __init__(self, task):
        self._prefix = str(task)

    def get(self, key):
        return self.data.get((self._prefix, key))

    def set(self, key, value):
        self.data[self._prefix, key] = value

    def delete(self, key):
        self.data.pop((self._prefix, key), None)


class Keeping(Minimal):
    outlives_success = True


class AllThree(ResumableMixin, host.base_operator()):
    """A job, a checkpoint and a value of `once` in one task."""

    def execute(self, given):
        once("thing", lambda: "made", context=given)
        with Checkpoint("items", context=given) as checkpoint:
            for _ in checkpoint.items([1, 2]):
                pass
        return self.execute_resumable(given)

    def submit_job(self, context):
        return 7

    def get_job_status(self, external_id, context):
        return "DONE"

    def is_job_active(self, status):
        return False

    def is_job_succeeded(self, status):
        return True

    def poll_until_complete(self, external_id, context):
        pass

    def get_job_result(self, external_id, context):
        return external_id


@pytest.mark.skipif(not host.has_sdk(), reason="Airflow 2 tells a listener of the success: tests/versions")
@pytest.mark.parametrize("store", [Minimal, Keeping])
def test_a_store_of_ones_own_keeps_nothing_of_a_task_that_has_succeeded_unless_it_says_so(store, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", f"{__name__}.{store.__name__}")
    Minimal.data.clear()
    instance, made = None, []
    instance = TaskInstance(lambda: made.append(AllThree(task_id="task")) or made[-1])
    instance.attempt()
    assert len(Minimal.data) == 4  # a checkpoint keeps its list beside its progress
    instance.state = "success"
    monkeypatch.setattr(host, "own_state", lambda context: "success")
    callbacks = made[-1].on_success_callback
    for callback in callbacks if isinstance(callbacks, list | tuple) else [callbacks]:
        if callback is not None:
            callback({})
    assert bool(Minimal.data) is (store is Keeping)


# -- what Airflow's clean-up may take away -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "stays"),
    [
        (KEY, {"state": "submitted"}, True),
        (KEY, {"state": "succeeded"}, False),
        ("resumable.once.x", {"state": "made", "cleanup": "m:f"}, True),
        ("resumable.once.x", {"state": "made", "cleanup": None}, False),
        ("resumable.once.x", {"state": "making", "cleanup": None}, True),
        ("resumable.checkpoint.x", {"kind": "items"}, False),
        ("resumable.checkpoint.x.items.0a1b", {"ids": ""}, True),  # written once, needed as long as the task is tried
    ],
)
def test_only_what_is_needed_however_old_it_is_stays_for_ever(key, value, stays):
    kept = {}

    class Keeps:
        def set(self, key, value, **how):
            kept[key] = how

    TaskStateStore(Keeps(), "forever").set(key, value)
    assert kept[key] == ({"retention": "forever"} if stays else {})


def test_no_limit_of_a_value_is_none(monkeypatch):
    for given, limit in (("0", 10**9), ("1000", 1000), ("65535", 65535)):
        monkeypatch.setenv("AIRFLOW__STATE_STORE__MAX_VALUE_STORAGE_BYTES", given)
        assert host.value_limit() >= limit
        assert (host.value_limit() > limit) is (given == "0")


def test_progress_is_put_into_no_folder_that_is_not_mounted_here(storage):
    folder = ObjectFolder((storage / "mounted").as_uri(), TASK)
    with pytest.raises(OSError, match="mounted here"):
        folder.put("x", b"1")
    assert not list(storage.iterdir())
