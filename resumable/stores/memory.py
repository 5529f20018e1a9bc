"""A store in memory: for unit tests and `dag.test()`, never for a deployment."""

from __future__ import annotations

import copy
import json
from typing import Any


class MemoryStore:
    """Keeps values for as long as the object lives; refuses what JSON cannot carry, as a real store would."""

    fences_writes = False

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return copy.deepcopy(self.data.get(key))

    def set(self, key: str, value: Any) -> None:
        self.data[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.data.pop(key, None)
