"""Tokens and names that the author gave are sent as written, with a warning; a job counts as ours only if it can be."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from resumable.errors import LostSightError
from tests.contract.cases import CASES, Bench, Case
from tests.services.faults import Drop
from tests.support.aws_tasks import die_after
from tests.support.names import AirflowException, AirflowFailException
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

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
        die_after(instance, f"http {bench.submit}")
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


# -- a restart that cannot come ----------------------------------------------------------------------------------------


TOLD = "is your own and unchanged.*It is not cancelled.*change that as well, or leave it unset"


def in_the_wait(case: Case, bench: Bench, arguments: dict[str, Any], **policy: Any) -> TaskInstance:
    """A task whose worker has died while its job runs. What ``arguments`` then holds is what its next start is called with."""
    make = lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra, **arguments}, resume_policy=policy)
    instance = TaskInstance(make)
    instance.is_all_written = True

    def listen(_: str) -> None:
        instance.effects.dead = bool(bench.active()) and "resumable" in instance.data and instance.record["job"] is not None

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
    return instance


def edited(bench: Bench, own: dict[str, Any]) -> dict[str, Any]:
    """An edit of the job that leaves the author's token as it is."""
    arguments = bench.other_arguments()
    for name, value in own.items():
        arguments[name] = {**arguments[name], **value} if isinstance(arguments.get(name), dict) else value
    return arguments


def ending_well(bench: Bench) -> Any:
    """The job ends once it was looked at."""
    looks = lambda: sum(len(bench.server.calls(name)) for name in bench.status)
    before = looks()
    return lambda _: looks() > before and bench.active() and bench.finish()


@pytest.mark.parametrize("how", ["edit", "clear"])
def test_a_job_is_not_cancelled_for_another_one_that_the_authors_own_token_keeps_from_coming(
    name: str, how: str, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    with opened(name, monkeypatch) as (case, bench):
        arguments = {**bench.arguments(), **edited_like(bench.arguments(), OWN[name][1])}
        instance = in_the_wait(case, bench, arguments)
        if how == "edit":
            arguments.update(edited(bench, OWN[name][1]))
        else:
            instance.clear()
        instance.attempt(listener=ending_well(bench))
        assert (bench.jobs(), bench.cancels(), instance.record["state"]) == (1, 0, "succeeded")
    said = (caplog.text + capsys.readouterr().out).splitlines()  # by version of Airflow
    assert [line for line in said if re.search(TOLD, line) and "warning" in line.lower()]


@pytest.mark.parametrize("how", ["edit", "clear"])
@pytest.mark.parametrize("after", ["another", "none"])
def test_a_job_is_cancelled_for_another_one_if_the_authors_token_is_edited_too(
    name: str, how: str, after: str, monkeypatch: Any
) -> None:
    with opened(name, monkeypatch) as (case, bench):
        arguments = {**bench.arguments(), **edited_like(bench.arguments(), OWN[name][1])}
        instance = in_the_wait(case, bench, arguments)
        new = "another-2026-11-26-0000000000000000" if after == "another" else None
        token = {k: swapped(v, new) for k, v in OWN[name][1].items()}
        arguments.update(edited(bench, token) if how == "edit" else edited_like(bench.arguments(), token))
        if how == "clear":
            instance.clear()
        instance.attempt(listener=lambda _: bench.jobs() == 2 and bench.active() and bench.finish())
        assert (bench.jobs(), bench.cancels() >= 1) == (2, True)


def test_a_clear_of_a_running_task_leaves_the_job_to_the_next_start_where_the_authors_token_names_only_it(
    name: str, monkeypatch: Any
) -> None:
    with opened(name, monkeypatch) as (case, bench):
        arguments = {**bench.arguments(), **edited_like(bench.arguments(), OWN[name][1])}
        instance = TaskInstance(lambda: case.ours(task_id="task", **{**case.extra, **arguments}))
        told: list[str] = []

        def clear(_: str) -> None:
            if not told and bench.active() and instance.data.get("resumable", {}).get("job") is not None:
                told.append("restarting")
                instance.state = "restarting"
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises((LostSightError, SystemExit, AirflowException)):
            instance.attempt(listener=clear)
        assert (bench.active(), bench.cancels(), instance.record["state"]) == (1, 0, "submitted")
        instance.state = "running"
        instance.clear()
        instance.attempt(listener=ending_well(bench))
        assert (bench.jobs(), bench.cancels()) == (1, 0)


@pytest.mark.parametrize("how", ["edit", "clear"])
@pytest.mark.parametrize("version", [None, "v1"])
def test_a_training_is_not_stopped_for_another_classifier_of_its_name(how: str, version: str | None, monkeypatch: Any) -> None:
    with opened("comprehend-classifier", monkeypatch) as (case, bench):
        bench.server.takes_names_once = True
        given = {"document_classifier_kwargs": {"VersionName": version} if version else {}}
        arguments = {**bench.arguments(), **given}
        instance = in_the_wait(case, bench, arguments)
        if how == "edit":
            arguments.update(bench.other_arguments())
        else:
            instance.clear()
        instance.attempt(listener=ending_well(bench))
        assert (bench.jobs(), bench.cancels(), instance.record["state"]) == (1, 0, "succeeded")


def test_a_training_is_stopped_for_a_classifier_of_another_version(monkeypatch: Any) -> None:
    with opened("comprehend-classifier", monkeypatch) as (case, bench):
        bench.server.takes_names_once = True
        arguments = {**bench.arguments(), "document_classifier_kwargs": {"VersionName": "v1"}}
        instance = in_the_wait(case, bench, arguments)
        arguments["document_classifier_kwargs"] = {"VersionName": "v2"}
        instance.attempt(listener=lambda _: bench.jobs() == 2 and bench.active() and bench.finish())
        assert (bench.jobs(), bench.cancels()) == (2, 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["edit", "clear"])
def test_an_authors_name_keeps_no_other_job_from_coming(name: str, how: str, monkeypatch: Any) -> None:
    with opened(name, monkeypatch) as (case, bench):
        arguments = {**bench.arguments(), **NAMES[name][1]}
        instance = in_the_wait(case, bench, arguments)
        if how == "edit":
            arguments.update({**bench.other_arguments(), **NAMES[name][1]})
        else:
            instance.clear()
        instance.attempt(listener=lambda _: bench.jobs() == 2 and bench.active() and bench.finish())
        first, second = names_sent(name, bench)
        assert (bench.jobs(), first, second[: len(first) + 1]) == (2, "orders-2026-11-26", "orders-2026-11-26-")


def test_a_job_that_succeeded_unseen_is_delivered_after_an_edit_where_the_authors_token_names_only_it(
    name: str, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    with opened(name, monkeypatch) as (case, bench):
        arguments = {**bench.arguments(), **edited_like(bench.arguments(), OWN[name][1])}
        instance = in_the_wait(case, bench, arguments)
        bench.finish()
        arguments.update(edited(bench, OWN[name][1]))
        instance.attempt()
        assert (bench.jobs(), instance.record["state"]) == (1, "succeeded")
    assert "is your own and unchanged" in caplog.text + capsys.readouterr().out


def edited_like(arguments: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    return {k: {**arguments[k], **v} if isinstance(arguments.get(k), dict) else v for k, v in own.items()}


def swapped(value: Any, token: str | None) -> Any:
    return {k: token for k in value if token} if isinstance(value, dict) else token
