"""
Where values are kept: `StateStore` is the protocol, one module per store, and who may write (`base`, `owned`).

May import: `resumable.errors`, `identity`, `host`, and of `jobs` the record. May be imported by: `jobs`, `checkpoint`,
`watermark`, `setup_once`, `current_task`, `cleanup`, `host`.
"""

from resumable.errors import SupersededError
from resumable.stores.base import RecordStore, StateStore
from resumable.stores.memory import MemoryStore

__all__ = ["MemoryStore", "RecordStore", "StateStore", "SupersededError"]
