"""When an answer that there is no such job is believed: the rules of `jobs.remote`, for looks that are planned ahead."""

from __future__ import annotations

from dataclasses import dataclass

from resumable.jobs.remote import ABSENT_ANSWERS, ABSENT_SECONDS


@dataclass(slots=True)
class Absence:
    """
    Counts single looks that were answered with "no such job", one after the other.

    Args:
        visible_at: on the poller's clock, when the service is sure to show the job.
    """

    visible_at: float
    answers: int = 0
    first_at: float = 0.0

    @classmethod
    def of(cls, now: float, wall: float, submitted_at: float, lag: float) -> Absence:
        """
        Args:
            now: on the poller's clock.
            wall: the same moment, in seconds since the epoch.
            submitted_at: in seconds since the epoch, by the clock of whoever submitted, which may have been ahead.
            lag: seconds after its submit before "there is no such job" is believed.
        """
        return cls(now + max(0.0, min(lag, submitted_at + lag - wall)))

    def forget(self) -> None:
        self.answers = 0

    def is_believed(self, now: float) -> bool:
        """Count one more such answer: whether it is believed."""
        if self.answers == 0:
            self.first_at = now
        self.answers += 1
        return self.answers >= ABSENT_ANSWERS and now - self.first_at >= ABSENT_SECONDS and now >= self.visible_at

    def pause(self, now: float, interval: float) -> float:
        """Seconds until it is worth asking again, where ``interval`` seconds are between two looks at a job that is seen."""
        return max(ABSENT_SECONDS / (ABSENT_ANSWERS - 1), min(self.visible_at - now, interval))
