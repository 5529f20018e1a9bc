"""
What Airflow has of a running task: which task instance, and which start of it, its context is of; what its author wrote (the DAG
file's text, the arguments, what a mapped task was given).
"""

from __future__ import annotations

import inspect
import logging
import tokenize
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from resumable import host
from resumable.errors import StateStoreError
from resumable.host import _three, _two
from resumable.host.versions import exception, first_of
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.spec import Spec, is_of_the_job
from resumable.stores.memory import MemoryStore

_log = logging.getLogger("resumable")


def task_context(context: Any, operator: Any) -> Mapping[str, Any]:
    """
    ``context`` where it tells which task instance runs; else, in somebody's unit test, one that does.

    A supervisor gives every task a whole context; so where there is one, nothing is put in its place.
    """
    if tells_the_task(context) or isinstance(context, Rehearsal) or (host.has_sdk() and _three.supervisor() is not None):
        return cast("Mapping[str, Any]", context)
    _log.warning(
        "resumable: the context of %s tells of no task instance (a unit test?): its record is kept in memory for this call",
        getattr(operator, "task_id", type(operator).__name__),
    )
    return Rehearsal(context, operator)


def started_at(context: Mapping[str, Any]) -> float | None:
    """When the task's try was started first, deferrals aside, in seconds since the epoch. None: Airflow does not say."""
    date = getattr(context["ti"], "start_date", None)
    return None if date is None else float(date.timestamp())


def given_context(context: Any) -> Any:
    """What ``execute`` was called with."""
    return context.given if isinstance(context, Rehearsal) else context


def is_run_by_airflow(context: Mapping[str, Any]) -> bool:
    """Whether a scheduler has started this task, so that another process may have to go on from its record."""
    return _three.supervisor() is not None if host.has_sdk() else _two.is_run_by_airflow(context["ti"])


def task_identity(context: Mapping[str, Any]) -> TaskIdentity:
    ti, loop = context["ti"], context.get("loop")
    index = -1 if ti.map_index is None else ti.map_index
    task = TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, index, host.setting("namespace") or "")
    region, iteration = _region_of(ti), getattr(loop, "index", None)
    return task if region is None or not isinstance(iteration, int) else replace(task, iteration=iteration, region=region)


def _region_of(ti: Any) -> str | None:
    """See `resumable.identity.Generation.region`."""
    region = getattr(ti, "region_id", None)
    return region.hex if isinstance(region, uuid.UUID) and region.int else None


def generation(context: Mapping[str, Any]) -> Generation:
    run = context["dag_run"]
    started = run.start_date
    return Generation(
        max_tries=context["ti"].max_tries,
        clear_number=getattr(run, "clear_number", None),
        run_started=started.isoformat() if started else None,
        retries=getattr(context.get("task"), "retries", None),
        region=_region_of(context["ti"]),
    )


def kept_by_operator(context: Mapping[str, Any], key: str) -> Any:
    """
    What the operator's own durability has kept in task state (Airflow 3.3 and later), None if it is nothing.

    Raises:
        StateStoreError: the store does not answer.
    """
    store = context.get("task_state_store")
    if store is None:
        return None
    try:
        return store.get(key)
    except Exception as e:
        raise StateStoreError(
            f"Task state does not answer ({e!r}). Nothing was submitted; a job of an earlier try may be running. Check the API "
            "server.",
            next_try="asks again",
        ) from e


def may_be_cleared(context: Mapping[str, Any]) -> bool:
    """
    Whether the running task may have been cleared at some time: with no record to compare, each sign of it counts.

    A clear makes ``max_tries`` the try of that moment and ``retries`` more.
    """
    now = generation(context)
    cleared_at = now.max_tries - (now.retries or 0)
    return bool(now.clear_number) or 0 < cleared_at < context["ti"].try_number


def may_have_lost_its_record(context: Mapping[str, Any]) -> bool:
    """
    Whether this is the first try after a clear, under an Airflow that deletes what is kept of a task with a clear (3.4), and in
    its own store. `resumable.cleanup.listener` keeps it from that where the API server has this library.
    """
    ti, now = context["ti"], generation(context)
    is_discarded = getattr(ti, "region_id", None) is not None and context.get("task_state_store") is not None
    return is_discarded and not host.setting("store") and 0 < now.max_tries - (now.retries or 0) == ti.try_number - 1


def current_context() -> Mapping[str, Any]:
    """
    The context of the task that this process runs.

    Raises:
        RuntimeError: it runs none.
    """
    find = first_of("get_current_context", "airflow.sdk", "airflow.operators.python")
    try:
        context: Mapping[str, Any] = find()
    except exception("AirflowException") as e:  # Airflow 2's
        raise RuntimeError(str(e)) from e
    return context


def current_try_number() -> int | None:
    """The try of the task that this process runs; None if it runs none, as a unit test that calls ``execute``."""
    try:
        return int(current_context()["ti"].try_number)
    except (RuntimeError, KeyError, AttributeError, TypeError, ValueError):
        return None


# -- without a task instance --------------------------------------------------------------------------------------------------


class Rehearsal(dict[str, Any]):
    """
    What takes the place of a context that tells of no task instance: users' unit tests call ``execute({})``, or give a mock.

    Nothing that is kept under such a context outlives the call, so that one test does not find the job of another.

    Args:
        given: the context that ``execute`` was called with, for the operator's own code.
        operator: that is executed.
    """

    def __init__(self, given: Any, operator: Any) -> None:
        super().__init__(ti=_TaskInstance(operator), dag_run=_Run(), task=operator)
        self.given, self.store = given, MemoryStore()


class _TaskInstance:
    dag_id, map_index = "no_dag", -1
    try_number, max_tries, start_date = 1, 0, None

    def __init__(self, operator: Any) -> None:
        self.task_id = str(getattr(operator, "task_id", "no_task"))
        self.run_id = f"no_run_{uuid.uuid4().hex}"  # a token of its own

    def get_task_states(self, **_: Any) -> dict[str, Any]:
        return {self.run_id: {self.task_id: "running"}}


class _Run:
    start_date = clear_number = None


def tells_the_task(context: Any) -> bool:
    """Whether ``context`` says which task instance it is of."""
    try:
        ti, run = context["ti"], context["dag_run"]
        values = (ti.dag_id, ti.run_id, ti.task_id, ti.try_number, ti.max_tries)
    except (LookupError, TypeError, AttributeError):
        return False
    has_index = isinstance(getattr(ti, "map_index", None), int | None)
    has_start = isinstance(getattr(run, "start_date", None), datetime | None)
    kinds = zip(values, (str, str, str, int, int), strict=True)
    return isinstance(context, Mapping) and has_index and has_start and all(isinstance(value, kind) for value, kind in kinds)


# -- as its author wrote it ---------------------------------------------------------------------------------------------------

Path = tuple[Any, ...]
"""Name of a field, then keys and indexes into its value."""


def spec(operator: Any, values: Mapping[str, Any], called_with: Mapping[str, Any], context: Mapping[str, Any]) -> Spec:
    """
    The fingerprint of what ``operator`` is about to submit, for `resumable.jobs.decision.decide`.

    Args:
        operator: after templates were rendered.
        values: the fields that make up its job, as they were before.
        called_with: `given`, from before.
        context: of the attempt.
    """
    map_index = host.task_identity(context).map_index
    fields, received = written_and_received(operator, values, called_with, map_index)
    of_airflow = inspect.signature(host.base_operator().__init__).parameters
    items = {name: item for name, item in received.items() if name not in of_airflow and is_of_the_job(name)}
    text = dag_text(operator)
    own = str(operator.task_id)
    return Spec.of(fields, text, defaults=defaults(type(operator)), given=called_with, items=items, task_id=own)


def dag_text(operator: Any) -> str | None:
    """The text of the operator's DAG file; None if it has none or it cannot be read (a zip, a notebook)."""
    try:
        with tokenize.open(operator.dag.fileloc) as file:  # as Python decodes it
            return file.read()
    except Exception:
        return None


def given(operator: Any) -> Mapping[str, Any]:
    """What an operator was called with, before its ``__init__`` made something else of it."""
    return dict(getattr(operator, "_BaseOperator__init_kwargs", {}))


def defaults(operator_class: type) -> Mapping[str, Any]:
    """The defaults of all arguments that an operator's classes declare, by name."""
    found: dict[str, Any] = {}
    for cls in operator_class.__mro__:
        init = vars(cls).get("__init__")
        if init is None or cls is object:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):
            continue
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                found.setdefault(parameter.name, parameter.default)
    return found


def from_upstream(operator: Any, map_index: int, called_with: Mapping[str, Any]) -> dict[str, Any]:
    """
    What upstream tasks gave a mapped task, by argument: of ``expand`` and ``expand_kwargs`` over their results.

    A list that the DAG file itself holds or makes is no such thing.
    """
    mapped = operator.dag.task_dict.get(operator.task_id)
    get_input = getattr(mapped, "_get_specified_expand_input", None)
    if get_input is None:
        return {}
    source = get_input().value
    if isinstance(source, Mapping):
        return {name: called_with[name] for name, value in source.items() if _is_upstreams(value) and name in called_with}
    if isinstance(source, Sequence):  # expand_kwargs([...]), where an element may be the result of a task
        if isinstance(source[map_index], Mapping):
            return {}
    elif not _is_upstreams(source):
        return {}
    return _of_expand_kwargs(operator, mapped, called_with)


def _of_expand_kwargs(operator: Any, mapped: Any, called_with: Mapping[str, Any]) -> dict[str, Any]:
    written = {"task_id", "dag", "task_group", "start_date", "end_date", "params", "default_args", *mapped.partial_kwargs}
    usual = _default_args(operator)
    return {
        name: value for name, value in called_with.items() if name not in written and not (name in usual and usual[name] is value)
    }


def mapped_item(context: Mapping[str, Any]) -> dict[str, Any]:
    """
    What a mapped task, or a task of a mapped group, was given of the list that it is mapped over, by argument.

    Empty of any other task, and where that cannot be told: of a task of a group that is not called with the group's argument.
    """
    operator = context["ti"].task
    if host.task_identity(context).map_index < 0:
        return {}
    called_with = given(operator)
    fields = {name: called_with[name] for name in operator.template_fields if name in called_with}
    found = {
        ".".join(map(str, path)): _at(getattr(operator, path[0]), path[1:])
        for path, _ in group_arguments({name: value for name, value in fields.items() if value is not None})
    }
    mapped = operator.dag.task_dict.get(operator.task_id)
    get_input = getattr(mapped, "_get_specified_expand_input", None)
    if get_input is None:
        return found
    source, is_function = get_input().value, hasattr(mapped, "op_kwargs_expand_input")  # of @task
    values = called_with["op_kwargs"] if is_function else called_with
    if isinstance(source, Mapping):
        return found | {name: values[name] for name in source if name in values}
    if is_function:
        own = mapped.partial_kwargs.get("op_kwargs") or {}
        return found | {name: value for name, value in values.items() if name not in own}
    return found | _of_expand_kwargs(operator, mapped, values)


def _default_args(operator: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    group = getattr(operator, "task_group", None)
    while group is not None:
        found = {**(getattr(group, "default_args", None) or {}), **found}
        group = getattr(group, "parent_group", None)
    return {**(operator.dag.default_args or {}), **found}


def _is_upstreams(value: Any) -> bool:
    """Whether a value becomes known only when upstream tasks have run; see `group_arguments` for the one that need not."""
    if not hasattr(value, "resolve"):
        return False
    source = _group_source(value)
    return source is None or _is_upstreams(source)


def _group_source(value: Any) -> Any:
    """What the argument of a mapped task group goes over; None if ``value`` is none."""
    source, key = getattr(value, "_input", None), getattr(value, "_key", None)
    if source is None or key is None:
        return None
    over = source.value
    return over[key] if isinstance(over, Mapping) else over


def group_arguments(values: Any, path: Path = ()) -> list[tuple[Path, bool]]:
    """Where in ``values`` stands the argument of a mapped task group, and whether it comes from upstream tasks."""
    found: list[tuple[Path, bool]] = []
    for part, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        if isinstance(value, Mapping | list | tuple):
            found += group_arguments(value, (*path, part))
        elif _group_source(value) is not None:
            found.append(((*path, part), _is_upstreams(value)))
    return found


def written_and_received(
    operator: Any, values: Mapping[str, Any], called_with: Mapping[str, Any], map_index: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    What a task's fields held before templates were rendered, and what upstream tasks gave it if it is mapped, by name.

    Args:
        operator: after templates were rendered.
        values: its fields before.
        called_with: `given`, from before.
        map_index: of the task instance.
    """
    fields, received = dict(values), {}
    for path, is_upstreams in group_arguments(values):
        rendered = _at(getattr(operator, path[0]), path[1:])
        if is_upstreams:
            received[".".join(str(part) for part in path)] = rendered
        else:
            fields = _with(fields, path, rendered)
    if map_index >= 0:
        with suppress(Exception):  # then only this is not known
            received |= from_upstream(operator, map_index, called_with)
    return fields, received


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _with(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    part, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return {**value, part: _with(value[part], rest, new)}
    return [_with(element, rest, new) if index == part else element for index, element in enumerate(value)]
