"""A store in memory: for unit tests and `dag.test()`, never for a deployment."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

from resumable.identity import TaskIdentity


class MemoryStore:
    """Keeps values for as long as the object lives; refuses what JSON cannot carry, as a real store would."""

    fences_writes = False
    outlives_success = False

    of_process: ClassVar[dict[TaskIdentity, MemoryStore]] = {}
    """The stores of the task instances that ran in this process; clear it between tests that use the same ids."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    @classmethod
    def of(cls, task: TaskIdentity) -> MemoryStore:
        """The store of a task instance, the same for each of its attempts in this process."""
        return cls.of_process.setdefault(task, cls())

    def get(self, key: str) -> Any:
        return copy.deepcopy(self.data.get(key))

    def set(self, key: str, value: Any) -> None:
        self.data[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.data.pop(key, None)
