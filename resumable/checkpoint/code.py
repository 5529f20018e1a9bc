"""A text of a function's code that an edit changes, and a new comment, decorator or indent does not."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any


def code_text(function: Any) -> str:
    """
    What ``function`` does, as text; its name where neither source nor byte code can be had.

    Functions that it calls are not looked at, nor values that it closes over.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        code = getattr(function, "__code__", None)
        if code is None:
            return str(getattr(function, "__qualname__", type(function).__qualname__))
        return repr((code.co_code, code.co_names, [c for c in code.co_consts if isinstance(c, str | int | float | bytes)]))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = []
    return ast.unparse(tree)
