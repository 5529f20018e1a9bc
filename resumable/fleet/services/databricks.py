"""How Databricks is asked about many job runs: the list of those that run, 25 a page, other people's among them.

Facts on the service (Jobs API 2.2, runs/list): with ``active_only`` it shows the runs in QUEUED, PENDING, RUNNING or TERMINATING,
those that started last first; ``limit`` is 25 at most; ``next_page_token`` names the next page. A workspace takes 100 runs/get a
second ("Resource limits"); for runs/list no figure is published.
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


def _listed(hook: Any, asked: Sequence[JobHandle], place: Place, cursor: Any) -> Page:  # noqa: ARG001
    """
    One page. A run in it is seen to run; what became of one that has left it is said by a look at that run alone.

    The provider's hook has no method for this list, so its call for any is used, as the hook's own methods do.
    """
    more = {} if cursor is None else {"page_token": cursor}
    answer = hook._do_api_call(LIST_RUNS, {"active_only": "true", "limit": RUNS_A_PAGE, "expand_tasks": "false", **more})
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
    listing=Listing("databricks:runs/list", RUNS_A_PAGE, _listed),
    rates={"databricks:runs/get": Rate(100, 100)},
)
