"""Ordinary slips in the use of `Checkpoint`: a clear word, what is done is kept, and no item is passed over unsaid."""

from __future__ import annotations

import asyncio
import functools
import random
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest

from resumable import ConfigurationError, ItemsFailedError, StateStoreError, host
from tests.support.checkpointed import ITEMS, KEY, WorkError, amap, task  # noqa: F401
from tests.support.names import AirflowFailException, AirflowRescheduleException

# ruff: noqa: F811

needs_limit = pytest.mark.skipif(not host.has_task_state(), reason="a value's limit is a setting of Airflow 3.3")

pytestmark = pytest.mark.usefixtures("no_waiting")

# -- what is said of an item that failed ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a text", ValueError, None, 404], ids=["text", "class", "None", "number"])
def test_what_is_no_exception_is_refused_by_fail_and_what_is_done_is_kept(task, given):
    with pytest.raises(AirflowFailException, match=r"Give it an exception"), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f030":
                checkpoint.fail(item, given)
    assert task.data[KEY]["done"] == 30
    assert task.run(ITEMS) == ITEMS[30:]


class Unsayable(Exception):
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class Odd:
    """An item that cannot be shown."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize("how", ["loop", "threads", "coroutines"])
def test_an_error_that_cannot_be_shown_is_an_items_failure_as_any_other(task, how):
    worked = []

    def work(item):
        if item.name == "f030":
            raise Unsayable
        worked.append(item.name)

    async def awork(item):
        work(item)

    items = [Odd(name) for name in ITEMS]
    with pytest.raises(ItemsFailedError, match="<Unsayable, of which repr\\(\\) raises RuntimeError>"):
        if how == "coroutines":
            amap(task, awork, items, key=lambda item: item.name, on_error="collect")
        elif how == "threads":
            with task.checkpoint() as checkpoint:
                checkpoint.map(work, items, key=lambda item: item.name, on_error="collect")
        else:
            with task.checkpoint() as checkpoint:
                for item in checkpoint.items(items, key=lambda item: item.name):
                    try:
                        work(item)
                    except Unsayable as e:
                        checkpoint.fail(item, e)
    assert sorted(worked) == [name for name in ITEMS if name != "f030"]
    assert task.data[KEY]["failed_items"] == ["f030"]


def test_a_file_whose_name_is_no_text_may_fail_and_what_is_done_is_kept(task, caplog):
    """As ``os.listdir`` gives a name that is not UTF-8. Airflow takes no such text, neither in task state nor in a log line."""
    items = ["a.csv", "caf\udce9.csv", "z.csv"]
    with pytest.raises(ItemsFailedError) as raised, task.checkpoint() as checkpoint:
        for item in checkpoint.items(items):
            if item == items[1]:
                checkpoint.fail(item, OSError(2, "No such file", item))
    assert task.data[KEY]["failed_items"] == [r"caf\udce9.csv"]
    assert task.data[KEY]["done"] == 2
    for line in [str(raised.value), *caplog.messages]:
        line.encode()
    assert task.run(items) == [items[1]]


# -- pages ------------------------------------------------------------------------------------------------------------

NO_PAIRS = {
    "an object of JSON": {"items": [1, 2], "next": "b"},
    "a text": "ab",
    "bytes": b"ab",
    "a set": {1, 2},
    "a generator": (part for part in (1, None)),
    "a page alone": [1, 2, 3],
}


@pytest.mark.parametrize("answer", NO_PAIRS.values(), ids=NO_PAIRS.keys())
def test_what_has_two_parts_by_chance_is_no_page_and_cursor(task, answer):
    with pytest.raises(AirflowFailException, match="is no pair"), task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(lambda cursor: answer):
            pytest.fail("worked")


@pytest.mark.parametrize("pair", [("page", None), ["page", None]], ids=["tuple", "list"])
def test_a_pair_is_a_tuple_or_a_list(task, pair):
    with task.checkpoint() as checkpoint:
        for page in checkpoint.pages(lambda cursor: pair):
            assert page == "page"
    assert checkpoint.done == 1


@pytest.mark.parametrize("cursor", ["caf\udce9", {"after": "\ud800"}, 2**64, [-(2**63) - 1], float("nan")])
def test_a_cursor_that_airflow_does_not_take_is_an_error_before_its_page_is_worked(task, cursor):
    worked = []
    with pytest.raises(AirflowFailException, match="does not come back the same"), task.checkpoint(every=1) as checkpoint:
        for page in checkpoint.pages(lambda at: ("first", cursor) if at is None else ("second", None)):
            worked.append(page)
    assert worked == []


# -- a list that the work changes -------------------------------------------------------------------------------------


def test_a_list_that_the_loop_shortens_loses_no_item(task):
    items, worked = list(ITEMS), []
    with task.checkpoint() as checkpoint:
        for item in checkpoint.items(items):
            worked.append(item)
            items.remove(item)
    assert worked == ITEMS


def test_a_list_that_map_shortens_loses_no_item(task):
    items, worked = list(ITEMS), []

    def work(item):
        worked.append(item)
        items.remove(item)

    with task.checkpoint() as checkpoint:
        checkpoint.map(work, items, concurrency=1)
    assert worked == ITEMS


@pytest.mark.parametrize("how", ["loop", "manual", "batches", "async for", "threads", "coroutines"])
def test_of_items_that_the_work_adds_to_the_list_it_is_said_that_nobody_works_them(task, caplog, how):
    items = ["a", "b"]

    def add(item):
        if len(items) == 2:
            items.append("c")

    async def aadd(item):
        add(item)

    async def run():
        async with task.checkpoint() as checkpoint:
            async for item in checkpoint.items(items):
                add(item)

    if how == "async for":
        asyncio.run(run())
    elif how == "coroutines":
        amap(task, aadd, items)
    else:
        with task.checkpoint() as checkpoint:
            if how == "threads":
                checkpoint.map(add, items)
            elif how == "batches":
                for batch in checkpoint.batches(items, 2):
                    add(batch)
            else:
                for item in checkpoint.items(items, ack="manual" if how == "manual" else "auto"):
                    add(item)
                    if how == "manual":
                        checkpoint.done(item)
    assert "had 2 when the loop began and has 3 now" in caplog.text
    assert task.data[KEY]["done"] == 2


def test_a_block_whose_end_goes_wrong_keeps_what_is_done(task, monkeypatch):
    def trouble(*_):
        raise WorkError

    with pytest.raises(WorkError), task.checkpoint(every=1000) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f050":
                monkeypatch.setattr("resumable.checkpoint.work.Work.left_undone", trouble)
                break
    monkeypatch.undo()
    assert task.data[KEY]["done"] == 50
    assert task.run(ITEMS) == ITEMS[50:]


# -- a map whose work says something of the task ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["threads", "coroutines"])
@pytest.mark.parametrize("on_error", ["fail", "collect"])
def test_work_that_wants_the_task_to_be_started_later_is_no_failed_item(task, how, on_error):
    def work(item):
        if item == "f030":
            raise AirflowRescheduleException(datetime.now(timezone.utc) + timedelta(minutes=5))

    async def awork(item):
        work(item)

    with pytest.raises(AirflowRescheduleException):
        if how == "coroutines":
            amap(task, awork, concurrency=1, tries=3, on_error=on_error)
        else:
            with task.checkpoint() as checkpoint:
                checkpoint.map(work, ITEMS, concurrency=1, tries=3, on_error=on_error)
    assert (task.data[KEY]["done"], task.data[KEY]["failed"]) == (30, 0)


# -- a place for what task state has no room for ----------------------------------------------------------------------


def without_room(task, monkeypatch, path):
    """A checkpoint whose flags go into object storage."""
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", path)
    monkeypatch.setenv("AIRFLOW__STATE_STORE__MAX_VALUE_STORAGE_BYTES", "1600")
    monkeypatch.setattr("resumable.checkpoint.done.MAX_RANGES", 0)
    items = [f"item {number:05}" for number in range(5000)]
    random.Random(1).shuffle(items)
    return items


@needs_limit
def test_what_could_not_be_put_into_a_folder_that_is_not_mounted_is_not_said_to_be_there(task, monkeypatch, tmp_path, caplog):
    folder = tmp_path / "mounted"
    items = without_room(task, monkeypatch, folder.as_uri())
    task.stopped(items, 2500, every=1000)
    assert "progress cannot be written" in caplog.text
    assert "object" not in task.data[KEY]
    folder.mkdir()
    task.stopped(items, 2500, every=1000)  # it starts from what was written, which is nothing
    assert task.data[KEY]["object"]
    assert task.run(items) == items[2500:]


@needs_limit
def test_a_folder_that_is_not_mounted_in_a_later_try_is_no_loss_of_what_lies_there(task, monkeypatch, tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    items = without_room(task, monkeypatch, folder.as_uri())
    task.stopped(items, 2500, every=1000)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(StateStoreError, match="is it mounted here"):
        task.run(items)
    (tmp_path / "elsewhere").rename(folder)
    assert task.run(items) == items[2500:]


def test_a_place_that_nothing_here_opens_is_an_error_of_configuration(task, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", "nonsense://bucket/state")
    with pytest.raises(AirflowFailException, match="no provider here knows such URLs"):
        task.run(ITEMS)


# -- work that nobody does --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of",
    [
        lambda checkpoint, work: map(work, checkpoint.items(ITEMS)),
        lambda checkpoint, work: map(work, checkpoint.batches(ITEMS, 7)),
        lambda checkpoint, work: checkpoint.pages(lambda cursor: (work(cursor), None)),
        lambda checkpoint, work: enumerate(checkpoint.items(ITEMS, ack="manual")),
    ],
    ids=["items", "batches", "pages", "manual"],
)
def test_what_nobody_iterates_over_is_said_not_to_be_worked(task, caplog, of):
    worked = []
    with task.checkpoint() as checkpoint:
        of(checkpoint, worked.append)
    assert worked == []
    assert "nobody has iterated over" in caplog.text


def test_an_error_of_map_that_is_swallowed_does_not_hide_how_many_items_are_left(task, caplog):
    def work(item):
        if item == "f030":
            raise WorkError

    with task.checkpoint() as checkpoint, suppress(ItemsFailedError):
        checkpoint.map(work, ITEMS, concurrency=1)
    assert "left before its end: 30 of 100 done" in caplog.text


NO_ARGUMENT, TWO_ARGUMENTS = (lambda: []), (lambda one, other: ([one], None))


@pytest.mark.parametrize("wrong", [NO_ARGUMENT, TWO_ARGUMENTS], ids=["none", "two"])
@pytest.mark.parametrize(
    "use",
    [
        lambda checkpoint, wrong: checkpoint.map(wrong, ITEMS),
        lambda checkpoint, wrong: checkpoint.map(print, ITEMS, key=wrong),
        lambda checkpoint, wrong: list(checkpoint.items(ITEMS, key=wrong)),
        lambda checkpoint, wrong: list(checkpoint.batches(ITEMS, 5, key=wrong)),
        lambda checkpoint, wrong: list(checkpoint.pages(wrong)),
    ],
    ids=["work", "key of map", "key", "key of batches", "fetch"],
)
def test_a_function_that_takes_other_arguments_fails_the_task_without_its_retries(task, use, wrong):
    with pytest.raises((AirflowFailException, ConfigurationError), match="one argument"), task.checkpoint() as checkpoint:
        use(checkpoint, wrong)


@pytest.mark.parametrize("wrong", [NO_ARGUMENT, TWO_ARGUMENTS], ids=["none", "two"])
def test_a_committed_that_takes_other_arguments_fails_the_task_without_its_retries(task, wrong):
    with pytest.raises((AirflowFailException, ConfigurationError), match="the token"):
        task.checkpoint(committed=wrong)


def with_a_connection(function):
    """As decorators do that give a function more than they are called with."""

    @functools.wraps(function)
    def wrapped(*arguments):
        return function("connection", *arguments)

    return wrapped


def test_what_a_decorator_adds_to_the_arguments_is_no_reason_to_refuse(task):
    worked = []

    @with_a_connection
    def work(connection, item):
        worked.append((connection, item))

    with task.checkpoint() as checkpoint:
        checkpoint.map(work, ITEMS[:1], key=functools.partial(max, "f"))
    assert worked == [("connection", "f000")]


@pytest.mark.parametrize("of", [lambda number: number, lambda number: (number, "a")], ids=["int", "tuple"])
def test_a_number_that_python_does_not_write_out_is_no_key_and_says_so(task, of):
    with pytest.raises(AirflowFailException, match="more digits"):
        task.run([of(10**5000 + n) for n in range(3)])
