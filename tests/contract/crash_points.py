"""
Every point at which a worker can die in a task's run, and what the retry then makes of it, for one case of the contract.

A process does nothing to the outside but effects: HTTP calls, task state, XComs, the deferral. A death between two of them leaves
what a death right after the first leaves, so the points are: before the first effect, and after each one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.contract.cases import Bench, Case
from tests.support.runner import TaskInstance, WorkerDied


@dataclass(frozen=True)
class Point:
    """One death and the retry after it: how many jobs the service had at the end, and what the task gave."""

    name: str
    jobs: int
    result: Any = None
    xcoms: Any = None


def of_ours(case: Case, bench: Bench) -> TaskInstance:
    return TaskInstance(lambda: case.ours(task_id="task", **{**bench.arguments(), **case.extra}))


def of_theirs(case: Case, bench: Bench) -> TaskInstance:
    return TaskInstance(lambda: case.theirs(task_id="task", **{**bench.arguments(), **case.extra}))


Make = Callable[[Case, Bench], TaskInstance]


def undisturbed(case: Case, environ: pytest.MonkeyPatch, make: Make = of_ours) -> tuple[Point, list[str]]:
    """A run without a death, and its effects."""
    with case.bench(environ) as bench:
        bench.at_once()
        instance = make(case, bench)
        result = instance.attempt()
        return Point("undisturbed", bench.jobs(), result, dict(instance.xcoms)), list(instance.effects.done)


def deaths(case: Case, environ: pytest.MonkeyPatch, effects: list[str], make: Make = of_ours) -> Iterator[Point]:
    """A death at each point, each with a service and a task instance of its own, and one retry."""
    for index, side in [(0, "before"), *((i, "after") for i in range(len(effects)))]:
        with case.bench(environ) as bench:
            bench.at_once()
            instance = make(case, bench)
            with pytest.raises(WorkerDied):
                instance.attempt(die_at=(index, side))
            result = instance.attempt()
            yield Point(f"{side} {effects[index]}", bench.jobs(), result, dict(instance.xcoms))
