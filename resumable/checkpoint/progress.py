"""How far the work of one checkpoint has come: what is kept of it, when it is written, what a later attempt makes of it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

from resumable.checkpoint.done import Key, KeyList, coarsened, decoded, encoded, most_items, plain_key, size
from resumable.errors import ConfigurationError, RefusedError, StateStoreError
from resumable.identity import Generation, Relation, fingerprint
from resumable.policy import OnChange, OnClear, ResumePolicy
from resumable.stores.base import SupersededError, retried
from resumable.stores.owned import OwnedValue

T = TypeVar("T")

VERSION = 1

HEADER = 1500
"""Bytes that a kept value needs besides the flags."""

LOG_SECONDS = 60.0

SHARE = 30.0
"""
Between two writes lies at least this many times what the last one took.

So writing and the loop itself, which takes about a microsecond an item, cost less than a twentieth of items of 0.1 ms.
"""

MAX_FAILED = 5
"""Failed items that the record names."""


class Objects(Protocol):
    """A place for values that task state is too small for."""

    def put(self, name: str, data: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def delete(self, name: str) -> None: ...


@dataclass(frozen=True)
class Setting:
    """
    What an attempt brings along: who it is, what it works by, where it may write, and how often.

    ``spec`` is a fingerprint of all that the work is done by, ``given`` of what the author gave as ``spec=``, None if the two are
    not told apart. ``policy.on_change`` and ``on_clear`` are None where nobody has chosen: an unfinished checkpoint then goes on,
    a finished one starts over.
    """

    name: str
    generation: Generation
    spec: str
    policy: ResumePolicy
    try_number: int
    value: Callable[[str, str], OwnedValue]
    limit: int
    log: Any
    every: int | None = None
    seconds: float = 10.0
    token: str = ""
    objects: Objects | None = None
    given: str | None = None
    clock: Callable[[], float] = time.time


def spec_text(spec: Mapping[str, Any]) -> str:
    """Fingerprint of what the work is done by; see `resumable.identity.fingerprint`."""
    return fingerprint(spec)


class Progress:
    """
    The kept state of a checkpoint, and this attempt's share of the work.

    Raises (all methods that read or write):
        StateStoreError, RecordError, SupersededError: as `OwnedValue`.
    """

    def __init__(self, setting: Setting) -> None:
        self.s = setting
        self.key = f"resumable.checkpoint.{setting.name}"
        self._what = f"checkpoint {setting.name!r}"
        self._value = setting.value(self.key, self._what)
        self._kept = self._value.load()
        self._lock = threading.RLock()
        self._counting = threading.RLock()  # also of a thread that was interrupted in the middle of it
        self._keys: KeyList | None = None
        self._ranks: Sequence[int] | None = None
        self.flags = bytearray()
        self.total: int | None = None
        self.done = self.done_here = 0
        self.cursor: Any = None
        self.failed: dict[int, str] = {}
        self._other_code = 0
        self._attempt = int(self._kept["attempt"]) + 1 if self._kept else 1
        self._unwritten = 0
        self._written_at = self._logged_at = self._began = self._write_took = 0.0
        self._every = setting.every or 1
        self._kind, self._spec = "", setting.spec
        self._is_lossy = self._is_down = False
        self._stale_objects: list[str] = []
        self.is_open = self.is_of_pages = False
        self.token = setting.token
        if self._kept:
            with self._readable():
                starts_over = self._is_cleared() and self._restarts(
                    self.s.policy.on_clear is OnClear.RESTART, self.s.policy.on_clear
                )
                self.token = self._fresh_token() if starts_over else self._kept.get("token", setting.token)

    def works_by(self, code: str) -> None:
        """The work is done by a function of its own, whose code counts as well."""
        self._spec = spec_text({"spec": self._spec, "code": code})

    def position(self, item_key: Any) -> int | None:
        """Where in the list the item with this key is, None if it is in none. Raises: ConfigurationError: no valid key."""
        return None if self._keys is None else self._keys.position(item_key)

    def forget(self) -> None:
        """Delete everything that is kept."""
        if self._keys is not None:
            self._list_value(self._keys.fingerprint).delete()
        self._value.delete()

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
        kept = self._settled("items")
        mean = int(kept["chunk"]) if kept else None
        room = self.s.limit - HEADER
        by_text = kept is not None and "order" not in kept
        with self._readable():
            key_list = KeyList(keys, limit=room, mean=mean, by_text=by_text)
        self.total = key_list.count
        self._check_room(key_list)
        self.flags = self._flags_of(kept, key_list) if kept else bytearray(self.total)
        mean = None
        while key_list.size > room and key_list.mean <= key_list.count:  # it has grown since the chunks were chosen
            key_list = KeyList(key_list.keys, limit=room, mean=mean, by_text=by_text)
            mean = key_list.mean * 2
        self._keys, self._ranks, self._is_by_text = key_list, key_list.ranks, by_text
        if committed is not None:
            self._take_over(committed(self.token), key_list)
        self.done = self.flags.count(1)
        stale = self._keep_list(kept, key_list)
        self._begin("items")
        if stale:
            stale.delete()

    def _take_over(self, committed: Iterable[Any], keys: KeyList) -> None:
        """What the target says to be there is done."""
        known = {plain_key(key) for key in committed}
        unknown = set(known)
        for position, key in enumerate(keys.keys):
            if key in known:
                self.flags[keys.rank(position)] = 1
                unknown.discard(key)
        if unknown:
            example, theirs = next(iter(unknown)), next(iter(keys.keys), "")
            hint = "" if type(example) is type(theirs) else f" They are of other types: {type(example)} and {type(theirs)}."
            self.s.log.warning(
                "resumable: %s: %s of the %s keys that committed() returned are of no item, e.g. %.100r; those items, if they "
                "are in the list under another key, are worked again.%s",
                self._what,
                f"{len(unknown):,}",
                f"{len(known):,}",
                example,
                hint,
            )

    def begin_pages(self, start: Any) -> Any:
        """Take up the work on pages; returns the cursor of the first page that is not done. Raises: RefusedError."""
        self.is_of_pages = True
        self.check_cursor(start)
        kept = self._settled("pages")
        self.cursor, self.done = (kept["cursor"], int(kept["done"])) if kept else (start, 0)
        self._ended = bool(kept and kept["state"] == "done")
        self._begin("pages")
        return self.cursor

    def check_cursor(self, cursor: Any) -> None:
        """
        Raises:
            ConfigurationError: a later attempt would be given another cursor than this one.
        """
        try:
            text = json.dumps(cursor, allow_nan=False)
            if json.loads(text) == cursor and type(json.loads(text)) is type(cursor) and len(text) <= self.s.limit - HEADER:
                return
        except (TypeError, ValueError):
            pass
        raise ConfigurationError(
            f"{self._what}: the cursor {cursor!r:.200} does not come back the same from JSON, or is longer than "
            f"{self.s.limit - HEADER} bytes. Its page was not worked. Let fetch return a JSON value (a str, an int, a list ...)."
        )

    _ended = False
    _is_by_text = False

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
        """
        Whether the progress is to be written now.

        Never before `SHARE` times what the last write took has passed since its end: a slow store is asked less often, and does
        not become slower by us. Only an ``every`` that the author gave is kept to whatever the writes take.
        """
        unwritten = self._unwritten
        if unwritten <= 0:
            return False
        is_enough = unwritten >= self._every and not self._is_down
        if is_enough and self.s.every is not None:
            return True
        passed = self.s.clock() - self._written_at
        return (is_enough or passed >= self.s.seconds) and passed >= SHARE * self._write_took

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
                if not self._is_down:
                    self.s.log.warning("resumable: %s goes on, though its progress cannot be written: %s", self._what, e)
                self._is_down = True
                return
            self._is_down = False
        if self.s.clock() - self._logged_at >= LOG_SECONDS:
            self._log_progress()

    def finish(self, *, is_complete: bool) -> None:
        """Write what has not been written, at the end of the work or of the attempt. Raises as `OwnedValue.save`."""
        with self._lock:
            if not is_complete:
                self.write()
                return
            self._ended = True
            self._save()
            self._unwritten = 0
        elapsed = max(self.s.clock() - self._began, 1e-9)
        rate = self.done_here / elapsed
        self.s.log.info(
            "resumable: %s: all %s %s done, %s of them in this attempt (%.0f s, %.1f/s)",
            self._what,
            f"{self.done:,}",
            self._kind,
            f"{self.done_here:,}",
            elapsed,
            rate,
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _settled(self, kind: str) -> dict[str, Any] | None:
        """What was kept, if this attempt is to go on from it."""
        kept, policy = self._kept, self.s.policy
        if kept is None:
            return None
        with self._readable():
            generation, spec, earlier_kind = Generation.from_json(kept["generation"]), kept["spec"], kept["kind"]
            int(kept["done"]), int(kept["try"]), kept["state"]
        if int(kept["try"]) > self.s.try_number and not self.s.generation.is_of_later_run(generation):
            raise SupersededError(
                f"Try {kept['try']} works on {self._what}, this is try {self.s.try_number}: Airflow has given it up. It does "
                "nothing; the other goes on. Nothing needs to be done."
            )
        if self._is_cleared() and self._restarts(policy.on_clear is OnClear.RESTART, policy.on_clear):
            self._say_fresh("the task was cleared", "on_clear", policy.on_clear, self.s.log.info)
            return None
        if spec == self._spec and earlier_kind == kind:
            self._other_code = int(kept.get("other_code", 0))
            if self._is_cleared():
                self._say_goes_on("the task was cleared", "on_clear")
            return kept
        refuses = policy.on_change is OnChange.FAIL or (earlier_kind != kind and policy.on_change is OnChange.REATTACH)
        if refuses and self._is_cleared():  # as the error has said
            self.token = self._fresh_token()
            self._say_fresh("the task was cleared after a change", "on_change", policy.on_change, self.s.log.warning)
            return None
        if refuses:
            raise RefusedError(
                f"The code of the task or its spec= has changed since {kept['done']} {earlier_kind} of {self._what} were done, "
                f"on_change={OnChange(policy.on_change).value}. Nothing was done. Undo the change, or clear the task to "
                "start over."
            )
        is_other_work = earlier_kind != kind or self.s.given is None or kept.get("given", self._NONE_GIVEN) != self.s.given
        if self._restarts(policy.on_change is OnChange.RESTART or (is_other_work and not policy.on_change), policy.on_change):
            self.token = self._fresh_token()
            what = "its spec= or the kind of its loop" if is_other_work else "the code of the task"
            self._say_fresh(f"{what} has changed", "on_change", policy.on_change, self.s.log.warning)
            return None
        self._other_code = int(kept["done"])
        self._say_goes_on("the code of the task has changed", "on_change")
        return kept

    _NONE_GIVEN = spec_text({"spec": None})
    """What a record that does not say is taken to have been given as ``spec=``."""

    def _is_cleared(self) -> bool:
        """
        Whether a clear lies between what was kept and this attempt.

        A ``clear_number`` that moved alone is a sibling's clear, or one of the task itself while it ran: that cannot be told, and
        what is done stays done.
        """
        assert self._kept is not None
        return self.s.generation.relation_to(Generation.from_json(self._kept["generation"])) is Relation.CLEARED

    def _restarts(self, is_chosen: bool, choice: Any) -> bool:
        """Whether to start over: as was chosen, or where nobody has chosen, if all was done."""
        assert self._kept is not None
        return is_chosen or (choice is None and self._kept["state"] == "done")

    def _fresh_token(self) -> str:
        """Another one for work that starts over; what an earlier one has committed does not count for it."""
        return f"{self.s.token[:40]}{self._attempt & 0xFFFFFFFF:08x}"

    def _say_fresh(self, why: str, setting: str, choice: Any, say: Callable[..., None]) -> None:
        kept = self._kept or {}
        say(
            "resumable: %s starts over, %s items or pages that an earlier attempt did are done again: %s, and %s. "
            "resume_policy={%r: 'reattach'} would go on",
            self._what,
            kept.get("done"),
            why,
            f"{setting}={choice.value}"
            if choice is not None
            else "all of them were done"
            if kept.get("state") == "done"
            else "so it has to",
            setting,
        )

    def _say_goes_on(self, why: str, setting: str) -> None:
        kept = self._kept or {}
        self.s.log.info(
            "resumable: %s goes on though %s: %s %s stay done%s. resume_policy={%r: 'restart'} would do them again",
            self._what,
            why,
            kept.get("done"),
            kept.get("kind"),
            ", done with other code" if setting == "on_change" else "",
            setting,
        )

    def _check_room(self, keys: KeyList) -> None:
        room = most_items(self.s.limit - HEADER)
        if keys.count > room and not keys.is_sorted and self.s.objects is None:
            raise ConfigurationError(
                f"{self._what} has {keys.count:,} items that are not in the order of their keys; which of them are done may not "
                f"fit into task state (up to {room:,} always do). Nothing was done. Sort the items by their keys, work in "
                "several checkpoints, or set [resumable] store_path to a place in object storage."
            )

    def _flags_of(self, kept: dict[str, Any], keys: KeyList) -> bytearray:
        with self._readable():
            flags = decoded(self._bits_of(kept), int(kept["total"]))
            if kept["items"] == keys.fingerprint:
                return flags
            listed = self._list_value(kept["items"]).load()
            if listed is None:
                raise self._lost("the list of its items")
            carried = keys.carried_over(listed, flags)
        known, of = carried.count(1), flags.count(1)
        is_strange = 2 * known < of
        say = self.s.log.warning if is_strange else self.s.log.info
        say(
            "resumable: the items of %s have changed; %s of the %s that were done are known again and stay done%s",
            self._what,
            f"{known:,}",
            f"{of:,}",
            ". Are the keys the same on every try? Give key= if an item holds a signature or a time" if is_strange else "",
        )
        return carried

    def _lost(self, what: str) -> ValueError:
        """
        The error for something that what was kept refers to and that is not there.

        Raises:
            SupersededError: another attempt has taken it away, for it has written since; only a write tells.
        """
        assert self._kept is not None
        self._value.save(self._kept)
        return ValueError(f"{what} is gone")

    def _bits_of(self, kept: dict[str, Any]) -> dict[str, Any]:
        if "object" not in kept:
            return kept
        if self.s.objects is None:
            raise ConfigurationError(
                f"The progress of {self._what} is in object storage, and [resumable] store_path is not set here. Nothing was "
                "done. Set it as it was."
            )
        data = self._in_objects(lambda objects: objects.get(kept["object"]), "read")
        if data is None:
            raise self._lost(f"the object {kept['object']}")
        if hashlib.sha256(data).hexdigest() != kept["sha256"]:
            raise ValueError(f"the object {kept['object']} was changed")
        return {"bitmap": data.decode()}

    def _in_objects(self, call: Callable[[Objects], T], verb: str, tries: int = 6) -> T | None:
        """What ``call`` returns, None if there is no such object. Raises: StateStoreError."""
        objects = self.s.objects
        assert objects is not None

        def called() -> T | None:
            try:
                return call(objects)
            except FileNotFoundError:
                return None

        failure = f"The progress of {self._what} in object storage could not be {verb}"
        return retried(called, failure, "What was written before stays.", tries=tries)

    def _keep_list(self, kept: dict[str, Any] | None, keys: KeyList) -> OwnedValue | None:
        """Write the list of items, unless it is there; returns the value of the list that it takes the place of."""
        earlier = (self._kept or {}).get("items")
        if not (kept and earlier == keys.fingerprint):
            self._list_value(keys.fingerprint).save(keys.to_json(), whoevers=True)
        return self._list_value(earlier) if earlier and earlier != keys.fingerprint else None

    def _list_value(self, fingerprint: str) -> OwnedValue:
        return self.s.value(f"{self.key}.items.{fingerprint}", f"the list of items of {self._what}")

    def _begin(self, kind: str) -> None:
        self._kind = kind
        self._began = self._logged_at = self.s.clock()
        self._every = self.s.every or max(100, (self.total or 0) // 20)
        if self._kept and "object" in self._kept:
            self._stale_objects.append(self._kept["object"])
        self.is_open = True
        self._save()  # an attempt that Airflow has given up learns it here
        if self.done:
            self.s.log.info(
                "resumable: %s goes on: %s%s %s are done already (attempt %d, try %d)",
                self._what,
                f"{self.done:,}",
                "" if self.total is None else f" of {self.total:,}",
                kind,
                self._attempt,
                self.s.try_number,
            )

    def _save(self, tries: int = 6) -> None:
        began = self.s.clock()
        try:
            data, written = self._data(began, tries)
            self._value.save(data, tries=tries)
        finally:
            self._written_at = self.s.clock()
            self._write_took = self._written_at - began
        self._delete_objects(but=written)

    def _delete_objects(self, but: str | None) -> None:
        stale = [name for name in self._stale_objects if name != but]
        self._stale_objects = [but] if but else []
        for name in stale:
            try:
                if self.s.objects is not None:
                    self.s.objects.delete(name)
            except Exception:  # what is left over does no harm; the next write tries again
                self._stale_objects.append(name)

    def _data(self, now: float, tries: int) -> tuple[dict[str, Any], str | None]:
        data: dict[str, Any] = {
            "state": "done" if self._ended else "running",
            "done": self.done,
            "total": self.total,
            "failed": len(self.failed),
            "failed_items": list(self.failed.values())[:MAX_FAILED],
            **self._speed(now),
            "written_at": datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds"),
            "kind": self._kind,
            "token": self.token,
            "attempt": self._attempt,
            "try": self.s.try_number,
            "generation": self.s.generation.to_json(),
            "spec": self._spec,
            **({} if self.s.given is None else {"given": self.s.given}),
            **({"other_code": self._other_code} if self._other_code else {}),
        }
        if self._keys is None:
            return data | {"cursor": self.cursor}, None
        data |= {"items": self._keys.fingerprint, "chunk": self._keys.mean}
        data |= {} if self._is_by_text else {"order": "natural"}
        flags = bytearray(self.flags)  # threads go on
        bits = encoded(flags)
        if size(bits) <= self.s.limit - HEADER:
            return data | bits, None
        if self.s.objects is not None:
            text = bits["bitmap"].encode()
            digest = hashlib.sha256(text).hexdigest()
            name = f"{self.s.name}-{digest[:16]}"
            self._in_objects(lambda objects: objects.put(name, text), "written", tries)
            return data | {"object": name, "sha256": digest}, name
        if not self._is_lossy:
            self.s.log.warning(
                "resumable: which items of %s are done no longer fits into task state; a retry would do the rest again. Set "
                "[resumable] store_path to a place in object storage",
                self._what,
            )
        self._is_lossy = True
        return data | coarsened(flags, self.s.limit - HEADER), None

    def _speed(self, now: float) -> dict[str, Any]:
        elapsed = now - self._began
        rate = self.done_here / elapsed if elapsed > 0 else 0.0
        left = None if self.total is None or not rate else round((self.total - self.done) / rate)
        return {"per_second": round(rate, 2), "remaining_seconds": left}

    def _log_progress(self) -> None:
        self._logged_at = now = self.s.clock()
        speed = self._speed(now)
        left = speed["remaining_seconds"]
        self.s.log.info(
            "resumable: %s: %s%s %s done, %.1f/s%s",
            self._what,
            f"{self.done:,}",
            "" if self.total is None else f" of {self.total:,}",
            self._kind,
            speed["per_second"],
            "" if left is None else f", about {left // 3600:02}:{left // 60 % 60:02}:{left % 60:02} left",
        )

    def _readable(self) -> Any:
        return _Damage(self)


class _Damage:
    """Turns what reading damaged data raises into a `RecordError`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConfigurationError):
            return
        if isinstance(error, KeyError | ValueError | TypeError | AttributeError | OverflowError):
            why = f"{type(error).__name__}: {error}"
            raise self._progress._value.unreadable(why, self._progress._kept) from error
