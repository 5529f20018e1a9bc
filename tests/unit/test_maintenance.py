"""What is swept, and what is left alone."""

from __future__ import annotations

import json
import logging

import pytest

from resumable.identity import TaskIdentity
from resumable.maintenance import GONE, main, sweep_variables
from resumable.stores.variables import VariableStore, name_of


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
