"""The command: what it lists, what it refuses, what it writes, against the tables of a real Airflow."""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import replace

import pytest

from resumable import host
from resumable.cleanup import sweep
from resumable.cli import cancel
from resumable.cli.main import COMMANDS, main
from resumable.identity import Generation
from resumable.jobs.decision import AttemptFacts, Submit, decide
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.policy import ResumePolicy
from tests.support import database
from tests.support.names import DAG, BaseOperator
from tests.support.swept import Cloud, Findable

REACH = {"operator": "tests.support.swept:Train", "conn_id": "lab"}
INTENT = JobRecord("Train", "t" * 48, Generation(3, 0, database.NOW.isoformat()), 0, "owner", 1, time.time() - 7200, reach=REACH)
RECORD = replace(INTENT, try_number=1).submitted(JobHandle("Train", 7), time.time() - 7200)


pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3")


@pytest.fixture(autouse=True)
def deployment(monkeypatch):
    database.empty()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", "tests.support.swept")
    monkeypatch.setattr(cancel, "_sleep", lambda _: None)
    monkeypatch.setattr(sweep, "_sleep", lambda _: None)
    Cloud.states, Cloud.cancelled, Cloud.token, Cloud.after_a_cancel = {7: "RUNNING"}, [], None, "FAILED"


def put(state="running", record=RECORD, task_id="train", dag_id="etl", run_id="r1", **more):
    """A record in its task's state; what is made of `RECORD` is of two hours ago."""
    if record.submitted_at == RECORD.submitted_at:
        record = replace(record, intended_at=time.time() - 7200, submitted_at=time.time() - 7200)
    return database.put(dag_id, run_id, task_id, state, record.to_json(), **more)


def kept(task_id="train", dag_id="etl"):
    return JobRecord.from_json(database.kept(dag_id, task_id))


def told(capsys, *arguments):
    """Exit code and standard output of the command."""
    code = main(list(arguments))
    return code, capsys.readouterr().out


def listed(capsys, *arguments):
    code, out = told(capsys, "jobs", "--json", *arguments)
    return code, json.loads(out)


# -- jobs ------------------------------------------------------------------------------------------------------------


def test_live_jobs_of_all_dags_are_listed_with_who_should_be_watching(capsys):
    put("running")
    put("deferred", task_id="b", dag_id="sales")
    put("up_for_retry", task_id="c")
    put("failed", task_id="d")
    put("failed", task_id="e", record=replace(RECORD, left="on_final_failure=leave"))
    put("success", task_id="f", record=RECORD.ended(Outcome.SUCCEEDED, time.time()))
    code, jobs = listed(capsys)
    assert code == 0
    watchers = {job["task_id"]: job["watched_by"] for job in jobs}
    assert watchers == {
        "train": "worker",
        "b": "triggerer",
        "c": "scheduler: the next try",
        "d": "nobody (task failed)",
        "e": "nobody (task failed), on purpose: on_final_failure=leave",
    }
    assert all(7190 < job["age_seconds"] < 7300 for job in jobs)
    assert jobs[0]["job"] == 7


def test_the_table_names_task_service_job_and_age(capsys):
    put("running")
    code, out = told(capsys, "jobs")
    assert code == 0
    assert "etl.train" in out
    assert re.search(r"etl\.train +r1 +Train +7 +submitted +2h00m ", out)
    assert "1 live, 0 run for nobody, 0 in doubt" in out


def test_orphans_and_doubts_are_told_by_the_exit_code(capsys):
    put("running")
    assert listed(capsys, "--orphans") == (0, [])
    assert listed(capsys, "--in-doubt") == (0, [])
    put("failed", task_id="lost")
    put("running", record=INTENT, task_id="doubt")
    code, orphans = listed(capsys, "--orphans")
    assert (code, [job["task_id"] for job in orphans]) == (1, ["lost"])
    code, doubts = listed(capsys, "--in-doubt")
    assert (code, [job["task_id"] for job in doubts]) == (1, ["doubt"])


def test_a_job_that_its_task_does_not_wait_for_is_no_orphan(capsys):
    put("success", record=replace(RECORD, left="the task does not wait for it"))
    assert listed(capsys, "--orphans") == (0, [])


def test_jobs_are_filtered_by_dag_service_and_age(capsys):
    put("running")
    put("running", dag_id="sales.eu", record=RECORD.with_handle(JobHandle("Train", 8), time.time()))
    assert [job["job"] for job in listed(capsys, "--dag", "sales.*")[1]] == [8]
    assert [job["job"] for job in listed(capsys, "--older", "1h")[1]] == [7]
    assert listed(capsys, "--service", "emr")[1] == []


def test_a_look_asks_the_services(capsys):
    put("running")
    assert listed(capsys, "--look")[1][0]["seen"] == "RUNNING"
    Cloud.states = {}
    assert "no job 7" in listed(capsys, "--look")[1][0]["seen"]


def test_what_cannot_be_read_is_listed_and_stops_nothing(capsys):
    put("running")
    database.put("etl", "r1", "odd", "running", '{"state": "submitted", "version": 99}')
    code, jobs = listed(capsys)
    assert code == 0
    assert {job["state"] for job in jobs} == {"submitted", "unreadable"}


@pytest.mark.parametrize(
    "value", ["{}", "null", "[]", "text", '{"version": 2, "state": "at work", "job": 7, "attempt": 1}', '{"version": 1', '"{}"']
)
def test_whatever_cannot_be_read_may_be_a_job_and_is_named_by_every_command(capsys, caplog, value):
    database.put("etl", "r1", "odd", "failed", value)
    code, jobs = listed(capsys)
    assert (code, [job["state"] for job in jobs]) == (0, ["unreadable"])
    assert main(["jobs", "--orphans"]) == 1
    assert main(["plan", "--back"]) == 1
    capsys.readouterr()
    assert main(["sweep"]) == 0
    assert "1 unreadable" in capsys.readouterr().out
    assert [line for line in caplog.messages if "etl r1 odd is left alone" in line]


@pytest.mark.parametrize("compact", [False, True], ids=["as written", "compact"])
@pytest.mark.parametrize("within", [False, True], ids=["JSON", "text within text"])
def test_a_closed_record_is_in_no_list_whoever_wrote_it(capsys, compact, within):
    closed = RECORD.closed(Outcome.SUCCEEDED, time.time()).to_json()
    closed.pop("history", None)
    for number, data in enumerate((closed, {**closed, "version": 99})):
        text = json.dumps(data, separators=(",", ":")) if compact else json.dumps(data)
        database.put("etl", "r1", f"t{number}", "success", json.dumps(text) if within else text)
    assert listed(capsys) == (0, [])
    assert main(["sweep"]) == 0
    assert capsys.readouterr().out.strip() == "nothing to settle"


def test_a_record_in_a_variable_of_an_older_airflow_is_listed_too(capsys):
    from resumable.identity import TaskIdentity
    from resumable.stores.variables import VariableStore, name_of

    texts = {}

    class Variables:
        def set(self, name, text, description):
            texts[name] = text

    put("running", task_id="other")
    task = TaskIdentity("etl", "r1", "train")
    database.put("etl", "r1", "train", "running", {"x": 1}, key="something else")
    VariableStore(task, Variables()).set("resumable", RECORD.to_json())
    database.put_variable(name_of(task), texts[name_of(task)])
    jobs = {job["task_id"]: job for job in listed(capsys)[1]}
    assert jobs["train"]["watched_by"] == "worker"
    assert main(["cancel", "etl.other", "--yes", "--wait", "0"]) in (0, 1)
    code = main(["show", "etl.train"])
    assert code == 0


def test_a_thousand_rows_are_cut_to_the_oldest(capsys):
    database.put_many("etl", [("r1", f"t{n}", RECORD.to_json()) for n in range(300)])
    code, out = told(capsys, "jobs")
    assert code == 0
    assert "300 live, 300 run for nobody, 0 in doubt, the oldest 200 are shown" in out


@pytest.mark.parametrize(
    "arguments",
    [["jobs", "--orphans"], ["show", "etl.train"], ["cancel", "etl.train"], ["adopt", "etl.train", "7"], ["plan", "--back"]],
    ids=lambda arguments: arguments[0],
)
def test_records_that_are_kept_elsewhere_are_no_empty_list(capsys, monkeypatch, arguments):
    monkeypatch.setenv("AIRFLOW__WORKERS__STATE_STORE_BACKEND", "some.where.Else")
    assert main(arguments) == 2
    assert "some.where.Else" in capsys.readouterr().err


# -- show ------------------------------------------------------------------------------------------------------------


def test_a_record_is_shown_with_its_history_and_what_comes_next(capsys):
    put("up_for_retry", record=RECORD.noting("worker lost", time.time()))
    code, out = told(capsys, "show", "etl.train")
    assert code == 0
    assert "worker lost" in out
    assert "if the job runs: reattaches to Train 7" in out
    assert "after a clear, if it runs: stops the job" in out


def test_a_mapped_task_and_a_run_are_named(capsys):
    put("running", map_index=3)
    put("running", run_id="r2", map_index=3, record=RECORD.with_handle(JobHandle("Train", 8), 1.0))
    assert main(["show", "etl.train"]) == 1
    assert main(["show", "etl.train[3]"]) == 1
    assert "r2, r1" in capsys.readouterr().err
    code, out = told(capsys, "show", "etl.train[3]", "--run", "r2")
    assert (code, "Train 8" in out) == (0, True)


# -- cancel ----------------------------------------------------------------------------------------------------------


def test_a_job_that_nobody_watches_is_cancelled_directly_and_who_did_it_is_kept(capsys):
    put("failed", record=replace(RECORD, left="on_final_failure=leave"))
    code, _ = told(capsys, "cancel", "etl.train", "--yes")
    assert (code, Cloud.cancelled) == (0, [(7, "lab")])
    assert kept().outcome is Outcome.CANCELLED
    assert host.beside().user() in kept().history[-1].note


def test_a_watched_job_is_stopped_by_its_task(capsys, monkeypatch):
    put("running")
    marked = []

    def mark(task, start):
        marked.append(task)
        (found,) = host.beside().records()
        return host.beside().write(found, RECORD.ended(Outcome.CANCELLED, time.time(), "a user stopped the task").to_json())

    monkeypatch.setattr(host.beside(), "mark_failed", mark)
    code, _ = told(capsys, "cancel", "etl.train", "--yes")
    assert (code, marked, Cloud.cancelled) == (0, [("etl", "r1", "train", -1)], [])
    assert [event.what for event in kept().history][-2:] == ["cancelled", "cancelled by"]


def test_a_task_that_does_not_stop_its_job_in_time_has_it_cancelled(capsys, monkeypatch):
    put("deferred")
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: True)
    code, _ = told(capsys, "cancel", "etl.train", "--yes", "--wait", "0")
    assert (code, Cloud.cancelled) == (0, [(7, "lab")])


def test_a_job_that_a_trigger_has_stopped_is_closed_and_not_cancelled_again(capsys, monkeypatch):
    put("deferred")
    database.put_process("TriggererJob")
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: not Cloud.states.update({7: "FAILED"}))
    monkeypatch.setattr(cancel, "LOOK", 0.0)
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert Cloud.cancelled == []
    assert kept().outcome is Outcome.CANCELLED
    assert host.beside().user() in kept().history[-1].note


@pytest.mark.parametrize("state", ["up_for_retry", "up_for_reschedule", "scheduled"])
def test_a_task_that_nothing_holds_is_not_waited_for(capsys, monkeypatch, state):
    put(state)
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: True)
    monkeypatch.setattr(cancel, "_sleep", lambda _: pytest.fail("waited"))
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert Cloud.cancelled == [(7, "lab")]


def test_nothing_is_done_without_a_yes(capsys):
    put("failed")
    assert main(["cancel", "etl.train"]) == 1
    assert main(["forget", "etl.train"]) == 1
    assert Cloud.cancelled == []
    assert kept().outcome is None


def test_an_unanswered_submit_without_a_job_to_be_found_is_not_said_to_be_cancelled(capsys):
    put("failed", record=INTENT)
    assert main(["cancel", "etl.train", "--yes"]) == 1
    assert "was not cancelled" in capsys.readouterr().err


def test_an_unanswered_submit_is_looked_up_and_cancelled():
    Cloud.token = "t" * 48
    put("failed", record=replace(INTENT, reach={**REACH, "operator": "tests.support.swept:Findable"}, service="Findable"))
    assert Findable.settle_time == 0.0
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert Cloud.cancelled == [(7, "lab")]


# -- forget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "deferred", "up_for_retry", "queued", None])
def test_a_record_that_a_task_is_at_work_on_is_not_forgotten(state):
    put(state)
    Cloud.states = {7: "FAILED"}
    assert main(["forget", "etl.train", "--yes"]) == 1
    assert kept().outcome is None


@pytest.mark.parametrize(("states", "is_forgotten"), [({7: "RUNNING"}, False), ({7: "FAILED"}, True), ({}, True)])
def test_a_job_that_is_not_seen_to_have_ended_is_not_forgotten(states, is_forgotten):
    put("failed")
    Cloud.states = states
    assert main(["forget", "etl.train", "--yes"]) == (0 if is_forgotten else 1)
    assert (kept().outcome is not None) == is_forgotten


def test_what_was_forgotten_is_followed_by_another_job_under_another_token():
    put("failed")
    Cloud.states = {7: "FAILED"}
    assert main(["forget", "etl.train", "--yes"]) == 0
    record = kept()
    policy = ResumePolicy(on_failed="fail", on_missing="fail").resolved()
    decision = decide(record, None, policy, AttemptFacts(record.generation, None))
    assert isinstance(decision, Submit)
    assert decision.submission == 1
    assert "forgotten by" in decision.reason


def test_a_doubt_is_forgotten_only_by_who_has_looked():
    put("failed", record=INTENT)
    assert main(["forget", "etl.train", "--yes"]) == 1
    assert main(["forget", "etl.train", "--yes", "--no-job"]) == 0


# -- the rest --------------------------------------------------------------------------------------------------------


def test_a_task_without_a_record_is_refused(capsys):
    assert main(["show", "etl.nothing"]) == 1
    assert "no record" in capsys.readouterr().err


def test_wrong_arguments_are_told_by_the_exit_code():
    assert main(["jobs", "--older", "soon"]) == 2
    assert main(["launch"]) == 2
    assert main([]) == 2


def test_every_subcommand_answers_to_help(capsys):
    for command in COMMANDS:
        assert main([*command.name.split(), "--help"]) == 0


def test_airflow_takes_the_same_commands():
    from airflow.cli.cli_config import GroupCommand

    from resumable.cli.main import airflow_commands

    (group,) = airflow_commands()
    assert isinstance(group, GroupCommand)
    names = {"jobs", "show", "cancel", "forget", "adopt", "sweep", "mark", "doctor", "plan"}
    assert {one.name for one in group.subcommands} == names


# -- marks -----------------------------------------------------------------------------------------------------------

MARK = {"version": 1, "type": "int", "mark": 7, "proposed": [], "belongs_to": {"dag": "etl", "task": "read"}, "owner": "x"}
NAME = "etl.read.resumable.watermark.orders"


def marks(capsys):
    code, out = told(capsys, "mark", "show", "--json")
    assert code == 0
    return {mark["name"]: mark["value"] for mark in json.loads(out)}


def test_a_mark_is_shown_set_and_taken_back(capsys):
    database.put_variable(NAME, json.dumps(MARK))
    assert marks(capsys) == {NAME: MARK}
    assert main(["mark", "set", NAME, "41", "--yes"]) == 0
    capsys.readouterr()
    value = marks(capsys)[NAME]
    assert (value["mark"], value["type"]) == (41, "int")
    assert host.beside().user() in value["set_by"]
    assert value["owner"] != "x"
    assert main(["mark", "reset", NAME, "--yes"]) == 0
    capsys.readouterr()
    assert marks(capsys) == {}


def test_a_mark_that_was_set_is_what_the_next_run_begins_at():
    from resumable.watermark.intervals import Mark
    from resumable.watermark.values import ValueType

    database.put_variable(NAME, json.dumps(MARK))
    assert main(["mark", "set", NAME, "41", "--yes"]) == 0
    (mark,) = host.beside().marks("resumable.watermark.")
    assert Mark.from_json(mark.value, ValueType(("int",))).value == 41


@pytest.mark.parametrize("value", ["soon", "", "4.5"])
def test_a_value_that_is_none_of_the_marks_type_is_refused(value):
    database.put_variable(NAME, json.dumps(MARK))
    assert main(["mark", "set", NAME, value, "--yes"]) == 1


@pytest.mark.parametrize("kind", ["datetime", "date", "int", "str", ["datetime", "int"], ["str"], "nope", ["nope"], [["x"]], [5]])
@pytest.mark.parametrize("value", ["[5, 5]", "{}", "null", "[" * 5000, "9" * 5000, "NaN", "[1]", '"a"'])
def test_whatever_is_given_for_a_mark_of_whatever_type_is_set_or_refused_in_words(kind, value, capsys):
    database.put_variable(NAME, json.dumps(MARK | {"type": kind}))
    assert main(["mark", "set", NAME, value, "--yes"]) in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_mark_is_set_to_the_ends_of_time_in_any_zone(value):
    database.put_variable(NAME, json.dumps(MARK | {"type": "datetime"}))
    assert main(["mark", "set", NAME, value, "--yes"]) == 0


@pytest.mark.parametrize("name", sorted(MARK))
@pytest.mark.parametrize("odd", [None, "x", 5, [1], {"a": 1}, True])
def test_a_mark_of_which_a_field_is_odd_hides_no_other(name, odd, capsys):
    database.put_variable(NAME, json.dumps(MARK | {name: odd}))
    database.put_variable("etl.other.resumable.watermark.rows", json.dumps(MARK))
    code, out = told(capsys, "mark", "show")
    assert code == 0
    assert "etl.other.resumable.watermark.rows" in out
    assert NAME in out


# -- doctor ----------------------------------------------------------------------------------------------------------


def diagnosis(capsys):
    code, out = told(capsys, "doctor", "--json")
    return code, json.loads(out)


def troubles(capsys):
    return {(one["about"], one["what"]) for one in diagnosis(capsys)[1] if one["level"] == "trouble"}


def test_a_deployment_without_a_scheduler_is_in_trouble(capsys):
    code, _ = diagnosis(capsys)
    assert code == 1
    assert ("scheduler", "none is alive") in troubles(capsys)


def test_every_finding_that_is_a_trouble_says_what_to_do_about_it(capsys, monkeypatch):
    bad_settings(monkeypatch)
    _, found = diagnosis(capsys)
    assert all(one["todo"] for one in found if one["level"] == "trouble")


def bad_settings(monkeypatch):
    for name, value in {
        "RESUMABLE__ON_CLEAR": "sometimes",
        "RESUMABLE__ONCLEAR": "restart",
        "RESUMABLE__SWEEP_DELAY": "2",
        "RESUMABLE__SWEEP_MODULES": "no.such.module",
        "RESUMABLE__ADOPT": "databricks, snowflake",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    }.items():
        monkeypatch.setenv(f"AIRFLOW__{name}", value)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ("settings", "'sometimes' is not a policy"),
        ("settings", "[resumable] onclear is no option"),
        ("grace periods", "sweep_delay = 2"),
        ("sweep", "no.such.module cannot be imported"),
        ("adoption", "'snowflake' is neither"),
        ("grace periods", "less than four heartbeats"),
    ],
)
def test_what_was_set_up_badly_on_purpose_is_found(capsys, monkeypatch, about, words):
    bad_settings(monkeypatch)
    assert any(about == where and words in what for where, what in troubles(capsys))


def test_a_store_that_cannot_be_imported_is_found(capsys, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", "no.such.Store")
    assert any(about == "store" for about, _ in troubles(capsys))


def test_deferred_tasks_without_a_triggerer_are_found(capsys):
    put("deferred")
    assert any(about == "triggerer" and "1 tasks with a job are deferred" in what for about, what in troubles(capsys))


def test_a_check_that_fails_hides_no_other(capsys, monkeypatch):
    def broken():
        raise RuntimeError("no answer")

    monkeypatch.setattr(host.beside(), "pools", broken)
    code, found = diagnosis(capsys)
    assert code == 1
    assert {"pools", "scheduler", "store"} <= {one["about"] for one in found}


# -- a loop whose iterations have a mapped task each (3.4) -----------------------------------------------------------------


@pytest.fixture
def regions():
    if not database.has_loops():
        pytest.skip("this Airflow has no loops")
    return [uuid.uuid4(), uuid.uuid4()]


@pytest.mark.parametrize("run", [(), ("--run", "r1")])
def test_cancel_means_the_iteration_whose_job_runs_and_touches_no_other(capsys, regions, run):
    earlier = RECORD.with_handle(JobHandle("Train", 6), 1.0).ended(Outcome.SUCCEEDED, time.time())
    with DAG("etl", schedule=None) as dag:
        BaseOperator(task_id="train")
    database.put_dag(dag)
    put("success", record=earlier, map_index=0, region=regions[0])
    start = put("up_for_retry", map_index=0, region=regions[1])
    assert told(capsys, "cancel", "etl.train[0]", *run, "--yes")[0] == 0
    assert Cloud.cancelled == [(7, "lab")]
    assert database.states("train")[start] == "failed"
    assert sorted(database.states("train").values()) == ["failed", "success"]


def test_cancel_refuses_to_guess_which_of_two_live_iterations_is_meant(capsys, regions):
    for number, region in enumerate(regions):
        put("running", record=RECORD.with_handle(JobHandle("Train", 7 + number), 1.0), map_index=0, region=region)
    code = main(["cancel", "etl.train[0]", "--run", "r1", "--yes"])
    assert (code, Cloud.cancelled) == (1, [])
    assert "one for each iteration of a loop" in capsys.readouterr().err
