"""What the work on an item, or what names one, does by surprise: no item is left out, none hangs, and no try is taken."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing.pool
import sys
from types import SimpleNamespace

import pytest

from resumable import ItemsFailedError, host
from tests.support.checkpointed import ITEMS, KEY, WorkError, amap, task  # noqa: F401
from tests.support.names import AirflowFailException

# ruff: noqa: F811


# -- what makes an item's key moves while it is worked ----------------------------------------------------------------


def files(count=6):
    return [SimpleNamespace(path=f"in/{number}") for number in range(count)]


def path_of(file):
    return file.path


def moved(file):
    file.path = file.path.replace("in/", "out/")


def say_each(checkpoint, all_files, say):
    for file in checkpoint.items(all_files, key=path_of, ack="manual"):
        moved(file)
        say(checkpoint, file)


def say_each_of_a_batch(checkpoint, all_files, say):
    for batch in checkpoint.batches(all_files, 2, key=path_of, ack="manual"):
        for file in batch:
            moved(file)
        say(checkpoint, batch)


def say_in_a_thread(checkpoint, all_files, say):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for file in checkpoint.items(all_files, key=path_of, ack="manual"):
            moved(file)
            pool.submit(say, checkpoint, file).result()


def say_all_at_the_end(checkpoint, all_files, say):
    for file in checkpoint.items(all_files, key=path_of, ack="manual"):
        moved(file)
    for file in reversed(all_files):
        say(checkpoint, file)


EACH = pytest.mark.parametrize("each", [say_each, say_each_of_a_batch, say_in_a_thread, say_all_at_the_end])


@EACH
def test_an_item_that_its_work_has_renamed_is_done_under_the_name_that_it_had(task, each):
    with task.checkpoint() as checkpoint:
        each(checkpoint, files(), lambda checkpoint, file: checkpoint.done(file))
    assert task.data[KEY]["state"] == "done"


@EACH
def test_an_item_that_its_work_has_renamed_fails_under_the_name_that_it_had(task, each):
    with pytest.raises(ItemsFailedError, match="6 items"), task.checkpoint() as checkpoint:
        each(checkpoint, files(), lambda checkpoint, file: checkpoint.fail(file, WorkError()))
    assert task.run([file.path for file in files()]) == [file.path for file in files()]


def test_an_item_that_was_renamed_to_what_another_one_is_called_fails_itself(task):
    first, second = SimpleNamespace(path="a"), SimpleNamespace(path="b")
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for file in checkpoint.items([first, second], key=path_of):
            if file is first:
                file.path = "b"
                checkpoint.fail(file, WorkError())
    assert task.run(["a", "b"]) == ["a"]


def test_another_object_of_the_same_key_is_that_item(task):
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for file in checkpoint.items(files(), key=path_of):
            if file.path == "in/3":
                checkpoint.fail(SimpleNamespace(path="in/3"), WorkError())
    assert task.run([file.path for file in files()]) == ["in/3"]


@pytest.mark.parametrize("kind", ["threads", "coroutine"])
def test_an_item_whose_key_can_no_longer_be_had_when_it_fails_is_a_failed_item_as_any_other(task, tmp_path, kind):
    """``key=lambda file: (file.name, file.stat().st_mtime_ns)``, and the work has removed the file."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)

    def work(path):
        path.unlink()
        if path.name != "c":
            raise WorkError

    def key(path):
        return path.name, path.stat().st_size

    how = {"key": key, "on_error": "collect"}
    with pytest.raises(ItemsFailedError, match="2 items"):
        if kind == "threads":
            with task.checkpoint() as checkpoint:
                checkpoint.map(work, sorted(tmp_path.iterdir()), **how)
        else:
            amap(task, work, sorted(tmp_path.iterdir()), **how)
    assert task.data[KEY]["done"] == 1


# -- a StopIteration that nobody meant --------------------------------------------------------------------------------


def nothing_found(*_):
    return next(iter([]))


def odd_key(item):
    return nothing_found() if item == "f030" else item


def loop(task, **arguments):
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.items(ITEMS, **arguments):
            pass


def loop_of_batches(task, **arguments):
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.batches(ITEMS, 7, **arguments):
            pass


def map_in_threads(task, **arguments):
    with task.checkpoint() as checkpoint:
        checkpoint.map(lambda item: None, ITEMS, **arguments)


def map_in_a_loop(task, **arguments):
    amap(task, lambda item: None, **arguments)


def async_loop(task, **arguments):
    async def run():
        async with task.checkpoint() as checkpoint:
            async for _ in checkpoint.items(ITEMS, **arguments):
                pass

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("run", [loop, loop_of_batches, map_in_threads, map_in_a_loop, async_loop])
def test_a_key_that_finds_nothing_fails_the_try_and_leaves_no_item_out(task, run):
    """``key=lambda file: next(part for part in file.parts if ...)``: to ``map()`` it would be the end of the list."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(task, key=odd_key)
    assert task.data.get(KEY) is None


@pytest.mark.parametrize("on_error", ["fail", "collect"])
def test_a_plain_function_that_finds_nothing_fails_its_item_and_keeps_no_coroutine_waiting(task, on_error):
    async def run():
        async with task.checkpoint() as checkpoint:
            await asyncio.wait_for(checkpoint.map(odd_key, ITEMS, on_error=on_error, concurrency=4), 20)

    with pytest.raises(ItemsFailedError, match="f030"):
        asyncio.run(run())
    assert "f030" in task.run(ITEMS)


def test_a_committed_that_finds_nothing_keeps_no_coroutine_waiting(task):
    async def run():
        async with task.checkpoint(committed=nothing_found) as checkpoint:
            async for _ in checkpoint.items(ITEMS):
                pytest.fail("worked")

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(asyncio.wait_for(run(), 20))


# -- what an item awaits is cancelled, and the task is not ------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio does not tell who was cancelled")
def test_an_item_that_is_cancelled_alone_is_a_failed_item_and_the_others_are_worked(task):
    async def work(item):
        waiting = asyncio.ensure_future(asyncio.sleep(60 if item == "f030" else 0))
        if item == "f030":
            waiting.cancel()
        await waiting

    with pytest.raises(ItemsFailedError, match="1 items.*f030"):
        amap(task, work, on_error="collect", concurrency=3)
    assert task.run(ITEMS) == ["f030"]


def test_a_thread_whose_own_event_loop_is_cancelled_fails_its_item_alone(task):
    def work(item):
        if item == "f030":
            raise asyncio.CancelledError

    with pytest.raises(ItemsFailedError, match="1 items.*f030"), task.checkpoint() as checkpoint:
        checkpoint.map(work, ITEMS, on_error="collect", concurrency=3)
    assert task.run(ITEMS) == ["f030"]


def test_a_task_of_asyncio_that_is_cancelled_ends_the_map(task):
    async def run():
        async with task.checkpoint() as checkpoint:
            mapping = asyncio.ensure_future(checkpoint.map(lambda _: asyncio.sleep(60), ITEMS, on_error="collect"))
            await asyncio.sleep(0.05)
            mapping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await mapping

    asyncio.run(asyncio.wait_for(run(), 20))
    assert [task.data[KEY]["done"], task.data[KEY]["failed"]] == [0, 0]


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("say", [lambda it: it.done("f001"), lambda it: it.fail("f001", WorkError()), lambda it: it.token])
def test_what_is_said_after_the_block_fails_the_task_at_once(task, say):
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.items(ITEMS):
            pass
    with pytest.raises(AirflowFailException, match="is not open"):
        say(checkpoint)


@pytest.mark.parametrize("circle", [["a", "b", ""], ["a", "b", "c", "b"], [{"n": 1}, {"n": 2}, {"n": 3}], [*range(40), 3]])
def test_cursors_that_go_in_a_circle_are_warned_of(task, caplog, circle):
    """Services that say "" after their last page: asked with it, they begin anew."""
    answers = iter([*circle, *circle, *circle[:-1], *circle, *circle, None])
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(lambda cursor: ("page", next(answers))):
            pass
    assert caplog.text.count("the loop never ends") == 1


def test_cursors_that_go_on_are_not_warned_of(task, caplog):
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(lambda cursor: ("page", cursor + 1 if cursor < 200 else None), start=0):
            pass
    assert "never ends" not in caplog.text


# -- another item of a mapped task's list -----------------------------------------------------------------------------


class Shop:
    """A mapped task, which Airflow knows by its place in a list; `name` is what stands there now."""

    def __init__(self, task, monkeypatch, name):
        self.task, self.name, self.rows = task, name, []
        monkeypatch.setattr(host, "mapped_item", lambda context: {} if self.name is None else {"shop": self.name})

    def pages(self, stop_at=None, **arguments):
        with self.task.checkpoint(every=1, **arguments) as checkpoint:
            for page in checkpoint.pages(lambda cursor: (cursor, cursor + 1 if cursor < 9 else None), start=0):
                if page == stop_at:
                    raise WorkError
                self.rows.append((self.name, page))

    def items(self, stop_at=None, **arguments):
        with self.task.checkpoint(every=1, **arguments) as checkpoint:
            for item in checkpoint.items(range(10)):
                if item == stop_at:
                    raise WorkError
                self.rows.append((self.name, item))

    def batches(self, stop_at=None, **arguments):
        with self.task.checkpoint(every=1, **arguments) as checkpoint:
            for batch in checkpoint.batches(range(10), 2):
                if stop_at in batch:
                    raise WorkError
                self.rows += [(self.name, item) for item in batch]

    def map(self, stop_at=None, **arguments):
        def work(item):
            if item == stop_at:
                raise WorkError
            self.rows.append((self.name, item))

        if stop_at is None:
            amap(self.task, work, range(10), concurrency=1)
        else:
            with pytest.raises(ItemsFailedError):
                amap(self.task, work, range(10), concurrency=1)
            raise WorkError

    def stopped(self, how, at=6, **arguments):
        with pytest.raises(WorkError):
            getattr(self, how)(at, **arguments)


@pytest.fixture
def shop(task, monkeypatch):
    return Shop(task, monkeypatch, "north")


HOW = pytest.mark.parametrize("how", ["pages", "items", "batches", "map"])


@HOW
@pytest.mark.parametrize("is_cleared", [True, False])
def test_a_mapped_task_that_is_given_another_item_of_its_list_skips_nothing_of_it(task, shop, how, is_cleared, caplog):
    """The upstream task gave its list in another order when it ran again: task 0 is of another shop by now."""
    shop.stopped(how)
    shop.name = "south"
    if is_cleared:
        task.clear()
    getattr(shop, how)()
    assert [row for name, row in shop.rows if name == "south"] == list(range(10))
    assert "what the mapped task was given of its list has changed" in caplog.text


@HOW
@pytest.mark.parametrize("is_cleared", [True, False])
def test_a_mapped_task_of_the_same_item_goes_on(task, shop, how, is_cleared):
    shop.stopped(how)
    if is_cleared:
        task.clear()
    getattr(shop, how)()
    assert [row for _, row in shop.rows] == list(range(10))


@HOW
@pytest.mark.parametrize("unknown", ["before", "after"])
def test_where_the_item_of_the_list_is_not_known_work_goes_on(task, shop, how, unknown):
    """As of a record that an earlier release wrote."""
    shop.name = None if unknown == "before" else "north"
    shop.stopped(how)
    shop.name = "north" if unknown == "before" else None
    getattr(shop, how)()
    assert [row for _, row in shop.rows] == list(range(10))


@pytest.mark.parametrize("how", ["pages", "items"])
@pytest.mark.parametrize("choice", ["fail", "reattach"])
def test_another_item_is_never_gone_on_with_and_a_clear_starts_it_over(task, shop, how, choice):
    policy = {"resume_policy": {"on_change": choice}}
    shop.stopped(how, **policy)
    shop.name = "south"
    with pytest.raises(AirflowFailException, match=r"What the mapped task was given has changed .* clear the task to start over"):
        getattr(shop, how)(**policy)
    task.clear()
    getattr(shop, how)(**policy)
    assert [row for name, row in shop.rows if name == "south"] == list(range(10))


def test_the_token_of_another_item_is_another_one(task, shop):
    with task.checkpoint() as checkpoint:
        first = checkpoint.token
        next(checkpoint.items(range(10)))
    shop.name = "south"
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.items(range(10)):
            assert checkpoint.token != first


# -- work that its function only begins -------------------------------------------------------------------------------


def generator(item):
    yield item


async def async_generator(item):
    yield item


POOL = concurrent.futures.ThreadPoolExecutor(1)


def future(item):
    return POOL.submit(lambda: None)


def result_of_a_pool(item):
    pool = multiprocessing.pool.ThreadPool(1)
    try:
        return pool.apply_async(len, ([],))
    finally:
        pool.close()


async def coroutine_of_a_generator(item):
    return generator(item)


BEGUN = [
    generator,
    async_generator,
    future,
    result_of_a_pool,
    lambda item: map(str, [item]),
    lambda item: filter(None, [item]),
    lambda item: (one for one in item),
]


@pytest.mark.parametrize("work", BEGUN)
def test_an_item_whose_work_is_only_begun_by_a_thread_is_not_done(task, work):
    """A function with a ``yield`` in it does nothing when it is called."""
    with pytest.raises(AirflowFailException, match="nobody goes on with that"), task.checkpoint() as checkpoint:
        checkpoint.map(work, ITEMS, concurrency=2)
    assert task.run(ITEMS) == ITEMS


@pytest.mark.parametrize("work", [*BEGUN, coroutine_of_a_generator, lambda item: asyncio.to_thread(generator, item)])
def test_an_item_whose_work_is_only_begun_in_a_loop_is_not_done(task, work):
    with pytest.raises(AirflowFailException, match="nobody goes on with that"):
        amap(task, work, concurrency=2)
    assert task.run(ITEMS) == ITEMS


@pytest.mark.parametrize("answer", [None, 0, "", [], range(3), iter([]), {}.items(), object()])
def test_whatever_else_work_returns_is_of_no_interest(task, answer):
    with task.checkpoint() as checkpoint:
        checkpoint.map(lambda item: answer, ITEMS)
    assert task.data[KEY]["state"] == "done"


# -- what was given out is changed in place ---------------------------------------------------------------------------


def offsets(cursor):
    """As one writes it for the offsets of a topic."""
    first = cursor["at"]
    cursor["at"] += 10
    return list(range(first, first + 10)), cursor if first < 40 else None


KEPT_CURSOR = {"at": 0}


def offsets_that_fetch_keeps(cursor):
    KEPT_CURSOR["at"] = cursor["at"] + 10
    return list(range(cursor["at"], cursor["at"] + 10)), KEPT_CURSOR if cursor["at"] < 40 else None


async def offsets_of_a_coroutine(cursor):
    return offsets(cursor)


def worked_pages(task, fetch, stop_at=None):
    worked = []
    start = {"at": 0}

    def work(page):
        if page[0] == stop_at:
            raise WorkError
        worked.extend(page)

    async def run():
        async with task.checkpoint(every=1) as checkpoint:
            async for page in checkpoint.pages(fetch, start=start):
                work(page)

    try:
        if fetch is offsets_of_a_coroutine:
            asyncio.run(run())
        else:
            with task.checkpoint(every=1) as checkpoint:
                for page in checkpoint.pages(fetch, start=start):
                    work(page)
    except WorkError:
        pass
    assert start == {"at": 0}
    return worked


@pytest.mark.parametrize("stop_at", [0, 10, 40])
@pytest.mark.parametrize("fetch", [offsets, offsets_that_fetch_keeps, offsets_of_a_coroutine])
def test_a_page_whose_cursor_fetch_has_moved_on_in_place_is_not_done_before_it_is_worked(task, fetch, stop_at, caplog):
    assert worked_pages(task, fetch, stop_at) == list(range(stop_at))
    assert worked_pages(task, fetch) == list(range(stop_at, 50))
    assert "never ends" not in caplog.text


def taken_apart(batch):
    while batch:
        batch.pop()


def batches(task, is_async, each):
    async def run():
        async with task.checkpoint() as checkpoint:
            async for batch in checkpoint.batches(ITEMS, 7, ack="manual"):
                each(checkpoint, batch)

    if is_async:
        asyncio.run(run())
        return
    with task.checkpoint() as checkpoint:
        for batch in checkpoint.batches(ITEMS, 7, ack="manual"):
            each(checkpoint, batch)


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("change", [taken_apart, list.clear, list.reverse, lambda batch: batch.append("more")])
def test_a_batch_that_its_work_takes_apart_is_done_as_it_was_given(task, is_async, change):
    def each(checkpoint, batch):
        change(batch)
        checkpoint.done(batch)

    batches(task, is_async, each)
    assert task.data[KEY]["state"] == "done"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_batch_that_its_work_takes_apart_fails_as_it_was_given_and_the_last_word_counts(task, is_async):
    def each(checkpoint, batch):
        number = int(batch[0][1:])
        taken_apart(batch)
        checkpoint.done(batch)
        if number == 14:
            checkpoint.fail(batch, WorkError())

    with pytest.raises(ItemsFailedError, match="7 items"):
        batches(task, is_async, each)
    assert task.run(ITEMS) == ITEMS[14:21]


def test_a_plain_loops_batch_that_its_work_takes_apart_fails_as_it_was_given(task):
    with pytest.raises(ItemsFailedError, match="7 items"), task.checkpoint() as checkpoint:
        for batch in checkpoint.batches(ITEMS, 7):
            if batch[0] == "f014":
                batch.clear()
                checkpoint.fail(batch, WorkError())
    assert task.run(ITEMS) == ITEMS[14:21]


def test_an_empty_list_that_is_no_batch_is_an_error(task):
    with pytest.raises(AirflowFailException, match="no item of its loop|no key"), task.checkpoint() as checkpoint:
        for _ in checkpoint.batches(ITEMS, 7, ack="manual"):
            checkpoint.done([])


# -- what an error shows ----------------------------------------------------------------------------------------------

SECRET = "hunter2"
WITH_SECRET = {"host": "a", "password": SECRET}
SIGNED = f"https://bucket/a?X-Amz-Signature={SECRET}"
LOGIN = f"postgresql://me:{SECRET}@host/db"


@pytest.mark.parametrize(
    "run",
    [
        lambda task: task.run([WITH_SECRET]),
        lambda task: task.run([({"password": SECRET}, 1)]),
        lambda task: task.run([SIGNED, SIGNED]),
        lambda task: task.run([LOGIN, LOGIN]),
        lambda task: task.run(["a"], committed=lambda token: 5 if task.try_number > 9 else SIGNED),
        lambda task: task.run(["a"], committed=lambda token: [WITH_SECRET]),
        lambda task: worked_pages(task, lambda cursor: {"password": SECRET}),
        lambda task: worked_pages(task, lambda cursor: ("page", {"password": SECRET, "at": {1, 2}})),
        lambda task: worked_pages(task, lambda cursor: ("page", (SIGNED,))),
    ],
)
def test_no_error_of_an_argument_shows_what_is_secret_in_it(task, run):
    with pytest.raises(AirflowFailException) as caught:
        run(task)
    shown = "".join(str(one) for one in (caught.value, caught.value.__cause__))
    assert shown
    assert SECRET not in shown


def test_no_warning_of_what_committed_gave_shows_what_is_secret_in_it(task, caplog):
    task.run(["a"], committed=lambda token: [SIGNED])
    assert "are of no item" in caplog.text
    assert SECRET not in caplog.text
