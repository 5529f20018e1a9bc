"""Attempts of an operator under contract, and what is compared of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.cases import Bench, Case
from tests.support.runner import TaskInstance, WorkerDied


def task(case: Case, bench: Bench, **more: Any) -> TaskInstance:
    def make() -> Any:
        return case.ours(task_id="task", **{**bench.arguments(), **case.extra, **more})

    instance = TaskInstance(make)
    instance.is_all_written = True
    return instance


def after(name: str, act: Any) -> Any:
    """A listener that acts once, when the attempt has done the named effect."""
    left = [act]

    def listen(effect: str) -> None:
        if effect == name and left:
            left.pop()()

    return listen


def die_in_the_wait(instance: TaskInstance, bench: Bench) -> None:
    """Let the first attempt submit and die at the first look at its job after that."""

    def on_effect(effect: str) -> None:
        if instance.data.get("resumable", {}).get("job") and effect != "store.set":
            instance.effects.dead = True

    with pytest.raises(WorkerDied):
        instance.attempt(listener=on_effect)
    assert bench.jobs() == bench.active() == 1


def another_task(bench: Bench) -> None:
    """What comes next is another task: where the author names the job, its job has a name of its own."""
    getattr(bench, "another_task", lambda: None)()


def can_stop(bench: Bench) -> bool:
    return bool(getattr(bench, "can_stop", True))


def undisturbed(case: Case, bench: Bench) -> tuple[Any, dict[str, Any], list[str]]:
    bench.at_once()
    another_task(bench)
    instance = task(case, bench)
    result = instance.attempt()
    return result, dict(instance.xcoms), list(instance.effects.done)


def shape(value: Any) -> Any:
    """A result or XComs with what differs from job to job taken out."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value]
    return type(value).__name__
