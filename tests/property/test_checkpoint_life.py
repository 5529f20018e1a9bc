"""
Whatever a user writes around a `Checkpoint`, and whatever happens meanwhile: no item is lost, and none is done twice for nothing.

The loops are those that people write: plain, over batches, in threads, in coroutines, acknowledged by hand in any order, with
errors told late, or reading ahead, which has to be refused. Lists grow by three orders of magnitude, shrink, change their order;
their items are whatever stands for a key. The stores are the library's, all three; they are slow, or do not answer, or too late;
what they keep expires; processes die at any call; siblings and the task itself are cleared. An attempt is given up by Airflow at
any call or item and goes on after others have worked.

What the claims leave out, in full: a store that fences nothing (Variables, object storage), between an attempt's look at the
owner and its write; a list whose chunks hold several items may have some of them worked again after an edit, none is left out
(as in `tests/property/test_checkpoint_machine.py`); after a loop that its author leaves early the rest is the author's.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import json
import pathlib
import random
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import strategies as st

from resumable import Checkpoint, ItemsFailedError, host
from resumable.checkpoint.setting import HEADER, Setting
from resumable.errors import ConfigurationError, StateStoreError
from resumable.identity import TaskIdentity
from resumable.stores import SupersededError
from tests.life import invariants as inv
from tests.life.backends import TROUBLES, Backend
from tests.life.script import Told, as_test, step
from tests.support.names import AirflowFailException
from tests.support.runner import WorkerDied

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


TASK = TaskIdentity("d", "r", "t")
KEY = "resumable.checkpoint.files"
WAYS = ("for", "batches", "threads", "map", "async map", "async for", "manual", "late", "ahead", "pool ahead", "left early")
EDITS = ("none", "none", "one more", "30 more", "one less", "as at first")
SEED = st.integers(0, 1000)
BAD = st.lists(st.integers(0, 14), max_size=3)
LATER = st.lists(st.tuples(st.sampled_from(EDITS), st.sampled_from(WAYS[:8]), st.integers(0, 5), SEED), min_size=1, max_size=2)
"""What happens while a given-up attempt stands still: an edit of the list, and a try that dies at a call (0: it does not)."""

TRY = st.fixed_dictionaries(
    {
        "how": st.sampled_from(["for", *WAYS]),
        "bad": BAD,
        "dies": st.sampled_from([0] * 8 + [1, 2, 3, 4, 5, 6, 8]),
        "stops": st.sampled_from([None] * 6 + [0, 1, 3, 6, 11]),
        "fails": st.booleans(),
        "seed": SEED,
        "given_up_at": st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(["call", "item"]), st.integers(1, 9))),
        "later": LATER,
    }
)
"""A try: how it is written, the items that fail, at which call it dies (0: none), after how many items it fails, whether the task
fails after the checkpoint, the seed of its order, at which call or item it is given up, and what happens until it goes on."""


@dataclass
class Attempt:
    """One start of the task, and what it worked."""

    life: CheckpointOfUsers
    number: int
    epoch: int
    spec: str
    dies: int = 0
    given_up_at: tuple[str, int] | None = None
    later: list[Any] = field(default_factory=list)
    code: str = ""
    is_given_up: bool = False
    is_overtaken: bool = False
    calls: int = 0
    items: int = 0
    writing: float = 0.0
    writes: int = 0
    worked: list[int] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)
    untold: list[int] = field(default_factory=list)
    """Items whose failure is told late: in the store they may still be done."""
    began: float = 0.0
    standing: threading.RLock = field(default_factory=threading.RLock, repr=False)
    """Whoever holds it, no other thread of the attempt goes on: it stands still as a whole."""

    @property
    def is_known(self) -> bool:
        return self.life.ti_id == self.number

    def before(self, call: str) -> None:
        """A call of the store."""
        life = self.life
        if life.backend.fences == (call == "set") and call in ("set", "after set"):
            life.now += life.write_takes
            self.writing += life.write_takes
            self.writes += 1
        self.calls += 1
        if self.dies and self.calls >= self.dies:
            life.met("dies")
            life._nobody_learns_of_what_is_untold(self)
            raise WorkerDied(call)
        self._may_be_given_up("call", self.calls)

    def _may_be_given_up(self, where: str, number: int) -> None:
        if self.given_up_at is not None and self.given_up_at[0] == where and number >= self.given_up_at[1]:
            self.given_up_at = None
            self.life.give_up(self)


class CheckpointOfUsers(Told):
    """See the module."""

    store = "task state"

    def __init__(self) -> None:
        super().__init__()
        self.items = list(range(12))
        self.kind, self.pace = "str", 0.05
        self.number, self.max_tries, self.clears, self.ti_id = 0, 3, 0, 0
        self.now, self.write_takes = 1e9, 0.0
        self.spec = "v1"
        self.code = ""
        """Of the attempt that has written last."""
        self.epoch = 0
        self.worked: dict[int, set[int]] = {}
        """By epoch (the work since it last started over): the items whose work went well."""
        self.noted: set[int] = set()
        """Items whose end was certainly written."""
        self.is_edited = self.has_succeeded = False
        self.next_item = 12
        self.broken: BaseException | None = None
        self.current: Attempt | None = None
        self._stack = ExitStack()
        self._stack.enter_context(mock.patch("resumable.stores.base.time.sleep"))
        self._stack.enter_context(mock.patch("resumable.stores.object_storage.os.fsync"))
        self._stack.enter_context(mock.patch.object(host, "value_limit", return_value=LIMIT))
        self._stack.enter_context(mock.patch.object(host, "own_state", return_value="success"))
        store = lambda context: self.backend.store(TASK, context["attempt"])
        self._stack.enter_context(mock.patch.object(host, "state_store", store))

    def clean_up(self) -> None:
        self._stack.close()
        if hasattr(self, "backend"):
            self.backend.close()

    def _on_write(self, key: str, value: Any) -> None:
        size = len(json.dumps(value))
        self._holds(inv.VALUE_TOO_LARGE, size <= LIMIT, f"{size:,} bytes, {key}")
        attempt = self.current
        if attempt is not None and key == KEY:
            self.code = attempt.code
        if attempt is not None and attempt.is_overtaken and key == KEY:
            self._holds(inv.GIVEN_UP_ACTS, False, f"try {attempt.number} writes over what try {self.number} has written")

    def _holds(self, invariant: inv.Invariant, is_so: object, seen: str) -> None:
        """The code under test may swallow what is raised here; the step raises it again."""
        try:
            invariant.holds(is_so, seen)
        except inv.Broken as e:
            self.broken = self.broken or e
            raise

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _attempt(self, **how: Any) -> tuple[Attempt, Clocked, dict[str, Any]]:
        if self.has_succeeded:  # it is started again after a clear only
            self._clear()
        self.backend.was_troubled = False
        self.number += 1
        self.ti_id = self.number
        attempt = Attempt(self, self.number, self.epoch, self.spec, began=self.now, **how)
        operator = SimpleNamespace(python_callable=lambda: None)
        ids = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
        ti = SimpleNamespace(**ids, try_number=self.number, max_tries=self.max_tries, task=operator)
        run = SimpleNamespace(clear_number=self.clears, start_date=datetime.datetime(2026, 1, 1, tzinfo=UTC))
        context = {"ti": ti, "task": operator, "dag_run": run, "attempt": attempt}
        checkpoint = Clocked("files", context=context, spec=self.spec)
        checkpoint.clock = lambda: self.now
        return attempt, checkpoint, context

    def _work(self, attempt: Attempt, item: int, bad: set[int]) -> None:
        with attempt.standing:
            self._work_alone(attempt, item, bad)

    def _work_alone(self, attempt: Attempt, item: int, bad: set[int]) -> None:
        self.now += self.pace
        attempt.items += 1
        attempt._may_be_given_up("item", attempt.items)
        if item in bad:
            self.met("an item that fails")
            attempt.failed.add(item)
            raise WorkError(item)
        attempt.failed.discard(item)
        attempt.worked.append(item)
        self.worked.setdefault(attempt.epoch, set()).add(item)
        if attempt.is_given_up:
            return  # it does not know what others have noted since
        twice = item in self.noted and not self.is_edited
        self._holds(inv.ITEM_TWICE, not twice, f"item {item} was done, its end was noted, and it is done again")

    def give_up(self, attempt: Attempt) -> None:
        """Airflow takes the attempt for dead. Others work while it stands still; then it goes on."""
        if self.has_succeeded:  # it only tidies up: no store but Airflow's own can keep that from a record of a later clear
            return
        self.met("given up")
        self._nobody_learns_of_what_is_untold(attempt)
        attempt.is_given_up = True
        self.ti_id = 0

        def others() -> None:
            try:
                for edit, how, dies, seed in attempt.later:
                    self._edit(edit)
                    self._try(how=how, bad=[], dies=dies, stops=None, fails=True, seed=seed)
            except BaseException as e:
                self.broken = self.broken or e

        thread = threading.Thread(target=others)  # another process: it has no event loop that runs, and no signals
        thread.start()
        thread.join()
        self.current = attempt
        record = self.backend.kept(TASK, KEY)
        attempt.is_overtaken = bool(record) and int(record["try"]) > attempt.number

    @step(one=TRY)
    def a_try(self, one: dict[str, Any]) -> None:
        self._try(**one)
        self._raise_broken()

    def _raise_broken(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _try(self, *, how: str, bad: list[int], stops: int | None, fails: bool, seed: int, **more: Any) -> None:
        attempt, checkpoint, context = self._attempt(**more)
        self._runs_code_of(how, attempt)
        before, self.current = self.current, attempt
        draw = random.Random(seed)
        listed = self._listed(draw)
        by_key = {self._key(n): n for n in listed}
        body = getattr(self, "_" + how.replace(" ", "_"))
        self.met(f"a loop: {how}")
        error: BaseException | None = None
        try:
            body(attempt, checkpoint, listed, by_key, set(bad), stops, draw)
        except (WorkError, ItemsFailedError, StateStoreError, AirflowFailException, WorkerDied, SupersededError) as e:
            error = e
        self.current = before
        is_told = isinstance(error, SupersededError)
        seen = f"try {attempt.number} is the newest, and told: {error}"
        self._holds(inv.TRY_FOR_NOTHING, attempt.is_given_up or not is_told, seen)
        is_outage = not isinstance(error, StateStoreError) or self.backend.has_troubled(attempt)
        self._holds(inv.OUTAGE_MADE_UP, is_outage, f"try {attempt.number}: {error}")
        if attempt.is_given_up:
            return
        self._judge(attempt, how, listed, error)
        if error is None and not fails:
            self.has_succeeded = True
            with suppress(WorkerDied, StateStoreError):
                for callback in getattr(context["task"], "on_success_callback", ()) if host.has_sdk() else ():
                    callback(context)

    def _judge(self, attempt: Attempt, how: str, listed: list[int], error: BaseException | None) -> None:
        worked = self.worked.get(attempt.epoch, set())
        if error is None and how != "left early":
            missing = [item for item in listed if item not in worked]
            seen = f"{len(missing)} items never went well, e.g. {missing[:3]}, and the task is a success"
            self._holds(inv.ITEM_LOST, not missing, seen)
            seen = f"items {sorted(attempt.failed)[:3]} failed, and the task is a success"
            self._holds(inv.ITEM_LOST, not attempt.failed, seen)
        if isinstance(error, WorkerDied) or self.backend.was_troubled:
            return
        if how not in ("ahead", "pool ahead", "left early"):
            self.noted |= set(attempt.worked) - attempt.failed
        elapsed = self.now - attempt.began
        spare = attempt.writing - 4 * self.write_takes
        seen = f"{attempt.writes} writes took {attempt.writing:.1f} of {elapsed:.1f} s"
        self._holds(inv.STORE_FLOODED, spare <= SHARE * elapsed, seen)

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
                    attempt.untold.append(by_key[key])
                    if draw.random() < 0.3:
                        checkpoint.fail(*errors.pop(0))
            for key, e in errors:
                checkpoint.fail(key, e)

    def _nobody_learns_of_what_is_untold(self, attempt: Attempt) -> None:
        """The window of the documentation: an item whose failure is told late counts as done until that is written."""
        self.worked.setdefault(attempt.epoch, set()).update(attempt.untold)

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
            checkpoint.map(
                lambda key: self._work(attempt, by_key[key], bad), self._keys(listed), concurrency=1, on_error=on_error
            )

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

    @step(
        first=True,
        kind=st.sampled_from(sorted(KEYS)),
        pace=st.sampled_from([0.05, 2.0]),
        size=st.sampled_from([12, 40]),
        takes=st.sampled_from([0.0, 0.0, 0.02, 20.0]),
    )
    def begin(self, kind: str, pace: float, size: int, takes: float) -> None:
        self.backend = Backend(self.store, self._on_write, self.met)
        self.kind, self.pace, self.next_item, self.write_takes = kind, pace, size, takes
        self.items = list(range(size))
        self.cover(f"keys: {kind}")

    @step(whose=st.sampled_from(["its own", "a sibling's", "a sibling's"]), then=TRY)
    def a_clear(self, whose: str, then: dict[str, Any]) -> None:
        if whose == "its own":
            self._clear()
        else:
            self.clears += 1
        self._try(**then)
        self._raise_broken()

    def _clear(self) -> None:
        self.max_tries = self.number + 3
        self.clears += 1
        self.has_succeeded = False
        if not self.is_kept_as("running"):  # what was left unfinished goes on
            self._start_over()

    @step(then=TRY)
    def another_spec(self, then: dict[str, Any]) -> None:
        self.spec += "'"
        self._start_over()
        self._try(**then)
        self._raise_broken()

    def _runs_code_of(self, how: str, attempt: Attempt) -> None:
        """``map`` goes by the code of its function, all others by the task's: another one is a change of the code."""
        code = how if "map" in how else ""
        if code != self.code and self.is_kept_as("done"):
            self._start_over()  # or it goes on, which is no more than is asked for
            self.worked[self.epoch] = self.worked.setdefault(self.epoch - 1, set())  # also what a given-up attempt still works
            attempt.epoch = self.epoch
        attempt.code = code

    def is_kept_as(self, state: str) -> bool:
        kept = self.backend.kept(TASK, KEY)
        return bool(kept and kept["state"] == state)

    def _start_over(self) -> None:
        self.epoch += 1
        self.noted.clear()
        self.is_edited = self.has_succeeded = False

    @step(more=st.sampled_from([1, 30, LONGEST]), then=TRY)
    def the_list_grows(self, more: int, then: dict[str, Any]) -> None:
        self._grow(more)
        self._try(**then)
        self._raise_broken()

    def _grow(self, more: int) -> None:
        if len(self.items) < LONGEST:
            self.items += range(self.next_item, self.next_item + more)
            self.next_item += more
            self.is_edited = self.is_edited or len(self.items) > 500

    @step(what=st.sampled_from(["one less", "as at first", "all but few", "all come back"]), then=TRY)
    def the_list_is_another(self, what: str, then: dict[str, Any]) -> None:
        self._edit(what)
        self._try(**then)
        self._raise_broken()

    def _edit(self, what: str) -> None:
        before = set(self.items)
        self.is_edited = self.is_edited or (what != "none" and len(before) > 500)
        if what.endswith("more"):
            self._grow(30 if what.startswith("30") else 1)
        elif what == "one less":
            self.items = self.items[:3] + self.items[4:]
        elif what == "as at first":
            self.items = list(range(12))
        elif what == "all but few":
            self.items = self.items[12:] or self.items
        elif what == "all come back" and self.next_item < 500:
            self.items = list(range(self.next_item))
        self.noted -= before - set(self.items)  # if they come back

    @step(what=st.sampled_from(TROUBLES), calls=st.sampled_from([1, 3, 8, 20]), then=TRY)
    def the_store_is_in_trouble(self, what: str, calls: int, then: dict[str, Any]) -> None:
        self.backend.trouble = [what] * calls
        self._try(**then)
        self._raise_broken()
        self.backend.trouble = []

    @step(yesterday=st.one_of(st.none(), TRY), before=st.one_of(st.none(), TRY), edit=st.sampled_from(EDITS), then=TRY)
    def what_was_kept_for_long_is_cleaned_up(
        self,
        then: dict[str, Any],
        before: dict[str, Any] | None = None,
        yesterday: dict[str, Any] | None = None,
        edit: str = "none",
    ) -> None:
        """
        ``airflow state-store clean`` takes away what was not written to stay; how far the work was may be forgotten so. Not what
        a try has written of late (``before``), while there is much that no try writes more than once (the list, which is needed
        when it was edited since).
        """
        if yesterday is not None:
            self._try(**yesterday)
            self._raise_broken()
        self.backend.day += 1
        if before is not None:
            self._try(**before)
            self._raise_broken()
        if self.backend.kind == "task state":
            self.backend.clean_old()
            self.met(f"a clean-up{' after a try of late' if before is not None else ''}")
            if not self.is_kept_as("running") and not self.is_kept_as("done"):
                self.noted.clear()
        self._edit(edit)
        self._try(**then)
        self._raise_broken()

    def end(self) -> None:
        """One more try of all there is, undisturbed, is a success."""
        if not hasattr(self, "backend"):
            return
        self.backend.trouble, self.write_takes = [], 0.0
        attempt, checkpoint, _ = self._attempt()
        self._runs_code_of("for", attempt)
        self.current = attempt
        listed = sorted(self.items)
        by_key = {self._key(n): n for n in listed}
        try:
            self._for(attempt, checkpoint, listed, by_key, set(), None, random.Random(0))
        except (AirflowFailException, ConfigurationError, StateStoreError) as e:
            inv.NO_TRY_HELPS.holds(False, f"the last try failed: {e}")
        self._judge(attempt, "for", listed, None)
        self._raise_broken()


assert LIMIT > 2 * HEADER


class CheckpointInVariables(CheckpointOfUsers):
    store = "Variables"


class CheckpointInObjectStorage(CheckpointOfUsers):
    store = "object storage"


MEETS = (*(f"a loop: {way}" for way in WAYS), *(f"a store that is {what}" for what in TROUBLES), "given up", "dies")
HOW_OFTEN: dict[str, Any] = {"examples": 45, "steps": 7, "meets": (*MEETS, "an item that fails")}
test_no_item_is_lost_in_task_state = as_test(CheckpointOfUsers, **HOW_OFTEN)
test_no_item_is_lost_in_variables = as_test(CheckpointInVariables, **HOW_OFTEN)
test_no_item_is_lost_in_object_storage = as_test(CheckpointInObjectStorage, **HOW_OFTEN)
