"""A durable class for any operator that has the six methods of Airflow's own ``ResumableJobMixin``."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any, TypeVar, cast

from resumable import host
from resumable.errors import ConfigurationError
from resumable.jobs.attempt import Attempt
from resumable.jobs.code import reached_from
from resumable.jobs.methods import OperatorMethods
from resumable.jobs.mixin import ResumableMixin
from resumable.jobs.operator import ATTRIBUTE, DurableClass, DurableTask, is_durable_class
from resumable.jobs.service import call_on_kill

T = TypeVar("T")

METHODS = (
    "submit_job",
    "get_job_status",
    "is_job_active",
    "is_job_succeeded",
    "poll_until_complete",
    "get_job_result",
)
"""What an operator must have: the six methods of ``airflow.sdk.ResumableJobMixin``."""

OPTIONAL = ("cancel_job", "find_job", "is_job_failed", "is_rejection")
"""What is taken from an operator that has it, as `ResumableMixin` describes it."""

_WAIT_ARGUMENTS = ("wait_for_completion", "wait_for_termination")
_OURS = ("service", "settle_time", "spec_fields", "submit_is_idempotent")


def make_resumable(operator: type[T]) -> type[T]:
    """
    Return the durable class of an operator that somebody else wrote for Airflow's ``ResumableJobMixin``.

    It has the operator's name and arguments, plus ``durable`` and ``resume_policy``; Airflow's own durability is off under ours.
    The same operator gives the same class in one module. Bind it to the operator's own name, in a module: then the class can be
    pickled as well. Add ``cancel_job`` or ``find_job`` in a subclass (see `ResumableMixin` for what they buy)::

        GlueJobOperator = make_resumable(glue.GlueJobOperator)

    An operator with an ``idempotency_token`` argument of its own gets our token there, unless the DAG's author gives one.

    Args:
        operator: a class that has the six methods, and whose ``execute`` calls ``execute_resumable``. ``deferrable=True`` is
            refused when the DAG is parsed, because such operators then submit by another way.

    Raises:
        ConfigurationError: it lacks one of the methods, never calls ``execute_resumable``, or is one of ours already.
    """
    module = sys._getframe(1).f_globals.get("__name__", __name__)  # as namedtuple finds its caller
    made: type[T] = _made(cast("Any", operator), module)
    return made


@functools.cache
def _made(operator: Any, module: str) -> Any:
    _check(operator)
    taken = {name: inspect.getattr_static(operator, name) for name in (*METHODS, *OPTIONAL) if hasattr(operator, name)}
    if "idempotency_token" in _arguments(operator):
        taken |= {"idempotency_token": _shared_token, "submit_is_idempotent": True}
    about = {
        "__module__": module,
        "__qualname__": operator.__qualname__,
        "__doc__": operator.__doc__,
        "_resumable_made_from": (operator, module),
    }
    return type(operator)(operator.__name__, (_Adapted, operator), {**taken, **about})


def _is_written(method: Any) -> bool:
    """Not if it is Airflow's own: abstract in its mixin, or, in 3.3.0, a method that raises."""
    is_theirs = str(getattr(method, "__module__", "")).endswith(".resumablejobmixin")
    return not (method is None or getattr(method, "__isabstractmethod__", False) or is_theirs)


def _check(operator: Any) -> None:
    name = getattr(operator, "__name__", repr(operator))
    if not isinstance(operator, type) or not issubclass(operator, host.base_operator()):
        raise ConfigurationError(f"make_resumable({name}): it is no operator class. Give a subclass of BaseOperator.")
    if is_durable_class(operator):
        raise ConfigurationError(f"make_resumable({name}): it is resumable already. Use it as it is.")
    missing = [name for name in METHODS if not _is_written(getattr(operator, name, None))]
    if missing:
        raise ConfigurationError(
            f"make_resumable({name}): it has no {', '.join(missing)}. It needs the six methods of Airflow's ResumableJobMixin. "
            "Write them in a subclass, or an adapter for the call that submits: docs/custom-operators.md has both."
        )
    if "execute_resumable" not in reached_from(operator, "execute"):
        raise ConfigurationError(
            f"make_resumable({name}): its execute never calls execute_resumable, so nothing of it would be durable. Call it in "
            "an execute of a subclass: `return self.execute_resumable(context)`."
        )
    if clash := sorted(set(_OURS) & _arguments(operator)):
        raise ConfigurationError(
            f"make_resumable({name}): its arguments {clash} have the names of settings of ResumableMixin. Write a class on "
            "ResumableMixin instead: docs/custom-operators.md."
        )


def _arguments(operator: Any) -> set[str]:
    return {name for cls in operator.__mro__ if "__init__" in vars(cls) for name in inspect.signature(cls.__init__).parameters}


class AdaptedMethods(OperatorMethods):
    """What is different where the operator was written for Airflow's own mixin."""

    submits_undeferred = True

    @classmethod
    def check_operator(cls, operator: Any) -> None:
        super().check_operator(operator)
        if getattr(operator, "deferrable", False):
            raise ConfigurationError(
                f"{type(operator).__name__}(deferrable=True): a deferrable operator submits by another way than submit_job, "
                "which make_resumable cannot make durable. Nothing was submitted. Give deferrable=False, with "
                "resume_policy={'wait': 'reschedule'} to free the worker slot while the job runs; or durable=False."
            )

    def waits(self) -> bool:
        return all(getattr(self.operator, name, True) for name in _WAIT_ARGUMENTS)

    def own_token(self) -> str | None:
        own = self.run.task.their_token
        if not own:
            return None
        self.log.warning(
            "resumable: idempotency_token=%r is yours. It keeps crashes from starting a second job, but a retry after a failed "
            "job, or a clear, is answered with the old job. Leave it unset to get a token per submission.",
            own,
        )
        return str(own)

    def is_given(self, token: str) -> bool:
        return token == self.run.task.their_token or super().is_given(token)

    def stop_job(self, attempt: Attempt, why: str) -> bool:
        kind = type(self.operator)
        if not self.has_own_on_kill() or kind.cancel_job is not ResumableMixin.cancel_job:
            return super().stop_job(attempt, why)
        return call_on_kill(self.operator, attempt, why) and attempt.has_ended()


class _Adapted(ResumableMixin):
    """What a made class has besides the methods of its operator."""

    _resumable_made_from: tuple[Any, str]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Where the class is bound to another name than its own, instances are pickled by what it was made from."""
        reduced: Any = super().__reduce_ex__(protocol)
        made = type(self)
        if (
            "_resumable_made_from" in vars(made)
            and getattr(sys.modules.get(made.__module__), made.__qualname__, None) is not made
        ):
            return (_blank, made._resumable_made_from, *reduced[2:])
        return reduced


def _blank(operator: Any, module: str) -> Any:
    made = _made(operator, module)
    return made.__new__(made)


def _token_to_send(self: Any) -> Any:
    ours: DurableTask = self._resumable
    return ours.their_token or ours.token


def _keep_their_token(self: Any, token: Any) -> None:
    self._resumable.their_token = token


_shared_token = property(_token_to_send, _keep_their_token)
"""``idempotency_token`` of an operator that has such an argument: the author's if there is one, else ours while it submits."""

setattr(_Adapted, ATTRIBUTE, DurableClass(_Adapted, AdaptedMethods))
