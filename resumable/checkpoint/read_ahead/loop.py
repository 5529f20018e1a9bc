"""What the loop that asks for an item does with it: works it, or gives it to somebody else who works it later."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dis
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from resumable.checkpoint.read_ahead.consumers import MOST_LOOKED_AT, is_unstarted
from resumable.checkpoint.read_ahead.hand_offs import PUTS, is_hand_off
from resumable.checkpoint.read_ahead.harmless import is_kept, only_looks
from resumable.checkpoint.read_ahead.instructions import NOTHING, Callee, callee_at, is_call, value_at
from resumable.checkpoint.read_ahead.keeping import ADDS, Filling, is_for_the_next_turn

_OF_A_HAND_OFF = frozenset({"start", "add_done_callback"})
"""Methods of what a hand-off returns that wait for nothing."""

_COLLECTS = ADDS | {"put_nowait"} | _OF_A_HAND_OFF

_CONTAINERS = (list, tuple, dict, set, collections.deque)

_PLAIN_LOADS = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CONST", "LOAD_SMALL_INT")
_KEEPS = ("POP_TOP", "LIST_APPEND", "SET_ADD", "MAP_ADD", "YIELD_VALUE", "STORE_", "ASYNC_GEN_WRAP", "CALL_INTRINSIC_1")
_WORKS = ("CALL", "SEND", "YIELD_FROM", "GET_AWAITABLE", "STORE_SUBSCR", "STORE_ATTR", "STORE_GLOBAL", "FOR_ITER", "IMPORT")
_COPIES = (
    *("STORE_FAST", "STORE_DEREF", "LOAD_FAST", "LOAD_DEREF", "LOAD_CONST", "LIST_APPEND", "SET_ADD", "MAP_ADD", "BUILD_TUPLE"),
    *("UNPACK_SEQUENCE", "GET_ITER", "FOR_ITER", "END_FOR", "POP_ITER", "JUMP", "SWAP", "POP_TOP"),
)
"""What a comprehension consists of that hands its items on as they are: nothing of it can be the work on one."""
_AWAITS = frozenset({"GET_AWAITABLE", "YIELD_FROM", "SEND"})


class Loop:
    """The loop whose next item is asked for at ``index``: what it does with an item."""

    def __init__(self, instructions: list[dis.Instruction], index: int, frame: FrameType) -> None:
        self._all, self._frame = instructions, frame
        self._body = _body(instructions, index)
        ops = {instructions[i].opname for i in self._body}
        self._is_comprehension = bool(ops & {"LIST_APPEND", "SET_ADD", "MAP_ADD"}) or frame.f_code.co_name == "<genexpr>"
        self._callees = {i: callee_at(instructions, i, frame) for i in self._body if is_call(instructions[i].opname)}
        self._hand_offs = [i for i, callee in self._callees.items() if callee is not None and is_hand_off(callee)]

    def reads_ahead(self, item: Any) -> str | None:
        """Words for it if the loop gives each item to somebody else, who works it later, and does nothing with it itself."""
        if self._hand_offs:
            is_certain = self._only_collects(self._hand_offs) or (self.hands_on() and self._is_pending(item))
            first = self._callees[self._hand_offs[0]]
            return f"{first.name}() in a loop" if is_certain and first is not None else None
        if self._only_copies() or self._only_keeps(item):
            return "a comprehension that keeps its items"
        if self._callees and self._gathers_batches(item):
            return "a generator that makes batches"
        if not self._is_comprehension:
            if Filling(self._all, self._body, self._callees, self._frame).only_fills(item):
                return "a loop that makes batches"
            # One that says itself which item of before has failed is late on purpose.
            is_told = any(callee is not None and callee.name == "fail" for callee in self._callees.values())
            if not is_told and is_for_the_next_turn(self._all, self._body, self._frame, item):
                return "a loop that keeps each item for its next turn"
        return "a loop that makes coroutines and does not await them" if self._leaves_coroutine(item) else None

    def _leaves_coroutine(self, item: Any) -> bool:
        """Whether a coroutine of the item has not begun, and nothing else can have been done with the item."""
        if all(callee is not None and self._is_collection(callee) for callee in self._callees.values()):
            return False  # nothing here can have made one
        if not self.awaits():
            return (self._is_comprehension or self._only_collects(self._callees)) and is_unstarted(item)
        making = [(call, callee) for call, callee in self._callees.items() if self._uses_item_elsewhere([call]) is False]
        codes = [getattr(callee.value, "__code__", None) for _, callee in making if callee is not None]
        return any(codes) and is_unstarted(item, codes)

    @staticmethod
    def _is_collection(callee: Callee) -> bool:
        return callee.name in _COLLECTS and type(callee.receiver) in _CONTAINERS

    def _only_keeps(self, item: Any) -> bool:
        """``[item for item in items if item.endswith(".csv")]``, ``{item.name: item for item in items}``."""
        adds = [i for i in self._body if self._all[i].opname in ("LIST_APPEND", "SET_ADD", "MAP_ADD")]
        return (
            bool(adds)
            and only_looks(self._all, self._body, self._frame, item)
            and all(is_kept(self._all, i, self._frame, item) for i in adds)
        )

    def _only_copies(self) -> bool:
        """``[item for item in items]``, which is ``list(items)``."""
        if self._callees:
            return False
        ops = [self._all[i].opname for i in self._body]
        is_collecting = any(op in ("LIST_APPEND", "SET_ADD", "MAP_ADD") for op in ops)
        return is_collecting and all(op in NOTHING or op.startswith(_COPIES) for op in ops)

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
        while self._all[found].opname in NOTHING or self._is_wrapping(found) or self._all[found].opname == "ASYNC_GEN_WRAP":
            found -= 1
        return value_at(self._all, (found, 0), self._frame)

    def hands_on(self) -> bool:
        """Whether all that happens to an item is that it is given to a pool; its result may be waited for."""
        return bool(self._hand_offs) and self._uses_item_elsewhere(self._hand_offs) is False

    def awaits(self) -> bool:
        return any(self._all[i].opname in _AWAITS for i in self._body)

    def only_forwards(self, item: Any) -> bool:
        body = [self._all[i].opname for i in self._body]
        if "YIELD_VALUE" not in body:
            return False
        does_nothing = not any(op.startswith(_WORKS) and not op.startswith("CALL_INTRINSIC") for op in body)
        return does_nothing or (
            only_looks(self._all, self._body, self._frame, item)
            and all(
                self._loaded_before(i) is item or is_kept(self._all, i, self._frame, item)
                for i in self._body
                if self._all[i].opname == "YIELD_VALUE"
            )
        )

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

    def _is_pending(self, item: Any) -> bool:
        """Whether the item that was handed on last is not worked yet, as the queues and futures of the asking function tell."""
        for i in self._hand_offs:
            callee, taker = self._callees[i], self._taker(i)
            assert callee is not None
            if callee.name in PUTS:
                found = _is_queued(callee.receiver or getattr(callee.value, "__self__", None), item, self._frame)
            elif taker is not None and (taker.opname in _AWAITS or taker.argval == "result"):
                found = False  # it is waited for, whatever else goes on beside this loop
            elif taker is not None and taker.opname.startswith(("STORE_FAST", "STORE_NAME", "STORE_DEREF")):
                name = taker.argval[0] if isinstance(taker.argval, tuple) else taker.argval
                found = _is_open(self._frame.f_locals.get(name))
            else:
                found = any(map(_is_open, _kept_in_containers(self._frame))) or _is_worked_elsewhere(item)
            if found:
                return True
        return False

    def _taker(self, call: int) -> dis.Instruction | None:
        """The instruction that takes a call's result."""
        loads = (*_PLAIN_LOADS, "BUILD_TUPLE")
        rest = (self._all[i] for i in range(call + 1, self._body.stop))
        return next((one for one in rest if one.opname not in NOTHING and not one.opname.startswith(loads)), None)

    def _fate(self, call: int) -> str | None:
        """What becomes of a call's result: the opcode that keeps it, ``""`` for an argument of a call, None for anything else."""
        taker = self._taker(call)
        if taker is None:
            return None
        if is_call(taker.opname) or (taker.opname in ("LOAD_METHOD", "LOAD_ATTR") and taker.argval in _OF_A_HAND_OFF):
            return ""
        return taker.opname if taker.opname.startswith(_KEEPS) else None

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


def _is_open(one: Any) -> bool:
    if isinstance(one, subprocess.Popen):
        return one.returncode is None  # nobody has waited for it
    return isinstance(one, concurrent.futures.Future | asyncio.Future) and not one.done()


def _kept_in_containers(frame: FrameType) -> Iterator[Any]:
    """What is in the lists, sets and the like that the asking function has."""
    for value in list(frame.f_locals.values()):
        if isinstance(value, _CONTAINERS):
            several = itertools.chain(value, value.values() if isinstance(value, dict) else ())
            yield from itertools.islice(several, MOST_LOOKED_AT)


def _is_worked_elsewhere(item: Any) -> bool:
    """Whether a task of this event loop, or a thread of a pool, has been given the item and has not come to its end."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no event loop in this thread
        tasks = set()
    frames = (getattr(task.get_coro(), "cr_frame", None) for task in tasks if not task.done())
    if any(frame is not None and _is_argument(frame, item) for frame in frames):
        return True
    beside = (frame for thread, frame in sys._current_frames().items() if thread != threading.get_ident())
    return any(_is_of_pool_with(frame, item) for frame in beside)


def _is_argument(frame: FrameType, item: Any) -> bool:
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return any(frame.f_locals.get(name) is item for name in names)


def _is_of_pool_with(frame: FrameType | None, item: Any) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "concurrent.futures.thread" and frame.f_code.co_name == "run":
            return any(one is item for one in _arguments_of(frame.f_locals.get("self")))
        frame = frame.f_back
    return False


def _arguments_of(work_item: Any) -> tuple[Any, ...]:
    """What ``Executor.submit`` was given for a call that is under way."""
    arguments = getattr(work_item, "args", None)
    if arguments is None:
        arguments = getattr(work_item, "task", ((), ()))[1]  # from Python 3.14 on
    return arguments if isinstance(arguments, tuple) else ()


def _is_queued(queue: Any, item: Any, frame: FrameType) -> bool:
    """Whether an item is still in a queue, or is worked by a task beside: then what was put there is not said to be done."""
    inside = getattr(queue, "_queue", None) or getattr(queue, "queue", None) or ()
    if isinstance(inside, collections.deque | list) and any(one is item for one in list(inside)):
        return True
    unfinished = getattr(queue, "_unfinished_tasks", getattr(queue, "unfinished_tasks", 1))
    return unfinished > 0 and any(map(_is_open, [*frame.f_locals.values(), *_kept_in_containers(frame)]))
