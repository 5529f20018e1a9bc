"""The DAG file of an operator that a test makes: an edit of its author is an edit of this file, too."""

from __future__ import annotations

import ast
import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.names import DAG

_folder = tempfile.TemporaryDirectory(prefix="dags-")
_numbers = itertools.count()


def new_path() -> Path:
    """Return the path of a DAG file that is not there yet."""
    return Path(_folder.name) / f"dag_{next(_numbers)}.py"


def in_file(operator: Any, path: Path, text: str | None) -> Any:
    """Return ``operator`` as a task of a DAG whose file, ``path``, holds ``text``; None: its arguments as constants."""
    dag = getattr(operator, "_dag", None)
    if dag is None:
        dag = DAG("dag", schedule=None)
        dag.add_task(operator)
    path.write_text(text_of(operator) if text is None else text)
    dag.fileloc = str(path)
    return operator


def text_of(operator: Any) -> str:
    """Return the text of a DAG file that makes ``operator``, as far as its arguments can be written as constants."""
    lines = []
    for task in {id(task): task for task in (operator, *operator.dag.tasks)}.values():
        given = {**getattr(task, "_BaseOperator__init_kwargs", {}), **getattr(task, "partial_kwargs", {})}
        for name in getattr(task, "template_fields", ()):
            with contextlib.suppress(Exception):
                given.setdefault(name, getattr(task, name))
        mapped = getattr(task, "expand_input", None)
        lines += [f"{type(task).__name__}(", *_written(given), *_written({"expand": getattr(mapped, "value", None)}), ")"]
    return "\n".join(lines)


def _written(arguments: Mapping[str, Any]) -> Iterator[str]:
    for name, value in arguments.items():
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            ast.literal_eval(repr(value))
            yield f"    {name}={value!r},"
