"""Ready-made operators: run the provider's own ``execute()`` unchanged, and make its one submit call durable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from resumable import compat
from resumable.attempt import Attempt, JobAdapter
from resumable.errors import ResumableError
from resumable.lifecycle import Certainty, Observation
from resumable.mixin import DurableBase
from resumable.record import JobHandle, JobRecord, Outcome
from resumable.stores.base import RecordStore


class ReplayMixin(DurableBase):
    """
    Stands before a provider's operator: ``class ResumableX(SomeServiceReplay, X)``.

    On a first attempt the provider's submit goes out with the token, and its answer is kept. On a later one the same call is
    answered from the record, without a request. All else is the provider's own code: it pushes its XComs and links, polls or
    defers, returns its own result. A service implements `seam` and the methods of `JobAdapter`.
    """

    service: ClassVar[str]
    certainty: ClassVar[Certainty]
    settle: ClassVar[float] = 0.0

    @abstractmethod
    def seam(self, attempt: Attempt) -> AbstractContextManager[None]:
        """While it is open, the provider's submit call goes through ``attempt``."""

    @abstractmethod
    def place(self) -> Mapping[str, str]: ...

    @abstractmethod
    def observe(self, handle: JobHandle) -> Observation: ...

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None: ...

    def find(self, record: JobRecord) -> JobHandle | None:
        raise NotImplementedError

    def execute(self, context: Any) -> Any:
        if not self.durable:
            return super().execute(context)  # type: ignore[misc]
        return self._run_attempt(context, lambda attempt: self._execute_through_seam(context, attempt))

    def _execute_through_seam(self, context: Any, attempt: Attempt) -> Any:
        with self.seam(attempt):
            return super().execute(context)  # type: ignore[misc]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        """The way back from a deferral: the provider's own, and a note in the record once the job is done."""
        result = super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]
        if self.durable:
            self._note_success(context)
        return result

    def _note_success(self, context: Any) -> None:
        try:
            records = RecordStore(compat.state_store(context))
            record = records.load()
            if record is not None and record.handle is not None and record.outcome is None:
                attempt = self._new_attempt(context)
                records.save(record.closed(Outcome.SUCCEEDED, attempt.now()), tries=2)
        except ResumableError as e:
            self.log.debug("resumable: the outcome was not noted: %s", e)

    def _job_adapter(self, context: Any) -> JobAdapter:  # noqa: ARG002
        return self  # type: ignore[return-value]

    def _on_kill_unattended(self) -> None:
        if not self.durable:
            super()._on_kill_unattended()
