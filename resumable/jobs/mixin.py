"""`ResumableMixin`: a custom operator made durable by six methods."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from resumable import host
from resumable.errors import ConfigurationError, JobNotFound
from resumable.helpers import replaced
from resumable.jobs.author_execute import let_hand_backs_through
from resumable.jobs.methods import OperatorMethods
from resumable.jobs.operator import DurableTask, add_entry_points
from resumable.jobs.rejection import is_only_of_the_wait, proves_nothing_made
from resumable.jobs.run import JobRun


class ResumableMixin(ABC):
    """
    Makes a custom operator durable: submits once, reattaches after a crash, delivers the same result on every way.

    The six methods are those of Airflow 3.3's own ``ResumableJobMixin``, so an operator written for that one runs on this one
    by changing the import. Call ``execute_resumable`` from ``execute``::

        class TrainOperator(ResumableMixin, BaseOperator):
            template_fields = ("spec",)

            def execute(self, context):
                return self.execute_resumable(context)

            def submit_job(self, context):
                return client.start(self.spec, request_id=self.idempotency_token)

    What else you can give, and what it buys:

    - ``self.idempotency_token`` sent with the submit: a submit whose answer was lost is repeated safely.
    - ``find_job``: the same, for a service that knows no tokens but lets you stamp one on the job and look it up.
    - ``cancel_job``: a user's stop cancels the job, and ``restart`` policies work.
    - ``is_job_failed``: a status that is none of active, succeeded, failed counts as unknown, and is waited out.
    - raise `resumable.JobNotFound` in ``get_job_status`` when the service no longer knows the job.
    - raise `resumable.NotSubmitted` in ``submit_job`` when it is certain that no job was made. A reschedule, a skip, or a
      deferral that comes back to ``execute``, says so as well.

    Without token and ``find_job``, a submit that ended in anything but a job's id, or in a proof that there is none (see
    `is_rejection`), is never repeated by itself: the retry fails with a message that says what to check, until the task is
    cleared.
    """

    service: str = ""
    """Name of the service in logs and records; the class's name by default."""

    submit_is_idempotent: bool | None = None
    """Whether ``submit_job`` may be repeated under the same ``idempotency_token``. None: it may if the class uses the token."""

    settle_time: float | timedelta = 30.0
    """Seconds, or a timedelta, after a submit before ``find_job``'s None, or a `JobNotFound`, is believed."""

    spec_fields: ClassVar[Sequence[str] | None] = None
    """Attributes that make up the job's spec: an edit of one is a change of the job. Default: the template fields, without those
    that say how the job is reached, waited for or logged (`resumable.jobs.spec.WAITED_FOR_OR_LOGGED`)."""

    reach_fields: ClassVar[Sequence[str] | None] = None
    """
    The attributes that are enough to look at the job and to cancel it: the name of the connection, and plain settings by which
    states are told apart. They are kept in the record, so that a stop reaches a job whose task no process holds at that moment
    (`resumable.sweep`): there, the operator has these, the defaults of its arguments and the class's own attributes.

    Strings, numbers, booleans, None. What says where requests go or as whom (a host, a URL, a proxy, ``verify``, a role, a
    config) belongs into the connection: a task can write anything into its record, so such names and values are neither kept
    nor read. If ``reach_fields`` is None, such a job is reported and not stopped.
    """

    if TYPE_CHECKING:
        _resumable: DurableTask

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order, base = cls.__mro__, host.base_operator()
        if base in order and order.index(base) < order.index(ResumableMixin):
            raise ConfigurationError(
                f"class {cls.__name__}: ResumableMixin stands behind {base.__name__}, where Airflow does not come to it. Write "
                f"it first: class {cls.__name__}(ResumableMixin, {base.__name__})."
            )
        let_hand_backs_through(cls)

    # -- to be implemented --------------------------------------------------------------------------------------------

    @abstractmethod
    def submit_job(self, context: Any) -> Any:
        """Start the job; return its id: a JSON value, neither None nor empty (0 is an id)."""

    @abstractmethod
    def get_job_status(self, external_id: Any, context: Any) -> str:
        """Ask the service for the job's status. Raise `JobNotFound` if it knows no such job; any other error means unknown."""

    @abstractmethod
    def is_job_active(self, status: str) -> bool:
        """Whether the job with this status still runs or will."""

    @abstractmethod
    def is_job_succeeded(self, status: str) -> bool:
        """Whether the job with this status has succeeded."""

    @abstractmethod
    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        """Block until the job has ended; raise if it failed. May be called for a job that another attempt started."""

    @abstractmethod
    def get_job_result(self, external_id: Any, context: Any) -> Any:
        """The task's return value. Called on every way to success, also for a job that ended while nobody watched."""

    # -- optional -----------------------------------------------------------------------------------------------------

    def cancel_job(self, external_id: Any, context: Any) -> None:
        """Ask the service to stop the job: one request, no waiting. May be called twice, also for a job that has ended."""
        raise NotImplementedError("this operator has no cancel_job")

    def find_job(self, token: str, context: Any) -> Any:
        """
        The id of the job that was submitted with ``token``; None, or raise `JobNotFound`, if there is certainly none. Any other
        error means doubt.
        """
        raise NotImplementedError("this operator has no find_job")

    def is_job_failed(self, status: str) -> bool:
        """
        Whether the job with this status has failed. Default: every status that is neither active nor succeeded, but an empty one
        (None, ``""``), which says nothing of the job: it counts as unknown.
        """
        return not self.is_job_active(status) and not self.is_job_succeeded(status)

    def is_wait_trouble(self, error: BaseException) -> bool:
        """
        Whether an exception of ``poll_until_complete``, while the job is active or has succeeded, is only the wait's. Default:
        what speaks of a request or its answer (no connection, a time-out, a status of HTTP or gRPC, an answer that cannot be
        read), whatever the client library; what you raise for a job that failed is none.
        """
        is_trouble = isinstance(error, JobNotFound) or is_only_of_the_wait(error)  # one answer of a list that lags, or of a proxy
        return is_trouble and not host.is_final(error)

    def is_rejection(self, error: BaseException) -> bool:
        """
        Whether an error of ``submit_job`` proves that no job was made. Everything else leaves a doubt.

        Default: a 4xx answer (not 408, 409, 429) of whatever client library, no connection (refused, DNS, TLS), an unknown
        Airflow connection, `NotSubmitted`.
        """
        return proves_nothing_made(error)

    # -- given --------------------------------------------------------------------------------------------------------

    @property
    def idempotency_token(self) -> str:
        """
        48 hex characters that name this submission: send them with the submit. The same on every try until the job was seen to
        have failed or the task was cleared. With ``durable=False``, or in an operator that runs inside another task, each call of
        ``submit_job`` has one of its own.

        Raises:
            RuntimeError: read outside of ``submit_job``.
        """
        token = self._resumable.token
        if token is None:
            raise RuntimeError("idempotency_token is known while submit_job runs under execute_resumable, and not before")
        return token

    def execute_resumable(self, context: Any) -> Any:
        """Submit or reattach, wait, return ``get_job_result``: the same on a fresh, a reattached and a finished job."""
        if not self._resumable.runs_durable(context):
            with replaced(self._resumable, token=secrets.token_hex(24)):
                external_id = self.submit_job(context)
            self.poll_until_complete(external_id, context)
            return self.get_job_result(external_id, context)
        run = JobRun(self._resumable, context)
        return run.perform(lambda: run.service.execute(lambda: None))


add_entry_points(ResumableMixin, OperatorMethods, with_execute=False)
