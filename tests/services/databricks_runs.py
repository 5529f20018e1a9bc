"""One run of the simulated Databricks, and how it gets from state to state."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset({"TERMINATED", "SKIPPED", "INTERNAL_ERROR"})
"""Life cycle states without return: the provider's ``RunState.is_terminal``."""


@dataclass
class Run:
    """
    A run, one-time or of a job.

    Attributes:
        payload: the request that started it.
        repair_ids: one id for each repair, oldest first.
        tasks: task key by the task's own run id.
        started: ``time.time()`` of the start.
        since: ``time.time()`` of the start or of the latest repair: what *duration* counts from.
    """

    run_id: int
    job_id: int
    token: str | None
    payload: dict[str, Any]
    is_one_time: bool = False
    life_cycle_state: str = "RUNNING"
    result_state: str | None = None
    message: str = ""
    started: float = field(default_factory=time.time)
    since: float = field(default_factory=time.time)
    ended: float | None = None
    cancelled: bool = False
    repair_ids: list[int] = field(default_factory=list)
    tasks: dict[int, str] = field(default_factory=dict)
    reads_until_cancelled: int = 0

    @property
    def run_type(self) -> str:
        return "SUBMIT_RUN" if self.is_one_time else "JOB_RUN"

    @property
    def is_active(self) -> bool:
        return self.life_cycle_state not in ENDED

    @property
    def repairs(self) -> int:
        """Return how often it was repaired."""
        return len(self.repair_ids)

    def end(self, result: str, message: str = "") -> None:
        """Become TERMINATED with *result*."""
        self.life_cycle_state = "TERMINATED"
        self.result_state = result
        self.message = message
        self.ended = time.time()

    def end_if_older_than(self, duration: float) -> None:
        """Succeed when it has been running for *duration* seconds."""
        if self.life_cycle_state in ("PENDING", "RUNNING") and time.time() - self.since >= duration:
            self.end("SUCCESS")

    def cancel(self, lag_reads: int) -> None:
        """Become CANCELED, after *lag_reads* reads; one that has ended stays as it is."""
        if not self.is_active:
            return
        self.cancelled = True
        if lag_reads:
            self.life_cycle_state = "TERMINATING"
            self.reads_until_cancelled = lag_reads
        else:
            self.end("CANCELED", "Run cancelled.")

    def note_read(self) -> None:
        """Count a ``runs/get``: a cancelled run ends after its last one as TERMINATING."""
        if self.life_cycle_state != "TERMINATING" or not self.cancelled:
            return
        if self.reads_until_cancelled == 0:
            self.end("CANCELED", "Run cancelled.")
        self.reads_until_cancelled -= 1

    def repair(self, repair_id: int) -> None:
        """Run again under the same run id."""
        self.repair_ids.append(repair_id)
        self.life_cycle_state = "RUNNING"
        self.result_state = self.ended = None
        self.message = ""
        self.since = time.time()

    def state(self) -> dict[str, Any]:
        """Return the state as the API has it: ``result_state`` only when there is one."""
        state: dict[str, Any] = {
            "life_cycle_state": self.life_cycle_state,
            "state_message": self.message,
            "user_cancelled_or_timedout": self.cancelled,
        }
        return state if self.result_state is None else {**state, "result_state": self.result_state}
