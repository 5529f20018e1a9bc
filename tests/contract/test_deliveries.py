"""To take up a job, and to deliver one that is done, changes nothing at any service: only questions are asked."""

from __future__ import annotations

import re

import pytest

from tests.contract.attempts import die_in_the_wait, task
from tests.contract.cases import Bench, Case

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

QUESTION = re.compile(r"http (Get|Describe|List|Head|BatchGet|GET |HEAD )")
"""An API call that asks."""


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
