"""
Task loops and clears on a real Airflow 3.4: `python3 dev.py matrix 3.4` runs them.

Most of the time is waiting for Airflow, so the scenarios run side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resumable.host import versions
from tests.airflow.harness import Airflow
from tests.crash import stops
from tests.crash.scenarios import Remote
from tests.crash.stops import Task

HERE = Path(__file__).parent
AT_ONCE = 6

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.versions,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not versions.has("airflow.sdk.definitions.loop"), reason="this Airflow has no task loops"),
]

SCENARIOS: dict[str, Any] = {}


def scenario(run: Callable[[Loop], None]) -> Callable[[Loop], None]:
    SCENARIOS[run.__name__] = run
    return run


class Loop(Task):
    """One DAG run of `tests/versions/dags_loops/loops.py`; ``job`` is the task that is looked at."""

    job = "rounds.job"

    def begin(self, dag_id: str) -> Loop:
        self.dag_id = dag_id
        self.airflow.trigger(dag_id, run_id=self.run_id)
        return self

    @property
    def paths(self) -> list[str]:
        """The notebook path of each job that was started, in order."""
        return [str(run.payload["notebook_task"]["notebook_path"]) for run in self.remote._runs(self.run_id)]

    def finish(self) -> None:
        self.remote.finish(self.kind, self.run_id)

    def attempts(self) -> list[dict[str, Any]]:
        return [one for one in self.airflow.every_attempt() if (one["dag_id"], one["run_id"]) == (self.dag_id, self.run_id)]

    def nth(self, number: int) -> dict[str, Any]:
        """The n-th execution of any task of the run."""
        self.until(f"execution {number}", lambda: len(self.attempts()) >= number)
        return self.attempts()[number - 1]

    def is_looked_at(self) -> None:
        seen = self.remote.looks(self.kind, self.run_id)
        self.until("two looks", lambda: self.remote.looks(self.kind, self.run_id) >= seen + 2)

    def ends(self, state: str = "success") -> None:
        def ended() -> bool:
            self.finish()
            return self.airflow.run_state(self.dag_id, self.run_id) in ("success", "failed")

        self.until("the end of the run", ended, 180)
        assert self.airflow.run_state(self.dag_id, self.run_id) == state

    def told(self) -> list[dict[str, Any]]:
        file = self.airflow.home / f"told-{self.run_id}.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def instances(self) -> list[dict[str, Any]]:
        """Of all iterations, those that live, as the REST API has them."""
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances"
        return [one for one in self.airflow.call("GET", path)["task_instances"] if one["task_id"] == self.job]

    def wait_for(self, state: str) -> dict[str, Any]:
        """The task instance of the latest iteration, in ``state``."""

        def found() -> Any:
            return next((one for one in self.instances() if one["state"] == state), None)

        return self.airflow.wait_until(f"{state} of {self.run_id}", found, 120)

    def logs(self) -> str:
        folder = self.airflow.home / "airflow" / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
        return "\n".join(file.read_text() for file in sorted(folder.rglob("*.log")))


def _each_iteration_has_its_own_job(t: Loop, dag_id: str, state: str) -> None:
    t.begin(dag_id)
    for number in (1, 2, 3):
        t.until(f"job {number}", lambda number=number: t.jobs == number)
        t.wait_for(state)
        assert t.active == 1
        t.finish()
    t.ends()
    assert (t.paths, t.cancels) == (["/0", "/1", "/2"], 0)
    assert len({run.payload["idempotency_token"] for run in t.remote._runs(t.run_id)}) == 3


@scenario
def each_iteration_of_a_polling_task_has_its_own_job(t: Loop) -> None:
    _each_iteration_has_its_own_job(t, "loop_poll", "running")


@scenario
def each_iteration_of_a_deferred_task_has_its_own_job(t: Loop) -> None:
    _each_iteration_has_its_own_job(t, "loop_deferred", "deferred")


@scenario
def each_iteration_of_a_rescheduled_task_has_its_own_job(t: Loop) -> None:
    _each_iteration_has_its_own_job(t, "loop_rescheduled", "up_for_reschedule")


@scenario
def a_worker_killed_in_the_second_iteration_costs_no_job(t: Loop) -> None:
    t.begin("loop_poll")
    t.until("the first job", lambda: t.jobs == 1)
    t.finish()
    t.until("the second job", lambda: t.jobs == 2)
    second = t.nth(2)
    t.is_looked_at()
    t.airflow.kill_worker(second)
    t.nth(3)
    t.is_looked_at()
    assert (t.paths, t.active) == (["/0", "/1"], 1)
    t.ends()
    assert (t.paths, t.cancels) == (["/0", "/1", "/2"], 0)
    assert "resumable: reattached to" in t.logs()


@scenario
def a_mapped_task_in_a_loop_has_a_job_for_each_index_and_iteration(t: Loop) -> None:
    t.begin("loop_mapped")
    t.until("the first two jobs", lambda: t.jobs == 2)
    t.finish()
    t.until("the next two", lambda: t.jobs == 4)
    t.is_looked_at()
    t.airflow.kill_worker(t.nth(3))
    t.nth(5)
    t.is_looked_at()
    assert (t.jobs, t.active) == (4, 2)
    t.ends()
    assert (sorted(t.paths), t.cancels) == (["/0/a", "/0/b", "/1/a", "/1/b"], 0)


@scenario
def each_iteration_has_its_own_checkpoint_once_and_interval(t: Loop) -> None:
    t.begin("loop_work")
    t.ends()
    items = [(one["iteration"], one["item"]) for one in t.told() if "item" in one]
    assert items == [(i, item) for i in range(3) for item in "abc"]
    kept = [(one["iteration"], one["made"], one["since"]) for one in t.told() if "made" in one]
    assert kept == [(i, f"cluster of iteration {i}", 10 * i) for i in range(3)]


@scenario
def a_clear_of_an_earlier_iteration_stops_the_job_of_the_one_that_waits(t: Loop) -> None:
    t.begin("loop_rescheduled")
    t.until("the first job", lambda: t.jobs == 1)
    t.finish()
    t.until("the second job", lambda: t.jobs == 2)
    t.wait_for("up_for_reschedule")
    first = next(one for one in t.instances() if one["state"] == "success")
    body = {"dry_run": False, "dag_run_id": t.run_id, "only_failed": False, "include_downstream": True}
    t.airflow.call("POST", f"/dags/{t.dag_id}/clearTaskInstances", json={**body, "task_instance_ids": [first["id"]]})
    t.until("the job that comes after the clear", lambda: t.jobs == 3)
    t.until("the cancel", lambda: t.cancels == 1)
    assert t.active == 1
    t.ends()
    assert (t.paths, t.cancels) == (["/0", "/1", "/0", "/1", "/2"], 1)


@scenario
def a_user_ends_an_iteration_and_its_job_is_stopped(t: Loop) -> None:
    t.begin("loop_poll")
    t.until("the first job", lambda: t.jobs == 1)
    t.finish()
    t.until("the second job", lambda: t.jobs == 2)
    t.is_looked_at()
    running = t.wait_for("running")
    path = f"/dags/{t.dag_id}/dagRuns/{t.run_id}/taskInstances/{t.job}"
    where = {name: running[name] for name in ("region_id", "region_index")}
    t.airflow.call("PATCH", path, params=where, json={"new_state": "failed"})
    t.cancelled("an iteration marked failed", 60)
    assert (t.jobs, t.cancels) == (2, 1)


# -- a clear deletes the state of its tasks: no loop, each way to wait -------------------------------------------------


def _one_job_after_the_other(t: Loop) -> None:
    """After a clear: the old job is cancelled, and at no time are there two."""
    seen = set()

    def second() -> bool:
        seen.add(t.active)
        return t.jobs == 2

    t.until("the second job", second, 180)
    t.until("one job", lambda: t.active == 1)
    assert max(seen) == 1
    assert t.cancels >= 1
    t.ends()
    assert t.jobs == 2


@scenario
def a_clear_of_a_polling_task(t: Loop) -> None:
    t.start()
    t.in_the_wait()
    t.clear()
    _one_job_after_the_other(t)


@scenario
def a_clear_whose_worker_is_killed_with_it(t: Loop) -> None:
    t.start()
    attempt = t.in_the_wait()
    t.clear()
    t.airflow.kill_worker(attempt)
    _one_job_after_the_other(t)


@scenario
def a_clear_of_a_task_that_was_handed_back(t: Loop) -> None:
    t.start("_r0")
    os.kill(t.in_the_wait()["pid"], signal.SIGTERM)
    t.state("up_for_reschedule")
    t.clear()
    _one_job_after_the_other(t)


@scenario
def a_clear_between_two_looks(t: Loop) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.clear()
    _one_job_after_the_other(t)


@scenario
def a_clear_with_keep_task_state(t: Loop) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    t.airflow.clear(t.dag_id, t.run_id, ["job"], keep_task_state=True)
    _one_job_after_the_other(t)


@scenario
def a_clear_that_is_to_reattach(t: Loop) -> None:
    t.begin("clear_reattach")
    t.in_the_wait()
    t.clear()
    t.in_the_wait(2)
    t.ends()
    assert (t.jobs, t.cancels) == (1, 0)


@scenario
def a_clear_goes_on_with_an_unfinished_checkpoint(t: Loop) -> None:
    t.begin("clear_items")
    t.until("two items", lambda: [one["item"] for one in t.told()] == ["a", "b"])
    t.until("the write", lambda: t.airflow.state_store(t.dag_id, t.run_id, "job")["resumable.checkpoint.items"]["done"] >= 1)
    t.clear()
    t.attempt(2)
    (t.airflow.home / f"gate-{t.run_id}").touch()
    t.ends()
    assert [one["item"] for one in t.told()] in (["a", "b", "c"], ["a", "b", "b", "c"])


@scenario
def a_clear_has_what_once_made_removed_before_it_is_made_anew(t: Loop) -> None:
    t.begin("clear_once")
    t.until("the first cluster", lambda: t.airflow.state_store(t.dag_id, t.run_id, "job").get("resumable.once.cluster"))
    t.airflow.kill_worker(t.attempt(1))
    t.state("up_for_retry")
    t.clear()
    t.until("the second cluster", lambda: len(t.told()) >= 3)
    (t.airflow.home / f"gate-{t.run_id}").touch()
    t.ends()
    one, two = (told["made"] for told in t.told() if "made" in told)
    assert one != two
    assert t.told() == [{"made": one}, {"removed": one}, {"made": two}, {"removed": two}]


@scenario
def a_key_that_a_user_deletes_is_deleted(t: Loop) -> None:
    t.start("_reschedule")
    t.attempt(1)
    t.state("up_for_reschedule")
    path = f"/dags/{t.dag_id}/dagRuns/{t.run_id}/taskInstances/job/state-store"
    t.airflow.call("DELETE", path)
    assert "resumable" not in t.airflow.state_store(t.dag_id, t.run_id, "job")
    t.ends()


# -- a retry_policy that answers RESCHEDULE: the same try runs again -----------------------------------------------------


@scenario
def a_try_that_the_retry_policy_runs_again_reattaches_although_no_try_is_left(t: Loop) -> None:
    t.begin("policy_bug")
    t.in_the_wait(2)
    assert (t.active, t.cancels) == (1, 0)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
    assert "resumable: reattached to" in t.log()


@scenario
def a_job_that_failed_is_asked_for_once_more_where_the_retry_policy_runs_the_try_again(t: Loop) -> None:
    t.begin("policy_job")
    for number in (1, 2):
        t.in_the_wait(number, jobs=number)
        t.fail()
    row = t.state("failed")
    assert (row["try_number"], t.jobs, t.cancels, t.record["state"]) == (1, 2, 0, "failed")


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    shutil.copy(HERE.parent / "crash" / "dags" / "jobs.py", folder)
    shutil.copy(HERE / "dags_loops" / "loops.py", folder)
    return folder


def _environment(remote: Remote) -> dict[str, str]:
    return {
        **remote.databricks.env(),
        **remote.emr.env(),
        "TEST_DATABRICKS_JOB": str(remote.databricks.add_job("nightly")),
        "TEST_EMR_CLUSTER": remote.cluster,
        "AIRFLOW__CORE__PARALLELISM": "24",
        "AIRFLOW__RESUMABLE__HAND_BACK_SECONDS": "10",
        "AIRFLOW__RESUMABLE__SWEEP_DELAY": "5",
    }


@pytest.fixture(scope="module")
def looping(start_airflow: Callable[..., Airflow], remote: Remote, dags: Path) -> Airflow:
    return start_airflow(dags, env=_environment(remote), triggerer=True)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, looping: Airflow, remote: Remote) -> Iterator[dict[str, Future[None]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        chosen = stops.asked_for(request, SCENARIOS).items()
        yield {name: pool.submit(run, Loop(looping, remote, "databricks", name)) for name, run in chosen}


@pytest.mark.parametrize("name", SCENARIOS)
def test(running: dict[str, Future[None]], name: str) -> None:
    running[name].result()


def test_a_clear_with_the_triggerer_down(running: dict[str, Future[None]], looping: Airflow, remote: Remote) -> None:
    for future in running.values():
        future.exception()
    t = Loop(looping, remote, "databricks_deferrable", "triggerer-down")
    t.start()
    t.state("deferred")
    t.until("the job", lambda: t.active == 1)
    looping.stop("triggerer")
    try:
        t.clear()
        t.until("the second job", lambda: t.jobs == 2)
        t.until("one job", lambda: t.active == 1)
        assert t.cancels == 1
    finally:
        looping.start("triggerer")
    t.ends()
    assert t.jobs == 2


# -- [core] execute_tasks_new_python_interpreter: the task's process is no fork of its supervisor's --------------------


IN_A_NEW_INTERPRETER = (
    "a_task_marked_failed_cancels_its_job_once-databricks",
    "a_clear_while_running_stops_the_old_job_before_the_new_one-databricks",
    "execution_timeout_cancels_the_job-databricks",
    "wait_reschedule_holds_no_slot_between_looks_and_uses_no_try-databricks",
)


def test_stops_are_the_same_in_a_new_interpreter(tmp_path_factory: pytest.TempPathFactory, remote: Remote, dags: Path) -> None:
    env = {**_environment(remote), "AIRFLOW__CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "True", "TEST_TIMEOUT_SECONDS": "15"}
    with Airflow(tmp_path_factory.mktemp("new"), dags, env=env) as airflow, ThreadPoolExecutor(AT_ONCE) as pool:
        running = []
        for name in IN_A_NEW_INTERPRETER:
            kind, run = stops.SCENARIOS[name]
            running.append(pool.submit(run, Task(airflow, remote, kind, f"new-{name}".replace("_", "-"))))
        for hand_back in ("databricks", "emr"):
            t = Task(airflow, remote, hand_back, f"new-hand-back-{hand_back}")
            running.append(pool.submit(a_signal_that_reaches_the_task_itself_hands_it_back_at_no_cost, t))
        for one in running:
            one.result()


def a_signal_that_reaches_the_task_itself_hands_it_back_at_no_cost(t: Task) -> None:
    t.start("_r0")
    os.kill(t.in_the_wait()["pid"], signal.SIGTERM)
    t.state("up_for_reschedule")
    assert (t.active, t.cancels) == (1, 0)
    t.in_the_wait(2)
    row = t.end()
    assert (row["try_number"], t.jobs, t.cancels) == (1, 1, 0)
