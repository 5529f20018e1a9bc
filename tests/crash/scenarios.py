"""Workers killed at exact instants in a real Airflow; what the services saw of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.airflow.harness import Airflow
from tests.services import DatabricksSimulator, EmrService, Hold


@dataclass
class Remote:
    """Both services, asked by the id of a DAG run."""

    databricks: DatabricksSimulator
    emr: EmrService
    cluster: str

    def jobs(self, kind: str, run_id: str) -> int:
        if kind.startswith("emr"):
            return len(self._steps(run_id)) // 2
        return len(self._runs(run_id))

    def _runs(self, run_id: str) -> list[Any]:
        return [run for run in self.databricks.runs.values() if f'"{run_id}"' in json.dumps(run.payload)]

    def finish(self, kind: str, run_id: str, *, ok: bool = True) -> None:
        if kind.startswith("emr"):
            for step in self._steps(run_id):
                if step.state in ("PENDING", "RUNNING"):
                    self.emr.finish(step.id, "COMPLETED" if ok else "FAILED")
        else:
            for run in self._runs(run_id):
                if run.is_active:
                    self.databricks.finish(run.run_id, "SUCCESS" if ok else "FAILED")

    def active(self, kind: str, run_id: str) -> int:
        if kind.startswith("emr"):
            steps = self._steps(run_id)
            return sum(any(s.state in ("PENDING", "RUNNING") for s in steps[i : i + 2]) for i in range(0, len(steps), 2))
        return sum(run.is_active for run in self._runs(run_id))

    def cancels(self, kind: str, run_id: str) -> int:
        """Cancel requests for the run's jobs."""
        if kind.startswith("emr"):
            ids = {s.id for s in self._steps(run_id)}
            return sum(bool(ids & set(call.body["StepIds"])) for call in self.emr.calls("CancelSteps"))
        ids = {str(run.run_id) for run in self._runs(run_id)}
        return sum(str(call.body["run_id"]) in ids for call in self.databricks.calls("runs/cancel"))

    def looks(self, kind: str, run_id: str) -> int:
        """How often the run's jobs have been looked at."""
        if kind.startswith("emr"):
            ids = {s.id for s in self._steps(run_id)}
            one = sum(call.body["StepId"] in ids for call in self.emr.calls("DescribeStep"))
            return one + sum(bool(ids & set(call.body.get("StepIds") or [])) for call in self.emr.calls("ListSteps"))
        ids = {str(run.run_id) for run in self._runs(run_id)}
        return sum(str(call.body.get("run_id")) in ids for call in self.databricks.calls("runs/get"))

    def _steps(self, run_id: str) -> list[Any]:
        return [s for s in self.emr.steps(self.cluster) if s.name.startswith(f"{run_id} ")]

    def ids(self, kind: str, run_id: str) -> list[str]:
        """The ids of the run's jobs at the service, as they stand in requests."""
        found = self._steps(run_id) if kind.startswith("emr") else self._runs(run_id)
        return [str(one.id if kind.startswith("emr") else one.run_id) for one in found]

    def service(self, kind: str) -> Any:
        return self.emr if kind.startswith("emr") else self.databricks


SUBMIT = {"databricks": "runs/submit", "custom": "runs/submit", "run_now": "run-now", "emr": "AddJobFlowSteps"}
LOOK = {"databricks": "runs/get", "custom": "runs/get", "run_now": "runs/get", "emr": "DescribeStep"}
LOOK_FROM_AFAR = {**LOOK, "emr": "ListSteps"}
"""How a trigger looks, and an attempt that only wants to know the state."""
CANCEL = {"databricks": "runs/cancel", "custom": "runs/cancel", "run_now": "runs/cancel", "emr": "CancelSteps"}


def _operation(table: dict[str, str], kind: str) -> str:
    return table[kind.removesuffix("_deferrable").removesuffix("_defer")]


@dataclass
class Outcome:
    """What became of one killed task."""

    whose: str
    kind: str
    scenario: str
    run_id: str
    state: str = ""
    tries: int = 0
    jobs: int = 0
    cancels: int = 0
    log: str = field(default="", repr=False)
    xcoms: dict[str, Any] = field(default_factory=dict, repr=False)
    links: dict[str, Any] = field(default_factory=dict, repr=False)
    record: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def dag_id(self) -> str:
        return f"{self.whose}_{self.kind}"


def in_the_wait(airflow: Airflow, remote: Remote, kind: str, dag_id: str, run_id: str) -> None:
    """The job runs, its id is kept, the task looks at it."""
    service, look = remote.service(kind), _operation(LOOK, kind)
    airflow.trigger(dag_id, run_id=run_id)
    attempt = airflow.wait_attempt(dag_id, run_id, "job", 1)
    airflow.wait_until("the submit", lambda: remote.jobs(kind, run_id) == 1, 60)
    service.wait_for(look, service.count(look) + 5, 60)
    airflow.kill_worker(attempt)


def with_the_answer_in_flight(airflow: Airflow, remote: Remote, kind: str, dag_id: str, run_id: str) -> None:
    """The service has accepted the job, its answer has not arrived."""
    hold = Hold()
    remote.service(kind).fault(_operation(SUBMIT, kind), hold, text=run_id)
    airflow.trigger(dag_id, run_id=run_id)
    hold.wait_reached(60)
    airflow.kill_worker(airflow.wait_attempt(dag_id, run_id, "job", 1))
    hold.release(drop=True)


def right_after_the_answer(airflow: Airflow, remote: Remote, kind: str, dag_id: str, run_id: str) -> None:
    """The answer is there, the id is on its way to the store (for an operator that keeps none: as soon as the job exists)."""
    if not dag_id.startswith("ours") and kind not in ("databricks", "run_now"):
        deferral = airflow.proxy.hold("PATCH", r"/state", run_id=run_id, where=_is_deferral)
        airflow.trigger(dag_id, run_id=run_id)
        attempt = airflow.wait_attempt(dag_id, run_id, "job", 1)
        airflow.wait_until("the submit", lambda: remote.jobs(kind, run_id) == 1, 60, pause=0.01)
        airflow.kill_worker(attempt)
        deferral.refuse()
        return
    held = airflow.hold_record(run_id, "submitted")
    airflow.trigger(dag_id, run_id=run_id)
    held.wait_reached(60)
    airflow.kill_worker(airflow.wait_attempt(dag_id, run_id, "job", 1))
    held.refuse()


def _is_deferral(_: str, body: Any) -> bool:
    return isinstance(body, dict) and body.get("state") == "deferred"


def before_the_submit(airflow: Airflow, _: Remote, __: str, dag_id: str, run_id: str) -> None:
    """The intent is on its way to the store, nothing was sent to the service."""
    held = airflow.hold_record(run_id, "submitting")
    airflow.trigger(dag_id, run_id=run_id)
    held.wait_reached(60)
    airflow.kill_worker(airflow.wait_attempt(dag_id, run_id, "job", 1))
    held.refuse()


Scenario = Callable[[Airflow, Remote, str, str, str], None]
SCENARIOS: dict[str, Scenario] = {
    "in the wait": in_the_wait,
    "answer in flight": with_the_answer_in_flight,
    "right after the answer": right_after_the_answer,
    "before the submit": before_the_submit,
}

PLAN: list[tuple[str, str, str]] = [
    (whose, kind, scenario)
    for kind in ("databricks", "run_now", "emr", "databricks_deferrable", "emr_deferrable")
    for scenario in SCENARIOS
    for whose in ("ours", "theirs")
    if not (kind.endswith("deferrable") and scenario == "in the wait")  # no worker waits there
    if not (whose == "theirs" and scenario == "before the submit")  # nothing is kept before
    if not (kind.endswith("deferrable") and scenario == "before the submit")  # as in sync mode
]


def run_all(airflow: Airflow, remote: Remote, plan: list[tuple[str, str, str]], say: Callable[[str], None]) -> list[Outcome]:
    """Kill one worker after the other, then see all their retries through."""
    outcomes = []
    for whose, kind, scenario in plan:
        say(f"killing {whose} {kind}: {scenario}")
        outcome = Outcome(whose, kind, scenario, f"{whose}-{kind}-{scenario}".replace(" ", "-"))
        SCENARIOS[scenario](airflow, remote, kind, outcome.dag_id, outcome.run_id)
        outcomes.append(outcome)
    for o in outcomes:
        airflow.wait_attempt(o.dag_id, o.run_id, "job", 2, 120)
        airflow.wait_until("a job", lambda o=o: remote.jobs(o.kind, o.run_id) > 0, 60)
    for o in outcomes:
        say(f"retry of {o.whose} {o.kind}: {o.scenario}")
        _see_through(airflow, remote, o)
    return outcomes


def _see_through(airflow: Airflow, remote: Remote, o: Outcome) -> None:
    def ended() -> bool:
        if _has_settled(airflow, o):
            remote.finish(o.kind, o.run_id)
        return airflow.task(o.dag_id, o.run_id, "job")["state"] in ("success", "failed")

    airflow.wait_until(f"the end of {o}", ended, 180)
    row = airflow.task(o.dag_id, o.run_id, "job")
    o.state, o.tries = row["state"], row["try_number"]
    o.jobs, o.cancels = remote.jobs(o.kind, o.run_id), remote.cancels(o.kind, o.run_id)
    o.log = airflow.log(o.dag_id, o.run_id, "job", o.tries)
    o.xcoms = airflow.xcoms(o.dag_id, o.run_id, "job")
    # a link is pushed after the end has been reported
    airflow.wait_until("the links", lambda: all(airflow.links(o.dag_id, o.run_id, "job").values()), 20)
    o.links = airflow.links(o.dag_id, o.run_id, "job")
    o.record = airflow.state_store(o.dag_id, o.run_id, "job").get("resumable", {})


def _has_settled(airflow: Airflow, o: Outcome) -> bool:
    """The second attempt has submitted or reattached: its log says so, in our words or the provider's."""
    log = airflow.log(o.dag_id, o.run_id, "job", 2)
    return bool(re.search(r"resumable: (reattached|submitted|no new)|Run submitted|Reconnecting|added to JobFlow", log))
