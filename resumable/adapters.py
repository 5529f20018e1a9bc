"""What a durable class of one's own for somebody else's operator is made of: ``docs/custom-operators.md`` shows how.

`HookReplay` makes one call of an operator's hook durable, `AwsReplay` one call of its botocore client. The other names are what
their methods take and give.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from resumable.attempt import Attempt
from resumable.errors import ConfigurationError, InvalidAnswerError
from resumable.lifecycle import Certainty, JobState, Observation
from resumable.record import JobHandle, JobRecord
from resumable.replay import ReplayMixin

if TYPE_CHECKING:
    from resumable.operators._aws import AwsReplay

__all__ = [
    "AwsReplay",
    "Certainty",
    "HookReplay",
    "InvalidAnswerError",
    "JobHandle",
    "JobRecord",
    "JobState",
    "Observation",
]


def __getattr__(name: str) -> Any:
    if name == "AwsReplay":  # lazy: it needs botocore
        from resumable._extras import provider_import

        with provider_import("amazon"):
            from resumable.operators._aws import AwsReplay
        return AwsReplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class HookReplay(ReplayMixin):
    """
    The seam of an operator whose hook has one method that submits: ``class ResumableX(HookReplay, X)``.

    The operator's own ``execute`` runs unchanged. Its call of ``submit_method`` goes out with the token and its answer is kept;
    on a later attempt the call is answered from the record. Besides what is declared here, give ``service``, ``certainty``,
    ``observe`` and ``cancel``, and ``find`` with ``settle`` for `Certainty.FIND`.
    """

    submit_method: ClassVar[str]
    """The hook's method that submits. It must send once: a hook that repeats a submit by itself makes a second job, unless the
    service knows the token."""

    look_methods: ClassVar[tuple[str, ...]] = ()
    """The hook's methods that look at the job: each call is a chance to write a record whose write had failed."""

    wait_argument: ClassVar[str] = ""
    """The operator's argument that tells whether ``execute`` waits for the job; empty: it always does."""

    @abstractmethod
    def stamp(self, arguments: dict[str, Any], token: str) -> None:
        """Put the token into the arguments of the submit call: a copy, by the names of the method's parameters."""

    def ids_of(self, answer: Any, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The job's id(s), any JSON value, from what the submit method returned. Raise `InvalidAnswerError` if they are none."""
        return answer

    def answer_of(self, handle: JobHandle) -> Any:
        """What the submit method returned for this job."""
        return handle.ids

    def where(self, arguments: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """What `find` needs to know of the submit besides `place` and token; it finds it in ``record.place``."""
        return {}

    def sending(self) -> AbstractContextManager[Any]:
        """Open around the submit call: the place to switch the hook's own repetitions off."""
        return nullcontext()

    def place(self) -> Mapping[str, str]:
        """Where the connection points (host, region ...), without a request: an id means nothing elsewhere."""
        return {}

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        """The methods that stand before the hook's own while ``execute`` runs, by name."""
        hook = getattr(self, self.hook_name)
        looks = {name: self._resumable_looker(attempt, getattr(hook, name)) for name in self.look_methods}
        return {**looks, self.submit_method: self._resumable_submitter(attempt, getattr(hook, self.submit_method))}

    @contextmanager
    def seam(self, attempt: Attempt) -> Iterator[None]:
        own = vars(getattr(self, self.hook_name))
        replaced = self.replacements(attempt)
        own.update(replaced)
        try:
            yield
        finally:
            for name in replaced:
                own.pop(name, None)

    def _resumable_submitter(self, attempt: Attempt, send: Callable[..., Any]) -> Callable[..., Any]:
        def submit(*args: Any, **kwargs: Any) -> Any:
            if attempt.handle is None:
                call = inspect.signature(send).bind(*args, **kwargs)
                given = dict(call.arguments)
                repeatable = self.certainty is Certainty.RESEND
                token, sent = attempt.intend(given if repeatable else None, where=self.where(given))
                stamped = copy.deepcopy(sent if repeatable else given)
                self.stamp(stamped, token)
                call.arguments.update(stamped)
                with self.sending():
                    answer = send(*call.args, **call.kwargs)
                attempt.submitted(JobHandle(self.service, self.ids_of(answer, stamped), self.place()))
            assert attempt.handle is not None
            return self.answer_of(attempt.handle)

        return submit

    def _resumable_looker(self, attempt: Attempt, look: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_flush(*args: Any, **kwargs: Any) -> Any:
            self.refuse_unseen(attempt)
            attempt.flush()
            return look(*args, **kwargs)

        return look_and_flush

    def _resumable_waits(self) -> bool:
        return not self.wait_argument or super()._resumable_waits()

    def _resumable_check_reschedule(self) -> None:
        super()._resumable_check_reschedule()
        if not self.wait_argument:
            raise ConfigurationError(
                f"wait='reschedule' needs an operator that can be told not to wait, and {type(self).__name__} names no "
                "wait_argument. Nothing was submitted. Leave wait at 'poll'."
            )
