"""What a trigger of ours does when a user stops a deferred task."""

from __future__ import annotations

from typing import Any

from resumable import compat


class StopGuard:
    """
    Stands before a provider's trigger: ``on_kill`` cancels the job, except for a clear under ``on_clear="reattach"``.

    Airflow calls ``on_kill`` (3.3 and later) when a user marked or cleared the deferred task, and never when the triggerer is
    restarted. After a clear the next attempt may be running by then and have reattached to the job.
    """

    keeps_on_clear: bool
    log: Any
    task_instance: Any

    async def cancel(self) -> None:
        """Ask the service to stop the job: one request."""
        await super().on_kill()  # type: ignore[misc]

    async def on_kill(self) -> None:
        if self.keeps_on_clear and await compat.was_cleared(self.task_instance):
            self.log.info("resumable: the task was cleared, on_clear=reattach: its job is left running")
            return
        self.log.info("resumable: a user ended or cleared the deferred task: cancelling its job")
        await self.cancel()
