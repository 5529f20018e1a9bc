"""On the last try no error and no line of the log speaks of a next one."""

from __future__ import annotations

import ast
import pickle
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import errors, host
from resumable.errors import ItemsFailedError, JobFailedError, JobGoneError, LostSightError, ResumableError, WaitLimitError
from tests.contract.cases import CASES
from tests.support.checkpointed import Task
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

SOURCE = Path(resumable.__file__).parent
LAST = r"This was the last try \(4 of 4\): clear the task to have it started again\.$"
TRY = {"next": 1, "last": 4}


def strings(tree: ast.AST) -> Iterator[tuple[ast.Constant, str]]:
    """Every string that is no docstring, and the function that it stands in."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
        lines = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Expr)}
        for node in ast.walk(function):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in lines:
                yield node, ast.unparse(function)


def test_whatever_speaks_of_a_next_try_asks_whether_one_follows() -> None:
    """An error gives ``next_try``; a line of the log is written where `is_last_try` was asked."""
    blind = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node, function in strings(ast.parse(path.read_text()))
        if "next try" in node.value.lower() and "is_last_try" not in function and "no_other_try" not in function
    ]
    # A mistake in how a checkpoint is used, and not what this try comes to.
    assert [place for place in blind if not place.startswith("checkpoint/loops.py")] == []
    assert len(blind) <= 1


def test_an_error_says_what_the_next_try_does_or_why_there_is_none_and_keeps_it_when_pickled() -> None:
    error = LostSightError("It cannot be seen.", next_try="looks again")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "It cannot be seen. The next try looks again."
    error.no_other_try = "This was the last try (1 of 1): clear the task to have it started again."
    said = "It cannot be seen. This was the last try (1 of 1): clear the task to have it started again."
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == said


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ResumableError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_takes_a_message_and_what_the_next_try_does(kind: Any) -> None:
    assert str(kind("What happened.", next_try="looks again")) == "What happened. The next try looks again."
    assert str(kind("What happened.")) == "What happened."


def in_try(number: int, *, retry_policy: Any = None) -> dict[str, Any]:
    task = types.SimpleNamespace(retry_policy=retry_policy)
    return {"ti": types.SimpleNamespace(try_number=number, max_tries=3), "task": task}


def raised(context: Any, error: ResumableError) -> str:
    with pytest.raises(type(error)) as caught, host.airflow_errors(context):
        raise error
    return str(caught.value)


def test_a_retry_policy_that_allows_no_other_try_is_named() -> None:
    policy = types.SimpleNamespace(evaluate=lambda **_: types.SimpleNamespace(action=types.SimpleNamespace(value="fail")))
    error = LostSightError("It cannot be seen.", next_try="looks again")
    assert raised(in_try(1), error) == "It cannot be seen. The next try looks again."
    said = raised(in_try(1, retry_policy=policy), error)
    assert said == "It cannot be seen. The task's retry_policy allows no other try: clear the task to have it started again."


# -- of real jobs ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=TRY)
def number(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("what", "kind", "then"),
    [
        ("gone", JobGoneError, "The next try submits another job"),
        ("confused", LostSightError, "The next try looks again"),
        ("failing", JobFailedError, "The next try stops what still runs of it"),
        ("limit", WaitLimitError, "The next try reattaches to it"),
    ],
)
def test_the_error_of_a_job_says_what_is_true_of_this_try(
    what: str, kind: type[Exception], then: str, number: str, monkeypatch: Any, caplog: Any, capsys: Any
) -> None:
    case = next(c for c in CASES if c.name == "emr-steps")
    policy = {"wait": "reschedule"} if what == "limit" else {}
    limit = {"waiter_max_attempts": 1} if what == "limit" else {}
    with case.bench(monkeypatch) as bench:
        instance = TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **limit}, resume_policy=policy))
        with pytest.raises(BaseException):
            instance.attempt(listener=lambda _: setattr(instance.effects, "dead", bool(bench.active()) and has_job(instance)))
        instance.try_number = TRY[number]
        if what == "failing":
            server: Any = bench.server
            server.finish(server.steps(bench.cluster)[0].id, "FAILED", "boom")  # type: ignore[attr-defined]
        elif what != "limit":
            {"gone": bench.forget, "confused": bench.confuse}[what]()
        caplog.clear()
        capsys.readouterr()
        with pytest.raises(kind) as caught:
            instance.attempt()
    said = str(caught.value)
    logged = caplog.text + capsys.readouterr().out
    if number == "next":
        assert then in said
        assert "last try" not in said
    else:
        assert caught.match(LAST)
        assert "next try" not in (said + logged).lower()


def has_job(instance: TaskInstance) -> bool:
    return instance.data.get("resumable", {}).get("job") is not None


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_items_that_failed_or_were_not_done_say_what_is_true_of_this_try(number: str, ack: Any) -> None:
    task = Task()
    task.try_number = TRY[number] - 1
    with pytest.raises(ItemsFailedError) as caught, task.checkpoint() as checkpoint:
        for item in checkpoint.items([1], ack=ack):
            if ack == "auto":
                checkpoint.fail(item, ValueError("boom"))
    caught.match(r"The next try works .*\.$" if number == "next" else LAST)
