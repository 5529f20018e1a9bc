"""
What an operator has of ours: two arguments, the methods that Airflow calls, and one private attribute.

The methods hand on at once: what is decided for a task is in its `DurableTask`, what happens in one start of it in a `JobRun`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from resumable import host
from resumable.errors import ConfigurationError
from resumable.jobs import alarm, deferral
from resumable.jobs.author_execute import let_hand_backs_through, warn_of_own_execute
from resumable.jobs.run import JobRun
from resumable.jobs.spec import Spec
from resumable.policy import ResumePolicy, Wait

if TYPE_CHECKING:
    from resumable.jobs.service import JobService

T = TypeVar("T")

ATTRIBUTE = "_resumable"
"""The one attribute: on a class its `DurableClass`, on an operator its `DurableTask`."""


def durable_operator(service: type[JobService]) -> Callable[[type[T]], type[T]]:
    """
    Make a subclass of somebody's operator durable::

        @durable_operator(AthenaQuery)
        class ResumableAthenaOperator(AthenaOperator): ...

    It takes ``durable`` and ``resume_policy`` besides the operator's own arguments. The operator's own class stays its first
    base, so that an instance of that can become one of this.

    Args:
        service: what its jobs are at their service: a subclass of `resumable.adapters.HookCall` or `AwsCall`.

    Raises:
        ConfigurationError: the class is durable already.
    """

    def make(operator: type[T]) -> type[T]:
        if is_durable_class(operator):
            raise ConfigurationError(f"{operator.__name__} is resumable already. Use it as it is, or subclass it.")
        add_entry_points(operator, service, with_execute=True)
        return operator

    return make


def is_durable_class(cls: Any) -> bool:
    """Whether an operator's class is one of ours, or below one."""
    return isinstance(cls, type) and isinstance(getattr(cls, ATTRIBUTE, None), DurableClass)


class DurableClass:
    """
    Of a durable class: which service its jobs are of. Read on an operator, it is the `DurableTask`, which is of that very
    object: Airflow makes shallow copies of operators.
    """

    def __init__(self, operator: Any, service: type[JobService], task: type[DurableTask] | None = None) -> None:
        self.operator, self.service, self.task = operator, service, task or DurableTask

    def __get__(self, operator: Any, owner: Any = None) -> Any:
        if operator is None:
            return self
        known = vars(operator).get(ATTRIBUTE)
        if known is None or known.operator is not operator:
            known = vars(operator)[ATTRIBUTE] = self.task(operator, known)
        return known

    def __set__(self, operator: Any, value: Any) -> None:
        vars(operator)[ATTRIBUTE] = value


class DurableTask:
    """
    What one operator object has of ours.

    Attributes:
        policy: the resolved one; ``given`` is the author's.
        is_durable: False: exactly the provider's operator.
        their_durable: what the operator's own durability (Airflow 3.3) has in ``durable``, where ours is off.
        run: the start of the task that is under way.
        woken_by: what has rung the alarm of a deferral although the job may run on, in words: see `resumable.jobs.alarm`.
        has_author_around: an ``execute`` of the author's own is at work, around ours.
        is_in_authors_hands: our part is over, and he may be at work on something that his own ``on_kill`` stops.
        failed_wait: a deferral has ended with this error although the job is done: there is none for it once more.
        asks_trigger_itself: the operator defers for the sake of its trigger's word alone, which is asked for in this process.
        token: of the submission that is under way, for `ResumableMixin.idempotency_token`.
        their_token: the token that the author gave to an operator made by `resumable.make_resumable`.
    """

    def __init__(self, operator: Any, copied: DurableTask | None = None) -> None:
        self.operator = operator
        self.given: ResumePolicy = copied.given if copied else ResumePolicy()
        self.policy: ResumePolicy = copied.policy if copied else self.given
        self.is_durable: bool = copied.is_durable if copied else True
        self.their_durable: bool | None = copied.their_durable if copied else None
        self.run: JobRun | None = None
        self.failed_wait: Exception | None = None
        self.woken_by = ""
        self.token: str | None = None
        self.their_token: str | None = copied.their_token if copied else None
        self._written: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None
        self._was_told_early = self._is_at_work = self._is_over = self.asks_trigger_itself = False
        self.has_author_around = self.is_in_authors_hands = False

    @property
    def of(self) -> DurableClass:
        found: DurableClass = getattr(type(self.operator), ATTRIBUTE)
        return found

    # -- the arguments ------------------------------------------------------------------------------------------------

    def decide(self, policy: ResumePolicy, *, durable: bool, their_durable: bool | None) -> None:
        """
        What the author, or airflow.cfg, has asked for.

        Raises:
            ConfigurationError: it cannot be had with this operator.
        """
        operator = self.operator
        self.given, self.policy = policy, host.resolved_policy(policy)
        self.is_durable, self.their_durable = durable, their_durable
        vars(operator).update(durable=durable, resume_policy=self.policy)
        if not durable:
            return
        service = self.of.service
        if self.policy.frees_the_slot:
            self._settle_wait()
        service.check_operator(operator)
        if policy.job_timeout is not None and not service.can_stop(operator):
            raise ConfigurationError(
                f"job_timeout={policy.deadline:g} needs a way to stop the job, and {type(operator).__name__} has none. Nothing "
                "was submitted. Implement cancel_job, or leave job_timeout out."
            )

    def use(self, policy: ResumePolicy) -> None:
        """Replace the resolved policy."""
        self.policy = vars(self.operator)["resume_policy"] = policy

    def _settle_wait(self) -> None:
        """What cannot be is an error where the author asked for it; where airflow.cfg did, it yields."""
        given, where, wait = self.given, "airflow.cfg [resumable]", cast("Wait", self.policy.wait)
        if wait is Wait.DEFER and given.wait is None and getattr(self.operator, "deferrable", False):
            self.use(replace(self.policy, wait=Wait.POLL))  # the author asked for the provider's trigger
            return
        if wait is Wait.RESCHEDULE and given.wait_interval is None and self.policy.interval < least_interval():
            host.say_once(f"{where}: wait_interval={self.policy.interval:g} is too near for the scheduler; it is taken for 60")
            self.use(replace(self.policy, wait_interval=60.0))
        try:
            if wait is Wait.DEFER:
                alarm.require(self.operator, self.of.service)
            else:
                self._check_reschedule()
        except ConfigurationError as e:
            if given.wait is not None:
                raise
            why, name = str(e).partition(" Nothing was submitted.")[0], type(self.operator).__name__
            host.say_once(f"{where}: wait={wait.value} is not followed by {name}, which waits as it does without. {why}")
            self.use(replace(self.policy, wait=Wait.POLL))

    def _check_reschedule(self) -> None:
        floor = least_interval()
        if self.policy.interval < floor:
            raise ConfigurationError(
                f"wait_interval={self.policy.interval:g} is less than {floor:g} seconds. Nothing was submitted. A date that near "
                "loses a race in the scheduler; give more, or lower [resumable] hand_back_seconds where that is safe."
            )
        if getattr(self.operator, "deferrable", False):
            raise ConfigurationError(
                "deferrable=True and wait='reschedule' both give the worker slot back. Nothing was submitted. Choose one."
            )
        self.of.service.check_reschedule(self.operator)

    # -- a start of the task ------------------------------------------------------------------------------------------

    def execute(self, context: Any, theirs: Callable[..., Any]) -> Any:
        """Run ``theirs``, the operator's own ``execute``, so that its one job is submitted once."""
        if not self.runs_durable(context):
            if self.their_durable is not None:
                vars(self.operator)["durable"] = self.their_durable
            return theirs(context)
        run = JobRun(self, context)
        return run.perform(lambda: run.service.execute(lambda: run.call_theirs(theirs)))

    def runs_durable(self, context: Any) -> bool:
        """Whether this start is ours. One inside another task is not: a task has one record, for one job."""
        if self.is_durable and self.is_nested(context):
            self.turn_off()
            self.their_durable = None  # it would mix two jobs up as well
            self.operator.log.warning(
                "resumable: %s is executed inside task %s and is not made durable: a task has one record, for one job. A retry "
                "of that task starts this job again. Make a task of its own of it, or write the outer task as a ResumableMixin.",
                type(self.operator).__name__,
                context["task"].task_id,
            )
        return self.is_durable

    def turn_off(self) -> None:
        self.is_durable = vars(self.operator)["durable"] = False

    def is_nested(self, context: Any) -> bool:
        """Whether this operator is run by hand, inside another task."""
        task = context.get("task") if isinstance(context, Mapping) else None
        outer = getattr(task, "task_id", None)
        if task is self.operator or not isinstance(outer, str):
            return False
        return outer != self.operator.task_id or (
            isinstance(task, host.base_operator()) and type(task) is not type(self.operator)
        )

    def resume(self, method: str, kwargs: dict[str, Any] | None, context: Any, theirs: Callable[..., Any]) -> Any:
        """The way back from a deferral."""
        return deferral.resume(self, method, dict(kwargs or {}), context, theirs)

    # -- a stop -------------------------------------------------------------------------------------------------------

    def begin_work(self) -> None:
        """
        From here on Airflow's signal handler calls ours, whatever ``on_kill`` the operator's classes have: those cancel the job,
        and an eviction is no reason to. What they do is kept for the stops that are meant for the job.
        """
        self._is_at_work, self._is_over = True, False
        self.hear_of_sigterm()

    def end_work(self) -> None:
        self._was_told_early, self._is_over = False, True

    def hear_of_sigterm(self) -> None:
        vars(self.operator)["on_kill"] = self.on_sigterm

    def ignore_sigterm(self) -> None:
        """Airflow's handler calls the operator's own ``on_kill`` again."""
        if vars(self.operator).get("on_kill") == self.on_sigterm:
            del vars(self.operator)["on_kill"]

    @property
    def was_told_early(self) -> bool:
        """A SIGTERM has come before anybody stood by for it."""
        return self._was_told_early

    def on_sigterm(self) -> None:
        watch = self.run.watch if self.run is not None else None
        if watch is not None:
            watch.notice()
        elif not self._is_over or self.is_in_authors_hands:  # Airflow calls on_kill also after an execution_timeout
            self._was_told_early |= not self._is_over
            if self.is_in_authors_hands or not self._is_at_work:  # an `execute` of a subclass may start a job by itself
                self._call_on_kill()

    def _call_on_kill(self) -> None:
        try:
            type(self.operator).on_kill(self.operator)
        except Exception as e:  # most often there is no job yet
            self.operator.log.warning("resumable: on_kill failed: %r", e)

    # -- the spec -----------------------------------------------------------------------------------------------------

    def note_written(self) -> None:
        """Before templates are rendered: the last sight of what the author wrote. A stop may come before `execute`."""
        if self.is_durable:
            self._written = self._as_written()
            self.hear_of_sigterm()

    def _as_written(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The fields that make up the job, and what the operator was called with."""
        try:
            return self.of.service.spec_values(self.operator), host.given(self.operator)
        except Exception as e:
            self.operator.log.debug("resumable: an edit of this task cannot be told: %r", e)
            return {}, {}

    def spec(self, context: Any) -> Spec:
        """The fingerprint. Never an error: what cannot be told is not comparable, and so no edit."""
        values, called_with = self._written or self._as_written()
        try:
            return host.spec(self.operator, values, called_with, context) if values else Spec()
        except Exception as e:
            self.operator.log.debug("resumable: an edit of this task cannot be told: %r", e)
            return Spec()


# -- the entry points ---------------------------------------------------------------------------------------------------------


def add_entry_points(cls: Any, service: type[JobService], *, with_execute: bool) -> None:  # noqa: C901 - six short methods
    """Give a class the methods by which Airflow comes to us; each calls the one of the classes behind ``cls`` in its turn."""

    @host.apply_defaults
    def __init__(  # noqa: N807
        self: Any,
        *,
        durable: bool = True,
        resume_policy: ResumePolicy | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        policy = _checked(durable, resume_policy)
        if durable:
            host.require_store()
            if _frees_the_slot(type(self), policy) or type(self)._resumable.service.submits_undeferred:
                kwargs = _undeferred(type(self), kwargs)
        super(cls, self).__init__(**kwargs)
        theirs = vars(self).get("durable")
        if not durable and theirs is not None and "durable" in (kwargs.get("default_args") or {}):  # it was meant for us
            theirs = host.durable_by_default(type(self))
        self._resumable.decide(policy, durable=durable, their_durable=theirs)

    def execute(self: Any, context: Any, **_: Any) -> Any:
        return self._resumable.execute(context, functools.partial(_execute_of, super(cls, self), self))

    def defer(self: Any, **kwargs: Any) -> Any:
        return deferral.defer(self._resumable, super(cls, self).defer, **kwargs)

    def resume_execution(self: Any, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> Any:
        return self._resumable.resume(next_method, next_kwargs, context, super(cls, self).resume_execution)

    def _do_render_template_fields(self: Any, parent: Any, *args: Any, **kwargs: Any) -> None:
        """Called for plain and for mapped tasks."""
        if parent is self:
            self._resumable.note_written()
        super(cls, self)._do_render_template_fields(parent, *args, **kwargs)

    def partial(klass: Any, /, **kwargs: Any) -> Any:  # of a mapped task, which is made only when it runs
        _checked(kwargs.get("durable", True), kwargs.get("resume_policy"))
        return super(cls, klass).partial(**kwargs)

    def __init_subclass__(klass: Any, /, **kwargs: Any) -> None:  # noqa: N807
        super(cls, klass).__init_subclass__(**kwargs)
        warn_of_own_execute(klass)
        let_hand_backs_through(klass)
        klass._resumable.service.adapt_class(klass)

    methods = [__init__, defer, resume_execution, _do_render_template_fields]
    if with_execute:
        methods.append(execute)
        cls.__init_subclass__ = classmethod(__init_subclass__)
    method: Any
    for method in methods:
        inspect.unwrap(method).__qualname__ = method.__qualname__ = f"{cls.__name__}.{method.__name__}"
        setattr(cls, method.__name__, method)
    cls.partial = classmethod(partial)
    host.start_again_in_time(cls)
    setattr(cls, ATTRIBUTE, DurableClass(cls, service))
    service.adapt_class(cls)


def _checked(durable: Any, resume_policy: Any) -> ResumePolicy:
    """The policy. Raises: ConfigurationError: one of the two arguments is none."""
    if not isinstance(durable, bool):
        raise ConfigurationError(f"durable={durable!r} is neither True nor False. Nothing was submitted. Give a bool.")
    return ResumePolicy.of(resume_policy)


def _execute_of(above: Any, operator: Any, context: Any) -> Any:
    return above.execute(context, **host.execute_guard(operator))


def least_interval() -> float:
    """The least ``wait_interval`` that an author may give. A larger ``hand_back_seconds`` is heeded when a look is put off."""
    return min(host.hand_back_seconds(), host.HAND_BACK)


def _frees_the_slot(cls: Any, policy: ResumePolicy) -> bool:
    """Whether airflow.cfg's default to be deferrable yields: to the author's ``wait``, or to its own ``wait = defer``."""
    if policy.wait is not None:
        return policy.frees_the_slot
    return host.resolved_policy(policy).wait is Wait.DEFER and _can_be_reached(cls)


@functools.cache
def _can_be_reached(cls: Any) -> bool:
    return bool(cls._resumable.service.can_be_reached(cls))


def _undeferred(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """``arguments`` with ``deferrable=False``, where only airflow.cfg says otherwise: it yields to what the author asks for."""
    if "deferrable" in arguments or "deferrable" in (arguments.get("default_args") or {}) or not _can_defer(cls):
        return arguments
    return {**arguments, "deferrable": False}


@functools.cache
def _can_defer(cls: type) -> bool:
    inits = (vars(klass)["__init__"] for klass in cls.__mro__ if "__init__" in vars(klass) and klass is not object)
    return any("deferrable" in inspect.signature(init).parameters for init in inits)
