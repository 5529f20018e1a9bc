"""The command where records are Airflow Variables: before 3.3, and what an upgrade has left there."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from resumable import host
from resumable.cleanup import sweep
from resumable.cli import cancel
from resumable.cli.main import main
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.stores.variables import VariableStore, name_of, opened
from tests.support import database
from tests.support.swept import Cloud

EARLIER = float(int(time.time()) - 7200)
REACH = {"operator": "tests.support.swept:Train", "conn_id": "lab"}
INTENT = JobRecord("Train", "t" * 48, Generation(3, 0, database.NOW.isoformat()), 0, "owner", 1, EARLIER, reach=REACH)
RECORD = replace(INTENT, try_number=1).submitted(JobHandle("Train", 7), EARLIER)
TASK = TaskIdentity("etl", "r1", "train")


@pytest.fixture(autouse=True)
def deployment(monkeypatch):
    database.empty()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", "tests.support.swept")
    for module in (cancel, sweep):
        monkeypatch.setattr(module, "_sleep", lambda _: None)
    Cloud.states, Cloud.cancelled, Cloud.token, Cloud.after_a_cancel = {7: "RUNNING"}, [], None, "FAILED"


class Texts(dict):
    def set(self, name, text, description):
        self[name] = text


def put(state, record=RECORD, task=TASK):
    texts = Texts()
    VariableStore(task, texts).set("resumable", record.to_json())
    database.put_variable(name_of(task), texts[name_of(task)])
    if state != "gone":
        database.put_task(task.dag_id, task.run_id, task.task_id, state, task.map_index)


def kept(task=TASK):
    texts = {name: text for name, text in host.database().variables()}
    ids, value = opened(texts[name_of(task)])
    assert ids["task_id"] == task.task_id
    return JobRecord.from_json(value)


def listed(capsys, *arguments):
    capsys.readouterr()
    code = main(["jobs", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_live_jobs_are_listed_with_who_should_be_watching(capsys):
    put("running")
    put("failed", task=replace(TASK, task_id="b", map_index=3))
    put("gone", task=replace(TASK, task_id="c", run_id="r0"))
    put("running", task=replace(TASK, task_id="d"), record=RECORD.ended(Outcome.FAILED, time.time()))
    code, jobs = listed(capsys)
    assert code == 0
    assert {job["task_id"]: job["watched_by"] for job in jobs} == {
        "train": "worker",
        "b": "nobody (task failed)",
        "c": "nobody (task gone)",
    }
    assert listed(capsys, "--orphans")[0] == 1


def test_other_variables_are_left_out(capsys):
    database.put_variable("resumable.something", "not ours")
    database.put_variable("other", "x")
    assert listed(capsys) == (0, [])


def test_a_record_is_shown_with_its_token(capsys):
    put("running")
    assert main(["show", "etl.train"]) == 0
    out = capsys.readouterr().out
    assert "t" * 48 in out
    assert "reattaches to Train 7" in out


def test_a_job_that_nobody_watches_is_cancelled_and_who_did_it_is_kept():
    put("failed")
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert Cloud.cancelled == [(7, "lab")]
    assert kept().outcome is Outcome.CANCELLED
    assert kept().token == "t" * 48
    assert host.beside().user() in kept().history[-1].note


def test_a_job_that_has_ended_is_forgotten():
    put("failed")
    Cloud.states = {7: "FAILED"}
    assert main(["forget", "etl.train", "--yes"]) == 0
    assert kept().forgotten_by == host.beside().user()
    assert kept().submission == 1


def test_what_is_written_is_read_by_the_next_attempt():
    put("failed")
    Cloud.states = {7: "FAILED"}
    main(["forget", "etl.train", "--yes"])
    texts = dict(host.database().variables())
    assert JobRecord.from_json(VariableStore(TASK, texts).get("resumable")) == kept()


def test_a_record_is_kept_where_the_task_will_look_for_it():
    if host.has_task_state():
        pytest.skip("it looks in its task state there")
    database.put_task("etl", "r1", "train", "up_for_retry")
    assert host.beside().put_record(("etl", "r1", "train", -1), "", RECORD.to_json())
    assert kept() == RECORD
    assert not host.beside().put_record(("etl", "r1", "train", -1), "", RECORD.to_json())


def test_a_deployment_is_looked_at(capsys):
    assert main(["doctor", "--json"]) == 1
    found = {one["about"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["plugin"]["level"] == "good"
    assert found["store"]["level"] == "good"
    assert not any("cannot be checked" in one["what"] for one in found.values())
