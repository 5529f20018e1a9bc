"""How far the work of one checkpoint has come: which items are done or failed, and when that is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from resumable.checkpoint.done import Key, KeyList
from resumable.checkpoint.earlier import Earlier
from resumable.checkpoint.inputs import check_cursor, check_room, take_over
from resumable.checkpoint.kept import Kept
from resumable.checkpoint.pace import Pace
from resumable.checkpoint.setting import Setting, fingerprint
from resumable.errors import StateStoreError

MAX_FAILED = 5
"""Failed items that the record names."""


class Progress:
    """
    The progress of a checkpoint in this attempt, which goes on from what earlier ones have kept.

    Raises (all methods that read or write):
        StateStoreError, RecordError, SupersededError: as `OwnedValue`.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self._what = setting, setting.what
        self._kept, self._pace = Kept(setting), Pace(setting)
        self._earlier = Earlier(setting, self._kept)
        self._lock = threading.RLock()
        self._counting = threading.RLock()  # also of a thread that was interrupted in the middle of it
        self._keys: KeyList | None = None
        self._ranks: Sequence[int] | None = None
        self.flags = bytearray()
        self.total: int | None = None
        self.done = self.done_here = 0
        self.cursor: Any = None
        self.failed: dict[int, str] = {}
        self._unwritten = 0
        self.kind, self._spec = "", setting.spec
        self._ended = self._is_by_text = False
        self.is_open = self.is_of_pages = False

    @property
    def token(self) -> str:
        """See `Checkpoint.token`."""
        return self._earlier.token

    def works_by(self, code: str) -> None:
        """The work is done by a function of its own, whose code counts as well."""
        self._spec = fingerprint({"spec": self._spec, "code": code})

    def position(self, item_key: Any) -> int | None:
        """Where in the list the item with this key is, None if it is in none. Raises: ConfigurationError: no valid key."""
        return None if self._keys is None else self._keys.position(item_key)

    def key_at(self, position: int) -> Any:
        """The key of the item there, or what names the page that is under way: its cursor, which may be None."""
        return (self.cursor,) if self._keys is None else self._keys.keys[position]

    def forget(self) -> None:
        """Delete everything that is kept."""
        self._kept.forget(self._keys)

    # -- the beginning ------------------------------------------------------------------------------------------------

    def begin_items(self, keys: Sequence[Key], committed: Callable[[str], Iterable[Key]] | None = None) -> None:
        """
        Take up the work on a list of items.

        Args:
            keys: one for each item, in the list's order.
            committed: given the token, the keys whose effect is known to be there, whatever was kept.

        Raises:
            ConfigurationError: a key is none, or occurs twice; the list is too long for task state.
            RefusedError: on_change=fail.
        """
        kept = self._earlier.settled("items", self._spec)
        with self._kept.readable():
            mean = int(kept["chunk"]) if kept else None
        room = self.setting.room
        by_text = kept is not None and "order" not in kept
        with self._kept.readable():
            key_list = KeyList(keys, limit=room, mean=mean, by_text=by_text)
        self.total = key_list.count
        check_room(key_list, self.setting)
        self.flags = self._kept.flags(kept, key_list) if kept else bytearray(self.total)
        mean = None
        while key_list.size > room and key_list.mean <= key_list.count:  # it has grown since the chunks were chosen
            key_list = KeyList(key_list.keys, limit=room, mean=mean, by_text=by_text)
            mean = key_list.mean * 2
        self._keys, self._ranks, self._is_by_text = key_list, key_list.ranks, by_text
        if committed is not None:
            take_over(committed(self.token), key_list, self.flags, self.setting)
        self.done = self.flags.count(1)
        stale = self._kept.keep_list(kept, key_list)
        self._begin("items")
        if stale:
            self._kept.delete_list(stale)

    def begin_pages(self, start: Any) -> Any:
        """Take up the work on pages; returns the cursor of the first page that is not done. Raises: RefusedError."""
        self.is_of_pages = True
        check_cursor(start, self.setting)
        kept = self._earlier.settled("pages", self._spec)
        self.cursor, self.done = (kept["cursor"], int(kept["done"])) if kept else (start, 0)
        self._ended = bool(kept and kept["state"] == "done")
        self._begin("pages")
        return self.cursor

    @property
    def has_ended(self) -> bool:
        """All pages are done."""
        return self._ended

    def is_done(self, position: int) -> bool:
        """Whether the item at ``position`` in the list is done."""
        assert self._keys is not None
        return bool(self.flags[self._keys.rank(position)])

    def undone(self) -> Iterable[int]:
        """Positions in the list of the items that are not done now, in the list's order."""
        assert self._keys is not None
        find, flags = self.flags.find, self.flags
        if self._keys.is_sorted:
            position = find(0)
            while position >= 0:
                yield position
                position = find(0, position + 1)
        else:
            yield from (position for position, rank in enumerate(self._keys.ranks or ()) if not flags[rank])

    # -- the work -----------------------------------------------------------------------------------------------------

    def mark(self, position: int) -> None:
        """The item at ``position`` is done, whatever was said of it before."""
        rank = position if self._ranks is None else self._ranks[position]
        with self._counting:
            if not self.flags[rank]:
                self.flags[rank] = 1
                self.done += 1
                self.done_here += 1
                self._unwritten += 1

    def fail(self, position: int, label: str) -> None:
        """The item at ``position`` has failed, also if it counted as done."""
        rank = position if self._ranks is None else self._ranks[position]
        with self._counting:
            self.failed[position] = label
            if self.flags[rank]:
                self.flags[rank] = 0
                self.done -= 1
                self.done_here = max(0, self.done_here - 1)
                self._unwritten += 1

    def turn(self, cursor: Any) -> None:
        """A page is done; ``cursor`` is the next one's, None if it was the last."""
        self._ended = cursor is None  # first: a thread may write in between
        self.cursor = cursor
        self.done += 1
        self.done_here += 1
        self._unwritten += 1

    @property
    def is_due(self) -> bool:
        """Whether the progress is to be written now."""
        unwritten = self._unwritten
        return unwritten > 0 and self._pace.is_due(unwritten)

    def write(self) -> None:
        """
        Write the progress. A store that does not answer does not stop the work: it is asked again later.

        Raises:
            SupersededError: another attempt has taken over.
        """
        with self._lock:
            with self._counting:
                count, self._unwritten = self._unwritten, 0
            try:
                self._save(tries=2)
            except StateStoreError as e:
                with self._counting:
                    self._unwritten += count
                if not self._pace.is_down:
                    self.setting.log.warning("resumable: %s goes on, though its progress cannot be written: %s", self._what, e)
                self._pace.is_down = True
                return
            self._pace.is_down = False
        self._pace.tell(self)

    def finish(self, *, is_complete: bool) -> None:
        """Write what has not been written, at the end of the work or of the attempt. Raises as `OwnedValue.save`."""
        with self._lock:
            if not is_complete:
                self.write()
                return
            self._ended = True
            self._save()
            self._unwritten = 0
        self._pace.tell_end(self)

    def speed(self, now: float) -> dict[str, Any]:
        """See `Pace.speed`."""
        return self._pace.speed(now, self.done_here, None if self.total is None else self.total - self.done)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _begin(self, kind: str) -> None:
        self.kind = kind
        self._pace.begin(self.total)
        self.is_open = True
        self._save()  # an attempt that Airflow has given up learns it here
        if self.done:
            self.setting.log.info(
                "resumable: %s goes on: %s%s %s are done already (attempt %d, try %d)",
                self._what,
                f"{self.done:,}",
                "" if self.total is None else f" of {self.total:,}",
                kind,
                self._earlier.attempt,
                self.setting.try_number,
            )

    def _save(self, tries: int = 6) -> None:
        began = self._pace.now()
        try:
            data = self._data(began)
            flags = None if self._keys is None else bytearray(self.flags)  # a copy: threads go on
            self._kept.save(data, flags, tries)
        finally:
            self._pace.written(began)
        self._kept.delete_stale()

    def _data(self, now: float) -> dict[str, Any]:
        data: dict[str, Any] = {
            "state": "done" if self._ended else "running",
            "done": self.done,
            "total": self.total,
            "failed": len(self.failed),
            "failed_items": list(self.failed.values())[:MAX_FAILED],
            **self.speed(now),
            "written_at": datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds"),
            "kind": self.kind,
            "token": self.token,
            "attempt": self._earlier.attempt,
            "try": self.setting.try_number,
            "generation": self.setting.generation.to_json(),
            "spec": self._spec,
            **({} if self.setting.given is None else {"given": self.setting.given}),
            **({} if self.setting.place is None else {"inside": self.setting.place}),
            **({} if self.setting.item is None else {"item": self.setting.item}),
            **({"other_code": self._earlier.other_code} if self._earlier.other_code else {}),
        }
        if self._keys is None:
            return data | {"cursor": self.cursor}
        data |= {"items": self._keys.fingerprint, "chunk": self._keys.mean}
        return data if self._is_by_text else data | {"order": "natural"}
