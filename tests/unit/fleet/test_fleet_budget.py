"""How often a service is asked: the published rate is never exceeded, and throttling is given way to."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable.errors import ConfigurationError
from resumable.fleet.budget import Budget, Budgets, Rate, Turns, rates_of
from tests.support.simulated_time import simulated


def test_a_burst_goes_out_at_once_and_what_follows_at_the_rate() -> None:
    budget = Budget(Rate(0.5, 2), 0.0)
    for _ in range(2):
        assert budget.delay(0.0) == 0.0
        budget.spend(0.0)
    assert budget.delay(0.0) == pytest.approx(2.0)
    assert budget.delay(1.5) == pytest.approx(0.5)
    assert budget.delay(2.0) == 0.0


def test_a_rest_saves_no_more_than_a_burst() -> None:
    budget = Budget(Rate(1, 3), 0.0)
    for _ in range(3):
        budget.spend(1e6)
    assert budget.delay(1e6) > 0


@given(
    st.floats(0.05, 50),
    st.floats(1, 20),
    st.lists(st.tuples(st.floats(0, 30), st.sampled_from(["call", "throttled", "answered", "costly"])), max_size=60),
)
def test_no_span_of_time_has_more_calls_than_is_allowed(per_second: float, burst: float, steps: list[tuple[float, str]]) -> None:
    budget, now, calls = Budget(Rate(per_second, burst), 0.0), 0.0, []
    for passed, what in steps:
        now += passed
        if what == "throttled":
            budget.throttled(now)
        elif what == "answered":
            budget.answered(now)
        else:
            cost = 3 if what == "costly" else 1
            now += budget.delay(now, cost)
            budget.spend(now, cost)
            calls += [now] * cost
    costliest = 3
    for i, begin in enumerate(calls):
        for j in range(i, len(calls)):
            assert j - i + 1 <= burst + costliest + per_second * (calls[j] - begin) + 1e-6


def test_a_throttled_call_halves_the_rate_once_for_all_that_were_under_way() -> None:
    budget = Budget(Rate(8, 8), 0.0)
    for _ in range(5):
        budget.throttled(10.0)
    assert budget.per_second == 4
    assert budget.is_throttled
    assert budget.delay(10.0) == pytest.approx(0.25)
    budget.throttled(11.0)
    assert budget.per_second == 2


def test_it_is_asked_on_however_often_it_throttles() -> None:
    budget = Budget(Rate(1, 1), 0.0)
    for i in range(50):
        budget.throttled(1000.0 * i)
    assert budget.delay(1e6) == 0.0
    assert budget.per_second == pytest.approx(1 / 64)


def test_the_rate_grows_in_a_straight_line_with_the_time_of_answers_and_stops_at_what_is_allowed() -> None:
    budget = Budget(Rate(12, 12), 0.0)
    budget.throttled(0.0)
    budget.answered(30.0)
    assert budget.per_second == pytest.approx(6 + 3)
    budget.answered(60.0)
    assert budget.per_second == pytest.approx(12)
    budget.answered(600.0)
    assert budget.per_second == 12
    assert not budget.is_throttled


def test_callers_have_their_turn_in_the_order_in_which_they_came() -> None:
    with simulated() as loop:
        turns, order = Turns(Budget(Rate(1, 1), loop.time()), loop.time), []

        async def caller(name: int) -> None:
            await turns.take()
            order.append((name, loop.time() - 1000.0))

        loop.run_until_complete(_all(*(caller(i) for i in range(4))))
        assert order == [(i, pytest.approx(i)) for i in range(4)]


def test_a_caller_who_leaves_the_line_takes_nothing() -> None:
    with simulated() as loop:
        turns = Turns(Budget(Rate(1, 1), loop.time()), loop.time)

        async def scene() -> float:
            await turns.take()
            waiting = asyncio.ensure_future(turns.take())
            await asyncio.sleep(0.5)
            waiting.cancel()
            await turns.take()
            return loop.time()

        assert loop.run_until_complete(scene()) == pytest.approx(1001.0)


def test_a_look_of_several_calls_goes_out_once_the_bucket_is_full_and_is_paid_for() -> None:
    budget = Budget(Rate(1, 2), 0.0)
    assert budget.delay(0.0, 5) == 0.0
    budget.spend(0.0, 5)
    assert budget.delay(0.0) == pytest.approx(4.0)


def test_one_budget_for_an_operation_and_account_whoever_asks() -> None:
    budgets = Budgets({"emr:ListSteps": Rate(0.5, 10)}, default=Rate(10, 20), clock=lambda: 0.0)
    assert budgets.of("emr:ListSteps", "1") is budgets.of("emr:ListSteps", "1")
    assert budgets.of("emr:ListSteps", "1") is not budgets.of("emr:ListSteps", "2")
    assert budgets.of("emr:ListSteps", "1").budget.allowed == Rate(0.2, 4)
    assert budgets.of("other:Op", "1").budget.allowed == Rate(4, 8)


def test_share_and_rates_can_be_set() -> None:
    settings = rates_of("emr:ListSteps=2/20, databricks:runs/get = 50")
    assert settings == {"emr:ListSteps": Rate(2, 20), "databricks:runs/get": Rate(50, 50)}
    budgets = Budgets({"emr:ListSteps": Rate(0.5, 10)}, default=Rate(10, 20), clock=lambda: 0.0, share=0.1, settings=settings)
    assert budgets.allowed("emr:ListSteps") == Rate(2, 20)
    assert budgets.allowed("emr:DescribeStep") == Rate(1, 2)


@pytest.mark.parametrize("text", ["emr", "emr:ListSteps=", "emr:ListSteps=0", "emr:ListSteps=x", "emr:ListSteps=1/0.5", "=3"])
def test_a_setting_that_is_no_rate_is_refused_with_its_words(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no rate"):
        rates_of(text)


def test_a_share_is_between_nothing_and_all() -> None:
    for share in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match="no share"):
            Budgets({}, default=Rate(1, 1), clock=lambda: 0.0, share=share)


def test_budgets_that_have_rested_are_dropped_and_others_kept() -> None:
    now = [0.0]
    budgets = Budgets({}, default=Rate(10, 20), clock=lambda: now[0])
    budgets.of("a:A", "1").budget.spend(0.0)
    budgets.of("b:B", "1").throttled()
    budgets.forget_rested()
    assert len(budgets) == 2
    now[0] = 60.0
    budgets.forget_rested()
    assert len(budgets) == 1


async def _all(*work: object) -> None:
    await asyncio.gather(*work)  # type: ignore[arg-type]


def test_a_budget_that_somebody_waits_for_is_kept_however_full_it_is() -> None:
    """Two of one operation would let twice as many calls through."""
    with simulated() as loop:
        budgets = Budgets({"x:y": Rate(0.2, 1)}, default=Rate(1), clock=loop.time, share=1.0)
        turns = budgets.of("x:y", "account")
        for _ in range(8):
            turns.throttled()
            loop.pass_time(400.0)
        turns.throttled()
        waits = loop.create_task(turns.take())
        loop.pass_time(200.0)
        turns.answered()
        loop.pass_time(20.0)
        budgets.forget_rested()
        assert not waits.done()
        assert budgets.of("x:y", "account") is turns
        loop.pass_time(120.0)
        assert waits.done()
        loop.pass_time(20.0)
        budgets.forget_rested()
        assert len(budgets) == 0
