"""The names of checkpoints: one is for one work."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from resumable.current_task import CurrentTask
from resumable.errors import ConfigurationError

if TYPE_CHECKING:
    from resumable.checkpoint.block import Block

_log = logging.getLogger("resumable")


class Names:
    """The names of one attempt's checkpoints. The items of one that is complete are done: it cannot be used for other work."""

    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt
        self._open: list[Block] = []
        self._completed: dict[str, tuple[Any, ...]] = {}

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
        if name in self._completed:
            if self._place() and self._place() != self._completed[name]:
                raise ConfigurationError(
                    f"Checkpoint {name!r} was completed inside another item of checkpoint {self._open[-1].name!r}: items of "
                    "this one with the same keys would be left out. What is done is kept. Give it a name of its own for each "
                    'item of the outer one, e.g. f"rows-{item}".'
                )
            _log.warning(
                "resumable: checkpoint %r was completed earlier in this attempt: items with the same keys are not worked again. "
                "If this is other work, give it a name of its own",
                name,
            )
        self._open.append(block)

    def leave(self, block: Block) -> None:
        if block in self._open:
            self._open.remove(block)
            if block.is_complete:
                self._completed[block.name] = self._place()

    def _place(self) -> tuple[Any, ...]:
        return tuple((other.name, other.done) for other in self._open)
