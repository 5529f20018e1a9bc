"""
Tasks of the providers' own operators made ours when a DAG is parsed, without an edit of the DAG: ``[resumable] adopt``.

Airflow's cluster policy hook sees every task in every process that parses DAGs, the workers included. A plain task becomes one of
our class, which is below its own: it stays the same object, whoever holds it. A mapped task is given our class to make its task
instances of.

The class has the provider's name and module, so that a serialised DAG, links and other policies see the provider's operator.
Only a class of the provider's itself is taken: what a subclass does in its own ``execute`` is nobody's guess.
"""

from __future__ import annotations

import fnmatch
import logging
import pkgutil
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from resumable import host
from resumable.errors import ConfigurationError
from resumable.helpers import import_path
from resumable.identity import Relation
from resumable.jobs.operator import DurableClass, DurableTask, is_durable_class
from resumable.jobs.run import JobRun
from resumable.policy import ResumePolicy

_log = logging.getLogger("resumable")

ALL = "all"

_PROVIDERS = re.compile(r"^airflow\.providers\.(?:amazon\.aws|databricks)\.operators\.(\w+)$")

_OURS = "resumable.operators"

TAG = "tag:"
"""In ``adopt_dags`` and ``adopt_skip``: what follows is a tag of DAGs."""


@dataclass(frozen=True)
class Choice:
    """
    What the deployment wants to be adopted.

    Attributes:
        names: services (a module of `resumable.operators`), names of provider classes, their full paths, or ``all``.
        dags: shell patterns of ``dag_id.task_id`` and ``tag:…``, one of which a task has to meet; empty: any task.
        skip: the same, none of which it may meet.
    """

    names: frozenset[str]
    dags: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def names_class(self, provider: type) -> bool:
        service = _service_of(provider)
        of_class = {ALL, provider.__name__, f"{provider.__module__}.{provider.__name__}", service, _short_service(service)}
        return bool(of_class & self.names)

    def unknown_names(self) -> list[str]:
        """Those that are neither a service nor an operator class of one."""
        return sorted(name for name in self.names - {ALL} - services() if not is_known(name))

    def takes(self, task: Any) -> bool:
        """Whether the task's id and its DAG's tags are among those that are meant."""
        if not (self.dags or self.skip):
            return True
        name, tags = f"{task.dag.dag_id}.{task.task_id}", {str(tag) for tag in task.dag.tags or ()}
        return (not self.dags or _meets(name, tags, self.dags)) and not _meets(name, tags, self.skip)


def _meets(name: str, tags: set[str], patterns: tuple[str, ...]) -> bool:
    return any(
        pattern.removeprefix(TAG) in tags if pattern.startswith(TAG) else fnmatch.fnmatchcase(name, pattern)
        for pattern in patterns
    )


def choice(names: str | None = None) -> Choice:
    """What airflow.cfg says; ``names`` in the place of ``adopt``."""
    text = names if names is not None else host.setting("adopt")
    dags, skip = (tuple(_split(host.setting(name))) for name in ("adopt_dags", "adopt_skip"))
    return Choice(frozenset(_split(text)), dags, skip)


def _split(text: str | None) -> list[str]:
    return [one.strip() for one in re.split(r"[,\n]", text or "") if one.strip()]


def takes_new() -> bool:
    """Whether a task without a record is made ours: ``[resumable] adopt_new``."""
    return host.flag("adopt_new")


def adopt(task: Any) -> None:
    """
    Make the task of a DAG that is being parsed ours, if it is one of those that airflow.cfg means. Called for every task.

    An error of it never keeps a DAG from being parsed: the task then stays the provider's, and a warning says so.
    """
    if _is_suspended:
        return
    provider: Any = task.operator_class if host.is_mapped(task) else type(task)
    if not _PROVIDERS.match(provider.__module__) or is_durable_class(provider):
        return
    try:
        wanted = host.once_for_settings("adopt", choice)
        if not wanted.names_class(provider) or not wanted.takes(task) or says_not_durable(task):
            return
        ours = durable_class(provider)
        if ours is not None:
            _make(task, _adopted(ours, provider))
    except Exception as e:
        host.say_once(f"{provider.__name__} is not adopted, it stays the provider's: {type(e).__name__}: {e}")


def says_not_durable(task: Any) -> bool:
    """Whether the author said ``durable=False`` to the provider's own argument of that name (Airflow 3.3)."""
    return (task.partial_kwargs if host.is_mapped(task) else host.given(task)).get("durable") is False


def _make(task: Any, cls: type) -> None:
    """The task becomes one of ``cls``, a subclass of its own class: everybody who holds it sees the same object."""
    if host.is_mapped(task):
        host.map_over(task, cls)
        return
    host.require_store()
    before = vars(task).get("durable")
    object.__setattr__(task, "__class__", cls)
    try:
        task._resumable.decide(ResumePolicy(), durable=True, their_durable=before)
    except BaseException:
        object.__setattr__(task, "__class__", cls.__mro__[1].__mro__[1])
        raise


# -- classes --------------------------------------------------------------------------------------------------------------


def _service_of(provider: type) -> str:
    found = _PROVIDERS.match(provider.__module__)
    return found[1] if found else ""


def _short_service(service: str) -> str:
    """``databricks`` means the workflow's launch task as well."""
    return "databricks" if service == "databricks_workflow" else service


def is_known(name: str) -> bool:
    """Whether ``adopt`` may have this name of an operator class."""
    module, _, cls = name.rpartition(".")
    for service in services():
        try:
            found = vars(import_module(f"{_OURS}.{service}")).values()
        except ImportError:  # a provider that is not installed
            continue
        for ours in found:
            theirs = provider_class(ours) if is_durable_class(ours) else None
            if theirs is not None and theirs.__name__ == cls and module in ("", theirs.__module__):
                return True
    return False


@cache
def services() -> frozenset[str]:
    """What ``adopt`` may name as a service."""
    operators = import_module(_OURS)
    return frozenset(one.name for one in pkgutil.iter_modules(operators.__path__) if not one.name.startswith("_"))


def durable_class(provider: Any) -> Any:
    """Our class for an operator class of a provider; None if there is none."""
    return _durable_class(provider)


@cache
def _durable_class(provider: Any) -> Any:
    service = _service_of(provider)
    homes = sorted(one for one in services() if one == service or (service and one.startswith(f"{service}_")))
    for home in homes:  # the provider may have in one module what we have in two
        for found in vars(import_module(f"{_OURS}.{home}")).values():
            if is_durable_class(found) and provider_class(found) is provider:
                return found
    return None


def provider_class(ours: type) -> type | None:
    """The provider's operator class that one of ours stands before."""
    return next((cls for cls in ours.__mro__ if cls.__module__.startswith("airflow.providers.")), None)


def durable_class_of(task: Any) -> Any:
    """Our class for a task as Airflow's database has it, whether the DAG names ours or the provider's; None if there is none."""
    module, name = str(getattr(task, "_task_module", "")), str(task.task_type)
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return None
    if not isinstance(found, type):
        return None
    return found if is_durable_class(found) else durable_class(found)


def path_of_class(ours: type) -> str:
    """``module:Name``, as a record names its operator."""
    path = import_path(ours)
    if path is None:
        raise ConfigurationError(f"{ours} cannot be imported by its name. Nothing was done. Put it into a module.")
    return path


@cache
def _adopted(ours: Any, provider: type) -> Any:
    about = {"__module__": provider.__module__, "__qualname__": provider.__qualname__, "__doc__": provider.__doc__}
    made = type(ours)(provider.__name__, (ours,), {**about, "__reduce_ex__": _reduce})
    made._resumable = DurableClass(ours, ours._resumable.service, AdoptedTask)
    return made


class AdoptedTask(DurableTask):
    """What an adopted task has besides: the way back."""

    def runs_durable(self, context: Any) -> bool:
        self._settle_way_back(context)
        return super().runs_durable(context)

    def resume(self, method: str, kwargs: dict[str, Any] | None, context: Any, theirs: Any) -> Any:
        self._settle_way_back(context)
        return super().resume(method, kwargs, context, theirs)

    def _settle_way_back(self, context: Any) -> None:
        """With ``adopt_new = false``: exactly the provider's, unless a record says that the task is at work as ours."""
        if takes_new() or not self.is_durable or self.is_nested(context):
            return
        run = JobRun(self, context)
        record = run.records().load()
        if record is not None:
            is_open = record.outcome is None or (record.closed_at is None)
            if is_open or host.generation(run.context).relation_to(record.generation) is not Relation.CLEARED:
                return
        run.log.info("resumable: adopt_new=false and there is no job of ours to finish: the task runs as the provider's operator")
        self.turn_off()
        self.ignore_sigterm()


def _reduce(self: Any, protocol: Any) -> Any:
    """Another process finds the class by those that it was made from."""
    made: Any = type(self)
    reduced: Any = super(made, self).__reduce_ex__(protocol)
    ours = made.__mro__[1]
    return (_blank, (ours, provider_class(ours)), *reduced[2:])


def _blank(ours: Any, provider: type) -> Any:
    made = _adopted(ours, provider)
    return made.__new__(made)


# -- for those who only look ----------------------------------------------------------------------------------------------

_is_suspended = False


@contextmanager
def suspended() -> Iterator[None]:
    """While it is open, this process parses DAGs as they are written."""
    global _is_suspended  # noqa: PLW0603 - a process has one hook
    before, _is_suspended = _is_suspended, True
    try:
        yield
    finally:
        _is_suspended = before


def warm_up() -> None:
    """Import and make what adoption needs, in the process that forks one for each DAG file."""
    wanted = choice()
    if not wanted.names:
        return
    for service in services():
        is_named = {ALL, service, _short_service(service)} & wanted.names
        if is_named or any(service in name.lower() for name in wanted.names):
            try:
                found = list(vars(import_module(f"{_OURS}.{service}")).values())
            except ImportError as e:
                _log.debug("resumable: %s is not imported beforehand: %s", service, e)
                continue
            for ours in found:
                theirs = provider_class(ours) if is_durable_class(ours) else None
                if theirs is not None and (chosen := durable_class(theirs)) is not None:
                    _adopted(chosen, theirs)


__all__ = ["Choice", "adopt", "choice", "durable_class", "durable_class_of", "path_of_class", "suspended", "warm_up"]
