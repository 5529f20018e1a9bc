"""The constants of a DAG file, and what it says of the values of one operator."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from resumable.jobs.spec.codes import digest
from resumable.jobs.spec.constants import constants_in, sets_in, unindented
from resumable.jobs.spec.places import Places, coded


@dataclass(frozen=True)
class Written:
    """The constants of a file: those that an argument can be, all that a key of a dict can be, sets, and what stands where."""

    values: frozenset[tuple[str, str]]
    texts: frozenset[str]
    keys: frozenset[str]
    sets: tuple[frozenset[str], ...]
    places: Places


@lru_cache(maxsize=4)
def written_in(text: str) -> Written | None:
    """None if the text is no Python."""
    try:
        tree = ast.parse(text)
        values = constants_in(tree)
        places = Places(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    texts = (unindented(value) for value in values if isinstance(value, str) and "\n" in value)
    keys = {value for value in values if isinstance(value, str)} | places.keys
    return Written(
        frozenset((type(value).__name__, repr(value)) for value in values),
        frozenset(t for t in texts if t),
        frozenset(keys),
        tuple(sets_in(tree)),
        places,
    )


class Source:
    """
    What a file says of the values of one operator.

    Args:
        written: in the file.
        given: what the operator was called with. Its ``__init__`` may have made a text of a number which the author wrote.
        task_id: its own.
    """

    def __init__(self, written: Written, given: Any, task_id: str = "") -> None:
        self._written, self._task_id = written, task_id
        self._arguments = tuple(given) if isinstance(given, Mapping) else ()
        self._as_texts: dict[str, int | float] = {}
        _collect_numbers(given, self._as_texts)

    def has_key(self, key: str) -> bool:
        return key in self._written.keys

    def is_written(self, value: Any, key: str) -> bool:
        if value is None:
            return False  # its type says all of it
        if isinstance(value, bool | int | float):
            return coded(value) in self._written.places.numbers(key)
        if not self._written.places.is_text_computed(key) and (
            coded(value) in self._written.values or unindented(value) in self._written.texts  # dedent("..."), "...".strip()
        ):
            return True
        return value in self._as_texts and self.is_written(self._as_texts[value], key)

    def choices(self, value: Any, key: str) -> tuple[str, ...]:
        """
        All texts that stand at the place of one, and what chooses among them, if there is a choice: which of them it is may be
        computed (``"/full" if is_sunday() else "/part"``, ``CLUSTERS[os.environ["STAGE"]]``).
        """
        return self._written.places.choices(key) if isinstance(value, str) and value in self._written.places.texts(key) else ()

    def origin(self, name: str, written: Iterable[Any]) -> str:
        """
        Digest of all that the file says where a field's value comes from: under its name, else under the names of all arguments.

        Args:
            name: of the field.
            written: `Form.written` of its value.

        Returns:
            Empty if the file has nothing there, or if some of what the author wrote of the value stands elsewhere.
        """
        constants = [self._as_texts.get(value, value) if isinstance(value, str) else value for value in written]
        for names in ((name,), (name, *self._arguments)):
            found = self._written.places.origins.of(names, self._task_id)
            if found is not None and all(map(found.has, constants)):
                return digest(list(found.code))
        return ""

    def is_of_a_set(self, values: Iterable[Any]) -> bool:
        """Whether a list is of a set of texts in the file: its order is another one in each process."""
        texts = [value for value in values if isinstance(value, str)]
        return len(texts) > 1 and any(among.issuperset(texts) for among in self._written.sets)

    def is_number(self, value: Any, key: str) -> bool:
        """Also a flag, and a text that was a number."""
        was_number = isinstance(value, str) and value in self._as_texts and bool(self.numbers(key))
        return was_number or isinstance(value, bool | int | float)

    def numbers(self, key: str) -> tuple[tuple[str, str], ...]:
        return self._written.places.numbers(key)


def _collect_numbers(value: Any, into: dict[str, int | float]) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for element in value:
            _collect_numbers(element, into)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        into[str(value)] = value
