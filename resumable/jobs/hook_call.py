"""`HookCall`: one method of an operator's hook made durable."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from resumable.errors import ConfigurationError
from resumable.helpers import replaced
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Recovery
from resumable.jobs.provider_job import ProviderJob
from resumable.jobs.record import JobHandle


class HookCall(ProviderJob):
    """
    A job whose operator has a hook with one method that submits.

    The operator's own ``execute`` runs unchanged. Its call of ``submit_method`` goes out with the token and its answer is kept;
    on a later attempt the call is answered from the record. Besides what is declared here, give ``service``, ``recovery``,
    ``observe`` and ``cancel``, and ``find`` with ``settle`` for `Recovery.LOOK_UP`::

        @durable_operator(Film)
        class ResumableFilmOperator(FilmOperator): ...
    """

    submit_method: ClassVar[str]
    """The hook's method that submits. It must send once: a hook that repeats a submit by itself makes a second job, unless the
    service knows the token."""

    request_argument: ClassVar[str] = ""
    """The one argument of that method which is the whole request; empty: its arguments are."""

    look_methods: ClassVar[tuple[str, ...]] = ()
    """The hook's methods that look at the job: each call is a chance to write a record whose write had failed."""

    wait_argument: ClassVar[str] = ""
    """The operator's argument that tells whether ``execute`` waits for the job; empty: it always does."""

    @abstractmethod
    def add_token(self, arguments: dict[str, Any], token: str) -> None:
        """Put the token into a copy of the request: the arguments of the submit call, by the names of the method's parameters."""

    def ids_of(self, answer: Any, arguments: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The job's id(s), any JSON value, from what the submit method returned. Raise `InvalidAnswerError` if they are none."""
        return answer

    def handle(self, ids: Any) -> JobHandle:
        return JobHandle(self.service, ids, self.place())

    def answer_of(self, handle: JobHandle) -> Any:
        """What the submit method returned for this job."""
        return handle.ids

    def lookup_hints(self, arguments: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """What `find` needs to know of the submit besides `place` and token; it finds it in ``record.place``."""
        return {}

    def own_token(self, arguments: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """The token that the author gave, as it stands in the request: it is sent as written."""
        return None

    def sending(self) -> AbstractContextManager[Any]:
        """Open around the submit call: the place to switch the hook's own repetitions off."""
        return nullcontext()

    def replacements(self, attempt: Attempt) -> dict[str, Callable[..., Any]]:
        """The methods that stand before the hook's own while ``execute`` runs, by name."""
        hook = self.hook
        looks = {name: self._looker(attempt, getattr(hook, name)) for name in self.look_methods}
        return {**looks, self.submit_method: self._submitter(attempt, getattr(hook, self.submit_method))}

    @contextmanager
    def intercept(self, attempt: Attempt) -> Iterator[None]:
        with replaced(self.hook, **self.replacements(attempt)):
            yield

    def _submitter(self, attempt: Attempt, send: Callable[..., Any]) -> Callable[..., Any]:
        def submit(*args: Any, **kwargs: Any) -> Any:
            if attempt.handle is None:
                call = inspect.signature(send).bind(*args, **kwargs)
                given = dict(call.arguments)
                request = given[self.request_argument] if self.request_argument else given
                repeatable = self.recovery is Recovery.REPEAT
                token, sent = attempt.intend(
                    request if repeatable else None, token=self.own_token(request), where=self.lookup_hints(request)
                )
                stamped = copy.deepcopy(sent if repeatable else request)
                self.add_token(stamped, token)
                call.arguments.update({self.request_argument: stamped} if self.request_argument else stamped)
                with self.sending():
                    answer = send(*call.args, **call.kwargs)
                attempt.submitted(self.handle(self.ids_of(answer, stamped)))
            assert attempt.handle is not None
            return self.answer_of(attempt.handle)

        return submit

    def _looker(self, attempt: Attempt, look: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_flush(*args: Any, **kwargs: Any) -> Any:
            self.refuse_unseen()
            attempt.flush()
            return look(*args, **kwargs)

        return look_and_flush

    def waits(self) -> bool:
        return not self.wait_argument or super().waits()

    @classmethod
    def check_reschedule(cls, operator: Any) -> None:
        if not cls.wait_argument:
            raise ConfigurationError(
                f"wait='reschedule' or 'defer' needs an operator that can be told not to wait, and {type(operator).__name__} has "
                "no wait_argument. Nothing was submitted. Leave wait at 'poll'."
            )
