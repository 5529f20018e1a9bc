"""
The values of a mark: which types they may have, their plainest form, their text in a record.

Here belongs what is true of one value alone. Pure: no Airflow, no I/O.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from resumable.errors import ConfigurationError
from resumable.stores.base import INTEGERS

Value = Any
"""A mark: an aware datetime, a date, an int, a str, or a tuple of these. Values of one mark are of one type, and ordered."""

_NAMES = "an aware datetime, a date, an int, a str, or a tuple of these"

MAX_BYTES = 2000
"""Bytes of JSON that a value may have: records hold several, of many runs."""

_EXACT = 2**53
"""From here on a float no longer tells neighbouring whole numbers apart."""


@dataclass(frozen=True, slots=True)
class ValueType:
    """The type of a mark's values: their check, their text in a record, what may be subtracted from them."""

    names: tuple[str, ...]
    is_tuple: bool = False

    @classmethod
    def of(cls, value: Value) -> ValueType:
        """
        The type of ``value``.

        Raises:
            ConfigurationError: it can be no mark.
        """
        if isinstance(value, tuple) and value:
            return cls(tuple(_scalar_name(part) for part in value), is_tuple=True)
        return cls((_scalar_name(value),))

    def checked(self, value: Value, what: str) -> Value:
        """
        ``value`` in its plainest form: UTC, whole microseconds (cut off, so that nothing is skipped), no subclass.

        Raises:
            ConfigurationError: it is of another type.
        """
        value = self._with_days(value)
        try:
            same = ValueType.of(value) == self
        except ConfigurationError as e:
            raise ConfigurationError(f"{what}: {e}") from None
        if same and self._size(value) > MAX_BYTES:
            raise ConfigurationError(
                f"{what} has more than {MAX_BYTES} bytes. The mark stays. Give a shorter one, e.g. a number of less digits."
            )
        if not same:
            raise ConfigurationError(
                f"{what}={value!r} is a {ValueType.of(value)}, but the mark is a {self}, as start= says. The mark stays. "
                "Give all values of one mark the same type."
            )
        return tuple(_plain(part) for part in value) if self.is_tuple else _plain(value)

    def _size(self, value: Value) -> int:
        try:
            return len(json.dumps(self.to_json(value)))
        except ValueError:  # more digits than Python writes out
            return sys.maxsize

    def _with_days(self, value: Any) -> Any:
        """A mark of dates takes a day as pandas, numpy and databases have it: midnight, without a time zone."""
        if self.is_tuple and isinstance(value, tuple) and len(value) == len(self.names):
            return tuple(_day(part) if name == "date" else part for name, part in zip(self.names, value, strict=True))
        return _day(value) if self.names == ("date",) and not self.is_tuple else value

    def to_name(self) -> Any:
        return list(self.names) if self.is_tuple else self.names[0]

    def to_json(self, value: Value) -> Any:
        return [_to_text(_plain(part)) for part in value] if self.is_tuple else _to_text(_plain(value))

    def from_json(self, data: Any) -> Value:
        if not self.is_tuple:
            return _READERS[self.names[0]](data)
        return tuple(_READERS[name](part) for name, part in zip(self.names, data, strict=True))

    def minus(self, value: Value, step: Any, *, least: Value) -> Value:
        """``value`` less ``step``, but not less than ``least``."""
        try:
            return max(least, value - step)
        except OverflowError:  # before the year 1
            return least

    def accepts_step(self, step: Any) -> bool:
        """Whether ``step`` can be subtracted: a timedelta from datetimes, whole days from dates, a whole number from ints."""
        if self.is_tuple:
            return False
        if self.names[0] == "date":
            return isinstance(step, timedelta) and step == timedelta(days=step.days)  # Python cuts off the rest
        if self.names[0] == "datetime":
            return isinstance(step, timedelta)
        return self.names[0] == "int" and isinstance(step, Integral) and not isinstance(step, bool)

    def __str__(self) -> str:
        return f"({', '.join(self.names)})" if self.is_tuple else self.names[0]


def is_missing(value: Any) -> bool:
    """
    Whether ``value`` is what SQL, numpy and pandas give where there is no row: None, NaN, NaT, NA, masked; or a tuple of these.

    ``max()`` of an empty column is one of them.
    """
    if value is None or type(value).__name__ in ("NaTType", "NAType", "MaskedConstant"):
        return True
    if isinstance(value, tuple):
        return bool(value) and all(map(is_missing, value))
    if isinstance(value, Decimal):
        return value.is_nan()  # one that signals cannot be compared
    if isinstance(value, Real):
        return bool(value != value)  # noqa: PLR0124 - NaN
    return type(value).__name__ == "datetime64" and str(value) == "NaT"


def _scalar_name(value: Any) -> str:
    if is_missing(value):
        raise ConfigurationError(f"{value!r} is a missing value, not a mark. The mark stays. Give {_NAMES}.")
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(f"{value!r} has no time zone. The mark stays. Give it one, e.g. tzinfo=timezone.utc.")
        return "datetime"
    if isinstance(value, date):
        return "date"
    if isinstance(value, Integral) and not isinstance(value, bool):
        return "int"
    if isinstance(value, str | uuid.UUID | os.PathLike):
        try:
            _plain(value).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                f"{value!r:.200} is no text that Airflow can keep: it has half a character, as the name of a file that is not "
                "UTF-8 has. The mark stays. Give another name of it, e.g. value.encode(errors='surrogateescape').hex()."
            ) from None
        return "str"
    if isinstance(value, Real | Decimal) and not isinstance(value, bool) and _is_whole(value):
        return "int"
    raise ConfigurationError(
        f"{value!r:.200} ({type(value).__name__}) can be no mark. The mark stays. Give {_NAMES}.{_hint(value)}"
    )


def _day(value: Any) -> Any:
    if type(value).__name__ == "datetime64" and not is_missing(value):
        value = value.astype("datetime64[us]").item()
    is_day = isinstance(value, datetime) and value.tzinfo is None and value.time() == time.min and not is_missing(value)
    return value.date() if is_day else value


def _is_whole(value: Any) -> bool:
    """Whether a number of a database or of pandas, which makes floats of ints beside a missing one, is an int exactly."""
    try:
        return int(value) == value and (isinstance(value, Decimal) or abs(value) < _EXACT)
    except (ValueError, OverflowError):  # infinity
        return False


def _hint(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            " Several marks that move on their own, as the offsets of partitions do, are several Watermarks, each with a name of "
            'its own: Watermark(f"offsets-{partition}", ...).'
        )
    if type(value).__name__ == "datetime64":
        return " A numpy.datetime64 has no time zone: pandas.Timestamp(value, tz='UTC') has."
    if isinstance(value, Real) and not isinstance(value, bool):
        return " A float is one if it is a whole number below 2**53."
    return ""


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        try:
            utc = value.astimezone(timezone.utc)
        except OverflowError:  # the first or the last day that there is, of a zone in which it lies before or after that of UTC
            return (datetime.min if value.year == 1 else datetime.max).replace(tzinfo=timezone.utc)
        return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, timezone.utc)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, Real | Decimal):
        return int(value)  # type: ignore[arg-type]
    if isinstance(value, str):
        return str.__str__(value)  # what it is, not what it shows: a member of an enum shows its name
    return os.fsdecode(value) if isinstance(value, os.PathLike) else str(value)


def _to_text(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, int) and value not in INTEGERS else value


def _read_int(data: Any) -> int:
    if isinstance(data, str) and int(data) not in INTEGERS:  # as `_to_text` has written it
        return int(data)
    return int(_exactly(int)(data))


def _exactly(kind: type) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:
        if type(data) is not kind:
            raise TypeError(f"{data!r} is no {kind.__name__}")
        return data

    return read


def _read_datetime(data: Any) -> Any:
    text = _exactly(str)(data)
    value = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not read the Z that a person may write
    if value.tzinfo is None:
        raise ValueError(f"{data!r} has no time zone")
    return _plain(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": _read_datetime,
    "date": date.fromisoformat,
    "int": _read_int,
    "str": _exactly(str),
}
