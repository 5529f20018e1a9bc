"""The author's own limits of a wait end the try as in the provider's operator, the job runs on; the defaults end none."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import WaitLimitError
from resumable.jobs.limits import Limit, tells_of_limit
from tests.contract.cases import CASES, Bench, Case
from tests.support import runner
from tests.support.names import AirflowException, AirflowFailException, AirflowRescheduleException, AirflowTaskTimeout
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

WITH_LIMITS = [
    (case, limit) for case in CASES for limit in case.ours._resumable.service.limits if case.deferrable or not limit.deferred_only
]
OPERATORS = {case.ours: case for case in CASES}
DOCS = Path(__file__).parents[2] / "docs" / "operators.md"


@pytest.fixture(params=WITH_LIMITS, ids=lambda both: f"{both[0]}-{both[1].argument}")
def case_and_limit(request: pytest.FixtureRequest) -> tuple[Case, Limit]:
    return request.param


@pytest.fixture
def bench(case_and_limit: tuple[Case, Limit], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with case_and_limit[0].bench(monkeypatch) as bench:
        yield bench


def limited(case: Case, limit: Limit, bench: Bench, value: int | None, **more: Any) -> TaskInstance:
    """A task with ``value`` for the limit, None for the provider's default, and a second between two looks."""
    pauses = (limit.pause,) if isinstance(limit.pause, str) else limit.pause or ("check_interval",)
    arguments = {**bench.arguments(), **case.extra, pauses[0]: 1, **more}
    arguments.pop(limit.argument, None)
    if value is not None:
        arguments[limit.argument] = value
    return TaskInstance(lambda: case.ours(task_id="task", **arguments))


def timed_out_deferral(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_run_trigger", lambda deferred: ("__fail__", {"error": "Trigger timeout"}))


def test_a_limit_of_the_authors_ends_the_try_and_the_next_try_reattaches(
    case_and_limit: tuple[Case, Limit], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, limit = case_and_limit
    instance = limited(case, limit, bench, 3)
    with monkeypatch.context() as patched:
        if case.deferrable and not limit.pause:
            timed_out_deferral(patched)
        with pytest.raises((Exception, AirflowTaskTimeout)) as ended:
            instance.attempt()
    assert not isinstance(ended.value, AirflowRescheduleException | AirflowFailException)
    assert (bench.active(), bench.jobs(), bench.cancels()) == (1, 1, 0)
    assert instance.record["state"] == "submitted"
    bench.finish()
    instance.attempt()
    assert (bench.jobs(), instance.try_number, instance.record["state"]) == (1, 2, "succeeded")


def test_the_providers_default_ends_no_try(case_and_limit: tuple[Case, Limit], bench: Bench) -> None:
    case, limit = case_and_limit
    instance = limited(case, limit, bench, None)
    default = getattr(instance.make(), limit.argument)
    if default is None or default > 100:
        pytest.skip("no default, or one that no job outlasts here")
    looks = [0]

    def finish_late(effect: str) -> None:
        looks[0] += effect.startswith("http")
        if looks[0] > 3 * default:
            bench.finish()

    try:
        instance.attempt(listener=finish_late)
    except AirflowRescheduleException:  # the trigger gave up: the task is started again, which uses up no try
        assert case.deferrable
        instance.try_number -= 1
        bench.finish()
        instance.attempt()
    assert (bench.jobs(), bench.cancels(), instance.try_number) == (1, 0, 1)
    assert instance.record["state"] == "succeeded"


def test_with_wait_reschedule_a_limit_counts_the_looks_of_a_try(case_and_limit: tuple[Case, Limit], bench: Bench) -> None:
    case, limit = case_and_limit
    if case.deferrable:
        pytest.skip("two ways to give the slot back exclude each other")
    pauses = (limit.pause,) if isinstance(limit.pause, str) else limit.pause
    policy = {"wait": "reschedule", "wait_interval": 60}
    instance = limited(case, limit, bench, 3 if pauses else 180, resume_policy=policy, **({pauses[0]: 60} if pauses else {}))
    for _ in range(2):  # the limit is that of one try
        for _ in range(2):
            with pytest.raises(AirflowRescheduleException):
                instance.attempt()
            instance.try_number -= 1
        with pytest.raises(WaitLimitError, match=rf"{limit.argument}=.*runs on\..*The next try reattaches"):
            instance.attempt()
    assert (bench.active(), bench.jobs(), bench.cancels()) == (1, 1, 0)


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda o: o.__name__)
def test_every_argument_that_limits_a_wait_is_known_and_documented(operator: Any) -> None:
    words = re.compile(r"^(waiter_)?max_(attempts|polling_attempts|retries|tries|iterations|ingestion_time)$")
    of_the_run = {"max_retries"} if "databricks" in operator.__module__ else set()
    known = {name for cls in operator.__mro__ if "__init__" in vars(cls) for name in inspect.signature(cls.__init__).parameters}
    wanted = {name for name in known if words.match(name)} - of_the_run
    assert wanted == {limit.argument for limit in operator._resumable.service.limits}
    documented = DOCS.read_text().partition("## Limits of the wait")[2].partition("\n## ")[0]
    assert all(f"`{limit}`" in documented for limit in wanted)


EACH = {(case.ours, limit): f"{case.ours.__name__}-{limit.argument}" for case, limit in WITH_LIMITS}


@pytest.mark.parametrize(("operator", "one"), EACH, ids=EACH.values())
def test_a_limit_that_is_given_as_the_default_is_none(operator: Any, one: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    with OPERATORS[operator].bench(monkeypatch) as bench:
        arguments = {k: v for k, v in bench.arguments().items() if k != one.argument}
        task = operator(task_id="task", **arguments, deferrable=True) if one.deferred_only else operator(task_id="t", **arguments)
        default = getattr(task, one.argument)
        assert one.of_author(task) is None
        if default is not None:
            setattr(task, one.argument, default + 1)
            assert one.of_author(task) == default + 1


@pytest.mark.parametrize(
    ("words", "is_limit"),
    [
        ("Waiter error: max attempts reached", True),
        ("Waiter TasksStopped failed: Max attempts exceeded", True),
        ("AWS Batch job (1) status checks exceed max_retries", True),
        ("Waiter error: max attempts reached due to missing credentials: none", False),
        ("An error occurred (ThrottlingException) when calling the GetJobRun operation (reached max retries: 4): Rate", False),
        ("Connection reset by peer", False),
    ],
)
def test_only_a_wait_that_gave_up_by_itself_is_at_its_limit(words: str, is_limit: bool) -> None:
    assert tells_of_limit(AirflowException(words)) is is_limit
