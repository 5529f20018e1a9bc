"""What Airflow has of a task as its author wrote it: the DAG file's text, the arguments, what a mapped task was given."""

from __future__ import annotations

import inspect
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from resumable import host
from resumable.jobs.spec import Spec, is_of_the_job

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
    return Spec.of(fields, text, defaults=defaults(type(operator)), given=called_with, items=items)


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
    written = {"task_id", "dag", "task_group", "start_date", "end_date", "params", "default_args", *mapped.partial_kwargs}
    usual = _default_args(operator)
    return {
        name: value for name, value in called_with.items() if name not in written and not (name in usual and usual[name] is value)
    }


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


def group_arguments(values: Mapping[str, Any]) -> list[tuple[Path, bool]]:
    """Where in ``values`` stands the argument of a mapped task group, and whether it comes from upstream tasks."""
    return [(path, _is_upstreams(value)) for path, value in _leaves(values, ()) if _group_source(value) is not None]


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _leaves(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for index, element in enumerate(value):
            yield from _leaves(element, (*path, index))
    else:
        yield path, value


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
