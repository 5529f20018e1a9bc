"""What people really write with a `Checkpoint`: work that is handed on, failures in any order, a person's step, odd values."""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import json
import logging
import os
import random
import signal
import threading
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

from resumable import Checkpoint, ConfigurationError, ItemsFailedError, once
from resumable.checkpoint.done import KeyList
from tests.support.checkpointed import ITEMS, KEY, Task, WorkError, amap, stopped_task, task, until  # noqa: F401
from tests.support.names import AirflowFailException, AirflowRescheduleException

# ruff: noqa: F811

LIMIT = 65_535


def attempt(task, body, **arguments):
    """One attempt; what it worked, whatever became of it."""
    worked = []
    try:
        with task.checkpoint(**arguments) as checkpoint:
            body(checkpoint, worked)
    except (WorkError, ItemsFailedError, AirflowFailException) as e:
        return worked, e
    return worked, None


# -- whoever reads ahead ----------------------------------------------------------------------------------------------


def work(worked, item, bad="f030"):
    if item == bad:
        raise WorkError
    worked.append(item)


def listed(checkpoint, worked):
    for item in list(checkpoint.items(ITEMS)):
        work(worked, item)


def in_a_pool(checkpoint, worked):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: work(worked, item), checkpoint.items(ITEMS)))


def batches_of_a_pool(checkpoint, worked):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(lambda b: [work(worked, x) for x in b], batch) for batch in checkpoint.batches(ITEMS, 5)]:
            future.result()


@pytest.mark.parametrize("body", [listed, in_a_pool, batches_of_a_pool])
def test_who_reads_ahead_is_told_what_to_write_and_nothing_is_lost(task, body):
    worked, error = attempt(task, body)
    assert "takes the next item before the last one" in str(error)
    assert 'ack="manual"' in str(error)
    again = task.run(ITEMS)
    assert set(worked) | set(again) == set(ITEMS)
    assert again == ITEMS, "what was given out does not count as done"


def test_the_last_item_that_is_left_is_not_lost_either(task):
    task.stopped(ITEMS, 99)
    with pytest.raises(AirflowFailException, match="takes the next item"), task.checkpoint() as checkpoint:
        list(checkpoint.items(ITEMS))
    assert task.run(ITEMS) == ["f099"]


def test_pages_that_are_read_ahead_are_an_error(task):
    with pytest.raises(AirflowFailException, match="takes the next item"), task.checkpoint() as checkpoint:
        list(checkpoint.pages(lambda cursor: ([cursor], (cursor or 0) + 1 if (cursor or 0) < 5 else None)))
    assert task.data[KEY]["done"] == 0


def test_many_coroutines_of_async_for_are_told(task):
    async def run():
        async def one(item):
            await asyncio.sleep(0)

        async with task.checkpoint() as checkpoint:
            await asyncio.gather(*[one(item) async for item in checkpoint.items(ITEMS)])

    with pytest.raises(AirflowFailException, match="makes coroutines and does not await them takes"):
        asyncio.run(run())


# -- acknowledged by hand ---------------------------------------------------------------------------------------------


def test_with_ack_manual_exactly_what_was_acknowledged_is_done(task):
    """Futures, in the order in which they come to their end."""

    def body(checkpoint, worked):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            futures = {pool.submit(work, worked, item): item for item in checkpoint.items(ITEMS, ack="manual")}
            for future in concurrent.futures.as_completed(futures):
                if future.exception() is None:
                    checkpoint.done(futures[future])
                else:
                    checkpoint.fail(futures[future], future.exception())

    worked, error = attempt(task, body)
    assert isinstance(error, ItemsFailedError)
    assert len(worked) == 99
    assert task.run(ITEMS) == ["f030"]


def test_items_that_are_neither_done_nor_failed_are_never_taken_for_done(task):
    def forgets(checkpoint, worked):
        for number, item in enumerate(list(checkpoint.items(ITEMS, ack="manual"))):
            worked.append(item)
            if number % 2:
                checkpoint.done(item)

    _, error = attempt(task, forgets)
    assert "50 items of checkpoint 'files' were given out and are neither done nor failed" in str(error)
    assert task.run(ITEMS) == ITEMS[::2]


def test_all_acknowledged_is_complete(task):
    with task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS, ack="manual"):
            checkpoint.done(item)
        assert checkpoint.done == 100
    assert task.data[KEY]["state"] == "done"
    assert task.run(ITEMS) == []


def test_a_killed_worker_repeats_what_was_not_acknowledged(task):
    data = {}

    def body(checkpoint, worked):
        window = []
        for item in checkpoint.items(ITEMS, ack="manual"):
            window.append(item)
            if len(window) == 8:
                checkpoint.done(window.pop(0))
        data.update(json.loads(json.dumps(task.data)))  # the worker dies here
        for item in window:
            checkpoint.done(item)

    attempt(task, body, every=1)
    task.data.clear()
    task.data.update(data)
    assert task.run(ITEMS) == ITEMS[-7:]


def test_callbacks_in_many_threads_acknowledge_each_item_once(task):
    items = range(2000)
    with task.checkpoint(every=100) as checkpoint, concurrent.futures.ThreadPoolExecutor(16) as pool:
        for item in checkpoint.items(items, ack="manual"):
            pool.submit(lambda i: i, item).add_done_callback(lambda future: checkpoint.done(future.result()))
        pool.shutdown(wait=True)
    assert (task.data[KEY]["done"], task.data[KEY]["state"]) == (2000, "done")


def test_tasks_of_a_coroutine_are_acknowledged(task):
    context = task.context()
    threads = set()
    context["task_state_store"]._effects.listener = lambda _: threads.add(threading.current_thread())

    async def run():
        async with Checkpoint("files", context=context, every=10) as checkpoint:

            async def one(item):
                await asyncio.sleep(0)
                checkpoint.done(item)

            await asyncio.gather(*[one(item) async for item in checkpoint.items(ITEMS, ack="manual")])

    asyncio.run(run())
    assert task.data[KEY]["state"] == "done"
    assert threading.main_thread() not in threads, "a request in the loop's thread"


def test_batches_are_acknowledged_as_a_whole(task):
    def body(checkpoint, worked):
        for batch in list(checkpoint.batches(ITEMS, 30, ack="manual")):
            worked += batch
            if "f030" not in batch:
                checkpoint.done(batch)

    _, error = attempt(task, body)
    assert "30 items" in str(error)
    assert task.run(ITEMS) == ITEMS[30:60]


def test_the_last_word_on_an_item_counts(task):
    with pytest.raises(ItemsFailedError, match="1 items"), task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS, ack="manual"):
            checkpoint.done(item)
        checkpoint.fail("f001", WorkError())
        checkpoint.fail("f002", WorkError())
        checkpoint.done("f002")
    assert task.run(ITEMS) == ["f001"]


@pytest.mark.parametrize("what", ["done", "fail"])
def test_an_item_of_another_list_is_an_error(task, what):
    with pytest.raises(AirflowFailException, match="no item of its loop"), task.checkpoint() as checkpoint:
        for _ in checkpoint.items(ITEMS, ack="manual"):
            checkpoint.done("elsewhere") if what == "done" else checkpoint.fail("elsewhere", WorkError())


@pytest.mark.parametrize("seed", range(30))
def test_done_and_fail_in_any_order_leave_exactly_what_was_said_last(seed):
    draw, task = random.Random(seed), Task()
    ack = draw.choice(["auto", "manual"])
    says = [(draw.choice(ITEMS), draw.choice(["done", "fail"])) for _ in range(150)]
    last = {} if ack == "manual" else dict.fromkeys(ITEMS, "done")

    def body(checkpoint, worked):
        todo = list(says)
        for item in checkpoint.items(ITEMS, ack=ack):
            worked.append(item)
        for item, word in todo:
            checkpoint.done(item) if word == "done" else checkpoint.fail(item, WorkError())
            last[item] = word

    attempt(task, body, every=draw.choice([1, 7, 1000]))
    assert task.run(ITEMS) == [item for item in ITEMS if last.get(item) != "done"]


# -- failures in any order --------------------------------------------------------------------------------------------


def test_items_that_fail_after_the_loop_fail_the_task_and_are_worked_again(task):
    with pytest.raises(ItemsFailedError, match=r"2 items.*98 are done"), task.checkpoint() as checkpoint:
        for _ in checkpoint.items(ITEMS):
            pass
        checkpoint.fail("f010", WorkError())
        checkpoint.fail("f090", WorkError())
    assert task.data[KEY]["state"] == "running"
    assert task.run(ITEMS) == ["f010", "f090"]


def test_a_failure_told_within_the_loop_keeps_no_other_from_being_told_after_it(task):
    with pytest.raises(ItemsFailedError, match=r"2 items.*98 are done"), task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f010":
                checkpoint.fail(item, WorkError())
        checkpoint.fail("f090", WorkError())
    assert task.run(ITEMS) == ["f010", "f090"]


def test_an_item_that_fails_one_late_is_the_one_that_is_worked_again(task):
    def body(checkpoint, worked):
        before = None
        for item in checkpoint.items(ITEMS):
            if before == "f030":
                checkpoint.fail(before, WorkError())
            before = item

    attempt(task, body)
    assert task.run(ITEMS) == ["f030"]


def test_a_failure_is_not_forgotten_when_the_loop_is_left_early(task):
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f001":
                checkpoint.fail(item, WorkError())
            if item == "f005":
                break
    assert task.run(ITEMS) == ["f001", *ITEMS[5:]]


def test_an_item_of_an_earlier_batch_fails_alone_and_the_one_under_way_as_a_whole(task):
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for batch in checkpoint.batches(ITEMS, 10):
            if batch[0] == "f050":
                checkpoint.fail("f003", WorkError())
            if batch[0] == "f060":
                checkpoint.fail(batch, WorkError())
    assert task.run(ITEMS) == ["f003", *ITEMS[60:70]]


def test_a_loop_that_is_left_early_says_how_much_is_left(task, caplog):
    with task.checkpoint() as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f005":
                break
    assert "left before its end: 5 of 100 done" in caplog.text


# -- map --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["with", "async with"])
def test_map_works_a_plain_function_in_as_many_threads_as_told_and_goes_on(task, kind):
    worked, threads, gate, broken = Counter(), set(), threading.Barrier(5, timeout=20), [True]

    def load(item):
        worked[item] += 1
        threads.add(threading.current_thread().name)
        if len(worked) <= 5:
            gate.wait()
        if item == "f050" and broken:
            raise WorkError

    def run():
        if kind == "async with":
            amap(task, load, concurrency=5, on_error="collect")
        else:
            with task.checkpoint() as checkpoint:
                checkpoint.map(load, ITEMS, concurrency=5, on_error="collect")

    with pytest.raises(ItemsFailedError, match=r"1 items.*f050"):
        run()
    assert len(threads) == 5
    broken.clear()
    run()
    assert {item for item, times in worked.items() if times > 1} == {"f050"}
    assert set(worked) == set(ITEMS)


@pytest.mark.parametrize("kind", ["with", "async with"])
def test_an_item_that_its_work_calls_failed_is_not_done(task, kind):
    opened = []

    def load(item):
        if item == "f007":
            opened[0].fail(item, WorkError())

    async def run():
        async with task.checkpoint() as checkpoint:
            opened.append(checkpoint)
            await checkpoint.map(load, ITEMS, on_error="collect")

    with pytest.raises(ItemsFailedError, match="f007"):
        if kind == "async with":
            asyncio.run(run())
        else:
            with task.checkpoint() as checkpoint:
                opened.append(checkpoint)
                checkpoint.map(load, ITEMS, on_error="collect")
    assert task.run(ITEMS) == ["f007"]


def test_map_in_threads_stops_at_a_failure_or_tries_again(task):
    worked = Counter()

    def load(item):
        worked[item] += 1
        if item == "f020":
            raise WorkError
        if item > "f020":  # by the other thread, which may be much quicker than the note of the failure
            until(lambda: checkpoint._block.progress.failed)

    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        checkpoint.map(load, ITEMS, concurrency=2)
    assert len(worked) <= 22
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        checkpoint.map(load, ITEMS, concurrency=2, tries=2)
    assert worked["f020"] == 3
    assert max(times for item, times in worked.items() if item != "f020") <= 2


@pytest.mark.parametrize("kind", ["with", "async with"])
def test_work_that_wants_no_other_try_ends_all_also_if_the_others_let_no_cancel_through(task, kind):
    begun = []

    async def swallows(item):
        begun.append(item)
        if item == "f003":
            raise AirflowFailException("the bucket is gone")
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)

    breaks = []

    def load(item):
        begun.append(item)
        if item == "f003":
            breaks.append(threading.current_thread())
            raise AirflowFailException("the bucket is gone")
        if item > "f003":  # by the other thread, which may be much quicker than the end of this one
            until(lambda: breaks)
            breaks[0].join(20)

    with pytest.raises(AirflowFailException, match="the bucket is gone"):
        if kind == "async with":
            amap(task, swallows, concurrency=5, on_error="collect")
        else:
            with task.checkpoint() as checkpoint:
                checkpoint.map(load, ITEMS, concurrency=2, on_error="collect")
    assert len(begun) < 40


@pytest.mark.parametrize("how", ["a generator", "an async generator", "an async iterator"])
def test_items_of_a_coroutine_may_come_from_any_iterator(task, how):
    class Lister:
        def __init__(self):
            self.left = iter(ITEMS)

        def __aiter__(self):
            return self

        async def __anext__(self):
            try:
                return next(self.left)
            except StopIteration:
                raise StopAsyncIteration from None

    async def listing():
        for item in ITEMS:
            await asyncio.sleep(0)
            yield item

    def source():
        return {"a generator": (item for item in ITEMS), "an async generator": listing(), "an async iterator": Lister()}[how]

    worked = []

    async def one(item):
        worked.append(item)
        if len(worked) == 30:
            raise WorkError

    with pytest.raises(ItemsFailedError):
        amap(task, one, items=source(), concurrency=1)

    async def loop():
        async with task.checkpoint() as checkpoint:
            async for item in checkpoint.items(source()):
                worked.append(item)

    asyncio.run(loop())
    assert Counter(worked) == Counter([*ITEMS, "f029"])


def test_an_async_iterator_in_a_plain_block_and_a_text_are_told_what_to_write(task):
    async def listing():
        yield "a"

    for items, words in ((listing(), "async with"), ("abc", "one text"), (5, "no list")):
        with pytest.raises(AirflowFailException, match=words), task.checkpoint() as checkpoint:
            for _ in checkpoint.items(items):
                pytest.fail("worked")


def test_a_map_that_is_not_awaited_is_an_error_not_a_green_task(task):
    async def one(item): ...

    async def run():
        async with task.checkpoint() as checkpoint:
            checkpoint.map(one, ITEMS)

    with pytest.warns(RuntimeWarning, match="never awaited"), pytest.raises(AirflowFailException, match="not awaited"):
        asyncio.run(run())


def test_a_map_whose_error_was_caught_says_what_is_left_and_no_more(task, caplog):
    async def one(item):
        await asyncio.sleep(30)

    async def run():
        async with task.checkpoint() as checkpoint:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(checkpoint.map(one, ITEMS), 0.05)

    asyncio.run(run())
    assert "left before its end: 0 of 100 done" in caplog.text


def test_a_coroutine_function_in_a_plain_block_is_told_to_be_async(task):
    async def one(item): ...

    with pytest.raises(AirflowFailException, match="async with"), task.checkpoint() as checkpoint:
        checkpoint.map(one, ITEMS)


@pytest.mark.parametrize("slow", [False, True])
def test_an_eviction_within_map_in_threads_hands_back_and_loses_nothing(stopped_task, slow):
    task, worked, hold, opened = stopped_task, [], threading.Event(), []

    def load(item):
        if item == "f030" and task.try_number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if item >= "f030" and task.try_number == 1:
            until(lambda: opened[0]._block.is_stopping)
            hold.wait(20 if slow and item == "f030" else 0)
        worked.append(item)

    try:
        with pytest.raises(AirflowRescheduleException), task.checkpoint() as checkpoint:
            opened.append(checkpoint)
            checkpoint.map(load, ITEMS, concurrency=3)
    finally:
        hold.set()
    until(lambda: not any(one.name.startswith("resumable-map") for one in threading.enumerate()))
    assert len(worked) < 100
    with task.checkpoint() as checkpoint:
        checkpoint.map(load, ITEMS, concurrency=3)
    assert set(worked) == set(ITEMS)


# -- a person steps in ------------------------------------------------------------------------------------------------


def edited():
    return 1


@pytest.mark.parametrize("step", ["clear", "edit"])
def test_by_default_a_persons_step_keeps_what_is_done_and_the_log_says_the_word_for_the_other(task, caplog, step):
    caplog.set_level(logging.INFO)

    def person():
        if step == "clear":
            task.clear()
        else:
            task.code = edited if task.code is not edited else lambda: None

    setting = {"clear": "on_clear", "edit": "on_change"}[step]
    task.stopped(ITEMS, 42)
    token = task.data[KEY]["token"]
    person()
    assert task.run(ITEMS) == ITEMS[42:]
    assert task.data[KEY]["token"] == token
    assert "42 items stay done" in caplog.text
    assert f"resume_policy={{'{setting}': 'restart'}}" in caplog.text
    assert ("done with other code" in caplog.text) == (step == "edit")
    caplog.clear()
    person()
    assert task.run(ITEMS) == ITEMS, "all was done"
    assert f"resume_policy={{'{setting}': 'reattach'}}" in caplog.text
    assert task.data[KEY]["token"] != token


def test_another_spec_is_other_work_and_an_old_record_without_one_goes_on(task):
    task.stopped(ITEMS, 42)
    del task.data[KEY]["given"]  # as an earlier release wrote it
    task.code = edited
    task.stopped(ITEMS, 8)
    assert task.data[KEY]["done"] == 50
    assert task.run(ITEMS, spec="v2") == ITEMS


def test_a_change_that_is_refused_starts_over_once_the_task_is_cleared_as_the_error_says(task):
    task.stopped(ITEMS, 42)
    task.code = edited
    with pytest.raises(AirflowFailException, match="clear the task to start over"):
        task.run(ITEMS, resume_policy={"on_change": "fail"})
    task.clear()
    assert task.run(ITEMS, resume_policy={"on_change": "fail"}) == ITEMS


def test_the_airflow_cfg_that_airflow_writes_itself_chooses_nothing(task, monkeypatch):
    """It holds every option with its default."""
    options = {"on_clear": "restart", "on_change": "restart"}
    monkeypatch.setattr("resumable.host.config.setting", options.get)
    task.stopped(ITEMS, 42)
    task.clear()
    assert task.run(ITEMS[:50]) == ITEMS[42:50]
    task.stopped(ITEMS, 10)
    options["on_clear"] = "reattach"
    task.clear()
    assert task.run(ITEMS[:60]) == []


def test_what_airflow_cfg_chooses_counts(task, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ON_CLEAR", "restart")
    task.stopped(ITEMS, 42)
    task.clear()
    assert task.run(ITEMS) == ITEMS


@pytest.mark.parametrize("committed", [False, True])
def test_a_siblings_clear_neither_restarts_a_finished_checkpoint_nor_changes_its_token(task, committed):
    """A task of two stages: the second one fails, somebody clears another task of the run, the retry."""
    target, worked = {}, []
    more = {"committed": lambda token: target.get(token, ())} if committed else {}

    def run(fails):
        context = task.context()
        with Checkpoint("files", context=context, **more) as first:
            for item in first.items(ITEMS):
                target.setdefault(first.token, []).append(item)
                worked.append(item)
        with Checkpoint("second", context=context) as second:
            for item in second.items(ITEMS):
                if fails and item == "f050":
                    raise WorkError

    with pytest.raises(WorkError):
        run(fails=True)
    task.clears += 1
    run(fails=False)
    assert worked == ITEMS
    assert len(target) == 1


# -- the store is never the bottleneck --------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""
    clock, setting = SimpleNamespace(now=1000.0), Checkpoint._setting
    monkeypatch.setattr(Checkpoint, "_setting", lambda self, task: replace(setting(self, task), clock=lambda: clock.now))
    return clock


@pytest.mark.parametrize("takes", [0.001, 0.015, 0.1, 2.0])
@pytest.mark.parametrize("each", [0.0001, 0.001, 0.01])
def test_writing_takes_a_twentieth_of_the_time_and_three_writes_whatever_the_store(task, clock, takes, each):
    context, waited = task.context(), []

    def slow(call):
        if call == "store.set":
            clock.now += takes
            waited.append(takes)

    context["task_state_store"]._effects.listener = slow
    count = 20_000
    with Checkpoint("files", context=context) as checkpoint:
        for _ in checkpoint.items(range(count)):
            clock.now += each
    assert sum(waited) <= count * each / 20 + 3 * takes


def test_an_every_of_ones_own_is_kept_to_whatever_it_takes(task, clock):
    context = task.context()

    def slow(call):
        clock.now += 5

    context["task_state_store"]._effects.listener = slow
    with pytest.raises(WorkError), Checkpoint("files", context=context, every=1) as checkpoint:
        for item in checkpoint.items(ITEMS):
            if item == "f007":
                assert task.data[KEY]["done"] == 7
                raise WorkError


@pytest.mark.parametrize(("before", "after"), [(100, 100_000), (4000, 100_000), (1000, 1_000_000)])
def test_a_list_that_grows_between_two_tries_is_kept_in_a_value_of_its_limit_and_loses_nothing(task, before, after):
    task.stopped([f"{n:08}" for n in range(before)], before // 2, every=10**9)
    with pytest.raises(WorkError), task.checkpoint(every=10**9) as checkpoint:
        for item in checkpoint.items([f"{n:08}" for n in range(after)]):
            assert item == f"{before // 2:08}", "the first that is not done"
            raise WorkError
    assert max(len(json.dumps(value)) for value in task.data.values()) <= LIMIT
    with pytest.raises(WorkError), task.checkpoint(every=10**9) as checkpoint:
        for item in checkpoint.items([f"{n:08}" for n in range(after)]):
            assert item == f"{before // 2:08}"
            raise WorkError


def test_names_of_failed_items_never_make_a_value_too_large(task):
    items = ["\u00e4" * 3000 + str(n) for n in range(50)]
    with pytest.raises(ItemsFailedError), task.checkpoint() as checkpoint:
        for item in checkpoint.items(items):
            checkpoint.fail(item, WorkError())
    assert len(json.dumps(task.data[KEY])) < 1500


# -- keys as they come ------------------------------------------------------------------------------------------------


class Colour(str, enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (Decimal(5), 5),
        (5.0, 5),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (PurePosixPath("/a/b"), "/a/b"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=timezone.utc), "2026-01-02T00:00:00+00:00"),
        (Colour.RED, "red"),
        ((Decimal(5), date(2026, 1, 2)), (5, "2026-01-02")),
    ],
)
def test_what_a_database_gives_for_a_key_is_that_key(task, given, plain):
    assert task.run([given]) == [given]
    assert task.run([plain]) == []


def test_a_text_that_shows_less_than_it_is_is_known_by_what_it_is(task):
    class Masked(str):
        def __str__(self):
            return "***"

    items = [Masked(item) for item in ITEMS]
    task.stopped(items, after=30)
    assert task.run(ITEMS) == ITEMS[30:]


def test_keys_of_numpy_and_pandas_are_what_a_person_takes_them_for(task):
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    task.run([numpy.int64(1), numpy.str_("a"), numpy.float64(7), pandas.Timestamp("2026-01-02"), numpy.datetime64("2026-01-03")])
    assert task.run([1, "a", 7, "2026-01-02T00:00:00", "2026-01-03"]) == []
    for missing in (numpy.nan, pandas.NaT, pandas.NA, None, numpy.bool_(True), Decimal("sNaN")):
        with pytest.raises(AirflowFailException, match="no key"):
            Task().run([missing])


def test_keys_that_the_target_gives_in_another_type_are_known(task):
    assert task.run(range(100), committed=lambda token: [Decimal(n) for n in range(50)]) == list(range(50, 100))


def test_keys_that_the_target_knows_and_the_list_does_not_are_warned_of(task, caplog):
    task.run(range(100), committed=lambda token: [str(n) for n in range(50)])
    assert "50 of the 50 keys that committed() returned are of no item" in caplog.text
    assert "of other types" in caplog.text


def test_committed_with_pages_is_an_error(task):
    opened = task.checkpoint(committed=lambda token: ())
    with pytest.raises(AirflowFailException, match="committed= is of items"), opened as checkpoint:
        for _ in checkpoint.pages(lambda cursor: ([1], None)):
            pytest.fail("worked")


def test_pairs_in_their_natural_order_are_in_order():
    assert KeyList([("2026-01-01", n) for n in range(2000)], limit=LIMIT).is_sorted
    assert KeyList([(1, "a"), (1, "b"), (2,)], limit=LIMIT).is_sorted


def test_one_odd_key_in_a_long_list_moves_no_other(task):
    task.stopped(range(100_000), 99_000, every=10**9)
    assert len(task.run([*range(100_000), "extra"], every=10**9)) < 1100


def test_a_list_of_pairs_that_an_earlier_release_kept_is_known_again_in_its_order(task):
    """It put them in the order of their texts."""
    pairs = [("d", n) for n in range(100)]
    task.stopped(pairs, 42)
    by_text = KeyList(pairs, limit=LIMIT, by_text=True)
    flags = sorted(by_text.rank(position) for position in range(42))
    kept = {key: value for key, value in task.data[KEY].items() if key not in ("order", "given")}
    task.data.clear()
    task.data[KEY] = {**kept, "items": by_text.fingerprint, "ranges": ",".join(map(str, flags))}
    task.data[f"{KEY}.items.{by_text.fingerprint}"] = {"version": 1, **by_text.to_json()}
    with pytest.raises(WorkError), task.checkpoint() as checkpoint:
        for item in checkpoint.items([*pairs, ("e", 1)]):
            assert item == ("d", 42)
            raise WorkError
    assert task.run([*pairs, ("e", 1)]) == [*pairs[42:], ("e", 1)]


def test_keys_that_change_with_every_try_are_warned_of(task, caplog):
    task.stopped([f"https://files/{n}?sig=1" for n in range(100)], 90)
    task.run([f"https://files/{n}?sig=2" for n in range(100)])
    assert "0 of the 90 that were done are known again" in caplog.text
    assert [r.levelname for r in caplog.records if "known again" in r.message] == ["WARNING"]


# -- secrets ----------------------------------------------------------------------------------------------------------


class File:
    def __init__(self, path, api_key):
        self.path, self.api_key = path, api_key


@pytest.mark.parametrize(
    ("item", "key", "name"),
    [
        ({"id": 1, "password": "hunter2"}, lambda one: one["id"], "1"),
        (File("a/b", "hunter2"), lambda one: one.path, "a/b"),
        ("https://bucket/key.csv?X-Amz-Signature=hunter2&x=1", None, "https://bucket/key.csv?…"),
        ("postgres://user:hunter2@host/db", None, "postgres://***@host/db"),
    ],
)
def test_of_a_failed_item_the_key_is_named_and_no_secret(task, caplog, item, key, name):
    with pytest.raises(ItemsFailedError) as raised, task.checkpoint() as checkpoint:
        for one in checkpoint.items([item], key=key):
            what = vars(one) if isinstance(one, File) else one
            checkpoint.fail(one, WorkError(f"could not load {what}"))
    said = caplog.text + str(raised.value) + repr(raised.value.__cause__) + json.dumps(task.data)
    assert "hunter2" not in said
    assert name in caplog.text
    assert task.data[KEY]["failed_items"] == [name]


# -- wrong arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Checkpoint("a b"),
        lambda: Checkpoint("files", seconds=-1),
        lambda: Checkpoint("files", every=0),
        lambda: Checkpoint("files", committed=[1]),
        lambda: Checkpoint("files", resume_policy={"on_clear": "sometimes"}),
        lambda: Checkpoint("files").batches([1], 0),
        lambda: Checkpoint("files").items([1], ack="maybe"),
        lambda: Checkpoint("files").items([1], key="path"),
        lambda: Checkpoint("files").batches([1], 2, key="path"),
        lambda: Checkpoint("files").pages([1, 2]),
        lambda: Checkpoint("files", seconds=10**400),
        lambda: once("a b", dict),
    ],
)
def test_a_wrong_argument_fails_the_task_without_its_retries(wrong):
    with pytest.raises(AirflowFailException) as raised:
        wrong()
    assert isinstance(raised.value, ConfigurationError)


@pytest.mark.parametrize("context", [{}, {"a": 1}, "context", 5, ()])
@pytest.mark.parametrize(
    "use", [lambda given: Checkpoint("files", context=given).__enter__(), lambda given: once("c", dict, context=given)]
)
def test_what_is_no_context_of_a_task_is_an_error_that_says_so(use, context):
    with pytest.raises(AirflowFailException, match="is no context of a task. Nothing was done. Leave context= out"):
        use(context)


def test_a_key_that_cannot_be_called_is_an_error_of_map_before_any_work(task):
    with pytest.raises(AirflowFailException, match="key='path' cannot be called"), task.checkpoint() as checkpoint:
        checkpoint.map(lambda item: pytest.fail("worked"), [1], key="path")


@pytest.mark.parametrize("answer", [None, "page", 5, ("page",), ("page", 1, 2)])
def test_a_fetch_that_returns_no_page_with_a_cursor_is_told_what_to_return(task, answer):
    told = r"fetch returned .* which is no pair.*a page and the next one's cursor"
    with pytest.raises(AirflowFailException, match=told), task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(lambda _: answer):
            pass


def test_a_fetch_that_is_a_coroutine_function_in_a_plain_loop_is_told_how_to_write_it(task):
    async def fetch(cursor):
        return "page", None

    told = "fetch is a coroutine function, and the loop a plain one.*async with"
    with pytest.raises(AirflowFailException, match=told), task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(fetch):
            pass


def test_a_plain_fetch_serves_an_async_for(task):
    async def run():
        pages = []
        async with task.checkpoint() as checkpoint:
            async for page in checkpoint.pages(lambda cursor: ("first", 1) if cursor is None else ("last", None)):
                pages.append(page)
        return pages

    assert asyncio.run(run()) == ["first", "last"]


@pytest.mark.parametrize("answer", [None, 5, "a,b", b"ab"])
def test_a_committed_that_returns_no_keys_is_told_what_to_return(task, answer):
    told = r"committed\(\) returned .*, which are no keys.*an empty list for none"
    with pytest.raises(AirflowFailException, match=told), task.checkpoint(committed=lambda token: answer) as checkpoint:
        for _ in checkpoint.items(["a", "b"]):
            pytest.fail("worked")


def test_a_service_that_gives_the_same_cursor_again_is_warned_of(task, caplog):
    answers = iter([("page", 1), ("page", 1), ("page", None)])
    with task.checkpoint() as checkpoint:
        for _ in checkpoint.pages(lambda cursor: next(answers)):
            pass
    assert "the cursor that it was called with" in caplog.text


# -- groups of errors, and next() -------------------------------------------------------------------------------------


class Group(Exception):
    """As `ExceptionGroup`, which Python 3.10 has not, and anyio's for it."""

    def __init__(self, *exceptions):
        super().__init__("unhandled errors in a TaskGroup")
        self.exceptions = exceptions


@pytest.mark.parametrize("is_async", [False, True])
def test_what_wants_no_other_try_is_raised_as_itself_also_out_of_a_task_group(task, is_async):
    """Airflow looks at the type of what a task raises, and would retry a group."""
    group = Group(WorkError("one"), Group(AirflowFailException("the bucket is gone")))

    def plain():
        with task.checkpoint() as checkpoint:
            for item in checkpoint.items(ITEMS):
                if item == "f030":
                    raise group

    async def coroutine():
        async with task.checkpoint() as checkpoint:
            async for item in checkpoint.items(ITEMS):
                if item == "f030":
                    raise group

    with pytest.raises(AirflowFailException, match="the bucket is gone"):
        asyncio.run(coroutine()) if is_async else plain()
    assert task.data[KEY]["done"] == 30


def test_a_group_of_ordinary_errors_stays_a_group(task):
    with pytest.raises(Group), task.checkpoint() as checkpoint:
        for _ in checkpoint.items(ITEMS):
            raise Group(WorkError(), WorkError())


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="Python 3.11 or later")
def test_tasks_of_a_group_that_read_ahead_fail_the_task_at_once_with_the_words_for_it(task):
    async def work(item):
        await asyncio.sleep(0)

    async def run():
        async with task.checkpoint() as checkpoint, asyncio.TaskGroup() as group:
            async for item in checkpoint.items(ITEMS):
                group.create_task(work(item))

    with pytest.raises(AirflowFailException, match=r"create_task\(\) in a loop takes the next item"):
        asyncio.run(run())


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="Python 3.11 or later")
def test_an_eviction_hands_back_also_out_of_a_task_group(stopped_task):
    task, worked = stopped_task, []

    async def work(checkpoint, item):
        await asyncio.sleep(0.005)
        worked.append(item)
        checkpoint.done(item)
        if len(worked) == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    async def run():
        slots = asyncio.Semaphore(3)
        async with task.checkpoint() as checkpoint, asyncio.TaskGroup() as group:
            async for item in checkpoint.items(ITEMS, ack="manual"):
                async with slots:
                    await asyncio.sleep(0.01)
                group.create_task(work(checkpoint, item))

    with pytest.raises(AirflowRescheduleException):
        asyncio.run(run())
    assert set(worked) | set(task.run(ITEMS)) == set(ITEMS)


def test_next_takes_one_item_after_the_other_as_of_any_iterator(task):
    worked = []
    with task.checkpoint() as checkpoint:
        items = checkpoint.items(ITEMS)
        first = next(items)
        worked.append(first)
        while (item := next(items, None)) is not None:
            worked.append(item)
    assert worked == ITEMS
    assert task.data[KEY]["state"] == "done"
    assert not task.run(ITEMS)


def test_after_next_a_loop_goes_on(task):
    with task.checkpoint() as checkpoint:
        pages = checkpoint.pages(lambda cursor: (cursor or 0, (cursor or 0) + 1 if (cursor or 0) < 5 else None))
        worked = [next(pages)]
        for page in pages:
            worked.append(int(page))
    assert worked == [0, 1, 2, 3, 4, 5]
