"""How Databricks is asked about many job runs: the list of those that run, 25 a page, other people's among them.

Facts on the service (Jobs API 2.2, runs/list): with ``active_only`` it shows the runs in QUEUED, PENDING, RUNNING or TERMINATING,
those that started last first; ``limit`` is 25 at most; ``next_page_token`` names the next page; ``run_type`` leaves out all but
those that were made by runs/submit (SUBMIT_RUN), run-now (JOB_RUN) or another notebook (WORKFLOW_RUN). A workspace takes 100
runs/get a second ("Resource limits"); for runs/list no figure is published.

No filter leaves out what another triggerer waits for: with two of them a page shows half as many of one's own. One edition of the
documentation lets the list of those that have ended begin with the one that ended last, which would be a shorter way; the others
do not, so nothing relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from resumable.fleet.budget import Rate
from resumable.fleet.lookups import Listing, Lookup, Page, Place
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle

RUNS_A_PAGE = 25
LIST_RUNS = ("GET", "2.2/jobs/runs/list")

_RUNS = frozenset({"QUEUED", "PENDING", "RUNNING", "TERMINATING", "BLOCKED", "WAITING_FOR_RETRY"})


def _run_id(handle: JobHandle) -> Any:
    return handle.ids.get("run_id") if isinstance(handle.ids, Mapping) else None


def _made_with(handle: JobHandle) -> str:
    """
    The ``run_type`` of a run: a handle has the id of a job when the run was made of one.

    One that was found without it (an adopted run of a job) is not in the list of the others: it is asked about alone.
    """
    return "JOB_RUN" if isinstance(handle.ids, Mapping) and handle.ids.get("job_id") else "SUBMIT_RUN"


def _listed(hook: Any, asked: Sequence[JobHandle], place: Place, cursor: Any) -> Page:  # noqa: ARG001
    """
    One page of those that were made in the same way. A run in it is seen to run; what became of one that has left it is said by a
    look at that run alone.

    The provider's hook has no method for this list, so its call for any is used, as the hook's own methods do.
    """
    wanted = {"active_only": "true", "run_type": _made_with(asked[0]), "limit": RUNS_A_PAGE, "expand_tasks": "false"}
    answer = hook._do_api_call(LIST_RUNS, wanted if cursor is None else {**wanted, "page_token": cursor})
    words = {run.get("run_id"): str(run.get("state", {}).get("life_cycle_state")) for run in answer.get("runs", ())}
    seen = {
        i: Observation(JobState.ACTIVE, word)
        for i, handle in enumerate(asked)
        if (word := words.get(_run_id(handle))) is not None and word in _RUNS
    }
    return Page(seen, answer.get("next_page_token") or None)


RUNS = Lookup(
    "databricks",
    "databricks:runs/get",
    group=_made_with,
    listing=Listing("databricks:runs/list", RUNS_A_PAGE, _listed),
    rates={"databricks:runs/get": Rate(100, 100)},
)
