"""Inside a task loop (Airflow 3.4) each iteration is a task of its own: token, record, watermark interval, own state."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from resumable import host
from resumable.identity import Generation, Relation, TaskIdentity
from resumable.stores.variables import VariableStore, name_of, opened
from resumable.watermark.intervals import Mark, Proposal
from resumable.watermark.values import ValueType

FIRST, FORK = (UUID(int=n).hex for n in (7, 9))
GENERATION = Generation(3, 0, "2026-01-01T00:00:00+00:00")
PLAIN = TaskIdentity("etl", "monday", "train")


def iteration(number: int, region: str = FIRST, **more: Any) -> TaskIdentity:
    return replace(PLAIN, iteration=number, region=region, **more)


def context(**of_ti: Any) -> dict[str, Any]:
    ti = {"dag_id": "etl", "run_id": "monday", "task_id": "train", "map_index": -1, "max_tries": 3, "try_number": 1}
    return {"ti": SimpleNamespace(**{**ti, **of_ti}), "dag_run": SimpleNamespace(start_date=None, clear_number=0)}


# -- who is asking -----------------------------------------------------------------------------------------------------


def test_iterations_and_the_mapped_tasks_inside_of_them_have_tokens_of_their_own():
    tasks = [iteration(i, map_index=m) for i in (0, 1) for m in (-1, 0, 1)] + [iteration(1, FORK), PLAIN]
    assert len({task.token(GENERATION, 0) for task in tasks}) == len(tasks)
    assert len({str(task) for task in tasks}) == len(tasks) - 1  # a region says nothing to a person


def test_a_task_outside_of_loops_has_the_token_that_it_had_before_there_were_any():
    region = UUID(int=7)  # Airflow gives one to mapped tasks as well
    mapped = context(region_id=region, region_index=4, map_index=4)
    plain = context(region_id=UUID(int=0), region_index=-1)
    assert host.task_identity(mapped) == replace(PLAIN, map_index=4)
    assert host.task_identity(plain) == PLAIN == host.task_identity(context())
    with_region = host.generation(mapped)
    assert with_region.region == region.hex
    assert PLAIN.token(with_region, 0) == PLAIN.token(replace(with_region, region=None), 0)


@pytest.mark.parametrize("of_ti", [{"region_index": 2}, {"region_index": 5, "map_index": 5}])
def test_a_task_knows_its_iteration_by_its_context(of_ti):
    found = host.task_identity({**context(region_id=UUID(int=7), **of_ti), "loop": SimpleNamespace(index=2)})
    assert found == iteration(2, map_index=of_ti.get("map_index", -1))


def test_what_calls_itself_loop_in_an_older_context_makes_no_iteration():
    assert host.task_identity({**context(), "loop": SimpleNamespace(index=2)}) == PLAIN


def test_a_clear_that_has_a_part_of_a_loop_made_anew_is_a_clear():
    before = replace(GENERATION, region=FIRST)
    assert replace(GENERATION, region=FORK).relation_to(before) is Relation.CLEARED
    assert before.relation_to(Generation.from_json(json.loads(json.dumps(before.to_json())))) is Relation.SAME
    assert "region" not in GENERATION.to_json()
    assert GENERATION.relation_to(Generation.from_json(GENERATION.to_json())) is Relation.SAME  # of a record from before 3.4


# -- stores that Airflow does not part by region -----------------------------------------------------------------------


class Variables(dict):
    def set(self, name: str, text: str, description: str) -> None:
        self[name] = text

    def delete(self, name: str) -> None:
        self.pop(name, None)


def test_iterations_share_no_variable_and_one_that_is_made_anew_finds_what_was_there():
    kept = Variables()
    for number in (0, 1):
        VariableStore(iteration(number), kept).set("resumable", {"job": number})
    VariableStore(PLAIN, kept).set("resumable", {"job": "outside"})
    assert len(kept) == 3
    assert VariableStore(iteration(1, FORK), kept).get("resumable") == {"job": 1}
    assert VariableStore(PLAIN, kept).get("resumable") == {"job": "outside"}
    task, _ = opened(kept[name_of(iteration(1))])
    assert (task["iteration"], task["region"]) == (1, FIRST)


def test_iterations_share_no_folder(monkeypatch, tmp_path):
    from resumable.stores.object_storage import ObjectStorageStore, folders

    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", tmp_path.as_uri())
    for task in (iteration(0), iteration(1), iteration(1, map_index=0), PLAIN):
        ObjectStorageStore(task).set("resumable", {"job": str(task)})
    assert ObjectStorageStore(iteration(1, FORK)).get("resumable") == {"job": str(iteration(1))}
    assert ObjectStorageStore(PLAIN).get("resumable") == {"job": str(PLAIN)}
    found = [folder.ids for folder in folders()]
    assert sorted(ids.get("iteration", -1) for ids in found) == [-1, 0, 1, 1]


# -- watermarks --------------------------------------------------------------------------------------------------------


def test_each_iteration_proposes_an_end_of_its_own_and_is_known_again():
    kind = ValueType(("int",))
    mark = Mark(0)
    for number in (0, 1):
        mark = mark.proposing(Proposal(iteration(number), 10 * number, 10 * number, 10 * number + 10))
    again = Mark.from_json(json.loads(json.dumps(mark.to_json(kind))), kind)
    assert again == mark
    assert again.committed({iteration(0)}).value == 10
    assert again.committed({iteration(0), iteration(1)}).value == 20


def test_mapped_tasks_of_two_iterations_are_not_beside_each_other():
    assert iteration(0, map_index=0).is_mapped_beside(iteration(0, map_index=1))
    assert not iteration(0, map_index=0).is_mapped_beside(iteration(1, map_index=1))


# -- what Airflow says of an iteration ---------------------------------------------------------------------------------


class Supervisor:
    """As the server of 3.4: of a loop it tells the state of the latest iteration, and lists those that have ended."""

    def __init__(self, latest: str, *ended: tuple[str, int, str]) -> None:
        self.latest, self.ended = latest, ended

    def send(self, ask: Any) -> Any:
        from airflow.sdk.execution_time import comms

        if isinstance(ask, comms.GetTaskBreadcrumbs):
            common = {"task_id": "train", "map_index": -1, "operator": "Train"}
            ended = [{**common, "region_id": UUID(r), "region_index": i, "state": s} for r, i, s in self.ended]
            return comms.TaskBreadcrumbsResult(breadcrumbs=[*ended, {"task_id": "other", "state": "failed", "map_index": -1}])
        assert isinstance(ask, comms.GetTaskStates)
        return comms.TaskStatesResult(task_states={"monday": {"train": self.latest}})


@pytest.fixture
def asks(monkeypatch):
    """Return a function that asks for the state of iteration 1 under a supervisor."""
    if not host.has_sdk():
        pytest.skip("Airflow 2 has no supervisor")
    from airflow.sdk.execution_time import task_runner

    def ask(supervisor: Supervisor) -> str | None:
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        found = {**context(region_id=UUID(FIRST), region_index=1), "loop": SimpleNamespace(index=1)}
        found["ti"].get_task_states = lambda **_: {"monday": {"train": supervisor.latest}}
        return host.own_state(found)

    return ask


def test_a_user_who_ends_an_iteration_is_seen_by_it(asks):
    assert asks(Supervisor("failed", (FIRST, 0, "success"), (FIRST, 1, "failed"))) == "failed"


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_the_latest_iteration_is_told_its_own_state(asks, state):
    assert asks(Supervisor(state, (FIRST, 0, "success"))) == state


@pytest.mark.parametrize("later", [(FIRST, 2, "success"), (FORK, 0, "failed")])
def test_an_earlier_iteration_does_not_take_the_state_of_a_later_one_for_its_own(asks, later):
    with pytest.raises(RuntimeError, match="latest iteration only"):
        asks(Supervisor("success", (FIRST, 0, "success"), later))


def test_only_the_iterations_that_have_succeeded_count_for_a_watermark(asks):
    asks(Supervisor("running", (FIRST, 0, "success"), (FIRST, 1, "failed"), (FIRST, 2, "skipped")))
    found = host.succeeded({"ti": SimpleNamespace()}, [iteration(n) for n in range(4)])
    assert found == {iteration(0)}


def test_an_answer_to_something_else_is_not_taken_for_the_state(asks, monkeypatch):
    supervisor = Supervisor("running")
    monkeypatch.setattr(supervisor, "send", lambda ask: None)
    with pytest.raises(RuntimeError, match="got NoneType"):
        asks(supervisor)
