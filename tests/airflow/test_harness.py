"""The harness itself: a real Airflow whose workers die where a test wants them to."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.airflow.harness import Airflow, HarnessError

pytestmark = [pytest.mark.airflow, pytest.mark.harness, pytest.mark.timeout(240)]
PROBE = ("probe", "wait")
STORE = r"/store/ti/[^/]+/try$"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder where a run's task finds the file that ends it."""
    return tmp_path_factory.mktemp("flags")


@pytest.fixture(scope="module")
def airflow(start_airflow: Callable[..., Airflow], flags: Path) -> Airflow:
    """Return a running Airflow with the probe DAG."""
    return start_airflow(Path(__file__).parent / "dags_probe", env={"PROBE_FOLDER": str(flags)})


def test_a_killed_worker_is_followed_by_a_second_try(airflow: Airflow, flags: Path) -> None:
    """After a SIGKILL of task and supervisor the next try sees what the first one stored."""
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    first = airflow.wait_attempt(*ti, 1)
    _until(lambda: airflow.state_store(*ti) == {"try": 1})
    airflow.kill_worker(first)
    killed = time.monotonic()

    assert not psutil.pid_exists(first["pid"]) or _is_dead(first["pid"])
    assert not psutil.pid_exists(first["ppid"]) or _is_dead(first["ppid"])
    with pytest.raises(HarnessError, match="not running"):
        airflow.kill_worker(first)

    second = airflow.wait_attempt(*ti, 2)
    print(f"\nfrom the kill to try 2: {time.monotonic() - killed:.1f} s")
    assert (first["try_number"], second["try_number"]) == (1, 2)
    assert airflow.wait_task(*ti, "running")["try_number"] == 2

    (flags / run_id).touch()
    assert airflow.wait_run("probe", run_id) == "success"
    assert airflow.xcoms(*ti) == {"return_value": "found 1"}
    assert airflow.state_store(*ti) == {"try": 2}
    assert airflow.links(*ti) == {}
    assert [one["state"] for one in airflow.tries(*ti)] == ["failed", "success"]
    assert "probe: stored" in airflow.log(*ti, 1)
    assert "probe: found 1" in airflow.log(*ti, 2)


def test_a_worker_dies_while_its_write_is_held(airflow: Airflow, flags: Path) -> None:
    """A write that is refused after its supervisor died never happened; the second try finds nothing."""
    held = airflow.proxy.hold("PUT", STORE, where=lambda path, body: body["value"] == 1)
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    first = airflow.wait_attempt(*ti, 1)
    request = held.wait_reached()
    assert airflow.state_store(*ti) == {}
    airflow.kill_worker(first)
    held.refuse()

    airflow.wait_attempt(*ti, 2)
    (flags / run_id).touch()
    assert airflow.wait_run("probe", run_id) == "success"
    assert airflow.xcoms(*ti) == {"return_value": "found None"}
    assert "probe: stored" not in airflow.log(*ti, 1)
    assert request.status == 0


def test_a_worker_dies_before_it_hears_that_its_write_was_done(airflow: Airflow, flags: Path) -> None:
    """A write whose answer is kept back has happened; `run_id` picks one run's request among others."""
    run_id = airflow.trigger("probe")
    held = airflow.proxy.hold("PUT", STORE, run_id=run_id, after=True)
    ti = ("probe", run_id, "wait")
    other = airflow.trigger("probe")
    first = airflow.wait_attempt(*ti, 1)
    held.wait_reached()
    assert airflow.state_store(*ti) == {"try": 1}
    airflow.kill_worker(first)
    held.release()

    airflow.wait_attempt(*ti, 2)
    for one in (run_id, other):
        (flags / one).touch()
        assert airflow.wait_run("probe", one) == "success"
    assert airflow.xcoms(*ti) == {"return_value": "found 1"}
    assert len(airflow.attempts("probe", other, "wait")) == 1


def test_clear_ends_a_running_task_and_starts_it_anew(airflow: Airflow, flags: Path) -> None:
    """Clearing keeps the state store and counts a new try under a new task instance id."""
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    airflow.wait_attempt(*ti, 1)
    _until(lambda: airflow.state_store(*ti) == {"try": 1})
    before = airflow.task(*ti)
    airflow.clear("probe", run_id, ["wait"])

    airflow.wait_attempt(*ti, 2)
    assert airflow.task(*ti)["id"] != before["id"]
    (flags / run_id).touch()
    assert airflow.wait_run("probe", run_id) == "success"
    assert airflow.xcoms(*ti) == {"return_value": "found 1"}


@pytest.mark.parametrize("state", ["failed", "success"])
def test_mark_ends_a_running_task(airflow: Airflow, state: str) -> None:
    """Marking sets the state at once and the process ends with its next heartbeat."""
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    attempt = airflow.wait_attempt(*ti, 1)
    airflow.mark(*ti, state)
    assert airflow.wait_run("probe", run_id) == state
    _until(lambda: _is_dead(attempt["pid"]))
    assert "shouldn't be running anymore" in airflow.log(*ti, 1)
    assert airflow.task(*ti)["state"] == state


def test_failed_requests_are_repeated_by_the_supervisor(airflow: Airflow, flags: Path) -> None:
    """One 500 is invisible to the task."""
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    airflow.proxy.fail("PUT", STORE, run_id=run_id)
    _until(lambda: airflow.state_store(*ti) == {"try": 1} if airflow.attempts(*ti) else False)
    (flags / run_id).touch()
    assert airflow.wait_run("probe", run_id) == "success"
    ti_id = airflow.task(*ti)["id"]
    answers = [request.status for request in airflow.proxy.requests("PUT", rf"/store/ti/{re.escape(ti_id)}/")]
    assert answers == [500, 204]


def test_services_restart(airflow: Airflow, flags: Path) -> None:
    """A scheduler takes its tasks along and the next one runs them again; the api-server is found again."""
    airflow.restart("api-server")
    run_id = airflow.trigger("probe")
    ti = ("probe", run_id, "wait")
    attempt = airflow.wait_attempt(*ti, 1)
    _until(lambda: airflow.state_store(*ti) == {"try": 1})
    airflow.restart("scheduler")
    assert _is_dead(attempt["pid"])
    assert airflow.wait_attempt(*ti, 2)["try_number"] == 2
    (flags / run_id).touch()
    assert airflow.wait_run("probe", run_id) == "success"


def _until(is_so: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
