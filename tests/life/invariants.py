"""
What must hold whatever happens, in words of those who use it: the name is the first thing that a failure prints.

One list for every generator (the state machines, the lives of operators under contract, the soak)::

    JOBS_PER_TRY.holds(jobs <= tries, f"{jobs} jobs in {tries} tries")

A generator adds what it alone can see as an `Invariant` of its own here, so that a report over all of them has one vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any


class Broken(AssertionError):
    """Something that must hold does not. ``invariant`` is which."""

    def __init__(self, invariant: Invariant, seen: str) -> None:
        super().__init__(f"{invariant.name}: {seen} ({invariant.means})")
        self.invariant = invariant


@dataclass(frozen=True)
class Invariant:
    """
    Args:
        name: what a user would call it when it is broken.
        means: what is promised instead.
    """

    name: str
    means: str

    def holds(self, is_so: object, seen: str) -> None:
        """Raise `Broken` unless ``is_so``; ``seen`` says what was seen."""
        if not is_so:
            raise Broken(self, seen)


ALL: dict[str, Invariant] = {}
"""Every invariant by its name."""


def _new(name: str, means: str) -> Invariant:
    return ALL.setdefault(name, Invariant(name, means))


# -- jobs

ONE_AT_ONCE = _new("two jobs at once", "a task has at most one job that runs")
JOBS_PER_TRY = _new(
    "a job more than tries",
    "a failed job costs a try: no more jobs than tries, and one for each restart that an edit or a clear asked for",
)
CANCELLED_FOR_NOBODY = _new(
    "a healthy job cancelled for nobody", "a job is cancelled only if a user, the author's edit, a limit or a policy asks for it"
)
LEFT_UNSAID = _new(
    "a job left running unsaid", "when a task has ended and its job runs on, the record says why, or that a submit is in doubt"
)
STOP_LOST = _new("a user's stop lost", "who stops a task stops its job")
POLICY = _new("a policy not heeded", "what the author chose in resume_policy is what happens")
JOB_MISSING = _new("a job less than was asked for", "a clear, an edit and a failed job lead to a job of their own")
RECORD_WRONG = _new("a record that names another job", "what is kept names the task's last job")

# -- results

RESULT_LOST = _new("a result lost", "a job that has succeeded is delivered, and not run again until somebody asks for it")
RESULT_STALE = _new("a stale result", "what is delivered is of this clear and of this text of the job")
RESULT_STRANGE = _new("a stranger's job", "a task watches, delivers and cancels its own jobs and no others")
SUCCESS_FALSE = _new("a success that was none", "a task is a success only if its job is")
VERDICT = _new("a verdict overruled", "what the operator's own code makes of a job that has ended is what the task becomes")

# -- tries and ends

NEVER_ENDS = _new("a task that never ends", "starts of one try lead somewhere: to the end of the job, or of the try")
NO_TRY_HELPS = _new("no try helps", "once nothing breaks any more, a few tries end the task well")
TRY_FOR_NOTHING = _new("a try lost for nothing", "trouble of the wait, an eviction, a hand-back or a deferral uses up no try")
OUTAGE_MADE_UP = _new("an outage that was none", "only a store that did not answer is said not to have answered")
ERROR_UNREADABLE = _new("an error that says nothing", "a try fails with the job's own failure, or an error that says what to do")
GIVEN_UP_ACTS = _new("a given-up attempt acts", "an attempt that Airflow has given up submits, cancels and writes nothing")

# -- loops over items, marks, things that are done once

ITEM_LOST = _new("an item lost", "an item that is left out was done")
ITEM_TWICE = _new("an item done twice", "an item whose end was noted is not done again unless somebody asks for it")
ROW_UNREAD = _new("a row unread", "every row is read, whichever runs come, fail, or come late")
ROW_TWICE = _new("a row read twice", "a run that has ended reads no row that an earlier one has handed over")
ONCE_TWICE = _new("done twice", "what is to be done once is done once")
DEAD_GIVEN = _new("something dead given out", "what a task is given was set up for this clear, and has not been undone")
SECRET_KEPT = _new("a secret kept", "what Airflow masks stands in no store")
IN_USE = _new("what is in use destroyed", "what was set up stays while anybody works with it")
NO_STRANGE_CODE = _new("code run for a record", "the sweep imports and calls nothing but what the deployment has named")
STORE_FLOODED = _new("a store flooded", "writing takes about a twentieth of the time, however slow the store is")
VALUE_TOO_LARGE = _new("a value too large", "what is kept fits into task state, however long the list has become")
ORPHAN_KEPT = _new("something left behind", "what was set up is undone, or reported")


# -- many who wait

END_UNNOTICED = _new("an end that nobody noticed", "whoever waits for a job hears of its end, in time where nothing is wrong")
END_MADE_UP = _new("an end that was none", "whoever waits for a job hears of an end that the service has told, and of no other")
END_TWICE = _new("an end noticed twice", "an end is noticed once, by each of those who wait")
ERROR_OF_ANOTHER = _new("another's error", "no one who waits hears of an error that is another job's")
BUDGET_EXCEEDED = _new("more calls than the budget", "no account is asked more often than allowed, and less after it throttles")
MORE_CALLS = _new("more calls than one by one", "asking together never takes more calls than asking one by one")
WRONG_CALL = _new("a call about the wrong jobs", "one call asks about jobs of one group, no more than it takes")
LEFT_BEHIND = _new("something left behind", "when the last of those who wait has gone, no task and no call of a poller is left")

# -- over plain values, for those that count


def jobs_per_try(jobs: int, tries: int, granted: int = 0) -> None:
    """
    Args:
        jobs: submitted since the last clear.
        tries: that the task has had since then.
        granted: restarts that edits asked for, or a retry policy granted.
    """
    more = f" and {granted} restarts that were asked for" if granted else ""
    JOBS_PER_TRY.holds(jobs <= tries + granted, f"{jobs} jobs in {tries} tries{more}")


def one_at_once(running: Collection[Any]) -> None:
    """``running``: the jobs of one task that run at this moment."""
    ONE_AT_ONCE.holds(len(running) <= 1, f"{len(running)} jobs run: {list(running)}")


def none_cancelled_for_nobody(cancelled: Iterable[Any], wanted: Collection[Any]) -> None:
    """``cancelled``: jobs that a cancel reached while they ran. ``wanted``: those of them that somebody asked to stop."""
    unwanted = [job for job in cancelled if job not in wanted]
    CANCELLED_FOR_NOBODY.holds(not unwanted, f"cancelled, and nobody had asked for it: {unwanted}")
