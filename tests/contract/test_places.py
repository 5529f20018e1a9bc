"""A token, a name, an id mean nothing in another account: no AWS operator submits there, or takes silence there for "gone"."""

from __future__ import annotations

import inspect

import pytest

from resumable import ForeignJobError
from resumable.jobs.decision import Recovery
from resumable.operators._aws import AwsCall
from tests.contract.attempts import die_in_the_wait, task
from tests.contract.cases import CASES, Bench, Case
from tests.support.runner import WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

ELSEWHERE = "999999999999"
AWS = [case for case in CASES if issubclass(case.ours._resumable.service, AwsCall)]


@pytest.mark.parametrize("case", AWS, ids=str)
def test_a_job_that_another_account_does_not_know_is_not_taken_for_gone(case: Case, bench: Bench) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    instance.record["place"]["account"] = ELSEWHERE
    bench.forget()
    with pytest.raises(ForeignJobError, match=ELSEWHERE):
        instance.attempt()
    assert bench.server.count(bench.submit) == 1


@pytest.mark.parametrize("policy", [{}, {"on_clear": "reattach"}], ids=["restart", "reattach"])
@pytest.mark.parametrize("case", AWS, ids=str)
def test_a_job_of_another_account_is_not_looked_at_delivered_cancelled_or_replaced(
    case: Case, bench: Bench, policy: dict[str, str]
) -> None:
    instance = task(case, bench, resume_policy=policy)
    die_in_the_wait(instance, bench)
    assert instance.record["place"]["account"]
    instance.record["place"]["account"] = ELSEWHERE
    looks = [bench.server.count(operation) for operation in bench.status]
    with pytest.raises(ForeignJobError, match=ELSEWHERE):
        instance.attempt()
    instance.clear()
    bench.finish()  # a job that has the same name there, and has succeeded
    with pytest.raises(ForeignJobError, match=ELSEWHERE):
        instance.attempt()
    assert [bench.server.count(operation) for operation in bench.status] == looks
    assert (bench.server.count(bench.submit), bench.cancels()) == (1, 0)


@pytest.mark.parametrize("case", AWS, ids=str)
def test_a_doubt_of_another_account_submits_nothing_here(case: Case, bench: Bench) -> None:
    instance = task(case, bench)

    def listen(effect: str) -> None:
        instance.effects.dead = effect == f"http {bench.submit}"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    instance.record["place"]["account"] = ELSEWHERE
    if case.ours._resumable.service.recovery is Recovery.LOOK_UP:
        bench.forget()
    with pytest.raises(ForeignJobError, match=ELSEWHERE):
        instance.attempt()
    assert bench.server.count(bench.submit) == 1


def test_every_operator_is_under_contract_in_every_mode_that_it_has() -> None:
    def can_defer(operator: type) -> bool:
        inits = [vars(c)["__init__"] for c in operator.__mro__ if "__init__" in vars(c)]
        return any("deferrable" in inspect.signature(init).parameters for init in inits)

    assert {case.ours for case in CASES if can_defer(case.ours)} == {case.ours for case in CASES if case.deferrable}
