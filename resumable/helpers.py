"""Small things that several rooms need, and that know nothing of ours."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar

_UNSET = object()

T = TypeVar("T")


@contextmanager
def replaced(obj: Any, **attributes: Any) -> Iterator[None]:
    """While it is open, ``obj`` has other values on itself: attributes of its class and of itself are as before afterwards."""
    own = vars(obj)
    before = {name: own.get(name, _UNSET) for name in attributes}
    own.update(attributes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _UNSET:
                own.pop(name, None)
            else:
                own[name] = value


def is_pair(value: Any) -> bool:
    """Whether it is a sequence of two: a text, a set or an object of JSON may have two parts as well, and is none."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray) and len(value) == 2


def called(function: Callable[..., T], *arguments: Any) -> T:
    """
    What ``function`` returns. A StopIteration that it raises, as a ``next()`` that finds nothing does, becomes a RuntimeError, as
    in a generator: to whoever takes from an iterator it says that there is no more, and a future of asyncio never ends with it.
    """
    try:
        return function(*arguments)
    except StopIteration as e:
        raise RuntimeError(f"{getattr(function, '__qualname__', type(function).__qualname__)} raised StopIteration") from e


def takes(function: Callable[..., Any] | None, *arguments: Any, **by_name: Any) -> bool:
    """
    Whether ``function``, if there is one, can be called with these, as far as can be told without calling it. What a decorator of
    it takes counts, not what stands behind that.
    """
    if function is None:
        return True
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # of a builtin
        return True
    try:
        signature.bind(*arguments, **by_name)
    except TypeError:
        return False
    return True


def unworked(answer: Any) -> str | None:
    """Words for what a function returned if its work is yet to be done: by whoever iterates over it, or in a pool."""
    if isinstance(answer, GeneratorType | AsyncGeneratorType):
        return "a generator"
    if isinstance(answer, map | filter):
        return f"a {type(answer).__name__} object"
    is_of_pool = type(answer).__module__ in ("concurrent.futures._base", "multiprocessing.pool")
    return "the future of a pool" if is_of_pool else None


def check_done(answer: Any) -> None:
    """Raises: TypeError: what a function was called for is yet to be done, by whoever goes on with what it returned."""
    if inspect.iscoroutine(answer):
        answer.close()
    what = "something to await" if inspect.isawaitable(answer) else unworked(answer)
    if what is not None:
        raise TypeError(f"it returned {what}, and nobody goes on with that: give a function that does all of it")


def account_of(arn: Any) -> str | None:
    """The account in an ARN (``arn:partition:service:region:account:resource``), None if it has none."""
    parts = str(arn).split(":", 5)
    return parts[4] or None if len(parts) == 6 and parts[0] == "arn" else None


# -- names by which another process finds a class or a function again ---------------------------------------------------------

_DAG_FILES = ("__main__", "unusual_prefix_")


def import_path(thing: Any) -> str | None:
    """``module:Name`` of a class or function that another process can import; None for one of a DAG file or of a function."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.startswith(_DAG_FILES):
        return None
    return f"{module}:{name}" if _member(sys.modules.get(module), name) is thing else None


def import_object(path: str) -> Any:
    """What `import_path` named; None if it cannot be imported here."""
    module, _, name = path.partition(":")
    try:
        return _member(import_module(module), name)
    except ImportError:
        return None


def _member(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
