"""``doctor`` on a deployment that was set up badly on purpose: each finding, and that it says what to do."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from resumable import host
from resumable.cli import doctor
from resumable.cli.main import main
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord
from tests.support import database

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3")

INTENT = JobRecord("Train", "t" * 48, Generation(3, 0, database.NOW.isoformat()), 0, "owner", 1, time.time())
RECORD = replace(INTENT, try_number=1).submitted(JobHandle("Train", 7), time.time())


@pytest.fixture(autouse=True)
def deployment():
    database.empty()


def diagnosis(capsys):
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (1 if any(one["level"] == "trouble" for one in found) else 0)
    return found


def has(found, level, about, words):
    return any((one["level"], one["about"]) == (level, about) and words in one["what"] and bool(one["todo"]) for one in found)


SETTINGS = [
    ("RESUMABLE__ON_CLEAR=sometimes", "trouble", "settings", "'sometimes' is not a policy"),
    ("RESUMABLE__ONCLEAR=restart", "trouble", "settings", "[resumable] onclear is no option"),
    ("RESUMABLE__SWEEP_DELAY=soon", "trouble", "settings", "sweep_delay = 'soon' is not a number"),
    ("RESUMABLE__HAND_BACK_SECONDS=inf", "trouble", "settings", "hand_back_seconds = 'inf' is not a number"),
    ("RESUMABLE__ADOPT_NEW=maybe", "trouble", "settings", "adopt_new = 'maybe' is not true or false"),
    ("RESUMABLE__LOOK_FOR_VARIABLES=never", "trouble", "settings", "look_for_variables = 'never'"),
    ("SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=long", "trouble", "settings", "task_instance_heartbeat_timeout = 'long'"),
    ("RESUMABLE__STORE=no.such.Store", "trouble", "store", "cannot be imported"),
    ("WORKERS__STATE_STORE_BACKEND=some.where.Else", "look", "store", "some.where.Else"),
    ("RESUMABLE__STORE_PATH=/var/state", "look", "store", "a folder of each machine"),
    ("RESUMABLE__SWEEP_MODULES=no.such.module", "trouble", "sweep", "no.such.module cannot be imported"),
    ("RESUMABLE__CLEANUP_MODULES=json,no.such", "trouble", "sweep", "cleanup_modules: no.such cannot"),
    ("RESUMABLE__SWEEP_DELAY=2", "trouble", "grace periods", "sweep_delay = 2"),
    ("SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT=10", "trouble", "grace periods", "less than four heartbeats"),
    ("RESUMABLE__HAND_BACK_SECONDS=12", "look", "grace periods", "hand_back_seconds = 12"),
    ("CORE__EXECUTOR=CeleryExecutor", "look", "workers", "REMAP_SIGTERM is not SIGQUIT"),
    ("RESUMABLE__ADOPT=databricks, snowflake", "trouble", "adoption", "'snowflake' is neither"),
    ("RESUMABLE__ADOPT_DAGS=etl.*", "look", "adoption", "adopt_dags is set and adopt is not"),
]


@pytest.mark.parametrize(("setting", "level", "about", "words"), SETTINGS, ids=[one[0] for one in SETTINGS])
def test_a_setting_that_does_harm_is_found(capsys, monkeypatch, setting, level, about, words):
    assert not has(diagnosis(capsys), level, about, words)
    name, _, value = setting.partition("=")
    monkeypatch.delenv("REMAP_SIGTERM", raising=False)
    monkeypatch.setenv(f"AIRFLOW__{name}", value)
    assert has(diagnosis(capsys), level, about, words)


def test_a_store_that_does_not_answer_is_found(capsys, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "tests.unit.cli.test_doctor.Unreachable")
    found = diagnosis(capsys)
    assert has(found, "trouble", "store", "ConnectionError: no route")


class Unreachable:
    def __init__(self, task):
        pass

    def get(self, key):
        raise ConnectionError("no route")

    set = delete = get


def test_a_provider_that_is_not_covered_is_found(capsys, monkeypatch):
    monkeypatch.setitem(doctor.COVERED, "amazon", ("99.0", "100"))
    assert has(diagnosis(capsys), "trouble", "providers", "is not covered")


@pytest.mark.parametrize("group", ["airflow.plugins", "apache_airflow_provider", "airflow.policy"])
def test_an_installation_that_airflow_does_not_see_is_found(capsys, monkeypatch, group):
    points = [one for one in doctor.metadata.distribution("airflow-resumable").entry_points if one.group != group]
    whole = doctor.metadata.distribution
    monkeypatch.setattr(
        doctor.metadata,
        "distribution",
        lambda name: SimpleNamespace(entry_points=points) if name == "airflow-resumable" else whole(name),
    )
    assert has(diagnosis(capsys), "trouble", "installation", f"the entry point {group} is missing")


def test_a_plugin_that_airflow_has_not_loaded_is_found(capsys, monkeypatch):
    monkeypatch.setattr(host, "plugin_names", set)
    assert has(diagnosis(capsys), "trouble", "plugin", "Airflow has not loaded it")


@pytest.mark.parametrize(
    ("kind", "about"), [("SchedulerJob", "scheduler"), ("DagProcessorJob", "DAG processor"), ("TriggererJob", "triggerer")]
)
def test_a_process_that_is_dead_is_found_and_one_that_beats_is_not(capsys, kind, about):
    database.put_process(kind, seconds_ago=600)
    assert any(one["about"] == about and "none is alive" in one["what"] for one in diagnosis(capsys))
    database.put_process(kind)
    assert not any(one["about"] == about and "none is alive" in one["what"] for one in diagnosis(capsys))


def test_deferred_tasks_that_nobody_watches_are_a_trouble(capsys):
    database.put("etl", "r1", "train", "deferred", RECORD.to_json())
    assert has(diagnosis(capsys), "trouble", "triggerer", "1 tasks with a job are deferred")


def test_a_pool_that_does_not_count_deferred_tasks_is_found(capsys):
    database.put_pool("spark", include_deferred=False)
    database.put_pool("small", include_deferred=True)
    found = diagnosis(capsys)
    assert has(found, "look", "pools", "spark")
    assert not has(found, "look", "pools", "small")


def test_what_records_say_is_counted(capsys):
    database.put("etl", "r1", "lost", "failed", RECORD.to_json())
    database.put("etl", "r1", "doubt", "running", INTENT.to_json())
    database.put("etl", "r1", "odd", "running", '"submitted" {')
    found = diagnosis(capsys)
    assert has(found, "look", "jobs", "1 run for nobody")
    assert has(found, "look", "jobs", "1 submits are unanswered")
    assert has(found, "trouble", "jobs", "1 records cannot be read")


def test_a_deployment_that_meets_another_one_is_warned(capsys, monkeypatch):
    assert has(diagnosis(capsys), "look", "namespace", "no namespace")
    monkeypatch.setenv("AIRFLOW__RESUMABLE__NAMESPACE", "prod")
    assert not has(diagnosis(capsys), "look", "namespace", "no namespace")


def test_a_database_that_does_not_answer_is_one_finding_and_hides_no_other(capsys, monkeypatch):
    from sqlalchemy.exc import OperationalError

    def silent():
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(host.beside(), "require_tables", silent)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ONCLEAR", "restart")
    found = diagnosis(capsys)
    assert has(found, "trouble", "database", "does not answer")
    assert has(found, "trouble", "settings", "onclear is no option")
    assert not any("cannot be checked" in one["what"] for one in found)


def test_a_deployment_in_order_has_exit_code_0(capsys, monkeypatch):
    for kind in ("SchedulerJob", "DagProcessorJob", "TriggererJob"):
        database.put_process(kind)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__NAMESPACE", "prod")
    assert main(["doctor"]) == 0
    assert "0 troubles, 0 to look at" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path", ["nonsense://bucket/state", "file:///nowhere/at/all", "/nowhere/at/all"], ids=["scheme", "mount", "folder"]
)
def test_a_place_for_objects_that_cannot_be_opened_is_found_also_without_a_store(capsys, monkeypatch, path):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", path)
    assert has(diagnosis(capsys), "trouble", "store", f"store_path = {path} cannot be read from here")


def test_a_place_for_objects_that_can_be_opened_is_no_trouble(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())
    assert not has(diagnosis(capsys), "trouble", "store", "cannot be read from here")
