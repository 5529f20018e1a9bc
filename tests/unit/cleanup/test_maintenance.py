"""What is swept, and what is left alone."""

from __future__ import annotations

import json
import logging
import os
from functools import partial

import httpx
import pytest

from resumable import Checkpoint, host, once
from resumable.checkpoint.kept import ObjectFolder
from resumable.cleanup.variables import kept, main, remove, sweep_folders, sweep_marks, sweep_variables
from resumable.errors import ConfigurationError, SweepError
from resumable.host import stores
from resumable.host._rest import RestApi
from resumable.identity import TaskIdentity
from resumable.stores.object_storage import ObjectStorageStore, folders
from resumable.stores.task_variables import DESCRIPTION, TaskVariableStore
from resumable.stores.variables import GONE, VariableStore
from tests.support.checkpointed import Task


class AsAccessor(VariableStore):
    """Variables where a task of Airflow 3.3 would find its task state store."""

    def set(self, key, value, *, retention=None):
        super().set(key, value)


class Deployment:
    """Variables, and the states of task instances by their task_id."""

    def __init__(self, states):
        self.kept, self.states = {}, states

    def set(self, name, text, description):
        self.kept[name] = text

    def variables(self):
        return self.kept.items()

    def task_state(self, task):
        if isinstance(state := self.states[task["task_id"]], Exception):
            raise state
        return state

    def delete(self, name):
        del self.kept[name]


def record(state, job=None):
    return {"version": 1, "service": "demo", "state": state, "job": job, "token": "t" * 48}


@pytest.fixture
def airflow():
    states = {"gone": GONE, "done": "success", "failed": "failed", "runs": "running", "none": None, "again": "success"}
    records = {
        "gone": record("submitted", 7),
        "done": record("succeeded", 8),
        "failed": record("failed", 9),
        "runs": record("submitted", 10),
        "none": record("succeeded", 11),
        "again": record("submitted", 12),
    }
    deployment = Deployment(states)
    for task_id, value in records.items():
        VariableStore(TaskIdentity("etl", "run", task_id), deployment).set("resumable", value)
    return deployment


def swept(names):
    return {name.split(".")[2] for name in names}


def test_a_variable_goes_when_its_run_is_gone_or_its_task_has_succeeded(airflow, caplog):
    caplog.set_level(logging.INFO, "resumable")
    assert swept(sweep_variables(airflow)) == {"gone", "done"}
    assert swept(airflow.kept) == {"failed", "runs", "none", "again"}
    assert "its DAG run is gone; demo 7 was not seen to end" in caplog.text


def test_a_dry_run_deletes_nothing(airflow):
    assert swept(sweep_variables(airflow, dry_run=True)) == {"gone", "done"}
    assert len(airflow.kept) == 6


def test_what_cannot_be_read_is_left_alone(airflow, caplog):
    airflow.kept["resumable.mine"] = "hello"
    airflow.kept["resumable.other"] = json.dumps({"a": 1})
    airflow.kept["resumable.third"] = json.dumps({"task": {}, "value": 1})
    sweep_variables(airflow)
    assert {"resumable.mine", "resumable.other", "resumable.third"} <= set(airflow.kept)
    assert "resumable.mine is left alone" in caplog.text


def test_an_airflow_that_does_not_answer_is_not_one_without_the_run_and_keeps_no_other_from_being_swept(airflow):
    airflow.states["gone"] = OSError("down")
    with pytest.raises(SweepError, match=r"did not answer about 1 Variables.*down.*1 others were deleted"):
        sweep_variables(airflow)
    assert swept(airflow.kept) == {"gone", "failed", "runs", "none", "again"}


# -- Airflow 3's REST API ----------------------------------------------------------------------------------------------


class Api:
    """A server that gives at most two Variables at once, and knows the run ``run`` of ``etl``."""

    def __init__(self, kept, run_answer=None):
        self.kept, self.run_answer, self.asked = kept, run_answer, []

    def __call__(self, request):
        path = request.url.path
        self.asked.append((request.method, path))
        if path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if path == "/api/v2/variables":
            offset = int(request.url.params["offset"])
            found = [{"key": name, "value": text} for name, text in self.kept.items()]
            return httpx.Response(200, json={"variables": found[offset : offset + 2], "total_entries": len(found)})
        if request.method == "DELETE":
            del self.kept[path.removeprefix("/api/v2/variables/")]
            return httpx.Response(204)
        if path.startswith("/api/v2/dags/etl/dagRuns/run"):
            task = path.rpartition("/")[2]
            return httpx.Response(200, json={"state": "success" if task == "done" else "failed"})
        return self.run_answer or httpx.Response(404, json={"detail": f"The DagRun with dag_id: {path} was not found"})


@pytest.fixture
def served(monkeypatch):
    """A function that serves five Variables, and returns the server and our client for it."""

    def serve(run_answer=None):
        names = Deployment({})
        for run, task in (("run", "fails"), ("old", "gone"), ("run", "done"), ("a/b", "slash"), ("older", "gone-too")):
            VariableStore(TaskIdentity("etl", run, task), names).set("resumable", record("succeeded", 7))
        names.kept["other"] = "{}"
        api = Api(names.kept, run_answer)
        monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=httpx.MockTransport(api)))
        return api, RestApi("http://airflow:8080", "me", "pass")

    return serve


def test_the_sweep_reads_every_page_however_short_airflow_makes_them(served):
    api, client = served()
    assert swept(sweep_variables(client)) == {"gone", "done", "gone-too"}
    assert {name.split(".")[2] for name in api.kept if "." in name} == {"fails", "slash"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404, text="no such page"),
        httpx.Response(404, text="default backend", headers={"content-type": "application/json"}),
        httpx.Response(403, json={"detail": "Forbidden"}),
        httpx.Response(500),
    ],
)
def test_only_airflows_own_word_for_it_is_a_run_that_is_gone(served, answer):
    api, client = served(answer)
    answer.request = httpx.Request("GET", "http://airflow")
    with pytest.raises(SweepError, match="about 2 Variables"):
        sweep_variables(client)
    assert {name.split(".")[2] for name in api.kept if "." in name} == {"fails", "slash", "gone", "gone-too"}


def test_a_refused_login_or_an_address_that_is_none_says_so(served):
    served()
    with pytest.raises(ConfigurationError, match="no URL"):
        RestApi("api-server")


def test_the_command_knows_one_argument():
    assert main(["--now"]) == 2


@pytest.mark.parametrize("state", ["success", "failed", GONE])
def test_of_checkpoints_and_of_once_nothing_is_left_but_what_somebody_has_to_clean_up(state, caplog):
    """Their process died in the moment after the task's success, else it would have taken them away itself."""
    deployment, task = Deployment({"t": state}), Task()
    context = task.context()
    context["task_state_store"] = AsAccessor(TaskIdentity("d", "r", "t"), deployment)
    deployment.get = deployment.kept.get
    once("cluster", lambda: "c-1", cleanup=print, context=context)
    once("number", lambda: 7, context=context)
    with Checkpoint("items", context=context) as checkpoint:
        [str(item) for item in checkpoint.items(["a"])]
    before = set(deployment.kept)
    (cluster,) = (name for name, text in deployment.kept.items() if "c-1" in text)
    with caplog.at_level(logging.INFO):
        sweep_variables(deployment)
    assert set(deployment.kept) == {"success": {cluster}, "failed": before, GONE: set()}[state]
    assert ("nobody has cleaned it up" in caplog.text) == (state == GONE)
    task.end()


# -- marks of watermarks, and what lies in object storage --------------------------------------------------------------


class Beside(Deployment):
    """A `Deployment` with marks and DAGs."""

    def __init__(self, states, dags=(), marks=()):
        super().__init__(states)
        self.known, self.kept = list(dags), dict.fromkeys(marks, "{}")

    def variables(self):
        return [(name, text) for name, text in self.kept.items() if name.startswith("resumable.")]

    def marks(self):
        return [(name, text) for name, text in self.kept.items() if not name.startswith("resumable.")]

    def dags(self):
        return self.known


def mark(dag_id, task_id="load", map_index=-1):
    names = Deployment({})
    TaskVariableStore(TaskIdentity(dag_id, "run", task_id, map_index), names).set("resumable.watermark.orders", {})
    return next(iter(names.kept))


@pytest.mark.parametrize("dag_id", ["etl", "größe", "a.b", "rotate_secrets", "d" * 250])
def test_a_mark_goes_with_its_dag_and_not_before(dag_id):
    names = [mark(dag_id), mark(dag_id, "t" * 250)]
    there = Beside({}, [dag_id, "another"], names)
    assert sweep_marks(there) == []
    gone = Beside({}, ["another", dag_id[:2]], names)
    assert sorted(sweep_marks(gone, dry_run=True)) == sorted(names)
    assert sorted(gone.kept) == sorted(names)
    sweep_marks(gone)
    assert gone.kept == {}


def test_no_mark_goes_where_airflow_knows_no_dag_at_all(caplog):
    """Variables that were brought over into a new deployment, before its first DAG is parsed."""
    names = [mark("etl"), mark("sales")]
    airflow = Beside({}, [], names)
    assert sweep_marks(airflow) == []
    assert sorted(airflow.kept) == sorted(names)
    assert "Airflow knows no DAG at all" in caplog.text


@pytest.fixture
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())
    return tmp_path


def files(storage):
    return sorted(path.relative_to(storage).parts[0] for path in storage.rglob("*.json"))


def test_what_lies_in_object_storage_goes_when_its_run_is_gone_or_its_task_has_succeeded(storage, caplog):
    caplog.set_level(logging.INFO, "resumable")
    states = {"gone": GONE, "done": "success", "failed": "failed", "runs": "running", "open": "success"}
    kept_as = {"gone": "submitted", "done": "succeeded", "failed": "failed", "runs": "submitted", "open": "submitted"}
    for task_id, state in kept_as.items():
        task = TaskIdentity(task_id, "run", task_id)
        ObjectStorageStore(task).set("resumable", record(state, 7))
        ObjectFolder(storage.as_uri(), task).put("flags", b"1")
    airflow = Beside(states)
    assert len(sweep_folders(airflow, folders(), dry_run=True)) == 5
    assert files(storage) == ["done", "failed", "gone", "open", "runs"]
    sweep_folders(airflow, folders())
    assert files(storage) == ["failed", "open", "runs"]
    assert "demo 7 was not seen to end" in caplog.text
    assert len(list((storage / "checkpoints").iterdir())) == 2


def test_what_another_namespace_keeps_in_the_same_place_is_left_alone(storage, monkeypatch):
    ObjectStorageStore(TaskIdentity("etl", "run", "load", namespace="other")).set("resumable", record("submitted", 7))
    ObjectStorageStore(TaskIdentity("etl", "run", "load")).set("resumable", record("submitted", 8))
    sweep_folders(Beside({"load": GONE}), folders())
    assert [json.loads(path.read_text())["job"] for path in storage.rglob("*.json")] == [7]
    monkeypatch.setenv("AIRFLOW__RESUMABLE__NAMESPACE", "other")
    sweep_folders(Beside({"load": GONE}), folders())
    assert not [path for path in storage.rglob("*") if path.is_file()]


def test_a_task_that_has_succeeded_leaves_no_file_in_object_storage(storage):
    store = ObjectStorageStore(TaskIdentity("etl", "run", "load"))
    store.set("resumable", record("succeeded", 7))
    store.set("resumable.once.x", {})
    store.delete("resumable")
    assert store.get("resumable.once.x") == {}
    store.delete("resumable.once.x")
    assert not [path for path in storage.rglob("*") if path.is_file()]


def test_everything_that_is_kept_is_listed_with_whose_it_is_and_removed_by_its_name(storage):
    task = TaskIdentity("etl", "run", "load", 3)
    ObjectStorageStore(task).set("resumable", record("submitted", 7))
    airflow = Beside({"load": "failed"}, ["etl"], [mark("etl"), mark("away")])
    VariableStore(task, airflow).set("resumable", record("submitted", 8))
    listed = dict(kept(airflow, folders()))
    assert len(listed) == 4
    assert sorted(listed.values()) == [
        "a mark of a DAG that is gone",
        "a mark of the DAG etl",
        "etl run load map_index=3, failed",
        "etl run load map_index=3, failed; demo 8 was not seen to end: look there",
    ]
    for name in listed:
        assert remove(airflow, folders(), name)
        assert not remove(airflow, folders(), name)
    assert airflow.kept == {}
    assert not [path for path in storage.rglob("*") if path.is_file()]


@pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3")
def test_the_database_tells_marks_from_other_variables():
    from tests.support import database

    database.empty()
    database.put_variable("etl.load.resumable.watermark.orders", "{}")
    database.put_variable("l" * 250, "{}", DESCRIPTION)  # a name that was cut
    database.put_variable("somebodys.own", "{}")
    database.put_variable("resumable.etl.load.run.0a1b", "{}", DESCRIPTION)
    airflow = host.database()
    assert sorted(name for name, _ in airflow.marks()) == ["etl.load.resumable.watermark.orders", "l" * 250]
    assert [name for name, _ in airflow.variables()] == ["resumable.etl.load.run.0a1b"]
    assert airflow.dags() == []


# -- two deployments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def deployments(storage, monkeypatch):
    """A function that gives the store of a task as the deployment with these Variables has it."""

    def store_of(variables, namespace=""):
        monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "resumable.stores.object_storage.ObjectStorageStore")
        monkeypatch.setenv("AIRFLOW__RESUMABLE__NAMESPACE", namespace)
        monkeypatch.setattr(host, "is_run_by_airflow", lambda context: True)
        monkeypatch.setattr(host, "variables", lambda task: variables)
        monkeypatch.setattr(stores, "SETTLE", 0.0)
        stores._deployment.clear()
        return host.state_store(Task().context())

    return store_of


class Variables(Deployment):
    def __init__(self):
        super().__init__({})

    def get(self, name):
        return self.kept.get(name)


def test_a_store_path_that_another_deployment_uses_is_refused_at_the_start_with_the_setting_to_give(deployments):
    one, other = Variables(), Variables()
    deployments(one).set("resumable", {"n": 1})
    with pytest.raises(ConfigurationError, match=r"another Airflow deployment.*Nothing was submitted.*namespace of its own"):
        deployments(other)
    assert deployments(one).get("resumable") == {"n": 1}
    assert deployments(other, namespace="staging").get("resumable") is None
    with pytest.raises(ConfigurationError, match="another Airflow deployment"):
        deployments(one, namespace="staging")


def test_without_that_mark_it_would_be_given_the_others_record(deployments, monkeypatch):
    deployments(Variables()).set("resumable", {"n": 1})
    monkeypatch.setattr(ObjectStorageStore, "require_owner", lambda *_: None)
    assert deployments(Variables()).get("resumable") == {"n": 1}


def test_tasks_that_come_at_the_same_moment_settle_on_one_deployment(deployments, monkeypatch):
    names = Variables()

    def another_comes(name, text, description):
        names.kept[name] = "the other's"

    monkeypatch.setattr(names, "set", another_comes)
    deployments(names)
    assert stores._deployment == {os.getpid(): "the other's"}


def test_where_no_variable_can_be_had_a_store_path_is_taken_as_it_is(deployments, caplog):
    class Down(Variables):
        def get(self, name):
            raise OSError("down")

    deployments(Down()).set("resumable", {"n": 1})
    assert "whether another deployment shares this store_path is not known" in caplog.text
