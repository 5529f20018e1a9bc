"""
Whoever takes the next item before the last one can have been worked is recognised; a loop that works its items never is.

Needs no Airflow and no pytest, so that every Python can be asked: ``python3.13 tests/unit/checkpoint/test_read_ahead.py``.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import concurrent.futures
import contextlib
import functools
import gc
import heapq
import importlib.util
import io
import itertools
import multiprocessing.pool
import operator
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

if __name__ == "__main__":
    for name in ("resumable", "resumable.checkpoint"):  # without what these import
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(Path(__file__).parents[3] / name.replace(".", "/"))]

from resumable.checkpoint.read_ahead import Watch

ITEMS = [f"item {number}" for number in range(20)]


class ReadAheadError(Exception):
    pass


class Items:
    """As `resumable.checkpoint.Items`, without the rest."""

    def __init__(self, items=ITEMS):
        self.items, self.given, self.watch = items, [], Watch()

    def __iter__(self):
        self.watch = watch = Watch()
        generator = self._each(watch)
        watch.is_of(generator)
        return generator

    def __length_hint__(self):
        self.watch.hinted(sys._getframe(1))
        return NotImplemented

    def _each(self, watch):
        watch.begins(sys._getframe(1))
        for item in self.items:
            self.given.append(item)
            yield item
            if not watch.is_over and (found := watch.asked(item, sys._getframe(1))):
                raise ReadAheadError(found)

    async def __aiter__(self):
        watch = Watch()
        for item in self.items:
            self.given.append(item)
            yield item
            if not watch.is_over and (found := watch.asked(item, sys._getframe(1))):
                raise ReadAheadError(found)


AHEAD, FINE = {}, {}


def ahead(function):
    AHEAD[function.__name__] = function
    return function


def fine(function):
    FINE[function.__name__] = function
    return function


def coroutine(kind):
    """The case is a coroutine function."""

    def wrapped(function):
        @functools.wraps(function)
        def run(items, work):
            return asyncio.run(function(items, work))

        return kind(run)

    return wrapped


# -- read ahead -------------------------------------------------------------------------------------------------------


@ahead
def list_(items, work):
    for item in list(items):
        work(item)


@ahead
def a_local_name_of_list(items, work):
    everything = list
    for item in everything(items):
        work(item)


@ahead
def sorted_(items, work):
    for item in sorted(items, key=lambda item: item[::-1], reverse=True):
        work(item)


@ahead
def tuple_(items, work):
    for item in tuple(items):
        work(item)


@ahead
def set_(items, work):
    for item in set(items):
        work(item)


@ahead
def dict_of_enumerate(items, work):
    for item in dict(enumerate(items)).values():
        work(item)


@ahead
def deque_(items, work):
    for item in collections.deque(items):
        work(item)


@ahead
def list_of_an_iterator(items, work):
    for item in list(iter(items)):
        work(item)


@ahead
def list_with_conditions_in_its_argument(items, work):
    for item in list(items if items else ()):
        work(item)


@ahead
def star_in_a_list(items, work):
    for item in [*items]:
        work(item)


@ahead
def star_in_a_call(items, work):
    def run(*several):
        for item in several:
            work(item)

    run(*items)


@ahead
def star_after_another_argument(items, work):
    def run(first, *several):
        for item in several:
            work(item)

    run(1, *items)


@ahead
def star_in_an_assignment(items, work):
    first, *others = items
    for item in [first, *others]:
        work(item)


@ahead
def extend(items, work):
    todo = []
    todo.extend(items)
    for item in todo:
        work(item)


@ahead
def in_place_add(items, work):
    todo = []
    todo += items
    for item in todo:
        work(item)


@ahead
def islice_in_batches(items, work):
    asked = iter(items)
    while batch := list(itertools.islice(asked, 5)):
        for item in batch:
            work(item)


def batches_of(iterable, size):
    asked = iter(iterable)
    while batch := tuple(itertools.islice(asked, size)):
        yield batch


@ahead
def islice_in_a_helper(items, work):
    for batch in batches_of(items, 5):
        for item in batch:
            work(item)


if hasattr(itertools, "batched"):

    @ahead
    def batched(items, work):
        for batch in itertools.batched(items, 5):
            for item in batch:
                work(item)

    @ahead
    def batched_of_enumerate(items, work):
        for batch in itertools.batched(enumerate(items), 5):
            for _, item in batch:
                work(item)


@ahead
def list_of_a_group(items, work):
    for _, group in itertools.groupby(items, key=lambda item: item[:6]):
        for item in list(group):
            work(item)


@ahead
def groups_in_a_dict(items, work):
    groups = {name: sorted(group) for name, group in itertools.groupby(items, key=lambda item: item[:6])}
    for group in groups.values():
        for item in group:
            work(item)


@ahead
def star_of_a_group(items, work):
    for _, group in itertools.groupby(enumerate(items), key=lambda pair: pair[0] // 5):
        for _, item in [*group]:
            work(item)


@ahead
def pairwise(items, work):
    for item, following in itertools.pairwise(items):
        work(item)
        if following == ITEMS[-1]:
            work(following)


@ahead
def zip_of_one_iterator_several_times(items, work):
    for batch in zip(*[iter(items)] * 5, strict=True):
        for item in batch:
            work(item)


@ahead
def a_queue(items, work):
    todo = queue.Queue()
    for item in items:
        todo.put(item)
    while not todo.empty():
        work(todo.get())


@ahead
def threads_of_ones_own(items, work):
    threads = []
    for item in items:
        thread = threading.Thread(target=work, args=(item,))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


@ahead
def threads_that_nobody_keeps(items, work):
    for item in items:
        threading.Thread(target=work, args=(item,)).start()


@ahead
def a_multiprocessing_pool_of_threads(items, work):
    with multiprocessing.pool.ThreadPool(4) as pool:
        pool.map(work, items)


@ahead
def imap(items, work):
    with multiprocessing.pool.ThreadPool(4) as pool:
        for _ in pool.imap(work, items):
            pass


@ahead
def apply_async(items, work):
    with multiprocessing.pool.ThreadPool(4) as pool:
        for answer in [pool.apply_async(work, (item,)) for item in items]:
            answer.get()


@ahead
def list_of_a_generator_that_submits(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in list(pool.submit(work, item) for item in items):
            future.result()


@ahead
def list_of_a_generator_that_only_hands_on(items, work):
    for item in list(item for item in items):
        work(item)


@ahead
def list_of_a_generator_that_only_filters(items, work):
    for item in list(item for item in items if item and item > "a"):
        work(item)


@ahead
def list_through_yield_from(items, work):
    def handed_on():
        yield from items

    for item in list(handed_on()):
        work(item)


@ahead
def pool_map(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in pool.map(work, items):
            pass


@ahead
def submit_in_a_comprehension(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, item) for item in items]:
            future.result()


@ahead
def submit_in_a_comprehension_of_a_dict(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = {pool.submit(work, item): item for item in items}
        for future in concurrent.futures.as_completed(futures):
            future.result()


@ahead
def submit_in_a_loop(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = []
        for item in items:
            futures.append(pool.submit(work, item))
        for future in futures:
            future.result()


@ahead
def submit_in_a_loop_and_nothing_kept(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item in items:
            pool.submit(work, item)


class Loader:
    def __init__(self):
        self.pool = concurrent.futures.ThreadPoolExecutor(4)

    def load(self, items, work):
        with self.pool:
            return [self.pool.submit(work, item) for item in items]


@ahead
def submit_to_a_pool_of_an_object(items, work):
    for future in Loader().load(items, work):
        future.result()


@ahead
def a_sliding_window(items, work):
    hold = threading.Event()

    def slow(item):
        hold.wait(10)
        work(item)

    try:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            window = []
            try:
                for item in items:
                    window.append(pool.submit(slow, item))
                    if len(window) >= 8:
                        hold.set()
                        window.pop(0).result()
            finally:
                hold.set()
            for future in window:
                future.result()
    finally:
        hold.set()


@coroutine(ahead)
async def gather_of_a_generator(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*(one(item) for item in items))


@coroutine(ahead)
async def gather_of_threads(items, work):
    await asyncio.gather(*(asyncio.to_thread(work, item) for item in items))


@coroutine(ahead)
async def gather_of_a_function_that_hands_its_arguments_on(items, work):
    async def patiently(function, *args, **kwargs):
        await asyncio.sleep(0)
        function(*args, **kwargs)

    await asyncio.gather(*[patiently(work, item) for item in items])


@coroutine(ahead)
async def gather_of_a_list(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*[one(item) for item in items])


@coroutine(ahead)
async def gather_of_map(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*map(one, items))


@coroutine(ahead)
async def gather_of_an_async_comprehension(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*[one(item) async for item in items])


@coroutine(ahead)
async def coroutines_in_a_loop(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    todo = []
    for item in items:
        todo.append(one(item))
    await asyncio.gather(*todo)


@coroutine(ahead)
async def tasks_in_a_loop(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    tasks = set()
    async for item in items:
        tasks.add(asyncio.create_task(one(item)))
    await asyncio.gather(*tasks)


@coroutine(ahead)
async def an_async_comprehension_that_keeps_the_items(items, work):
    for item in [item async for item in items]:
        work(item)


@coroutine(ahead)
async def a_queue_of_asyncio(items, work):
    waiting = asyncio.Queue()
    async for item in items:
        waiting.put_nowait(item)
    while not waiting.empty():
        work(waiting.get_nowait())


@coroutine(ahead)
async def a_queue_of_asyncio_that_is_full_now_and_then(items, work):
    waiting = asyncio.Queue(2)

    async def take():
        while (item := await waiting.get()) is not None:
            await asyncio.sleep(0)
            work(item)
            waiting.task_done()

    takers = [asyncio.create_task(take()) for _ in range(2)]
    try:
        async for item in items:
            await waiting.put(item)
    finally:
        await waiting.join()
        for taker in takers:
            taker.cancel()


@coroutine(ahead)
async def a_task_that_is_awaited_one_item_later(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    before = None
    async for item in items:
        if before is not None:
            await before
        before = asyncio.create_task(one(item))
    await before


@coroutine(ahead)
async def a_comprehension_of_an_async_generator_that_only_hands_on(items, work):
    async def handed_on():
        async for item in items:
            yield item

    for item in [item async for item in handed_on()]:
        work(item)


@coroutine(ahead)
async def tasks_in_a_comprehension(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    await asyncio.gather(*[asyncio.create_task(one(item)) async for item in items])


@coroutine(ahead)
async def run_in_executor(items, work):
    loop = asyncio.get_running_loop()
    await asyncio.gather(*[loop.run_in_executor(None, work, item) for item in items])


if hasattr(asyncio, "TaskGroup"):

    @coroutine(ahead)
    async def a_task_group(items, work):
        few = asyncio.Semaphore(5)

        async def one(item):
            async with few:
                await asyncio.sleep(0)
                work(item)

        async with asyncio.TaskGroup() as group:
            async for item in items:
                group.create_task(one(item))


# -- each item is worked before the next one is asked for -------------------------------------------------------------


@fine
def a_plain_for(items, work):
    for item in items:
        work(item)


@fine
def a_plain_for_that_python_has_specialised(items, work):
    def run(some):
        for item in some:
            work(item)

    for _ in range(50):
        run(iter(()))
        run(one for one in ())
    run(items)


@fine
def enumerate_(items, work):
    for _, item in enumerate(items):
        work(item)


@fine
def zip_(items, work):
    for item, _ in zip(items, itertools.count()):
        work(item)


@fine
def enumerate_of_zip(items, work):
    for _, (item, _) in enumerate(zip(items, itertools.count())):
        work(item)


@fine
def islice_in_a_for(items, work):
    for item in itertools.islice(items, 100):
        work(item)


@fine
def chain(items, work):
    for item in itertools.chain(items, ()):
        work(item)


def bar(iterable):
    for shown, item in enumerate(iterable):
        yield item
        str(shown)


@fine
def a_progress_bar(items, work):
    for item in bar(items):
        work(item)


@fine
def a_progress_bar_of_enumerate(items, work):
    for _, item in bar(enumerate(bar(items))):
        work(item)


@fine
def yield_from(items, work):
    def handed_on():
        yield from items

    for item in handed_on():
        work(item)


@fine
def a_generator_that_works(items, work):
    def worked():
        for item in items:
            yield work(item)

    list(worked())


@fine
def a_comprehension_that_works(items, work):
    assert len([work(item) for item in items]) == 20


@fine
def a_comprehension_that_works_and_keeps_both(items, work):
    assert len({item: work(item) for item in items}) == 20


@fine
def a_comprehension_with_a_condition(items, work):
    assert [item for item in items if work(item)] == []


@ahead
def a_comprehension_that_keeps_the_items(items, work):
    for item in [item for item in items]:
        work(item)


@ahead
def a_comprehension_of_a_set_that_keeps_the_items(items, work):
    for item in {item for item in items}:
        work(item)


@ahead
def a_comprehension_that_keeps_what_is_in_the_items(items, work):
    for letter, _ in [(letter, 1) for item in items for letter in item]:
        work(letter)


@fine
def a_comprehension_that_may_work_by_an_operator(items, work):
    class Works:
        def __getitem__(self, item):
            return work(item)

    works = Works()
    assert len([works[item] for item in items]) == 20


@ahead
def keys_of_a_dict(items, work):
    for item in dict.fromkeys(items):
        work(item)


@fine
def sum_of_a_generator_that_counts(items, work):
    assert sum(1 for _ in items) == 20
    for item in ITEMS:
        work(item)


@fine
def reduce_with_a_star(items, work):
    functools.reduce(*(lambda _, item: work(item), items, None))


@fine
def any_with_a_star(items, work):
    arguments = [map(work, items)]
    any(*arguments)


@fine
def length_hint_and_a_loop(items, work):
    asked = iter(items)
    operator.length_hint(items)
    for item in asked:
        work(item)


@fine
def sum_of_a_generator_that_works(items, work):
    assert sum(work(item) is None for item in items) == 20


@fine
def list_of_a_generator_that_works(items, work):
    list(work(item) for item in items)


@fine
def any_of_a_generator_that_works(items, work):
    assert not any(work(item) for item in items)


@fine
def star_of_a_generator_that_works(items, work):
    assert max(*(work(item) is None for item in items)) is True


@fine
def list_of_map(items, work):
    list(map(work, items))


@fine
def list_of_map_of_a_generator(items, work):
    list(map(work, (item for item in items)))


@fine
def list_of_a_generator_of_map(items, work):
    list(item for item in map(work, items))


@fine
def list_of_a_progress_bar_of_map(items, work):
    def bar_of(iterable):
        yield from iterable

    list(bar_of(map(work, items)))


@fine
def list_of_starmap(items, work):
    list(itertools.starmap(work, ((item,) for item in items)))


@fine
def star_of_map(items, work):
    assert len([*map(work, items)]) == 20


@fine
def deque_of_map(items, work):
    collections.deque(map(work, items), maxlen=0)


@fine
def filter_(items, work):
    assert list(filter(work, items)) == []


@fine
def reduce(items, work):
    functools.reduce(lambda _, item: work(item), items, None)


@fine
def max_with_a_key_that_works(items, work):
    max(items, key=lambda item: work(item) or item)


@fine
def next_in_a_while(items, work):
    asked = iter(items)
    while (item := next(asked, None)) is not None:
        work(item)


@fine
def next_of_enumerate_in_a_while(items, work):
    asked = enumerate(items)
    while (pair := next(asked, None)) is not None:
        work(pair[1])


@fine
def dunder_next(items, work):
    asked = iter(items)
    try:
        while True:
            work(asked.__next__())
    except StopIteration:
        pass


@fine
def next_by_another_name(items, work):
    step, asked = functools.partial(next, iter(items), None), None
    while (asked := step()) is not None:
        work(asked)


@fine
def iter_with_a_sentinel(items, work):
    for item in iter(functools.partial(next, iter(items), None), None):
        work(item)


@fine
def a_thread_that_is_waited_for(items, work):
    for item in items:
        thread = threading.Thread(target=work, args=(item,))
        thread.start()
        thread.join()


@fine
def a_queue_beside_the_work(items, work):
    done = queue.Queue()
    for item in items:
        work(item)
        done.put(item)


@fine
def groupby(items, work):
    for _, group in itertools.groupby(items, key=lambda item: item[-1]):
        for item in group:
            work(item)


@fine
def list_of_map_of_a_group(items, work):
    for _, group in itertools.groupby(items, key=lambda item: item[:6]):
        list(map(work, group))


@fine
def a_group_that_a_generator_works(items, work):
    for _, group in itertools.groupby(items, key=lambda item: item[:6]):
        any(work(item) for item in group)


@fine
def a_pool_that_is_waited_for(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item in items:
            pool.submit(work, item).result()


@fine
def a_pool_that_is_waited_for_in_a_comprehension(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len([pool.submit(work, item).result() for item in items]) == 20


@fine
def a_pool_that_is_waited_for_by_name(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item in items:
            future = pool.submit(work, item)
            future.result(timeout=60)


@fine
def a_pool_for_the_parts_of_each_item(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item in items:
            parts = [pool.submit(str, part) for part in item]
            concurrent.futures.wait(parts)
            work(item)


@fine
def a_pool_beside_the_work(items, work):
    hold = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        notices = []
        for item in items:
            notices.append(pool.submit(hold.wait, 10))
            work(item)
        hold.set()


class Service:
    def submit(self, work, item):
        work(item)


@fine
def a_submit_that_is_no_pools(items, work):
    service, answers = Service(), []
    for item in items:
        answers.append(service.submit(work, item))


@fine
def results_in_a_loop(items, work):
    results = []
    for item in items:
        results.append(work(item))


@coroutine(fine)
async def a_coroutine_for_each(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    async for item in items:
        await one(item)


@coroutine(fine)
async def an_async_comprehension_that_works(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    assert len([await one(item) async for item in items]) == 20


@coroutine(fine)
async def a_plain_comprehension_that_awaits(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    assert len([await one(item) for item in items]) == 20


@coroutine(fine)
async def a_task_that_is_awaited(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    async for item in items:
        await asyncio.create_task(one(item))


@coroutine(fine)
async def several_coroutines_for_each_item(items, work):
    async def one(item):
        await asyncio.sleep(0)

    async for item in items:
        await asyncio.gather(*(one(item) for _ in range(3)))
        work(item)


@coroutine(fine)
async def a_timeout_for_each(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    async for item in items:
        await asyncio.wait_for(one(item), 60)


@coroutine(fine)
async def an_async_generator_between(items, work):
    async def handed_on():
        async for item in items:
            yield item

    async for item in handed_on():
        work(item)


@coroutine(fine)
async def a_comprehension_of_an_async_generator_that_works(items, work):
    async def worked():
        async for item in items:
            work(item)
            yield item

    return [item async for item in worked()]


@coroutine(fine)
async def a_queue_that_is_waited_for(items, work):
    waiting = asyncio.Queue()

    async def take():
        while True:
            work(await waiting.get())
            waiting.task_done()

    taker = asyncio.create_task(take())
    async for item in items:
        await waiting.put(item)
        await waiting.join()
    taker.cancel()


@fine
def a_queue_of_threads_that_is_waited_for(items, work):
    waiting = queue.Queue()

    def take():
        while (item := waiting.get()) is not None:
            work(item)
            waiting.task_done()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        taker = pool.submit(take)
        try:
            for item in items:
                waiting.put(item)
                waiting.join()
        finally:
            waiting.put(None)
        taker.result()


async def _beat():
    while True:
        await asyncio.sleep(0)


@coroutine(fine)
async def tasks_that_are_awaited_beside_a_heartbeat(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    heartbeat = asyncio.create_task(_beat())
    async for item in items:
        await asyncio.create_task(one(item))
    heartbeat.cancel()


@coroutine(fine)
async def tasks_that_are_awaited_by_name_beside_tasks_in_a_set(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    background = {asyncio.create_task(_beat())}
    async for item in items:
        task = asyncio.create_task(one(item))
        await task
    for other in background:
        other.cancel()


@coroutine(fine)
async def threads_that_are_awaited_beside_a_heartbeat(items, work):
    heartbeat = asyncio.ensure_future(_beat())
    loop = asyncio.get_running_loop()
    async for item in items:
        await loop.run_in_executor(None, work, item)
    heartbeat.cancel()


@fine
def results_of_a_pool_beside_a_watcher(items, work):
    over = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        watcher = pool.submit(over.wait)
        try:
            for item in items:
                pool.submit(work, item).result()
        finally:
            over.set()
        watcher.result()


@fine
def results_of_a_pool_by_name_beside_a_watcher(items, work):
    over = threading.Event()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        watchers = [pool.submit(over.wait)]
        try:
            for item in items:
                future = pool.submit(work, item)
                future.result()
        finally:
            over.set()
        concurrent.futures.wait(watchers)


@coroutine(fine)
async def a_notice_beside_the_work(items, work):
    async def tell(item):
        await asyncio.sleep(0)

    notices = set()
    async for item in items:
        work(item)
        notices.add(asyncio.create_task(tell(item)))
    await asyncio.gather(*notices)


# -- loops that collect -----------------------------------------------------------------------------------------------


@ahead
def batches_of_ones_own(items, work):
    def batches(given, size):
        batch = []
        for item in given:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    for batch in batches(items, 5):
        for item in batch:
            work(item)


@ahead
def batches_of_ones_own_that_are_cleared(items, work):
    def batches(given):
        batch = set()
        for item in given:
            batch.add(item)
            if len(batch) > 6:
                yield batch
                batch.clear()
        yield batch

    for batch in batches(items):
        for item in batch:
            work(item)


@coroutine(ahead)
async def asynchronous_batches_of_ones_own(items, work):
    async def batches(given, size):
        batch = []
        async for item in given:
            batch.append(item)
            if len(batch) >= size:
                yield batch
                batch = []
        yield batch

    async for batch in batches(items, 5):
        for item in batch:
            work(item)


@fine
def batches_of_one(items, work):
    def batches():
        batch = []
        for item in items:
            batch.append(item)
            if len(batch) == 1:
                yield batch
                batch = []

    for batch in batches():
        work(batch[0])


@fine
def what_was_worked_is_collected(items, work):
    done = []
    for item in items:
        work(item)
        done.append(item)


@fine
def what_is_handed_on_is_collected(items, work):
    seen = []

    def noted():
        for item in items:
            seen.append(item)
            yield item

    for item in noted():
        work(item)


@fine
def a_collection_that_works_what_is_added(items, work):
    class Archive(list):
        def append(self, item):
            work(item)

    archive = Archive()
    for item in items:
        archive.append(item)


@fine
def a_comprehension_whose_condition_works(items, work):
    return [item for item in items if work(item) is None]


@fine
def a_buffer_that_is_worked_as_it_grows(items, work):
    buffer = []
    for item in items:
        buffer.append(item)
        work(buffer[-1])


@fine
def next_in_a_loop(items, work):
    items = iter(items)
    while (item := next(items, None)) is not None:
        work(item)


# -- read ahead by what only looks at an item -------------------------------------------------------------------------


@ahead
def a_comprehension_with_a_harmless_condition(items, work):
    for item in [item for item in items if item.startswith("item")]:
        work(item)


@ahead
def a_comprehension_with_a_condition_on_a_part(items, work):
    for item in [item for item in items if int(item[5:]) >= 0 and len(item) > 3]:
        work(item)


@ahead
def a_comprehension_of_paths(items, work):
    for path in [pathlib.PurePosixPath(item) for item in items]:
        work(str(path))


@ahead
def a_dict_by_a_part_of_the_item(items, work):
    for item in {item.upper(): item for item in items}.values():
        work(item)


class File:
    def __init__(self, name):
        self.name, self.size = name, 1


class Files:
    """Items that are objects."""

    def __init__(self, items):
        self.items, items.items = items, [File(item) for item in items.items]

    def __iter__(self):
        return iter(self.items)


@ahead
def a_comprehension_with_a_condition_on_an_attribute(items, work):
    for file in [file for file in Files(items) if file.name.endswith("") and file.size > 0]:
        work(file.name)


@ahead
def tuple_of_a_generator_with_a_harmless_condition(items, work):
    for item in tuple(item for item in items if item.startswith("item")):
        work(item)


@ahead
def a_comprehension_of_pairs_with_the_item(items, work):
    for item, _ in [(item, len(item)) for item in items]:
        work(item)


@ahead
def list_of_map_of_paths(items, work):
    for path in list(map(pathlib.PurePosixPath, items)):
        work(str(path))


@ahead
def functions_for_later(items, work):
    for later in [functools.partial(work, item) for item in items]:
        later()


@ahead
def lambdas_for_later(items, work):
    for later in [lambda item=item: work(item) for item in items]:
        later()


@ahead
def list_of_filter_of_none(items, work):
    for item in list(filter(None, items)):
        work(item)


@ahead
def list_of_filter_of_a_lambda(items, work):
    for item in list(filter(lambda item: item.startswith("item") and item != "item", items)):
        work(item)


@ahead
def list_of_filter_of_a_set(items, work):
    known = set(ITEMS)
    for item in list(filter(known.__contains__, items)):
        work(item)


@ahead
def update_of_a_set(items, work):
    everything = set()
    everything.update(items)
    for item in everything:
        work(item)


@ahead
def update_of_a_dict(items, work):
    everything = {}
    everything.update(zip(items, ITEMS, strict=False))
    for item in everything:
        work(item)


@ahead
def union_of_sets(items, work):
    for item in set().union(items):
        work(item)


@ahead
def intersection_of_sets(items, work):
    known = set(ITEMS)
    for item in known.intersection(items):
        work(item)


@ahead
def counter(items, work):
    for item in collections.Counter(items):
        work(item)


@ahead
def assignment_to_a_slice(items, work):
    everything = []
    everything[:] = items
    for item in everything:
        work(item)


@ahead
def the_largest(items, work):
    work(max(items))


@ahead
def the_smallest_of_pairs(items, work):
    work(min(enumerate(items)))


@ahead
def product(items, work):
    for item, _ in itertools.product(items, "ab"):
        work(item)


@ahead
def combinations(items, work):
    for item, _ in itertools.combinations(items, 2):
        work(item)


@ahead
def tees_one_after_the_other(items, work):
    counted, worked = itertools.tee(items)
    for _ in counted:
        pass
    for item in worked:
        work(item)


@ahead
def tees_one_of_which_is_ahead(items, work):
    one, other = itertools.tee(items)
    next(other, None)
    for item, _following in itertools.zip_longest(one, other):
        work(item)


@ahead
def programs_that_are_waited_for_later(items, work):
    programs = []
    for item in items:
        programs.append((item, subprocess.Popen([sys.executable, "-S", "-c", ""])))
    for item, program in programs:
        program.wait()
        work(item)


@ahead
def a_window_of_programs(items, work):
    window = []
    for item in items:
        if len(window) > 2:
            window.pop(0).wait()
        program = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(0.2)", item])
        window.append(program)
    for program in window:
        program.wait()


@ahead
def a_stack_of_callbacks(items, work):
    with contextlib.ExitStack() as stack:
        for item in items:
            stack.callback(work, item)


@ahead
def submit_and_a_callback_of_its_future(items, work):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for item in items:
            pool.submit(work, item).add_done_callback(lambda future: future.result())


@ahead
def a_pool_behind_a_semaphore(items, work):
    free, hold = threading.Semaphore(4), threading.Event()

    def slow(item):
        hold.wait(10)
        free.release()

    def ended():
        hold.set()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        try:
            for item in items:
                free.acquire()
                pool.submit(slow, item)
        finally:
            ended()


@coroutine(ahead)
async def calls_of_the_event_loop(items, work):
    loop = asyncio.get_running_loop()
    async for item in items:
        loop.call_soon(work, item)


@coroutine(ahead)
async def tasks_behind_a_semaphore(items, work):
    free = asyncio.Semaphore(4)

    async def one(item):
        try:
            await asyncio.sleep(0)
            work(item)
        finally:
            free.release()

    async for item in items:
        await free.acquire()
        asyncio.ensure_future(one(item))  # noqa: RUF006


# -- and what looks like these and works ------------------------------------------------------------------------------


@fine
def a_comprehension_of_what_is_computed(items, work):
    """That may be all that is to be done with an item."""
    for text in [f"{str(item).strip()}" for item in items]:
        work(text)


@fine
def a_comprehension_of_pairs_of_what_is_computed(items, work):
    for name, _length in [(item.strip(), len(item)) for item in items]:
        work(name)


@fine
def list_of_map_that_computes(items, work):
    for text in list(map(str.strip, items)):
        work(text)


@fine
def tuple_of_a_generator_that_computes(items, work):
    for text in tuple(str(item) for item in items):
        work(text)


@fine
def a_comprehension_of_a_function_that_works(items, work):
    assert [str(work(item)) for item in items] == ["None"] * 20


@fine
def a_comprehension_whose_second_condition_works(items, work):
    assert [item for item in items if item.startswith("item") and work(item)] == []


@fine
def a_comprehension_of_a_method_of_ones_own(items, work):
    class Name(str):
        def strip(self):
            work(str(self))

    items.items = [Name(item) for item in items.items]
    assert [item.strip() for item in items] == [None] * 20


@fine
def a_comprehension_of_a_property_that_works(items, work):
    class Document:
        def __init__(self, name):
            self.name = name

        @property
        def content(self):
            return work(self.name)

    items.items = [Document(item) for item in items.items]
    assert [document.content for document in items] == [None] * 20


@fine
def a_comprehension_of_a_dict_that_works(items, work):
    class Works(dict):
        def __missing__(self, item):
            return work(item)

    works = Works()
    assert [works[item] for item in items] == [None] * 20


@fine
def a_comprehension_of_a_collection_that_works(items, work):
    class Archive(list):
        def __contains__(self, item):
            work(item)
            return False

    archive = Archive()
    assert [item for item in items if item in archive] == []


@fine
def list_of_filter_of_a_lambda_that_works(items, work):
    assert list(filter(lambda item: work(item), items)) == []


@fine
def list_of_map_of_a_partial_that_works(items, work):
    def with_a_target(target, item):
        work(item)

    list(map(functools.partial(with_a_target, "target"), items))


@fine
def list_of_map_of_a_lambda_with_a_function_in_it(items, work):
    list(map(lambda item: str(work(item)), items))


@fine
def a_loop_over_changed_texts(items, work):
    for item in (item.strip() for item in items):
        work(item)


@fine
def a_loop_over_filter(items, work):
    for item in filter(None, items):
        work(item)


@fine
def a_loop_over_map(items, work):
    for item in map(str.strip, items):
        work(item)


@fine
def update_of_a_set_in_a_loop(items, work):
    done = set()
    for item in items:
        work(item)
        done.update([item])


@fine
def the_largest_result(items, work):
    assert max(str(work(item)) for item in items) == "None"


@fine
def programs_that_are_waited_for(items, work):
    for item in items:
        program = subprocess.Popen([sys.executable, "-S", "-c", ""])
        program.wait()
        work(item)


@fine
def a_program_by_name_that_is_waited_for(items, work):
    programs = []
    for item in items:
        program = subprocess.Popen([sys.executable, "-S", "-c", "", item])
        programs.append(program)
        program.communicate()
        work(item)


@fine
def a_callback_beside_the_work(items, work):
    with contextlib.ExitStack() as stack:
        for item in items:
            stack.callback(int)
            work(item)


@fine
def one_tee(items, work):
    (only,) = itertools.tee(items, 1)
    for item in only:
        work(item)


@coroutine(fine)
async def tasks_that_say_when_they_have_ended(items, work):
    async def one(item, ended):
        await asyncio.sleep(0)
        work(item)
        ended.set()

    async for item in items:
        ended = asyncio.Event()
        asyncio.ensure_future(one(item, ended))  # noqa: RUF006
        await ended.wait()
        await asyncio.sleep(0)


def giving_back(work):
    def worked(item):
        work(item)
        return item

    return worked


# -- read ahead by putting items aside, in whatever way ---------------------------------------------------------------


@ahead
def list_of_filterfalse(items, work):
    for item in list(itertools.filterfalse(lambda item: item == "item", items)):
        work(item)


@ahead
def list_of_takewhile(items, work):
    for item in list(itertools.takewhile(lambda item: item.startswith("item"), items)):
        work(item)


@ahead
def sorted_of_dropwhile(items, work):
    for item in sorted(itertools.dropwhile(str.isdigit, items)):
        work(item)


@ahead
def a_comprehension_of_lists_with_the_item(items, work):
    for several in [[item] for item in items]:
        work(several[0])


@ahead
def a_comprehension_of_dicts_with_the_item(items, work):
    for request in [{"Key": item, "Quiet": True} for item in items]:
        work(request["Key"])


@ahead
def a_dict_of_a_generator_of_functions(items, work):
    for later in dict((item, functools.partial(work, item)) for item in items).values():
        later()


@ahead
def list_of_map_of_submit(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in list(map(functools.partial(pool.submit, work), items)):
            future.result()


@ahead
def list_of_map_of_submit_and_repeat(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in list(map(pool.submit, itertools.repeat(work), items)):
            future.result()


@ahead
def tuple_of_map_of_a_lambda_that_submits(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in tuple(map(lambda item: pool.submit(work, item), items)):
            future.result()


@ahead
def set_of_starmap_of_submit(items, work):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for future in set(itertools.starmap(pool.submit, zip(itertools.repeat(work), items, strict=False))):
            future.result()


@fine
def a_list_that_is_filled(items, work):
    """That may be all that is to be done with an item."""
    todo = []
    for item in items:
        todo.append(item)
    for item in todo:
        work(item)


@fine
def a_list_that_is_filled_with_some(items, work):
    todo = []
    for number, item in enumerate(items):
        if item.startswith("item") and number >= 0:
            todo.append((number, item))
    for _, item in todo:
        work(item)


@fine
def groups_that_are_filled(items, work):
    groups = collections.defaultdict(list)
    for item in items:
        groups[item[-1]].append(item)
    for group in groups.values():
        for item in group:
            work(item)


@fine
def groups_that_are_filled_by_setdefault(items, work):
    groups = {}
    for item in items:
        groups.setdefault(item[-1], []).append(item)
    for group in groups.values():
        for item in group:
            work(item)


@fine
def a_dict_that_is_filled(items, work):
    latest = {}
    for item in items:
        latest[item.lower()] = item
    for item in latest.values():
        work(item)


@fine
def a_heap_that_is_filled(items, work):
    heap = []
    for item in items:
        heapq.heappush(heap, item)
    while heap:
        work(heapq.heappop(heap))


@fine
def a_list_that_is_kept_in_order(items, work):
    todo = []
    for item in items:
        bisect.insort(todo, item)
    for item in todo:
        work(item)


@ahead
def a_list_that_is_worked_when_it_is_full(items, work):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == 5:
            for one in batch:
                work(one)
            batch = []
    for one in batch:
        work(one)


@ahead
def a_list_that_is_worked_before_it_grows_too_long(items, work):
    batch = collections.deque()
    for number, item in enumerate(items, 1):
        if number % 5 == 0:
            print(*map(work, batch), file=io.StringIO())
            batch.clear()
        batch.append(item)
    for one in batch:
        work(one)


@coroutine(ahead)
async def batches_that_are_gathered(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    batch = []
    async for item in items:
        batch.append(item)
        if len(batch) >= 3:
            await asyncio.gather(*map(one, batch))
            batch = []
    await asyncio.gather(*map(one, batch))


@coroutine(ahead)
async def batches_of_coroutines_that_are_gathered(items, work):
    async def one(item):
        await asyncio.sleep(0)
        work(item)

    batch = []
    async for item in items:
        batch.append(one(item))
        if len(batch) >= 3:
            await asyncio.gather(*batch)
            batch = []
    await asyncio.gather(*batch)


@coroutine(fine)
async def a_list_that_a_coroutine_fills(items, work):
    async def listed(given):
        found = []
        async for item in given:
            found.append(item)
        return found

    for item in await listed(items):
        work(item)


@ahead
def an_item_that_is_worked_one_turn_later(items, work):
    before = None
    for item in items:
        if before is not None:
            work(before)
        before = item
    work(before)


@ahead
def a_generator_that_says_which_is_the_last(items, work):
    def with_ends(given):
        before = None
        for item in given:
            if before is not None:
                yield before, False
            before = item
        yield before, True

    for item, _ in with_ends(items):
        work(item)


@ahead
def a_generator_that_looks_one_ahead(items, work):
    def with_ends(given):
        given = iter(given)
        before = next(given)
        for item in given:
            yield before, False
            before = item
        yield before, True

    for item, _ in with_ends(items):
        work(item)


@ahead
def two_that_are_taken_at_once(items, work):
    asked = iter(items)
    first, second = next(asked), next(asked)
    work(first)
    work(second)
    for item in asked:
        work(item)


@ahead
def the_next_one_at_the_beginning_of_a_turn(items, work):
    asked = iter(items)
    for item in asked:
        following = next(asked, None)
        work(item)
        work(following)


@ahead
def the_first_one_by_next(items, work):
    asked = iter(items)
    first = next(asked, None)
    if first is None:
        return
    for item in asked:
        work(item)
    work(first)


@ahead
def an_iterator_that_threads_share(items, work):
    asked, lock, errors = iter(items), threading.Lock(), []

    def take():
        while True:
            try:
                with lock:
                    item = next(asked, None)
            except ReadAheadError as e:
                errors.append(e)
                return
            if item is None:
                return
            time.sleep(0.02)
            work(item)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


if importlib.util.find_spec("more_itertools"):
    import more_itertools

    @ahead
    def split_at(items, work):
        for group in more_itertools.split_at(items, lambda item: item.endswith("9")):
            for item in group:
                work(item)

    @ahead
    def split_when(items, work):
        for group in more_itertools.split_when(items, lambda before, item: item.endswith("0")):
            for item in group:
                work(item)

    @ahead
    def map_reduce(items, work):
        for group in more_itertools.map_reduce(items, lambda item: item[-1]).values():
            for item in group:
                work(item)

    @ahead
    def batches_of_some_length(items, work):
        for group in more_itertools.constrained_batches(items, 30):
            for item in group:
                work(item)

    @ahead
    def ends_that_are_marked(items, work):
        for _, _, item in more_itertools.mark_ends(items):
            work(item)

    @fine
    def each_once(items, work):
        for item in more_itertools.unique_everseen(items):
            work(item)

    @fine
    def side_effect(items, work):
        more_itertools.consume(more_itertools.side_effect(work, items))

    @fine
    def what_is_split_is_worked_before(items, work):
        for _ in more_itertools.split_at(map(giving_back(work), items), lambda item: item.endswith("9")):
            pass


# -- and what looks like that, and works ------------------------------------------------------------------------------


@fine
def a_comprehension_of_map(items, work):
    assert [item for item in map(giving_back(work), items)] == ITEMS


@fine
def a_comprehension_of_map_with_a_condition(items, work):
    assert [item for item in map(giving_back(work), items) if item] == ITEMS


@fine
def a_comprehension_of_map_whose_results_are_others(items, work):
    assert [result for result in map(work, items)] == [None] * 20


@fine
def a_comprehension_of_filter_by_the_work(items, work):
    assert [item for item in filter(giving_back(work), items)] == ITEMS


@fine
def a_dict_of_enumerate_of_map(items, work):
    assert {item: number for number, item in enumerate(map(giving_back(work), items))}


@fine
def a_list_that_is_filled_with_what_map_worked(items, work):
    done = []
    for item in map(giving_back(work), items):
        done.append(item)


@fine
def pairs_of_what_map_worked(items, work):
    for _, _ in itertools.pairwise(map(giving_back(work), items)):
        pass


@fine
def tees_of_what_map_worked(items, work):
    one, other = itertools.tee(map(giving_back(work), items))
    for _, _ in zip(one, other, strict=True):
        pass


@fine
def list_of_takewhile_of_the_work(items, work):
    assert list(itertools.takewhile(giving_back(work), items)) == ITEMS


@fine
def list_of_filterfalse_of_the_work(items, work):
    assert list(itertools.filterfalse(work, items)) == ITEMS


@fine
def list_of_map_of_a_lambda_that_waits_for_what_it_submits(items, work):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(map(lambda item: pool.submit(work, item).result(), items))


@fine
def list_of_map_of_results_of_map_of_submit(items, work):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(map(lambda future: future.result(), map(functools.partial(pool.submit, work), items)))


@fine
def a_list_of_those_that_need_no_work(items, work):
    rest = []
    for item in items:
        if item.endswith("x"):
            rest.append(item)
            continue
        work(item)


@fine
def a_list_whose_last_is_worked_under_a_condition(items, work):
    seen = []
    for item in items:
        seen.append(item)
        if len(seen) > 0:
            work(seen[-1])


@fine
def a_list_of_one_that_is_worked_at_once(items, work):
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) >= 1:
            work(batch[0])
            batch = []


@fine
def a_batch_beside_the_work(items, work):
    names = []
    for item in items:
        work(item)
        names.append(item)
        if len(names) == 5:
            print(names, file=io.StringIO())
            names.clear()


@fine
def an_item_that_is_compared_with_the_one_before(items, work):
    before = ""
    for item in items:
        assert before != item
        work(item)
        before = item


@fine
def an_item_by_another_name(items, work):
    for item in items:
        file = item
        work(file)


@fine
def an_item_by_another_name_in_a_loop_within_the_loop(items, work):
    file = None
    for item in items:
        for _ in range(2):
            if file is not None:
                work(file)
                file = None
            else:
                file = item


@fine
def an_item_that_a_function_within_works(items, work):
    now = None

    def run():
        work(now)

    for item in items:
        now = item
        print(run(), file=io.StringIO())


@fine
def the_first_one_is_worked_before_the_loop(items, work):
    asked = iter(items)
    work(next(asked))
    for item in asked:
        work(item)


@fine
def the_first_one_is_put_back(items, work):
    asked = iter(items)
    first = next(asked)
    for item in itertools.chain([first], asked):
        work(item)


@fine
def two_in_each_turn(items, work):
    asked = iter(items)
    for item in asked:
        work(item)
        following = next(asked, None)
        work(following)


@fine
def threads_one_after_the_other(items, work):
    asked = iter(items)

    def take():
        for item in itertools.islice(asked, 7):
            work(item)

    for _ in range(3):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()


@fine
def next_in_threads_of_a_pool(items, work):
    async def run():
        asked = iter(items)
        while (item := await asyncio.to_thread(next, asked, None)) is not None:
            work(item)

    asyncio.run(run())


@fine
def list_of_map_in_a_thread_of_a_pool(items, work):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(list, map(work, items)).result()


@fine
def next_in_threads_that_serve_whatever_they_are_given(items, work):
    asked, calls, answers = iter(items), queue.Queue(), queue.Queue()

    def serve():
        while (call := calls.get()) is not None:
            answers.put(call[0](*call[1:]))

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    while True:
        calls.put((next, asked, None))
        if (item := answers.get(timeout=10)) is None:
            break
        work(item)
    for _ in threads:
        calls.put(None)


@fine
def a_list_that_is_filled_with_what_another_generator_worked(items, work):
    def worked(given):
        for item in given:
            work(item)
            yield item

    done = []
    for item in worked(items):
        done.append(item)


@fine
def a_method_that_works_what_is_put_into_a_dict(items, work):
    class Store(dict):
        def __setitem__(self, key, item):
            work(item)

    store = Store()
    for item in items:
        store[item.lower()] = item


@fine
def a_default_of_a_dict_whose_values_work(items, work):
    class Group(list):
        def append(self, item):
            work(item)

    groups = collections.defaultdict(Group)
    groups["0"] = Group()
    for item in items:
        groups[item[-1]].append(item)


@fine
def an_item_that_is_the_next_turns_and_this_ones(items, work):
    before = None
    for item in items:
        if before is None:
            before = item
        work(before)
        before = None


@fine
def an_item_that_is_swapped_with_the_one_before(items, work):
    before = now = None
    for item in items:
        before, now = now, item
        if now != before:
            work(now)


@fine
def a_batch_of_one_whose_work_comes_first(items, work):
    batch = []
    for item in items:
        if batch:
            batch = []
        batch += [item]
        work(batch[0])


@coroutine(fine)
async def a_batch_of_notices_beside_the_work(items, work):
    async def tell(item):
        await asyncio.sleep(0)

    async def one(item):
        await asyncio.sleep(0)
        work(item)

    notices = []
    async for item in items:
        notices.append(tell(item))
        await one(item)
        if len(notices) == 3:
            await asyncio.gather(*notices)
            notices = []
    await asyncio.gather(*notices)


# -- a program of its own, and a test ---------------------------------------------------------------------------------


def outcome(case):
    items, worked = Items(), []
    try:
        case(items, worked.append)
    except ReadAheadError as e:
        return f"read ahead: {e}", items, worked
    except BaseException as e:  # a task group's
        if any(isinstance(one, ReadAheadError) for one in getattr(e, "exceptions", ())):
            return "read ahead", items, worked
        raise
    return "worked", items, worked


WARM = 12
"""After so many calls a Python has put quicker instructions into the place of those that were compiled."""


def check_ahead(name):
    for turn in range(WARM):
        said, items, _worked = outcome(AHEAD[name])
        assert said.startswith("read ahead"), f"{name}: not recognised when called the {turn + 1}. time"
        assert len(items.given) <= 8, f"{name}: recognised after {len(items.given)} items only"


def check_fine(name):
    for _ in range(WARM):
        said, _, worked = outcome(FINE[name])
        assert said == "worked", f"{name}: {said}"
        assert sorted(worked) == sorted(ITEMS), name


def main():
    import warnings

    warnings.simplefilter("ignore")
    wrong = []
    for check, names in ((check_ahead, AHEAD), (check_fine, FINE)):
        for name in names:
            try:
                check(name)
            except AssertionError as e:
                wrong.append(str(e))
    print(f"Python {sys.version.split()[0]}: {len(AHEAD)} that read ahead, {len(FINE)} that do not, {len(wrong)} wrong")
    print("\n".join(wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())

import pytest  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def few_objects():
    """Who holds an iterator is asked of the garbage collector, which looks at all objects: those of before are set apart."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", AHEAD)
def test_who_takes_items_before_the_last_is_worked_is_recognised_at_once(name):
    check_ahead(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FINE)
def test_who_works_each_item_before_the_next_is_never_taken_for_reading_ahead(name):
    check_fine(name)


def pythons():
    """Every other Python from 3.10 on that this machine has."""
    found = {}
    for minor in range(10, 20):
        places = [shutil.which(f"python3.{minor}"), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}")]
        for place in filter(None, places):
            ask = [place, "-c", "import sys; print(sys.version_info[:2])"]
            asked = subprocess.run(ask, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                found[f"3.{minor}"] = str(place)
    return found


@pytest.mark.catalog
@pytest.mark.parametrize("minor", sorted({*range(10, 16)} - {sys.version_info.minor}))
def test_every_other_python_of_this_machine_agrees(minor):
    python = pythons().get(f"3.{minor}")
    if python is None:
        pytest.skip(f"no Python 3.{minor} here")
    ran = subprocess.run([python, __file__], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
