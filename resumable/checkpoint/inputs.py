"""What the author gives for a checkpoint's work is checked, or taken over: the list, cursors, and what ``committed`` returns."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable
from typing import Any

from resumable.checkpoint.done import KeyList, most_items, plain_key
from resumable.checkpoint.failures import value_text
from resumable.checkpoint.setting import Setting
from resumable.errors import ConfigurationError
from resumable.helpers import is_pair
from resumable.stores.base import json_text


def check_room(keys: KeyList, setting: Setting) -> None:
    """
    Raises:
        ConfigurationError: which of so many items are done may have no room.
    """
    room = most_items(setting.room)
    if keys.count > room and not keys.is_sorted and setting.objects is None:
        raise ConfigurationError(
            f"{setting.what} has {keys.count:,} items that are not in the order of their keys; which of them are done may not "
            f"fit into task state (up to {room:,} always do). Nothing was done. Sort the items by their keys, work in "
            "several checkpoints, or set [resumable] store_path to a place in object storage."
        )


def check_cursor(cursor: Any, setting: Setting) -> None:
    """
    Raises:
        ConfigurationError: a later attempt would be given another cursor than this one.
    """
    try:
        text = json_text(cursor)
        if type(json.loads(text)) is not type(cursor):
            raise ValueError("it comes back as another type")
        size, why = len(text), f"it has {len(text):,} bytes, and {setting.room:,} can be kept"
    except ValueError as e:
        size, why = sys.maxsize, str(e)
    if size > setting.room:
        raise ConfigurationError(
            f"{setting.what}: the cursor {value_text(cursor)} does not come back the same from task state ({why}). Its page was "
            "not worked. Let fetch return a JSON value (a str, an int, a list ...)."
        )


def checked_pair(answer: Any, setting: Setting) -> tuple[Any, Any]:
    """
    What ``fetch`` returned.

    Raises:
        ConfigurationError: it is no page with a cursor.
    """
    if inspect.iscoroutine(answer):
        answer.close()
        raise ConfigurationError(
            f"{setting.what}: fetch is a coroutine function, and the loop a plain one. Nothing more was done. Write: async with "
            "Checkpoint(...) as checkpoint, and async for."
        )
    if not is_pair(answer):  # {"items": ..., "next": ...} has two parts, and is no page and cursor
        raise ConfigurationError(
            f"{setting.what}: fetch returned {value_text(answer):.100}, which is no pair. Nothing more was done. Let it "
            "return a page and the next one's cursor, None after the last: return page, cursor"
        )
    page, following = answer
    return page, following


def take_over(committed: Iterable[Any], keys: KeyList, flags: bytearray, setting: Setting) -> None:
    """Set the ``flags`` of the items whose keys the target says to be there."""
    if isinstance(committed, str | bytes) or not isinstance(committed, Iterable):
        raise ConfigurationError(
            f"{setting.what}: committed() returned {value_text(committed):.100}, which are no keys. Nothing was done. Let it "
            "return the keys of the items that the target has, an empty list for none."
        )
    known = {plain_key(key) for key in committed}
    unknown = set(known)
    for position, key in enumerate(keys.keys):
        if key in known:
            flags[keys.rank(position)] = 1
            unknown.discard(key)
    if unknown:
        example, theirs = next(iter(unknown)), next(iter(keys.keys), "")
        hint = "" if type(example) is type(theirs) else f" They are of other types: {type(example)} and {type(theirs)}."
        setting.log.warning(
            "resumable: %s: %s of the %s keys that committed() returned are of no item, e.g. %.100s; those items, if they "
            "are in the list under another key, are worked again.%s",
            setting.what,
            f"{len(unknown):,}",
            f"{len(known):,}",
            value_text(example),
            hint,
        )
