"""The command in unkind hands: names that mean two tasks, narrow terminals, answers nobody reads, two persons at once."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from resumable import host
from resumable.cleanup import sweep
from resumable.cli import cancel
from resumable.cli.main import main
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from tests.support import database
from tests.support.swept import Cloud, Train
from tests.support.terminal import Terminal

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3")

REACH = {"operator": "tests.support.swept:Train", "conn_id": "lab"}
INTENT = JobRecord("Train", "t" * 48, Generation(3, 0, database.NOW.isoformat()), 0, "owner", 1, time.time() - 7200, reach=REACH)
RECORD = replace(INTENT, try_number=1).submitted(JobHandle("Train", 7), time.time() - 7200)


@pytest.fixture(autouse=True)
def deployment(monkeypatch):
    database.empty()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", "tests.support.swept")
    monkeypatch.setattr(cancel, "_sleep", lambda _: None)
    monkeypatch.setattr(sweep, "_sleep", lambda _: None)
    Cloud.states, Cloud.cancelled, Cloud.token, Cloud.after_a_cancel = {7: "RUNNING"}, [], None, "FAILED"


def put(state="running", record=RECORD, task_id="train", dag_id="etl", run_id="r1", **more):
    return database.put(dag_id, run_id, task_id, state, record if isinstance(record, str) else record.to_json(), **more)


def kept(task_id="train", dag_id="etl"):
    return JobRecord.from_json(database.kept(dag_id, task_id))


def refused(capsys, *arguments):
    """What the command says on standard error when it refuses."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    return capsys.readouterr().err


# -- which task is meant ----------------------------------------------------------------------------------------------


def test_dots_that_could_mean_two_tasks_are_asked_about_and_a_slash_answers(capsys):
    put(dag_id="etl", task_id="sub.load")
    put(dag_id="etl.sub", task_id="load", record=RECORD.with_handle(JobHandle("Train", 8), time.time()))
    said = refused(capsys, "show", "etl.sub.load")
    assert "etl/sub.load" in said
    assert "etl.sub/load" in said
    assert main(["show", "etl.sub/load"]) == 0
    assert "Train 8" in capsys.readouterr().out


def test_a_mapped_task_is_asked_for_its_index(capsys):
    put(map_index=0)
    put(map_index=12)
    said = refused(capsys, "cancel", "etl.train", "--yes")
    assert "etl.train[0]" in said
    assert "0, 12" in said
    assert "0, 12" in refused(capsys, "cancel", "etl.train[1]", "--yes")
    assert Cloud.cancelled == []


@pytest.mark.parametrize(
    "name", ["", "etl", ".", "etl.", "/", "etl/", "train[7]", "²", "etl.train[²]", "etl.train[-1]", "etl.train["]
)
def test_what_names_no_task_with_a_record_is_refused_in_words(capsys, name):
    put()
    assert "resumable: " in refused(capsys, "show", name)


@pytest.mark.parametrize(("dag_id", "task_id"), [("ключ", "задача-日本語"), ("a-b_c", "g1.g2.x"), ("d" * 250, "t" * 250)])
def test_a_task_with_odd_characters_is_found_by_its_name(capsys, dag_id, task_id):
    put("failed", dag_id=dag_id, task_id=task_id)
    assert main(["cancel", f"{dag_id}.{task_id}", "--yes"]) == 0
    assert Cloud.cancelled == [(7, "lab")]


def test_a_hundred_runs_are_told_by_the_latest_ten(capsys):
    for number in range(12):
        put(run_id=f"r{number:03}")
    said = refused(capsys, "show", "etl.train")
    assert "12 runs" in said
    assert "r011" in said
    assert "and 2 more" in said


@pytest.mark.parametrize("age", ["nan", "inf", "-5m", "", "5 minutes", "soon"])
def test_a_time_that_is_none_is_told_with_an_example(capsys, age):
    assert main(["jobs", f"--older={age}"]) == 2
    assert "15m" in capsys.readouterr().err
    assert main(["cancel", "etl.train", f"--wait={age}"]) == 2


# -- terminals --------------------------------------------------------------------------------------------------------


def on_a_terminal(monkeypatch, width, *arguments):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    for name, value in {"COLUMNS": str(width), "LINES": "24", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    code = main(list(arguments))
    monkeypatch.undo()
    return code, re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


LONG = RECORD.with_handle(JobHandle("Train", {"run_id": 123456789012345}, {"workspace": "adb-5555.1.azuredatabricks.net"}), 1.0)


@pytest.mark.parametrize("width", [1, 20, 40, 80, 120])
def test_on_a_narrow_terminal_what_is_copied_from_a_row_is_in_one_piece(monkeypatch, width):
    put("running", record=LONG, run_id="scheduled__2026-11-26T10:00:00+00:00")
    code, out = on_a_terminal(monkeypatch, width, "jobs")
    assert code == 0
    for text in ("etl.train", "scheduled__2026-11-26T10:00:00+00:00", "run_id=123456789012345 at adb-5555.1.azuredatabricks.net"):
        assert text in out


def test_on_a_wide_terminal_a_row_is_a_line(monkeypatch):
    put("running")
    _, out = on_a_terminal(monkeypatch, 200, "jobs")
    assert len(out.strip().splitlines()) == 4
    assert max(map(len, out.splitlines())) <= 200


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("command", [["show", "etl.train"], ["doctor"], ["mark", "show"]])
def test_every_command_fits_any_terminal(monkeypatch, width, command):
    put("running", record=LONG)
    _, out = on_a_terminal(monkeypatch, width, *command)
    assert out


def test_nothing_that_a_task_has_written_moves_the_cursor(capsys, monkeypatch):
    evil = "\x1b[2J\x1b]0;pwned\x07\r\n\u202e\ud800 x"
    put(
        "failed",
        record=replace(RECORD, service=evil, handle=JobHandle(evil, {"id": evil.replace("\ud800", "")}, {"at": evil}), left=evil),
    )
    put("failed", task_id="other", record='{"state": "submitted", "version": "' + "\\u001b[2J" + '"}')
    printed = ""
    for command in (["jobs"], ["show", "etl.train"], ["cancel", "etl.train"], ["forget", "etl.train"], ["show", "etl.other"]):
        main(command)
        out, err = capsys.readouterr()
        printed += out + err
    _, on_terminal = on_a_terminal(monkeypatch, 80, "jobs")
    for text in (printed, on_terminal):
        assert all(one.isprintable() or one == "\n" for one in text)
        assert "pwned" in text


def test_json_has_what_was_written_as_it_is(capsys):
    put("running", record=replace(RECORD, left="\x1b[2J"))
    assert main(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["left"] == "\x1b[2J"


# -- questions --------------------------------------------------------------------------------------------------------


def at_the_question(monkeypatch, answer):
    """Somebody sits at a terminal; ``answer`` is what is typed, or a function that is called while the question stands there."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _: answer() if callable(answer) else answer)


def end_of_input():
    raise EOFError


@pytest.mark.parametrize("answer", ["", "n", "Y es", end_of_input], ids=["enter", "n", "a word", "ctrl-d"])
@pytest.mark.parametrize("command", ["cancel", "forget"])
def test_anything_but_a_yes_does_nothing_and_says_so(capsys, monkeypatch, command, answer):
    put("failed", record=replace(RECORD, left="on purpose") if command == "cancel" else RECORD)
    Cloud.states = {7: "RUNNING" if command == "cancel" else "FAILED"}
    at_the_question(monkeypatch, answer)
    assert main([command, "etl.train"]) == 1
    assert "Nothing was done" in capsys.readouterr().out
    assert kept().outcome is None
    assert Cloud.cancelled == []


def test_no_terminal_and_no_yes_does_nothing(capsys, monkeypatch):
    put("failed")
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["cancel", "etl.train"]) == 1
    assert "--yes" in capsys.readouterr().out


def test_ctrl_c_ends_the_wait_with_a_word_and_not_a_traceback(capsys, monkeypatch):
    put("running")

    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: True)
    monkeypatch.setattr(cancel, "_sleep", stop)
    assert main(["cancel", "etl.train", "--yes"]) == 130
    out, err = capsys.readouterr()
    assert "Marked failed" in out
    assert "interrupted" in err


def test_a_job_that_has_ended_while_somebody_thought_about_it_is_not_cancelled_and_its_task_not_marked(capsys, monkeypatch):
    put("running")

    def meanwhile():
        (one,) = host.beside().records()
        assert host.beside().write(one, RECORD.ended(Outcome.SUCCEEDED, time.time()).to_json())
        return "y"

    marked = []
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: marked.append(task))
    at_the_question(monkeypatch, meanwhile)
    assert "has ended (succeeded)" in refused(capsys, "cancel", "etl.train")
    assert marked == []
    assert Cloud.cancelled == []


def test_a_task_with_another_job_meanwhile_keeps_it(capsys, monkeypatch):
    put("failed", record=replace(RECORD, left="on purpose"))

    def meanwhile():
        (one,) = host.beside().records()
        assert host.beside().write(one, RECORD.with_handle(JobHandle("Train", 8), time.time()).to_json())
        return "y"

    Cloud.states[8] = "RUNNING"
    at_the_question(monkeypatch, meanwhile)
    assert "another job meanwhile" in refused(capsys, "cancel", "etl.train")
    assert Cloud.cancelled == []


def test_a_record_that_is_gone_meanwhile_is_told(capsys, monkeypatch):
    put("failed", record=replace(RECORD, left="on purpose"))

    def meanwhile():
        (one,) = host.beside().records()
        assert host.beside().remove(one)
        return "y"

    at_the_question(monkeypatch, meanwhile)
    assert "gone meanwhile" in refused(capsys, "cancel", "etl.train")
    assert Cloud.cancelled == []


def test_a_task_that_has_ended_meanwhile_is_not_said_to_be_marked(capsys, monkeypatch):
    put("running")
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: False)
    assert main(["cancel", "etl.train", "--yes", "--wait", "0"]) == 0
    out = capsys.readouterr().out
    assert "Marked failed" not in out
    assert "has ended meanwhile" in out


def test_a_job_that_succeeded_in_the_wait_is_not_said_to_be_cancelled(capsys, monkeypatch):
    put("running")

    def mark(task, start):
        (found,) = host.beside().records()
        return host.beside().write(found, RECORD.ended(Outcome.SUCCEEDED, time.time()).to_json())

    monkeypatch.setattr(host.beside(), "mark_failed", mark)
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert "succeeded" in capsys.readouterr().out
    assert kept().history[-1].what == "succeeded"


# -- two persons ------------------------------------------------------------------------------------------------------


def test_of_two_who_cancel_at_once_the_second_hears_of_the_first(capsys, monkeypatch):
    put("failed", record=replace(RECORD, left="on purpose"))
    look = Train.get_job_status

    def first_is_faster(self, external_id, context):
        (found,) = host.beside().records()
        if JobRecord.from_json(found.row.data).outcome is None:
            closed = RECORD.ended(Outcome.CANCELLED, time.time(), "by ann@host")
            assert host.beside().write(found, closed.to_json())
        return look(self, external_id, context)

    monkeypatch.setattr(Train, "get_job_status", first_is_faster)
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert "cancelled meanwhile (cancelled by ann@host)" in capsys.readouterr().out
    assert Cloud.cancelled == []


def test_a_task_that_is_cleared_in_the_middle_keeps_its_job(capsys, monkeypatch):
    put("failed", record=replace(RECORD, left="on purpose"))
    look = Train.get_job_status

    def cleared(self, external_id, context):
        database.change("etl", "r1", "train", state=None)
        return look(self, external_id, context)

    monkeypatch.setattr(Train, "get_job_status", cleared)
    assert "has changed meanwhile" in refused(capsys, "cancel", "etl.train", "--yes")
    assert Cloud.cancelled == []


def test_a_second_cancel_of_a_job_that_was_told_to_stop_says_so(capsys):
    Cloud.after_a_cancel = "RUNNING"
    put("failed", record=replace(RECORD, left="on purpose"))
    assert main(["cancel", "etl.train", "--yes"]) == 1
    assert "told to stop, and not seen to yet" in capsys.readouterr().out
    Cloud.after_a_cancel = "FAILED"
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert main(["cancel", "etl.train", "--yes"]) == 1
    assert "nothing to cancel" in capsys.readouterr().err


def test_with_no_triggerer_alive_a_deferred_tasks_job_is_cancelled_at_once(capsys, monkeypatch):
    put("deferred")
    database.put_process("TriggererJob", seconds_ago=3600)
    monkeypatch.setattr(host.beside(), "mark_failed", lambda task, start: True)
    monkeypatch.setattr(cancel, "_sleep", lambda _: pytest.fail("waited"))
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert "No triggerer is alive" in capsys.readouterr().out
    assert Cloud.cancelled == [(7, "lab")]


# -- records that cannot be read --------------------------------------------------------------------------------------

UNREADABLE = {
    "newer": '{"state": "submitted", "version": 99, "job": {"run_id": 4}}',
    "damaged": '{"state": "submitted", "version": 1}',
    "no-json": '"submitted" {{{',
    "a-list": '["submitted"]',
    "a-text": '"\\"submitted\\""',
    "deep": '{"state": "submitted", "version": 1, "job": ' + "[" * 5000 + "]" * 5000 + "}",
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_listed_in_one_short_line_and_touched_by_nobody(capsys, value):
    put("failed", record=value, task_id="odd")
    assert main(["jobs"]) == 0
    out = capsys.readouterr().out
    assert "1 unreadable" in out
    assert max(map(len, out.splitlines())) < 300
    assert main(["show", "etl.odd"]) == 0
    assert main(["cancel", "etl.odd", "--yes"]) == 1
    assert main(["forget", "etl.odd", "--yes"]) == 1
    assert database.keys("odd") == {"resumable"}
    assert main(["forget", "etl.odd", "--yes", "--no-job"]) == 0
    assert database.keys("odd") == set()


# -- where it cannot be asked -----------------------------------------------------------------------------------------


class Full(io.StringIO):
    """A disk that is full, or a reader that has gone."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(), 0), (OSError(28, "No space left on device"), 2)])
def test_an_answer_that_nobody_can_read_stops_no_work(monkeypatch, error, code):
    put("failed", record=replace(RECORD, left="on purpose"))
    monkeypatch.setattr(sys, "stdout", Full(error))
    assert main(["cancel", "etl.train", "--yes"]) == code
    assert Cloud.cancelled == [(7, "lab")]
    assert kept().outcome is Outcome.CANCELLED


def test_with_standard_output_closed_the_work_is_done(monkeypatch):
    put("failed", record=replace(RECORD, left="on purpose"))
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["cancel", "etl.train", "--yes"]) == 0
    assert Cloud.cancelled == [(7, "lab")]


def asked(url, *arguments, shell=""):
    """The command in a process of its own, by an Airflow with that database."""
    env = {**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    line = [sys.executable, "-m", "resumable", *arguments]
    if shell:
        line = ["sh", "-c", f'"$@" {shell}', "sh", *line]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "words"),
    [("nowhere/airflow.db", "does not answer"), ("empty.db", "is not one of Airflow")],
    ids=["no database", "a database without our tables"],
)
def test_a_database_that_does_not_answer_or_is_another_airflows_is_one_line(tmp_path, file, words):
    done = asked(f"sqlite:///{tmp_path / file}", "jobs")
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr.splitlines()[-1]
    assert "AIRFLOW_HOME" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "code"), [(">&-", 0), ("2>&-", 0), ("> /dev/full", 2), ("<&-", 0)])
def test_closed_and_full_streams_are_no_traceback(shell, code):
    done = asked(os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN") or database.url(), "jobs", shell=shell)
    assert done.returncode == code
    assert "Traceback" not in done.stderr + done.stdout


def test_a_password_of_the_database_is_not_shown(monkeypatch):
    from airflow import settings
    from sqlalchemy.engine import make_url

    monkeypatch.setattr(settings, "engine", SimpleNamespace(url=make_url("postgresql://airflow:secret@db/airflow")))
    assert "secret" not in host.database_url()
    assert "db/airflow" in host.database_url()
