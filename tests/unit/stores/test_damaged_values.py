"""Values that were cut short, or changed by hand: told of at once and in words, never a traceback, and nothing starts over."""

from __future__ import annotations

import json
import logging

import pytest

from resumable import RecordError, Watermark, host, once
from resumable.checkpoint.kept import ObjectFolder
from resumable.identity import TaskIdentity
from resumable.jobs.record import KEY
from resumable.stores import RecordStore
from resumable.stores.object_storage import WHOSE, ObjectStorageStore, folders, require_owner
from resumable.stores.task_state import AfterUpgrade
from resumable.stores.task_variables import TaskVariableStore
from resumable.stores.variables import VariableStore
from tests.support.checkpointed import task  # noqa: F401

# ruff: noqa: F811

TASK = TaskIdentity("d", "r", "t")

DAMAGE = {
    "empty": "",
    "cut short": '{"version": 1, "state": "subm',
    "another's": "hello",
    "binary": "\x00\x01\udcff",
    "a number": "7",
    "a text": '"x"',
    "nothing": "null",
    "a list": "[1, 2]",
    "nested without end": "[" * 200_000,
}
damaged = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


class Texts(dict):
    """Airflow Variables."""

    def set(self, name, text, description):
        self[name] = text

    def delete(self, name):
        self.pop(name, None)


@pytest.fixture
def no_time(monkeypatch):
    """Nothing is asked again for some seconds."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits, and asks again"))


@pytest.fixture(params=["variables", "object storage"])
def kept(request, tmp_path, monkeypatch):
    """The store of a task, and how to damage all that is in it."""
    if request.param == "variables":
        texts = Texts()

        def damage(text):
            for name in texts:
                texts[name] = text

        return VariableStore(TASK, texts), damage
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())

    def damage_files(text):
        for path in tmp_path.rglob("*.json"):
            path.write_bytes(text.encode(errors="surrogateescape"))

    return ObjectStorageStore(TASK), damage_files


@pytest.fixture
def used(kept, task, monkeypatch):
    monkeypatch.setattr(host, "state_store", lambda context: kept[0])
    return task, kept[1]


@damaged
def test_a_job_record_that_is_damaged_is_an_error_at_once_that_says_so(kept, damage, no_time):
    store, do_damage = kept
    store.set(KEY, {"any": "thing"})
    do_damage(damage)
    if damage == "null" and isinstance(store, ObjectStorageStore):
        return  # JSON's own word for nothing, which no store of ours writes
    with pytest.raises(RecordError, match="cannot be read"):
        RecordStore(store).load()


@damaged
def test_a_checkpoint_that_is_damaged_is_an_error_at_once_and_no_start_over(used, damage, no_time):
    task, do_damage = used
    task.stopped(["a", "b", "c"], 2, every=1)
    do_damage(damage)
    if damage != "null":
        with pytest.raises(RecordError, match="cannot be read"):
            task.run(["a", "b", "c"])


@damaged
def test_a_value_of_once_that_is_damaged_is_an_error_at_once_and_no_second_one_is_made(used, damage, no_time):
    task, do_damage = used
    made = []
    once("c", lambda: made.append(1) or "cluster", context=task.context())
    do_damage(damage)
    if damage != "null":
        with pytest.raises(RecordError, match="cannot be read"):
            once("c", lambda: made.append(1) or "cluster", context=task.context())
        assert made == [1]


@damaged
def test_a_mark_in_a_variable_that_is_damaged_is_an_error_at_once_and_nothing_is_read(task, monkeypatch, damage, no_time):
    texts = Texts()
    monkeypatch.setattr(host, "task_variable_store", lambda context: TaskVariableStore(TASK, texts))
    monkeypatch.setattr(host, "allows_runs_at_once", lambda context: False)

    def read():
        with Watermark("orders", start=0, until=10, context=task.context()) as mark:
            mark.advance()

    read()
    task.data.clear()  # another run
    texts.update(dict.fromkeys(texts, damage))
    if damage != "null":
        with pytest.raises(RecordError, match="cannot be read"):
            read()


def test_what_an_older_airflow_left_damaged_is_not_believed(kept, no_time, caplog):
    store, do_damage = kept
    store.set(KEY, {"any": "thing"})
    do_damage("{")
    new = {}

    class Own:
        fences_writes = outlives_success = True
        get, set, delete = new.get, new.__setitem__, new.pop

    assert AfterUpgrade(Own(), store).get(KEY) is None
    assert "is not read" in caplog.text


# -- the files of a store_path that say whose it is -------------------------------------------------------------------


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())
    return tmp_path


@pytest.mark.parametrize("damage", [*DAMAGE.values(), "{}"])
def test_a_claim_of_a_store_path_that_is_damaged_says_which_file_it_is(base, damage):
    (base / "resumable-owner.txt").write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(RecordError, match=r"resumable-owner\.txt.*cannot be read"):
        require_owner(host.object_storage_path()(base.as_uri()), "", "d" * 32)


@pytest.mark.parametrize("damage", [*DAMAGE.values(), "{}", '{"namespace": ""}'])
def test_one_damaged_folder_hides_no_other_from_the_sweep(base, damage, caplog):
    caplog.set_level(logging.WARNING)
    for number in range(3):
        ObjectStorageStore(TaskIdentity("d", "r", f"t{number}")).set(KEY, {})
    odd = next(path for path in base.rglob(WHOSE) if "t1" in path.parent.name)
    odd.write_bytes(damage.encode(errors="surrogateescape"))
    assert sorted(folder.ids["task_id"] for folder in folders()) == ["t0", "t2"]
    assert "whose it is cannot be read" in caplog.text


@pytest.mark.parametrize("write", ["claim", "record", "object"])
def test_the_files_that_say_whose_it_is_are_there_as_a_whole_or_not_at_all(base, monkeypatch, write):
    """A worker that dies in the write, or another one that reads at this moment."""
    seen = []

    def die(fresh, target):
        seen.append(json.loads(fresh.read_bytes()) if target.endswith(".txt") else None)
        raise OSError("died")

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(OSError, match="died"):
        if write == "claim":
            require_owner(host.object_storage_path()(base.as_uri()), "", "d" * 32)
        elif write == "record":
            ObjectStorageStore(TASK).set(KEY, {})
        else:
            ObjectFolder(base.as_uri(), TASK).put("bits", b"x")
    assert seen[0]
    assert list(base.rglob("*.txt")) == []


def test_a_checkpoint_whose_state_nobody_damaged_goes_on(used):
    task, _ = used
    task.stopped(["a", "b", "c"], 2, every=1)
    assert task.run(["a", "b", "c"]) == ["c"]
