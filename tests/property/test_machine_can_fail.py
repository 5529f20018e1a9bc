"""The state machine finds what it is for: each mutation takes one safeguard away, and a claim breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from resumable.identity import Generation, TaskIdentity
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import JobState, Submit, decide
from resumable.jobs.remote import Remote
from resumable.stores.base import RecordStore
from tests.life.script import budget
from tests.property.test_state_machine import TaskLife, TaskLifeFind, TaskLifeFindUnfenced

QUICK = settings(
    budget(3000, 30),
    max_examples=3000,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


def no_intent(patch):
    """Submit first, write later."""
    save = RecordStore.save

    def save_handles_only(self, record, **tries):
        if not record.in_doubt:
            save(self, record, **tries)

    patch.setattr(RecordStore, "save", save_handles_only)


def token_without_generation(patch):
    """Use one token before and after a clear."""
    token = TaskIdentity.token
    patch.setattr(TaskIdentity, "token", lambda self, _, n: token(self, Generation(0), n))


def token_without_submission(patch):
    """Use one token for all submissions."""
    token = TaskIdentity.token
    patch.setattr(TaskIdentity, "token", lambda self, generation, _: token(self, generation, 0))


def unknown_is_failed(patch):
    """Take a job that cannot be seen for a failed one."""

    def mutant(record, observation, policy, claim):
        if record is not None and observation is not None and observation.state is JobState.UNKNOWN:
            return Submit(record.submission + 1, "it looks dead")
        return decide(record, observation, policy, claim)

    patch.setattr("resumable.jobs.attempt.decide", mutant)


def unanswered_is_failed(patch):
    """Take an unanswered submit for a failed one."""

    def mutant(record, observation, policy, claim):
        if record is not None and record.in_doubt:
            return Submit(record.submission + 1, "no answer, no job")
        return decide(record, observation, policy, claim)

    patch.setattr("resumable.jobs.attempt.decide", mutant)


def success_is_not_noticed(patch):
    """Run a job again that ended well while nobody watched."""

    def mutant(record, observation, policy, claim):
        if record is not None and observation is not None and observation.state is JobState.SUCCEEDED:
            return Submit(record.submission + 1, "it has ended")
        return decide(record, observation, policy, claim)

    patch.setattr("resumable.jobs.attempt.decide", mutant)


def edits_are_not_noticed(patch):
    """Reattach whatever the author changed."""
    patch.setattr(
        "resumable.jobs.attempt.decide",
        lambda record, seen, policy, claim: decide(record, seen, policy, replace(claim, spec=None)),
    )


def clears_are_not_noticed(patch):
    """Take a clear for a retry."""

    def mutant(record, observation, policy, claim):
        return decide(record, observation, policy, replace(claim, generation=record.generation) if record else claim)

    patch.setattr("resumable.jobs.attempt.decide", mutant)


def restart_does_not_wait(patch):
    """Submit once the cancel request is out."""
    patch.setattr(Attempt, "_stop", lambda self, _: self.adapter.cancel(self.record.handle))


def owners_are_not_compared(patch):
    """Let every process write."""
    patch.setattr(RecordStore, "_check_owner", lambda *_: None)


def absent_is_believed_at_once(patch):
    """Look once for the job of an unanswered submit."""
    patch.setattr(Remote, "find", lambda self, record, since: self.adapter.find(record))


MUTATIONS = [
    (no_intent, TaskLifeFind),
    (token_without_generation, TaskLife),
    (token_without_submission, TaskLife),
    (unknown_is_failed, TaskLife),
    (unanswered_is_failed, TaskLife),
    (unanswered_is_failed, TaskLifeFind),
    (success_is_not_noticed, TaskLife),
    (edits_are_not_noticed, TaskLife),
    (clears_are_not_noticed, TaskLife),
    (restart_does_not_wait, TaskLife),
    (owners_are_not_compared, TaskLifeFindUnfenced),
    (absent_is_believed_at_once, TaskLifeFind),
]


@pytest.mark.parametrize(("mutate", "machine"), MUTATIONS, ids=lambda value: value.__name__)
def test_the_machine_fails_without(mutate, machine, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=QUICK)
