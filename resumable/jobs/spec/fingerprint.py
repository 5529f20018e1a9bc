"""The fingerprint of one job's spec, as its record keeps it, and which of a task's values it is made from."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from resumable.jobs.spec.codes import (
    ALL,
    CODE,
    DIGEST,
    UNKNOWN,
    UNKNOWN_CODE,
    by_literals,
    by_places,
    code_of,
    digest,
    has_literal,
)
from resumable.jobs.spec.dag_file import Source, written_in
from resumable.jobs.spec.forms import Form

VERSION = 1
"""Of the fingerprint. One of another version is not comparable, and nothing that is not comparable is an edit."""

_SPLIT = 24
"""Entries of a dict up to which each is fingerprinted by itself, so that a log line can name it."""

_ITEMS = 8

_EMPTY: tuple[Any, ...] = (None, "", {}, [], (), set(), frozenset())
_NOTHING = object()


@dataclass(frozen=True)
class Spec:
    """
    The fingerprint of one job's spec.

    Args:
        text: digest of the DAG file's text; empty if that could not be read, and then no field is comparable.
        fields: three short hashes of each field that is not at its default, and of each entry of a dict (``json.run_name``): by
            what the author wrote of it, by what he wrote at its place, and by the whole value.
        items: a short hash of each argument that a mapped task was given by upstream tasks.
        origins: a short hash, for each field, one at its default too, of all that the file says where its value comes from, as
            far as it does. Where that is the same, nothing of the field was edited.
    """

    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        text: str | None,
        *,
        defaults: Mapping[str, Any] | None = None,
        given: Any = None,
        items: Mapping[str, Any] | None = None,
        task_id: str = "",
    ) -> Spec:
        """
        Args:
            values: the job's fields before templates are rendered.
            text: of the DAG file.
            defaults: of the fields, where they have one.
            given: what the operator was called with. A field may hold a number of it as text, as Databricks' does.
            items: what upstream tasks gave a mapped task, by argument.
            task_id: of the operator: what the file says in the call that makes another task is not of this one.
        """
        hashes = {name: digest(Form.of(value).whole) for name, value in (items or {}).items()}
        if len(hashes) > _ITEMS:
            hashes = {ALL: digest(hashes)}
        if text is None or (written := written_in(text)) is None:
            return cls(items=hashes)
        source = Source(written, given, task_id)
        fields: dict[str, str] = {}
        origins: dict[str, str] = {}
        for name, value in values.items():
            if value is UNKNOWN:
                fields[name] = UNKNOWN_CODE
                continue
            if origin := source.origin(name, Form.of(value, source, name).written):
                origins[name] = origin
            if not _is_default(value, (defaults or {}).get(name, _NOTHING)):
                fields.update(_codes(name, value, source))
        return cls(digest(text), fields, hashes, origins)

    @cached_property
    def literals(self) -> str:
        """Digest of all that the author wrote."""
        return self._folded[:DIGEST]

    @cached_property
    def _folded(self) -> str:
        if ALL in self.fields:
            return self.fields[ALL]
        tops = {name: code for name, code in sorted(self.fields.items()) if "." not in name}
        literal = {name: by_literals(code) for name, code in tops.items() if has_literal(code)}
        places = {name: by_places(code) for name, code in tops.items()}
        return code_of(digest(literal), digest(places), digest(tops), bool(literal))

    @cached_property
    def origin(self) -> str:
        """Digest of where all fields come from; empty if that is not known of one."""
        if ALL in self.origins or ALL in self.fields:
            return self.origins.get(ALL, "")
        is_known = all(name in self.origins for name in self.fields if "." not in name)
        return digest(dict(self.origins)) if is_known and self.origins else ""

    @property
    def marks(self) -> frozenset[str]:
        """What this spec is known by once another one has replaced it."""
        marks = {self.text, self.literals} if self.text else set()
        return frozenset(marks | {digest(dict(self.items))} if self.items else marks)

    def to_json(self, room: int = 10_000) -> dict[str, Any]:
        """
        As much as ``room`` bytes of JSON take: else without the entries of dicts, else one code for all fields together, which
        tells each edit of what the author wrote, but not that a computed value was made one of another type.
        """
        if not self.text and not self.items:
            return {}
        tops = {name: code for name, code in self.fields.items() if "." not in name}
        folded = {ALL: self.origin} if self.origin else {}
        data: dict[str, Any] = {}
        for fields, origins in (
            (self.fields, self.origins),
            (self.fields, folded),
            (tops, folded),
            ({ALL: self._folded} if self.fields else {}, folded),
        ):
            data = {"v": VERSION, "text": self.text, "fields": dict(fields)}
            if self.items:
                data["items"] = dict(self.items)
            if origins:
                data["origins"] = dict(origins)
            if len(json.dumps(data)) <= room:
                break
        return data

    @classmethod
    def from_json(cls, data: Any) -> Spec:
        """One that another release wrote, or that is damaged, is not comparable: never an error."""
        try:
            if data["v"] != VERSION:
                return cls()
            fields, items, origins = (
                {str(k): str(v) for k, v in data.get(name, {}).items()} for name in ("fields", "items", "origins")
            )
            is_whole = all(len(code) in (CODE, CODE + DIGEST) for code in fields.values())
            return cls(str(data["text"]), fields, items, origins) if is_whole else cls(items=items)
        except (KeyError, TypeError, AttributeError, ValueError):
            return cls()


def _codes(name: str, value: Any, source: Source) -> dict[str, str]:
    codes = {name: Form.of(value, source, name).code}
    if isinstance(value, dict) and len(value) <= _SPLIT:
        for key, entry in sorted(value.items(), key=lambda pair: str(pair[0])):
            inner = Form.of(entry, source, str(key))
            codes[f"{name}.{key}"] = replace(inner, is_literal=inner.is_literal or source.has_key(str(key))).code
    return codes


def _is_default(value: Any, default: Any) -> bool:
    is_empty, has_empty_default = _is_empty(value), default is _NOTHING or _is_empty(default)
    if is_empty and has_empty_default:
        return True
    if default is _NOTHING or type(value) is not type(default):
        return False
    return bool(Form.of(value).whole == Form.of(default).whole)


def _is_empty(value: Any) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in _EMPTY)


# -- which of a task's values make up its job ---------------------------------------------------------------------------------

WAITED_FOR_OR_LOGGED = (
    "*conn_id",
    "region_name",
    "verify",
    "botocore_config",
    "wait",
    "wait_*",
    "*waiter*",
    "*poll*",
    "poke_interval",
    "check_interval",
    "deferrable",
    "durable",
    "reattach",
    "resume_policy",
    "*logs*",
    "*xcom*",
)
"""Arguments, by their names, that say how a job is reached, waited for or logged: an edit of one is no change of the job."""

_IS_NONE_OF_THE_JOB = re.compile("|".join(map(fnmatch.translate, WAITED_FOR_OR_LOGGED))).match


def is_of_the_job(name: str) -> bool:
    """Whether an argument of this name makes the job what it is, and not only how it is reached, waited for or logged."""
    return _IS_NONE_OF_THE_JOB(name) is None


def spec_values(task: Any, names: Iterable[str] | None = None, besides: Iterable[str] = ()) -> dict[str, Any]:
    """
    The values of a task's fields. One that fails, say for want of a connection, is not comparable.

    Args:
        task: an operator.
        names: of its attributes; default: its template fields, but for how the job is reached, waited for or logged.
        besides: by default, these attributes as well.
    """
    if names is None:
        names = dict.fromkeys((*filter(is_of_the_job, getattr(task, "template_fields", ())), *besides))
    values: dict[str, Any] = {}
    for name in names:
        try:
            values[name] = getattr(task, name)
        except AttributeError:
            continue
        except Exception:
            values[name] = UNKNOWN
    return values


def named(names: Iterable[str], most: int = 5) -> str:
    """A few names for a log line."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
