"""
Where an incremental task left off: `Watermark`, and the intervals that runs have claimed.

May import: `resumable.errors`, `current_task`, `stores`, `host`. May be imported by: `cli`, `cleanup`.
"""

from resumable.watermark.intervals import KEY
from resumable.watermark.mark import Watermark

__all__ = ["KEY", "Watermark"]
