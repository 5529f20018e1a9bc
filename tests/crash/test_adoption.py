"""One line of airflow.cfg, the providers' own imports, and the command, on a real Airflow whose workers are killed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import host
from tests.airflow.harness import Airflow
from tests.airflow.harness2 import Airflow2
from tests.crash.scenarios import PLAN, Outcome, Remote, run_all
from tests.services import DatabricksSimulator, EmrService

pytestmark = [pytest.mark.airflow, pytest.mark.stops, pytest.mark.timeout(900)]  # with dev.py crash

Key = tuple[str, str, str]

KINDS = ("databricks", "emr", "databricks_deferrable", "emr_deferrable")
OURS = [key for key in PLAN if key[0] == "ours" and key[1] in KINDS]


def configure(airflow: Airflow, **options: str) -> None:
    """The section of airflow.cfg, and nothing else in it."""
    file = airflow.home / "airflow" / "airflow.cfg"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["[resumable]", *(f"{name} = {value}" for name, value in options.items()), ""]))


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """Services of its own: the other modules' runs have the same ids."""
    with DatabricksSimulator() as databricks, EmrService() as emr:
        yield Remote(databricks, emr, emr.create_cluster())


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, remote: Remote) -> Iterator[Airflow]:
    env = {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__CORE__PARALLELISM": "24",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
    }
    kind = Airflow if host.has_sdk() else Airflow2
    made = kind(tmp_path_factory.mktemp("adopted"), Path(__file__).parent / "dags_adopted", env=env, triggerer=True)
    configure(made, adopt="databricks, emr")
    with made:
        yield made


def command(airflow: Airflow, *arguments: str) -> tuple[int, str]:
    """`python -m resumable` beside the scheduler: its exit code and what it printed."""
    line = [sys.executable, "-m", "resumable", *arguments]
    # Before 3.3 the harness' own store, which keeps records in Variables and can be held: the command reads the Variables.
    env = {**airflow._services.env, "AIRFLOW__RESUMABLE__STORE": ""}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=False)
    print(f"$ python -m resumable {' '.join(arguments)}   [{done.returncode}]\n{done.stdout}{done.stderr[-1500:]}")
    return done.returncode, done.stdout


def live(airflow: Airflow, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command(airflow, "jobs", "--json", *arguments)[1])
    return found


def start(airflow: Airflow, remote: Remote, kind: str, run_id: str) -> str:
    """A run whose job is recorded and watched."""
    airflow.trigger(f"ours_{kind}", run_id=run_id)
    airflow.wait_until("the submit", lambda: remote.jobs(kind, run_id) == 1, 90)
    airflow.wait_until("the record", lambda: record(airflow, kind, run_id).get("state") == "submitted", 60)
    return run_id


def record(airflow: Airflow, kind: str, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = airflow.state_store(f"ours_{kind}", run_id, "job").get("resumable", {})
    return found


def state(airflow: Airflow, kind: str, run_id: str) -> str:
    return str(airflow.task(f"ours_{kind}", run_id, "job")["state"])


@pytest.fixture(scope="module")
def outcomes(airflow: Airflow, remote: Remote) -> dict[Key, Outcome]:
    return {(o.whose, o.kind, o.scenario): o for o in run_all(airflow, remote, OURS, print)}


@pytest.mark.parametrize("key", OURS, ids=lambda k: f"{k[1]}-{k[2].replace(' ', '-')}")
def test_one_job_and_success_when_the_worker_is_killed(outcomes: dict[Key, Outcome], key: Key) -> None:
    o = outcomes[key]
    assert (o.state, o.tries, o.jobs, o.cancels) == ("success", 2, 1, 0), o.log
    assert all(o.links.values())


def test_a_lost_worker_stands_in_the_records_history(outcomes: dict[Key, Outcome]) -> None:
    if not host.has_task_state():
        pytest.skip("before 3.3 the record goes with the task's success")
    past = [event[1] for event in outcomes["ours", "databricks", "in the wait"].record["history"]]
    assert past == ["submitted", "worker lost", "reattached", "succeeded"]


def test_the_ui_shows_the_providers_class(airflow: Airflow, remote: Remote) -> None:
    run_id = start(airflow, remote, "databricks", "shown")
    theirs = "DatabricksSubmitRunOperator"
    assert airflow.task("ours_databricks", run_id, "job").get("operator", theirs) == theirs
    remote.finish("databricks", run_id)
    airflow.wait_run("ours_databricks", run_id)


@pytest.mark.parametrize("kind", ["databricks", "databricks_deferrable", "emr", "emr_deferrable"])
def test_a_live_job_is_listed_shown_and_cancelled_through_its_task(airflow: Airflow, remote: Remote, kind: str) -> None:
    run_id = start(airflow, remote, kind, f"cancelled-{kind}")
    if kind.endswith("deferrable"):
        airflow.wait_until("the deferral", lambda: state(airflow, kind, run_id) == "deferred", 60)
    (found,) = [one for one in live(airflow, "--look") if one["run_id"] == run_id]
    watcher = "triggerer" if kind.endswith("deferrable") else "worker"
    assert found["watched_by"].startswith(watcher)
    assert (found["state"], found["is_orphan"]) == ("submitted", False)
    assert found["seen"]
    assert "cannot" not in found["seen"]
    code, text = command(airflow, "show", f"ours_{kind}.job", "--run", run_id)
    assert code == 0
    assert "if the job runs: reattaches to" in text
    code, _ = command(airflow, "cancel", f"ours_{kind}.job", "--run", run_id, "--yes")
    assert code == 0
    assert remote.active(kind, run_id) == 0
    assert remote.cancels(kind, run_id) >= 1
    assert state(airflow, kind, run_id) == "failed"
    if host.has_task_state():
        last = record(airflow, kind, run_id)["history"][-1]
        assert (last[1].startswith("cancelled"), "@" in last[3]) == (True, True)
    assert all(one["run_id"] != run_id for one in live(airflow))


def test_a_deferred_tasks_job_is_cancelled_while_the_triggerer_is_down(airflow: Airflow, remote: Remote) -> None:
    kind, run_id = "databricks_deferrable", start(airflow, remote, "databricks_deferrable", "without-a-triggerer")
    airflow.wait_until("the deferral", lambda: state(airflow, kind, run_id) == "deferred", 60)
    airflow.stop("triggerer")
    code, said = command(airflow, "cancel", f"ours_{kind}.job", "--run", run_id, "--yes", "--wait", "10")
    assert (code, remote.active(kind, run_id), remote.cancels(kind, run_id)) == (0, 0, 1)
    assert "cancelled directly" in said
    assert command(airflow, "cancel", f"ours_{kind}.job", "--run", run_id, "--yes")[0] == 1  # a second person
    airflow.start("triggerer")
    later = start(airflow, remote, kind, "with-a-triggerer-again")
    remote.finish(kind, later)
    assert airflow.wait_run(f"ours_{kind}", later) == "success"
    assert (state(airflow, kind, run_id), remote.jobs(kind, run_id)) == ("failed", 1)


def test_what_would_break_the_promise_is_refused_beside_the_scheduler(airflow: Airflow, remote: Remote) -> None:
    run_id = start(airflow, remote, "databricks", "at-work")
    (job,) = remote.ids("databricks", run_id)
    assert command(airflow, "forget", "ours_databricks.job", "--run", run_id, "--yes")[0] == 1
    assert command(airflow, "adopt", "ours_databricks.job", job, "--run", run_id, "--yes")[0] == 1
    assert command(airflow, "cancel", "ours_databricks.job", "--run", run_id)[0] == 1  # nobody said yes
    assert remote.active("databricks", run_id) == 1
    remote.finish("databricks", run_id)
    assert airflow.wait_run("ours_databricks", run_id) == "success"
    assert command(airflow, "cancel", "ours_databricks.job", "--run", run_id, "--yes")[0] == 1
    assert remote.cancels("databricks", run_id) == 0


def test_doctor_finds_a_whole_deployment_in_order(airflow: Airflow) -> None:
    found = json.loads(command(airflow, "doctor", "--json")[1])
    about = {(one["level"], one["about"]) for one in found}
    # What the harness shortens on purpose, so that tests need not wait, is found.
    assert {one["about"] for one in found if one["level"] == "trouble"} <= {"grace periods"}
    assert {("good", "triggerer"), ("good", "plugin"), ("good", "adoption")} <= about


@pytest.mark.stops
def test_a_job_that_was_started_by_hand_becomes_a_tasks(airflow: Airflow, remote: Remote) -> None:
    run_id = start(airflow, remote, "databricks", "by-hand")
    airflow.mark("ours_databricks", run_id, "job", "failed")
    airflow.wait_until("the cancel", lambda: remote.active("databricks", run_id) == 0, 60)
    airflow.wait_until("its note", lambda: record(airflow, "databricks", run_id).get("closed_at"), 60)
    by_hand = remote.databricks._start({"run_name": run_id}, None, [])["run_id"]
    code, _ = command(airflow, "adopt", "ours_databricks.job", str(by_hand), "--run", run_id, "--yes")
    assert code == 0
    airflow.clear("ours_databricks", run_id)
    airflow.wait_until("the reattachment", lambda: "reattached" in str(record(airflow, "databricks", run_id)), 90)
    remote.finish("databricks", run_id)
    assert airflow.wait_run("ours_databricks", run_id) == "success"
    assert remote.jobs("databricks", run_id) == 2  # the task's own, which was cancelled, and the one by hand


@pytest.mark.stops
def test_the_way_back_finishes_what_is_in_flight_and_takes_no_more(airflow: Airflow, remote: Remote) -> None:
    run_id = start(airflow, remote, "databricks", f"back-{uuid.uuid4().hex[:4]}")
    configure(airflow, adopt="databricks, emr", adopt_new="false")
    code, text = command(airflow, "plan", "--back")
    assert (code, "1 jobs of adopted tasks are in flight" in text) == (1, True)
    if "dag-processor" in airflow.names:
        airflow.restart("dag-processor")
    airflow.restart("scheduler")  # ends its workers too
    airflow.wait_until("the retry", lambda: airflow.task("ours_databricks", run_id, "job")["try_number"] > 1, 120)
    airflow.wait_until("its reattachment", lambda: '"reattached"' in json.dumps(record(airflow, "databricks", run_id)), 120)
    remote.finish("databricks", run_id)
    assert airflow.wait_run("ours_databricks", run_id) == "success"
    assert remote.jobs("databricks", run_id) == 1
    later = "after-the-way-back"
    airflow.trigger("ours_databricks", run_id=later)
    airflow.wait_until("the submit", lambda: remote.jobs("databricks", later) == 1, 90)
    remote.finish("databricks", later)
    assert airflow.wait_run("ours_databricks", later) == "success"
    assert record(airflow, "databricks", later) == {}
    assert command(airflow, "plan", "--back")[0] == 0
