"""Code that only looks at an item or copies it, so that nothing of it can be the work: conditions, names, paths made of it."""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import dis
import fnmatch
import functools
import gc
import inspect
import itertools
import operator
import os
import pathlib
import re
import types
import uuid
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

from resumable.checkpoint.read_ahead.instructions import NOTHING, Callee, callee_at, code_of, is_call, producer, value_at

_PLAIN = (
    *(str, bytes, int, float, complex, type(None), tuple, list, dict, set, frozenset, range),
    *(datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID, pathlib.PurePath, re.Pattern),
    *(collections.deque, collections.defaultdict, collections.OrderedDict),
)

_PYTHONS_OWN = frozenset({"builtins", "datetime", "_pydatetime", "decimal", "re", "pathlib"})
"""Modules of the types whose methods are known here."""

_CALLED = (ModuleType, type, FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)
"""What does nothing unless it is called."""

_FUNCTIONS: tuple[Any, ...] = (
    *(str, bytes, int, float, bool, complex, repr, ascii, format, len, hash, id, ord, chr, abs, round, isinstance, issubclass),
    *(callable, type, functools.partial, pathlib.Path, pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    *(decimal.Decimal, uuid.UUID, datetime.date, datetime.datetime, datetime.timedelta, operator.itemgetter, operator.attrgetter),
    *(os.path.basename, os.path.dirname, os.path.join, os.path.split, os.path.splitext, os.path.normpath, os.fspath, os.fsdecode),
    *(re.match, re.search, re.fullmatch, re.sub, re.compile, fnmatch.fnmatch, fnmatch.fnmatchcase),
)
"""What can be called without anything being done: it computes something of its arguments."""

_METHODS: dict[type, frozenset[str]] = {
    dict: frozenset({"get", "keys", "values", "items"}),
    re.Pattern: frozenset({"match", "search", "fullmatch", "findall", "sub", "split"}),
    pathlib.PurePath: frozenset(
        {"with_suffix", "with_name", "with_stem", "joinpath", "as_posix", "relative_to", "is_relative_to"}
    ),
    **{one: frozenset(dir(one)) for one in (str, bytes, int, float, tuple, datetime.date, datetime.timedelta, decimal.Decimal)},
}

_OF_TEXTS = frozenset({"startswith", "endswith", "lower", "upper", "casefold", "strip", "lstrip", "rstrip", "isdigit", "isalpha"})
"""Methods that texts alone have, of whatever class."""

_OPS = (
    *(
        "STORE_FAST",
        "STORE_DEREF",
        "STORE_NAME",
        "LOAD_CONST",
        "LOAD_SMALL_INT",
        "LIST_APPEND",
        "SET_ADD",
        "MAP_ADD",
        "YIELD_VALUE",
    ),
    *("UNPACK_SEQUENCE", "GET_ITER", "FOR_ITER", "END_FOR", "POP_", "JUMP", "SWAP", "COPY", "ROT_", "DUP_", "PUSH_NULL"),
    *("BUILD_", "LIST_EXTEND", "LIST_TO_TUPLE", "FORMAT_", "CONVERT_VALUE", "COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_"),
    *("TO_BOOL", "MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE", "LOAD_CLOSURE", "RETURN_", "ASYNC_GEN_WRAP", "BINARY_ADD"),
    *("BINARY_SUBTRACT", "BINARY_MODULO", "BINARY_TRUE_DIVIDE", "BINARY_FLOOR_DIVIDE", "BINARY_MULTIPLY", "CALL_INTRINSIC_1"),
)
_PARTS = {"BUILD_TUPLE": (0, 1), "BUILD_LIST": (0, 1), "BUILD_SET": (0, 1), "BUILD_MAP": (0, 2), "BUILD_CONST_KEY_MAP": (1, 1)}
"""What holds the values on the stack: how deep the first one is, and how many there are for each part."""
_LOADS = (
    "LOAD_FAST",
    "LOAD_NAME",
    "LOAD_GLOBAL",
    "LOAD_DEREF",
    "LOAD_CLASSDEREF",
    "STORE_FAST_LOAD_FAST",
    "STORE_FAST_STORE_FAST",
)
_UNKNOWN = object()


def only_looks(instructions: list[dis.Instruction], body: Iterable[int], frame: FrameType, item: Any) -> bool:
    """Whether nothing of these instructions can be the work on ``item``."""
    body = list(body)
    stored = {name for i in body if instructions[i].opname.startswith("STORE_") for name in _names(instructions[i])}
    return all(_is_harmless(instructions, i, frame, item, stored) for i in body)


def is_kept(instructions: list[dis.Instruction], before: int, frame: FrameType, item: Any, depth: int = 0) -> bool:
    """
    Whether what is ``depth`` below the top of the stack right before an instruction is the item itself, or holds it for later: a
    tuple or a dict with it, a path, a function. What is computed of the item (``str(item)``) may be all that is to be done.
    """
    found = producer(instructions, before, depth)
    if found is None:
        return False
    one = instructions[found[0]]
    if one.opname in _PARTS:
        first, each = _PARTS[one.opname]
        return any(is_kept(instructions, found[0], frame, item, part) for part in range(first, first + each * (one.arg or 0)))
    if one.opname in ("MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"):
        return True
    if is_call(one.opname):
        callee = callee_at(instructions, found[0], frame)
        return callee is not None and _holds(callee.value)
    return value_at(instructions, found, frame) is item


def _holds(function: Any) -> bool:
    return isinstance(function, type) and issubclass(function, functools.partial | pathlib.PurePath)


def is_harmless_between(iterator: Any, item: Any) -> bool:
    """Whether a ``filter`` or ``map`` only hands on the items: ``filter(None, items)``, ``map(Path, items)``."""
    functions = functions_of(iterator)
    if isinstance(iterator, (filter, itertools.filterfalse, itertools.takewhile, itertools.dropwhile)):
        return bool(functions) and all(_function_only_looks(function, item) for function in functions)
    return isinstance(iterator, map) and bool(functions) and all(map(_holds, functions))


def functions_of(iterator: Any) -> list[Any]:
    """What a ``filter``, ``map`` or ``starmap`` calls."""
    found = gc.get_referents(iterator)
    return [one for one in found if one is not type(iterator) and (one is None or callable(one))]


def _function_only_looks(function: Any, item: Any) -> bool:
    """Whether a call of ``function`` with an item cannot be the work on it; False if that cannot be told."""
    if function is None:  # filter(None, items)
        return True
    if isinstance(function, FunctionType):
        return _code_only_looks(function, item)
    if isinstance(function, operator.itemgetter | operator.attrgetter):
        return True
    if isinstance(function, types.BuiltinMethodType | types.MethodWrapperType):
        owner = function.__self__
        if not isinstance(owner, ModuleType | type) and owner is not None:
            return _has_method(owner, function.__name__) or (
                function.__name__ == "__contains__" and type(owner) in (set, frozenset, dict, list, tuple, str)
            )
    if isinstance(function, types.MethodDescriptorType):
        return function.__name__ in _METHODS.get(function.__objclass__, ())
    return any(function is one for one in _FUNCTIONS)


def _code_only_looks(function: FunctionType, item: Any) -> bool:
    frame = as_frame(function, item)
    if frame is None:
        return False
    instructions = code_of(function.__code__)
    return only_looks(instructions, range(len(instructions)), frame, item)


def as_frame(function: FunctionType, item: Any) -> Any:
    """What stands for the frame of a function that was called with an item; None for one that is not called so."""
    code: CodeType = function.__code__
    if code.co_argcount != 1 or code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return None
    known = {code.co_varnames[0]: item}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # not set yet
            return None
    return SimpleNamespace(f_locals=known, f_globals=function.__globals__, f_builtins=vars(builtins), f_code=code)


def _names(one: dis.Instruction) -> tuple[str, ...]:
    found = one.argval if isinstance(one.argval, tuple) else (one.argval,)
    return tuple(name for name in found if isinstance(name, str))


def _is_harmless(instructions: list[dis.Instruction], i: int, frame: FrameType, item: Any, stored: set[str]) -> bool:
    one = instructions[i]
    op = one.opname
    if op in NOTHING:
        return True
    if is_call(op):
        callee = callee_at(instructions, i, frame)
        return callee is not None and _is_harmless_callee(callee) and op != "CALL_FUNCTION_EX"
    if op in ("LOAD_ATTR", "LOAD_METHOD"):
        return _is_data(instructions, i, frame)
    if op in ("BINARY_SUBSCR", "BINARY_OP", "BINARY_SLICE"):
        return _is_of_plain(instructions, i, frame, item)
    if op.startswith(_LOADS):
        return all(name in stored or _is_plain(_value(name, frame), item) for name in _names(one))
    return op.startswith(_OPS)


def _value(name: str, frame: FrameType) -> Any:
    for place in (frame.f_locals, frame.f_globals, frame.f_builtins):
        if name in place:
            return place[name]
    return _UNKNOWN


def _is_plain(value: Any, item: Any) -> bool:
    """A value that does nothing when it is loaded, compared or kept; a function too, which does nothing unless it is called."""
    return value is item or _is_of_pythons_own(value) or isinstance(value, _CALLED)


def _is_of_pythons_own(value: Any) -> bool:
    """Not of a subclass, whose operators may do anything."""
    return type(value) in _PLAIN or isinstance(value, pathlib.PurePath)


def _is_of_plain(instructions: list[dis.Instruction], i: int, frame: FrameType, item: Any) -> bool:
    """``item["name"]``, ``path / item``: of what does nothing by an operator, as far as names tell."""
    found = producer(instructions, i, 1)
    value = None if found is None else value_at(instructions, found, frame)
    if value is None:
        is_constant = found is not None and instructions[found[0]].opname in ("LOAD_CONST", "LOAD_SMALL_INT")
        return is_constant or instructions[i].opname != "BINARY_SUBSCR"
    return value is item or _is_of_pythons_own(value)


def _is_data(instructions: list[dis.Instruction], i: int, frame: FrameType) -> bool:
    """An attribute that is there, or what is called next; not a property, which may do anything."""
    if any(is_call(one.opname) and _callee_begin(instructions, k, frame) == i for k, one in _calls_after(instructions, i)):
        return True
    found = producer(instructions, i, 0)
    owner = None if found is None else value_at(instructions, found, frame)
    if owner is None:
        return False
    if isinstance(owner, ModuleType | pathlib.PurePath | datetime.date):
        return True
    static = inspect.getattr_static(owner, str(instructions[i].argval), _UNKNOWN)
    if static is _UNKNOWN:
        return False
    return not hasattr(type(static), "__get__") or isinstance(static, types.MemberDescriptorType | types.GetSetDescriptorType)


def _calls_after(instructions: list[dis.Instruction], i: int) -> Iterator[tuple[int, dis.Instruction]]:
    return ((k, instructions[k]) for k in range(i + 1, min(i + 40, len(instructions))))


def _callee_begin(instructions: list[dis.Instruction], call: int, frame: FrameType) -> int | None:
    """The instruction that loads what is called at ``call``, where that is an attribute."""
    callee = callee_at(instructions, call, frame)
    if callee is None:
        return None
    for i in range(callee.begin, call):
        if instructions[i].opname in ("LOAD_ATTR", "LOAD_METHOD") and instructions[i].argval == callee.name:
            return i
    return None


def _is_harmless_callee(callee: Callee) -> bool:
    if callee.receiver is not None and not isinstance(callee.receiver, ModuleType | type):
        return _has_method(callee.receiver, callee.name)
    if callee.value is not None:
        return any(callee.value is one for one in _FUNCTIONS) or (
            isinstance(callee.receiver, type) and callee.name in _METHODS.get(callee.receiver, ())
        )
    return callee.receiver is None and callee.name in _OF_TEXTS


def _has_method(owner: Any, name: str) -> bool:
    """Whether a method of a value of Python's own only computes."""
    known = (names for kind, names in _METHODS.items() if isinstance(owner, kind))
    return any(name in names for names in known) and name in dir(type(owner)) and _is_of_python(owner, name)


def _is_of_python(owner: Any, name: str) -> bool:
    """Not a subclass's own, which may do anything."""
    kind = next((one for one in type(owner).__mro__ if name in vars(one)), None)
    return kind is not None and kind.__module__.partition(".")[0] in _PYTHONS_OWN
