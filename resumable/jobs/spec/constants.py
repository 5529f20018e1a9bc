"""The constants of a DAG file that can be the value of an argument."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from typing import Any

GETTERS = frozenset(("get", "getenv", "getint", "getfloat", "getboolean", "pop", "setdefault"))
"""Methods that look something up: their argument is a key."""

_LONGEST = 100_000  # characters of a folded string
_NOTHING = object()
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def unindented(text: str) -> str:
    return " ".join(text.split())


def constants_in(node: ast.AST) -> list[Any]:
    collector = _Constants()
    collector.visit(node)
    return collector.values


class _Constants(ast.NodeVisitor):
    """
    Collects the constants that can be the value of an argument. Left out are those that only help to compute one: what is
    compared with, what is looked up, the default of ``os.environ.get`` and its like, parts of an f-string.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        self.values.append(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.visit(node.value)

    def visit_Compare(self, node: ast.Compare) -> None:
        for side in (node.left, *node.comparators):
            if not isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set):
                self.visit(side)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not isinstance(node.slice, ast.Constant):
            self.visit(node.slice)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in GETTERS:
            self.visit(node.func)
        else:
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [str(part.value) for part in node.values if isinstance(part, ast.Constant)]
        if len(parts) == len(node.values):
            self.values.append("".join(parts))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._fold(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._fold(node)

    def _fold(self, node: ast.UnaryOp | ast.BinOp) -> None:
        value = _folded(node)
        if value is _NOTHING:
            self.generic_visit(node)
        else:
            self.values.append(value)


def sets_in(tree: ast.AST) -> Iterator[frozenset[str]]:
    """The sets of texts in a file: ``{"a", "b"}``, ``set(["a", "b"])``."""
    for node in ast.walk(tree):
        is_made = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("set", "frozenset")
        if is_made or isinstance(node, ast.Set):
            yield frozenset(value for value in constants_in(node) if isinstance(value, str))


def _folded(node: ast.expr) -> Any:
    """The value of an expression of constants (``-1``, ``60 * 60``, ``"a" + "b"``), as the compiler folds it."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp):
        operand = _folded(node.operand)
        if isinstance(operand, int | float):
            if isinstance(node.op, ast.USub):
                return -operand
            if isinstance(node.op, ast.Not):
                return not operand
        return _NOTHING
    if isinstance(node, ast.BinOp):
        return _folded_pair(_folded(node.left), node.op, _folded(node.right))
    return _NOTHING


def _folded_pair(left: Any, op: ast.operator, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and isinstance(op, ast.Add) and len(left) + len(right) < _LONGEST:
        return left + right
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return _NOTHING
    if isinstance(op, ast.Pow) and not (abs(left) <= 2**16 and abs(right) <= 64):
        return _NOTHING
    try:
        return _ARITHMETIC[type(op)](left, right)
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return _NOTHING
