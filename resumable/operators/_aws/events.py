"""What is done about one attempt in botocore's events: the submit's token, its answer, and the calls around it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError

from resumable.errors import ControlFlow, ForeignJobError, ResumableError
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Recovery
from resumable.jobs.rejection import is_internal, is_page, is_refusal, proves_nothing_made

if TYPE_CHECKING:
    from resumable.operators._aws.call import AwsCall

_NEVER_SENT = (EndpointConnectionError, ConnectTimeoutError)
_TIMED_OUT = 408


class Left(ControlFlow):
    """Raised out of the provider's execute at its first look at the job."""


class Raised(ControlFlow):
    """Carries an error past a provider's ``except Exception``, which would make another of it, or go on."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _carried(handler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(handler)
    def carry(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except ResumableError as e:
            raise Raised(e) from e

    return carry


class _Answered:
    """What botocore reads of an HTTP response that was not sent."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code


class SubmitEvents:
    """The event handlers of one attempt."""

    def __init__(self, job: AwsCall, attempt: Attempt) -> None:
        self._job, self._attempt = job, attempt
        self._params: Mapping[str, Any] = {}
        self._setup_params: Mapping[str, Any] = {}
        self._is_keeping = False
        self._thread = threading.get_ident()  # of the provider's code; a stop is seen to in another

    # -- the submit ---------------------------------------------------------------------------------------------------

    @_carried
    def add_token(self, params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
        job, attempt = self._job, self._attempt
        if attempt.replays:
            return None
        self._check_account()
        account = {"account": job.known_account} if job.known_account else {}
        repeatable = job.recovery is Recovery.REPEAT
        kept = {name: value for name, value in params.items() if name not in job.unrecorded_params}
        own = job.own_token(params)
        if own:
            job.log.warning(
                "resumable: %s=%r is yours, and sent as it is. It keeps crashes from starting a second job, but a retry after a "
                "failed job, a clear, or another task with the same token is answered with the old job. Leave it unset to get a "
                "token per submission.",
                job.token_member,
                own,
            )
        where = {**account, **job.lookup_hints(params)}
        token, sent = attempt.intend(kept if repeatable else None, token=own, where=where)
        unrecorded_params = {name: value for name, value in params.items() if name in job.unrecorded_params}
        stamped = copy.deepcopy({**sent, **unrecorded_params} if repeatable else params)
        job.add_token(stamped, token)
        self._params = stamped
        return stamped

    def _check_account(self) -> None:
        """A token means nothing in another account: repeated there, it makes a second job."""
        job, record = self._job, self._attempt.record
        there = record.place.get("account") if record is not None and record.in_doubt else None
        here = job.account() if job.asks_account or there else None
        if here and there and here != there:
            raise ForeignJobError(
                f"An earlier submit to {job.service} in account {there} was left unanswered, and the connection points at "
                f"account {here}. Nothing was submitted; a job may be running there. Point the connection back, or, once it no "
                "longer matters, delete the task state key 'resumable' of this task instance."
            )

    @_carried
    def answer(self, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        if self._attempt.handle is None:
            return None
        return self._answered(self._job.response_of(self._attempt.handle), self._job.http_status)

    @staticmethod
    def _answered(response: dict[str, Any], status: int = 200) -> tuple[_Answered, dict[str, Any]]:
        metadata = {**response.get("ResponseMetadata", {}), "HTTPStatusCode": status}
        return _Answered(status), {**response, "ResponseMetadata": metadata}

    def send_once(self, response: Any = None, caught_exception: Any = None, *, operation: Any = None, **_: Any) -> None:
        """Hold botocore back, which re-sends on time-outs and 5xx: without a token in the request, that makes a second job."""
        self.note_loss(response, caught_exception)
        if self._job.recovery is Recovery.LOOK_UP:
            self.make_once(response, caught_exception, operation=operation)

    def note_loss(self, response: Any = None, caught_exception: Any = None, **_: Any) -> None:
        """Of each request that botocore sends for the submit: the error of the last one says nothing of those before."""
        if caught_exception is not None:
            is_lost = not proves_nothing_made(caught_exception)
        else:
            is_lost = response is not None and response[0].status_code >= 300 and not self._tells_what_came_of_it(*response)
        if is_lost:
            self._attempt.perhaps_made()

    def _tells_what_came_of_it(self, answer: Any, parsed: Mapping[str, Any]) -> bool:
        """A name that is taken is judged by itself (some services say it with status 409, which can mean anything elsewhere)."""
        error = parsed.get("Error", {})
        is_no = is_refusal(answer.status_code) and not is_internal(error) and not is_page(error)
        return is_no or self._job.is_conflict(error)

    def make_once(self, response: Any = None, caught_exception: Any = None, *, operation: Any = None, **_: Any) -> None:
        if caught_exception is not None and not isinstance(caught_exception, _NEVER_SENT):
            raise caught_exception
        if response is not None and (response[0].status_code >= 500 or response[0].status_code == _TIMED_OUT):
            raise ClientError(response[1], operation.name if operation is not None else self._job.operations[0])

    @_carried
    def keep(self, http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        if self._attempt.replays:
            return
        self._is_keeping = True
        try:
            if http_response.status_code < 300:
                self._keep(self._job.ids_of(parsed, self._params))
            elif self._job.is_conflict(parsed.get("Error", {})):
                self._adopt(http_response, parsed)
        finally:
            self._is_keeping = False

    def _keep(self, ids: Any) -> None:
        if ids is None:
            self._attempt.rejected(used_up=True)
        else:
            self._attempt.submitted(self._job.handle(ids))

    def _adopt(self, http_response: Any, parsed: dict[str, Any]) -> None:
        ids = self._job.ids_after_conflict(parsed, self._params, self._attempt.token)
        if ids is None:
            return
        self._keep(ids)
        http_response.status_code, response = self.answer_of_record()
        parsed.clear()
        parsed.update(response)

    def answer_of_record(self) -> tuple[int, dict[str, Any]]:
        answered = self.answer()
        assert answered is not None
        return answered[0].status_code, answered[1]

    # -- other calls --------------------------------------------------------------------------------------------------

    def see(self, model: Any, parsed: dict[str, Any], **_: Any) -> None:
        """
        Every other call on the client is a chance to write a record whose write had failed; and to notice that the credentials
        have expired: some of the provider's waits take no notice of such an answer, and would ask with them for ever.
        """
        job = self._job
        if model.name in job.operations:
            return
        job.known_account = job.account_in(model.name, parsed) or job.known_account
        self._attempt.flush()
        is_theirs = threading.get_ident() == self._thread and self._attempt.replays and not self._is_keeping
        says_no = isinstance(parsed.get("Error"), Mapping)  # Redshift's failed statement has an Error too, which is a text
        if is_theirs and says_no and job.is_expired(error := ClientError(parsed, model.name)):
            raise Raised(error)

    @_carried
    def leave(self, **_: Any) -> None:
        self._job.refuse_unseen()
        if self._job._leaves and self._attempt.handle is not None and not self._is_keeping:
            raise Left

    def leave_running(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        if self._job._sends_stop:
            return None
        self._job.log.info("resumable: the provider's %s is not sent: the wait has ended, not the job", model.name)
        return self._answered({})

    def add_token_to_setup(self, params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
        stamped = copy.deepcopy(params)
        self._job.add_token_to_setup(model.name, stamped, self._attempt.token)
        self._setup_params = stamped
        return stamped

    def answer_setup(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        # An unanswered submit went out after its setup, so that is done in this case too.
        if self._attempt.is_first_submit:
            return None
        return self._answered(self._job.setup_response(model.name, self._setup_params))

    def assume(self, model: Any, **_: Any) -> tuple[_Answered, dict[str, Any]] | None:
        return self._answered(dict(self._job.assumed[model.name])) if self._attempt.replays else None

    def accept_setup(self, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
        if http_response.status_code >= 300 and self._job.setup_exists(model.name, parsed):
            http_response.status_code = 200
            parsed.clear()
            parsed.update(self._answered(self._job.setup_response(model.name, self._setup_params))[1])
