"""What the provider's ``execute`` leaves on its operator is there on ours: a ``post_execute``, or a subclass, may read it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.attempts import after, die_in_the_wait, task
from tests.contract.cases import Bench, Case
from tests.support.runner import TaskInstance

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

NOT_THERE = {"datasync": {"candidate_source_location_arns", "candidate_destination_location_arns", "candidate_task_arns"}}
"""What a task that takes up its job has not looked for."""


def left_by(instance: TaskInstance, **choices: Any) -> set[str]:
    """The attributes of the operator of one attempt that are set when it has succeeded."""
    made: list[Any] = []
    make = instance.make
    instance.make = lambda: made.append(make()) or made[-1]  # type: ignore[func-returns-value]
    instance.attempt(**choices)
    return {name for name, value in vars(made[-1]).items() if value is not None and not callable(value)}


@pytest.mark.parametrize("way", ["undisturbed", "reattached", "delivered"])
def test_what_the_providers_execute_leaves_on_its_operator_is_there(case: Case, bench: Bench, way: str) -> None:
    bench_of_theirs = bench.arguments()
    instance = task(case, bench)
    if way == "undisturbed":
        bench.at_once()
        ours = left_by(instance)
    else:
        die_in_the_wait(instance, bench)
        if way == "delivered":
            bench.finish()
        ours = left_by(instance, listener=after("store.set", bench.finish))
    bench.at_once()
    theirs = left_by(TaskInstance(lambda: case.theirs(task_id="task", **bench_of_theirs, **case.extra)))
    expected = theirs if way == "undisturbed" else theirs - NOT_THERE.get(case.name, set())
    assert expected - ours <= {"_hook", "hook"}
