"""`Watch`: looks at who asks for an item, and says what reads ahead, if that is certain."""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from resumable.checkpoint.read_ahead.consumers import (
    POOLS,
    TAKES_SEVERAL,
    generator_of,
    hands_on,
    in_one_go,
    is_shared_by_tees,
    is_taken_twice,
    may_be_batched,
    takers_of,
    words_of_taker,
)
from resumable.checkpoint.read_ahead.instructions import callee_at, instruction_at, is_call
from resumable.checkpoint.read_ahead.keeping import is_nothing_between
from resumable.checkpoint.read_ahead.loop import Loop

_TAKES_ALL_OPS = frozenset(
    {
        *("LIST_EXTEND", "SET_UPDATE", "CALL_FUNCTION_EX", "UNPACK_SEQUENCE", "UNPACK_EX", "INPLACE_ADD"),
        *("STORE_SLICE", "STORE_SUBSCR"),
    }
)
"""``[*items]``, ``f(*items)``, ``first, *others = items``, ``listed += items``, ``listed[:] = items``."""

_LAZY_POOLS = frozenset({"joblib.parallel"})

_BARS = frozenset({"tqdm.std", "tqdm.asyncio", "tqdm.notebook", "rich.progress"})
"""Modules whose generators hand on each item and do nothing with it but count."""

_ASKS_ASYNC = frozenset({"YIELD_FROM", "SEND", "END_SEND"})
_MOST_ASKED = 30


class Watch:
    """
    Looks at whoever asks one loop's iterator for items.

    ::

        watch = Watch()
        generator = ...             # calls watch.asked(first, sys._getframe(1)) when it is resumed, until watch.is_over
        watch.is_of(generator)
    """

    def __init__(self) -> None:
        self.is_over = False
        self._iterator: Callable[[], Any] = lambda: None
        self._asked = 0
        self._is_pool = False
        self._hinted = (0, -1)
        self._maker = threading.get_ident()
        self._last: tuple[int, int, CodeType, int | None] | None = None

    def is_of(self, iterator: Any) -> None:
        """Of what a consumer in C may hold; not needed for one that is asynchronous."""
        self._iterator = weakref.ref(iterator)

    def begins(self, frame: FrameType) -> None:
        """The first item was asked for by this frame."""
        with contextlib.suppress(Exception):
            self._note(frame)

    def _note(self, frame: FrameType) -> None:
        self._last = threading.get_ident(), id(frame), frame.f_code, instruction_at(frame)[1]

    def hinted(self, frame: FrameType) -> None:
        """How many items there are was asked for, which ``list`` and its kind do right before they take them all."""
        self._hinted = (id(frame), frame.f_lasti)

    def asked(self, item: Any, frame: FrameType) -> str | None:
        """
        What reads ahead, if that is certain.

        Args:
            item: the one that was given last, whose work should be done by now.
            frame: the Python frame that asks for the next one, directly or from within a function in C.

        Returns: words for it, e.g. ``list()``; None if the work on the item may be done.
        """
        self._asked += 1
        try:
            found = self._since_the_last(frame)
            is_pool = False
            if found is None and (self._asked == 1 or self._is_pool):
                found, is_pool = self._seen(item, frame)
            self._is_pool = is_pool
            is_open = is_pool or threading.get_ident() != self._maker
            self._note(frame)
        except Exception:  # whatever Python comes: to look must not break a loop that is right
            found, is_open = None, False
        self.is_over = bool(found) or not is_open or self._asked >= _MOST_ASKED
        return found

    def _since_the_last(self, frame: FrameType) -> str | None:
        """By who asked before: another thread that is still at work on what it was given, or this function right before."""
        if self._last is None:
            return None
        thread, asker, code, before = self._last
        instructions, now = instruction_at(frame)
        if now is None or before is None or code is not frame.f_code:
            return None
        if thread != threading.get_ident():
            is_shared = _takes_itself(instructions, now, frame) and _is_in(code, sys._current_frames().get(thread))
            return "a loop that several threads share" if is_shared else None
        if asker != id(frame) or not is_nothing_between(instructions, before, now):
            return None
        return "next()" if is_call(instructions[now].opname) else "a loop after next()"

    def _seen(self, item: Any, frame: FrameType) -> tuple[str | None, bool]:
        if self._asked > 1:
            return _at(None, item, frame).found, True
        if self._hinted == (id(frame), frame.f_lasti):
            return words_of_taker(frame), False
        return _reads_ahead(self._iterator(), item, frame)


def _reads_ahead(iterator: Any, item: Any, frame: FrameType) -> tuple[str | None, bool]:
    for _ in range(10):  # through generators that only hand on
        seen = _at(iterator, item, frame)
        if seen.found or not seen.is_forwarding or frame.f_back is None:
            return seen.found, seen.hands_on
        if not _is_as_it_was(iterator, item):
            return None, False  # it hands on what e.g. map(work, items) has worked
        iterator, frame = generator_of(frame), frame.f_back
    return None, False


def _is_as_it_was(asked: Any, item: Any) -> bool:
    """Whether what the loop is given is an item that nobody can have worked between the iterator and the loop."""
    return asked is None or all(hands_on(one, item) for one in takers_of(asked))


def _takes_itself(instructions: list[dis.Instruction], index: int, frame: FrameType) -> bool:
    """Not a thread of a pool, which stands in the same function whether it has work or not."""
    if instructions[index].opname == "FOR_ITER":
        return True
    callee = callee_at(instructions, index, frame) if is_call(instructions[index].opname) else None
    return callee is not None and callee.value is next


def _is_in(code: CodeType, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


class _Seen(NamedTuple):
    found: str | None = None
    is_forwarding: bool = False
    """A generator that does nothing with an item but hand it on."""
    hands_on: bool = False
    """A loop that gives its items to a pool, and may or may not wait for them."""


def _at(asked: Any, item: Any, frame: FrameType) -> _Seen:
    module = frame.f_globals.get("__name__", "")
    instructions, index = instruction_at(frame)
    is_generator = bool(frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
    found = _by_its_module(module, frame, is_generator, asked) or _held_by_a_library(module, frame, item, asked)
    if found is not None or index is None:
        return _Seen(found)
    op = instructions[index].opname
    if op == "FOR_ITER" or op in _ASKS_ASYNC:
        found = _by_what_is_between(asked, frame) if op == "FOR_ITER" else None
        if found is not None:
            return _Seen(found if _is_as_it_was(asked, item) else None)
        loop = Loop(instructions, index, frame)
        is_yield_from = op in ("YIELD_FROM", "SEND") and not frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR
        is_forwarding = is_generator and (module in _BARS or loop.only_forwards(item) or is_yield_from)
        found = loop.reads_ahead(item)
        if found is not None and op == "FOR_ITER" and not _is_as_it_was(asked, item):
            return _Seen()
        return _Seen(found, is_forwarding and not loop.awaits(), loop.hands_on())
    if is_call(op) or op in _TAKES_ALL_OPS or (op == "BINARY_OP" and instructions[index].argrepr == "+="):
        return _Seen(in_one_go(asked, item, frame, instructions, index))
    return _Seen()


def _by_its_module(module: str, frame: FrameType, is_generator: bool, asked: Any) -> str | None:
    """Code of others that is known to take items before they are worked."""
    if module in POOLS:
        # A thread of a pool that was given next, as asyncio.to_thread gives it, asks for one; list(map(work, items)) works them.
        called = getattr(frame.f_locals.get("self"), "fn", None)
        is_one = called is next or (isinstance(called, functools.partial) and next in (called.func, *called.args[:1]))
        is_worked = asked is not None and any(isinstance(one, map) for one in takers_of(asked))
        return None if is_one or is_worked else POOLS[module]
    taker = frame.f_back.f_globals.get("__name__", "") if is_generator and frame.f_back is not None else ""
    if taker in _LAZY_POOLS:
        return f"{taker.partition('.')[0]}, which takes items before it works them,"
    if module == "more_itertools.more" and "self" in frame.f_locals:
        kind = type(frame.f_locals["self"]).__name__
        if kind == "bucket" or frame.f_code.co_name == "peek":  # these take what nobody has asked for yet
            return f"{kind}() of more_itertools"
    return None


def _held_by_a_library(module: str, frame: FrameType, item: Any, asked: Any) -> str | None:
    """A function of more_itertools that has the item in a list of its own, and asks for more: ``split_at``, ``map_reduce``."""
    if not module.startswith("more_itertools.") or frame.f_code.co_name.startswith("unique"):  # these only remember
        return None
    locals_ = list(frame.f_locals.values())
    lists = [one for value in locals_ for one in (value.values() if isinstance(value, dict) else (value,))]
    is_held = any(type(one) in (list, collections.deque) and any(part is item for part in one) for one in lists)
    return f"{frame.f_code.co_name}() of more_itertools" if is_held and _is_as_it_was(asked, item) else None


def _by_what_is_between(asked: Any, frame: FrameType) -> str | None:
    """Iterators in C, between the items and the loop, that take several at once."""
    if asked is None or not may_be_batched(asked, frame):
        return None
    for one in takers_of(asked):
        if isinstance(one, TAKES_SEVERAL):
            return f"itertools.{type(one).__name__}()"
    if is_taken_twice(asked):
        return "zip() of the same iterator several times"
    return "itertools.tee()" if is_shared_by_tees(asked) else None
