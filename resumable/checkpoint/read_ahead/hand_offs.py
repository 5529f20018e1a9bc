"""Functions that give an item to somebody else, who works it later: pools, tasks, threads, programs, queues."""

from __future__ import annotations

import concurrent.futures
import functools
import multiprocessing.process
import subprocess
import threading
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

from resumable.checkpoint.read_ahead.harmless import as_frame
from resumable.checkpoint.read_ahead.instructions import NOTHING, Callee, callee_at, code_of, is_call

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
        "put_nowait",
        "remote",
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "callback",
        "push_async_callback",
    }
)
PUTS = frozenset({"put", "put_nowait"})
_HAND_OFF_PACKAGES = frozenset(
    {
        *("asyncio", "uvloop", "concurrent", "multiprocessing", "anyio", "trio", "joblib", "contextlib"),
        *("queue", "_queue", "distributed", "ray"),
    }
)


def is_hand_off(callee: Callee) -> bool:
    begun: tuple[type, ...] = (threading.Thread, multiprocessing.process.BaseProcess, subprocess.Popen)
    if isinstance(callee.value, type) and issubclass(callee.value, begun):
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


def only_hands_off(function: Any, item: Any) -> bool:
    """Whether a function, called with an item by ``map``, does nothing but give it away: ``pool.submit``, also in a lambda."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, MethodType | BuiltinMethodType) and not isinstance(function.__self__, ModuleType):
        return is_hand_off(Callee(function.__name__, function, function.__self__, 0))
    if is_hand_off(Callee(getattr(function, "__name__", ""), function, None, 0)):
        return True
    frame = as_frame(function, item) if isinstance(function, FunctionType) else None
    if frame is None:
        return False
    instructions = code_of(function.__code__)
    calls = [i for i, one in enumerate(instructions) if is_call(one.opname)]
    callee = callee_at(instructions, calls[0], frame) if len(calls) == 1 else None
    after = next((one.opname for one in instructions[calls[0] + 1 :] if one.opname not in NOTHING), "") if calls else ""
    return callee is not None and is_hand_off(callee) and after.startswith("RETURN")
