"""SIGKILL of supervisor and task on a real Airflow 3.3: one job each, and the provider's own operators beside ours."""

from __future__ import annotations

import pytest

from tests.airflow.harness import Airflow
from tests.crash.scenarios import PLAN, Outcome, Remote, run_all

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900)]

Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def outcomes(airflow: Airflow, remote: Remote) -> dict[Key, Outcome]:
    print()
    found = run_all(airflow, remote, PLAN, print)
    print(table(found))
    return {(o.whose, o.kind, o.scenario): o for o in found}


def table(outcomes: list[Outcome]) -> str:
    rows = [f"{'operator':24} {'worker killed':24} {'jobs ours':>10} {'theirs':>7}"]
    by_key = {(o.whose, o.kind, o.scenario): o for o in outcomes}
    for (whose, kind, scenario), o in by_key.items():
        if whose == "ours":
            theirs = by_key.get(("theirs", kind, scenario))
            rows.append(f"{kind:24} {scenario:24} {o.jobs:>10} {theirs.jobs if theirs else '-':>7}")
    return "\n".join(rows)


OURS = [key for key in PLAN if key[0] == "ours"]


@pytest.mark.parametrize("key", OURS, ids=lambda k: f"{k[1]}-{k[2].replace(' ', '-')}")
def test_one_job_and_success_when_the_worker_is_killed(outcomes: dict[Key, Outcome], key: Key) -> None:
    o = outcomes[key]
    assert (o.state, o.tries, o.jobs, o.cancels) == ("success", 2, 1, 0), o.log


@pytest.mark.parametrize("key", OURS, ids=lambda k: f"{k[1]}-{k[2].replace(' ', '-')}")
def test_the_retry_leaves_xcoms_links_and_record_behind(outcomes: dict[Key, Outcome], key: Key) -> None:
    o = outcomes[key]
    if o.kind.startswith("emr"):
        assert o.xcoms["job_flow_id"] == o.record["job"]["cluster"]
        assert o.xcoms["return_value"] == o.record["job"]["steps"]
        assert len(o.record["job"]["steps"]) == 2
    else:
        assert o.xcoms["run_id"] == o.record["job"]["run_id"]
        assert str(o.xcoms["run_id"]) in o.xcoms["run_page_url"]
    assert all(o.links.values())
    assert o.record["state"] == "succeeded"


def test_a_reattachment_says_so_in_one_line_with_job_attempt_age_and_reason(outcomes: dict[Key, Outcome]) -> None:
    log = outcomes["ours", "databricks", "in the wait"].log
    lines = [line for line in log.splitlines() if "resumable:" in line]
    assert len(lines) == 1, lines
    for part in ("reattached to databricks run_id=", "attempt 2", "try 2", "age 00:00:", "RUNNING", "an earlier attempt"):
        assert part in lines[0]
