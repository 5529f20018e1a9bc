"""
What a job is made from, as far as a retry has to know it: whether the author edited it, or whether it only moved by itself.

An operator's arguments differ from one attempt to the next for many reasons, and only one is an edit. So a value counts if
its author wrote it: it stands in the text of the DAG file as a constant. All else was computed when the file was parsed
(``now()``, ``uuid4()``, the environment, a file, a helper's result) and counts by its type. No Airflow in here, and no I/O.
"""

from __future__ import annotations

import ast
import base64
import fnmatch
import hashlib
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
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
        fields: two short hashes of each field that is not at its default, and of each entry of a dict (``json.run_name``): by
            what the author wrote, and by the whole value.
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
        hashes = {name: _hash(_Form.of(value, _nothing_is_written).whole) for name, value in (items or {}).items()}
        if len(hashes) > _ITEMS:
            hashes = {_ALL: _hash(hashes)}
        if text is None or (written := _written_in(text)) is None:
            return cls(items=hashes)
        is_written = _with_texts_of_numbers(written, given)
        fields: dict[str, str] = {}
        for name, value in values.items():
            if value is _UNKNOWN:
                fields[name] = _UNKNOWN_CODE
            elif not _is_default(value, (defaults or {}).get(name, _NOTHING)):
                fields.update(_codes(name, value, is_written, written))
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
        return _code(_hash(literal), _hash(tops), bool(literal))

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
            is_whole = all(len(code) == _CODE for code in fields.values())
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


# -- codes: five characters by literals, "=" or "~" for a literal in it or none, five characters by value -----------------------

_DIGEST = 5
_CODE = 2 * _DIGEST + 1
_UNKNOWN_CODE = "?????~?????"


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()).decode()[:_DIGEST]


def _code(by_literals: str, by_value: str, literal: bool) -> str:
    return f"{by_literals}{'=' if literal else '~'}{by_value}"


def _by_literals(code: str) -> str:
    return code[:_DIGEST]


def _by_value(code: str) -> str:
    return code[_DIGEST + 1 :]


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
        elif _by_literals(one) != _by_literals(other) and _by_value(one) != _by_value(other):
            if not depth and _are_split(name, earlier, now):
                edited += _edited(earlier, now, f"{name}.")
            else:
                edited.append(name)
    return edited


def _edited_folded(earlier: Spec, now: Spec) -> list[str]:
    one, other = earlier._folded, now._folded
    return [_ALL_NAMED] if _by_literals(one) != _by_literals(other) and _by_value(one) != _by_value(other) else []


def _codes(name: str, value: Any, is_written: Callable[[Any], bool], written: _Written) -> dict[str, str]:
    form = _Form.of(value, is_written, written.keys)
    codes = {name: form.code}
    if isinstance(value, dict) and len(value) <= _SPLIT:
        for key, entry in sorted(value.items(), key=lambda pair: str(pair[0])):
            inner = _Form.of(entry, is_written, written.keys)
            is_literal = inner.is_literal or str(key) in written.keys
            codes[f"{name}.{key}"] = _code(_hash(inner.literal), _hash(inner.whole), is_literal)
    return codes


def _is_default(value: Any, default: Any) -> bool:
    is_empty, has_empty_default = _is_empty(value), default is _NOTHING or _is_empty(default)
    if is_empty and has_empty_default:
        return True
    if default is _NOTHING or type(value) is not type(default):
        return False
    return bool(_Form.of(value, _nothing_is_written).whole == _Form.of(default, _nothing_is_written).whole)


def _is_empty(value: Any) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in _EMPTY)


# -- the two forms of a value --------------------------------------------------------------------------------------------------


def _nothing_is_written(_: Any) -> bool:
    return False


@dataclass(frozen=True)
class _Form:
    """A value as JSON, twice: what the author wrote of it, and the whole."""

    literal: Any
    whole: Any
    is_literal: bool

    @property
    def code(self) -> str:
        return _code(_hash(self.literal), _hash(self.whole), self.is_literal)

    @classmethod
    def of(cls, value: Any, is_written: Callable[[Any], bool], keys: frozenset[str] = frozenset()) -> _Form:
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, dict):
            return cls._of_dict(value, is_written, keys)
        if isinstance(value, list | tuple | set | frozenset):
            forms = [cls.of(element, is_written, keys) for element in value]
            if isinstance(value, set | frozenset):
                forms.sort(key=lambda form: json.dumps(form.whole, sort_keys=True))
            # What was computed is left out, and what follows on its like: their number may be computed, too.
            literal = [form for form, _ in itertools.groupby(form.literal for form in forms if form.is_literal)]
            return cls(["[", *literal], ["[", *(form.whole for form in forms)], bool(literal))
        kind = type(value).__name__
        if value is None or isinstance(value, bool | int | float | str):
            whole = [kind, value if isinstance(value, str) else repr(value)]
            return cls(["=", *whole], whole, True) if is_written(value) else cls(["~", kind], whole, False)
        return cls(["~", kind], [kind, _text_of(value)], False)

    @classmethod
    def _of_dict(cls, value: dict[Any, Any], is_written: Callable[[Any], bool], keys: frozenset[str]) -> _Form:
        entries = {str(key): cls.of(entry, is_written, keys) for key, entry in value.items()}
        written = [[key if key in keys else "", form.literal] for key, form in entries.items() if key in keys or form.is_literal]
        literal = [entry for entry, _ in itertools.groupby(sorted(written, key=json.dumps))]
        return cls(["{", *literal], ["{", {key: form.whole for key, form in entries.items()}], bool(literal))


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
    """The constants of a file: those that an argument can be, and all that a key of a dict can be."""

    values: frozenset[tuple[str, str]]
    texts: frozenset[str]
    keys: frozenset[str]

    def __call__(self, value: Any) -> bool:
        if value is None:
            return False  # its type says all of it
        if (type(value).__name__, repr(value)) in self.values:
            return True
        return isinstance(value, str) and _unindented(value) in self.texts  # dedent("..."), "...".strip()


def _unindented(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=4)
def _written_in(text: str) -> _Written | None:
    """None if the text is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    collector = _Constants()
    collector.visit(tree)
    values = collector.values
    texts = (_unindented(value) for value in values if isinstance(value, str) and "\n" in value)
    keys = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    keys |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}
    return _Written(
        frozenset((type(value).__name__, repr(value)) for value in values), frozenset(t for t in texts if t), frozenset(keys)
    )


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


def _with_texts_of_numbers(written: _Written, given: Any) -> Callable[[Any], bool]:
    """Also a text counts that an operator's ``__init__`` has made of a number which the author wrote."""
    numbers: dict[str, int | float] = {}
    _collect_numbers(given, numbers)

    def is_written(value: Any) -> bool:
        if written(value):
            return True
        return isinstance(value, str) and value in numbers and written(numbers[value])

    return is_written


def _collect_numbers(value: Any, into: dict[str, int | float]) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for element in value:
            _collect_numbers(element, into)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        into[str(value)] = value
