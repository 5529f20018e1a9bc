"""Coming from the operators' own ``durable=True`` (Airflow 3.3): the job that it had started is gone on with."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import ResumableJobMixin

from resumable import LostSightError, ResumableMixin, StateStoreError, host, make_resumable
from tests.contract.cases import CASES, Bench, Case
from tests.services.aws_jobs import AwsError
from tests.support.names import BaseOperator
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [
    pytest.mark.skipif(not host.has_task_state(), reason="operators have durability of their own from 3.3 on"),
    pytest.mark.usefixtures("no_waiting"),
]

WITH_THEIR_OWN = [c for c in CASES if isinstance(c.theirs, type) and issubclass(c.theirs, ResumableJobMixin)]


@pytest.fixture(params=WITH_THEIR_OWN, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def left_by_theirs(case: Case, bench: Bench, **policy: Any) -> TaskInstance:
    """A task whose worker died while the provider's operator waited; from then on its DAG has ours."""
    instance = TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments()))
    die_once(instance, lambda: bool(instance.data))
    instance.make = lambda: ours_of(instance, case, bench, policy)
    return instance


def ours_of(instance: TaskInstance, case: Case, bench: Bench, policy: dict[str, Any]) -> Any:
    return case.ours(task_id="task", resume_policy=policy, retries=3, **{**bench.arguments(), **case.extra})


def die_once(instance: TaskInstance, when: Any) -> None:
    def listen(effect: str) -> None:
        instance.effects.dead = bool(when()) and effect != "store.set"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def test_a_job_that_runs_is_taken_up(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    instance.attempt(listener=lambda effect: "resumable" in instance.data and bench.finish())
    assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")


def test_a_job_that_has_succeeded_is_delivered(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    bench.finish()
    result = instance.attempt()
    assert (bench.jobs(), bench.server.count(bench.submit)) == (1, 1)
    bench.at_once()
    assert type(result) is type(TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments())).attempt())


def test_after_a_clear_one_that_has_succeeded_is_not_delivered(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    bench.finish()
    instance.clear()
    bench.at_once()
    instance.attempt()
    assert bench.jobs() == 2


def test_a_clear_is_also_told_by_max_tries_alone(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    bench.finish()
    instance.try_number, instance.max_tries = 3, 2 + 3  # cleared at try 2, of a run that Airflow does not count clears of
    bench.at_once()
    instance.attempt()
    assert bench.jobs() == 2


@pytest.mark.parametrize("end", ["failed", "forgotten"])
def test_a_job_that_has_failed_or_is_gone_is_followed_by_a_new_one(case: Case, bench: Bench, end: str) -> None:
    instance = left_by_theirs(case, bench)
    bench.finish(ok=False)
    if end == "forgotten":
        bench.forget()
    bench.at_once()
    instance.attempt()
    assert bench.server.count(bench.submit) == 2


def test_one_that_cannot_be_seen_is_left_alone_and_nothing_is_submitted(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    with bench.server.outage(bench.status), pytest.raises(LostSightError, match="Nothing was submitted"):
        instance.attempt()
    assert (bench.active(), bench.server.count(bench.submit)) == (1, 1)
    instance.attempt(listener=lambda effect: "resumable" in instance.data and bench.finish())
    assert bench.jobs() == 1


def test_the_job_that_was_taken_up_is_ours_from_then_on(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    die_once(instance, lambda: "resumable" in instance.data)
    instance.clear()
    instance.attempt(listener=lambda effect: bench.jobs() == 2 and bench.finish())
    assert (bench.jobs(), bench.cancels()) == (2, 1)


def test_nothing_is_submitted_while_their_key_cannot_be_read(case: Case, bench: Bench) -> None:
    instance = left_by_theirs(case, bench)
    asked: list[str] = []

    def down(verb: str) -> bool:
        asked.append(verb)
        return verb == "get" and asked.count("get") > 1  # there is no record of ours; then the store goes away

    instance.store_down = down
    with pytest.raises(StateStoreError, match="Nothing was submitted"):
        instance.attempt()
    assert bench.server.count(bench.submit) == 1


# -- where theirs defers, Glue's keeps no id: it marks the run, and its next try looks for the mark ---------------------


GLUE = next(c for c in CASES if c.name == "glue" and c.deferrable)


def left_deferring(bench: Bench, **more: Any) -> TaskInstance:
    """A task whose worker died while the provider's operator deferred; from then on its DAG has ours."""
    instance = TaskInstance(lambda: GLUE.theirs(task_id="task", **{**bench.arguments(), **GLUE.extra, **more}))
    with pytest.raises(WorkerDied):
        instance.attempt(listener=lambda effect: setattr(instance.effects, "dead", effect == "defer"))
    instance.make = lambda: ours_of(instance, GLUE, bench, {})
    instance.on_defer = lambda _: bench.finish()
    return instance


def no_such_job(_: Any) -> Any:
    raise AwsError("EntityNotFoundException", "Entity not found")


@pytest.mark.parametrize("ends", [False, True], ids=["running", "succeeded"])
def test_a_run_that_theirs_has_marked_where_it_defers_is_gone_on_with(ends: bool, monkeypatch: Any) -> None:
    with GLUE.bench(monkeypatch) as bench:
        instance = left_deferring(bench)
        if ends:
            bench.finish()
        assert instance.attempt() == bench.server.all[0].id
        assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")


@pytest.mark.parametrize("end", ["failed", "cleared", "another run's", "not marked", "no such job"])
def test_one_that_failed_or_is_not_of_this_run_is_followed_by_a_new_one(end: str, monkeypatch: Any) -> None:
    with GLUE.bench(monkeypatch) as bench:
        instance = left_deferring(bench, **({"durable": False} if end == "not marked" else {}))
        if end in ("failed", "cleared"):
            bench.finish(ok=end == "cleared")
        if end == "cleared":
            instance.clear()
        if end == "another run's":
            bench.server.all[0].body["Arguments"]["--airflow_task_uuid"] = "dag:task:yesterday:-1"
        if end == "no such job":
            monkeypatch.setattr(bench.server, "get_job_runs", no_such_job)
        instance.attempt()
        assert bench.jobs() == 2


def test_nothing_is_submitted_while_glue_cannot_be_asked_for_the_mark(monkeypatch: Any) -> None:
    with GLUE.bench(monkeypatch) as bench:
        instance = left_deferring(bench)
        with bench.server.outage(("GetJobRuns",)), pytest.raises(LostSightError, match="Nothing was submitted"):
            instance.attempt()
        assert bench.jobs() == 1
        instance.attempt()
        assert bench.jobs() == 1


def test_a_first_try_asks_nothing_more_of_task_state(case: Case, bench: Bench) -> None:
    bench.at_once()
    instance = TaskInstance(lambda: ours_of(instance, case, bench, {}))
    instance.attempt()
    begun = instance.effects.done[: instance.effects.done.index("store.set")]
    assert begun.count("store.get") == 1


class Farm:
    jobs: list[str] = []
    dies = False

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)  # type: ignore[attr-defined]

    def submit_job(self, context: Any) -> Any:
        self.jobs.append("running")
        return len(self.jobs) - 1 + 100

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return self.jobs[external_id - 100]

    def is_job_active(self, status: str) -> bool:
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "done"

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        if Farm.dies:
            raise WorkerDied
        self.jobs[external_id - 100] = "done"

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return external_id


class TheirTrain(Farm, ResumableJobMixin, BaseOperator):  # type: ignore[misc]
    external_id_key = "farm_job"


class OurTrain(Farm, ResumableMixin, BaseOperator):  # type: ignore[misc]
    external_id_key = "farm_job"


@pytest.mark.parametrize("ours", [OurTrain, make_resumable(TheirTrain)], ids=["import changed", "made"])
def test_a_custom_operator_whose_import_was_changed_goes_on_with_its_job(ours: Any) -> None:
    Farm.jobs, Farm.dies = [], True
    instance = TaskInstance(lambda: TheirTrain(task_id="task"))
    with pytest.raises(WorkerDied):
        instance.attempt()
    Farm.dies = False
    instance.make = lambda: ours(task_id="task")
    assert (instance.attempt(), len(Farm.jobs)) == (100, 1)
