"""What is swept, and what is left alone."""

from __future__ import annotations

import json
import logging
from functools import partial

import httpx
import pytest

from resumable import Checkpoint, once
from resumable.compat._rest import RestApi
from resumable.errors import ConfigurationError
from resumable.identity import TaskIdentity
from resumable.maintenance import SweepError, main, sweep_variables
from resumable.stores.variables import GONE, VariableStore
from tests.unit.test_checkpoint import Task


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
        [item for item in checkpoint.items(["a"])]
    before = set(deployment.kept)
    (cluster,) = (name for name, text in deployment.kept.items() if "c-1" in text)
    with caplog.at_level(logging.INFO):
        sweep_variables(deployment)
    assert set(deployment.kept) == {"success": {cluster}, "failed": before, GONE: set()}[state]
    assert ("nobody has cleaned it up" in caplog.text) == (state == GONE)
    task.end()
