"""Reading the code of a frame: at which instruction it stands, what is called there. Nothing of it is run."""

from __future__ import annotations

import dis
import inspect
import sys
from bisect import bisect_right
from functools import lru_cache
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

NOTHING = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "RESUME", "PRECALL", "KW_NAMES", "NOT_TAKEN", "MAKE_CELL", "COPY_FREE_VARS"})
"""Opcodes that leave the stack as it is."""


class Callee(NamedTuple):
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


def code_of(code: CodeType) -> list[dis.Instruction]:
    """The instructions of a function."""
    return _instructions(code)[0]


def instruction_at(frame: FrameType) -> tuple[list[dis.Instruction], int | None]:
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


def is_call(op: str) -> bool:
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
    if op in NOTHING:
        return 0, 0
    if is_call(op):
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


def producer(instructions: list[dis.Instruction], before: int, depth: int) -> tuple[int, int] | None:
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


def callee_at(instructions: list[dis.Instruction], call: int, frame: FrameType) -> Callee | None:
    """What is called at ``call``, as far as its name tells; nothing is run to find out."""
    depth = _popped_by_call(instructions[call])[1]
    found = producer(instructions, call, depth)
    if found is not None and instructions[found[0]].opname == "PUSH_NULL":
        found = producer(instructions, call, depth + 1)
    if found is None:
        return None
    index, one = found[0], instructions[found[0]]
    if one.opname in ("LOAD_METHOD", "LOAD_ATTR"):
        receiver = producer(instructions, index, 0)
        owner = None if receiver is None else value_at(instructions, receiver, frame)
        value = None
        if isinstance(owner, ModuleType | type):
            value = inspect.getattr_static(owner, str(one.argval), None)
        return Callee(str(one.argval), value, owner, index if receiver is None else receiver[0])
    value = value_at(instructions, found, frame)
    return None if value is None else Callee(str(one.argval), value, None, index)


def value_at(instructions: list[dis.Instruction], found: tuple[int, int], frame: FrameType) -> Any:
    """The value that an instruction loads by a name, None if that cannot be told."""
    index, depth = found
    one = instructions[index]
    name = one.argval[1 - depth] if isinstance(one.argval, tuple) and len(one.argval) == 2 else one.argval
    if not isinstance(name, str):
        return None
    if one.opname == "LOAD_ATTR":
        receiver = producer(instructions, index, 0)
        owner = None if receiver is None else value_at(instructions, receiver, frame)
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
