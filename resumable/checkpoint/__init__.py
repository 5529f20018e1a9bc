"""
Work on many items inside one task, kept so that another try goes on where the last one stopped.

Here belongs what a `Checkpoint` is: its loops and its map, which of the items are done and how that is kept and found again, and
who reads ahead of the work. `checkpoint` is what a task writes; `block` and `work` are one ``with`` block of it; `progress` is
what is known of the items, `kept`, `earlier` and `done` where it is kept and what a later attempt makes of it.

May import: `resumable.errors`, `current_task`, `identity`, `policy`, `stores`, `stop`, `host`. May be imported by: `resumable`;
`concurrent` and `failures`, which know nothing of checkpoints, by `setup_once` and `setup_cleanup` too.
"""

from resumable.checkpoint.checkpoint import Checkpoint

__all__ = ["Checkpoint"]
