"""
A rolling deploy: workers and triggerers of this release and of an earlier one take turns on the same task instance.

The earlier one is really run, from the repository's own history; in a clone that does not reach back so far this is left out.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services import DatabricksSimulator, EmrService

EARLIER = "02dae9acf5dad290bd6c00d7b054f0718a3b1549"
"""The commit of the earlier release."""

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tests" / "support" / "worker_of_a_version.py"

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


class Version:
    """A process that runs one version of the library."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert Path(self._answer()["home"]).samefile(home)

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return dict(json.loads(line))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Version]]:
    home = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", EARLIER, "resumable", "tests"], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the history does not reach back to {EARLIER}")
    subprocess.run(["tar", "x"], cwd=home, input=archive.stdout, check=True)
    made = {"old": Version(home), "new": Version(ROOT)}
    yield made
    for version in made.values():
        version.end()


class DatabricksDesk:
    operator = "resumable.operators.databricks.ResumableDatabricksOperator"

    def __init__(self) -> None:
        self.server = DatabricksSimulator()
        self.env = self.server.env

    def arguments(self) -> dict[str, Any]:
        job = {"json": {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}}
        return {**job, "polling_period_seconds": 0, "databricks_retry_delay": 0}

    @property
    def jobs(self) -> int:
        return len(self.server.runs)

    @property
    def active(self) -> int:
        return len(self.server.active())

    @property
    def cancels(self) -> int:
        return self.server.count("runs/cancel")

    def finish(self, *, ok: bool = True) -> None:
        for run in self.server.active():
            self.server.finish(run.run_id, "SUCCESS" if ok else "FAILED", "" if ok else "boom")


class EmrDesk:
    operator = "resumable.operators.emr.ResumableEmrAddStepsOperator"

    def __init__(self) -> None:
        self.server = EmrService()
        self.env = self.server.env

    def arguments(self) -> dict[str, Any]:
        if not hasattr(self, "cluster"):
            self.cluster = self.server.create_cluster()
        jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "a.py"]}
        step = {"Name": "load", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}
        return {"job_flow_id": self.cluster, "steps": [step], "wait_for_completion": True, "waiter_delay": 1, "aws_conn_id": None}

    @property
    def jobs(self) -> int:
        return len(self.server.steps(self.cluster))

    @property
    def active(self) -> int:
        return sum(step.state in ("PENDING", "RUNNING") for step in self.server.steps(self.cluster))

    @property
    def cancels(self) -> int:
        return self.server.count("CancelSteps")

    def finish(self, *, ok: bool = True) -> None:
        for step in self.server.steps(self.cluster):
            if step.state in ("PENDING", "RUNNING"):
                self.server.finish(step.id, "COMPLETED" if ok else "FAILED", "" if ok else "boom")


class Task:
    """A task instance, and everything of it that outlives a process."""

    def __init__(self, versions: dict[str, Version], desk: Any, **more: Any) -> None:
        self._versions, self.desk = versions, desk
        self._fixed = {
            "operator": desk.operator,
            "arguments": {**desk.arguments(), **more},
            "max_tries": 5,
            "clear_number": 0,
            "run_started": "2026-01-01T00:00:00+00:00",
            "env": desk.env(),
        }
        self.data: dict[str, Any] = {}
        self.try_number = 1

    def start(self, version: str, **more: Any) -> dict[str, Any]:
        """One process; the next try follows if it failed or died."""
        numbers = {"data": self.data, "try_number": self.try_number}
        answer = self._versions[version].ask(do="attempt", **self._fixed, **numbers, **more)
        self.data = answer["data"]
        if answer["ended"] in ("died", "failed"):
            self.try_number += 1
        return answer

    def event(self, version: str, deferred: dict[str, Any]) -> dict[str, Any]:
        return self._versions[version].ask(do="trigger", trigger=deferred["trigger"], env=self._fixed["env"])

    def stop(self, version: str, deferred: dict[str, Any], state: str | None) -> None:
        self._versions[version].ask(do="trigger", trigger=deferred["trigger"], env=self._fixed["env"], state=state)

    def resume(self, version: str, deferred: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
        method = "__fail__" if "error" in event else deferred["method"]
        return self.start(version, resume=[method, {**(deferred["kwargs"] or {}), **event}])

    def clear(self) -> None:
        """What the API does for a task that is not running."""
        self.try_number += 1
        self._fixed |= {"clear_number": 1, "max_tries": self._fixed["max_tries"] + 1}

    @property
    def state(self) -> str:
        return str(self.data["resumable"]["state"])


@pytest.fixture(params=[DatabricksDesk, EmrDesk], ids=["databricks", "emr"])
def desk(request: pytest.FixtureRequest) -> Iterator[Any]:
    desk = request.param()
    with desk.server:
        yield desk


RESCHEDULE = {"resume_policy": {"wait": "reschedule", "wait_interval": 60}}
FIRST = pytest.mark.parametrize("turns", ["on", "no"], ids=["old first", "new first"])


def turns_of(turns: str) -> Iterator[str]:
    return itertools.cycle(("old", "new") if turns == "on" else ("new", "old"))


@FIRST
def test_workers_that_die_by_turns_leave_one_job(versions: Any, desk: Any, turns: str) -> None:
    task, turn = Task(versions, desk), turns_of(turns)
    for _ in range(4):
        assert task.start(next(turn), dies=True)["ended"] == "died"
        assert (desk.jobs, desk.active, desk.cancels) == (1, 1, 0)
    desk.finish()
    assert task.start(next(turn))["ended"] == "success"
    assert (desk.jobs, desk.cancels, task.state) == (1, 0, "succeeded")


@FIRST
def test_looks_by_turns_watch_one_job(versions: Any, desk: Any, turns: str) -> None:
    task, turn = Task(versions, desk, **RESCHEDULE), turns_of(turns)
    for _ in range(4):
        assert task.start(next(turn))["ended"] == "rescheduled"
        assert (desk.jobs, desk.active, desk.cancels) == (1, 1, 0)
    desk.finish()
    assert task.start(next(turn))["ended"] == "success"
    assert (desk.jobs, desk.cancels) == (1, 0)


@pytest.mark.parametrize("who", list(itertools.product(("old", "new"), repeat=3)), ids="-".join)
def test_a_deferral_a_trigger_and_a_resume_of_any_versions_end_with_one_job(versions: Any, desk: Any, who: Any) -> None:
    defers, triggers, resumes = who
    task = Task(versions, desk, deferrable=True)
    deferred = task.start(defers)
    assert deferred["ended"] == "deferred"
    desk.finish()
    assert task.resume(resumes, deferred, task.event(triggers, deferred))["ended"] == "success"
    assert (desk.jobs, desk.cancels, task.state) == (1, 0, "succeeded")


@pytest.mark.parametrize(("defers", "triggers"), [("old", "new"), ("new", "old"), ("new", "new")])
def test_a_trigger_that_is_given_to_another_triggerer_leaves_the_job(
    versions: Any, desk: Any, defers: str, triggers: str
) -> None:
    """Old and old does not: that is what was mended."""
    task = Task(versions, desk, deferrable=True)
    deferred = task.start(defers)
    for state in ("deferred", "queued", None):
        task.stop(triggers, deferred, state)
    assert (desk.active, desk.cancels) == (1, 0)
    task.stop(triggers, deferred, "failed")
    assert (desk.active, desk.cancels) == (0, 1)


@FIRST
@pytest.mark.parametrize("mode", [RESCHEDULE, {"deferrable": True}], ids=["reschedule", "deferrable"])
def test_a_job_that_fails_unseen_is_followed_by_one_more(versions: Any, desk: Any, turns: str, mode: Any) -> None:
    task, turn = Task(versions, desk, **mode), turns_of(turns)
    task.start(next(turn))
    desk.finish(ok=False)
    for _ in range(4):
        answer = task.start(next(turn))
        if desk.active:
            break
        if answer["ended"] == "deferred":  # for the job that has failed
            task.resume(next(turn), answer, task.event(next(turn), answer))
    assert (desk.jobs, desk.active, desk.cancels) == (2, 1, 0)


@FIRST
def test_a_failure_that_one_saw_is_not_seen_again_by_the_other(versions: Any, desk: Any, turns: str) -> None:
    """What has become of a job is read by both: after each failure there is one more job, and no more than tries."""
    task, turn = Task(versions, desk), turns_of(turns)
    for _ in range(5):
        task.start(next(turn), dies=True)
        desk.finish(ok=False)
        assert desk.jobs <= task.try_number
    assert desk.active == 0
    assert desk.cancels == 0


@pytest.mark.parametrize(("first", "second"), [("old", "new"), ("new", "old")])
def test_a_clear_that_the_other_version_hears_of_stops_the_job_first(versions: Any, desk: Any, first: str, second: str) -> None:
    task = Task(versions, desk, deferrable=True)
    deferred = task.start(first)
    task.stop(second, deferred, "queued")
    task.clear()
    assert task.start(second)["ended"] == "deferred"
    assert (desk.jobs, desk.cancels, desk.active) == (2, 1, 1)
