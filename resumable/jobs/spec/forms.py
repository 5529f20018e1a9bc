"""The three forms of a value, by which an edit is told from a value that has only moved."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass, replace
from dataclasses import fields as fields_of
from enum import Enum
from types import SimpleNamespace
from typing import Any

from resumable.jobs.spec.codes import code_of, digest
from resumable.jobs.spec.dag_file import Source


@dataclass(frozen=True)
class Form:
    """
    A value as JSON, three times: what the author wrote of it; the same, but with all numbers that stand at the place of a number
    instead of that one, which says whether something at its place was edited; and the whole.

    ``written`` are the constants of it that the author wrote, the keys of dicts among them.
    """

    literal: Any
    places: Any
    whole: Any
    is_literal: bool
    has_place: bool
    written: tuple[Any, ...] = ()

    @property
    def code(self) -> str:
        return code_of(digest(self.literal), digest(self.places), digest(self.whole), self.is_literal)

    @classmethod
    def of(cls, value: Any, source: Source | None = None, key: str = "") -> Form:
        """
        Args:
            value: of a field, or in one.
            source: the file; None: only the whole is asked for.
            key: the name that the value stands under: of the field, or in the innermost dict.
        """
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, dict):
            return cls._of_dict(value, source)
        if isinstance(value, list | tuple | set | frozenset):
            return cls._of_elements(value, source, key)
        kind = type(value).__name__
        if value is None or isinstance(value, bool | int | float | str):
            whole = [kind, value if isinstance(value, str) else repr(value)]
            is_written = source is not None and source.is_written(value, key)
            literal = ["=", *whole] if is_written else ["~", kind]
            written = (value,) if is_written else ()
            if source is not None and source.is_number(value, key):
                numbers = source.numbers(key)
                return cls(literal, ["#", *numbers], whole, is_written, bool(numbers), written)
            if is_written and source is not None and (texts := source.choices(value, key)):
                return cls(literal, ["|", *texts], whole, True, True, written)
            return cls(literal, literal, whole, is_written, is_written, written)
        form = cls(["~", kind], ["~", kind], [kind, _text_of(value)], False, False)
        parts = _parts_of(value) if source is not None else None
        return form if parts is None else replace(cls._of_dict(parts, source), whole=form.whole)

    @classmethod
    def _of_elements(cls, value: Iterable[Any], source: Source | None, key: str) -> Form:
        forms = [cls.of(element, source, key) for element in value]
        if isinstance(value, set | frozenset) or (source is not None and source.is_of_a_set(value)):
            forms.sort(key=lambda form: json.dumps(form.whole, sort_keys=True))
        # What was computed is left out, and what follows on its like: their number may be computed, too.
        literal = _without_repeats(form.literal for form in forms if form.is_literal)
        places = _without_repeats(form.places for form in forms if form.has_place and form.places[0] != "#")
        numbers = source.numbers(key) if source else ()
        whole = ["[", *(form.whole for form in forms)]
        written = tuple(value for form in forms for value in form.written)
        return cls(["[", *literal], ["[", numbers, *places], whole, bool(literal), bool(numbers or places), written)

    @classmethod
    def _of_dict(cls, value: dict[Any, Any], source: Source | None) -> Form:
        entries = {str(key): cls.of(entry, source, str(key)) for key, entry in value.items()}
        names = {key: key if source is not None and source.has_key(key) else "" for key in entries}
        literal = [[names[key], form.literal] for key, form in entries.items() if names[key] or form.is_literal]
        places = [[names[key], form.places] for key, form in entries.items() if names[key] or form.has_place]
        literal, places = (_without_repeats(sorted(each, key=json.dumps)) for each in (literal, places))
        whole = ["{", {key: form.whole for key, form in entries.items()}]
        written = tuple(value for form in entries.values() for value in form.written)
        return cls(["{", *literal], ["{", *places], whole, bool(literal), bool(places), (*filter(None, names.values()), *written))


def _without_repeats(forms: Iterable[Any]) -> list[Any]:
    return [form for form, _ in itertools.groupby(forms)]


def _parts_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass, of a model of pydantic or attrs, of a `SimpleNamespace`, as a dict; None of any other object."""
    try:
        return None if _names_of_fields(value) is None else _unfolded(value, ())
    except Exception:  # a field that was never set, or one that leads back to the object
        return None


def _names_of_fields(value: Any) -> Iterable[str] | None:
    cls = type(value)
    if is_dataclass(cls):
        return (each.name for each in fields_of(cls))
    if cls is SimpleNamespace:
        return [*vars(value)]
    if hasattr(cls, "__attrs_attrs__"):
        return (each.name for each in cls.__attrs_attrs__)
    models = getattr(cls, "model_fields", None)
    return models if isinstance(models, dict) else None


def _unfolded(value: Any, above: tuple[int, ...]) -> Any:
    if id(value) in above:
        raise ValueError("it holds itself")
    above = (*above, id(value))
    names = _names_of_fields(value)
    if names is not None:
        return {name: _unfolded(getattr(value, name), above) for name in names}
    if isinstance(value, dict):
        return {key: _unfolded(entry, above) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_unfolded(element, above) for element in value]
    return value


def _text_of(value: Any) -> str:
    """The text of any other value; none where it holds an address, which differs from process to process."""
    try:
        text = str(value)
    except Exception:
        return ""
    return "" if " at 0x" in text or "object at" in text else text
