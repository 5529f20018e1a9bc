"""Functions and iterators in C that take from an iterator: all of it in one go, several at once, or one by one."""

from __future__ import annotations

import asyncio
import collections
import dis
import gc
import inspect
import itertools
import sys
from collections.abc import Container, Iterator
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CoroutineType,
    FrameType,
    GeneratorType,
    MethodDescriptorType,
)
from typing import Any

from resumable.checkpoint.read_ahead.hand_offs import only_hands_off
from resumable.checkpoint.read_ahead.harmless import functions_of, is_harmless_between
from resumable.checkpoint.read_ahead.instructions import Callee, callee_at, instruction_at, is_call, producer, value_at

_COUNTS = vars(collections).get("_count_elements")
"""What `collections.Counter` is made by."""

_TAKES_ALL = (list, tuple, set, frozenset, sorted, dict, collections.deque, collections.Counter, collections.OrderedDict, _COUNTS)
"""Called with an iterable, these take all of it before the caller goes on."""

_IN_C = (BuiltinFunctionType, ClassMethodDescriptorType, MethodDescriptorType)
_TAKES_ALL_METHODS = frozenset({"extend", "extendleft", "join", "fromkeys", "fromiter"})

_OF_SETS = frozenset({"update", "union", "intersection", "difference", "symmetric_difference", "difference_update"})
"""Methods that take all of an iterable, of a set, and ``update`` of a dict."""

_SETS = (set, frozenset, dict, collections.Counter, type(None))  # None: whose method it is cannot be told, but it is one in C

_CHOOSES = (max, min)
"""Called with an iterable and nothing else these work no item and give back one."""

_GROUP = type(next(itertools.groupby("a"))[1])

_TEE: type = type(itertools.tee("")[0])
_TEE_DATA = vars(itertools).get("_tee_dataobject")

LAZY = (
    *(zip, enumerate, itertools.islice, itertools.chain, itertools.zip_longest, itertools.compress, itertools.cycle),
    *(itertools.groupby, _GROUP, _TEE),
)
"""Iterators in C that hand on what they get, one by one, and call nothing that could be the work: only what names a group."""

TAKES_SEVERAL = tuple(vars(itertools)[name] for name in ("batched", "pairwise") if name in vars(itertools))

POOLS = {
    "concurrent.futures._base": "map() of an executor",
    "concurrent.futures.process": "map() of an executor",
    "concurrent.futures.thread": "map() of an executor",
    "multiprocessing.pool": "a pool of multiprocessing",
}
"""Modules whose functions take all items first, or take them in a thread of their own; and words for them."""

_WORDS = {
    **{"LIST_EXTEND": "[*items]", "SET_UPDATE": "{*items}"},
    **dict.fromkeys(("STORE_SLICE", "STORE_SUBSCR"), "listed[:] = items"),
}
"""For opcodes that take all items."""

MOST_LOOKED_AT = 200
_FEW_REFERENCES = 6


def words_of_taker(frame: FrameType) -> str:
    """Of what asked how many items there are, right before it takes them: ``list()`` if that cannot be told."""
    module = frame.f_globals.get("__name__", "")
    instructions, index = instruction_at(frame)
    if module in POOLS or index is None or not is_call(instructions[index].opname):
        return POOLS.get(module, "list()")
    callee = callee_at(instructions, index, frame)
    return "list()" if callee is None else f"{callee.name}()"


def in_one_go(asked: Any, item: Any, frame: FrameType, instructions: list[dis.Instruction], index: int) -> str | None:
    """A single instruction that asked for the first item too, because nothing of the frame ran in between."""
    op = instructions[index].opname
    words = _WORDS.get(op, "unpacking")
    if op == "CALL_FUNCTION_EX" and _is_unpacked_here(instructions, index, frame):
        words = "f(*items)"
    elif is_call(op):
        callee = callee_at(instructions, index, frame)
        if callee is None:
            return None
        is_taker = any(callee.value is one for one in _TAKES_ALL) or _only_chooses(callee, instructions, index)
        is_taker = is_taker or (callee.name in _OF_SETS and type(callee.receiver) in _SETS)
        is_method = callee.name in _TAKES_ALL_METHODS and (callee.value is None or isinstance(callee.value, _IN_C))
        if not (is_taker or is_method):
            return None
        words = "Counter()" if callee.value is _COUNTS else f"{callee.name}()"
    consumers = list(takers_of(asked))
    given_away = [one for one in consumers if _gives_away(one, item)]
    if all(one in given_away or hands_on(one, item) for one in consumers):
        if given_away:
            return f"{words} of calls that are worked later"
        between = [type(one).__name__ for one in consumers if not isinstance(one, enumerate | zip)]
        return f"{words} of {between[0]}()" if between else words
    # e.g. map(work, items): the work may have been done, but not by a coroutine that nobody has started
    return f"{words} of coroutines" if is_unstarted(item) else None


def hands_on(iterator: Any, item: Any) -> bool:
    """Whether an iterator in C hands on what it takes, so that nothing of it can be the work."""
    return isinstance(iterator, (*LAZY, *TAKES_SEVERAL)) or is_harmless_between(iterator, item)


def _gives_away(iterator: Any, item: Any) -> bool:
    """``map(pool.submit, ...)``."""
    return isinstance(iterator, map | itertools.starmap) and any(only_hands_off(one, item) for one in functions_of(iterator))


def _only_chooses(callee: Callee, instructions: list[dis.Instruction], index: int) -> bool:
    """``max(items)``; not with a ``key=``, which may work them."""
    ops = (instructions[i].opname for i in range(index - 1, -1, -1))
    before = next((op for op in ops if op != "PRECALL"), "")
    is_plain = instructions[index].opname in ("CALL", "CALL_FUNCTION") and before != "KW_NAMES"
    return any(callee.value is one for one in _CHOOSES) and is_plain and instructions[index].arg == 1


def _is_unpacked_here(instructions: list[dis.Instruction], index: int, frame: FrameType) -> bool:
    """Whether ``f(*x)`` still has to take all of ``x``, so that it is not f that asks."""
    one = instructions[index]
    has_keywords = sys.version_info >= (3, 14) or (one.arg or 0) & 1
    found = producer(instructions, index, 1 if has_keywords else 0)
    if found is None:
        return False
    op = instructions[found[0]].opname
    if op.startswith(("BUILD_", "LIST_TO_TUPLE", "CALL_INTRINSIC", "LOAD_CONST", "LIST_EXTEND", "BINARY_")):
        return False
    value = value_at(instructions, found, frame)
    return not isinstance(value, list | tuple)


def takers_of(asked: Any) -> Iterator[Any]:
    """The iterators that take from ``asked`` and from each other."""
    seen, todo = {id(asked)}, [asked]
    while todo:
        for one in gc.get_referrers(todo.pop()):
            if id(one) in seen or len(seen) > MOST_LOOKED_AT:
                continue
            if type(one) is _TEE_DATA:
                seen.add(id(one))
                todo.append(one)
            elif type(one) is tuple and len(one) <= MOST_LOOKED_AT:  # what zip and map keep theirs in
                seen.add(id(one))
                todo.extend(two for two in gc.get_referrers(one) if _is_iterator(two) and id(two) not in seen)
                yield from (two for two in gc.get_referrers(one) if _is_iterator(two) and id(two) not in seen)
                seen.update(id(two) for two in todo)
            elif _is_iterator(one):
                seen.add(id(one))
                todo.append(one)
                yield one


def _is_iterator(one: Any) -> bool:
    return not isinstance(one, GeneratorType | FrameType) and hasattr(type(one), "__next__")


def generator_of(frame: FrameType) -> Any:
    return next((one for one in gc.get_objects() if type(one) is GeneratorType and one.gi_frame is frame), None)


def is_taken_twice(asked: Any) -> bool:
    """``zip(*[iterator] * 5)``: one that keeps the same iterator several times."""
    for one in gc.get_referrers(asked):
        if type(one) is tuple and len(one) <= MOST_LOOKED_AT and sum(part is asked for part in one) > 1:
            return any(isinstance(two, zip | itertools.zip_longest) for two in gc.get_referrers(one))
    return False


def is_shared_by_tees(asked: Any) -> bool:
    """``one, other = itertools.tee(items)``: what one of them has taken waits for the other."""
    return sum(type(one) is _TEE for one in takers_of(asked)) > 1


def may_be_batched(asked: Any, frame: FrameType) -> bool:
    """Whether anything may take several at once; else the whole heap need not be looked through."""
    if sys.getrefcount(asked) > _FEW_REFERENCES:
        return True
    several = (*TAKES_SEVERAL, itertools.tee)
    takers = {one.__name__ for one in several}
    known = frame.f_globals
    names = frame.f_code.co_names + frame.f_code.co_varnames + frame.f_code.co_freevars
    return any(name in takers or any(known.get(name) is one for one in several) for name in names)


def is_unstarted(item: Any, codes: Container[Any] | None = None) -> bool:
    """
    Whether a coroutine was made for ``item`` and has not begun, in a thread that runs an event loop.

    Args:
        item: the one.
        codes: only of coroutine functions with one of these.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    # Not by who refers to it: a tuple of arguments is unknown to the garbage collector if it holds but texts and numbers.
    made = (one for one in gc.get_objects() if type(one) is CoroutineType and (codes is None or one.cr_code in codes))
    return any(_is_unstarted_with(one, item) for one in made)


def _is_unstarted_with(coroutine: Any, item: Any) -> bool:
    frame = coroutine.cr_frame
    if frame is None or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        return False
    for value in frame.f_locals.values():
        if value is item:
            return True
        several = value if type(value) is tuple else value.values() if type(value) is dict else ()  # its *args and **kwargs
        if any(one is item for one in itertools.islice(several, MOST_LOOKED_AT)):
            return True
    return False
