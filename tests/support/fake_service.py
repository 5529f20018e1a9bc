"""
A job service, stores and a glue without Airflow and without a network, for tests of the core.

Each fault strikes before or after the effect; time is a number that only `Clock.sleep` and a test move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from resumable.errors import ResumableError, SupersededError
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import AttemptFacts, Conclude, JobState, Observation, Reattach, Recovery
from resumable.jobs.record import JobHandle, JobRecord, Outcome
from resumable.jobs.remote import ABSENT_ANSWERS
from resumable.jobs.spec import Spec
from resumable.jobs.submission import Again
from resumable.policy import ResumePolicy
from resumable.stores import MemoryStore, RecordStore
from tests.support.specs import written

TASK = TaskIdentity("etl", "manual__1", "train")
FIRST = Generation(1, 0, "2026-01-01T00:00:00+00:00")
CLEARED = Generation(3, 1, "2026-01-01T06:00:00+00:00")


class LostAnswerError(OSError):
    """The connection broke: the request may have been served, or not."""


class RefusedSubmitError(Exception):
    """The service said no: there is no job."""


class JobFailedError(Exception):
    """What a provider raises when its job has failed."""


class Clock:
    """Time, as far as the test says."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Lines:
    """Keeps what was logged, by level."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []

    def _add(self, level: str, text: str, *args: Any) -> None:
        self.kept.append((level, text % args if args else text))

    def debug(self, text: str, *args: Any) -> None:
        self._add("debug", text, *args)

    def info(self, text: str, *args: Any) -> None:
        self._add("info", text, *args)

    def warning(self, text: str, *args: Any) -> None:
        self._add("warning", text, *args)

    def at(self, level: str) -> list[str]:
        return [text for kept, text in self.kept if kept == level]


class Fault(Enum):
    """What happens to one call."""

    LOST_ANSWER = "done, and the answer is lost"
    UNREACHABLE = "not done"
    REFUSED = "not done, and the service says so"
    ABSENT = "answered as if there were nothing"

    @property
    def error(self) -> Exception:
        return RefusedSubmitError("400 no") if self is Fault.REFUSED else LostAnswerError(self.value)


class Faults:
    """Faults armed by name of the call, each for a number of calls."""

    def __init__(self) -> None:
        self._armed: dict[str, list[Fault]] = {}
        self._lies: dict[str, int] = {}

    def arm(self, call: str, fault: Fault = Fault.UNREACHABLE, times: int = 1) -> None:
        self._armed.setdefault(call, []).extend([fault] * times)

    def heal(self) -> None:
        self._armed.clear()

    def disarm(self, call: str, fault: Fault) -> None:
        """Take *fault* back from a call."""
        self._armed[call] = [armed for armed in self._armed.get(call, []) if armed is not fault]

    def strike(self, call: str, effect: Callable[[], Any]) -> Any:
        armed = self._armed.get(call)
        fault = armed.pop(0) if armed else None
        self._lies[call] = self._lies.get(call, 0) + 1 if fault is Fault.ABSENT else 0
        if fault is Fault.ABSENT and self._lies[call] < ABSENT_ANSWERS:
            return None
        if fault is Fault.ABSENT:  # so many in a row would be the truth
            self._lies[call], fault = 0, None
        result = effect() if fault in (None, Fault.LOST_ANSWER) else None
        if fault is not None:
            raise fault.error
        return result


@dataclass
class Job:
    """A job as the service knows it."""

    id: int
    token: str
    params: Any
    listed_at: float
    started_at: float
    verdict: JobState = JobState.ACTIVE
    looks_to_stop: int | None = None
    forgotten: bool = False
    unseen: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


class FakeService:
    """
    A job service.

    Args:
        recovery: RESEND answers a known token with its job; FIND makes a job of each submit, finds tokens;
            NONE knows no tokens.
        lag: seconds until a new job shows in lookups.
        token_lifetime: seconds for which RESEND knows a token; None: for good.
        looks_to_stop: looks at a cancelled job that still show it active.
    """

    def __init__(
        self,
        recovery: Recovery,
        clock: Clock,
        *,
        lag: float = 0.0,
        looks_to_stop: int = 0,
        token_lifetime: float | None = None,
    ) -> None:
        self.token_lifetime = token_lifetime
        self.recovery, self.clock, self.lag, self.looks_to_stop = recovery, clock, lag, looks_to_stop
        self.jobs: list[Job] = []
        self.calls: list[str] = []
        self.faults = Faults()
        self.slow_submit = 0.0

    def submit(self, token: str, params: Any) -> int:
        return self._call("submit", lambda: self._start(token, params).id)

    def observe(self, job_id: int) -> Observation:
        seen = self._call("observe", lambda: self._seen(job_id))
        return Observation(JobState.GONE, "no such job, says a server that is behind") if seen is None else seen

    def find(self, token: str) -> int | None:
        return self._call("find", lambda: self._listed(token))

    def cancel(self, job_id: int) -> None:
        self._call("cancel", lambda: self._tell_to_stop(self.jobs[job_id]))

    def finish(self, job_id: int, verdict: JobState = JobState.SUCCEEDED) -> None:
        self.jobs[job_id].verdict = verdict

    def active(self) -> list[Job]:
        return [job for job in self.jobs if job.verdict in (JobState.ACTIVE, JobState.FAILING)]

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def _call(self, name: str, effect: Callable[[], Any]) -> Any:
        self.calls.append(name)
        return self.faults.strike(name, effect)

    def _start(self, token: str, params: Any) -> Job:
        self.clock.now += self.slow_submit
        known = [job for job in self.jobs if job.token == token and not self.has_forgotten_token_of(job)]
        if known and self.recovery is Recovery.REPEAT:
            return known[0]
        job = Job(len(self.jobs), token, params, self.clock.now + self.lag, self.clock.now)
        self.jobs.append(job)
        return job

    def has_forgotten_token_of(self, job: Job) -> bool:
        return self.token_lifetime is not None and self.clock.now - job.started_at >= self.token_lifetime

    def _seen(self, job_id: int) -> Observation:
        job = self.jobs[job_id]
        if job.forgotten:
            return Observation(JobState.GONE, f"no job {job_id}")
        if job.looks_to_stop is not None and job.verdict in (JobState.ACTIVE, JobState.FAILING):
            if job.looks_to_stop == 0:
                job.verdict = JobState.FAILED
            else:
                job.looks_to_stop -= 1
        if job.unseen:
            return Observation(JobState.UNKNOWN, "IN A STATE OF A LATER RELEASE")
        return Observation(job.verdict, job.verdict.name)

    def _listed(self, token: str) -> int | None:
        shown = (j.id for j in self.jobs if j.token == token and not j.forgotten and j.listed_at <= self.clock.now)
        return next(shown, None)

    def _tell_to_stop(self, job: Job) -> None:
        if job.looks_to_stop is None:
            job.looks_to_stop = self.looks_to_stop
        if job.looks_to_stop == 0 and job.verdict in (JobState.ACTIVE, JobState.FAILING):
            job.verdict = JobState.FAILED


class FakeAdapter:
    """The `JobAdapter` of a `FakeService`."""

    service = "fake"
    visible_after = 0.0

    def __init__(self, service: FakeService, *, settle: float = 20.0, place: Mapping[str, str] | None = None) -> None:
        self._service, self.settle, self._place = service, settle, dict(place or {"region": "eu"})
        self.recovery = service.recovery
        self.token_lifetime = service.token_lifetime

    def place(self) -> Mapping[str, str]:
        return self._place

    def handle(self, job_id: int) -> JobHandle:
        return JobHandle(self.service, job_id, self._place)

    def observe(self, handle: JobHandle) -> Observation:
        return self._service.observe(handle.ids)

    def find(self, record: JobRecord) -> JobHandle | None:
        job_id = self._service.find(record.token)
        return None if job_id is None else self.handle(job_id)

    def cancel(self, handle: JobHandle) -> None:
        self._service.cancel(handle.ids)


class FaultyStore:
    """A `MemoryStore` with faults; ``fences_writes`` False as there."""

    fences_writes = False

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.faults = Faults()
        self.calls: list[str] = []

    def get(self, key: str) -> Any:
        self.calls.append("get")
        return self.faults.strike("get", lambda: self.memory.get(key))

    def set(self, key: str, value: Any) -> None:
        self.calls.append("set")
        self.faults.strike("set", lambda: self.memory.set(key, value))

    def delete(self, key: str) -> None:
        self.calls.append("delete")
        self.faults.strike("delete", lambda: self.memory.delete(key))


class FencedStore:
    """
    What one try sees of Airflow 3.3's task state: once another has begun, it reads nothing and may not write.

    Args:
        store: where the values are.
        is_current: whether the try that holds this view is still Airflow's.
    """

    fences_writes = True

    def __init__(self, store: FaultyStore, is_current: Callable[[], bool]) -> None:
        self._store, self._is_current = store, is_current

    def get(self, key: str) -> Any:
        value = self._store.get(key)
        return value if self._is_current() else None

    def set(self, key: str, value: Any) -> None:
        if not self._is_current():
            raise SupersededError("Another try was started. This one writes nothing. Nothing needs to be done.")
        self._store.set(key, value)

    def delete(self, key: str) -> None:
        if self._is_current():
            self._store.delete(key)


def new_attempt(
    service: FakeService,
    store: Any,
    *,
    generation: Generation = FIRST,
    spec: Spec | None = written("spec-a"),  # noqa: B008 - frozen
    adapter: FakeAdapter | None = None,
    waits: bool = True,
    log: Any = None,
    sleep: Callable[[float], None] | None = None,
    try_number: int = 1,
    may_record: Callable[[Any], bool] = lambda _: True,
    redact: Callable[[Any], Any] = lambda request: request,
    count: Callable[[str], None] = lambda _: None,
    one_job: Callable[[JobRecord], str] = lambda _: "",
    **policy: Any,
) -> Attempt:
    """Return an attempt at `TASK` against the doubles."""
    pause = sleep or service.clock.sleep
    return Attempt(
        task=TASK,
        claim=AttemptFacts(generation, spec, service.recovery, waits),
        policy=ResumePolicy(**policy).resolved(),
        records=RecordStore(store, sleep=pause),
        adapter=adapter or FakeAdapter(service),
        log=log or Lines(),
        try_number=try_number,
        may_record=may_record,
        redact=redact,
        count=count,
        one_job=one_job,
        clock=service.clock,
        sleep=pause,
    )


def start(attempt: Attempt, service: FakeService, params: Any = None, *, token: str | None = None) -> JobHandle:
    """Begin the attempt, submit if it asks for that, as the glue to Airflow does; return the handle to watch."""
    attempt.begin()
    while attempt.handle is None:
        try:
            _submit_once(attempt, service, params, token)
        except Again:
            continue
        except ResumableError:
            raise
        except RefusedSubmitError:
            attempt.rejected()
            raise
        except Exception as e:
            if not attempt.recover(e):
                raise
    return attempt.handle


def _submit_once(attempt: Attempt, service: FakeService, params: Any, token: str | None) -> None:
    token, sent = attempt.intend(params, token=token)
    job_id = service.submit(token, sent)
    attempt.submitted(JobHandle("fake", job_id, attempt.adapter.place()))


def watch(attempt: Attempt, service: FakeService) -> int:
    """Wait for the job as a provider's loop does; return its id as the task's result."""
    handle = attempt.handle
    assert handle is not None
    while isinstance(attempt.plan, Reattach | Conclude):
        attempt.flush()
        seen = service.observe(handle.ids)
        if seen.state is JobState.SUCCEEDED:
            break
        if seen.state not in (JobState.ACTIVE, JobState.UNKNOWN):
            if seen.state is JobState.FAILED:
                attempt.close(Outcome.FAILED)
            raise JobFailedError(f"{handle} {seen}")
    attempt.flush()
    attempt.close(Outcome.SUCCEEDED)
    return int(handle.ids)
