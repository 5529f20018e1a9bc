"""
Operators that somebody wrote himself, on services of each kind of recovery, and a desk from which a test sees such a service.

- ``resend``: the service answers a known token with its job. ``find``: it lists its jobs, with a lag. ``neither``: none of both.
- ``adapted``: an operator of Airflow's own ``ResumableJobMixin``, through `make_resumable`; its service is as ``neither``.
- ``wrapped``: a subclass with an ``execute`` of its own around ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
from airflow.providers.common.compat.sdk import ResumableJobMixin

from resumable import JobNotFound, ResumableMixin
from resumable.jobs.make_resumable import make_resumable
from tests.life.invariants import RESULT_STRANGE
from tests.services import Drop, Refuse
from tests.support.names import AirflowSkipException, BaseOperator

RUNS, DONE, FAILED, SKIPPED, STOPPED, UNSEEN = "RUNS", "DONE", "FAILED", "SKIPPED", "STOPPED", "A STATE OF NEXT YEAR"


class JobFailed(Exception):
    """What such an operator raises for a job that failed."""


@dataclass
class OwnJob:
    """A job as its service has it."""

    number: int
    token: str | None
    word: str
    listed_at: float
    state: str = RUNS
    is_known: bool = True
    looks_to_stop: int = 0
    is_told: bool = False


@dataclass
class OwnService:
    """
    A service in this process. Its calls are effects of the process that makes them, and may go wrong as an HTTP service's.

    Attributes:
        knows_tokens: the same token is answered with the same job.
        lag: seconds until a new job shows in its list, and to a look.
        effect: runs a call as an effect of the process at work.
        looks_to_stop: for so many looks a job that was told to stop is still running.
        taken: the faults that have acted on a call.
        is_stopping: called when a job is looked at that was told to stop.
    """

    knows_tokens: bool
    lag: float = 0.0
    effect: Callable[[str, Callable[[], Any]], Any] = lambda name, do: do()
    now: float = 0.0
    looks_to_stop: int = 0
    jobs: list[OwnJob] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    faults: list[tuple[str, Any]] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)
    is_stopping: Callable[[], None] = lambda: None

    # -- what a test does with it

    def fault(self, call: str, fault: Any, times: int = 1) -> None:
        self.faults += [(call, fault)] * times

    def clear_faults(self) -> None:
        self.faults.clear()

    @property
    def has_faults(self) -> bool:
        return bool(self.faults)

    def count(self, call: str) -> int:
        return self.asked.count(call)

    # -- its calls

    def submit(self, token: str | None, word: str) -> int:
        return self._call("submit", lambda: self._start(token, word).number)

    def status(self, number: int) -> str:
        return self._call("status", lambda: self._shown(number))

    def find(self, token: str) -> int | None:
        return self._call("find", lambda: self._listed(token))

    def stop(self, number: int) -> None:
        return self._call("stop", lambda: self._told_to_stop(number))

    def _call(self, name: str, work: Callable[[], Any]) -> Any:
        return self.effect(f"http {name}", lambda: self._answer(name, work))

    def _answer(self, name: str, work: Callable[[], Any]) -> Any:
        self.asked.append(name)
        entry = next((entry for entry in self.faults if entry[0] == name), None)
        if entry is None:
            return work()
        self.faults.remove(entry)
        fault = entry[1]
        self.taken.append(fault)
        if isinstance(fault, Drop):
            work()
            raise requests.ConnectionError("the connection was closed without an answer")
        assert isinstance(fault, Refuse)
        if fault.after_effect:
            work()
        if fault.status == 200 and name == "submit":
            raise KeyError("id")  # of an answer without one
        if fault.status == 200:
            return None
        answer = requests.Response()
        answer.status_code = fault.status
        raise requests.HTTPError(f"{fault.status} for {name}", response=answer)

    def _start(self, token: str | None, word: str) -> OwnJob:
        known = next((job for job in self.jobs if token and job.token == token), None)
        if known is not None and self.knows_tokens:
            return known
        self.jobs.append(OwnJob(len(self.jobs), token, word, self.now + self.lag, looks_to_stop=self.looks_to_stop))
        return self.jobs[-1]

    def _shown(self, number: int) -> str:
        job = self.jobs[number]
        if not job.is_known or self.now < job.listed_at:
            raise JobNotFound(f"no job {number}")
        if job.is_told and job.state == RUNS:
            job.looks_to_stop -= 1
            self.is_stopping()
            job.state = STOPPED if job.looks_to_stop < 0 else RUNS
        return job.state

    def _listed(self, token: str) -> int | None:
        return next((j.number for j in self.jobs if j.token == token and j.is_known and self.now >= j.listed_at), None)

    def _told_to_stop(self, number: int) -> None:
        job = self.jobs[number]
        if job.state in (RUNS, UNSEEN):
            job.is_told = True
            if job.looks_to_stop == 0:
                job.state = STOPPED


class Desk:
    """The bench of an `OwnService`, see ``tests.contract.cases.Bench``."""

    submit, status, stop = "submit", ("status",), "stop"

    def __init__(self, service: OwnService) -> None:
        self.server = service
        self._abandoned = 0

    def arguments(self) -> dict[str, Any]:
        return {"word": "as written"}

    def other_arguments(self) -> dict[str, Any]:
        return {"word": "edited"}

    def _counted(self) -> list[OwnJob]:
        return self.server.jobs[self._abandoned :]

    def jobs(self) -> int:
        return len(self.server.jobs)

    def active(self) -> int:
        return sum(job.state in (RUNS, UNSEEN) for job in self._counted())

    def _end(self, state: str) -> None:
        for job in self._counted():
            if job.state in (RUNS, UNSEEN):
                job.state = state

    def finish(self, *, ok: bool = True) -> None:
        self._end(DONE if ok else FAILED)

    def skip(self) -> None:
        self._end(SKIPPED)

    def untold(self) -> int:
        """Jobs that run, and that nobody has told to stop."""
        return sum(job.state in (RUNS, UNSEEN) and not job.is_told for job in self._counted())

    def forget(self) -> None:
        for job in self.server.jobs:
            job.is_known = False

    def cancels(self) -> int:
        return self.server.count("stop")


class BlindDesk(Desk):
    """Of a service that tells nothing of a submit."""

    def abandon(self) -> None:
        """Jobs of a submit in doubt, beside which a clear starts another."""
        self._abandoned = len(self.server.jobs)


class _Written:
    """What the author of each of these operators has written; ``service_of`` is the one that runs."""

    template_fields = ("word",)
    running: OwnService

    def __init__(self, *, word: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.word = word

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)  # type: ignore[attr-defined]

    def submit_job(self, context: Any) -> Any:
        return _Written.running.submit(None, self.word)

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return _Written.running.status(external_id)

    def is_job_active(self, status: str) -> bool:
        return status == RUNS

    def is_job_succeeded(self, status: str) -> bool:
        return status == DONE

    def is_job_failed(self, status: str) -> bool:
        return status in (FAILED, SKIPPED, STOPPED)

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        while (status := self.get_job_status(external_id, context)) in (RUNS, UNSEEN):
            pass
        if status == SKIPPED:
            raise AirflowSkipException("nothing to do")
        if status != DONE:
            raise JobFailed(status)

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return external_id


class _Stops:
    def cancel_job(self, external_id: Any, context: Any) -> None:
        _Written.running.stop(external_id)


class Neither(_Stops, _Written, ResumableMixin, BaseOperator):
    """Of a service that tells nothing of a submit whose answer was lost."""


class Resend(Neither):
    """Of a service that knows tokens."""

    def submit_job(self, context: Any) -> Any:
        return _Written.running.submit(self.idempotency_token, self.word)


class Find(Resend):
    """Of a service that lists its jobs."""

    def find_job(self, token: str, context: Any) -> Any:
        return _Written.running.find(token)


class Wrapped(Resend):
    """With an ``execute`` of its own, that asks for a second job in the same start: an error, which it takes for a no."""

    def execute(self, context: Any) -> Any:
        context["ti"].xcom_push("began", True)
        result = super().execute(context)
        context["ti"].xcom_push("ended", result)
        self.word += " once more"
        try:
            again = super().execute(context)
        except Exception as e:
            if "A second job was asked for in one start" in str(e):
                return result
            raise
        RESULT_STRANGE.holds(False, f"a second job was asked for, and answered with {again}, as the first with {result}")
        return None


class ForAirflows(_Written, ResumableJobMixin, BaseOperator):
    """As somebody wrote it for Airflow's own mixin."""

    external_id_key = "number"


class Adapted(_Stops, make_resumable(ForAirflows)):  # type: ignore[misc]
    """The same, durable."""


@dataclass(frozen=True)
class OwnCase:
    """One of them on its service."""

    name: str
    ours: type[Any]
    knows_tokens: bool = False
    lag: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
    deferrable = False

    @property
    def is_blind(self) -> bool:
        """Nothing tells what became of a submit."""
        return self.ours in (Neither, Adapted)

    @contextlib.contextmanager
    def bench(self, _patch: Any) -> Iterator[Desk]:
        _Written.running = OwnService(self.knows_tokens, self.lag)
        yield (BlindDesk if self.is_blind else Desk)(_Written.running)

    def __str__(self) -> str:
        return self.name


CASES = {
    case.name: case
    for case in (
        OwnCase("resend", Resend, knows_tokens=True),
        OwnCase("find", Find, lag=15.0),
        OwnCase("neither", Neither),
        OwnCase("adapted", Adapted),
        OwnCase("wrapped", Wrapped, knows_tokens=True, lag=5.0),
    )
}
