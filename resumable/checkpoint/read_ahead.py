"""
Who asks for the next item before the last one can have been worked: ``list(...)``, a pool, tasks made in a loop.

An item of a plain loop is done when the loop asks for the next one. Whoever asks early would have items counted as done that
nobody has worked, and the retry would leave them out. So the second time that an item is asked for, the asking frame is looked at
once: at which of its instructions it stands, what is called there, whether its loop does anything but hand the item on.

Only what is certain counts. An opcode, a consumer or a name that is not known here is never taken for reading ahead.
This module needs nothing but the standard library, and is tried on every Python (tests/unit/test_read_ahead.py).
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dis
import gc
import inspect
import itertools
import multiprocessing.process
import sys
import threading
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, CoroutineType, FrameType, GeneratorType, ModuleType
from typing import Any, NamedTuple

_TAKES_ALL = (list, tuple, set, frozenset, sorted, dict, collections.deque, collections.Counter, collections.OrderedDict)
"""Called with an iterable, these take all of it before the caller goes on."""

_TAKES_ALL_METHODS = frozenset({"extend", "extendleft", "join", "fromkeys", "fromiter"})

_TAKES_ALL_OPS = frozenset({"LIST_EXTEND", "SET_UPDATE", "CALL_FUNCTION_EX", "UNPACK_SEQUENCE", "UNPACK_EX", "INPLACE_ADD"})
"""``[*items]``, ``f(*items)``, ``first, *others = items``, ``listed += items``."""

_LAZY = (zip, enumerate, itertools.islice, itertools.chain, itertools.zip_longest, itertools.compress, itertools.cycle)
"""Iterators in C that hand on what they get, one by one, and call nothing."""

_TAKES_SEVERAL = tuple(vars(itertools)[name] for name in ("batched", "pairwise") if name in vars(itertools))

_CONTAINERS = (list, tuple, dict, set, collections.deque)

_POOLS = {
    "concurrent.futures._base": "map() of an executor",
    "concurrent.futures.process": "map() of an executor",
    "concurrent.futures.thread": "map() of an executor",
    "multiprocessing.pool": "a pool of multiprocessing",
}
"""Modules whose functions take all items first, or take them in a thread of their own; and words for them."""

_LAZY_POOLS = frozenset({"joblib.parallel"})

_BARS = frozenset({"tqdm.std", "tqdm.asyncio", "tqdm.notebook", "rich.progress"})
"""Modules whose generators hand on each item and do nothing with it but count."""

_HAND_OFFS = frozenset(
    {
        "submit",
        "create_task",
        "ensure_future",
        "run_in_executor",
        "run_coroutine_threadsafe",
        "apply_async",
        "start_soon",
        "put",
        "remote",
    }
)
_HAND_OFF_PACKAGES = frozenset(
    {"asyncio", "uvloop", "concurrent", "multiprocessing", "anyio", "trio", "joblib", "queue", "_queue", "distributed", "ray"}
)

_COLLECTS = frozenset({"append", "add", "appendleft", "put_nowait", "start"})

_NOTHING = frozenset(
    {"CACHE", "EXTENDED_ARG", "NOP", "RESUME", "PRECALL", "KW_NAMES", "NOT_TAKEN", "MAKE_CELL", "COPY_FREE_VARS"}
)
_PLAIN_LOADS = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CONST", "LOAD_SMALL_INT")
_KEEPS = ("POP_TOP", "LIST_APPEND", "SET_ADD", "MAP_ADD", "YIELD_VALUE", "STORE_", "ASYNC_GEN_WRAP", "CALL_INTRINSIC_1")
_WORKS = ("CALL", "SEND", "YIELD_FROM", "GET_AWAITABLE", "STORE_SUBSCR", "STORE_ATTR", "STORE_GLOBAL", "FOR_ITER", "IMPORT")
_AWAITS = frozenset({"GET_AWAITABLE", "YIELD_FROM", "SEND"})
_ASKS_ASYNC = frozenset({"YIELD_FROM", "SEND", "END_SEND"})
_MOST_LOOKED_AT = 200
_MOST_ASKED = 30
_FEW_REFERENCES = 6


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
        self._hinted = (0, -1)

    def is_of(self, iterator: Any) -> None:
        """Of what a consumer in C may hold; not needed for one that is asynchronous."""
        self._iterator = weakref.ref(iterator)

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
            found, hands_on = self._seen(item, frame)
        except Exception:  # whatever Python comes: to look must not break a loop that is right
            found, hands_on = None, False
        self.is_over = bool(found) or not hands_on or self._asked >= _MOST_ASKED
        return found

    def _seen(self, item: Any, frame: FrameType) -> tuple[str | None, bool]:
        if self._asked > 1:
            return _at(None, item, frame).found, True
        if self._hinted == (id(frame), frame.f_lasti):
            return _words_of_taker(frame), False
        return _reads_ahead(self._iterator(), item, frame)


def _reads_ahead(iterator: Any, item: Any, frame: FrameType) -> tuple[str | None, bool]:
    for _ in range(10):  # through generators that only hand on
        seen = _at(iterator, item, frame)
        if seen.found or not seen.is_forwarding or frame.f_back is None:
            return seen.found, seen.hands_on
        if iterator is not None and not all(isinstance(one, (*_LAZY, *_TAKES_SEVERAL)) for one in _consumers(iterator)):
            return None, False  # it hands on what e.g. map(work, items) has worked
        iterator, frame = _generator_of(frame), frame.f_back
    return None, False


class _Seen(NamedTuple):
    found: str | None = None
    is_forwarding: bool = False
    """A generator that does nothing with an item but hand it on."""
    hands_on: bool = False
    """A loop that gives its items to a pool, and may or may not wait for them."""


def _at(asked: Any, item: Any, frame: FrameType) -> _Seen:
    module = frame.f_globals.get("__name__", "")
    if module in _POOLS:
        return _Seen(_POOLS[module])
    instructions, index = _instruction_at(frame)
    if index is None:
        return _Seen()
    op = instructions[index].opname
    is_generator = bool(frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR))
    taker = frame.f_back.f_globals.get("__name__", "") if is_generator and frame.f_back is not None else ""
    if taker in _LAZY_POOLS:
        return _Seen(f"{taker.partition('.')[0]}, which takes items before it works them,")
    if op == "FOR_ITER" or op in _ASKS_ASYNC:
        if op == "FOR_ITER" and asked is not None and _may_be_batched(asked, frame):
            for one in _consumers(asked):
                if isinstance(one, _TAKES_SEVERAL):
                    return _Seen(f"itertools.{type(one).__name__}()")
            if _is_taken_twice(asked):
                return _Seen("zip() of the same iterator several times")
        loop = _Loop(instructions, index, frame)
        is_forwarding = is_generator and (module in _BARS or loop.only_forwards() or op in ("YIELD_FROM", "SEND"))
        return _Seen(loop.reads_ahead(item), is_forwarding and not loop.awaits(), loop.hands_on())
    if _is_call(op) or op in _TAKES_ALL_OPS or (op == "BINARY_OP" and instructions[index].argrepr == "+="):
        return _Seen(_in_one_go(asked, item, frame, instructions, index))
    return _Seen()


# -- consumers in C ---------------------------------------------------------------------------------------------------


def _words_of_taker(frame: FrameType) -> str:
    """Of what asked how many items there are, right before it takes them: ``list()`` if that cannot be told."""
    module = frame.f_globals.get("__name__", "")
    instructions, index = _instruction_at(frame)
    if module in _POOLS or index is None or not _is_call(instructions[index].opname):
        return _POOLS.get(module, "list()")
    callee = _callee(instructions, index, frame)
    return "list()" if callee is None else f"{callee.name}()"


def _in_one_go(asked: Any, item: Any, frame: FrameType, instructions: list[dis.Instruction], index: int) -> str | None:
    """A single instruction that asked for the first item too, because nothing of the frame ran in between."""
    op = instructions[index].opname
    words = {"LIST_EXTEND": "[*items]", "SET_UPDATE": "{*items}"}.get(op, "unpacking")
    if op == "CALL_FUNCTION_EX" and _is_unpacked_here(instructions, index, frame):
        words = "f(*items)"
    elif _is_call(op):
        callee = _callee(instructions, index, frame)
        if callee is None:
            return None
        is_taker = any(callee.value is one for one in _TAKES_ALL)
        is_method = callee.name in _TAKES_ALL_METHODS and (callee.value is None or isinstance(callee.value, BuiltinFunctionType))
        if not (is_taker or is_method):
            return None
        words = f"{callee.name}()"
    consumers = list(_consumers(asked))
    if all(isinstance(one, (*_LAZY, *_TAKES_SEVERAL)) for one in consumers):
        between = [type(one).__name__ for one in consumers if not isinstance(one, enumerate | zip)]
        return f"{words} of {between[0]}()" if between else words
    # e.g. map(work, items): the work may have been done, but not by a coroutine that nobody has started
    return f"{words} of coroutines" if _is_unstarted(item) else None


def _is_unpacked_here(instructions: list[dis.Instruction], index: int, frame: FrameType) -> bool:
    """Whether ``f(*x)`` still has to take all of ``x``, so that it is not f that asks."""
    one = instructions[index]
    has_keywords = sys.version_info >= (3, 14) or (one.arg or 0) & 1
    found = _producer(instructions, index, 1 if has_keywords else 0)
    if found is None:
        return False
    op = instructions[found[0]].opname
    if op.startswith(("BUILD_", "LIST_TO_TUPLE", "CALL_INTRINSIC", "LOAD_CONST", "LIST_EXTEND")):
        return False
    value = _value(instructions, found, frame)
    return not isinstance(value, list | tuple)


def _consumers(asked: Any) -> Iterator[Any]:
    """The iterators that take from ``asked`` and from each other."""
    seen, todo = {id(asked)}, [asked]
    while todo:
        for one in gc.get_referrers(todo.pop()):
            if id(one) in seen or len(seen) > _MOST_LOOKED_AT:
                continue
            if type(one) is tuple and len(one) <= _MOST_LOOKED_AT:  # what zip and map keep theirs in
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


def _generator_of(frame: FrameType) -> Any:
    return next((one for one in gc.get_objects() if type(one) is GeneratorType and one.gi_frame is frame), None)


def _is_taken_twice(asked: Any) -> bool:
    """``zip(*[iterator] * 5)``: one that keeps the same iterator several times."""
    for one in gc.get_referrers(asked):
        if type(one) is tuple and len(one) <= _MOST_LOOKED_AT and sum(part is asked for part in one) > 1:
            return any(isinstance(two, zip | itertools.zip_longest) for two in gc.get_referrers(one))
    return False


def _may_be_batched(asked: Any, frame: FrameType) -> bool:
    """Whether anything may take several at once; else the whole heap need not be looked through."""
    if sys.getrefcount(asked) > _FEW_REFERENCES:
        return True
    takers = {one.__name__ for one in _TAKES_SEVERAL}
    known = frame.f_globals
    names = frame.f_code.co_names + frame.f_code.co_varnames + frame.f_code.co_freevars
    return any(name in takers or any(known.get(name) is one for one in _TAKES_SEVERAL) for name in names)


# -- loops that hand the item on --------------------------------------------------------------------------------------


class _Loop:
    """The loop whose next item is asked for at ``index``: what it does with an item."""

    def __init__(self, instructions: list[dis.Instruction], index: int, frame: FrameType) -> None:
        self._all, self._frame = instructions, frame
        self._body = _body(instructions, index)
        ops = {instructions[i].opname for i in self._body}
        self._is_comprehension = bool(ops & {"LIST_APPEND", "SET_ADD", "MAP_ADD"}) or frame.f_code.co_name == "<genexpr>"
        self._callees = {i: _callee(instructions, i, frame) for i in self._body if _is_call(instructions[i].opname)}
        self._hand_offs = [i for i, callee in self._callees.items() if callee is not None and _is_hand_off(callee)]

    def reads_ahead(self, item: Any) -> str | None:
        """Words for it if the loop gives each item to somebody else, who works it later, and does nothing with it itself."""
        if self._hand_offs:
            is_certain = self._only_collects(self._hand_offs) or (self.hands_on() and _any_pending(self._frame))
            first = self._callees[self._hand_offs[0]]
            return f"{first.name}() in a loop" if is_certain and first is not None else None
        if self._callees and self._gathers_batches(item):
            return "a generator that makes batches"
        if self._callees and not self.awaits() and (self._is_comprehension or self._only_collects(self._callees)):
            return "a loop that makes coroutines and does not await them" if _is_unstarted(item) else None
        return None

    def _gathers_batches(self, item: Any) -> bool:
        """Whether this generator puts items into a list, which still has this one, and hands the list on when it is full."""
        others = (i for i in self._body if i not in self._callees and not self._is_wrapping(i))
        if any(self._all[i].opname.startswith(_WORKS) for i in others):
            return False
        batch: Any = None
        collecting: list[int] = []
        for i, callee in self._callees.items():
            if callee is not None and (callee.value is len or (callee.name == "clear" and type(callee.receiver) in _CONTAINERS)):
                continue
            if callee is None or callee.name not in _COLLECTS or type(callee.receiver) not in _CONTAINERS:
                return False
            batch = callee.receiver
            collecting.append(i)
        return (
            batch is not None
            and any(one is item for one in batch)
            and self._uses_item_elsewhere(collecting) is False
            and any(self._all[i].opname == "YIELD_VALUE" and self._loaded_before(i) is batch for i in self._body)
        )

    def _is_wrapping(self, i: int) -> bool:
        return self._all[i].opname.startswith("CALL_INTRINSIC")

    def _loaded_before(self, i: int) -> Any:
        found = i - 1
        while self._all[found].opname in _NOTHING or self._is_wrapping(found) or self._all[found].opname == "ASYNC_GEN_WRAP":
            found -= 1
        return _value(self._all, (found, 0), self._frame)

    def hands_on(self) -> bool:
        """Whether all that happens to an item is that it is given to a pool; its result may be waited for."""
        return bool(self._hand_offs) and self._uses_item_elsewhere(self._hand_offs) is False

    def awaits(self) -> bool:
        return any(self._all[i].opname in _AWAITS for i in self._body)

    def only_forwards(self) -> bool:
        body = [self._all[i].opname for i in self._body]
        return "YIELD_VALUE" in body and not any(op.startswith(_WORKS) and not op.startswith("CALL_INTRINSIC") for op in body)

    def _only_collects(self, hand_offs: Iterable[int]) -> bool:
        """Whether every result in the loop is a hand-off's, or is put into a collection, and nothing is waited for."""
        if self.awaits():
            return False
        hand_offs, has_result = set(hand_offs), False
        for i, callee in self._callees.items():
            after = self._fate(i)
            if after == "":
                continue  # an argument of another call
            is_collecting = callee is not None and callee.name in _COLLECTS
            if after is None or not (is_collecting or (i in hand_offs and self._is_known(i))):
                return False
            has_result = True
        return has_result

    def _is_known(self, call: int) -> bool:
        return call in self._hand_offs or self._is_comprehension

    def _fate(self, call: int) -> str | None:
        """What becomes of a call's result: the opcode that keeps it, ``""`` for an argument of a call, None for anything else."""
        for i in range(call + 1, self._body.stop):
            op = self._all[i].opname
            if op in _NOTHING or op.startswith((*_PLAIN_LOADS, "BUILD_TUPLE")):
                continue
            if _is_call(op):
                return ""
            if op in ("LOAD_METHOD", "LOAD_ATTR") and self._all[i].argval == "start":
                return ""
            return op if op.startswith(_KEEPS) else None
        return None

    def _uses_item_elsewhere(self, calls: list[int]) -> bool | None:
        """Whether the loop's variable is read outside of these calls; None if that cannot be told."""
        target = next((i for i in self._body if self._all[i].opname.startswith("STORE_")), None)
        if target is None:
            return None
        names = self._all[target].argval
        name = names[0] if isinstance(names, tuple) else names
        callees = ((call, self._callees[call]) for call in calls)
        inside = {i for call, callee in callees if callee is not None for i in range(callee.begin, call)}
        for i in self._body:
            one = self._all[i]
            read = one.argval if isinstance(one.argval, tuple) else (one.argval,)
            read = read[1:] if i == target else read
            if i not in inside and "LOAD" in one.opname and name in read:
                return True
        return False


def _body(instructions: list[dis.Instruction], index: int) -> range:
    ask = instructions[index]
    if ask.opname == "FOR_ITER":
        end = next((i for i in range(index + 1, len(instructions)) if instructions[i].offset >= ask.argval), len(instructions))
        return range(index + 1, end)
    start = next((i for i in range(index, max(-1, index - 8), -1) if instructions[i].opname == "GET_ANEXT"), None)
    if start is None:
        return range(0)
    first, ends = instructions[start].offset, []
    for i in range(index + 1, len(instructions)):
        one = instructions[i]
        is_jump = one.opname.startswith("JUMP") and isinstance(one.argval, int) and one.opname != "JUMP_FORWARD"
        if is_jump and first - 8 <= one.argval <= first:
            ends.append(i)
    waits = ("SEND", "YIELD_VALUE", "RESUME", "JUMP_BACKWARD_NO_INTERRUPT", "END_SEND", "POP_BLOCK", "NOP", "YIELD_FROM")
    begin = index + 1  # behind what waits for the item itself
    while begin < len(instructions) and instructions[begin].opname in waits:
        begin += 1
    return range(begin, ends[-1] if ends else begin)


def _any_pending(frame: FrameType) -> bool:
    """Whether a future that a variable of the asking function holds is not done."""
    for value in list(frame.f_locals.values()):
        several: Iterable[Any] = (value,)
        if isinstance(value, _CONTAINERS):
            several = itertools.islice(itertools.chain(value, value.values() if isinstance(value, dict) else ()), _MOST_LOOKED_AT)
        for one in several:
            if isinstance(one, concurrent.futures.Future | asyncio.Future) and not one.done():
                return True
    return False


def _is_hand_off(callee: _Callee) -> bool:
    if isinstance(callee.value, type) and issubclass(callee.value, threading.Thread | multiprocessing.process.BaseProcess):
        return True
    if callee.name not in _HAND_OFFS:
        return False
    owner = callee.value if callee.receiver is None else callee.receiver
    if owner is None:
        return False
    if isinstance(owner, ModuleType):
        module = owner.__name__
    elif callee.receiver is None:
        module = getattr(owner, "__module__", None) or ""
    else:
        if isinstance(owner, concurrent.futures.Executor):
            return True
        module = type(owner).__module__
    return module.partition(".")[0] in _HAND_OFF_PACKAGES


def _is_unstarted(item: Any) -> bool:
    """Whether a coroutine was made for ``item`` and has not begun, in a thread that runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    # Not by who refers to it: a tuple of arguments is unknown to the garbage collector if it holds but texts and numbers.
    return any(_is_unstarted_with(one, item) for one in gc.get_objects() if type(one) is CoroutineType)


def _is_unstarted_with(coroutine: Any, item: Any) -> bool:
    frame = coroutine.cr_frame
    if frame is None or inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        return False
    for value in frame.f_locals.values():
        if value is item:
            return True
        several = value if type(value) is tuple else value.values() if type(value) is dict else ()  # its *args and **kwargs
        if any(one is item for one in itertools.islice(several, _MOST_LOOKED_AT)):
            return True
    return False


# -- reading the asking code ------------------------------------------------------------------------------------------


class _Callee(NamedTuple):
    name: str
    value: Any
    """What is called, where its name says so; None if only the name of a method is known."""
    receiver: Any
    """Whose method it is, if that can be had without running anything."""
    begin: int
    """The first instruction of the call: the one that loads the callee, or what it is bound to."""


@lru_cache(256)
def _instructions(code: CodeType) -> tuple[list[dis.Instruction], list[int]]:
    found = [one for one in dis.get_instructions(code) if one.opname != "CACHE"]
    return found, [one.offset for one in found]


def _instruction_at(frame: FrameType) -> tuple[list[dis.Instruction], int | None]:
    """
    The instruction at which the frame stands.

    ``f_lasti`` may be inside of its inline cache (Python 3.12, where generators are resumed without a call), and
    ``co_code`` holds no specialised opcodes.
    """
    instructions, offsets = _instructions(frame.f_code)
    index = bisect_right(offsets, frame.f_lasti) - 1
    # Code that has run some times asks at what precedes its call (3.11), or at the prefix of an instruction.
    while index >= 0 and index + 1 < len(instructions) and instructions[index].opname in ("EXTENDED_ARG", "PRECALL", "KW_NAMES"):
        index += 1
    return (instructions, index) if index >= 0 else (instructions, None)


def _is_call(op: str) -> bool:
    return op.startswith("CALL") and not op.startswith("CALL_INTRINSIC")


def _popped_by_call(one: dis.Instruction) -> tuple[int, int]:
    """How many values a call takes off the stack, and how deep under the top its callee (or what it is bound to) is."""
    n, op = one.arg or 0, one.opname
    has_null = sys.version_info >= (3, 11)
    if op == "CALL_FUNCTION_EX":
        extra = 1 if sys.version_info >= (3, 14) else n & 1
        return 2 + extra + has_null, 1 + extra
    if op in ("CALL_FUNCTION_KW", "CALL_KW"):
        return n + 2 + has_null, n + 1
    if op == "CALL_METHOD":
        return n + 2, n
    return n + 1 + has_null, n


def _effect(one: dis.Instruction) -> tuple[int, int] | None:
    """How many values an instruction pops and pushes; None where the stack cannot be followed back over it."""
    op, arg = one.opname, one.arg
    if op in _NOTHING:
        return 0, 0
    if _is_call(op):
        return _popped_by_call(one)[0], 1
    if op.startswith(("SWAP", "ROT_", "JUMP", "POP_JUMP", "FOR_ITER", "SEND", "RETURN", "RAISE", "YIELD", "COPY", "DUP", "END_")):
        return (0, 1) if op == "DUP_TOP" else None
    net = dis.stack_effect(one.opcode, arg if one.opcode >= dis.HAVE_ARGUMENT else None, jump=False)
    pushes = 1
    if op.startswith(("STORE_", "POP_", "LIST_APPEND", "SET_ADD", "MAP_ADD", "DELETE_")):
        pushes = 1 if "LOAD" in op else 0
    elif (
        op == "LOAD_METHOD"
        or op.count("LOAD_FAST") == 2
        or (op.startswith("LOAD_") and "NULL" in one.argrepr)
        or (op == "LOAD_ATTR" and net == 1)
    ):
        pushes = 2
    return (pushes - net, pushes) if pushes >= net else None


def _producer(instructions: list[dis.Instruction], before: int, depth: int) -> tuple[int, int] | None:
    """Which instruction before ``before`` has put the value ``depth`` below the top of the stack, and how deep under its own."""
    for i in range(before - 1, -1, -1):
        effect = _effect(instructions[i])
        if effect is None:
            return None
        popped, pushed = effect
        if depth < pushed:
            return i, depth
        depth += popped - pushed
    return None


def _callee(instructions: list[dis.Instruction], call: int, frame: FrameType) -> _Callee | None:
    """What is called at ``call``, as far as its name tells; nothing is run to find out."""
    depth = _popped_by_call(instructions[call])[1]
    found = _producer(instructions, call, depth)
    if found is not None and instructions[found[0]].opname == "PUSH_NULL":
        found = _producer(instructions, call, depth + 1)
    if found is None:
        return None
    index, one = found[0], instructions[found[0]]
    if one.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        receiver = _producer(instructions, index, 0)
        owner = None if receiver is None else _value(instructions, receiver, frame)
        value = None
        if isinstance(owner, ModuleType | type):
            value = inspect.getattr_static(owner, str(one.argval), None)
        return _Callee(str(one.argval), value, owner, index if receiver is None else receiver[0])
    value = _value(instructions, found, frame)
    return None if value is None else _Callee(str(one.argval), value, None, index)


def _value(instructions: list[dis.Instruction], found: tuple[int, int], frame: FrameType) -> Any:
    """The value that an instruction loads by a name, None if that cannot be told."""
    index, depth = found
    one = instructions[index]
    name = one.argval[1 - depth] if isinstance(one.argval, tuple) and len(one.argval) == 2 else one.argval
    if not isinstance(name, str):
        return None
    if one.opname == "LOAD_ATTR":
        receiver = _producer(instructions, index, 0)
        owner = None if receiver is None else _value(instructions, receiver, frame)
        value = None if owner is None else inspect.getattr_static(owner, name, None)
        return None if inspect.isdatadescriptor(value) else value
    if one.opname.startswith(("LOAD_FAST", "STORE_FAST_LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")):
        return frame.f_locals.get(name)
    if one.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
        places = [frame.f_globals, frame.f_builtins]
        if one.opname == "LOAD_NAME":
            places.insert(0, dict(frame.f_locals))
        return next((place[name] for place in places if name in place), None)
    return None
