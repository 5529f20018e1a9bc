"""
Whatever a user writes around a `Checkpoint`, and whatever happens meanwhile: no item is lost, and none is done twice for nothing.

The loops are those that people write: plain, over batches, in threads, in coroutines, acknowledged by hand in any order, with
errors told late, or reading ahead, which has to be refused. Lists grow by three orders of magnitude, shrink, change their order;
their items are whatever stands for a key. Stores are slow, or do not answer for a while; processes die at any call; siblings and
the task itself are cleared.

What the claims leave out, in full: an attempt that Airflow has given up and that goes on beside its successor; a list whose
chunks hold several items may have some of them worked again after an edit, none is left out (as in
`tests/property/test_checkpoint_machine.py`); after a loop that its author leaves early the rest is the author's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import json
import pathlib
import random
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st

from resumable import Checkpoint, ItemsFailedError, compat
from resumable.checkpoint.progress import HEADER, Setting
from resumable.errors import ConfigurationError, StateStoreError
from tests.life import invariants as inv
from tests.life.script import Told, as_test, step
from tests.support.names import AirflowFailException
from tests.support.runner import Effects, StateStoreDouble, WorkerDied

UTC = datetime.timezone.utc
pytestmark = pytest.mark.timeout(1200)
LIMIT = 4_000
"""Bytes of a value: small, so that lists of some thousand items are long for it."""

LONGEST = 3_000
SHARE = 0.08
"""Of an attempt's time that may go into writes beside the first and the last ones. The promise is a twentieth; a write more than
that may fall into a short attempt."""


def numpy_int(n: int) -> Any:
    import numpy as np

    return np.int64(n)


def timestamp(n: int) -> Any:
    import pandas as pd

    return pd.Timestamp("2026-01-01", tz="UTC") + pd.Timedelta(hours=n)


KEYS: dict[str, Callable[[int], Any]] = {
    "str": lambda n: f"s3://bucket/{n:05}.parquet",
    "int": lambda n: n * 7,
    "tuple": lambda n: (f"day-{n // 10:04}", n % 10),
    "date": lambda n: datetime.date(2020, 1, 1) + datetime.timedelta(days=n),
    "datetime": lambda n: datetime.datetime(2020, 1, 1, tzinfo=UTC) + datetime.timedelta(seconds=n),
    "Decimal": lambda n: Decimal(n),
    "float": lambda n: float(n),
    "numpy": numpy_int,
    "Timestamp": timestamp,
    "UUID": lambda n: uuid.UUID(int=n),
    "path": lambda n: pathlib.PurePosixPath(f"/data/{n:05}"),
}


class WorkError(Exception):
    """An item failed."""


class Clocked(Checkpoint):
    """With the machine's clock."""

    clock: Callable[[], float]

    def _setting(self, task: Any) -> Setting:
        return replace(super()._setting(task), clock=self.clock)


class Store(StateStoreDouble):
    """Task state: it takes time, and may be down."""

    def __init__(self, attempt: Attempt, effects: Effects) -> None:
        super().__init__(attempt.life.data, effects, attempt.life.is_down)
        self.attempt = attempt

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        life = self.attempt.life
        life.now += life.write_takes
        self.attempt.writing += life.write_takes
        self.attempt.writes += 1
        inv.VALUE_TOO_LARGE.holds(len(json.dumps(value)) <= LIMIT, f"{len(json.dumps(value)):,} bytes, {key}")
        super().set(key, value)


@dataclass
class Attempt:
    """One start of the task, and what it worked."""

    life: CheckpointOfUsers
    number: int
    epoch: int
    spec: str
    writing: float = 0.0
    writes: int = 0
    worked: list[int] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    began: float = 0.0


class CheckpointOfUsers(Told):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.data: dict[str, Any] = {}
        self.items = list(range(12))
        self.kind = "str"
        self.number, self.max_tries, self.clears = 0, 3, 0
        self.now, self.write_takes, self.down = 1e9, 0.0, 0
        self.spec = "v1"
        self.code = ""
        self.epoch = 0
        self.worked: dict[int, set[int]] = {}
        """By epoch (the work since it last started over): the items whose work went well."""
        self.noted: set[int] = set()
        """Items whose end was certainly written."""
        self.is_finished = False
        self.is_edited = self.was_down = False
        self.next_item = 12
        self._stack = ExitStack()
        self._stack.enter_context(mock.patch("resumable.stores.base.time.sleep"))
        self._stack.enter_context(mock.patch.object(compat, "value_limit", return_value=LIMIT))

    def clean_up(self) -> None:
        self._stack.close()

    def is_down(self, verb: str) -> bool:
        if self.down <= 0:
            return False
        self.down -= 1
        self.was_down = True
        return True

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _attempt(self, die_at: tuple[int, str] | None = None) -> tuple[Attempt, Clocked]:
        self.was_down = False
        self.number += 1
        attempt = Attempt(self, self.number, self.epoch, self.spec, began=self.now)
        operator = SimpleNamespace(python_callable=lambda: None)
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=self.number, max_tries=self.max_tries)
        ti.task = operator
        run = SimpleNamespace(clear_number=self.clears, start_date=datetime.datetime(2026, 1, 1, tzinfo=UTC))
        context = {"ti": ti, "task": operator, "dag_run": run, "task_state_store": Store(attempt, Effects(die_at))}
        checkpoint = Clocked("files", context=context, spec=self.spec)
        checkpoint.clock = lambda: self.now
        return attempt, checkpoint

    def _work(self, attempt: Attempt, item: int, bad: set[int]) -> None:
        self.now += 0.05
        if item in bad:
            attempt.failed.add(item)
            raise WorkError(item)
        attempt.failed.discard(item)
        attempt.worked.append(item)
        twice = item in self.noted and not self.is_edited
        inv.ITEM_TWICE.holds(not twice, f"item {item} was done, its end was noted, and it is done again")
        self.worked.setdefault(attempt.epoch, set()).add(item)

    @step(
        how=st.sampled_from(
            ["for", "for", "batches", "threads", "map", "async map", "async for", "manual", "late", "ahead", "pool ahead", "left early"]  # noqa: E501
        ),
        bad=st.lists(st.integers(0, 40), max_size=3),
        die_at=st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 8), st.sampled_from(["before", "after"]))),
        stop_after=st.one_of(st.none(), st.integers(0, 14)),
        seed=st.integers(0, 1000),
    )
    def a_try(self, how: str, bad: list[int], die_at: Any, stop_after: int | None, seed: int) -> None:
        self._runs_code_of(how)
        attempt, checkpoint = self._attempt(die_at)
        draw = random.Random(seed)
        listed = self._listed(draw)
        by_key = {self._key(n): n for n in listed}
        body = getattr(self, "_" + how.replace(" ", "_"))
        self.cover(f"try: {how}")
        error: BaseException | None = None
        try:
            body(attempt, checkpoint, listed, by_key, set(bad), stop_after, draw)
        except (WorkError, ItemsFailedError, StateStoreError, AirflowFailException, WorkerDied) as e:
            error = e
        self._judge(attempt, how, listed, error)

    def _judge(self, attempt: Attempt, how: str, listed: list[int], error: BaseException | None) -> None:
        worked = self.worked.get(self.epoch, set())
        if error is None and how != "left early":
            missing = [item for item in listed if item not in worked]
            inv.ITEM_LOST.holds(not missing, f"{len(missing)} items never went well, e.g. {missing[:3]}, and the task is a success")  # noqa: E501
            inv.ITEM_LOST.holds(not attempt.failed, f"items {sorted(attempt.failed)[:3]} failed, and the task is a success")
            self.is_finished = True
        if isinstance(error, WorkerDied) or self.was_down:
            return
        if how not in ("ahead", "pool ahead", "left early"):
            self.noted |= set(attempt.worked) - attempt.failed
        elapsed = self.now - attempt.began
        spare = attempt.writing - 4 * self.write_takes
        inv.STORE_FLOODED.holds(spare <= SHARE * elapsed, f"{attempt.writes} writes took {attempt.writing:.1f} of {elapsed:.1f} s")  # noqa: E501

    def _listed(self, draw: random.Random) -> list[int]:
        listed = sorted(self.items)
        if len(listed) <= 40 and draw.random() < 0.5:
            draw.shuffle(listed)
        return listed

    def _key(self, item: int) -> Any:
        return KEYS[self.kind](item)

    def _keys(self, listed: list[int]) -> list[Any]:
        return [self._key(item) for item in listed]

    # the ways in which people write it

    def _for(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        with checkpoint:
            for number, key in enumerate(checkpoint.items(self._keys(listed))):
                if number == stop_after:
                    raise WorkError
                self._work(attempt, by_key[key], bad)

    def _late(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        """Errors are collected, and told after the loop, or an item late."""
        errors = []
        with checkpoint:
            for key in checkpoint.items(self._keys(listed)):
                try:
                    self._work(attempt, by_key[key], bad)
                except WorkError as e:
                    errors.append((key, e))
                    if draw.random() < 0.3:
                        checkpoint.fail(*errors.pop(0))
            for key, e in errors:
                checkpoint.fail(key, e)

    def _batches(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        with checkpoint:
            for batch in checkpoint.batches(self._keys(listed), draw.randint(1, 5)):
                for key in batch:
                    try:
                        self._work(attempt, by_key[key], bad)
                    except WorkError as e:
                        checkpoint.fail(key, e)
                if attempt.failed & {by_key[key] for key in batch}:
                    attempt.failed |= {by_key[key] for key in batch}  # it is done as a whole, or not at all

    def _map(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        on_error = draw.choice(["fail", "collect"])
        with checkpoint:
            checkpoint.map(lambda key: self._work(attempt, by_key[key], bad), self._keys(listed), concurrency=1, on_error=on_error)  # noqa: E501

    def _async_map(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        async def work(key: Any) -> None:
            await asyncio.sleep(0)
            self._work(attempt, by_key[key], bad)

        async def run() -> None:
            async with checkpoint:
                await checkpoint.map(work, self._keys(listed), concurrency=4, on_error="collect")

        asyncio.run(run())

    def _async_for(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        async def run() -> None:
            async with checkpoint:
                async for key in checkpoint.items(self._keys(listed)):
                    await asyncio.sleep(0)
                    self._work(attempt, by_key[key], bad)

        asyncio.run(run())

    def _threads(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        """A pool, each future acknowledged when it is done."""
        with checkpoint, concurrent.futures.ThreadPoolExecutor(2) as pool:
            keys = checkpoint.items(self._keys(listed), ack="manual")
            futures = {pool.submit(self._work, attempt, by_key[key], bad): key for key in keys}
            for future in concurrent.futures.as_completed(futures):
                if (e := future.exception()) is None:
                    checkpoint.done(futures[future])
                else:
                    checkpoint.fail(futures[future], e)

    def _manual(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        """In any order; some failed ones are done after all; some are forgotten."""
        with checkpoint:
            given = list(checkpoint.items(self._keys(listed), ack="manual"))
            draw.shuffle(given)
            for number, key in enumerate(given):
                if number == stop_after:
                    return
                try:
                    self._work(attempt, by_key[key], bad)
                    checkpoint.done(key)
                except WorkError as e:
                    checkpoint.fail(key, e)
                    if draw.random() < 0.4:
                        self._work(attempt, by_key[key], set())
                        checkpoint.done(key)

    def _ahead(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        with checkpoint:
            take = draw.choice([list, sorted, tuple, lambda items: [*items]])
            for key in take(checkpoint.items(self._keys(listed))):
                self._work(attempt, by_key[key], bad)

    def _pool_ahead(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        with checkpoint, concurrent.futures.ThreadPoolExecutor(1) as pool:
            for _ in pool.map(lambda key: self._work(attempt, by_key[key], bad), checkpoint.items(self._keys(listed))):
                pass

    def _left_early(self, attempt: Any, checkpoint: Any, listed: Any, by_key: Any, bad: Any, stop_after: Any, draw: Any) -> None:
        with checkpoint:
            for number, key in enumerate(checkpoint.items(self._keys(listed))):
                if number == (stop_after or 0):
                    break
                self._work(attempt, by_key[key], bad)

    # -- what happens meanwhile ---------------------------------------------------------------------------------------

    @step(first=True, kind=st.sampled_from(sorted(KEYS)))
    def begin(self, kind: str) -> None:
        self.kind = kind
        self.cover(f"keys: {kind}")

    @step()
    def a_clear(self) -> None:
        self.max_tries = self.number + 3
        self.clears += 1
        if self.is_kept_as("done"):
            self._start_over()

    @step()
    def a_clear_of_a_sibling(self) -> None:
        self.clears += 1

    @step()
    def another_spec(self) -> None:
        self.spec += "'"
        self._start_over()

    def _runs_code_of(self, how: str) -> None:
        """``map`` goes by the code of its function, all others by the task's: another one is a change of the code."""
        code = how if "map" in how else ""
        if code != self.code and self.is_kept_as("done"):
            self.noted.clear()  # it starts over, if it comes to that
        self.code = code

    def is_kept_as(self, state: str) -> bool:
        kept = self.data.get("resumable.checkpoint.files")
        return bool(kept and kept["state"] == state)

    def _start_over(self) -> None:
        self.epoch += 1
        self.noted.clear()
        self.is_finished = self.is_edited = False

    @step(more=st.sampled_from([1, 2, 5, 30, LONGEST]))
    def the_list_grows(self, more: int) -> None:
        if len(self.items) < LONGEST:
            self.items += range(self.next_item, self.next_item + more)
            self.next_item += more
            self.is_edited = self.is_edited or len(self.items) > 500

    @step(which=st.integers(0, 20), many=st.booleans())
    def the_list_shrinks(self, which: int, many: bool) -> None:
        gone = self.items[12:] if many else self.items[which : which + 1]
        self.items = [item for item in self.items if item not in set(gone)]
        self.noted -= set(gone)  # if they come back

    @step(lambda self: self.next_item < 500)
    def items_come_back(self) -> None:
        self.items = list(range(self.next_item))

    @step(takes=st.sampled_from([0.0, 0.02, 1.0, 20.0]))
    def the_store_slows_down(self, takes: float) -> None:
        self.write_takes = takes

    @step(calls=st.sampled_from([1, 3, 8, 20]))
    def the_store_is_down(self, calls: int) -> None:
        self.down = calls

    def end(self) -> None:
        """One more try of all there is, undisturbed, is a success."""
        self.down, self.write_takes = 0, 0.0
        self._runs_code_of("for")
        attempt, checkpoint = self._attempt()
        listed = sorted(self.items)
        by_key = {self._key(n): n for n in listed}
        try:
            self._for(attempt, checkpoint, listed, by_key, set(), None, random.Random(0))
        except (AirflowFailException, ConfigurationError, StateStoreError) as e:
            inv.NO_TRY_HELPS.holds(False, f"the last try failed: {e}")
        self._judge(attempt, "for", listed, None)


assert LIMIT > 2 * HEADER

test_no_item_is_lost_whatever_a_user_writes_around_a_checkpoint = as_test(CheckpointOfUsers, examples=60, steps=12)
