"""How answers are printed: a table for people, JSON for scripts; and the question before anything is changed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

DONE, TROUBLE, UNUSABLE = 0, 1, 2
"""Exit codes: what was asked for; something that a person has to look at, or that was refused; it cannot be asked here."""


_STDOUT, _STDERR = 1, 2


class Refused(Exception):
    """It would break the promise, or cannot be done; the message says what to do instead."""


_answers: list[TextIO] = []


@contextmanager
def answers_apart() -> Iterator[None]:
    """While it is open, only answers go to standard output: what Airflow and providers print there goes to standard error."""
    before, sys.stdout = sys.stdout, sys.stderr
    own = _real_file(before)
    _answers.append(own or before)
    try:
        yield
    finally:
        _answers.pop().flush()
        sys.stdout = before
        if own is not None:
            sys.stderr.flush()
            os.dup2(own.fileno(), _STDOUT)
            own.close()


class Unreadable(Exception):
    """The records of this deployment cannot be asked for here."""


def _real_file(stream: TextIO) -> TextIO | None:
    """Standard output under a number of its own, its old number being standard error's; None if it is no file (a test)."""
    try:
        if stream.fileno() != _STDOUT:
            return None
    except (OSError, ValueError):
        return None
    stream.flush()
    own = os.fdopen(os.dup(_STDOUT), "w", encoding=stream.encoding or "utf-8", errors="replace")
    os.dup2(_STDERR, _STDOUT)
    return own


def answers() -> TextIO:
    return _answers[-1] if _answers else sys.stdout


def console() -> Console:
    """As wide as the terminal; a file or a pipe gets whole lines."""
    return Console(file=answers()) if answers().isatty() else Console(file=answers(), width=10_000)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console().print(table)


def _plain(cell: object) -> Any:
    from rich.text import Text

    return Text("" if cell is None else " ".join(str(cell).split()))  # a task can write anything, markup and newlines too


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str), file=answers())


def say(text: str) -> None:
    print(text, file=answers())


def confirmed(what: str, *, yes: bool) -> bool:
    """Say what is about to be done; True if that is wanted. Without a terminal and ``--yes`` it is not."""
    say(what)
    if yes:
        return True
    if not sys.stdin.isatty():
        say("Nothing was done: give --yes to do it without being asked.")
        return False
    return input("Go on? [y/N] ").strip().lower() in ("y", "yes")


def duration(seconds: float | None) -> str:
    """As people say it: 42s, 7m, 3h05m, 2d04h."""
    if seconds is None:
        return ""
    minutes, s = divmod(max(0, int(seconds)), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{hours}h{m:02}m"
    return f"{m}m" if minutes else f"{s}s"


def seconds_of(text: str) -> float:
    """
    The seconds of ``90``, ``90s``, ``15m``, ``6h``, ``2d``.

    Raises:
        ValueError: it is none of these.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    return float(text[:-1]) * unit if unit else float(text)
