"""
Whatever happens in whatever order, an item that is left out was done, and what was written is not done again.

Each attempt runs in this process over Airflow's contract of the store; after a crash the process does
nothing any more. Left out, in full: an edit makes items next to it in the order of keys be done again (only lists of more
than some thousand items; here a chunk may have two or four items).
"""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resumable.checkpoint import done
from resumable.checkpoint.progress import Progress
from resumable.checkpoint.setting import Setting
from resumable.identity import Generation, TaskIdentity
from resumable.policy import ResumePolicy
from resumable.stores import MemoryStore
from resumable.stores.owned import OwnedValue


class CrashError(BaseException):
    """SIGKILL."""


class Log:
    def info(self, *args):
        args[0] % args[1:]

    warning = info


class CheckpointLife(RuleBasedStateMachine):
    every = 3
    limit = 1500 + 16 * 4000

    def __init__(self):
        super().__init__()
        self.store = MemoryStore()
        self.items = [f"f{n}" for n in range(12)]
        self.generation = Generation(2, 0, "2026-01-01T00:00:00+00:00")
        self.spec = "v1"
        self.number = 0
        self.effects = {}
        self.recorded = set()
        self.now = 0.0

    def setting(self):
        self.number += 1
        owner = f"attempt{self.number}"
        return Setting(
            name="files",
            generation=self.generation,
            spec=self.spec,
            policy=ResumePolicy().resolved(),
            try_number=self.number,
            value=lambda key, what: OwnedValue(self.store, key, what, owner=owner, sleep=lambda _: None),
            limit=self.limit,
            log=Log(),
            every=self.every,
            seconds=1e9,
            clock=lambda: self.now,
        )

    def attempt(self, stop_after, order, how):
        progress = Progress(self.setting())
        listed = list(self.items)
        order.shuffle(listed)
        progress.begin_items(listed)
        done_here = []
        for position in self.positions(progress, order):
            item = listed[position]
            if len(done_here) == stop_after:
                if how == "raises":
                    progress.finish(is_complete=False)
                    self.recorded |= set(done_here)
                return
            assert item not in self.recorded or self.forgives(), f"{item} was written and is done again"
            self.effects.setdefault(item, []).append((self.generation, self.spec))
            progress.mark(position)
            done_here.append(item)
            if progress.is_due:
                progress.write()
                self.recorded |= set(done_here)
        progress.finish(is_complete=True)
        self.recorded |= set(done_here)
        for item in self.items:
            assert (self.generation, self.spec) in self.effects.get(item, []), f"{item} was left out"

    def positions(self, progress, order):
        """As a loop over the items, or out of order as the asynchronous one may."""
        if order.random() < 0.5:
            return progress.undone()
        positions = list(progress.undone())
        order.shuffle(positions)
        return positions

    def forgives(self):
        return False

    @rule(stop_after=st.integers(0, 15), seed=st.integers(0, 2**16), how=st.sampled_from(["killed", "raises"]))
    def a_try(self, stop_after, seed, how):
        self.attempt(stop_after, random.Random(seed), how)

    @rule()
    def a_clear(self):
        self.generation = Generation(self.generation.max_tries + 3, 0, self.generation.run_started)
        self.recorded.clear()

    @rule()
    def an_edit_of_the_code(self):
        self.spec += "'"
        self.recorded.clear()

    @rule(number=st.integers(0, 40), place=st.integers(0, 20))
    def an_item_more(self, number, place):
        item = f"f{number}"
        if item not in self.items:
            self.items.insert(place, item)
            self.recorded.discard(item)

    @rule(data=st.data())
    def an_item_less(self, data):
        if self.items:
            self.items.remove(item := data.draw(st.sampled_from(self.items)))
            self.recorded.discard(item)

    @invariant()
    def never_more_than_two_keys_are_kept(self):
        assert len(self.store.data) <= 2


class CheckpointLifeInChunks(CheckpointLife):
    """A list so long for its room that a chunk has several items: an edit may bring some back, none is left out."""

    def __init__(self):
        super().__init__()
        self.bytes_per_chunk, done.BYTES_PER_CHUNK = done.BYTES_PER_CHUNK, self.limit // 4

    def teardown(self):
        done.BYTES_PER_CHUNK = self.bytes_per_chunk

    def forgives(self):
        return True


class TransactionLife(CheckpointLife):
    """Each item's effect and its key are one transaction, under the token: no item is done twice, wherever a process dies."""

    def __init__(self):
        super().__init__()
        self.target = {}

    def setting(self):
        identity = TaskIdentity("dag", "run", "task")
        return replace(super().setting(), token=identity.token(self.generation, 0))

    def attempt(self, stop_after, order, how):
        progress = Progress(self.setting())
        listed = list(self.items)
        order.shuffle(listed)
        progress.begin_items(listed, lambda token: list(self.target.get(token, ())))
        committed = self.target.setdefault(progress.token, [])
        for number, position in enumerate(self.positions(progress, order)):
            if number == stop_after and how == "raises":
                progress.finish(is_complete=False)
                return
            assert listed[position] not in committed, f"{listed[position]} is done twice"
            committed.append(listed[position])
            if number == stop_after:
                return  # after the transaction, before the item counts as done
            progress.mark(position)
            if progress.is_due:
                progress.write()
        progress.finish(is_complete=True)
        assert set(self.items) <= set(committed), "an item was left out"

    @rule()
    def a_siblings_clear(self):
        self.generation = replace(self.generation, clear_number=self.generation.clear_number + 1)


TestCheckpointLife = CheckpointLife.TestCase
TestTransactionLife = TransactionLife.TestCase
TestCheckpointLifeInChunks = CheckpointLifeInChunks.TestCase
TestCheckpointLife.settings = TestTransactionLife.settings = TestCheckpointLifeInChunks.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
