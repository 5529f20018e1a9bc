"""A user's stop of a deferred task reaches its job, however often Airflow cancels the trigger while it does that."""

from __future__ import annotations

import asyncio
import logging

import pytest

from resumable.stop import triggers
from resumable.stop.triggers import StopGuard


class Theirs:
    """Any provider's trigger."""

    log = logging.getLogger("trigger")
    task_instance = None

    async def run(self):
        await asyncio.sleep(3600)
        yield None


class Slow(StopGuard, Theirs):
    """Its cancel takes three requests."""

    def __init__(self):
        super().__init__()
        self.requests = []

    async def cancel(self):
        for n in range(3):
            await asyncio.sleep(0.02)
            self.requests.append(n)


@pytest.fixture(autouse=True)
def _marked(monkeypatch):
    async def state(_):
        await asyncio.sleep(0.01)
        return "failed"

    monkeypatch.setattr("resumable.host.state_seen_by_trigger", state)


async def cancelled_again_and_again(task, times=20):
    for _ in range(times):
        task.cancel("user-action")
        await asyncio.sleep(0.005)
    await asyncio.gather(task, return_exceptions=True)


def airflows(trigger):
    """What the triggerer of 3.3 does with a trigger."""

    async def run_trigger():
        try:
            async for _ in trigger.run():
                pass
        except asyncio.CancelledError:
            await asyncio.wait_for(trigger.on_kill(), 30)
            raise

    return run_trigger()


async def told(run, trigger):
    task = asyncio.ensure_future(run)
    await asyncio.sleep(0.01)
    await cancelled_again_and_again(task)
    for _ in range(100):
        if len(trigger.requests) == 3:
            break
        await asyncio.sleep(0.01)
    assert task.done()


def test_a_trigger_that_is_cancelled_each_moment_stops_its_job_once(monkeypatch):
    monkeypatch.setattr("resumable.host.tells_triggers", lambda: True)
    trigger = Slow()
    asyncio.run(told(airflows(trigger), trigger))
    assert trigger.requests == [0, 1, 2]


def test_the_same_where_airflow_does_not_tell_a_trigger_and_it_asks_itself(monkeypatch):
    monkeypatch.setattr("resumable.host.tells_triggers", lambda: False)
    monkeypatch.setattr("resumable.host.cancelled_triggers_may_ask", lambda: True)
    trigger = Slow()

    async def run_trigger():
        async for _ in trigger.run():
            pass

    asyncio.run(told(run_trigger(), trigger))
    assert trigger.requests == [0, 1, 2]


def test_a_stop_that_hangs_is_not_waited_for_for_ever_and_nothing_is_left_of_it(monkeypatch):
    monkeypatch.setattr("resumable.host.tells_triggers", lambda: True)
    monkeypatch.setattr(triggers, "INSISTS", 0.0)
    trigger = Slow()

    async def hang():
        await asyncio.sleep(3600)

    trigger.cancel = hang

    async def stops():
        task = asyncio.ensure_future(airflows(trigger))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task], timeout=2)
        assert task.done()

    asyncio.run(stops())
    assert not triggers._under_way
