"""A walk over a DAG file that notes which expressions stand under which name."""

from __future__ import annotations

import ast
import builtins

from resumable.jobs.spec.constants import GETTERS


class Reader(ast.NodeVisitor):
    """Reads which expressions of a file stand under which name."""

    def __init__(self, tree: ast.AST) -> None:
        self.keys: set[str] = set()
        self.at: dict[str, list[ast.expr]] = {}
        self.variables: dict[str, list[ast.expr]] = {}
        self.choosers: list[ast.expr] = []
        self.known = set(dir(builtins))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        self._parameters = {node.name: [each.arg for each in _positional(node)] for node in functions}
        self._named = {each.arg for node in functions for each in (*_positional(node), *node.args.kwonlyargs)}
        self.visit(tree)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                self._put(str(key.value), value, is_variable=False)
                self.keys.add(str(key.value))
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg:
            self._put(node.arg, node.value, is_variable=node.arg in self._named)
            self.keys.add(node.arg)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assign(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign | ast.AugAssign | ast.NamedExpr) -> None:
        if node.value is not None:
            self._assign(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit_AnnAssign(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit_AnnAssign(node)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        for element in node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else (node.iter,):
            self._assign(node.target, element)
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.visit_For(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit_For(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self._assign(node.optional_vars, node.context_expr)
        self.generic_visit(node)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.choosers.append(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(node)

    def visit_Match(self, node: ast.Match) -> None:
        self.choosers.append(node.subject)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.choosers.append(node.slice)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        named, defaults = _positional(node), node.args.defaults
        for parameter, default in zip(named[len(named) - len(defaults) :], defaults, strict=True):
            self._put(parameter.arg, default)
        for parameter, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if value is not None:
                self._put(parameter.arg, value)
        self.variables.setdefault(node.name, [])
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return) and inner.value is not None:
                self._put(node.name, inner.value)
        self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr in GETTERS:
            self.choosers += node.args[:1]
        if isinstance(node.func, ast.Name):
            for parameter, value in zip(self._parameters.get(node.func.id, ()), node.args, strict=False):
                self._put(parameter, value)
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.known.add(node.name)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.visit_Import(node)

    def _put(self, name: str, value: ast.expr, *, is_variable: bool = True) -> None:
        self.at.setdefault(name, []).append(value)
        if is_variable:
            self.variables.setdefault(name, []).append(value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                self._put(name, value)
            case ast.Subscript(slice=ast.Constant(value=key)):
                self._put(str(key), value, is_variable=False)
                self.keys.add(str(key))
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                is_split = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(targets)
                values = value.elts if is_split and isinstance(value, ast.Tuple | ast.List) else [value] * len(targets)
                for element, each in zip(targets, values, strict=True):
                    self._assign(element, each)
            case ast.Starred():
                self._assign(target.value, value)


def _positional(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args]
