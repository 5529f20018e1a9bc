"""The work of one block: the loop or `map` that it holds, the items that it gave out, and what the task says of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from resumable import host
from resumable.checkpoint.done import Key
from resumable.checkpoint.failures import error_text, label, text_of
from resumable.checkpoint.progress import Progress
from resumable.checkpoint.setting import code_text
from resumable.errors import ConfigurationError, ItemsFailedError
from resumable.helpers import called

T = TypeVar("T")

NAMED_FAILURES = 20
"""Failed items that the log names one by one."""

_log = logging.getLogger("resumable")


class Work:
    """
    What a block works, and what has become of it.

    Args:
        name: of the checkpoint.
        progress: of the checkpoint in this attempt.
        context: the task's context.
        committed: as of `Checkpoint`.

    Attributes:
        listed: the items.
        given: positions of the items that were given out with ``ack="manual"`` and are neither done nor failed.
        under_way: position of the item that a loop has given out, the first one of a batch, 0 for a page; None outside of the
            loop, with ``ack="manual"``, and in `map`.
        maps: calls of `Checkpoint.map` in a coroutine that have not come to their end.
        asked_for: what the task called to be given items or pages, e.g. ``items()``; None if it called nothing.
        is_batched: the loop is over `batches`.
        is_manual: an item is done when the task says so.
        is_complete: all is done.
    """

    def __init__(
        self,
        name: str,
        progress: Progress,
        context: Mapping[str, Any],
        committed: Callable[[str], Iterable[Key]] | None,
    ) -> None:
        self.name, self.progress, self.committed = name, progress, committed
        self.given: set[int] = set()
        self.maps = 0
        self.asked_for: str | None = None
        self.under_way: int | None = None
        self.is_batched = self.is_manual = self.is_complete = False
        self._context = context
        self._key: Callable[[Any], Any] | None = None
        self.listed: Sequence[Any] = ()
        self._given_at: dict[int, int] | None = None
        self._batches: dict[int, tuple[list[Any], Sequence[int]]] = {}
        self._first_error: BaseException | None = None
        self._first_error_text = ""
        self._noted = 0
        self._has_said_it_failed = False

    # -- the beginning ------------------------------------------------------------------------------------------------

    def begin(self, work: Any = None) -> Progress:
        """Begin the one loop; ``work`` is the function that does it, if it is not the task's. Raises: ConfigurationError."""
        if self.progress.is_open:
            raise ConfigurationError(
                f"Checkpoint {self.name!r} is of one loop, and this is its second. What is done is kept. Give the other loop a "
                "checkpoint with a name of its own."
            )
        if work is not None:
            self.progress.works_by(code_text(work))
        return self.progress

    def begin_items(self, listed: Sequence[T], key: Callable[[T], Any] | None, work: Any = None) -> Sequence[T]:
        """Begin a loop over these items. Raises as `Progress.begin_items`."""
        progress = self.begin(work)
        self._key, self.listed = key, listed
        keys: Any = listed if key is None else called(_keys_of, key, listed)
        progress.begin_items(keys, self.committed)
        return listed

    def batch(self, positions: Sequence[int]) -> list[Any]:
        """The items at these positions, in a list that is known again whatever the task takes out of it."""
        made = [self.listed[position] for position in positions]
        if not self.is_manual:
            self._batches.clear()
        self._batches[id(made)] = made, positions
        return made

    def item_under_way(self, mapped: int | None) -> Any:
        """
        The key of the item, or the cursor of the page, that is under way; None where that is not known.

        Args:
            mapped: the position that a `map` works in this thread or coroutine.
        """
        position = self.under_way if mapped is None else mapped
        return None if position is None else self.progress.key_at(position)

    @contextmanager
    def looped(self) -> Iterator[None]:
        """Around a loop, in which an item is under way."""
        try:
            yield
        finally:
            self.under_way = None

    # -- what the task says of an item --------------------------------------------------------------------------------

    def done(self, item: Any) -> None:
        """See `Checkpoint.done`."""
        for position, _ in self._found(item, "done"):
            self.progress.failed.pop(position, None)
            self.progress.mark(position)
            self.given.discard(position)

    def fail(self, item: Any, error: BaseException) -> None:
        """See `Checkpoint.fail`."""
        with host.airflow_errors():
            if not isinstance(error, BaseException):
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: fail() was given {text_of(error):.100} as the error of an item. The item does "
                    "not count as done, what is done is kept. Give it an exception, for example ValueError(text)."
                )
        for position, one in self._found(item, "fail"):
            self.note(position, one, error)

    def note(self, position: int, item: Any, error: BaseException) -> None:
        """The item at this position has failed."""
        name = label(item if self._key is None else self.progress.key_at(position))
        self.progress.fail(position, name)
        self.given.discard(position)
        self._first_error = error if self._first_error is None else self._first_error
        self._first_error_text = error_text(self._first_error, item) if self._first_error is error else self._first_error_text
        self._noted += 1
        if self._noted <= NAMED_FAILURES:
            more = "; of more failed items only the number is told" if self._noted == NAMED_FAILURES else ""
            _log.warning("resumable: checkpoint %r: %s failed: %s%s", self.name, name, error_text(error, item), more)

    def _position_of(self, item: Any, what: str) -> int | None:
        """
        The place in the list of an item, None if it is in none. The very object that the loop gave out is known by itself: its
        work may have moved what makes its key, say a file's name.
        """
        if self._key is not None:
            if self._given_at is None:
                self._given_at = {id(one): position for position, one in enumerate(self.listed)}
            position = self._given_at.get(id(item))
            if position is not None:
                return position
        return self.progress.position(self._key_of(item, what))

    def _key_of(self, item: Any, what: str) -> Any:
        try:
            return item if self._key is None else called(self._key, item)
        except Exception as e:
            raise ConfigurationError(
                f"Checkpoint {self.name!r}: {what}() of a {type(item).__name__} for which key= raises {type(e).__name__}. What "
                "is done is kept. Give it the item as the loop gave it."
            ) from e

    def _found(self, item: Any, what: str) -> list[tuple[int, Any]]:
        """The positions of an item, or of the items of a batch, with the items."""
        with host.airflow_errors():
            progress = self.progress
            if progress.is_of_pages:
                raise ConfigurationError(
                    f"Checkpoint {self.name!r}: {what}() in a loop over pages. Only the next page's cursor is kept, so one that "
                    "failed would be lost; it is not done. Let the exception fail the task."
                )
            batch, positions = self._batches.get(id(item), ((), ()))
            if batch is item:
                return [(position, self.listed[position]) for position in positions]
            several = item if self.is_batched and isinstance(item, list) and item else [item]
            found = []
            for one in several:
                position = self._position_of(one, what) if progress.is_open else None
                if position is None:
                    raise ConfigurationError(
                        f"Checkpoint {self.name!r}: {what}() of a {type(one).__name__} that is no item of its loop. What is done "
                        "is kept. Give it the item as the loop gave it."
                    )
                found.append((position, one))
            return found

    # -- the end ------------------------------------------------------------------------------------------------------

    def completed(self) -> None:
        """All were given. What failed is told at the end of the block: until then more of them may be said to have failed."""
        self.is_complete = not self.progress.failed

    def mapped(self) -> None:
        """A `map` has come to its end. Raises: ItemsFailedError."""
        self.completed()
        if not self.is_complete:
            raise self._items_failed()

    def left_undone(self, error: BaseException | None) -> BaseException | None:
        """At the end of a block without an ``error``: the one that it has earned by what it leaves undone."""
        progress = self.progress
        if not progress.is_open:
            if self.maps and error is None:
                return ConfigurationError(
                    f"Checkpoint {self.name!r}: map() was not awaited. Nothing was done. Write: await checkpoint.map(...)"
                )
            if self.asked_for is not None and error is None:
                _log.warning(
                    "resumable: checkpoint %r: nobody has iterated over what %s returned, so nothing was worked. If the task "
                    "succeeds, nobody will",
                    self.name,
                    self.asked_for,
                )
            return None
        if progress.failed or self.given or self.maps:
            self.is_complete = False
        elif self.is_manual and progress.done == progress.total:
            self.is_complete = True
        if error is not None or self.is_complete:
            return None
        if self.maps:
            return ConfigurationError(
                f"Checkpoint {self.name!r}: the block ends while map() is at work. What is done is kept. Write: await "
                "checkpoint.map(...)"
            )
        if progress.failed and not self._has_said_it_failed:
            return self._items_failed()
        if self.given:
            return self._items_unsaid()
        _log.warning(
            "resumable: checkpoint %r was left before its end: %s%s done. If the task succeeds, nobody works the others",
            self.name,
            f"{progress.done:,}",
            "" if progress.total is None else f" of {progress.total:,}",
        )
        return None

    def _items_failed(self) -> ItemsFailedError:
        self._has_said_it_failed = True
        names = list(self.progress.failed.values())
        error = ItemsFailedError(
            f"{len(names)} items of checkpoint {self.name!r} failed ({', '.join(names[:5])}), "
            f"{self.progress.done:,} are done and stay done; the first error was {self._first_error_text}.",
            next_try="works the failed ones and what is left",
        )
        host.say_if_last(error, self._context)
        if self._first_error_text == text_of(self._first_error):  # else a traceback would show what is hidden here
            error.__cause__ = self._first_error
        return error

    def _items_unsaid(self) -> ItemsFailedError:
        error = ItemsFailedError(
            f"{len(self.given):,} items of checkpoint {self.name!r} were given out and are neither done nor failed, "
            f"{self.progress.done:,} are done and stay done. Call checkpoint.done(item), or checkpoint.fail(item, error), for "
            "each before the block ends.",
            next_try="works them again",
        )
        host.say_if_last(error, self._context)
        return error


def _keys_of(key: Callable[[Any], Any], listed: Sequence[Any]) -> list[Any]:
    return [key(item) for item in listed]  # not map(), to which a StopIteration of key is the end of the list
