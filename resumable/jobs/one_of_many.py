"""What a job's service says of it where one process looks after many: by which client, and how jobs are asked about together."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from resumable.jobs.decision import Observation
from resumable.jobs.record import JobHandle

if TYPE_CHECKING:
    from resumable.fleet.lookups import Lookup


class OneOfMany(ABC):
    """The part of a `JobService` that the triggerer asks for ``wait="defer"``."""

    service: str

    reach_fields: ClassVar[Sequence[str] | None] = None
    """The operator's attributes that are kept in the record, so that the job can be looked at and stopped when no process holds
    the task: the connection's name, and plain settings by which states are told apart. None: such a job is only reported."""

    together: ClassVar[str] = ""
    """How its jobs are asked about many at once: a name in `resumable.fleet.services`. Empty: one by one."""

    def lookup(self, handle: JobHandle) -> Lookup:  # noqa: ARG002
        """How the job is asked about together with others; alone, where a subclass sees its jobs in another way."""
        from resumable.fleet.services import lookup_of

        kind = type(self)
        home = next((at for at, cls in enumerate(kind.__mro__) if "together" in vars(cls)), 0)
        is_other = any(name in vars(cls) for cls in kind.__mro__[:home] for name in ("observe", "state_of", "classify"))
        return lookup_of("" if is_other else self.together, self.service)

    @classmethod
    def shares(cls, operator: Any, connection: Mapping[str, Any], more: Mapping[str, Any]) -> str:  # noqa: ARG003
        """
        What tells one `shared_client` from another, in a word: jobs with the same one share it.

        Args:
            operator: the class of the task's operator.
            connection: what the record keeps of it.
            more: see `more_of_client`.
        """
        return json.dumps([dict(connection), dict(more)], sort_keys=True, default=str)

    @classmethod
    def shared_client(cls, operator: Any, connection: Mapping[str, Any], more: Mapping[str, Any], *, requests: int) -> Any:  # noqa: ARG003
        """
        What `observe_by` asks with, for all jobs that share it: made in a thread, used in several. None: each has its own means.

        Args:
            operator: the class of the task's operator.
            connection: what the record keeps of it.
            more: see `more_of_client`.
            requests: how often the client library sends a request, repetitions included.
        """
        return None

    def more_of_client(self) -> dict[str, Any]:
        """What the operator's client is made of besides the connection: values of JSON, and nothing that the record may keep."""
        return {}

    def observe_by(self, client: Any, handle: JobHandle) -> Observation:  # noqa: ARG002
        """`observe`, by a client that other jobs' looks use at the same time."""
        return self.observe(handle)

    def cancel_by(self, client: Any, handle: JobHandle) -> None:  # noqa: ARG002
        """`cancel`, by a `shared_client`."""
        self.cancel(handle)

    def is_expired(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error says that the credentials of the client are no longer good."""
        return False

    @abstractmethod
    def observe(self, handle: JobHandle) -> Observation: ...

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None: ...
