"""Every operator of a provider that airflow.cfg makes durable keeps what our own operator promises."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from resumable import adoption
from resumable.jobs.operator import is_durable_class
from tests.contract.attempts import another_task, can_stop, die_in_the_wait, shape
from tests.contract.cases import DROP_ANSWER, Bench, Case
from tests.support.names import DAG
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]


@pytest.fixture(autouse=True)
def adopts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ADOPT", "all")


def adopted(case: Case, bench: Bench) -> TaskInstance:
    """The provider's own class, in a DAG that Airflow has parsed."""

    def make() -> Any:
        with DAG("dag", start_date=datetime(2026, 1, 1), schedule=None) as dag:
            case.theirs(task_id="task", **{**bench.arguments(), **case.extra})
        for task in dag.tasks:
            adoption.adopt(task)
        made = dag.task_dict["task"]
        assert is_durable_class(type(made))
        return made

    return TaskInstance(make)


def test_its_result_and_xcoms_are_the_providers(case: Case, bench: Bench) -> None:
    bench.at_once()
    another_task(bench)
    instance = adopted(case, bench)
    result = instance.attempt()
    assert instance.record["state"] in ("succeeded", "submitted")
    another_task(bench)
    theirs = TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments(), **case.extra))
    assert shape(result) == shape(theirs.attempt())
    assert shape(instance.xcoms) == shape(theirs.xcoms)


def test_a_retry_reattaches_to_the_job_that_runs(case: Case, bench: Bench) -> None:
    instance = adopted(case, bench)
    die_in_the_wait(instance, bench)
    bench.finish()
    instance.attempt()
    assert bench.jobs() == 1


def test_a_lost_answer_makes_no_second_job(case: Case, bench: Bench) -> None:
    bench.at_once()
    bench.server.fault(bench.submit, DROP_ANSWER)
    adopted(case, bench).attempt()
    assert bench.jobs() == 1


def test_on_the_way_back_its_job_is_finished_as_ours(case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = adopted(case, bench)
    die_in_the_wait(instance, bench)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ADOPT_NEW", "false")
    bench.finish()
    instance.attempt()
    assert bench.jobs() == 1


def test_on_the_way_back_one_without_a_job_is_exactly_the_providers(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ADOPT_NEW", "false")
    bench.at_once()
    instance = adopted(case, bench)
    instance.attempt()
    assert bench.jobs() == 1
    assert "resumable" not in instance.data


def test_a_clear_while_the_job_runs_leaves_one_job(case: Case, bench: Bench) -> None:
    if not can_stop(bench):
        pytest.skip("nothing stops such a job")
    instance = adopted(case, bench)
    die_in_the_wait(instance, bench)
    instance.clear()

    def finish_the_second(_: str) -> None:
        assert bench.active() <= 1
        if bench.jobs() > 1:
            bench.finish()

    instance.attempt(listener=finish_the_second)
    assert bench.jobs() == 2
    assert bench.cancels() >= 1
