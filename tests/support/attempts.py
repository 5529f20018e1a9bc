"""A service, a store, and attempts at them, one after the other."""

from __future__ import annotations

import pytest

from resumable.jobs.decision import JobState, Recovery
from resumable.jobs.record import KEY, JobRecord
from tests.support.fake_service import (
    Clock,
    FakeService,
    FaultyStore,
    JobFailedError,
    Lines,
    new_attempt,
    start,
    watch,
)


class Bench:
    """A service, a store, and attempts at them, one after the other."""

    def __init__(self, recovery=Recovery.REPEAT, **service):
        self.clock = Clock()
        self.service = FakeService(recovery, self.clock, **service)
        self.store = FaultyStore()
        self.log = Lines()
        self.tries = 0

    def attempt(self, **choices):
        self.tries += 1
        choices = {"log": self.log, "try_number": self.tries, "store": self.store} | choices
        return new_attempt(self.service, choices.pop("store"), **choices)

    def start(self, params=None, token=None, **choices):
        """Start an attempt; return it once it watches a job."""
        attempt = self.attempt(**choices)
        start(attempt, self.service, params, token=token)
        return attempt

    def fail(self, verdict=JobState.FAILED, **choices):
        """Let the latest job fail while nobody looks, and start an attempt that sees it: its try fails."""
        self.service.finish(len(self.service.jobs) - 1, verdict)
        attempt = self.start(**choices)
        with pytest.raises(JobFailedError):
            watch(attempt, self.service)

    def die_in_submit(self, params=None, token=None, **choices):
        """Start an attempt whose worker dies when the service has taken the submit and nobody knows yet."""
        attempt = self.attempt(**choices)
        attempt.begin()
        token, sent = attempt.intend(params, token=token)
        self.service.submit(token, sent)
        return attempt

    def die_before_submit(self, params=None, **choices):
        """Start an attempt whose worker dies when the intent is written and nothing was sent."""
        attempt = self.attempt(**choices)
        attempt.begin()
        attempt.intend(params)
        return attempt

    @property
    def record(self):
        return JobRecord.from_json(self.store.memory.get(KEY))
