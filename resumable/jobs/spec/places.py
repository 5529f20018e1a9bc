"""What stands in a DAG file under a name, the names behind it included."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from resumable.jobs.spec.constants import constants_in, unindented
from resumable.jobs.spec.reader import Reader

_COMPUTED = (ast.Call, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Await, ast.Compare, ast.FormattedValue)


@dataclass(frozen=True)
class _Look:
    """What is in an expression: constants, names, whether something is computed, and whether a name is nowhere set."""

    constants: tuple[Any, ...] = ()
    names: frozenset[str] = frozenset()
    is_computed: bool = False
    unknown: bool = False

    def and_(self, other: _Look) -> _Look:
        return replace(
            self,
            constants=self.constants + other.constants,
            is_computed=self.is_computed or other.is_computed,
            unknown=self.unknown or other.unknown,
        )


def coded(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


class Places:
    """
    What stands in a file under a name: of a keyword, of a key of a dict, of a variable, of a parameter, of a function (what it
    returns). Where one name leads to another (``max_retries=RETRIES``), what stands under that one, too.
    """

    def __init__(self, tree: ast.AST) -> None:
        reader = Reader(tree)
        self.keys = frozenset(reader.keys)
        self._at, self._variables, self._known = reader.at, reader.variables, reader.known
        self._looks: dict[int, _Look] = {}
        self._behind: dict[str, _Look] = {}
        self._numbers: dict[str, tuple[tuple[str, str], ...]] = {}
        self._computed_texts: dict[str, bool] = {}
        self._texts: dict[str, tuple[str, ...]] = {}
        self._by = reader.choosers
        self.origins = Origins(tree, reader)

    def numbers(self, key: str) -> tuple[tuple[str, str], ...]:
        """
        The numbers and flags at a place, in the order of the file. None if one task's is computed where another one's is
        written: which of them a value belongs to cannot be told.
        """
        if key not in self._numbers:
            found: list[tuple[str, str]] = []
            places = self._places(key)
            for place in places:
                numbers = [coded(value) for value in place.constants if isinstance(value, bool | int | float)]
                if place.is_computed and (len(places) > 1 or not numbers):
                    found.clear()
                    break
                found += numbers
            self._numbers[key] = tuple(found)
        return self._numbers[key]

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts at a place, in the order of the file."""
        if key not in self._texts:
            found = [value for place in self._places(key) for value in place.constants if isinstance(value, str)]
            self._texts[key] = tuple(found)
        return self._texts[key]

    def choices(self, key: str) -> tuple[str, ...]:
        """The texts at a place and what chooses among the texts of this file; nothing if there is only one."""
        texts = self.texts(key)
        return (*texts, *self._choosers) if len(set(texts)) > 1 else ()

    @cached_property
    def _choosers(self) -> tuple[str, ...]:
        """The constants by which the file chooses: an edit of one (``IS_FULL = False``, ``STAGES["prod"]``) is an edit."""
        found: dict[int, tuple[Any, ...]] = {}
        for expr in self._by:
            look = self._look(expr)
            if look.names:
                look = self._with_names(look, set())
            found[id(expr)] = look.constants
        return tuple(repr(value) for values in found.values() for value in values)

    def is_text_computed(self, key: str) -> bool:
        """Whether all that stands at a place is computed, from no text of the file."""
        if key not in self._computed_texts:
            places = self._places(key)
            self._computed_texts[key] = bool(places) and all(
                place.is_computed and not place.unknown and not any(isinstance(value, str) for value in place.constants)
                for place in places
            )
        return self._computed_texts[key]

    def _places(self, key: str) -> list[_Look]:
        """What stands at each place of a name, but for those that only pass it on (``size=size``)."""
        found = [self._look(expr) for expr in self._at.get(key, ())]
        itself = {key, f".{key}"}
        # What only names something, and the same as another one, adds nothing: a file may hold a thousand tasks of one shape.
        found = [*dict.fromkeys(place for place in found if not place.constants), *(place for place in found if place.constants)]
        return [self._with_names(place, itself) for place in found if not (place.names & itself) or place.constants]

    def _with_names(self, place: _Look, but: set[str]) -> _Look:
        for name in sorted(place.names - but):
            place = place.and_(self._all_behind(name))
        return place

    def _all_behind(self, name: str) -> _Look:
        if name not in self._behind:
            found, seen, todo = [_Look()], {name}, [name]
            while todo:
                at = todo.pop()
                under = self._at if at.startswith(".") else self._variables
                bare = at.removeprefix(".")
                if bare not in under:
                    found.append(_Look(is_computed=True, unknown=bare not in self._known))
                for expr in under.get(bare, ()):
                    inner = self._look(expr)
                    found.append(inner)
                    todo += sorted(inner.names - seen)
                    seen |= inner.names
            self._behind[name] = _Look(
                tuple(constant for look in found for constant in look.constants),
                is_computed=any(look.is_computed for look in found),
                unknown=any(look.unknown for look in found),
            )
        return self._behind[name]

    def _look(self, expr: ast.expr) -> _Look:
        if id(expr) not in self._looks:
            is_computed = any(isinstance(node, _COMPUTED) for node in ast.walk(expr))
            self._looks[id(expr)] = _Look(tuple(constants_in(expr)), frozenset(self._names(expr)), is_computed)
        return self._looks[id(expr)]

    def _names(self, expr: ast.AST) -> set[str]:
        """The names of variables in an expression, and after a dot those of attributes and keys."""
        match expr:
            case ast.Name(id=name):
                return {name}
            case ast.Call(func=ast.Attribute(value=receiver)):
                children: list[ast.AST] = [receiver, *expr.args, *expr.keywords]
            case ast.Attribute(attr=name) if name in self._at:
                return {f".{name}"}
            case ast.Subscript(slice=ast.Constant(value=key)) if str(key) in self._at:
                return {"." + str(key)}
            case ast.Dict():
                children = [*expr.values]
            case _:
                children = [*ast.iter_child_nodes(expr)]
        return {name for child in children for name in self._names(child)}


@dataclass(frozen=True)
class Origin:
    """
    Where a value comes from.

    Attributes:
        code: the expressions, functions and classes, without comments and layout.
        constants: in them, and the names of keywords.
    """

    code: tuple[str, ...]
    constants: frozenset[tuple[str, str]]

    def has(self, value: Any) -> bool:
        return coded(value) in self.constants or (isinstance(value, str) and coded(unindented(value)) in self.constants)


class Origins:
    """
    All that a file says at a place and behind the names there: what is assigned to them and what changes them, functions,
    classes, and the conditions around each; but for what stands in the call that makes another task.

    Where none of it was edited, a value that differs has moved by itself, whatever it is now: None instead of a text, an entry
    more, another one of two dicts.
    """

    def __init__(self, tree: ast.AST, reader: Reader) -> None:
        self._at = reader.at
        self._more: dict[str, list[ast.AST]] = {}
        self._spread: list[ast.AST] = []
        self._around: dict[int, tuple[ast.AST, ...]] = {}
        self._task_of: dict[int, str] = {}
        self._note(tree, (), "")
        self._known: dict[tuple[frozenset[str], str], Origin | None] = {}

    def of(self, names: Iterable[str], task_id: str = "") -> Origin | None:
        """Of what stands under any of these names; None if nothing does."""
        found = {name: nodes for name in names if (nodes := self._of_task(self._at.get(name, ()), task_id))}
        key = frozenset(found), task_id
        if key not in self._known:
            self._known[key] = self._found(found, task_id) if found else None
        return self._known[key]

    def _note(self, root: ast.AST, around: tuple[ast.AST, ...], task_id: str) -> None:
        todo = [(root, around, task_id)]
        while todo:
            node, around, task_id = todo.pop()
            self._around[id(node)] = around
            for name in _changed_by(node):
                self._more.setdefault(name, []).append(node)
            if isinstance(node, ast.Call):
                task_id = next(_task_ids(node), task_id)
                self._spread += [n.value for n in node.keywords if n.arg is None]  # Job(**STAGES["prod"])
                self._spread += [n.value for n in node.args if isinstance(n, ast.Starred)]
            self._task_of[id(node)] = task_id
            if isinstance(node, ast.If | ast.While):
                around = (*around, node.test)
            elif isinstance(node, ast.Match):
                around = (*around, node.subject, *(case.pattern for case in node.cases))
            todo += [(child, around, task_id) for child in ast.iter_child_nodes(node)]

    def _of_task(self, nodes: Iterable[ast.AST], task_id: str) -> list[ast.AST]:
        def may_be(other: str) -> bool:
            return not (other and task_id) or other == task_id or task_id.endswith(f".{other}")

        return [node for node in nodes if may_be(self._task_of[id(node)])]

    def _found(self, at: Mapping[str, list[ast.AST]], task_id: str) -> Origin:
        named = [one for name in sorted(at) for one in (*at[name], *self._more.get(name, ()))]
        todo = [*named, *self._of_task(self._spread, task_id)]
        behind, seen = set(at), {id(node) for node in todo}
        code: list[str] = []
        constants: set[tuple[str, str]] = set()
        while todo:
            node = todo.pop(0)
            code.append(ast.unparse(node))
            constants.update(_constants_of(node))
            new = sorted(_mentioned_in(node) - behind)
            behind.update(new)
            named = [one for name in new for one in (*self._at.get(name, ()), *self._more.get(name, ()))]
            more = [one for one in (*self._around[id(node)], *self._of_task(named, task_id)) if id(one) not in seen]
            seen |= {id(one) for one in more}
            todo += more
        return Origin(tuple(code), frozenset(constants))


def _task_ids(node: ast.Call) -> Iterator[str]:
    for given in node.keywords:
        if given.arg == "task_id" and isinstance(given.value, ast.Constant):
            yield str(given.value.value)


def _constants_of(node: ast.AST) -> Iterator[tuple[str, str]]:
    parts = [*ast.walk(node)]
    values = [*constants_in(node), *(part.value for part in parts if isinstance(part, ast.Constant))]
    values += [part.arg for part in parts if isinstance(part, ast.keyword) and part.arg]
    yield from map(coded, values)
    yield from (coded(unindented(value)) for value in values if isinstance(value, str))


def _mentioned_in(node: ast.AST) -> set[str]:
    parts = [*ast.walk(node)]
    variables = {part.id for part in parts if isinstance(part, ast.Name)}
    return variables | {part.attr for part in parts if isinstance(part, ast.Attribute)}


def _changed_by(node: ast.AST) -> Iterator[str]:
    """The names that a statement says something of without an assignment to them."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            yield from (name for target in targets if isinstance(target, ast.Subscript) for name in _holders(target.value))
        case ast.AugAssign(target=ast.Subscript(value=holder)):
            yield from _holders(holder)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=holder))):  # conf.update(...), args.append(...)
            yield from _holders(holder)


def _holders(node: ast.AST) -> Iterator[str]:
    """The names by which a changed value may be known: ``conf`` of ``conf["a"]["b"]``, ``task`` and ``spec`` of ``task.spec``."""
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Attribute(value=value, attr=name):
            yield name
            yield from _holders(value)
        case ast.Subscript(value=value):
            yield from _holders(value)
