"""What a trigger of ours does when a user stops a deferred task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from resumable import host

MARKED = ("failed", "success", "skipped", "removed", host.DELETED)
"""States of a deferred task that only a user, or Airflow on the end of its DAG run, gives it while its trigger runs."""


INSISTS = 25.0
"""Seconds for which what a stop sets going is waited for, however often the trigger is cancelled meanwhile; Airflow waits 30."""

_under_way: set[asyncio.Task[None]] = set()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """
    Do ``work`` as a task of its own, which a cancel of the trigger does not reach.

    Airflow cancels a trigger that is to stop each second until it has ended, also while it runs ``on_kill`` (seen on 3.3.2): what
    takes longer than that was never done.
    """
    task = asyncio.ensure_future(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    until = asyncio.get_running_loop().time() + INSISTS
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.done() or asyncio.get_running_loop().time() >= until:
                raise


class StopGuard:
    """
    Stands before a provider's trigger: a user's mark of the deferred task cancels the job, and nothing else does.

    Airflow cancels a trigger for many reasons and does not say which. Before 3.3 that is so also when the triggerer is restarted.
    From 3.3 on it calls ``on_kill`` for a mark and for a clear, and up to 3.3.2 also when the trigger was merely given to another
    triggerer, because its own had no heartbeat for a while. So a trigger asks for its task's state. After a clear, the next start
    of the task stops the job, or takes it up, as ``on_clear`` says. A state that cannot be asked for is no reason to cancel.

    ``keeps_on_clear`` does nothing any more. It is True in every serialised trigger, because the triggerer of an older release
    asks for the state only then.
    """

    log: Any
    task_instance: Any

    def __init__(self, *, keeps_on_clear: bool = True, **kwargs: Any) -> None:  # noqa: ARG002
        super().__init__(**kwargs)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kind = type(self)
        return f"{kind.__module__}.{kind.__name__}", {**super().serialize()[1], "keeps_on_clear": True}  # type: ignore[misc]

    def watch(self) -> AsyncIterator[Any]:
        """What ``run`` does while nobody stops the task: the provider's."""
        return super().run()  # type: ignore[misc,no-any-return]

    async def run(self) -> AsyncIterator[Any]:
        try:
            async for event in self.watch():
                yield event
        except asyncio.CancelledError:
            if not host.tells_triggers() and host.cancelled_triggers_may_ask():
                await _to_its_end(self._on_stopped())
            raise

    async def cancel(self) -> None:
        """Ask the service to stop the job: one request."""
        await super().on_kill()  # type: ignore[misc]

    async def on_kill(self) -> None:
        await _to_its_end(self._on_stopped())

    async def _on_stopped(self) -> None:
        try:
            state = await host.state_seen_by_trigger(self.task_instance)
        except Exception as e:
            self.log.warning(
                "resumable: the trigger was stopped and could not ask why (%r). Its job is left running; if a user has ended the "
                "task, stop it in the service",
                e,
            )
            return
        if state not in MARKED:
            self.log.info("resumable: the trigger was stopped, its job runs on: no user has ended the task (state %s)", state)
            return
        self.log.info("resumable: a user ended the deferred task (state %s): cancelling its job", state)
        try:
            await self.cancel()
        except Exception as e:
            self.log.warning("resumable: the job could not be cancelled, stop it in the service: %r", e)
