"""To take up a job, and to deliver one that is done, changes nothing at any service: only questions are asked."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.contract.cases import CASES, Bench, Case
from tests.contract.test_contract import die_in_the_wait, no_waiting, task  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

QUESTION = re.compile(r"http (Get|Describe|List|Head|BatchGet|InvokeRestApi$|GET |HEAD )")
"""An API call that asks; of MWAA's one operation for everything it is looked at what was asked for."""


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def bench(case: Case, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with case.bench(monkeypatch) as bench:
        yield bench


@pytest.mark.parametrize("ends", [True, False], ids=["done", "active"])
def test_a_job_that_is_there_is_asked_about_and_nothing_else(case: Case, bench: Bench, ends: bool) -> None:
    instance = task(case, bench)
    die_in_the_wait(instance, bench)
    if ends:
        bench.finish()
    submits = bench.server.count(bench.submit)
    instance.attempt(listener=lambda effect: effect == "store.set" and bench.finish())
    requests = [effect for effect in instance.effects.done if effect.startswith("http ")]
    assert [one for one in requests if not QUESTION.match(one)] == []
    assert (bench.jobs(), bench.server.count(bench.submit), bench.cancels()) == (1, submits, 0)
    assert submits == 1
