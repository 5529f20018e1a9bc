"""Code that keeps an item for later: in a list until it is full, in a name until its next turn, or by asking twice in a row."""

from __future__ import annotations

import collections
import dis
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from resumable.checkpoint.read_ahead.harmless import is_kept, only_looks
from resumable.checkpoint.read_ahead.instructions import NOTHING, Callee, producer, value_at

ADDS = frozenset({"append", "add", "appendleft"})
_ADDED_TO = (list, set, collections.deque)
_CALLS = ("CALL", "CALL_METHOD", "CALL_FUNCTION")
_MOST_HELD = 200

_MOVES = (*NOTHING, "PUSH_NULL", "GET_ITER", "POP_BLOCK", "JUMP_FORWARD", "COMPARE_OP", "IS_OP", "TO_BOOL", "POP_JUMP")
_ENDS = ("RETURN_VALUE", "RETURN_CONST")
_NAMES = ("LOAD_FAST", "LOAD_NAME", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_CONST", "STORE_FAST", "STORE_NAME", "STORE_DEREF")


class Filling:
    """A loop's body, asked whether it does nothing with an item but put it into a list that is worked later, when it is full."""

    def __init__(
        self, instructions: list[dis.Instruction], body: range, callees: Mapping[int, Callee | None], frame: FrameType
    ) -> None:
        self._all, self._body, self._callees, self._frame = instructions, body, callees, frame

    def only_fills(self, item: Any) -> bool:
        """
        ``batch.append(item)``, then ``if len(batch) == 5: work(batch); batch = []``, as long as the item is in the batch.

        Not of a list that is filled and no more: to be in it may be all that is to be done with an item.
        """
        adds = [i for i, callee in self._callees.items() if callee is not None and self._is_add(callee)]
        keeping = [i for i in adds if self._is_argument(i, item)]
        flushes = {i for batch in self._batches(keeping, item) for i in self._flushes(batch)}
        if not flushes or flushes & {*keeping}:
            return False
        rest = [i for i in self._body if i not in flushes and i not in adds]
        if any(self._all[i].opname == "YIELD_VALUE" for i in rest):
            return False
        return only_looks(self._all, rest, self._frame, item)

    def _is_add(self, callee: Callee) -> bool:
        return callee.name in ADDS and type(callee.receiver) in _ADDED_TO

    def _is_argument(self, call: int, item: Any) -> bool:
        one = self._all[call]
        return one.opname in _CALLS and any(is_kept(self._all, call, self._frame, item, depth) for depth in range(one.arg or 0))

    def _batches(self, keeping: list[int], item: Any) -> Iterator[Any]:
        for i in keeping:
            callee = self._callees[i]
            batch: Any = None if callee is None else callee.receiver
            if type(batch) in _ADDED_TO and any(_is_with(one, item) for one in [*batch][-_MOST_HELD:]):
                yield batch

    def _flushes(self, batch: Any) -> Iterator[int]:
        """
        Instructions that are run under a condition, with one that makes the batch empty: as it is not, they were not run since.
        """
        for i in self._body:
            if not self._all[i].opname.startswith("POP_JUMP"):
                continue
            branch = self._branch(i)
            empties = [k for k in branch if self._empties(k, batch)]
            if empties and not any(self._all[k].opname.startswith("POP_JUMP") for k in range(branch.start, empties[0])):
                yield from branch

    def _branch(self, jump: int) -> range:
        target = self._index(self._all[jump].argval)
        if target < self._body.start:
            return range(jump + 1, self._body.stop)
        after = next((k for k in range(jump + 1, self._body.stop) if self._all[k].opname not in NOTHING), None)
        if after is not None and self._all[after].opname.startswith("JUMP_BACKWARD"):  # else on to the next item
            return range(target, self._body.stop)
        return range(jump + 1, min(target, self._body.stop))

    def _index(self, offset: int) -> int:
        return next((i for i, one in enumerate(self._all) if one.offset >= offset), len(self._all))

    def _empties(self, index: int, batch: Any) -> bool:
        one, callee = self._all[index], self._callees.get(index)
        if callee is not None and callee.name == "clear":
            return callee.receiver is batch
        if one.opname == "DELETE_SUBSCR":
            found = producer(self._all, index, 1)
            return found is not None and value_at(self._all, found, self._frame) is batch
        return one.opname in ("STORE_FAST", "STORE_NAME", "STORE_DEREF") and self._frame.f_locals.get(one.argval) is batch


def _is_with(one: Any, item: Any) -> bool:
    return one is item or (type(one) is tuple and any(part is item for part in one))


def is_for_the_next_turn(instructions: list[dis.Instruction], body: range, frame: FrameType, item: Any) -> bool:
    """``for item in items: if last: work(last); last = item``: of an item nothing is done but that it gets another name."""
    accesses = [(i, *access) for i in body for access in _accesses(instructions[i])]
    named = next((name for _, name, is_store in accesses if is_store and frame.f_locals.get(name) is item), None)
    outside = (access for i, one in enumerate(instructions) if i not in body for access in _accesses(one))
    if named is None or named in frame.f_code.co_cellvars or (named, False) in outside:
        return False
    others: dict[str, int] = {}
    for place, (i, name, is_store) in enumerate(accesses):
        if name != named or is_store:
            continue
        following = accesses[place + 1] if place + 1 < len(accesses) else None
        if (
            following is None
            or not following[2]
            or any(instructions[k].opname not in NOTHING for k in range(i + 1, following[0]))
        ):
            return False
        others[following[1]] = following[0]
    jumps = [(k, instructions[k]) for k in body if "JUMP" in instructions[k].opname]
    loops = [(k, one.argval) for k, one in jumps if isinstance(one.argval, int) and one.argval <= one.offset]
    first = instructions[body.start].offset
    for other, copied in others.items():
        if any(name == other and not is_store and i > copied for i, name, is_store in accesses):
            return False
        if any(first <= back <= instructions[copied].offset and k > copied for k, back in loops):  # a loop within the loop
            return False
    return bool(others)


def _accesses(one: dis.Instruction) -> list[tuple[str, bool]]:
    """Which local names an instruction loads and stores, in that order it does; and whether it stores."""
    if "_FAST" not in one.opname:
        return []
    names = one.argval if isinstance(one.argval, tuple) else (one.argval,)
    kinds = ("STORE", "LOAD") if one.opname.startswith("STORE_FAST_LOAD_FAST") else (one.opname.partition("_")[0],) * 2
    return [(name, kind == "STORE") for name, kind in zip(names, kinds, strict=False) if isinstance(name, str)]


def is_nothing_between(instructions: list[dis.Instruction], before: int, now: int) -> bool:
    """``first, second = next(items), next(items)``: between two asks the first answer gets a name, and nothing else is done."""
    i, is_first = before + 1, True
    for _ in range(now - before):
        if i >= now:
            break
        one = instructions[i]
        if is_first and one.opname not in NOTHING:
            if one.opname.startswith(("POP_TOP", "GET_ITER")):
                return False  # it is left out on purpose
            is_first = False
        if not one.opname.startswith((*_MOVES, *_NAMES, *_ENDS)):
            return False
        ahead = one.opname == "JUMP_FORWARD"
        i = next((k for k, two in enumerate(instructions) if two.offset >= one.argval), now + 1) if ahead else i + 1
    return i == now and before < now
