"""Whatever happens to a task of an operator that somebody wrote himself: lives that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.life.own_operators import CASES, UNSEEN, OwnCase
from tests.life.script import run, step
from tests.life.task_life import DIES_AT_SUBMIT, POLICY, WRONG, OperatorLife

LIVES = 120
"""Of each operator, by default."""

MEETS = (
    *(what for call, whats in WRONG.items() for what in whats if call != "stop"),
    *("stop that goes wrong", "evicted"),
    *("stopped by a user", "times out", "store down", "store late", DIES_AT_SUBMIT, "job is skipped"),
    *("kept in task state", "kept in Variables", "kept in object storage", "a value that moves", "a retry_policy"),
    *(f"{option}={value}" for option in ("on_change", "on_clear") for value in ("restart", "reattach")),
    *("on_change=fail", "on_failed=fail", "on_failed=resubmit", "a job that is still stopping"),
)
"""What the code is to meet in these lives."""


class OwnLife(OperatorLife):
    """Of operators on `ResumableMixin`, and of one that `make_resumable` made."""

    def case_of(self, name: str) -> OwnCase:
        return CASES[name]

    def begin(self, case: str, looks_to_stop: int, **given: Any) -> None:
        """The task. `life_of` draws it."""
        self.begins(case, **given)
        self.bench.server.looks_to_stop = looks_to_stop
        self.bench.server.is_stopping = lambda: self.met("a job that is still stopping")
        self.bench.server.effect = self._effect

    def _effect(self, name: str, do: Callable[[], Any]) -> Any:
        self.before_effect()
        return self.task.effects.run(name, do)

    def sleep(self, seconds: float) -> None:
        self.bench.server.now += seconds

    def is_out_of_sight(self) -> bool:
        return any(job.state == UNSEEN for job in self.bench.server.jobs)

    @step(lambda self: self.bench.active(), seldom=True)
    def job_shows_a_state_of_next_year(self) -> None:
        for job in self.bench.server.jobs:
            if job.state == "RUNS":
                job.state = UNSEEN

    def start_that_is_out_of_time_when_it_has_read_its_record(self) -> None:
        """Not drawn, for scripts: what it was to do about its job it does not know yet."""
        self._times_out_at_read = True
        self._start([], "job succeeds")
        self._times_out_at_read = False

    @step(seldom=True, seconds=st.sampled_from([1.0, 20.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.server.now += seconds

    @step(lambda self: self.jobs, seldom=True, times=st.integers(1, 2))
    def list_says_nothing(self, times: int) -> None:
        """One answer, or two, from a server that is behind."""
        from tests.services import Refuse

        server = self.bench.server
        server.faults = [one for one in server.faults if one[0] != "find"]  # two lies, however often this is drawn
        server.fault("find", Refuse(status=200), times=times)


def life_of(*cases: OwnCase) -> type[OwnLife]:
    """The machine that draws lives of some cases; its scripts are played by `OwnLife`."""
    draws: dict[str, Any] = {
        "case": st.sampled_from([str(case) for case in cases]),
        "wait": st.sampled_from(["poll", "reschedule"]),
        "retries": st.integers(0, 2),
        "policy": POLICY,
        "moves": st.booleans(),
        "policy_fails": st.sampled_from([False, False, False, True]),
        "kept_in": st.sampled_from(["task state", "task state", "Variables", "object storage"]),
        "looks_to_stop": st.sampled_from([0, 2]),
    }

    class Life(OwnLife):
        __qualname__ = OwnLife.__qualname__
        salt = " ".join(map(str, cases))
        begin = step(first=True, **draws)(OwnLife.begin)

    return Life


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_whatever_happens_to_a_task_its_service_shows_what_was_promised(case: OwnCase) -> None:
    run(life_of(case), examples=LIVES, steps=14)


def test_all_that_is_drawn_has_an_effect_on_lives() -> None:
    run(life_of(*CASES.values()), examples=2 * LIVES, steps=14, meets=MEETS)
