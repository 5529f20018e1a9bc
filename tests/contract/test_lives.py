"""Whatever happens to a task of a ready-made operator, its service shows what was promised: lives that are drawn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.contract.cases import CASES, Case
from tests.life.script import run, step
from tests.life.task_life import (
    AFTER,
    AFTER_THE_NOTE,
    ENDS,
    KINDS,
    LAST,
    LAST_OF_A_SKIPPER,
    OF_JOB,
    OF_TRIGGER,
    POLICY,
    STARTS,
    OperatorLife,
    happenings,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BY_NAME = {str(case): case for case in CASES}
LIVES, MORE_LIVES = 2, 12
"""Of each operator in each mode, by default; and of those that do what no other does."""
SKIPPERS = ("ecs",)
SKIP = ("job is skipped",)
LIVELY = ("databricks-submit-run", "emr-steps", "athena", "ecs", "mwaa-trigger-dag-run")


class ContractLife(OperatorLife):
    """Of any operator under contract."""

    tells_skips = True

    def case_of(self, name: str) -> Case:
        return BY_NAME[name]

    def begin(self, **given: Any) -> None:
        """The task. `life_of` draws it."""
        self.begins(**given)


def life_of(case: Case) -> type[ContractLife]:
    """The machine that draws lives of one case; its scripts are played by `ContractLife`."""
    waits = ["poll"] if case.deferrable else ["poll", "poll", "reschedule", "defer"]
    draws: dict[str, Any] = {
        "case": st.just(str(case)),
        "wait": st.sampled_from(waits),
        "retries": st.integers(0, 2),
        "policy": POLICY,
        "moves": st.booleans(),
        "policy_fails": st.sampled_from([False, False, False, True]),
        "kept_in": st.sampled_from(["task state", "task state", "Variables", "object storage"]),
        "limited": st.booleans(),
        "own_execute": st.sampled_from([False, False, True]),
        "named": st.sampled_from(["", "for good", "in each try", "in each try"]),
    }

    is_skipper = case.name in SKIPPERS
    ends = SKIP if is_skipper else OF_JOB
    kinds = [*KINDS, *(OF_TRIGGER,) * (2 if case.deferrable else 1), *(SKIP, SKIP) * is_skipper]

    class Life(ContractLife):
        __qualname__ = ContractLife.__qualname__
        salt = str(case)
        begin = step(first=True, **draws)(ContractLife.begin)

        @step(
            OperatorLife.is_open,
            often=STARTS,
            then=happenings(*kinds, least=0),
            last=LAST_OF_A_SKIPPER if is_skipper else LAST,
            after=AFTER,
        )
        def start(self, then: Any, last: str, after: Any = None) -> None:
            self._start(then, last, after)

        @step(OperatorLife.is_open, how=st.one_of(st.sampled_from(ENDS), st.sampled_from(SKIP if is_skipper else ENDS)))
        def start_whose_end_is_noted_and_not_told(self, how: str) -> None:
            self._start([], how, AFTER_THE_NOTE)

        @step(lambda self: self.bench.active(), how=st.one_of(st.sampled_from(OF_JOB), st.sampled_from(ends)))
        def job_ends(self, how: str) -> None:
            self._happens(how)

    return Life


@pytest.mark.parametrize("case", CASES, ids=str)
def test_whatever_happens_to_a_task_its_service_shows_what_was_promised(case: Case) -> None:
    run(life_of(case), examples=MORE_LIVES if case.name in LIVELY else LIVES, steps=10)
