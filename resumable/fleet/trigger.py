"""The trigger of ``wait="defer"``: an alarm clock that rings when the fleet has seen the job end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resumable import host
from resumable.errors import RecordError
from resumable.fleet.registry import current_fleet
from resumable.fleet.waiting import Target
from resumable.helpers import import_object
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.operator import is_durable_class
from resumable.jobs.record import JobHandle
from resumable.stop.triggers import StopGuard

if TYPE_CHECKING:
    from resumable.jobs.service import JobService

PATH = "resumable.fleet.trigger.JobTrigger"
"""By which a triggerer finds the class; deferred tasks of every release that had one name it, so it stays where it is."""

VERSION = 1
"""Of the trigger's arguments. A later one may add arguments with a default; what these mean stays."""


class JobTrigger(StopGuard, host.base_trigger()):  # type: ignore[misc]
    """
    Waits for a job among all those of its service, account and connection that this triggerer waits for.

    What its event says is not believed by the task, which starts from the top and looks at the job itself. A user's stop of the
    deferred task cancels the job; see `StopGuard` for what does not.

    Args:
        job: ``service``, ``ids`` and ``place`` of the job.
        reach: what the record keeps of the operator: its class and its connection.
        client: what else the operator's client is made of.
        submitted_at: seconds since the epoch.
        interval: seconds between two looks.
        version: of these arguments.
    """

    def __init__(
        self,
        *,
        job: Mapping[str, Any],
        reach: Mapping[str, Any],
        submitted_at: float,
        interval: float,
        client: Mapping[str, Any] | None = None,
        version: int = VERSION,
        **_later: Any,
    ) -> None:
        super().__init__()
        self.job, self.reach, self.client = dict(job), dict(reach), dict(client or {})
        self.submitted_at, self.interval, self.version = submitted_at, interval, version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return PATH, {
            "job": self.job,
            "reach": self.reach,
            "client": self.client,
            "submitted_at": self.submitted_at,
            "interval": self.interval,
            "version": self.version,
        }

    @property
    def handle(self) -> JobHandle:
        return JobHandle(str(self.job["service"]), self.job["ids"], dict(self.job.get("place") or {}))

    async def watch(self) -> AsyncIterator[Any]:
        from airflow.triggers.base import TriggerEvent

        seen = await current_fleet().watch(await self._target(), self.log.warning)
        yield TriggerEvent({"version": VERSION, "state": seen.state.value, "detail": str(host.masked(seen.detail))})

    async def cancel(self) -> None:
        service = await host.from_trigger(self._service)
        client = await host.from_trigger(lambda: self._client(service, requests=3))
        await host.from_trigger(lambda: service.cancel_by(client, self.handle))

    async def _target(self) -> Target:
        service, handle = await host.from_trigger(self._service), self.handle

        async def reach() -> Shared:
            return Shared(await host.from_trigger(lambda: self._client(service, requests=1)), service)

        return Target(
            handle,
            service.lookup(handle),
            Judge(service),
            service.shares(self._operator(), self.reach, self.client),
            reach,
            self.submitted_at,
            self.interval,
            service.visible_after,
        )

    def _operator(self) -> Any:
        path = str(self.reach.get("operator"))
        if self.version > VERSION:
            raise RecordError(f"A newer airflow-resumable has deferred this task: upgrade it here. Its job is {self.handle}")
        found = import_object(path)
        if not is_durable_class(found):
            raise RecordError(f"{path} is no operator of ours that the triggerer can import. The job is {self.handle}")
        return found

    def _service(self) -> JobService:
        operator = self._operator()
        service: JobService = operator._resumable.service.of_record(operator, self.reach)
        return service

    def _client(self, service: JobService, *, requests: int) -> Any:
        return service.shared_client(self._operator(), self.reach, self.client, requests=requests)


@dataclass
class Shared:
    """`resumable.fleet.lookups.Reached`: what jobs of one connection are asked about with."""

    client: Any
    service: JobService

    def is_expired(self, error: BaseException) -> bool:
        return self.service.is_expired(error)


@dataclass(frozen=True)
class Judge:
    """`resumable.fleet.lookups.Judge`: of one job."""

    service: JobService

    def observe(self, client: Any, handle: JobHandle) -> Observation:
        return self.service.observe_by(client, handle)

    def classify(self, word: str) -> JobState:
        judged: JobState = self.service.classify(word)  # type: ignore[attr-defined]
        return judged
