"""Where records live. `StateStore` is the protocol; one module per store."""

from resumable.stores.base import RecordStore, StateStore, SupersededError
from resumable.stores.memory import MemoryStore

__all__ = ["MemoryStore", "RecordStore", "StateStore", "SupersededError"]
