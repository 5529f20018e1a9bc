"""Tasks of AWS operators on their simulated services: what the tests of several operators share. Import the fixtures by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.runner import TaskInstance, WorkerDied


@contextmanager
def tasks(operators: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Any, TaskInstance]]]:
    """
    A function that gives a service, and a task instance of an operator on it.

    Args:
        operators: by name: our class, and the bench of its service (`tests.contract.aws_jobs.CASES`).
    """
    with ExitStack() as opened:

        def make(name: str, **more: Any) -> tuple[Any, TaskInstance]:
            ours, bench = operators[name][:2]
            desk = opened.enter_context(bench(monkeypatch))
            return desk.server, TaskInstance(lambda: ours(task_id="task", **{**desk.arguments(), **more}))

        yield make


def die_after(instance: TaskInstance, effect: str) -> None:
    """An attempt whose worker dies right after ``effect``."""

    def listen(done: str) -> None:
        instance.effects.dead = done == effect

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)
