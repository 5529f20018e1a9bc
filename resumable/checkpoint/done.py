"""Which items of a list are done, kept in few bytes and found again after the list was reordered or edited.

Items are known by their keys, and keys have an order of their own, so the order of the list does not matter. In that order, one
bit for each item says whether it is done: runs of bits as ranges, which a person can read, else a compressed bitmap.

A bit says nothing about *which* key it belongs to. So the keys are cut into chunks where a checksum of the key itself says so (as
rsync and deduplicating backups do), and the hash of each chunk is kept. An edit of the list changes the chunks around it and no
other; a chunk that is found again keeps its bits. Up to some thousand items a chunk is one item. In longer lists the done
neighbours of an added or removed item, a chunk's worth, are forgotten and done again: never is an undone one taken for done.
"""

from __future__ import annotations

import base64
import hashlib
import operator
import os
import uuid
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from enum import Enum
from itertools import islice
from numbers import Integral, Real
from typing import Any

from resumable.checkpoint.failures import value_text
from resumable.errors import ConfigurationError

Key = str | int | tuple[str | int, ...]
"""What names an item, the same on every try: an object's name, a primary key, or several of these together."""

MAX_RANGES = 200
"""Ranges that are still readable; more become a bitmap."""

BYTES_PER_CHUNK = 16
"""What a chunk takes in the kept list: its hash and its size in base64, with room to spare."""

_ID = 8


class KeyList:
    """
    The keys of a list of items, put in order and cut into chunks.

    Args:
        keys: one for each item, all different; what pandas, numpy and SQL make of a key is taken for the key (see `plain_key`).
        limit: bytes that the kept list may have in JSON.
        mean: mean number of keys in a chunk, a power of two; by default what fits into ``limit``.
        by_text: ordered as records without an ``order`` are, which is not the natural order of tuples and of lists of several
            types: what such a record says is known again in that order only.

    Raises:
        ConfigurationError: a key occurs twice, or is not a valid one.
    """

    def __init__(self, keys: Sequence[Any], *, limit: int, mean: int | None = None, by_text: bool = False) -> None:
        keys = self.keys = plain_keys(keys)
        self._positions: dict[Key, int] | None = None
        self._order = _order_of(keys, by_text)
        self.count = len(keys)
        self.mean = mean or _power_of_two(self.count / max(1, limit // BYTES_PER_CHUNK))
        self._in_order: Sequence[Key] = keys
        self.ranks: array[int] | None = None
        if not _is_sorted(keys, self._order):
            values: Any = keys if self._order is None else list(map(self._order, keys))
            positions = sorted(range(self.count), key=values.__getitem__)
            self._in_order = [keys[i] for i in positions]
            self._check_unique(self._in_order)
            self.ranks = array("I", bytes(4 * self.count))
            for rank, position in enumerate(positions):
                self.ranks[position] = rank
        self.sizes, self.ids = self._chunks()
        self.fingerprint = hashlib.blake2b(self.ids + self.sizes.tobytes(), digest_size=8).hexdigest()
        del self._in_order

    @property
    def is_sorted(self) -> bool:
        """Whether the list came in the order of its keys."""
        return self.ranks is None

    def rank(self, position: int) -> int:
        """The place in the order of the keys of the item at ``position`` in the list."""
        return position if self.ranks is None else self.ranks[position]

    def position(self, key: Any) -> int | None:
        """The place in the list of the item with this key, None if there is none. Raises: ConfigurationError."""
        plain = plain_key(key)
        if self.is_sorted and self._order is None and self.keys:
            try:
                found = bisect_left(self.keys, plain)
            except TypeError:  # of another type than all of them
                return None
            return found if found < self.count and self.keys[found] == plain else None
        if self._positions is None:
            self._positions = {one: position for position, one in enumerate(self.keys)}
        return self._positions.get(plain)

    @property
    def size(self) -> int:
        """Bytes that `to_json` has in JSON, with room for what is added to it."""
        return len(self.ids) * 4 // 3 + len(_pack(self.sizes.tobytes())) + 300

    def to_json(self) -> dict[str, Any]:
        """What has to be kept to know the items again in another list."""
        return {"total": self.count, "chunk": self.mean, "sizes": _pack(self.sizes.tobytes()), "ids": _text(self.ids)}

    def carried_over(self, kept: dict[str, Any], flags: bytearray) -> bytearray:
        """
        The flags of an earlier list, for the items that are known again in this one.

        Args:
            kept: the `to_json` of the earlier list.
            flags: its flags.

        Raises:
            ValueError: these are not the flags of that list.
        """
        ids, sizes = base64.b64decode(kept["ids"], validate=True), array("I", _unpack(kept["sizes"]))
        if len(ids) != _ID * len(sizes) or sum(sizes) != len(flags):
            raise ValueError("its chunks do not make up the list")
        starts = {(id_, size): start for id_, size, start in _each_chunk(ids, sizes)}
        carried = bytearray(self.count)
        for id_, size, start in _each_chunk(self.ids, self.sizes):
            if (earlier := starts.get((id_, size))) is not None:
                carried[start : start + size] = flags[earlier : earlier + size]
        return carried

    def _check_unique(self, keys: Sequence[Key]) -> None:
        for key, following in zip(keys, islice(keys, 1, None), strict=False):
            if key == following:
                raise ConfigurationError(
                    f"Two items have the key {value_text(key)}; one of them would be left out. Nothing was done. Give key= "
                    "that tells them apart, or give each item once."
                )

    def _chunks(self) -> tuple[array[int], bytes]:
        """Sizes and hashes of the chunks; a key whose checksum says so begins one."""
        mask, sizes = self.mean - 1, array("I")
        ids: list[bytes] = []
        chunk: list[bytes] = []
        for text in map(_written, self._in_order):
            if chunk and not zlib.crc32(text) & mask:
                sizes.append(len(chunk))
                ids.append(hashlib.blake2b(b"\n".join(chunk), digest_size=_ID).digest())
                chunk = []
            chunk.append(text)
        if chunk:
            sizes.append(len(chunk))
            ids.append(hashlib.blake2b(b"\n".join(chunk), digest_size=_ID).digest())
        return sizes, b"".join(ids)


def _written(key: Key) -> bytes:
    try:
        return ascii(key).encode()
    except ValueError:
        raise ConfigurationError(
            "A key of an item is, or has in it, a number of more digits than Python writes out (4,300). Nothing was done. Give "
            "key=, a function that returns a shorter name, e.g. hex(number)."
        ) from None


def plain_keys(keys: Sequence[Any]) -> Sequence[Key]:
    """
    All keys in their plain form.

    Raises:
        ConfigurationError: one is not a valid key.
    """
    return keys if set(map(type, keys)) <= {str, int} else [plain_key(key) for key in keys]


def plain_key(key: Any) -> Key:
    """
    A str, an int or a tuple of these for what pandas, numpy, a database or the standard library gives in their place.

    A whole number of any type is an int (``numpy.int64(5)``, ``Decimal(5)``, and ``5.0``, which pandas makes of an integer
    beside a missing one); dates and times are texts in ISO format, UUIDs and paths their texts, members of an enum their values.

    Raises:
        ConfigurationError: it is something else, or missing (None, NaN, NaT).
    """
    if isinstance(key, tuple):
        parts = tuple(None if isinstance(part, tuple) else _plain(part) for part in key)
        if None in parts:
            raise ConfigurationError(
                f"{value_text(key)} is not a valid key of an item: its parts must be str or int. Nothing was done. Let key= "
                "return that."
            )
        return parts  # type: ignore[return-value]
    plain = _plain(key)
    if plain is None:
        raise ConfigurationError(
            f"{value_text(key)} is no key of an item: a str, an int or a tuple of these is. Nothing was done. Give key=, a "
            "function that returns what names the item on every try."
        )
    return plain


def _plain(key: Any) -> str | int | None:
    if type(key) in (str, int):
        return key  # type: ignore[no-any-return]
    if isinstance(key, Enum):
        return _plain(key.value)
    if isinstance(key, str):
        return str.__str__(key)  # what it is, not what it shows
    if isinstance(key, bool):
        return None
    if isinstance(key, Integral):
        return int(key)
    if isinstance(key, Real | Decimal):
        return whole(key)
    return _text_of(key)


def _text_of(value: Any) -> str | None:
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, uuid.UUID) or type(value).__name__ == "datetime64":
        return None if str(value) == "NaT" else str(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else None
    return None


EXACT = 2**53
"""From here on a float no longer tells neighbouring whole numbers apart."""


def whole(number: Any) -> int | None:
    """``number`` as an int, None if it is not a whole one, or a float too large to be exact."""
    if isinstance(number, Decimal) and not number.is_finite():
        return None  # a NaN that signals cannot even be compared
    try:
        found = int(number)
    except (ValueError, OverflowError):  # NaN, infinity
        return None
    is_exact = isinstance(number, Decimal) or abs(found) < EXACT
    return found if is_exact and found == number else None


def encoded(flags: bytearray) -> dict[str, str]:
    """The flags as JSON: ``ranges`` if they are few, else a ``bitmap``."""
    runs = list(islice(_runs(flags), MAX_RANGES + 1))
    if len(runs) <= MAX_RANGES:
        return {"ranges": ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)}
    return {"bitmap": bitmap(flags)}


def bitmap(flags: bytearray) -> str:
    """The flags as text, however few they are."""
    return _pack(_bits(flags))


def decoded(data: dict[str, Any], count: int) -> bytearray:
    """
    The flags of ``count`` items, from `encoded`.

    Raises:
        ValueError, KeyError: the data are damaged.
    """
    if "ranges" not in data:
        return _flags(_unpack(data["bitmap"]), count)
    try:
        flags = bytearray(count)
    except MemoryError:
        raise ValueError(f"{count} items are more than there can be") from None
    for part in data["ranges"].split(",") if data["ranges"] else ():
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first) + 1
        if not 0 <= low < high <= count:
            raise ValueError(f"range {part} of {count} items")
        flags[low:high] = b"\1" * (high - low)
    return flags


def coarsened(flags: bytearray, limit: int) -> dict[str, str]:
    """As `encoded`, in at most ``limit`` bytes: as many leading flags as fit, the others forgotten."""
    kept = len(flags)
    while True:
        data = encoded(flags[:kept] + bytearray(len(flags) - kept))
        if kept == 0 or size(data) <= limit:
            return data
        kept = kept * 7 // 8


def size(data: dict[str, str]) -> int:
    """Bytes in JSON of what `encoded` gives."""
    return sum(len(name) + len(text) + 6 for name, text in data.items())


def most_items(limit: int) -> int:
    """How many items always fit into ``limit`` bytes, whatever the pattern of done ones."""
    return max(0, limit - 100) * 3 // 4 * 8 * 99 // 100


def _order_of(keys: Sequence[Key], by_text: bool) -> Any:
    """How the keys are ordered: as Python does (None), or where it does not, numbers before texts before tuples."""
    types = set(map(type, keys))
    if by_text:
        return None if len(types) <= 1 and tuple not in types else ascii
    if len(types) <= 1 and (tuple not in types or len({tuple(map(type, key)) for key in keys}) == 1):  # type: ignore[arg-type]
        return None
    return _ranked


def _ranked(key: Key) -> Any:
    """Orders as Python does what Python orders, so that one odd key moves no other."""
    if isinstance(key, tuple):
        return (2, tuple((isinstance(part, str), part) for part in key))
    return (isinstance(key, str), key)


def _is_sorted(keys: Sequence[Key], order: Any) -> bool:
    values: Any = keys if order is None else list(map(order, keys))
    return all(map(operator.lt, values, islice(values, 1, None)))


def _power_of_two(least: float) -> int:
    power = 1
    while power < least:
        power *= 2
    return power


def _each_chunk(ids: bytes, sizes: Sequence[int]) -> Iterator[tuple[bytes, int, int]]:
    start = 0
    for number, chunk_size in enumerate(sizes):
        yield ids[_ID * number : _ID * (number + 1)], chunk_size, start
        start += chunk_size


def _runs(flags: bytearray) -> Iterator[tuple[int, int]]:
    start = flags.find(1)
    while start >= 0:
        end = flags.find(0, start)
        end = len(flags) if end < 0 else end
        yield start, end - 1
        start = flags.find(1, end)


_TO_DIGITS = bytes.maketrans(b"\0\1", b"01")
_TO_FLAGS = bytes.maketrans(b"01", b"\0\1")


def _bits(flags: bytearray) -> bytes:
    return int(b"1" + flags.translate(_TO_DIGITS), 2).to_bytes(len(flags) // 8 + 1, "big")


def _flags(bits: bytes, count: int) -> bytearray:
    digits = format(int.from_bytes(bits, "big"), "b")
    if len(digits) != count + 1:
        raise ValueError(f"a bitmap of {len(digits) - 1} items instead of {count}")
    return bytearray(digits[1:].encode().translate(_TO_FLAGS))


def _pack(data: bytes) -> str:
    return _text(zlib.compress(data, 6))


def _unpack(text: str) -> bytes:
    try:
        return zlib.decompress(base64.b64decode(text, validate=True))
    except zlib.error as e:
        raise ValueError(str(e)) from e


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
