"""
Whatever happens in whatever order, a task has one job, and its result is that job's.

Several processes of one task instance live at once. Each stops before every call that it makes to the store
or to the service; the machine picks who goes on, who dies and what breaks, and the claims of `World.check`
are looked at after every single call.

What the claims leave out, in full:

- FIND only: a submit that the service takes up, or lists, ``settle`` seconds or more after its intent was
  written. Such a request is dropped here (its process dies first). It is the window of class C: a process
  frozen between intent and request, another one that looks the token up meanwhile and believes the answer
  "none".
- A store that does not fence writes reads the owner and then writes; nothing comes between the two here. A
  real one has that gap, one that fences (Airflow 3.3) does not. Nor does a process sleep there before its
  first read (it could not tell that it is old; a known gap, see test_attempt.py).
- A forgotten job is one that has ended. A service that says "no such job" of one that runs gets a second
  one.
- A token is known to its service for good (RESEND), also after the job was forgotten.
- A service that has taken a submit does not refuse its repetition (`REFUSES_REPETITIONS`; a known gap, see
  test_attempt.py).
- Under on_clear=reattach, a job of an earlier generation may be of an earlier spec, and its result is then
  delivered.
- The author's edits go forward: a spec does not come back within one history.
- Nobody stops the task here (marks it failed, times it out): see test_attempt.py for a job that is told to
  stop.
- Parameters can be recorded (no secret in them, small).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from resumable import errors
from resumable.attempt import Attempt
from resumable.errors import JobGoneError, LostSightError, StateStoreError
from resumable.identity import Generation
from resumable.lifecycle import Certainty, JobState
from resumable.policy import OnClear
from resumable.stores import SupersededError
from tests.support.fake_service import (
    Clock,
    FakeService,
    Fault,
    FaultyStore,
    FencedStore,
    Job,
    JobFailedError,
    LostAnswerError,
    RefusedSubmitError,
    new_attempt,
    start,
    watch,
)
from tests.support.specs import written

SETTLE = 20.0
RETRIES = 1
REFUSES_REPETITIONS = False
PATIENCE = 2000
"""Calls that a process may make before it is taken for one that never ends."""

ENDED = (JobState.SUCCEEDED, JobState.FAILED)

EXPECTED = (
    *(LostAnswerError, RefusedSubmitError, JobFailedError),
    *(errors.JobFailedError, JobGoneError, StateStoreError, LostSightError),
)
"""What a try may fail with in this world; another try helps with each."""


class DiedError(BaseException):
    """SIGKILL: whatever the process does afterwards has no effect."""


class Process:
    """One attempt in a thread of its own, that stops before each of its calls until it is told to go on."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.number = world, number
        self.spec, self.generation = world.spec, world.generation
        self.at, self.done, self.dead = "birth", False, False
        self.error: BaseException | None = None
        self.result: int | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.attempt = self._attempt()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._stopped.acquire()

    # -- what the machine does with it

    @property
    def is_current(self) -> bool:
        return self.world.current is self

    @property
    def is_watching(self) -> bool:
        return self.at == "poll"

    def go_on(self) -> None:
        """Run to the next call, or to the end."""
        self._go.release()
        self._stopped.acquire()

    def die(self) -> None:
        self.dead = True
        while not self.done:
            self.go_on()

    # -- what it does itself

    def stop_before(self, call: str) -> None:
        self._check_alive()
        self.at = call
        self._stopped.release()
        self._go.acquire()
        self._check_alive()

    def sleep(self, seconds: float) -> None:
        self._check_alive()
        self.world.clock.sleep(seconds)

    def _check_alive(self) -> None:
        if self.dead:
            raise DiedError

    def _run(self) -> None:
        self._go_first()
        try:
            service = ServiceOf(self)
            start(self.attempt, service, {"spec": self.spec})
            self.at = "watch"
            self.result = watch(self.attempt, Polled(self))
        except BaseException as e:
            self.error = e
        self.done = True
        self._stopped.release()

    def _go_first(self) -> None:
        self._stopped.release()
        self._go.acquire()

    def _attempt(self) -> Attempt:
        world = self.world
        return new_attempt(
            ServiceOf(self),
            StoreOf(self) if world.fenced else UnfencedStoreOf(self),
            generation=self.generation,
            spec=written(f"spec-{self.spec}"),
            sleep=self.sleep,
            try_number=self.number,
            on_clear=world.on_clear,
        )


class ServiceOf:
    """The service as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process, self._service = process, process.world.service
        self.certainty, self.clock = self._service.certainty, self._service.clock

    def submit(self, token: str, params: Any) -> int:
        process, world = self._process, self._process.world
        process.stop_before("submit")
        intent = process.attempt.record
        assert intent is not None
        late = world.clock.now + self._service.lag >= intent.intended_at + SETTLE
        if self.certainty is Certainty.FIND and late:
            process.dead = True  # the window that is left out, see above
            raise DiedError
        known = len(self._service.jobs)
        if not (process.attempt.is_first_submit or REFUSES_REPETITIONS):
            self._service.faults.disarm("submit", Fault.REFUSED)
        try:
            return self._service.submit(token, params)
        finally:
            for job in self._service.jobs[known:]:
                job.notes.update(generation=intent.generation.max_tries, spec=params["spec"], ours=True)

    def observe(self, job_id: int) -> Any:
        self._process.stop_before("observe")
        return self._service.observe(job_id)

    def find(self, token: str) -> int | None:
        self._process.stop_before("find")
        return self._service.find(token)

    def cancel(self, job_id: int) -> None:
        self._process.stop_before("cancel")
        self._service.cancel(job_id)
        self._process.world.cancelled_by(self._process, job_id)


class Polled(ServiceOf):
    """The same, while it waits for the job: UNKNOWN and errors are waited out, as providers do."""

    def observe(self, job_id: int) -> Any:
        while True:
            self._process.stop_before("poll")
            try:
                return self._service.observe(job_id)
            except LostAnswerError:
                continue


class StoreOf(FencedStore):
    """Airflow 3.3's task state, as one process reaches it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.store, lambda: process.is_current)
        self._process = process

    def get(self, key: str) -> Any:
        self._process.stop_before("get")
        return super().get(key)

    def set(self, key: str, value: Any) -> None:
        self._process.stop_before("set")
        super().set(key, value)


class UnfencedStoreOf:
    """A store that keeps out nobody: the library has to."""

    fences_writes = False

    def __init__(self, process: Process) -> None:
        self._process, self._store = process, process.world.store
        self._has_read = False

    def get(self, key: str) -> Any:
        if self._has_read:
            self._process.stop_before("get")
        self._has_read = True
        return self._store.get(key)

    def set(self, key: str, value: Any) -> None:
        self._process._check_alive()
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        self._store.delete(key)


class World:
    """The task instance as Airflow has it, its processes, store and service; and what must hold of them."""

    def __init__(self, certainty: Certainty, *, fenced: bool, on_clear: str, lag: float, looks_to_stop: int) -> None:
        self.clock = Clock()
        self.service = FakeService(certainty, self.clock, lag=lag, looks_to_stop=looks_to_stop)
        self.store = FaultyStore()
        self.fenced, self.on_clear = fenced, on_clear
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.wants_run, self.tries, self.spec = True, 0, 0
        self.max_tries, self.clear_number = RETRIES, 0
        self.lost_results: set[int] = set()
        for token in ("0" * 48, "f" * 48):
            self.service.submit(token, {"spec": -1})
        for stranger in self.service.jobs:
            stranger.notes.update(generation=None, spec=-1, ours=False)

    # -- Airflow

    @property
    def generation(self) -> Generation:
        return Generation(self.max_tries, self.clear_number, "2026-01-01T00:00:00+00:00", RETRIES)

    def start(self) -> None:
        self.tries += 1
        self.wants_run = False
        # set before it is born: a process may reach for the store at once
        self.current = None
        self.current = process = Process(self, self.tries)
        self.processes.append(process)
        if not self.fenced:
            self.step(process)  # past its first read, see above

    def clear(self) -> None:
        self.max_tries, self.clear_number = self.tries + RETRIES, self.clear_number + 1
        self.current, self.wants_run = None, True

    def give_up_on_current(self) -> None:
        """The heartbeat stopped: the process lives on as a zombie."""
        self.current, self.wants_run = None, True

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.done]

    def step(self, process: Process) -> None:
        process.go_on()
        self.check()
        if process.done:
            self._ended(process)

    def run(self, process: Process) -> None:
        """Let it go on until it ends, or waits for a job that runs."""
        for _ in range(PATIENCE):
            if process.done or (process.is_watching and self._shows_no_end(process)):
                return
            self.step(process)
        raise AssertionError(f"{process.number} does not come to an end: {process.at}")

    def kill(self, process: Process) -> None:
        process.die()
        if process.is_current:
            self.current, self.wants_run = None, True
        self.check()

    def _ended(self, process: Process) -> None:
        zombie = not process.is_current
        if process.result is not None:
            self._check_result(process)
        elif not isinstance(process.error, (*EXPECTED, DiedError)):
            assert isinstance(process.error, SupersededError), f"unexpected: {process.error!r}"
            # Without a fence an old process may write once more, before the new one's first write.
            assert zombie or not self.fenced, f"the owner was taken for a zombie: {process.error!r}"
        if not zombie:
            self.current = None
            self.wants_run = process.result is None

    # -- what must hold

    def check(self) -> None:
        active = self.active
        assert len(active) <= 1, f"{len(active)} jobs at once: {active}"
        self._check_nothing_is_run_twice()
        for process in self.processes:
            handle = process.attempt.handle
            assert handle is None or self.service.jobs[handle.ids].notes["ours"], f"a stranger's job: {handle}"

    def _check_nothing_is_run_twice(self) -> None:
        ours = [job for job in self.service.jobs if job.notes["ours"] and job.verdict is JobState.SUCCEEDED]
        seen = [(job.notes["generation"], job.notes["spec"]) for job in ours if job.id not in self.lost_results]
        assert len(seen) == len(set(seen)), f"a job that had succeeded was run again: {ours}"

    def _check_result(self, process: Process) -> None:
        assert process.result is not None
        job = self.service.jobs[process.result]
        assert job.verdict is JobState.SUCCEEDED, f"delivered {job}"
        if self.on_clear == OnClear.REATTACH.value and job.notes["generation"] != process.generation.max_tries:
            return
        assert job.notes["spec"] == process.spec, f"spec {process.spec} got the result of {job}"
        assert job.notes["generation"] == process.generation.max_tries, f"{process.generation} got the result of {job}"

    def cancelled_by(self, process: Process, job_id: int) -> None:
        current = self.current
        if current is not None and current is not process and current.attempt.handle is not None:
            assert current.attempt.handle.ids != job_id, f"a zombie cancelled the job that is watched: {job_id}"

    @property
    def active(self) -> list[Job]:
        """The jobs of this task that run."""
        return [job for job in self.service.active() if job.notes["ours"]]

    def _shows_no_end(self, process: Process) -> bool:
        job = self._job_of(process)
        return job.unseen or job.verdict is JobState.ACTIVE

    def mend(self) -> None:
        self.service.faults.heal()
        self.store.faults.heal()
        for job in self.service.jobs:
            job.unseen = False

    def _job_of(self, process: Process) -> Job:
        assert process.attempt.handle is not None
        job: Job = self.service.jobs[process.attempt.handle.ids]
        return job

    # -- the end

    def bring_to_an_end(self) -> None:
        """Once nothing breaks any more, a few tries must do."""
        self.mend()
        for process in self.alive:
            if not process.is_current:
                self.kill(process)
        for _ in range(6):
            if self.current is None:
                if not self.wants_run:
                    return
                self.start()
            process = self.current
            assert process is not None
            self.run(process)
            if not process.done:
                self._job_of(process).verdict = JobState.SUCCEEDED
                self.run(process)
        assert not self.wants_run, f"no try ends well: {[p.error for p in self.processes]}"

    def bury(self) -> None:
        for process in self.alive:
            process.die()


FAULTS = {
    "submit": (Fault.LOST_ANSWER, Fault.UNREACHABLE, Fault.REFUSED),
    "observe": (Fault.UNREACHABLE,),
    "find": (Fault.UNREACHABLE,),
    "cancel": (Fault.LOST_ANSWER, Fault.UNREACHABLE),
    "get": (Fault.UNREACHABLE,),
    "set": (Fault.LOST_ANSWER, Fault.UNREACHABLE),
}
ARMED = [(call, fault) for call, faults in FAULTS.items() for fault in faults]


class TaskLife(RuleBasedStateMachine):
    """One task instance through crashes, retries, clears and zombies."""

    certainty = Certainty.RESEND
    fenced = True
    world: World | None = None

    @initialize(
        on_clear=st.sampled_from([policy.value for policy in OnClear]),
        lag=st.sampled_from([0.0, 15.0]),
        looks_to_stop=st.sampled_from([0, 1, 5]),
    )
    def begin(self, on_clear: str, lag: float, looks_to_stop: int) -> None:
        self.world = World(self.certainty, fenced=self.fenced, on_clear=on_clear, lag=lag, looks_to_stop=looks_to_stop)

    @precondition(lambda self: self.world.wants_run)
    @rule(steps=st.none() | st.integers(0, 12))
    def start(self, steps: int | None) -> None:
        self.world.start()
        if steps is None:
            self.world.run(self.world.current)
        else:
            self._step(self.world.current, steps)

    @precondition(lambda self: self.world.current)
    @rule(zombie=st.booleans())
    def retry_on_another_worker(self, zombie: bool) -> None:
        if zombie:
            self.world.give_up_on_current()
        else:
            self.world.kill(self.world.current)
        self.world.start()
        self.world.run(self.world.current)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data(), steps=st.integers(1, 6))
    def go_on(self, data: st.DataObject, steps: int) -> None:
        self._step(data.draw(st.sampled_from(self.world.alive), label="process"), steps)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def run(self, data: st.DataObject) -> None:
        self.world.run(data.draw(st.sampled_from(self.world.alive), label="process"))

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.world.kill(data.draw(st.sampled_from(self.world.alive), label="process"))

    @precondition(lambda self: self.world.current)
    @rule()
    def lose_the_heartbeat(self) -> None:
        self.world.give_up_on_current()

    @precondition(lambda self: self.world.tries)
    @rule()
    def clear(self) -> None:
        self.world.clear()

    @rule()
    def clear_a_sibling(self) -> None:
        self.world.clear_number += 1

    @rule()
    def edit_the_spec(self) -> None:
        self.world.spec += 1

    @precondition(lambda self: self.world.active)
    @rule(data=st.data(), verdict=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.FAILING]))
    def job_ends(self, data: st.DataObject, verdict: JobState) -> None:
        job = data.draw(st.sampled_from(self.world.active), label="job")
        job.verdict = verdict if job.verdict is JobState.ACTIVE else JobState.FAILED

    @precondition(lambda self: self._forgettable())
    @rule(data=st.data())
    def job_is_forgotten(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self._forgettable()), label="job")
        job.forgotten = True
        self.world.lost_results.add(job.id)

    @precondition(lambda self: self.world.active)
    @rule(data=st.data())
    def job_goes_out_of_sight(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.world.active), label="job").unseen = True

    @rule(armed=st.sampled_from(ARMED), times=st.sampled_from([1, 1, 2, 5, 14]))
    def break_something(self, armed: tuple[str, Fault], times: int) -> None:
        call, fault = armed
        side = self.world.store if call in ("get", "set") else self.world.service
        side.faults.arm(call, fault, times)

    @rule()
    def mend_everything(self) -> None:
        self.world.mend()

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def teardown(self) -> None:
        if self.world is not None:
            try:
                self.world.bring_to_an_end()
            finally:
                self.world.bury()

    def _step(self, process: Process, steps: int) -> None:
        for _ in range(steps):
            if process.done:
                return
            self.world.step(process)

    def _forgettable(self) -> list[Job]:
        return [job for job in self.world.service.jobs if job.verdict in ENDED and not job.forgotten]


class TaskLifeUnfenced(TaskLife):
    """The same over a store that fences nothing."""

    fenced = False


class TaskLifeFind(TaskLife):
    """The same with a service that knows no tokens, and lists its jobs."""

    certainty = Certainty.FIND


class TaskLifeFindUnfenced(TaskLifeFind):
    """The same over a store that fences nothing."""

    fenced = False


SETTINGS = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def _case(machine: type[TaskLife]) -> Callable[..., Any]:
    case = machine.TestCase
    case.settings = SETTINGS
    return case


TestOneJobResend = _case(TaskLife)
TestOneJobResendUnfenced = _case(TaskLifeUnfenced)
TestOneJobFind = _case(TaskLifeFind)
TestOneJobFindUnfenced = _case(TaskLifeFindUnfenced)
