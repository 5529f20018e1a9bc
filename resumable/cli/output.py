"""How answers are printed: a table for people, JSON for scripts; and the question before anything is changed."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, TextIO, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resumable import host

DONE, TROUBLE, UNUSABLE = 0, 1, 2
"""Exit codes: what was asked for; something that a person has to look at, or that was refused; it cannot be asked here."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_STDOUT, _STDERR = 1, 2


class Refused(Exception):
    """It would break the promise, or cannot be done; the message says what to do instead."""


_answers: list[Answers] = []

_WIDE_ENOUGH = 24
"""Characters of a cell up to which a column does not fold it."""


class Answers:
    """
    What answers are written to. A reader that has gone (``| head``) or a full disk stops no work that is half done.

    Args:
        stream: None: standard output was closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.trouble: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("standard output is closed")
        return self._stream.fileno()

    def close(self) -> None:
        if self._stream is not None:
            self._try(lambda stream: stream.close())

    def _try(self, act: Callable[[TextIO], Any]) -> None:
        if self._stream is None or self.trouble is not None:
            return
        try:
            act(self._stream)
        except OSError as e:
            self.trouble = e


@contextmanager
def answers_apart() -> Iterator[None]:
    """
    While it is open, only answers go to standard output: what Airflow and providers print there goes to standard error.

    Raises:
        Unreadable: not all of the answer could be written, for another reason than that nobody reads it any more.
    """
    before, sys.stdout = sys.stdout, sys.stderr
    own = _real_file(before)
    answers_ = Answers(own or before)
    _answers.append(answers_)
    try:
        yield
    finally:
        _answers.pop().flush()
        sys.stdout = before
        if own is not None:
            sys.stderr.flush()
            os.dup2(own.fileno(), _STDOUT)
            answers_.close()
            if answers_.trouble is not None:  # what is left in the buffer of the interpreter's own would fail once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    if answers_.trouble is not None and not isinstance(answers_.trouble, BrokenPipeError):
        raise Unreadable(f"The answer could not be written to the end: {answers_.trouble}. What was to be done is done")


class Unreadable(Exception):
    """The records of this deployment cannot be asked for here, or the answer cannot be given."""


def _real_file(stream: TextIO | None) -> TextIO | None:
    """Standard output under a number of its own, its old number being standard error's; None if it is no file (a test)."""
    try:
        if stream is None or stream.fileno() != _STDOUT:
            return None
        stream.flush()
        own = os.fdopen(os.dup(_STDOUT), "w", encoding=stream.encoding or "utf-8", errors="replace")
        os.dup2(_STDERR, _STDOUT)
    except (OSError, ValueError):
        return None
    return own


def answers() -> Answers:
    return _answers[-1] if _answers else Answers(sys.stdout)


def console() -> Console:
    """As wide as the terminal; a file or a pipe gets whole lines."""
    return Console(file=cast("TextIO", answers()), width=None if answers().isatty() else 10_000)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; where the terminal is too narrow for its columns, each row is a paragraph that names them."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if answers().isatty() and _width_of(columns, cells) > console().width:
        for row in cells:
            _print_lines(_paragraph(columns, row, console().width))
        return
    table = _table()
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    named = [(name, clean(value)) for name, value in facts]
    longest = max((len(name) for name, _ in named), default=0)
    if answers().isatty() and longest + _WIDE_ENOUGH > console().width:
        _print_lines(f"{name}: {value}" for name, value in named)
        return
    table = _table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in named:
        table.add_row(name, Text(value))
    console().print(table)


def _table(**more: Any) -> Table:
    return Table(**{"box": box.SIMPLE_HEAD, "pad_edge": False, "show_edge": False, **more})


def _width_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The least width at which a table of them can be read."""
    longest = [max(cell_len(text) for text in column) for column in zip(columns, *rows, strict=True)]
    return sum(min(one, max(_WIDE_ENOUGH, len(name))) + 3 for one, name in zip(longest, columns, strict=True))


def _paragraph(columns: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    """A row as lines: its first cell, and below it what else it has."""
    yield row[0]
    line = ""
    for said in (f"{name}: {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell):
        if line and 2 + cell_len(line) + 2 + cell_len(said) > width:
            yield f"  {line}"
            line = ""
        line = f"{line}, {said}" if line else said
    if line:
        yield f"  {line}"


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=cast("TextIO", answers()))


def clean(cell: object) -> str:
    """One line of text that moves no cursor and hides nothing: a task can write anything into its record."""
    text = "" if cell is None else " ".join(str(cell).split())
    return text if text.isprintable() else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, default=str), file=cast("TextIO", answers()))


def say(text: str) -> None:
    print(clean(text), file=cast("TextIO", answers()))


def complain(text: object) -> None:
    """One line on standard error."""
    print(f"resumable: {clean(text)}", file=sys.stderr)


def confirmed(what: str, *, yes: bool) -> bool:
    """Say what is about to be done; True if that is wanted. Without a terminal and ``--yes`` it is not."""
    say(what)
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        say("Nothing was done: give --yes to do it without being asked.")
        return False
    answers().flush()
    try:
        is_wanted = input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        is_wanted = False
    if not is_wanted:
        say("Nothing was done.")
    return is_wanted


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
    seconds = float(text[:-1]) * unit if unit else float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(text)
    return seconds


# -- where nothing can be asked -----------------------------------------------------------------------------------------------

_OTHER_TABLES = re.compile(
    "no such (table|column)|(relation|column|table) .{0,200}does(n't| not) exist|unknown column", re.I | re.S
)
"""How SQLite, PostgreSQL and MySQL say that the tables are not those that were expected."""


def why_unusable(error: Exception) -> str | None:
    """Why nothing can be asked here, in words, where the deployment and not the command is the reason."""
    said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if type(error).__module__.startswith("sqlalchemy"):
        where = f"Airflow's database {host.database_url()}"
        if _OTHER_TABLES.search(str(error)):
            version = metadata.version("apache-airflow")
            return (
                f"{where} is not one of Airflow {version} ({said}). Run the command with the AIRFLOW_HOME, the settings and the "
                "Airflow of the scheduler; `airflow db check-migrations` says whether the database was migrated"
            )
        return f"{where} does not answer ({said}). Run the command beside the scheduler, with its AIRFLOW_HOME and its settings"
    if isinstance(error, ImportError) or type(error).__module__.startswith("airflow."):
        return (
            f"Airflow cannot be used here ({said}). Run the command beside the scheduler, with its AIRFLOW_HOME and its settings"
        )
    return None
