"""Carries a plan out on a real Airflow: one thread that looks at everything and lets each task's script go on."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.airflow.attempts import read_attempts
from tests.airflow.harness import Airflow, HarnessError
from tests.airflow.processes import task_process
from tests.airflow.triggerers import another_triggerer, frozen
from tests.services import Hold
from tests.soak.cloud import Cloud, Job
from tests.soak.edits import edit
from tests.soak.oracle import Ledger
from tests.soak.plan import STALL, Disruption, Key, Plan

TICK = 0.2
SUBMIT = {"databricks": "runs/submit", "emr": "AddJobFlowSteps"}
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
QUEUEING = ("None", "scheduled", "queued")
LATEST = 12.0
"""Seconds for which a submit may be held and still reach EMR: its operator looks for the job for 20 s after its intent."""
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL in an eviction; Kubernetes gives 30."""
ORPHAN_SECONDS = 60.0
"""How long a job runs that no task waits for."""
TERMINAL_PATIENCE = 15.0
SWEEP_SECONDS = 75.0
"""What a user's stop of a task that no process holds may take: ``[resumable] sweep_delay``, the start of a process on a busy
machine, and one repetition. Until then its job is not ended as one that nobody waits for."""

THROTTLED = 3
"""Requests in a row that are too many."""
STALL_SECONDS = 20.0
"""Longer than `tests.soak.run.TRIGGERER_SECONDS`, with a margin for a busy machine."""

Script = Iterator[None]


class Stuck(Exception):
    """What a script waits for does not come."""


@dataclass
class Task:
    """One task instance as it was seen last."""

    key: Key
    ledger: Ledger
    row: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    since: float = 0.0  # when the row was first seen like this
    is_busy: bool = False  # with what a user did
    number: int = 0  # of the attempt that was struck last
    holds: list[Hold] = field(default_factory=list)
    script: Script | None = None

    @property
    def state(self) -> str:
        return str(self.row.get("state"))

    @property
    def active(self) -> list[Job]:
        return [job for job in self.jobs if job.is_active]

    @property
    def process(self) -> Any:
        return task_process(self.attempts[-1]) if self.attempts else None

    def see(self, row: dict[str, Any]) -> None:
        def face(one: dict[str, Any]) -> tuple[Any, ...]:
            return one.get("state"), one.get("id"), one.get("try_number")

        if face(row) != face(self.row):
            self.since = time.time()
        self.row = row


class Conductor:
    """
    Args:
        dag_id: "ours" or "theirs".
        patience: seconds that a script waits for one thing while its task is not waiting for a worker.
        limit: seconds for the whole plan.
        job_seconds: how long jobs run at least, and how much longer at most, by the seed.
    """

    def __init__(
        self,
        airflow: Airflow,
        cloud: Cloud,
        plan: Plan,
        dag_id: str,
        say: Callable[[str], None],
        *,
        patience: float = 120.0,
        limit: float = 840.0,
        job_seconds: tuple[float, float] = (10.0, 10.0),
    ) -> None:
        self.airflow, self.cloud, self.plan, self.dag_id, self._say = airflow, cloud, plan, dag_id, say
        self._patience, self._job_seconds, self._limit = patience, job_seconds, limit
        self._is_strict = dag_id != "theirs"
        self.tasks = {key: Task(key, Ledger(str(key))) for key in plan.tasks}
        self.struck: Counter[str] = Counter()
        self.edits: dict[str, str] = {}
        self.graces_over = 0
        self._restarts = list(plan.restarts)
        self._calm = 0.0  # when a service was restarted last
        self._began = self._told = time.monotonic()
        self._paused = 0.0
        self._looks: dict[Any, list[float]] = {}
        self._beats: dict[str, float] = {}
        self._read = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    # -- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> list[Task]:
        for task in self.tasks.values():
            task.script = self._script(task)
            next(task.script)  # what must be there before the first attempt
        cancels = self.cloud.cancel_requests()
        self.run_id = self.airflow.trigger(self.dag_id, run_id=f"soak-{self.plan.seed}")
        try:
            while any(task.script for task in self.tasks.values()):
                self._look()
                for task in self.tasks.values():
                    self._advance(task)
                self._restart_if_due()
                if time.monotonic() > self._told + 5:
                    self._tell()
                time.sleep(TICK)
            self._look()
            self._wait_for_orphans()
        finally:
            self._tell()
        self.cancel_requests = self.cloud.cancel_requests() - cancels
        for task in self.tasks.values():
            self._close(task)
        return list(self.tasks.values())

    def _look(self) -> None:
        self.cloud.progress()
        self._looks = self.cloud.looks()
        self._hear_heartbeats()
        jobs = self.cloud.jobs()
        attempts: dict[Key, list[dict[str, Any]]] = {}
        for one in read_attempts(self.airflow.home / "attempts.jsonl"):
            if (one["dag_id"], one["run_id"]) == (self.dag_id, self.run_id):
                attempts.setdefault(Key(one["task_id"], one["map_index"]), []).append(one)
        for row in self._rows():
            if (task := self.tasks.get(Key(row["task_id"], row["map_index"]))) is not None:
                task.see(row)
                task.attempts = attempts.get(task.key, [])
                task.jobs = jobs.get(task.key.job_name(self.dag_id), [])
                self._end_orphans(task)

    def _rows(self) -> Iterator[dict[str, Any]]:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances"
        seen = 0
        while page := self.airflow.call("GET", path, params={"limit": 100, "offset": seen})["task_instances"]:
            yield from page
            seen += len(page)
            if len(page) < 100:
                return

    def _hear_heartbeats(self) -> None:
        journal = self.airflow.proxy.journal
        for request in journal[self._read :]:
            if request.path.endswith("/heartbeat") and request.status is not None and 200 <= request.status < 300:
                self._beats[request.path.split("/")[-2]] = request.time
        self._read = max(self._read, len(journal) - 20)  # the last ones may still lack their answer

    def _advance(self, task: Task) -> None:
        if task.script is None:
            return
        try:
            next(task.script)
        except StopIteration:
            task.script = None
        except (Stuck, HarnessError) as e:
            task.ledger.stuck, task.is_busy = task.ledger.stuck or str(e), False
            self._say(f"{task.key}: {e}")
            for hold in task.holds:
                hold.release()
            if self.seconds > self._limit + 60:
                task.script = None
                return
            task.script = self._see_through(task)

    def _restart_if_due(self) -> None:
        before = time.monotonic()
        if ended := self.airflow.start_what_has_ended():  # Airflow's scheduler does, where SQLite lets two write one row
            self._say(f"{', '.join(ended)} had ended by itself, and was started again")
            self._calm, self._paused = time.time(), self._paused + time.monotonic() - before
        if not self._wants_restart or any(task.is_busy for task in self.tasks.values()):
            return
        _, name = self._restarts.pop(0)
        what = name if name == STALL else f"restart of the {name}"
        self._say(what)
        before = time.monotonic()
        if name == STALL:
            self._stall()
        else:
            self.airflow.restart(name)
        self._calm, self._paused = time.time(), self._paused + time.monotonic() - before
        self.struck[what] += 1

    @property
    def _wants_restart(self) -> bool:
        """A restart waits until what users did has been taken in, and users wait for the restart."""
        strikes = sum(n for what, n in self.struck.items() if not what.startswith("restart") and what != STALL)
        return bool(self._restarts) and strikes >= self._restarts[0][0]

    def _tell(self) -> None:
        self._told = time.monotonic()
        tasks = self.tasks.values()
        asked, jobs = sum(t.ledger.asked for t in tasks), sum(len(t.jobs) for t in tasks)
        self._say(
            f"{self.struck.total()} of {self.plan.size} disruptions, {sum(t.script is None for t in tasks)} of {len(tasks)} tasks"
            f" through; jobs: {jobs} submitted, {asked} asked for, {sum(len(t.active) for t in tasks)} running"
        )

    # -- scripts ------------------------------------------------------------------------------------------------------

    def _script(self, task: Task) -> Script:
        """Everything that happens to a task, in order."""
        disruptions = self.plan.tasks[task.key]
        self._plant(task, disruptions[0] if disruptions else None)
        yield
        for disruption, following in zip(disruptions, [*disruptions[1:], None], strict=False):
            yield from self._carry_out(task, disruption, following)
        yield from self._see_through(task)

    def _plant(self, task: Task, disruption: Disruption | None) -> bool:
        """Hold the next submit, if that is when the disruption comes. To be called before anything leads to that submit."""
        if disruption is None or not disruption.is_in_the_submit:
            return False
        hold = Hold(before_effect=disruption.when != "answer")
        task.holds.append(hold)
        self.cloud.service(task.key).fault(SUBMIT[task.key.service], hold, text=task.key.job_name(self.dag_id))
        return True

    def _carry_out(self, task: Task, disruption: Disruption, following: Disruption | None) -> Script:
        if disruption.is_in_the_submit:
            yield from self._in_the_submit(task, disruption, task.holds[-1])
        elif disruption.what in _ORDINARY:
            yield from _ORDINARY[disruption.what](self, task, disruption)
        elif disruption.when == "report":
            yield from self._before_the_report(task, disruption)
        elif disruption.what == "clear":
            yield from self._clear(task, disruption, following)
        elif disruption.what in ("SIGTERM", "SIGKILL"):
            yield from self._in_the_wait(task, disruption)
        else:
            yield from self._mark(task, disruption)

    def _in_the_submit(self, task: Task, disruption: Disruption, hold: Hold) -> Script:
        yield from self._until_held(task, "its submit", hold)
        # of one that died in a restart the request may have been held for long
        is_late = disruption.when == "late" and task.process is not None
        try:
            yield from self._strike(task, disruption)
        finally:
            # on a busy machine this may come later than EMR's lookup waits for, which is the window that it has
            hold.release(drop=not is_late or time.monotonic() - hold.reached_at > LATEST)
        yield from self._next_attempt(task)

    def _in_the_wait(self, task: Task, disruption: Disruption) -> Script:
        yield from self._until(task, "somebody to watch its job", lambda: self._is_watched(task))
        if not self._polls(task):  # a process is there for a moment only: keep it in its look at the job
            hold = Hold()
            task.holds.append(hold)
            self.cloud.service(task.key).fault("*", hold, text=str(task.active[0].ids[0]))
            yield from self._until_held(task, "a look", hold)
            try:
                yield from self._strike(task, disruption)
            finally:
                hold.release(drop=True)
        else:
            yield from self._strike(task, disruption)
        yield from self._next_attempt(task)

    def _before_the_report(self, task: Task, disruption: Disruption) -> Script:
        """The job is done and its result is there; the worker dies before Airflow knows."""
        yield from self._until_watched(task)
        task.is_busy = True  # a stall in between would take longer than the worker waits for its request
        held = self.airflow.proxy.hold("PATCH", r"/state$", where=lambda path, body: _is_success_of(task, path, body))
        self._finish(task)
        yield from self._until(task, "its report", lambda: held.request is not None)
        yield from self._strike(task, disruption)
        held.refuse()
        task.is_busy = False
        yield from self._next_attempt(task)
        yield from self._see_through(task)

    # -- ordinary life

    def _until_watched(self, task: Task) -> Script:
        yield from self._until(task, "somebody to watch its job", lambda: not self._wants_restart and self._is_watched(task))

    def _job_fails(self, task: Task, disruption: Disruption) -> Script:
        """While somebody looks: that costs a try, and the next one has a job of its own."""
        yield from self._until_watched(task)
        job, jobs = task.active[-1], len(task.jobs)
        self._note(task, disruption)
        task.ledger.failed.append(str(job.id))
        task.ledger.asked += 1
        self.cloud.fail(job, in_part=disruption.what.startswith("part"))
        yield from self._until(task, "the job after it", lambda: len(task.jobs) > jobs)

    def _unseen(self, task: Task, disruption: Disruption) -> Script:
        """The job ends after its worker has died, and before the next attempt looks at it."""
        yield from self._until_watched(task)
        job, jobs = task.active[-1], len(task.jobs)
        yield from self._strike(task, Disruption("SIGKILL", "wait"), said=disruption)
        if disruption.what == "job fails unseen":
            task.ledger.failed.append(str(job.id))
            task.ledger.asked += 1
            self.cloud.fail(job)
            yield from self._until(task, "the job after it", lambda: len(task.jobs) > jobs)
        else:
            self.cloud.finish(job)
            yield from self._next_attempt(task)
            yield from self._see_through(task)

    def _wrong_answers(self, task: Task, disruption: Disruption) -> Script:
        """Which change nothing."""
        yield from self._until_watched(task)
        self._note(task, disruption)
        if disruption.what == "throttle":
            self.cloud.throttle(task.key, task.active[-1], THROTTLED)
        else:
            self.cloud.deny(task.key, task.active[-1])
        since = time.time()
        yield from self._until(task, "another look", lambda: self._is_looked_at(task, since) and self._is_watched(task))

    def _edit(self, task: Task, disruption: Disruption) -> Script:
        """The author changes the job; then its worker dies. The next attempt stops the job, and submits what is wanted now."""
        yield from self._until_watched(task)
        job, jobs = task.active[-1], len(task.jobs)
        self.edits[str(task.key)] = f"/edited/{sum(self.struck.values())}"
        edit(self.airflow.dags / "soak.py", self.edits)
        task.ledger.stops.setdefault(str(job.id), time.time())
        task.ledger.asked += 1
        yield from self._strike(task, Disruption("SIGKILL", "wait"), said=disruption)
        yield from self._until(task, "the job that the author wants now", lambda: len(task.jobs) > jobs)

    def _stall(self) -> None:
        """
        A triggerer stands still until another one has taken its triggers over, then it goes on.

        Airflow 3.3.0 to 3.3.2 then tell it to stop these triggers, as after a user's click.
        """
        with another_triggerer(self.airflow):
            with frozen(self.airflow):
                time.sleep(STALL_SECONDS)
            time.sleep(STALL_SECONDS / 2)

    def _strike(self, task: Task, disruption: Disruption, said: Disruption | None = None) -> Script:
        attempt = task.attempts[-1]
        task.number = len(task.attempts)
        self._note(task, said or disruption)
        with suppress(HarnessError):  # a restart of the scheduler was quicker
            if disruption.what == "SIGKILL":
                self.airflow.kill_worker(attempt)
            else:
                self.airflow.signal_worker(attempt, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while task_process(attempt) is not None:
            if time.monotonic() > until:
                self.graces_over += 1
                until += GRACE
                with suppress(HarnessError):
                    self.airflow.kill_worker(attempt)
                self.airflow.kill_orphan(attempt)
            yield

    def _next_attempt(self, task: Task) -> Script:
        yield from self._until(task, f"attempt {task.number + 1}", lambda: len(task.attempts) > task.number)

    def _mark(self, task: Task, disruption: Disruption) -> Script:
        yield from self._until(task, "somebody to watch its job", lambda: not self._wants_restart and self._is_watched(task))
        self._stop_by_user(task)
        self._note(task, disruption)
        self.airflow.mark(self.dag_id, self.run_id, task.key.task_id, disruption.what, task.key.index)
        task.ledger.expected, task.ledger.is_marked = disruption.what, True
        is_over = lambda: task.process is None and not (self._is_strict and task.active)
        yield from self._until(task, "the end of its job", is_over, ends=True)
        task.is_busy = False

    def _clear(self, task: Task, disruption: Disruption, following: Disruption | None) -> Script:
        if disruption.when == "done":
            yield from self._see_through(task)
        elif disruption.when == "wait":
            yield from self._until(task, "somebody to watch its job", lambda: not self._wants_restart and self._is_watched(task))
        yield from self._until(task, "its turn", lambda: not self._wants_restart, ends=True)
        attempts, jobs = len(task.attempts), len(task.jobs)
        self._stop_by_user(task)
        self._note(task, disruption)
        is_held = self._plant(task, following)
        self.airflow.clear(self.dag_id, self.run_id, [(task.key.task_id, task.key.index)])
        task.ledger.asked += 1
        task.ledger.expected, task.ledger.is_marked = "success", False
        yield from self._until(task, "the attempt after the clear", lambda: len(task.attempts) > attempts)
        if self._is_strict and not is_held:
            yield from self._until(task, "the job after the clear", lambda: len(task.jobs) > jobs)
        task.is_busy = False

    def _stop_by_user(self, task: Task) -> None:
        task.is_busy = True
        for job in task.active:
            task.ledger.stops.setdefault(str(job.id), time.time())

    def _see_through(self, task: Task) -> Script:
        """Let the job end, and the task with it."""
        draw = random.Random(f"{self.plan.seed} {task.key}")
        least, more = self._job_seconds
        age = least + draw.uniform(0, more)
        if task.ledger.expected == "success":
            yield from self._until(task, "its end", lambda: self._is_through(task, age), ends=True)
            self._deliver(task)

    def _is_through(self, task: Task, age: float) -> bool:
        if task.state in ENDED:
            return task.process is None
        self._finish(task, age)
        return False

    def _finish(self, task: Task, age: float = 0.0) -> None:
        for job in task.active:
            if job.age >= age:
                self.cloud.finish(job)

    def _deliver(self, task: Task) -> None:
        if task.state == "success" and (result := self._result(task)) is not None:
            known = task.ledger.delivered
            known += [job.id for job in task.jobs if job.id == result and job.end == "success" and job.id not in known]

    def _result(self, task: Task) -> Any:
        xcoms = self.airflow.xcoms(self.dag_id, self.run_id, task.key.task_id, task.key.index)
        return xcoms.get("run_id" if task.key.service == "databricks" else "return_value")

    # -- what scripts ask ---------------------------------------------------------------------------------------------

    def _until(self, task: Task, what: str, is_so: Callable[[], bool], *, ends: bool = False) -> Script:
        """
        Give way until it is so, at least once.

        Args:
            ends: the task may have ended. If not, an end means that it will never be so.
        """
        waited, last = 0.0, self.seconds - self._paused
        while True:
            yield
            if is_so():
                return
            now = self.seconds - self._paused
            waited, last = waited + (now - last if task.state not in QUEUEING else 0.0), now
            has_ended = task.state in ENDED and time.time() - max(task.since, self._calm) > TERMINAL_PATIENCE and not ends
            if waited > self._patience or has_ended or self.seconds > self._limit:
                tail = f"{task.key} is {task.state} at try {task.row.get('try_number')}, attempt {len(task.attempts)}"
                raise Stuck(f"waited {waited:.0f} s for {what}; {tail}")

    def _until_held(self, task: Task, what: str, hold: Hold) -> Script:
        yield from self._until(task, what, lambda: _is_reached(hold))
        yield  # the attempt that is held was noted before, perhaps after the last look

    def _polls(self, task: Task) -> bool:
        return task.key.mode == "poll" or (task.key.mode == "reschedule" and self.dag_id == "theirs")

    def _is_watched(self, task: Task) -> bool:
        """A process looks at the job, so that a signal or a user's stop finds somebody to tell."""
        if not task.active:
            return False
        if self._polls(task):
            calm = self._calm
            return (
                task.state == "running"
                and task.process is not None
                and self._is_looked_at(task, max(calm, task.attempts[-1]["time"]))
                and self._beats.get(str(task.row["id"]), 0.0) > calm
            )
        if task.key.mode == "deferrable":
            return task.state == "deferred" and self._is_looked_at(task, max(self._calm, task.since))
        return task.state == "up_for_reschedule"

    def _is_looked_at(self, task: Task, since: float) -> bool:
        return any(sum(at > since for at in self._looks.get(one, ())) >= 2 for job in task.active[-1:] for one in job.ids)

    def _note(self, task: Task, disruption: Disruption) -> None:
        self.struck[str(disruption)] += 1
        self._say(f"{task.key}: {disruption}, {task.state} at try {task.row.get('try_number')}, attempt {len(task.attempts)}")

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end_orphans(self, task: Task) -> None:
        """A job that no task waits for comes to its end as any other would."""
        for job in task.active:
            if time.time() - task.ledger.stops.get(str(job.id), 0.0) < SWEEP_SECONDS:
                continue
            has_ended = task.state in ENDED and time.time() - task.since > TERMINAL_PATIENCE
            is_replaced = job is not task.jobs[-1] and task.jobs[-1].age > TERMINAL_PATIENCE
            if (has_ended or is_replaced) and job.age > ORPHAN_SECONDS:
                self.cloud.finish(job)

    def _wait_for_orphans(self) -> None:
        until = time.monotonic() + max(ORPHAN_SECONDS, SWEEP_SECONDS) + 30
        while any(task.active for task in self.tasks.values()) and time.monotonic() < until:
            time.sleep(1)
            self._look()

    def _close(self, task: Task) -> None:
        ledger, key = task.ledger, task.key
        ledger.state, ledger.tries = task.state, int(task.row.get("try_number") or 0)
        ledger.result = self._result(task)
        record = self.airflow.state_store(self.dag_id, self.run_id, key.task_id, key.index).get("resumable") or {}
        job = record.get("job") or {}
        ledger.recorded = job.get("run_id") if key.service == "databricks" else job.get("steps")


_ORDINARY: dict[str, Callable[[Conductor, Task, Disruption], Script]] = {
    "job fails": Conductor._job_fails,
    "part of the job fails": Conductor._job_fails,
    "job fails unseen": Conductor._unseen,
    "job ends unseen": Conductor._unseen,
    "throttle": Conductor._wrong_answers,
    "wrong 404": Conductor._wrong_answers,
    "edit": Conductor._edit,
}


def _is_reached(hold: Hold) -> bool:
    with suppress(TimeoutError):
        hold.wait_reached(0)
        return True
    return False


def _is_success_of(task: Task, path: str, body: Any) -> bool:
    return str(task.row.get("id")) in path and isinstance(body, dict) and body.get("state") == "success"
