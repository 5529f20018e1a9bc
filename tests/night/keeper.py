"""
Runs one command and leaves no process behind: `python -m tests.night.keeper SECONDS COMMAND...`

Whatever the command started, in sessions of its own too, ends with it: on Linux orphans become this process's children. It is
told to end (SIGINT, so that fixtures and `with` blocks clean up) when its time is over, when this process gets SIGTERM or SIGINT,
or when who started this process is gone; what is still there after that is killed. Exit code: the command's, 124 after the time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

OVERTIME = 124
TOLD = 143
GRACE = 40.0
LOOK = 2.0
PR_SET_CHILD_SUBREAPER = 36


def main(seconds: str, *command: str) -> int:
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    told: list[int] = []
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, _: told.append(number))
    parent, until = os.getppid(), time.monotonic() + float(seconds)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while (code := _ended(child, LOOK)) is None:
            if told or os.getppid() != parent:
                return _end(child, TOLD)
            if time.monotonic() > until:
                return _end(child, OVERTIME)
        return code
    finally:
        _kill_the_rest()


def _ended(child: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return child.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _end(child: subprocess.Popen[bytes], code: int) -> int:
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    _ended(child, GRACE)
    return code


def _kill_the_rest() -> None:
    while rest := psutil.Process().children(recursive=True):
        for process in rest:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(rest, 5)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
