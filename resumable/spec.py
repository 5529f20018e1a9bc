"""
What a job is made from, as far as a retry has to know it: whether the author edited it, or whether it only moved by itself.

An operator's arguments differ from one attempt to the next for many reasons, and only one is an edit. So a value counts if
its author wrote it: it stands in the text of the DAG file as a constant. All else was computed when the file was parsed
(``now()``, ``uuid4()``, the environment, a file, a helper's result) and counts by its type. A number or a flag has to stand at
its place, under its own name: a small one stands somewhere in almost every file. No Airflow in here, and no I/O.
"""

from __future__ import annotations

import ast
import base64
import builtins
import fnmatch
import hashlib
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from dataclasses import fields as fields_of
from enum import Enum
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import Any

VERSION = 1
"""Of the fingerprint. One of another version is not comparable, and nothing that is not comparable is an edit."""

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

KEPT_REPLACED = 12
"""Marks of replaced specs that a record keeps: up to three for each."""

_SPLIT = 24
"""Entries of a dict up to which each is fingerprinted by itself, so that a log line can name it."""

_ITEMS = 8
_ALL, _ALL_NAMED = "*", "its arguments"
_EMPTY: tuple[Any, ...] = (None, "", {}, [], (), set(), frozenset())
_GETTERS = frozenset(("get", "getenv", "getint", "getfloat", "getboolean", "pop", "setdefault"))
_LONGEST = 100_000  # characters of a folded string
_NOTHING, _UNKNOWN = object(), object()
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Spec:
    """
    The fingerprint of one job's spec.

    Args:
        text: digest of the DAG file's text; empty if that could not be read, and then no field is comparable.
        fields: three short hashes of each field that is not at its default, and of each entry of a dict (``json.run_name``): by
            what the author wrote of it, by what he wrote at its place, and by the whole value.
        items: a short hash of each argument that a mapped task was given by upstream tasks.
    """

    text: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any],
        text: str | None,
        *,
        defaults: Mapping[str, Any] | None = None,
        given: Any = None,
        items: Mapping[str, Any] | None = None,
    ) -> Spec:
        """
        Args:
            values: the job's fields before templates are rendered.
            text: of the DAG file.
            defaults: of the fields, where they have one.
            given: what the operator was called with. A field may hold a number of it as text, as Databricks' does.
            items: what upstream tasks gave a mapped task, by argument.
        """
        hashes = {name: _hash(_Form.of(value).whole) for name, value in (items or {}).items()}
        if len(hashes) > _ITEMS:
            hashes = {_ALL: _hash(hashes)}
        if text is None or (written := _written_in(text)) is None:
            return cls(items=hashes)
        source = _Source(written, given)
        fields: dict[str, str] = {}
        for name, value in values.items():
            if value is _UNKNOWN:
                fields[name] = _UNKNOWN_CODE
            elif not _is_default(value, (defaults or {}).get(name, _NOTHING)):
                fields.update(_codes(name, value, source))
        return cls(_hash(text), fields, hashes)

    @cached_property
    def literals(self) -> str:
        """Digest of all that the author wrote."""
        return self._folded[:_DIGEST]

    @cached_property
    def _folded(self) -> str:
        if _ALL in self.fields:
            return self.fields[_ALL]
        tops = {name: code for name, code in sorted(self.fields.items()) if "." not in name}
        literal = {name: _by_literals(code) for name, code in tops.items() if _has_literal(code)}
        places = {name: _by_places(code) for name, code in tops.items()}
        return _code(_hash(literal), _hash(places), _hash(tops), bool(literal))

    @property
    def marks(self) -> frozenset[str]:
        """What this spec is known by once another one has replaced it."""
        marks = {self.text, self.literals} if self.text else set()
        return frozenset(marks | {_hash(dict(self.items))} if self.items else marks)

    def to_json(self, room: int = 10_000) -> dict[str, Any]:
        """As much as ``room`` bytes of JSON take: else without the entries of dicts, else one code for all fields together."""
        if not self.text and not self.items:
            return {}
        tops = {name: code for name, code in self.fields.items() if "." not in name}
        data: dict[str, Any] = {}
        for fields in (self.fields, tops, {_ALL: self._folded} if self.fields else {}):
            data = {"v": VERSION, "text": self.text, "fields": dict(fields)}
            if self.items:
                data["items"] = dict(self.items)
            if len(json.dumps(data)) <= room:
                break
        return data

    @classmethod
    def from_json(cls, data: Any) -> Spec:
        """One that another release wrote, or that is damaged, is not comparable: never an error."""
        try:
            if data["v"] != VERSION:
                return cls()
            fields, items = ({str(k): str(v) for k, v in data.get(name, {}).items()} for name in ("fields", "items"))
            is_whole = all(len(code) in (_CODE, _CODE + _DIGEST) for code in fields.values())
            return cls(str(data["text"]), fields, items) if is_whole else cls(items=items)
        except (KeyError, TypeError, AttributeError, ValueError):
            return cls()


def edited_fields(earlier: Spec | None, now: Spec | None, replaced: Iterable[str] = ()) -> tuple[str, ...]:
    """
    The names of what the author edited, or of what upstream gave a mapped task anew, from one spec of a task to another.

    A field counts if the text of the DAG file differs, and what the author wrote of the field, and the value itself: an edit
    elsewhere in the file may happen to make a constant of what was computed. A field that one side does not know (it was at its
    default there, or another release of the operator has it) counts if the author wrote some of it.

    Args:
        earlier: the job's.
        now: this attempt's.
        replaced: `Spec.marks` of specs that the job's one has replaced: a worker with an older DAG file asks with one of them.
    """
    if earlier is None or now is None:
        return ()
    replaced = frozenset(replaced)
    names: list[str] = []
    if earlier.text and now.text and earlier.text != now.text and not {now.text, now.literals} & replaced:
        is_folded = _ALL in earlier.fields or _ALL in now.fields
        names += _edited_folded(earlier, now) if is_folded else _edited(earlier.fields, now.fields)
    if now.items and _hash(dict(now.items)) not in replaced:
        both = earlier.items.keys() & now.items.keys()
        names += [f"{name} (from upstream)" for name in sorted(both) if earlier.items[name] != now.items[name]]
    return tuple(names)


def moved_fields(earlier: Spec | None, now: Spec | None) -> tuple[str, ...]:
    """The names of fields whose values differ, for a log line; of a dict, the entries that do."""
    if earlier is None or now is None or not (earlier.text and now.text):
        return ()
    if _ALL in earlier.fields or _ALL in now.fields:
        return (_ALL_NAMED,) if _by_value(earlier._folded) != _by_value(now._folded) else ()
    moved = [name for name in sorted(earlier.fields.keys() | now.fields.keys()) if _has_moved(name, earlier.fields, now.fields)]
    return tuple(name for name in moved if not any(other.startswith(f"{name}.") for other in moved))


def _has_moved(name: str, earlier: Mapping[str, str], now: Mapping[str, str]) -> bool:
    one, other = earlier.get(name, ""), now.get(name, "")
    if _UNKNOWN_CODE in (one, other) or ("." in name and not _are_split(name.partition(".")[0], earlier, now)):
        return False
    return _by_value(one) != _by_value(other)


def _are_split(name: str, *sides: Mapping[str, str]) -> bool:
    """Whether the entries of a dict are fingerprinted on all sides."""
    return all(any(known.startswith(f"{name}.") for known in side) for side in sides)


def replaced_marks(replaced: tuple[str, ...], earlier: Spec | None, now: Spec | None) -> tuple[str, ...]:
    """What a record keeps of replaced specs when a job of spec ``now`` follows on one of ``earlier``."""
    if earlier is None or now is None or not edited_fields(earlier, now, replaced):
        return replaced  # nothing was edited, or a worker with an older DAG file asks
    kept = [mark for mark in replaced if mark not in now.marks]
    return tuple([*kept, *sorted(earlier.marks - now.marks - set(kept))][-KEPT_REPLACED:])


def is_of_the_job(name: str) -> bool:
    """Whether an argument of this name makes the job what it is, and not only how it is reached, waited for or logged."""
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in WAITED_FOR_OR_LOGGED)


def spec_values(task: Any, names: Iterable[str] | None = None) -> dict[str, Any]:
    """
    The values of a task's fields. One that fails, say for want of a connection, is not comparable.

    Args:
        task: an operator.
        names: of its attributes; default: its template fields, but for how the job is reached, waited for or logged.
    """
    if names is None:
        names = filter(is_of_the_job, getattr(task, "template_fields", ()))
    values: dict[str, Any] = {}
    for name in names:
        try:
            values[name] = getattr(task, name)
        except AttributeError:
            continue
        except Exception:
            values[name] = _UNKNOWN
    return values


def named(names: Iterable[str], most: int = 5) -> str:
    """A few names for a log line."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# -- codes: five characters by literals, "=" or "~" for a literal in it or none, five by value; five by places, if they differ ---

_DIGEST = 5
_CODE = 2 * _DIGEST + 1
_UNKNOWN_CODE = "?????~?????"


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()).decode()[:_DIGEST]


def _code(by_literals: str, by_places: str, by_value: str, literal: bool) -> str:
    return f"{by_literals}{'=' if literal else '~'}{by_value}{by_places if by_places != by_literals else ''}"


def _by_literals(code: str) -> str:
    return code[:_DIGEST]


def _by_places(code: str) -> str:
    return code[_CODE:] or _by_literals(code)


def _by_value(code: str) -> str:
    return code[_DIGEST + 1 : _CODE]


def _is_edit(one: str, other: str) -> bool:
    return all(part(one) != part(other) for part in (_by_literals, _by_places, _by_value))


def _has_literal(code: str) -> bool:
    return code[_DIGEST] == "="


def _edited(earlier: Mapping[str, str], now: Mapping[str, str], prefix: str = "") -> list[str]:
    """Of fields, or of the entries of the dict ``prefix``, those that were edited."""
    depth = prefix.count(".") + 1 if prefix else 0
    names = sorted(name for name in earlier.keys() | now.keys() if name.startswith(prefix) and (depth or "." not in name))
    edited: list[str] = []
    for name in names:
        one, other = earlier.get(name), now.get(name)
        if _UNKNOWN_CODE in (one, other):
            continue
        if one is None or other is None:
            if _has_literal(one or other or ""):
                edited.append(name)
        elif _is_edit(one, other):
            if not depth and _are_split(name, earlier, now):
                edited += _edited(earlier, now, f"{name}.")
            else:
                edited.append(name)
    return edited


def _edited_folded(earlier: Spec, now: Spec) -> list[str]:
    one, other = earlier._folded, now._folded
    return [_ALL_NAMED] if _is_edit(one, other) else []


def _codes(name: str, value: Any, source: _Source) -> dict[str, str]:
    codes = {name: _Form.of(value, source, name).code}
    if isinstance(value, dict) and len(value) <= _SPLIT:
        for key, entry in sorted(value.items(), key=lambda pair: str(pair[0])):
            inner = _Form.of(entry, source, str(key))
            codes[f"{name}.{key}"] = replace(inner, is_literal=inner.is_literal or source.has_key(str(key))).code
    return codes


def _is_default(value: Any, default: Any) -> bool:
    is_empty, has_empty_default = _is_empty(value), default is _NOTHING or _is_empty(default)
    if is_empty and has_empty_default:
        return True
    if default is _NOTHING or type(value) is not type(default):
        return False
    return bool(_Form.of(value).whole == _Form.of(default).whole)


def _is_empty(value: Any) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in _EMPTY)


# -- the forms of a value ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """
    A value as JSON, three times: what the author wrote of it; the same, but with all numbers that stand at the place of a number
    instead of that one, which says whether something at its place was edited; and the whole.
    """

    literal: Any
    places: Any
    whole: Any
    is_literal: bool
    has_place: bool

    @property
    def code(self) -> str:
        return _code(_hash(self.literal), _hash(self.places), _hash(self.whole), self.is_literal)

    @classmethod
    def of(cls, value: Any, source: _Source | None = None, key: str = "") -> _Form:
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
            if source is not None and source.is_number(value, key):
                numbers = source.numbers(key)
                return cls(literal, ["#", *numbers], whole, is_written, bool(numbers))
            if is_written and source is not None and (texts := source.choices(value, key)):
                return cls(literal, ["|", *texts], whole, True, True)
            return cls(literal, literal, whole, is_written, is_written)
        form = cls(["~", kind], ["~", kind], [kind, _text_of(value)], False, False)
        parts = _parts_of(value) if source is not None else None
        return form if parts is None else replace(cls._of_dict(parts, source), whole=form.whole)

    @classmethod
    def _of_elements(cls, value: Iterable[Any], source: _Source | None, key: str) -> _Form:
        forms = [cls.of(element, source, key) for element in value]
        if isinstance(value, set | frozenset) or (source is not None and source.is_of_a_set(value)):
            forms.sort(key=lambda form: json.dumps(form.whole, sort_keys=True))
        # What was computed is left out, and what follows on its like: their number may be computed, too.
        literal = _without_repeats(form.literal for form in forms if form.is_literal)
        places = _without_repeats(form.places for form in forms if form.has_place and form.places[0] != "#")
        numbers = source.numbers(key) if source else ()
        whole = ["[", *(form.whole for form in forms)]
        return cls(["[", *literal], ["[", numbers, *places], whole, bool(literal), bool(numbers or places))

    @classmethod
    def _of_dict(cls, value: dict[Any, Any], source: _Source | None) -> _Form:
        entries = {str(key): cls.of(entry, source, str(key)) for key, entry in value.items()}
        names = {key: key if source is not None and source.has_key(key) else "" for key in entries}
        literal = [[names[key], form.literal] for key, form in entries.items() if names[key] or form.is_literal]
        places = [[names[key], form.places] for key, form in entries.items() if names[key] or form.has_place]
        literal, places = (_without_repeats(sorted(each, key=json.dumps)) for each in (literal, places))
        whole = ["{", {key: form.whole for key, form in entries.items()}]
        return cls(["{", *literal], ["{", *places], whole, bool(literal), bool(places))


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


# -- the constants of a DAG file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    """The constants of a file: those that an argument can be, all that a key of a dict can be, sets, and what stands where."""

    values: frozenset[tuple[str, str]]
    texts: frozenset[str]
    keys: frozenset[str]
    sets: tuple[frozenset[str], ...]
    places: _Places


def _unindented(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=4)
def _written_in(text: str) -> _Written | None:
    """None if the text is no Python."""
    try:
        tree = ast.parse(text)
        values = _constants(tree)
        places = _Places(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    texts = (_unindented(value) for value in values if isinstance(value, str) and "\n" in value)
    keys = {value for value in values if isinstance(value, str)} | places.keys
    return _Written(
        frozenset((type(value).__name__, repr(value)) for value in values),
        frozenset(t for t in texts if t),
        frozenset(keys),
        tuple(_sets(tree)),
        places,
    )


class _Source:
    """
    What a file says of the values of one operator.

    Args:
        written: in the file.
        given: what the operator was called with. Its ``__init__`` may have made a text of a number which the author wrote.
    """

    def __init__(self, written: _Written, given: Any) -> None:
        self._written = written
        self._as_texts: dict[str, int | float] = {}
        _collect_numbers(given, self._as_texts)

    def has_key(self, key: str) -> bool:
        return key in self._written.keys

    def is_written(self, value: Any, key: str) -> bool:
        if value is None:
            return False  # its type says all of it
        if isinstance(value, bool | int | float):
            return _coded(value) in self._written.places.numbers(key)
        if not self._written.places.is_text_computed(key) and (
            _coded(value) in self._written.values or _unindented(value) in self._written.texts  # dedent("..."), "...".strip()
        ):
            return True
        return value in self._as_texts and self.is_written(self._as_texts[value], key)

    def choices(self, value: Any, key: str) -> tuple[str, ...]:
        """
        All texts that stand at the place of one, and what chooses among them, if there is a choice: which of them it is may be
        computed (``"/full" if is_sunday() else "/part"``, ``CLUSTERS[os.environ["STAGE"]]``).
        """
        return self._written.places.choices(key) if isinstance(value, str) and value in self._written.places.texts(key) else ()

    def is_of_a_set(self, values: Iterable[Any]) -> bool:
        """Whether a list is of a set of texts in the file: its order is another one in each process."""
        texts = [value for value in values if isinstance(value, str)]
        return len(texts) > 1 and any(among.issuperset(texts) for among in self._written.sets)

    def is_number(self, value: Any, key: str) -> bool:
        """Also a flag, and a text that was a number."""
        was_number = isinstance(value, str) and value in self._as_texts and bool(self.numbers(key))
        return was_number or isinstance(value, bool | int | float)

    def numbers(self, key: str) -> tuple[tuple[str, str], ...]:
        return self._written.places.numbers(key)


def _coded(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


class _Places:
    """
    What stands in a file under a name: of a keyword, of a key of a dict, of a variable, of a parameter, of a function (what it
    returns). Where one name leads to another (``max_retries=RETRIES``), what stands under that one, too.
    """

    def __init__(self, tree: ast.AST) -> None:
        reader = _Reader(tree)
        self.keys = frozenset(reader.keys)
        self._at, self._variables, self._known = reader.at, reader.variables, reader.known
        self._looks: dict[int, _Look] = {}
        self._behind: dict[str, _Look] = {}
        self._numbers: dict[str, tuple[tuple[str, str], ...]] = {}
        self._computed_texts: dict[str, bool] = {}
        self._texts: dict[str, tuple[str, ...]] = {}
        self._by = reader.choosers

    def numbers(self, key: str) -> tuple[tuple[str, str], ...]:
        """
        The numbers and flags at a place, in the order of the file. None if one task's is computed where another one's is
        written: which of them a value belongs to cannot be told.
        """
        if key not in self._numbers:
            found: list[tuple[str, str]] = []
            places = self._places(key)
            for place in places:
                numbers = [_coded(value) for value in place.constants if isinstance(value, bool | int | float)]
                if place.is_computed and (len(places) > 1 or not numbers):
                    found.clear()
                    break
                found += numbers
            self._numbers[key] = tuple(found)
        return self._numbers[key]

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts at a place, in the order of the file."""
        if key not in self._texts:
            found = [value for place in self._places(key) for value in place.constants if isinstance(value, str)]
            self._texts[key] = tuple(found)
        return self._texts[key]

    def choices(self, key: str) -> tuple[str, ...]:
        """The texts at a place and what chooses among the texts of this file; nothing if there is only one."""
        texts = self.texts(key)
        return (*texts, *self._choosers) if len(set(texts)) > 1 else ()

    @cached_property
    def _choosers(self) -> tuple[str, ...]:
        """The constants by which the file chooses: an edit of one (``IS_FULL = False``, ``STAGES["prod"]``) is an edit."""
        found: dict[int, tuple[Any, ...]] = {}
        for expr in self._by:
            look = self._look(expr)
            if look.names:
                look = self._with_names(look, set())
            found[id(expr)] = look.constants
        return tuple(repr(value) for values in found.values() for value in values)

    def is_text_computed(self, key: str) -> bool:
        """Whether all that stands at a place is computed, from no text of the file."""
        if key not in self._computed_texts:
            places = self._places(key)
            self._computed_texts[key] = bool(places) and all(
                place.is_computed and not place.unknown and not any(isinstance(value, str) for value in place.constants)
                for place in places
            )
        return self._computed_texts[key]

    def _places(self, key: str) -> list[_Look]:
        """What stands at each place of a name, but for those that only pass it on (``size=size``)."""
        found = [self._look(expr) for expr in self._at.get(key, ())]
        itself = {key, f".{key}"}
        # What only names something, and the same as another one, adds nothing: a file may hold a thousand tasks of one shape.
        found = [*dict.fromkeys(place for place in found if not place.constants), *(place for place in found if place.constants)]
        return [self._with_names(place, itself) for place in found if not (place.names & itself) or place.constants]

    def _with_names(self, place: _Look, but: set[str]) -> _Look:
        for name in sorted(place.names - but):
            place = place.and_(self._all_behind(name))
        return place

    def _all_behind(self, name: str) -> _Look:
        if name not in self._behind:
            found, seen, todo = [_Look()], {name}, [name]
            while todo:
                at = todo.pop()
                under = self._at if at.startswith(".") else self._variables
                bare = at.removeprefix(".")
                if bare not in under:
                    found.append(_Look(is_computed=True, unknown=bare not in self._known))
                for expr in under.get(bare, ()):
                    inner = self._look(expr)
                    found.append(inner)
                    todo += sorted(inner.names - seen)
                    seen |= inner.names
            self._behind[name] = _Look(
                tuple(constant for look in found for constant in look.constants),
                is_computed=any(look.is_computed for look in found),
                unknown=any(look.unknown for look in found),
            )
        return self._behind[name]

    def _look(self, expr: ast.expr) -> _Look:
        if id(expr) not in self._looks:
            is_computed = any(isinstance(node, _COMPUTED) for node in ast.walk(expr))
            self._looks[id(expr)] = _Look(tuple(_constants(expr)), frozenset(self._names(expr)), is_computed)
        return self._looks[id(expr)]

    def _names(self, expr: ast.AST) -> set[str]:
        """The names of variables in an expression, and after a dot those of attributes and keys."""
        match expr:
            case ast.Name(id=name):
                return {name}
            case ast.Call(func=ast.Attribute(value=receiver)):
                children: list[ast.AST] = [receiver, *expr.args, *expr.keywords]
            case ast.Attribute(attr=name) if name in self._at:
                return {f".{name}"}
            case ast.Subscript(slice=ast.Constant(value=key)) if str(key) in self._at:
                return {"." + str(key)}
            case ast.Dict():
                children = [*expr.values]
            case _:
                children = [*ast.iter_child_nodes(expr)]
        return {name for child in children for name in self._names(child)}


class _Reader(ast.NodeVisitor):
    """Reads which expressions of a file stand under which name."""

    def __init__(self, tree: ast.AST) -> None:
        self.keys: set[str] = set()
        self.at: dict[str, list[ast.expr]] = {}
        self.variables: dict[str, list[ast.expr]] = {}
        self.choosers: list[ast.expr] = []
        self.known = set(dir(builtins))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        self._parameters = {node.name: [each.arg for each in _positional(node)] for node in functions}
        self._named = {each.arg for node in functions for each in (*_positional(node), *node.args.kwonlyargs)}
        self.visit(tree)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                self._put(str(key.value), value, is_variable=False)
                self.keys.add(str(key.value))
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg:
            self._put(node.arg, node.value, is_variable=node.arg in self._named)
            self.keys.add(node.arg)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assign(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> None:
        if node.value is not None:
            self._assign(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit_AnnAssign(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit_AnnAssign(node)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        for element in node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else (node.iter,):
            self._assign(node.target, element)
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit_For(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._assign(node.optional_vars, node.context_expr)
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.choosers.append(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(node)

    def visit_Match(self, node: ast.Match) -> None:
        self.choosers.append(node.subject)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.choosers.append(node.slice)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        named, defaults = _positional(node), node.args.defaults
        for parameter, default in zip(named[len(named) - len(defaults) :], defaults, strict=True):
            self._put(parameter.arg, default)
        for parameter, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                self._put(parameter.arg, value)
        self.variables.setdefault(node.name, [])
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return) and inner.value is not None:
                self._put(node.name, inner.value)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in _GETTERS:
            self.choosers += node.args[:1]
        if isinstance(node.func, ast.Name):
            for parameter, value in zip(self._parameters.get(node.func.id, ()), node.args, strict=False):
                self._put(parameter, value)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.known.add(node.name)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.visit_Import(node)

    def _put(self, name: str, value: ast.expr, *, is_variable: bool = True) -> None:
        self.at.setdefault(name, []).append(value)
        if is_variable:
            self.variables.setdefault(name, []).append(value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                self._put(name, value)
            case ast.Subscript(slice=ast.Constant(value=key)):
                self._put(str(key), value, is_variable=False)
                self.keys.add(str(key))
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                is_split = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(targets)
                values = value.elts if is_split and isinstance(value, ast.Tuple | ast.List) else [value] * len(targets)
                for element, each in zip(targets, values, strict=True):
                    self._assign(element, each)
            case ast.Starred():
                self._assign(target.value, value)


def _sets(tree: ast.AST) -> Iterator[frozenset[str]]:
    """The sets of texts in a file: ``{"a", "b"}``, ``set(["a", "b"])``."""
    for node in ast.walk(tree):
        is_made = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("set", "frozenset")
        if is_made or isinstance(node, ast.Set):
            yield frozenset(value for value in _constants(node) if isinstance(value, str))


def _positional(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args]


_COMPUTED = (ast.Call, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Await, ast.Compare, ast.FormattedValue)


@dataclass(frozen=True)
class _Look:
    """What is in an expression: constants, names, whether something is computed, and whether a name is nowhere set."""

    constants: tuple[Any, ...] = ()
    names: frozenset[str] = frozenset()
    is_computed: bool = False
    unknown: bool = False

    def and_(self, other: _Look) -> _Look:
        return replace(
            self,
            constants=self.constants + other.constants,
            is_computed=self.is_computed or other.is_computed,
            unknown=self.unknown or other.unknown,
        )


def _constants(node: ast.AST) -> list[Any]:
    collector = _Constants()
    collector.visit(node)
    return collector.values


class _Constants(ast.NodeVisitor):
    """
    Collects the constants that can be the value of an argument. Left out are those that only help to compute one: what is
    compared with, what is looked up, the default of ``os.environ.get`` and its like, parts of an f-string.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        self.values.append(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        for side in (node.left, *node.comparators):
            if not isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set):
                self.visit(side)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not isinstance(node.slice, ast.Constant):
            self.visit(node.slice)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _GETTERS:
            self.visit(node.func)
        else:
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
        if len(parts) == len(node.values):
            self.values.append("".join(parts))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._fold(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._fold(node)

    def _fold(self, node: ast.UnaryOp | ast.BinOp) -> None:
        value = _folded(node)
        if value is _NOTHING:
            self.generic_visit(node)
        else:
            self.values.append(value)


def _folded(node: ast.expr) -> Any:
    """The value of an expression of constants (``-1``, ``60 * 60``, ``"a" + "b"``), as the compiler folds it."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        operand = _folded(node.operand)
        if isinstance(operand, int | float):
            if isinstance(node.op, ast.USub):
                return -operand
            if isinstance(node.op, ast.Not):
                return not operand
        return _NOTHING
    if isinstance(node, ast.BinOp):
        return _folded_pair(_folded(node.left), node.op, _folded(node.right))
    return _NOTHING


def _folded_pair(left: Any, op: ast.operator, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and isinstance(op, ast.Add) and len(left) + len(right) < _LONGEST:
        return left + right
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return _NOTHING
    if isinstance(op, ast.Pow) and not (abs(left) <= 2**16 and abs(right) <= 64):
        return _NOTHING
    try:
        return _ARITHMETIC[type(op)](left, right)
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return _NOTHING


def _collect_numbers(value: Any, into: dict[str, int | float]) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for element in value:
            _collect_numbers(element, into)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        into[str(value)] = value
