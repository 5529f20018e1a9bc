"""
The names of checkpoints: one is for one work.

A checkpoint that is opened in an item of another, or in a page, has a *place*: the item's key with the name of the other. What is
done under the name in one place says nothing of another one, where the same keys are other work.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from resumable.checkpoint.setting import fingerprint
from resumable.current_task import CurrentTask
from resumable.errors import ConfigurationError

if TYPE_CHECKING:
    from resumable.checkpoint.block import Block

_log = logging.getLogger("resumable")

_open_here: ContextVar[tuple[Block, ...]] = ContextVar("resumable_open_checkpoints", default=())
"""The blocks that this code runs in, the outermost first; perhaps with some that have been left."""

_mapped_here: ContextVar[dict[int, Any]] = ContextVar("resumable_mapped_items", default={})  # noqa: B039 - never changed
"""What a `Checkpoint.map` works in this thread or coroutine: a position, by the identity of its work."""


def _blocks_here() -> tuple[Block, ...]:
    return tuple(block for block in _open_here.get() if not block.is_left)


@contextmanager
def mapped(work: Any, position: int) -> Iterator[None]:
    """While it is open, this thread or coroutine works that item of ``work``."""
    token = _mapped_here.set({**_mapped_here.get(), id(work): position})
    try:
        yield
    finally:
        _mapped_here.reset(token)


def _item_of(block: Block) -> Any:
    """The key of the item, or the cursor of the page, of ``block`` that is under way here; None where that is not known."""
    if block.is_beginning:
        return None
    work = block.work
    return work.item_under_way(_mapped_here.get().get(id(work)))


def place_here() -> str | None:
    """A text for the item of other checkpoints that this code works; None if it works none, or which one is not known."""
    parts = [(block.name, _item_of(block)) for block in _blocks_here()]
    if not parts or any(item is None for _, item in parts):
        return None
    return fingerprint({"inside": [[name, repr(item)] for name, item in parts]})


def outer_name() -> str:
    """Of the checkpoint that this code works an item of."""
    return next((block.name for block in reversed(_blocks_here())), "")


def error_of_place(name: str, outer: str) -> ConfigurationError:
    """The error of a name that was used in another place."""
    return ConfigurationError(
        f"Checkpoint {name!r} was worked inside another item of checkpoint {outer!r}: items of this one with the same keys "
        "would be left out. What is done is kept. Give it a name of its own for each item of the outer one, e.g. "
        'f"rows-{item}".'
    )


class Names:
    """The names of one attempt's checkpoints. The items of one that is complete are done: it cannot be used for other work."""

    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt
        self._open: list[Block] = []
        self._completed: dict[str, Hashable] = {}

    @classmethod
    def of(cls, task: CurrentTask) -> Names:
        attempt = (task.identity, task.generation, task.try_number)
        names: Names | None = vars(task.operator).get("_resumable_names")
        if names is None or names._attempt != attempt:  # dag.test() runs one operator object again and again
            names = vars(task.operator)["_resumable_names"] = cls(attempt)
        return names

    def enter(self, block: Block) -> None:
        """Raises: ConfigurationError."""
        name = block.name
        if any(other.name == name for other in self._open):
            raise ConfigurationError(
                f"Checkpoint {name!r} is open already in this attempt. What is done is kept. Give this one a name of its own."
            )
        block.place = self._place()
        if name in self._completed:
            if block.place and block.place != self._completed[name]:
                raise error_of_place(name, outer_name() or self._open[-1].name)
            _log.warning(
                "resumable: checkpoint %r was completed earlier in this attempt: items with the same keys are not worked again. "
                "If this is other work, give it a name of its own",
                name,
            )
        self._open.append(block)
        _open_here.set((*_blocks_here(), block))

    def leave(self, block: Block) -> None:
        if block in self._open:
            self._open.remove(block)
            if block.is_complete:
                self._completed[block.name] = block.place
            _open_here.set(tuple(one for one in _blocks_here() if one is not block))

    def _place(self) -> Hashable:
        """Where no item is known, how far the blocks are that are open; empty outside of all."""
        return place_here() or tuple((other.name, other.done) for other in self._open)
