"""
What takes the place of a context that tells of no task instance: users' unit tests call ``execute({})``, or give a mock.

Nothing that is kept under such a context outlives the call, so that one test does not find the job of another.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from resumable.stores.memory import MemoryStore


class Rehearsal(dict[str, Any]):
    """
    A context with a task instance of its own.

    Args:
        given: the context that ``execute`` was called with, for the operator's own code.
        operator: that is executed.
    """

    def __init__(self, given: Any, operator: Any) -> None:
        super().__init__(ti=_TaskInstance(operator), dag_run=_Run(), task=operator)
        self.given, self.store = given, MemoryStore()


class _TaskInstance:
    dag_id, map_index = "no_dag", -1
    try_number, max_tries, start_date = 1, 0, None

    def __init__(self, operator: Any) -> None:
        self.task_id = str(getattr(operator, "task_id", "no_task"))
        self.run_id = f"no_run_{uuid.uuid4().hex}"  # a token of its own

    def get_task_states(self, **_: Any) -> dict[str, Any]:
        return {self.run_id: {self.task_id: "running"}}


class _Run:
    start_date = clear_number = None


def tells_the_task(context: Any) -> bool:
    """Whether ``context`` says which task instance it is of."""
    try:
        ti, run = context["ti"], context["dag_run"]
        values = (ti.dag_id, ti.run_id, ti.task_id, ti.try_number, ti.max_tries)
    except (LookupError, TypeError, AttributeError):
        return False
    has_index = isinstance(getattr(ti, "map_index", None), int | None)
    has_start = isinstance(getattr(run, "start_date", None), datetime | None)
    kinds = zip(values, (str, str, str, int, int), strict=True)
    return isinstance(context, Mapping) and has_index and has_start and all(isinstance(value, kind) for value, kind in kinds)
