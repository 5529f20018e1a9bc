"""Tokens and names that the author gave are sent as written, with a warning; a job counts as ours only if it can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.contract.cases import CASES, Bench, Case
from tests.services.faults import Drop
from tests.support.aws_tasks import die_after, models_are_read_once, no_waiting  # noqa: F401
from tests.support.names import AirflowFailException
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MINE = "insert-orders-2026-11-26-000000000000"
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "athena": ("ClientRequestToken", {"client_request_token": MINE}),
    "emr-eks": ("clientToken", {"client_request_token": MINE}),
    "emr-serverless": ("clientToken", {"client_request_token": MINE}),
    "comprehend-pii": ("ClientRequestToken", {"start_pii_entities_kwargs": {"ClientRequestToken": MINE}}),
    "comprehend-classifier": ("ClientRequestToken", {"document_classifier_kwargs": {"ClientRequestToken": MINE}}),
    "bedrock-provisioned-throughput": ("clientRequestToken", {"create_throughput_kwargs": {"clientRequestToken": MINE}}),
    "bedrock-customize-model": ("clientRequestToken", {"customization_job_kwargs": {"clientRequestToken": MINE}}),
    "glue-data-quality-evaluation": ("ClientToken", {"rule_set_evaluation_run_kwargs": {"ClientToken": MINE}}),
    "glue-data-quality-recommendation": ("ClientToken", {"recommendation_run_kwargs": {"ClientToken": MINE}}),
    "databricks-submit-run": ("idempotency_token", {"idempotency_token": MINE}),
}


@pytest.fixture(params=OWN)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Case, Bench]]:
    case = next(c for c in CASES if c.name == name)
    with case.bench(monkeypatch) as bench:
        yield case, bench


def task(case: Case, bench: Bench, **more: Any) -> TaskInstance:
    return TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra, **more}))


def another_run(of: TaskInstance) -> TaskInstance:
    other = TaskInstance(of.make)
    other.run_started = of.run_started.replace(hour=5)
    return other


def sent(bench: Bench, member: str) -> list[Any]:
    return [call.body.get(member) for call in bench.server.calls(bench.submit)]


def test_an_own_token_goes_out_as_written_with_a_warning(name: str, monkeypatch: Any, capsys: Any) -> None:
    member, own = OWN[name]
    with opened(name, monkeypatch) as (case, bench):
        bench.at_once()
        task(case, bench, **own).attempt()
        assert sent(bench, member) == [MINE]
    assert any(MINE in line and "is yours" in line for line in capsys.readouterr().out.splitlines())


def test_two_dag_runs_with_one_token_of_the_authors_have_one_job(name: str, monkeypatch: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        bench.at_once()
        first = task(case, bench, **OWN[name][1])
        first.attempt()
        if name == "bedrock-customize-model":
            return  # its name is taken, which is another matter
        another_run(first).attempt()
        assert bench.jobs() == 1


def test_in_doubt_an_own_token_goes_out_again(name: str, monkeypatch: Any) -> None:
    member, own = OWN[name]
    with opened(name, monkeypatch) as (case, bench):
        bench.at_once()
        bench.server.fault(bench.submit, Drop(), times=9 if "databricks" not in name else 1)
        instance = task(case, bench, **own)
        try:
            instance.attempt()
        except Exception:
            bench.server.clear_faults()
            instance.attempt()
        assert (bench.jobs(), set(sent(bench, member))) == (1, {MINE})


def test_after_a_failed_job_an_own_token_is_used_up_and_the_task_says_so(name: str, monkeypatch: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        instance = task(case, bench, **OWN[name][1])
        with pytest.raises(Exception, match="(?i)fail|error|boom"):
            instance.attempt(listener=lambda _: bench.active() and bench.finish(ok=False))
        if name == "bedrock-customize-model":
            return
        with pytest.raises(AirflowFailException, match="is used up.*No job was started"):
            instance.attempt()
        assert bench.jobs() == 1


@pytest.mark.parametrize("name", ["emr-eks", "emr-serverless"])
def test_a_token_that_the_provider_makes_up_is_not_the_authors(name: str, monkeypatch: Any, capsys: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        bench.at_once()
        instance = task(case, bench)
        instance.attempt()
        assert sent(bench, "clientToken") == [instance.record["token"]]
    assert "is yours" not in capsys.readouterr().out


@pytest.mark.parametrize("how", ["config", "default_args"])
def test_emr_serverless_knows_an_own_token_wherever_it_is_given(monkeypatch: Any, how: str) -> None:
    given: dict[str, Any] = {
        "config": {"config": {"clientToken": MINE}},
        "default_args": {"default_args": {"client_request_token": MINE}},
    }
    with opened("emr-serverless", monkeypatch) as (case, bench):
        bench.at_once()
        task(case, bench, **given[how]).attempt()
        assert sent(bench, "clientToken") == [MINE]


# -- names -----------------------------------------------------------------------------------------------------------


NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "step-functions": ("name", {"name": "orders-2026-11-26"}),
    "mwaa-trigger-dag-run": ("dag_run_id", {"trigger_run_id": "orders-2026-11-26"}),
    "bedrock-batch-inference": ("jobName", {"job_name": "orders-2026-11-26"}),
    "bedrock-customize-model": ("jobName", {"job_name": "orders-2026-11-26", "ensure_unique_job_name": False}),
}


def names_sent(name: str, bench: Bench) -> list[Any]:
    member = NAMES[name][0]
    calls = bench.server.calls(bench.submit)
    return [(call.body.get("Body") or call.body)[member] for call in calls]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_job_has_the_name_that_the_author_gave_and_one_that_follows_a_short_mark_more(
    name: str, monkeypatch: Any, capsys: Any
) -> None:
    with opened(name, monkeypatch) as (case, bench):
        instance = task(case, bench, **NAMES[name][1])
        with pytest.raises(Exception, match="(?i)fail|error|boom"):
            instance.attempt(listener=lambda _: bench.active() and bench.finish(ok=False))
        bench.at_once()
        instance.attempt()
        first, second = names_sent(name, bench)
        assert (first, second) == ("orders-2026-11-26", f"orders-2026-11-26-{instance.record['token'][:8]}")
    assert ("is yours" in capsys.readouterr().out) is (name in ("step-functions", "mwaa-trigger-dag-run"))


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_answer_is_cleared_up_under_the_authors_name(name: str, monkeypatch: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        instance = task(case, bench, **NAMES[name][1])
        die_after(instance, f"http {bench.submit}" if name != "mwaa-trigger-dag-run" else "http InvokeRestApi")
        forget_tokens(bench)
        bench.at_once()
        instance.attempt()
        assert bench.jobs() == 1
        assert instance.record["state"] == "succeeded"


def forget_tokens(bench: Bench) -> None:
    for job in bench.server.all:
        job.token = "forgotten"


@pytest.mark.parametrize("name", NAMES)
def test_a_job_of_somebody_elses_with_that_name_fails_the_try_and_is_left_alone(name: str, monkeypatch: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        first = task(case, bench, **NAMES[name][1])
        bench.at_once()
        first.attempt()
        forget_tokens(bench)
        other = another_run(first)
        with pytest.raises(Exception, match="(?i)already exists|in use|conflict|409|RestApiClientException"):
            other.attempt()
        assert (bench.jobs(), other.record["state"]) == (1, "rejected")
