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
- A service that knows a token for some time only: a submit that reaches it later than that after its intent was written; and,
  after a clear, the job of a submit that nobody heard of for so long (the clear starts another beside it, with a warning).
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
- The author's edits go forward: a spec does not come back within one history. Beside them values move that nobody edited
  (one is computed at each parse), and a provider gains a field.
- One answer, or two in a row, may be wrong ("no such job", an empty list); three in a row are taken for the truth.
- Nobody stops the task here (marks it failed, times it out): see test_attempt.py for a job that is told to
  stop.
- A token of the author's where the record is lost as well: nothing tells then which try, or clear, its job is of.
- Parameters can be recorded (no secret in them, small).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from resumable import errors
from resumable.errors import JobGoneError, LostSightError, StateStoreError, SupersededError
from resumable.identity import Generation
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import KEY, JobRecord
from resumable.jobs.spec import Spec
from resumable.policy import OnChange, OnClear, OnFailed
from resumable.stores.object_storage import ObjectStorageStore
from resumable.stores.variables import VariableStore
from tests.life import invariants
from tests.life.script import Told, as_test, step
from tests.support.fake_service import (
    TASK,
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

SETTLE = 20.0
RETRIES = 1
REFUSES_REPETITIONS = False
IN_MEMORY = "/dev/shm"  # what is written there is not waited for
PATIENCE = 2000
"""Calls that a process may make before it is taken for one that never ends."""

ENDED = (JobState.SUCCEEDED, JobState.FAILED)

EXPECTED = (
    *(LostAnswerError, RefusedSubmitError, JobFailedError),
    *(errors.JobFailedError, JobGoneError, StateStoreError, LostSightError),
    errors.RefusedError,
)
"""What a try may fail with in this world; another try helps with each."""


class DiedError(BaseException):
    """SIGKILL: whatever the process does afterwards has no effect."""


class Process:
    """One attempt in a thread of its own, that stops before each of its calls until it is told to go on."""

    def __init__(self, world: World, number: int, of_try: int) -> None:
        self.world, self.number, self.of_try = world, number, of_try
        self.spec, self.generation = world.spec, world.generation
        self.own_token = world.own_token(of_try)
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
            start(self.attempt, service, {"spec": self.spec}, token=self.own_token)
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
            spec=world.written(self.spec, self.number),
            sleep=self.sleep,
            try_number=self.of_try,
            one_job=lambda record: "its token is the author's own" if record.token == self.own_token else "",
            **world.policy,
        )

    def is_of_own_token(self, job: Job) -> bool:
        """No other job than this can come of the token that the author gave."""
        return job.token == self.own_token


class ServiceOf:
    """The service as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process, self._service = process, process.world.service
        self.recovery, self.clock = self._service.recovery, self._service.clock
        self.token_lifetime = self._service.token_lifetime

    def submit(self, token: str, params: Any) -> int:
        process, world = self._process, self._process.world
        process.stop_before("submit")
        intent = process.attempt.record
        assert intent is not None
        late = world.clock.now + self._service.lag >= intent.intended_at + SETTLE
        lifetime = self.token_lifetime
        too_late = lifetime is not None and world.clock.now >= intent.intended_at + lifetime
        if (self.recovery is Recovery.LOOK_UP and late) or too_late:
            process.dead = True  # the window that is left out, see above
            raise DiedError
        known = len(self._service.jobs)
        with world.watching():
            authors = {one.own_token for one in world.processes} | {process.own_token}
            invariants.POLICY.holds(token in authors or process.own_token is None, f"the token sent is {token}, not the author's")
        if not (process.attempt.is_first_submit or REFUSES_REPETITIONS):
            self._service.faults.disarm("submit", Fault.REFUSED)
        try:
            answer = self._service.submit(token, params)
            self._service.jobs[answer].notes["known"] = True
            return answer
        finally:
            for job in self._service.jobs[known:]:
                job.notes.update(generation=intent.generation.max_tries, spec=params["spec"], ours=True)
                with world.watching():
                    world.submitted(job)

    def observe(self, job_id: int) -> Any:
        self._process.stop_before("observe")
        return self._service.observe(job_id)

    def find(self, token: str) -> int | None:
        self._process.stop_before("find")
        return self._service.find(token)

    def cancel(self, job_id: int) -> None:
        self._process.stop_before("cancel")
        was = self._service.jobs[job_id].verdict
        self._service.cancel(job_id)
        with self._process.world.watching():
            self._process.world.cancelled_by(self._process, self._service.jobs[job_id], was)


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


class PlainVariables:
    """Airflow's Variables, in memory."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self._texts.get(name)

    def set(self, name: str, text: str, description: str) -> None:
        assert description
        self._texts[name] = text

    def delete(self, name: str) -> None:
        self._texts.pop(name, None)


class World:
    """The task instance as Airflow has it, its processes, store and service; and what must hold of them."""

    def __init__(
        self,
        recovery: Recovery,
        *,
        fenced: bool,
        policy: dict[str, str],
        lag: float,
        looks_to_stop: int,
        moves: bool,
        kept_in: str = "task state",
        token_lifetime: float | None = None,
        tokens: str = "",
    ) -> None:
        self.tokens, self.edition = tokens, 0
        self.clock = Clock()
        self.service = FakeService(recovery, self.clock, lag=lag, looks_to_stop=looks_to_stop, token_lifetime=token_lifetime)
        self.store = FaultyStore()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if kept_in == "variables":
            self.store.memory = VariableStore(TASK, PlainVariables())  # type: ignore[assignment]
        elif kept_in == "object storage":
            self._folder = tempfile.TemporaryDirectory(dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None)
            with mock.patch("resumable.stores.object_storage._base", return_value=f"file://{self._folder.name}"):
                self.store.memory = ObjectStorageStore(TASK)  # type: ignore[assignment]
        self.fenced, self.policy, self.moves = fenced, policy, moves
        self.on_clear = policy["on_clear"]
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.wants_run, self.tries, self.spec = True, 0, 0
        self.max_tries, self.clear_number = RETRIES, 0
        self.has_gained_a_field = False
        self.tries_before, self.edits = 0, 0  # the clear
        self.is_refused = False
        self.lost_results: set[int] = set()
        for token in ("0" * 48, "f" * 48):
            self.service.submit(token, {"spec": -1})
        for stranger in self.service.jobs:
            stranger.notes.update(generation=None, spec=-1, ours=False)

    # -- Airflow

    @property
    def generation(self) -> Generation:
        return Generation(self.max_tries, self.clear_number, "2026-01-01T00:00:00+00:00", RETRIES)

    def written(self, spec: int, number: int) -> Spec:
        """As the DAG file has it: one field a constant, one computed at each parse, one that the provider has of late."""
        fields: dict[str, Any] = {"job": f"spec-{spec}"}
        if self.moves:
            fields["stamp"] = f"parsed at {number}"
        if self.has_gained_a_field:
            fields["environments"] = []
        return Spec.of(fields, f"job = 'spec-{spec}'")

    def own_token(self, of_try: int) -> str | None:
        """What the author has given as the token: the same for each try, or one with the number of the try in it."""
        if not self.tokens:
            return None
        return f"nightly-{self.edition}" + (f"-{of_try}" if self.tokens == "of each try" else "")

    @property
    def is_plain(self) -> bool:
        """Nothing was edited or cleared since the last clear: who has no record any more can ask for the same again."""
        untouched = not self.edits and not self.is_sibling_cleared
        return untouched and all(job.notes["generation"] == self.max_tries for job in self.active)

    def lose_the_record(self) -> None:
        self.store.memory.delete(KEY)
        self.is_record_lost = True

    @property
    def has_nothing(self) -> bool:
        """The record was lost, and none was written since: what is asked for now is asked without knowing of the job."""
        return self.is_record_lost and self.store.memory.get(KEY) is None

    is_record_lost = is_sibling_cleared = False

    def writes_as_earlier(self) -> None:
        """A worker of the first release had the task, and wrote the record as it stands: without what came later."""
        record = self.store.memory.get(KEY)
        kept = {name: value for name, value in record.items() if name in OF_THE_FIRST_RELEASE}
        generation = {name: record["generation"][name] for name in ("max_tries", "clear_number", "run_started")}
        self.store.memory.set(KEY, {**kept, "generation": generation, "spec": "0123456789abcdef"})

    @property
    def knows_no_spec(self) -> bool:
        """What is kept does not say what the job was: an edit, and a clear of a sibling, cannot be told by it."""
        record = self.store.memory.get(KEY)
        return self.has_nothing or (record is not None and "fingerprint" not in record)

    def start(self) -> None:
        self.tries += not self.is_handed_back
        self.wants_run = self.is_handed_back = False
        # set before it is born: a process may reach for the store at once
        self.current = None
        self.current = process = Process(self, len(self.processes) + 1, self.tries)
        self.processes.append(process)
        if not self.fenced:
            self.step(process)  # past its first read, see above

    is_handed_back = False

    def hand_back(self) -> None:
        """Its worker is evicted, or it waits by being rescheduled: it leaves, and another start of the same try follows."""
        assert self.current is not None
        self.current.die()
        self.current, self.wants_run, self.is_handed_back = None, True, True
        self.check()

    def clear(self) -> None:
        self.max_tries, self.clear_number = self.tries + RETRIES, self.clear_number + 1
        self.current, self.wants_run, self.is_handed_back, self.is_refused = None, True, False, False
        self.tries_before, self.edits = self.tries, 0
        for job in self.service.jobs:
            if job.verdict in ENDED and job.notes["generation"] != self.max_tries:
                job.notes.setdefault("ended_before", self.max_tries)
        self.is_record_lost = self.is_sibling_cleared = False

    def give_up_on_current(self) -> None:
        """The heartbeat stopped: the process lives on as a zombie."""
        self.current, self.wants_run = None, True

    def edit(self) -> None:
        self.spec += 1
        self.edits += 1

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if not process.done]

    def step(self, process: Process) -> None:
        process.go_on()
        self.check()
        if process.done:
            self._ended(process)

    def run_until(self, process: Process | None, place: str) -> None:
        """Let it go on until it is about to make a call, or, where the place says so, has just made it."""
        call, _, is_done = place.partition(" ")
        for _ in range(PATIENCE):
            if process is None or process.done or (process.is_watching and self._shows_no_end(process)):
                return
            is_there = process.at == call
            if is_there and not is_done:
                return
            self.step(process)
            if is_there:
                return

    def run(self, process: Process | None) -> None:
        """Let it go on until it ends, or waits for a job that runs."""
        if process is None:  # it has ended already, at its first read
            return
        for _ in range(PATIENCE):
            if process.done or (process.is_watching and self._shows_no_end(process)):
                return
            self.step(process)
        invariants.NEVER_ENDS.holds(False, f"process {process.number} goes on without end, at {process.at}")

    def kill(self, process: Process) -> None:
        process.die()
        if process.is_current:
            self.current, self.wants_run = None, True
        self.check()

    def _ended(self, process: Process) -> None:
        zombie = not process.is_current
        if process.result is not None:
            self._check_result(process)
        elif isinstance(process.error, errors.InvalidHandleError) and self.tokens:
            pass  # the author's token is used up
        elif not isinstance(process.error, (*EXPECTED, DiedError)):
            is_told = isinstance(process.error, SupersededError)
            invariants.ERROR_UNREADABLE.holds(is_told, f"{process.error!r}")
            # Without a fence an old process may write once more, before the new one's first write.
            invariants.TRY_FOR_NOTHING.holds(zombie or not self.fenced, f"the owner was taken for a zombie: {process.error!r}")
        if not zombie:
            self.current = None
            self.is_refused = isinstance(process.error, errors.RefusedError)  # Airflow starts no other try
            self.is_used_up = isinstance(process.error, errors.InvalidHandleError)
            self.wants_run = process.result is None and not self.is_refused

    is_used_up = False

    # -- what must hold

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What is broken within a process's call is told by `check`: the library may make anything of an error there."""
        try:
            yield
        except invariants.Broken as e:
            self.broken = self.broken or e

    broken: invariants.Broken | None = None

    def check(self) -> None:
        if self.broken is not None:
            raise self.broken
        invariants.one_at_once(self.active)
        self._check_nothing_is_run_twice()
        for process in self.processes:
            handle = process.attempt.handle
            ours = handle is None or self.service.jobs[handle.ids].notes["ours"]
            invariants.RESULT_STRANGE.holds(ours, f"a stranger's job is watched: {handle}")

    def submitted(self, job: Job) -> None:
        mine = [j for j in self.service.jobs if j.notes["ours"] and j.notes["generation"] == job.notes["generation"]]
        if job.notes["generation"] == self.max_tries:
            invariants.jobs_per_try(len(mine), self.tries - self.tries_before, self.edits)
        if self.policy["on_failed"] == OnFailed.FAIL.value:
            failed = [j for j in mine if j.notes["spec"] == job.notes["spec"] and j.notes.get("failed_by_itself")]
            invariants.POLICY.holds(not failed, f"on_failed=fail, and after {failed} {job} was submitted")

    def _check_nothing_is_run_twice(self) -> None:
        ours = [job for job in self.service.jobs if job.notes["ours"] and job.verdict is JobState.SUCCEEDED]
        seen = [(job.notes["generation"], job.notes["spec"]) for job in ours if job.id not in self.lost_results]
        invariants.RESULT_LOST.holds(len(seen) == len(set(seen)), f"a job that had succeeded was run again: {ours}")

    def _check_result(self, process: Process) -> None:
        assert process.result is not None
        job = self.service.jobs[process.result]
        invariants.SUCCESS_FALSE.holds(job.verdict is JobState.SUCCEEDED, f"delivered {job}")
        stale = invariants.RESULT_STALE
        if process.is_of_own_token(job):  # it is not stopped for another, and what it comes to stands
            is_of_before = process.generation.max_tries >= job.notes.get("ended_before", process.generation.max_tries + 1)
            stale.holds(not is_of_before, f"{process.generation} got the result of {job}")
            return
        if self.on_clear != OnClear.REATTACH.value:
            stale.holds(job.notes["generation"] == process.generation.max_tries, f"{process.generation} got the result of {job}")
        elif job.notes["generation"] != process.generation.max_tries:
            return
        if self.policy["on_change"] != OnChange.REATTACH.value:
            of_this_try = [p.spec for p in self.processes if p.of_try == process.of_try]  # within one, an edit is none
            stale.holds(job.notes["spec"] in of_this_try, f"spec {process.spec} got the result of {job}")

    def cancelled_by(self, process: Process, job: Job, was: JobState) -> None:
        current = self.current
        if current is not None and current is not process and current.attempt.handle is not None:
            watched = current.attempt.handle.ids
            invariants.GIVEN_UP_ACTS.holds(watched != job.id, f"a zombie cancelled the job that is watched: {job}")
        if was is not JobState.ACTIVE or job.notes.get("told"):
            return
        cleared = job.notes["generation"] != process.generation.max_tries and self.on_clear == OnClear.RESTART.value
        edited = job.notes["spec"] != process.spec and self.policy["on_change"] == OnChange.RESTART.value
        is_wanted = (cleared or edited) and not process.is_of_own_token(job)
        invariants.none_cancelled_for_nobody([job], [job] if is_wanted else [])
        job.notes["told"] = True

    @property
    def active(self) -> list[Job]:
        """The jobs of this task that run, and that anything can still tell of."""
        return [job for job in self.service.active() if job.notes["ours"] and not self._is_past_telling(job)]

    def _is_past_telling(self, job: Job) -> bool:
        is_of_before = job.notes["generation"] != self.max_tries
        return is_of_before and not job.notes.get("known") and self.service.has_forgotten_token_of(job)

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
                if self.is_refused or self.is_used_up:
                    if not self.is_used_up:
                        self._check_left()
                    self.edition, self.is_used_up = self.edition + 1, False
                    for job in self.active:  # what the refusal advises
                        job.verdict = JobState.FAILED
                    self.clear()
                if not self.wants_run:
                    self._check_left()
                    return
                self.start()
            process = self.current
            if process is None:  # it has ended with its first read
                continue
            self.run(process)
            if not process.done:
                self._job_of(process).verdict = JobState.SUCCEEDED
                self.run(process)
        told = [repr(p.error) for p in self.processes]
        invariants.NO_TRY_HELPS.holds(not self.wants_run and not self.is_refused, f"no try ends well: {told}")

    def _check_left(self) -> None:
        """The task is over: what runs on is no job that nobody knows of."""
        known = JobRecord.from_json(self.store.memory.get(KEY) or {}) if self.store.memory.get(KEY) else None
        for job in self.active:
            said = known is not None and (known.in_doubt or (known.handle is not None and known.handle.ids == job.id))
            invariants.LEFT_UNSAID.holds(said, f"{job} runs, the record is {known}")

    def bury(self) -> None:
        for process in self.alive:
            process.die()
        if self._folder is not None:
            self._folder.cleanup()


FAULTS = {
    "submit": ("LOST_ANSWER", "UNREACHABLE", "REFUSED"),
    "observe": ("UNREACHABLE", "ABSENT"),
    "find": ("UNREACHABLE", "ABSENT"),
    "cancel": ("LOST_ANSWER", "UNREACHABLE"),
    "get": ("UNREACHABLE",),
    "set": ("LOST_ANSWER", "UNREACHABLE"),
}
ARMED = [(call, fault) for call, faults in FAULTS.items() for fault in faults]
PLACES = [f"{call}{done}" for call in ("get", "set", "submit", "observe", "find", "cancel") for done in ("", " done")]
"""Where a process may stand still, or come to its end: before a call, and after it."""
OF_THE_FIRST_RELEASE = (
    *("version", "service", "job", "state", "token", "submission", "attempt", "try", "owner", "intended_at", "place", "params"),
    *("submitted_at", "closed_at", "replaces", "left", "reach", "cancel_if_lost"),
)
"""What a record of the first release has, beside its generation and one hash of the job."""
UNTIL = st.none() | st.sampled_from([*PLACES, "submit", "submit done", "submit done"])
THERE = st.sampled_from(["goes on", "goes on", "dies", "is given up", "is cleared", "leaves", "leaves"])
"""What happens to it there. It leaves once it waits: it is evicted then, or rescheduled, and is started again in the same try."""
VERDICTS = ("SUCCEEDED", "FAILED", "FAILING")
MEANWHILE = st.none() | st.sampled_from([*VERDICTS, "FAILED", "FORGOTTEN"])
"""What becomes of the job that runs thereupon, while nobody looks."""
WHICH = st.integers(0, 5)


class TaskLife(Told):
    """One task instance through crashes, retries, clears and zombies."""

    recovery = Recovery.REPEAT
    fenced = True
    token_lifetime: float | None = None
    world: World = None  # type: ignore[assignment]

    @step(
        first=True,
        on_clear=st.sampled_from([policy.value for policy in OnClear]),
        on_change=st.sampled_from(["restart", "restart", "reattach", "fail"]),
        on_failed=st.sampled_from(["resubmit", "resubmit", "fail"]),
        lag=st.sampled_from([0.0, 15.0]),
        looks_to_stop=st.sampled_from([0, 1, 5]),
        moves=st.booleans(),
        broken=st.none() | st.sampled_from(ARMED),
        kept_in=st.sampled_from(["task state", "task state", "variables", "object storage"]),
        tokens=st.sampled_from(["", "", "", "one", "of each try"]),
    )
    def begin(
        self,
        on_clear: str,
        on_change: str,
        on_failed: str,
        lag: float,
        looks_to_stop: int,
        moves: bool,
        broken: tuple[str, str] | None = None,
        kept_in: str = "task state",
        tokens: str = "",
    ) -> None:
        """
        A task, its author's policies and its service; ``broken``: what goes wrong when it is first tried; ``kept_in``: the store,
        where it is none that fences; ``tokens``: the author's own, where the service knows tokens for good.
        """
        policy = {"on_clear": on_clear, "on_change": on_change, "on_failed": on_failed}
        setting = {"lag": lag, "looks_to_stop": looks_to_stop, "moves": moves, "token_lifetime": self.token_lifetime}
        if not self.fenced:
            setting["kept_in"] = kept_in
        if self.recovery is Recovery.REPEAT and self.token_lifetime is None:
            setting["tokens"] = tokens
        self.world = World(self.recovery, fenced=self.fenced, policy=policy, **setting)  # type: ignore[arg-type]
        if broken is not None:
            self.break_now(*broken)

    def break_now(self, call: str, fault: str, times: int = 1) -> None:
        side = self.world.store if call in ("get", "set") else self.world.service
        side.faults.arm(call, Fault[fault], times)

    @step(lambda self: self.world.wants_run, often=3, until=UNTIL, there=THERE, meanwhile=MEANWHILE)
    def start(self, until: str | None, there: str = "goes on", meanwhile: str | None = None) -> None:
        """
        Airflow starts the task; it goes as far as a place, where something happens to it, or to its end. ``meanwhile``: what
        becomes of its job then.
        """
        self._start(until, there)
        if meanwhile is not None and self.world.active:
            self._ends(self.world.active[0], "FAILED" if meanwhile == "FORGOTTEN" else meanwhile)
            if meanwhile == "FORGOTTEN" and (forgettable := self._forgettable()):
                self._forget(forgettable[-1])

    def _start(self, until: str | None, there: str) -> None:
        self.world.start()
        if until is None:
            self.world.run(self.world.current)
        else:
            self.world.run_until(self.world.current, until)
        if there == "is cleared" and not self.world.has_nothing:
            self.world.clear()
        elif there == "is given up" and self.world.current is not None:
            self.world.give_up_on_current()
        elif there == "dies" and self.world.current is not None:
            self.world.kill(self.world.current)
        elif there == "leaves" and self.world.current is not None:
            self.world.run(self.world.current)
            if self.world.current is not None and self.world.current.is_watching:
                self.world.hand_back()

    @step(
        lambda self: (
            self.recovery is Recovery.REPEAT
            and self.token_lifetime is None
            and not self.world.tokens
            and self.world.wants_run
            and not self.world.alive
            and self.world.is_plain
        ),
        until=UNTIL,
        there=THERE,
    )
    def start_without_a_record(self, until: str | None, there: str) -> None:
        """What was kept is gone (somebody has deleted it): a service that knows tokens is asked for the same job again."""
        self.world.lose_the_record()
        self._start(until, there)

    @step(lambda self: self.world.current, zombie=st.booleans())
    def retry_on_another_worker(self, zombie: bool) -> None:
        if zombie:
            self.world.give_up_on_current()
        else:
            self.world.kill(self.world.current)
        self.world.start()
        self.world.run(self.world.current)

    @step(lambda self: self.world.alive, which=WHICH, steps=st.integers(1, 6))
    def go_on(self, which: int, steps: int) -> None:
        self._step(_one(self.world.alive, which), steps)

    @step(lambda self: self.world.alive, which=WHICH)
    def run(self, which: int) -> None:
        self.world.run(_one(self.world.alive, which))

    @step(lambda self: self.world.alive, which=WHICH)
    def crash(self, which: int) -> None:
        self.world.kill(_one(self.world.alive, which))

    @step(lambda self: self.world.current)
    def lose_the_heartbeat(self) -> None:
        self.world.give_up_on_current()

    @step(lambda self: self.world.current and self.world.current.is_watching)
    def hand_back(self) -> None:
        self.world.hand_back()

    @step(lambda self: self.world.tries and not self.world.has_nothing)
    def clear(self) -> None:
        self.world.clear()

    @step(lambda self: not self.world.knows_no_spec, seldom=True)
    def clear_a_sibling(self) -> None:
        self.world.clear_number += 1
        self.world.is_sibling_cleared = True

    @step(lambda self: not self.world.knows_no_spec, seldom=True)
    def edit_the_spec(self) -> None:
        self.world.edit()

    @step(lambda self: not self.world.alive and self.world.is_plain and self.world.store.memory.get(KEY), seldom=True)
    def an_earlier_release_had_it(self) -> None:
        self.world.writes_as_earlier()

    @step(lambda self: not self.world.has_gained_a_field)
    def upgrade_the_provider(self) -> None:
        self.world.has_gained_a_field = True

    @step(lambda self: self.world.active, which=WHICH, verdict=st.sampled_from(VERDICTS))
    def job_ends(self, which: int, verdict: str) -> None:
        self._ends(_one(self.world.active, which), verdict)

    def _ends(self, job: Job, verdict: str) -> None:
        job.notes["failed_by_itself"] = not job.notes.get("told") and verdict != "SUCCEEDED"
        job.verdict = JobState[verdict] if job.verdict is JobState.ACTIVE else JobState.FAILED

    @step(lambda self: self._forgettable(), which=WHICH)
    def job_is_forgotten(self, which: int) -> None:
        self._forget(_one(self._forgettable(), which))

    def _forget(self, job: Job) -> None:
        job.forgotten = True
        self.world.lost_results.add(job.id)
        if (self.world.store.memory.get(KEY) or {}).get("state") != "failed":
            job.notes["failed_by_itself"] = False  # nobody has written it down, and nobody can see it any more

    @step(lambda self: self.world.active, which=WHICH)
    def job_goes_out_of_sight(self, which: int) -> None:
        _one(self.world.active, which).unseen = True

    @step(seldom=True, armed=st.sampled_from(ARMED), times=st.sampled_from([1, 1, 2, 5, 14]))
    def break_something(self, armed: tuple[str, str], times: int) -> None:
        self.break_now(*armed, times)

    @step(seldom=True)
    def mend_everything(self) -> None:
        self.world.mend()

    @step(seldom=True, seconds=st.sampled_from([1.0, 10.0, 60.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def end(self) -> None:
        if self.world is not None:
            self.world.bring_to_an_end()

    def clean_up(self) -> None:
        if self.world is not None:
            self.world.bury()

    def _step(self, process: Process | None, steps: int) -> None:
        for _ in range(steps):
            if process is None or process.done:
                return
            self.world.step(process)

    def _forgettable(self) -> list[Job]:
        return [job for job in self.world.service.jobs if job.verdict in ENDED and not job.forgotten]


def _one(of: list[Any], which: int) -> Any:
    return of[which % len(of)]


class TaskLifeUnfenced(TaskLife):
    """The same over a store that fences nothing."""

    fenced = False


class TaskLifeFind(TaskLife):
    """The same with a service that knows no tokens, and lists its jobs."""

    recovery = Recovery.LOOK_UP


class TaskLifeExpiring(TaskLife):
    """The same with a service that knows a token for some minutes."""

    token_lifetime = 300.0


class TaskLifeFindUnfenced(TaskLifeFind):
    """The same over a store that fences nothing."""

    fenced = False


CASES = 150
test_one_job_resend = as_test(TaskLife, examples=CASES)
test_one_job_resend_unfenced = as_test(TaskLifeUnfenced, examples=CASES)
test_one_job_expiring = as_test(TaskLifeExpiring, examples=CASES)
test_one_job_find = as_test(TaskLifeFind, examples=CASES)
test_one_job_find_unfenced = as_test(TaskLifeFindUnfenced, examples=CASES)
