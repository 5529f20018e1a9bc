"""
Where the progress of a checkpoint is kept: its record, the list of its items, and what of it is in object storage.

Here belongs reading and writing; what a record means for this attempt is `earlier`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from resumable import host
from resumable.checkpoint.done import KeyList, bitmap, coarsened, decoded, encoded, size
from resumable.checkpoint.setting import Objects, Setting
from resumable.errors import ConfigurationError
from resumable.identity import TaskIdentity
from resumable.stores.base import retried
from resumable.stores.object_storage import check_scheme, name_folder, see_folder, tidy, write_whole
from resumable.stores.owned import OwnedValue

T = TypeVar("T")


class Kept:
    """
    What is kept of one checkpoint.

    Attributes:
        record: as this attempt found it, None if there was none.

    Raises (all methods that read or write):
        StateStoreError, RecordError, SupersededError: as `OwnedValue`.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting, self._what = setting, setting.what
        self._key = f"resumable.checkpoint.{setting.name}"
        self._value = setting.value(self._key, self._what)
        self.record = self._value.load()
        self._written_object: str | None = None
        self._stale_objects: list[str] = [self.record["object"]] if self.record and "object" in self.record else []
        self._is_lossy = False

    def readable(self) -> Damage:
        """A block in which what reading a damaged record raises becomes a `RecordError`."""
        return Damage(self._value, self.record)

    def forget(self, keys: KeyList | None) -> None:
        """Delete everything that is kept; the list of items is that of ``keys``, and goes last: a record needs its list."""
        self._value.delete()
        if keys is not None:
            self._list_value(keys.fingerprint).delete()

    # -- which items are done -----------------------------------------------------------------------------------------

    def flags(self, kept: dict[str, Any], keys: KeyList) -> bytearray:
        """One byte for each item, in the order of ``keys``: whether the record ``kept`` has it as done."""
        with self.readable():
            flags = decoded(self._bits_of(kept), int(kept["total"]))
            if kept["items"] == keys.fingerprint:
                return flags
            listed = self._list_value(kept["items"]).load()
            if listed is None:
                raise self._lost("the list of its items", kept)
            carried = keys.carried_over(listed, flags)
        known, of = carried.count(1), flags.count(1)
        is_strange = 2 * known < of
        say = self._setting.log.warning if is_strange else self._setting.log.info
        say(
            "resumable: the items of %s have changed; %s of the %s that were done are known again and stay done%s",
            self._what,
            f"{known:,}",
            f"{of:,}",
            ". Are the keys the same on every try? Give key= if an item holds a signature or a time" if is_strange else "",
        )
        return carried

    def _bits_of(self, kept: dict[str, Any]) -> dict[str, Any]:
        if "object" not in kept:
            return kept
        if self._setting.objects is None:
            raise ConfigurationError(
                f"The progress of {self._what} is in object storage, and [resumable] store_path is not set here. Nothing was "
                "done. Set it as it was."
            )
        data = self._in_objects(lambda objects: _read(objects, kept["object"]), "read")
        if data is None:
            raise self._lost(f"the object {kept['object']}", kept)
        if hashlib.sha256(data).hexdigest() != kept["sha256"]:
            raise ValueError(f"the object {kept['object']} was changed")
        return {"bitmap": data.decode()}

    def _lost(self, what: str, kept: dict[str, Any]) -> ValueError:
        """
        The error for something that what was kept refers to and that is not there.

        Raises:
            SupersededError: another attempt has taken it away, for it has written since; only a write tells.
        """
        self._value.save(kept)
        return ValueError(f"{what} is gone")

    def keep_list(self, kept: dict[str, Any] | None, keys: KeyList) -> OwnedValue | None:
        """Write the list of items, unless it is there; returns the value of the list that it takes the place of."""
        earlier = (self.record or {}).get("items")
        if not (kept and earlier == keys.fingerprint):
            self._list_value(keys.fingerprint).save(keys.to_json(), whoevers=True)
        return self._list_value(earlier) if earlier and earlier != keys.fingerprint else None

    def delete_list(self, stale: OwnedValue) -> None:
        """
        Delete a list that the record refers to no more, unless another attempt has written since: its record may refer to it.

        Raises:
            SupersededError: another attempt has.
        """
        self._value.check_owner()
        stale.delete()

    def _list_value(self, fingerprint: str) -> OwnedValue:
        return self._setting.value(f"{self._key}.items.{fingerprint}", f"the list of items of {self._what}")

    # -- writing ------------------------------------------------------------------------------------------------------

    def save(self, data: dict[str, Any], flags: bytearray | None, tries: int) -> None:
        """Write the record; ``flags`` of the items where there is room for them."""
        bits = {} if flags is None else self._bits(flags, tries)
        self._written_object = bits.get("object")
        self._value.save(data | bits, tries=tries)

    def delete_stale(self) -> None:
        """Delete the objects that earlier writes have made."""
        but = self._written_object
        stale = [name for name in self._stale_objects if name != but]
        self._stale_objects = [but] if but else []
        for name in stale:
            try:
                if self._setting.objects is not None:
                    self._setting.objects.delete(name)
            except Exception:  # what is left over does no harm; the next write tries again
                self._stale_objects.append(name)

    def _bits(self, flags: bytearray, tries: int) -> dict[str, str]:
        bits = encoded(flags)
        if size(bits) <= self._setting.room:
            return bits
        if self._setting.objects is not None:
            text = bitmap(flags).encode()
            digest = hashlib.sha256(text).hexdigest()
            name = f"{self._setting.name}-{digest[:16]}"
            self._in_objects(lambda objects: objects.put(name, text), "written", tries)
            return {"object": name, "sha256": digest}
        if not self._is_lossy:
            self._setting.log.warning(
                "resumable: which items of %s are done no longer fits into task state; a retry would do the rest again. Set "
                "[resumable] store_path to a place in object storage",
                self._what,
            )
        self._is_lossy = True
        return coarsened(flags, self._setting.room)

    def _in_objects(self, call: Callable[[Objects], T], verb: str, tries: int = 6) -> T:
        """What ``call`` returns. Raises: StateStoreError."""
        objects = self._setting.objects
        assert objects is not None
        failure = f"The progress of {self._what} in object storage ([resumable] store_path) could not be {verb}"
        return retried(lambda: call(objects), failure, "What was written before stays.", tries=tries)


def _read(objects: Objects, name: str) -> bytes | None:
    """None if there is certainly no such object."""
    try:
        return objects.get(name)
    except FileNotFoundError:
        return None


class Damage:
    """Turns what reading damaged data raises into a `RecordError`."""

    def __init__(self, value: OwnedValue, record: dict[str, Any] | None) -> None:
        self._value, self._record = value, record

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, ConfigurationError):
            return
        if isinstance(error, KeyError | ValueError | TypeError | AttributeError | OverflowError):
            why = f"{type(error).__name__}: {error}"
            raise self._value.unreadable(why, self._record) from error


class ObjectFolder:
    """Objects of one task instance below ``[resumable] store_path``, e.g. ``s3://aws_default@bucket/state``."""

    def __init__(self, base: str, task: TaskIdentity) -> None:
        digest = hashlib.sha256(repr((task.namespace, str(task))).encode()).hexdigest()[:20]
        self._base = host.object_storage_path()(base)
        self._folder, self._task = self._base / "checkpoints" / digest, task

    @classmethod
    def configured(cls, task: TaskIdentity) -> ObjectFolder | None:
        """
        The folder, None if airflow.cfg names no place.

        Raises:
            ConfigurationError: no provider here opens such URLs.
        """
        base = (host.setting("store_path") or "").strip()
        if not base:
            return None
        check_scheme(base)
        return cls(base, task)

    def put(self, name: str, data: bytes) -> None:
        """Names are of contents: an object that is there already may be written again."""
        see_folder(self._base)
        self._folder.mkdir(parents=True, exist_ok=True)
        name_folder(self._base, self._folder, self._task)
        write_whole(self._base, self._folder / name, data)

    def get(self, name: str) -> bytes:
        """Raises: FileNotFoundError: there is no such object. NotADirectoryError: it cannot be told, nothing is mounted here."""
        try:
            data: Any = (self._folder / name).read_bytes()
        except FileNotFoundError:
            see_folder(self._base)
            raise
        return bytes(data)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        tidy(self._folder)
