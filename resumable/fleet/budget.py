"""How often an operation of a service may be called: a bucket of calls that fills at a rate, which gives way when throttled.

Pure decisions, with the time given by whoever asks; `Turns` is the one part that waits. No library is used for it: those for
asyncio (aiolimiter, asyncio-throttle) have a rate that is fixed when they are made and no clock that a test can set, and
botocore's adaptive retries keep theirs to one client and to AWS.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

from resumable.errors import ConfigurationError

SHARE = 0.4
"""Of the published rate, what one process takes by default: two triggerers are common, and others ask as well."""

LEAST = 1 / 64
"""Of what is allowed, what is asked for however often the service throttles: the jobs are still to be noticed."""

RECOVERY = 120.0
"""Seconds in which the rate grows from nothing to what is allowed."""

_ALMOST = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """
    What a service lets an account do.

    Args:
        per_second: calls per second, for ever.
        burst: calls at once, after a rest.
    """

    per_second: float
    burst: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.per_second < float("inf") and self.burst >= 1):
            raise ConfigurationError(f"{self.per_second}/{self.burst} is no rate. Give calls per second, and a burst from 1 on.")

    def times(self, share: float) -> Rate:
        return Rate(self.per_second * share, max(1.0, self.burst * share))


class Budget:
    """
    The calls of one operation in one account.

    In any span of ``s`` seconds no more than ``burst + per_second * s`` calls are let through. A throttled call halves the rate
    and empties the bucket; each answered one lets it grow, in a straight line with the time, back to what is allowed.

    Args:
        allowed: the most that is asked.
        now: seconds of any clock that does not go back.
    """

    def __init__(self, allowed: Rate, now: float) -> None:
        self.allowed = allowed
        self.per_second = allowed.per_second
        self._calls, self._counted_at = allowed.burst, now
        self._eased_at = self._throttled_at = now
        self._was_throttled = False

    @property
    def is_throttled(self) -> bool:
        """Whether less is asked than is allowed, because the service throttled."""
        return self.per_second < self.allowed.per_second

    def delay(self, now: float, cost: float = 1.0) -> float:
        """Seconds until ``cost`` calls may go out, 0 if they may now. More than a burst goes out when the bucket is full."""
        self._fill(now)
        missing = min(cost, self.allowed.burst) - self._calls
        return 0.0 if missing <= _ALMOST else missing / self.per_second

    def spend(self, now: float, cost: float = 1.0) -> None:
        """Note that ``cost`` calls go out."""
        self._fill(now)
        self._calls -= cost

    def give_back(self, cost: float = 1.0) -> None:
        """Note that ``cost`` calls of those that were noted did not go out."""
        self._calls = min(self.allowed.burst, self._calls + cost)

    def throttled(self, now: float) -> None:
        """
        The service answered that there were too many calls. The bucket is empty then; the rate is halved once for all those that
        were under way together.
        """
        self._fill(now)
        self._calls = min(self._calls, 0.0)
        if self._was_throttled and now - self._throttled_at < 1 / self.per_second:
            return
        self._was_throttled, self._throttled_at, self._eased_at = True, now, now
        self.per_second = max(self.per_second / 2, self.allowed.per_second * LEAST)

    def answered(self, now: float) -> None:
        """The service answered a call."""
        self._fill(now)
        grown = self.allowed.per_second * max(0.0, now - self._eased_at) / RECOVERY
        self.per_second = min(self.allowed.per_second, self.per_second + grown)
        self._eased_at = now

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._counted_at)
        self._calls = min(self.allowed.burst, self._calls + passed * self.per_second)
        self._counted_at = max(now, self._counted_at)


class Turns:
    """
    A budget whose callers wait for their turn, in the order in which they came.

    Args:
        budget: the decisions.
        clock: seconds, the same clock as the budget's.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self.budget, self._clock = budget, clock
        self._line = asyncio.Lock()

    async def take(self, cost: float = 1.0) -> None:
        """Wait until ``cost`` calls may go out, and note them. A caller that is cancelled has taken none."""
        async with self._line:
            while (delay := self.budget.delay(self._clock(), cost)) > 0:
                await asyncio.sleep(delay)
            self.budget.spend(self._clock(), cost)

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody stands in the line."""
        return self._line.locked()

    def give_back(self, cost: float = 1.0) -> None:
        self.budget.give_back(cost)

    def throttled(self) -> None:
        self.budget.throttled(self._clock())

    def answered(self) -> None:
        self.budget.answered(self._clock())


class Budgets:
    """
    The budgets of a process, by operation and by where it is counted (the account and region, or the workspace).

    Args:
        published: rates by operation, ``service:Operation``, as the services publish them.
        default: of an operation that is not in it.
        share: of a published rate, what this process takes.
        settings: rates that are taken as they are given, by operation; see `rates_of`.
        clock: seconds.
    """

    def __init__(
        self,
        published: Mapping[str, Rate],
        *,
        default: Rate,
        clock: Callable[[], float],
        share: float = SHARE,
        settings: Mapping[str, Rate] | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigurationError(f"{share!r} is no share of a rate. Give a number above 0, and at most 1.")
        self._published, self._default, self._share, self._clock = published, default, share, clock
        self._settings = settings or {}
        self._turns: dict[tuple[str, Hashable], Turns] = {}

    def of(self, operation: str, account: Hashable) -> Turns:
        """The one budget of ``operation`` in ``account``."""
        key = (operation, account)
        if key not in self._turns:
            self._turns[key] = Turns(Budget(self.allowed(operation), self._clock()), self._clock)
        return self._turns[key]

    def allowed(self, operation: str) -> Rate:
        return self._settings.get(operation) or self._published.get(operation, self._default).times(self._share)

    def forget_rested(self) -> None:
        """Drop the budgets that are as they were when they were made, and that nobody waits for: nobody has asked for a while."""
        now = self._clock()
        rested = [
            key
            for key, turns in self._turns.items()
            if not turns.is_waited_for
            and not turns.budget.is_throttled
            and turns.budget.delay(now, turns.budget.allowed.burst) == 0
        ]
        for key in rested:
            del self._turns[key]

    def __len__(self) -> int:
        return len(self._turns)


_SETTING = re.compile(r"\s*([\w-]+:[\w/.-]+)\s*=\s*([\d.]+)\s*(?:/\s*([\d.]+))?\s*")


def rates_of(text: str) -> dict[str, Rate]:
    """
    The rates in a setting such as ``emr:ListSteps=2/20, databricks:runs/get=50``: calls per second, and perhaps a burst.

    Raises:
        ConfigurationError: it is none such.
    """
    found: dict[str, Rate] = {}
    for part in filter(str.strip, text.split(",")):
        match = _SETTING.fullmatch(part)
        try:
            if match is None:
                raise ValueError(part)
            found[match[1]] = Rate(float(match[2]), float(match[3] or max(1.0, float(match[2]))))
        except ValueError as e:
            msg = f"[resumable] fleet_rates: {part.strip()!r} is no rate. Write, for example, emr:ListSteps=2/20."
            raise ConfigurationError(msg) from e
    return found
