"""A short soak on a real Airflow in every test run, and an oracle that can say no; the long one is `dev.py soak`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.cloud import Job
from tests.soak.oracle import Ledger, late_seconds, unwanted_seconds, violations
from tests.soak.plan import KINDS, STALL, Key, make_plan

SEED = int(os.environ.get("SOAK_SEED", "9"))


def a_job(number: int, started: float, ended: float | None, end: str) -> Job:
    return Job("t", number, started, ended, end)


FINE = Ledger("t", asked=2, stops={"1": 5.0}, delivered=[2], state="success", result=2, recorded=2)
JOBS = [a_job(1, 0, 6, "cancelled"), a_job(2, 7, 20, "success")]


def test_a_cleared_task_with_two_jobs_one_after_the_other_is_as_asked() -> None:
    assert violations(FINE, JOBS) == []
    assert (unwanted_seconds(FINE, JOBS), late_seconds(FINE, JOBS)) == (0, 1)


@pytest.mark.parametrize(
    ("change", "jobs", "complaint"),
    [
        ({"asked": 1}, JOBS, "2 jobs submitted, 1 asked for"),
        ({}, JOBS[1:], "1 jobs submitted, 2 asked for"),
        ({}, [a_job(1, 0, 8, "cancelled"), JOBS[1]], "2 jobs active at once"),
        ({}, [a_job(1, 0, 6, "success"), JOBS[1]], "although a user had stopped it"),
        ({"stops": {}}, JOBS, "a healthy job cancelled for nobody: t: job 1 was cancelled"),
        ({"delivered": []}, JOBS, "a result lost: t: job 2 ended as success"),
        ({}, [a_job(1, 0, 6, "failed"), JOBS[1]], "a user's stop lost"),
        ({}, [JOBS[0], a_job(2, 7, None, "")], "still running"),
        ({"state": "failed"}, JOBS, "ended as failed, not as success"),
        ({"result": 1}, JOBS, "returned 1, its job is 2"),
        ({"recorded": 1}, JOBS, "the record has 1, the last job is 2"),
        ({"stuck": "waited"}, JOBS, "stuck: waited"),
    ],
)
def test_whatever_is_not_as_asked_is_found(change: dict[str, object], jobs: list[Job], complaint: str) -> None:
    assert any(complaint in line for line in violations(Ledger(**{**vars(FINE), **change}), jobs))


def test_a_seed_always_gives_the_same_plan_of_the_size_that_was_asked_for() -> None:
    plan = make_plan(1, 40, 60)
    assert plan == make_plan(1, 40, 60) != make_plan(2, 40, 60)
    assert (len(plan.tasks), plan.size) == (40, 60)


def test_a_job_that_failed_by_itself_is_one_more_that_was_asked_for() -> None:
    ledger = Ledger(**{**vars(FINE), "stops": {}, "failed": ["1"]})
    assert violations(ledger, [a_job(1, 0, 6, "failed"), JOBS[1]]) == []
    assert unwanted_seconds(ledger, [a_job(1, 0, 6, "failed"), JOBS[1]]) == 0


def test_ordinary_life_is_drawn_too() -> None:
    plan = make_plan(1, 40, 200, ordinary=True)
    assert plan.size == 200
    drawn = {disruption.what for _, disruption in plan} | {name for _, name in plan.restarts}
    assert {"job fails", "part of the job fails", "job fails unseen", "job ends unseen", "throttle", "wrong 404", "edit"} <= drawn
    assert STALL in drawn
    assert {one for every in plan.kinds.values() for one in every} == set(KINDS)


def test_no_name_of_a_job_is_the_beginning_of_another() -> None:
    names = [key.job_name("ours") for key in make_plan(1, 200, 20).tasks]
    assert not [one for one in names for other in names if one != other and other.startswith(one)]
    assert Key("emr_poll", 1).service == "emr"


@pytest.mark.airflow
@pytest.mark.timeout(400)
def test_jobs_submitted_are_jobs_asked_for_whatever_happens(tmp_path: Path) -> None:
    from tests.soak.report import figures, table
    from tests.soak.run import running, soak

    plan = make_plan(SEED, tasks=6, disruptions=10, ordinary=True)
    print(f"\nseed {SEED}: {[f'{name}: {one}' for name, one in plan]}, {plan.restarts}")
    with running(tmp_path, plan, look_seconds=10) as (airflow, cloud):
        conductor, tasks = soak(airflow, cloud, plan, "ours", print, limit=300, job_seconds=(5.0, 5.0))
    print(table({"ours": figures(conductor, tasks)}))
    assert [line for task in tasks for line in violations(task.ledger, task.jobs)] == []
    assert conductor.struck.total() == plan.size
