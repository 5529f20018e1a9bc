"""A checkpoint inside an item of another: what was done in one item is never taken for what is to be done in the next."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable import Checkpoint
from tests.support.checkpointed import Task, WorkError, task  # noqa: F401
from tests.support.names import AirflowFailException

# ruff: noqa: F811

ROWS = range(3)


class Load:
    """A task that loads the rows of tables, in the ways in which one writes it; `worked` is what came of all its attempts."""

    def __init__(self, task, how, name="rows"):
        self.task, self.how, self.name, self.worked = task, how, name, []

    def attempt(self, tables, stop=None):
        """``stop`` is the table whose work is not begun, or the row of a table, at which the worker dies."""
        self.stop, self.context = stop, self.task.context()
        getattr(self, f"_{self.how}")(tables)

    def _rows(self, table):
        self._die_at(table)
        with self._checkpoint(self.name.format(table)) as rows:
            for row in rows.items(ROWS):
                self._die_at((table, row))
                self.worked.append((table, row))

    async def _arows(self, table):
        self._die_at(table)
        async with self._checkpoint(self.name.format(table)) as rows:
            async for row in rows.items(ROWS):
                self._die_at((table, row))
                self.worked.append((table, row))

    def _die_at(self, here):
        if here == self.stop:
            raise WorkError

    def _checkpoint(self, name):
        return Checkpoint(name, every=1, context=self.context)

    def _loop(self, tables):
        with self._checkpoint("tables") as outer:
            for table in outer.items(tables):
                self._rows(table)

    def _batches(self, tables):
        with self._checkpoint("tables") as outer:
            for (table,) in outer.batches(tables, 1):
                self._rows(table)

    def _pages(self, tables):
        with self._checkpoint("tables") as outer:
            following = {None: tables[0], **dict(itertools.pairwise(tables))}
            for table in outer.pages(lambda at: (following[at], following[at] if following[at] != tables[-1] else None)):
                self._rows(table)

    def _threads(self, tables):
        with self._checkpoint("tables") as outer:
            outer.map(self._rows, tables, concurrency=1)

    def _async_loop(self, tables):
        async def run():
            async with self._checkpoint("tables") as outer:
                async for table in outer.items(tables):
                    await self._arows(table)

        asyncio.run(run())

    def _coroutines(self, tables):
        async def run():
            async with self._checkpoint("tables") as outer:
                await outer.map(self._arows, tables, concurrency=1)

        asyncio.run(run())


HOW = ["loop", "batches", "pages", "threads", "async_loop", "coroutines"]


@pytest.mark.parametrize("how", HOW)
def test_rows_of_a_table_that_an_earlier_try_did_are_not_taken_for_those_of_the_next_table(task, how):
    """The worker dies between two tables: the next try begins with the second one, under the name of the first one's rows."""
    load = Load(task, how)
    with contextlib.suppress(Exception):
        load.attempt(["a", "b"], stop="b")
    assert load.worked == [("a", row) for row in ROWS]
    with pytest.raises(Exception, match=r"a name of its own for each|ItemsFailed|1 items"):
        load.attempt(["a", "b"])
    assert task.data["resumable.checkpoint.tables"]["done"] == 1
    load.name = "rows-{}"
    load.attempt(["a", "b"])
    assert load.worked[len(ROWS) :] == [("b", row) for row in ROWS]


@pytest.mark.parametrize("how", HOW)
def test_rows_go_on_in_the_table_in_which_they_stopped_under_one_name(task, how):
    load = Load(task, how)
    with contextlib.suppress(Exception):
        load.attempt(["a"], stop=("a", 2))
    load.attempt(["a"])
    assert load.worked == [("a", row) for row in ROWS]


@pytest.mark.parametrize("how", HOW)
def test_names_of_their_own_go_on_each_in_its_table(task, how):
    load = Load(task, how, "rows-{}")
    for stop in ("b", ("b", 1), ("c", 2)):
        with contextlib.suppress(Exception):
            load.attempt(["a", "b", "c"], stop=stop)
    load.attempt(["a", "b", "c"])
    assert sorted(load.worked) == [(table, row) for table in "abc" for row in ROWS]


def test_two_tables_at_once_under_one_name_are_never_both_taken_for_done(task):
    """In threads: the one ends before the other begins, and neither is marked yet."""
    load = Load(task, "threads")
    with pytest.raises(Exception, match=r"a name of its own"):
        context = task.context()
        with Checkpoint("tables", every=1, context=context) as outer:
            load.context, load.stop = context, None
            outer.map(load._rows, ["a", "b", "c", "d"], concurrency=2)
    assert len(load.worked) < 4 * len(ROWS)
    assert task.data["resumable.checkpoint.tables"]["done"] < 4


def test_a_checkpoint_after_the_loop_of_another_is_in_no_item(task):
    def attempt(items, stop=None):
        context, worked = task.context(), []
        with Checkpoint("tables", every=1, context=context) as outer:
            for item in outer.items(items):
                if item == stop:
                    break
            with Checkpoint("after", every=1, context=context) as after:
                for row in after.items(ROWS):
                    if row == 2 and stop:
                        raise WorkError
                    worked.append(row)
        return worked

    with pytest.raises(WorkError):
        attempt(["a", "b", "c"], "b")
    with pytest.raises(WorkError):
        attempt(["a", "b", "c"], "c")
    assert attempt(["a", "b", "c", "d"]) == [2]


def test_a_checkpoint_with_a_place_and_one_of_an_earlier_release_without_go_on(task):
    load = Load(task, "loop")
    with pytest.raises(WorkError):
        load.attempt(["a"], stop=("a", 2))
    del task.data["resumable.checkpoint.rows"]["inside"]
    load.attempt(["a"])
    assert load.worked == [("a", row) for row in ROWS]


@settings(deadline=None, max_examples=60)
@given(
    how=st.sampled_from(HOW),
    own=st.booleans(),
    deaths=st.lists(st.sampled_from("abc") | st.tuples(st.sampled_from("abc"), st.sampled_from(ROWS)), max_size=4),
    orders=st.lists(st.permutations(["a", "b", "c"]), min_size=5, max_size=5),
)
def test_whatever_dies_where_a_task_that_ends_well_has_worked_each_row_of_each_table(how, own, deaths, orders):
    load = Load(Task(), how, "rows-{}" if own else "rows")
    if how == "pages":
        orders = [["a", "b", "c"]] * 5
    for stop, order in zip([*deaths, None], orders, strict=False):
        try:
            load.attempt(order, stop=stop)
        except (Exception, AirflowFailException):
            continue
        assert set(load.worked) == {(table, row) for table in "abc" for row in ROWS}
        return
    assert not own
