"""What a trigger of ours does when a user stops a deferred task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from resumable import compat


class StopGuard:
    """
    Stands before a provider's trigger: a user's stop cancels the job, except for a clear under ``on_clear="reattach"``.

    Airflow 3.3 and later call ``on_kill`` when a user marked or cleared the deferred task, and never when the triggerer is
    restarted. After a clear the next attempt may be running by then and have reattached to the job.

    Before, a trigger is cancelled in all of these cases alike, so it asks for its task's state where it can (2.11, 3.2): only a
    user's mark cancels the job. After a clear the next attempt stops it; while the state is still deferred, another triggerer
    goes on.
    """

    keeps_on_clear: bool
    log: Any
    task_instance: Any

    def watch(self) -> AsyncIterator[Any]:
        """What ``run`` does while nobody stops the task: the provider's."""
        return super().run()  # type: ignore[misc,no-any-return]

    async def run(self) -> AsyncIterator[Any]:
        try:
            async for event in self.watch():
                yield event
        except asyncio.CancelledError:
            if not compat.tells_triggers() and compat.cancelled_triggers_may_ask():
                await self._on_cancelled()
            raise

    async def cancel(self) -> None:
        """Ask the service to stop the job: one request."""
        await super().on_kill()  # type: ignore[misc]

    async def on_kill(self) -> None:
        if self.keeps_on_clear and not await compat.was_marked(self.task_instance):
            self.log.info("resumable: the task was cleared, on_clear=reattach: its job is left running")
            return
        self.log.info("resumable: a user ended or cleared the deferred task: cancelling its job")
        await self.cancel()

    async def _on_cancelled(self) -> None:
        try:
            if await compat.was_marked(self.task_instance):
                self.log.info("resumable: a user ended the deferred task: cancelling its job")
                await self.cancel()
        except Exception as e:
            say = "resumable: the trigger was cancelled. If a user ended the task, its job runs on; stop it in the service: %r"
            self.log.warning(say, e)
