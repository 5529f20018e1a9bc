"""What is swept, and what is left alone."""

from __future__ import annotations

import json
import logging

import pytest

from resumable import Checkpoint, once
from resumable.identity import TaskIdentity
from resumable.maintenance import GONE, main, sweep_variables
from resumable.stores.variables import VariableStore, name_of
from tests.unit.test_checkpoint import Task


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
    sweep_variables(airflow)
    assert {"resumable.mine", "resumable.other"} <= set(airflow.kept)
    assert "resumable.mine is left alone" in caplog.text


def test_an_airflow_that_does_not_answer_is_not_one_without_the_run(airflow):
    airflow.states["gone"] = OSError("down")
    with pytest.raises(OSError, match="down"):
        sweep_variables(airflow)
    assert name_of(TaskIdentity("etl", "run", "gone")) in airflow.kept


def test_the_command_knows_one_argument():
    assert main(["--now"]) == 2


@pytest.mark.parametrize("state", ["success", "failed", GONE])
def test_of_checkpoints_and_of_once_nothing_is_left_but_what_somebody_has_to_clean_up(state, caplog):
    """Their process died in the moment after the task's success, else it would have taken them away itself."""
    deployment, task = Deployment({"t": state}), Task()
    context = task.context()
    context["task_state_store"] = VariableStore(TaskIdentity("d", "r", "t"), deployment)
    deployment.get = deployment.kept.get
    once("cluster", lambda: "c-1", cleanup=print, context=context)
    once("number", lambda: 7, context=context)
    with Checkpoint("items", context=context) as checkpoint:
        list(checkpoint.items(["a"]))
    before = set(deployment.kept)
    (cluster,) = (name for name, text in deployment.kept.items() if "c-1" in text)
    with caplog.at_level(logging.INFO):
        sweep_variables(deployment)
    assert set(deployment.kept) == {"success": {cluster}, "failed": before, GONE: set()}[state]
    assert ("nobody has cleaned it up" in caplog.text) == (state == GONE)
    task.end()
