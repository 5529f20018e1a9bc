"""Work on many items inside one task, kept so that another try goes on where the last one stopped."""

from resumable.checkpoint.checkpoint import Checkpoint

__all__ = ["Checkpoint"]
