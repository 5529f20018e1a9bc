"""The author's own limits of a wait: which arguments they are, and how it is known that one of them has ended it.

A limit that the author gave, and not as the provider's default, ends the try as in the provider's operator; the job is left
running, and the next try reattaches. The defaults (an hour here, 25 minutes there) end no try: they strike any long job.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from typing import Any

from resumable.errors import chain

_WORDS = re.compile(
    r"(?i)\bmax attempts (reached|exceeded)(?! due to)|exceeded max attempts|max tries of poll status exceeded"
    r"|status checks exceed max_retries|max iterations exceeded|took more than \S+ seconds"
)
"""What the providers' and botocore's waits say when they give up; never what botocore says of the repetitions of one request."""


@dataclass(frozen=True, slots=True)
class Limit:
    """
    An argument of the provider's operator that limits its wait.

    Args:
        argument: its name, and the attribute's.
        default: what the attribute is where the author says nothing, if the signature does not tell that.
        pause: the attribute with the seconds between two looks, where the argument counts looks; of several the first that is
            set; none: the argument is in seconds.
        deferred_only: the operator heeds it only with ``deferrable=True``.
    """

    argument: str
    pause: str | tuple[str, ...] = ()
    default: int | None = None
    deferred_only: bool = False

    def of_author(self, operator: Any) -> int | None:
        """The author's value; None if it is the default, or if the operator does not heed it in this mode."""
        value = _number(getattr(operator, self.argument, None))
        if value is None or value in (self.default, _number(_in_signature(type(operator), self.argument))):
            return None
        return None if self.deferred_only and not getattr(operator, "deferrable", False) else value

    def looks(self, operator: Any, value: int, interval: float) -> int:
        """How many looks, ``interval`` seconds apart, ``value`` comes to."""
        names = (self.pause,) if isinstance(self.pause, str) else self.pause
        given = (_number(getattr(operator, name, None)) for name in names)
        pause = next((seconds for seconds in given if seconds is not None), 0) if names else 1
        return max(1, math.ceil(value * pause / interval) if pause else value)


def tells_of_limit(error: BaseException, told: str = "") -> bool:
    """Whether a wait ended with ``error`` because it had lasted as long as it was to."""
    return any(_WORDS.search(text) for text in (told, *map(str, chain(error))))


def _number(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):  # Airflow's NOTSET
        return None


def _in_signature(operator: type, argument: str) -> Any:
    """The default of ``argument`` in the nearest ``__init__`` that names it."""
    for cls in operator.__mro__:
        init = vars(cls).get("__init__")
        parameter = inspect.signature(init).parameters.get(argument) if init is not None else None
        if parameter is not None:
            return parameter.default
    return None
