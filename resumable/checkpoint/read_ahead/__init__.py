"""
Who asks for the next item before the last one can have been worked: ``list(...)``, a pool, tasks made in a loop.

An item of a plain loop is done when the loop asks for the next one. Whoever asks early would have items counted as done that
nobody has worked, and the retry would leave them out. So the second time that an item is asked for, the asking frame is looked at
once: at which of its instructions it stands, what is called there, whether its loop does anything but hand the item on.

Only what is certain counts. An opcode, a consumer or a name that is not known here is never taken for reading ahead.

`watch` decides; it asks `consumers` (who takes all items in one go), `loop` (what a loop does with an item) and `instructions`
(what the asking code says). May import: the standard library alone, for it is tried on every Python
(tests/unit/checkpoint/test_read_ahead.py). May be imported by: the loops of `resumable.checkpoint`.
"""

from resumable.checkpoint.read_ahead.watch import Watch

__all__ = ["Watch"]
