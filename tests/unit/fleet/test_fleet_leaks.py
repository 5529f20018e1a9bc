"""Ten thousand come to wait and go again, some at an end, most cancelled: nothing of them is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from typing import Any

import pytest

from resumable.fleet import asks, waiting
from resumable.fleet.budget import Rate
from resumable.fleet.poller import Settings
from resumable.fleet.registry import Fleet
from tests.support.many_jobs import LIST, MANY, ONE, Client, ManyJobs

COUNT, AT_ONCE = 10_000, 500


@pytest.mark.slow
def test_ten_thousand_waiters_leave_no_task_no_thread_no_memory() -> None:
    asyncio.run(_come_and_go())


async def _come_and_go() -> None:
    loop = asyncio.get_running_loop()
    service = ManyJobs(loop.time, size=100)
    fleet = Fleet(Settings(random=lambda: 0.5), rates=dict.fromkeys((ONE, MANY, LIST), Rate(1e5, 1e5)))
    lookup = service.lookup()

    async def reach() -> Client:
        return Client(service)

    async def wait_for(name: str) -> None:
        service.run(name)
        try:
            await fleet.watch(service.target(name, lookup, reach=reach, interval=0.05), lambda _: None)
        finally:
            del service.words[name], service.groups[name]

    async def some(begin: int) -> None:
        tasks = [loop.create_task(wait_for(f"j{i}")) for i in range(begin, begin + AT_ONCE)]
        await asyncio.sleep(0)
        for i, task in enumerate(tasks):
            if i % 50:
                task.cancel()
            else:
                service.words[f"j{begin + i}"] = "DONE"
        await asyncio.gather(*tasks, return_exceptions=True)
        service.sent.clear()

    tracemalloc.start()
    await some(0)  # the errors of the last that were cancelled stay with the interpreter, here and at the end
    gc.collect()
    threads, others = set(threading.enumerate()), len(_of_waits())
    before = tracemalloc.get_traced_memory()[0]
    for begin in range(AT_ONCE, COUNT + AT_ONCE, AT_ONCE):
        await some(begin)
    for _ in range(100):  # threads of a pool that is closed end by themselves
        if set(threading.enumerate()) <= threads and len(asyncio.all_tasks()) == 1:
            break
        await asyncio.sleep(0.05)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(fleet) == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("resumable-fleet")]
    assert len(_of_waits()) <= others
    assert grown < 300_000, f"{grown} bytes for {COUNT}"
    assert len(fleet.budgets) <= 1


def _of_waits() -> list[Any]:
    return [one for one in gc.get_objects() if type(one) in (asks.Job, waiting.Waiter, waiting.Watch)]
