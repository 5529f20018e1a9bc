"""``durable=False`` is exactly the provider's operator, its own durability in force."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import ResumableJobMixin
from airflow.providers.databricks.operators import databricks_workflow as theirs

from resumable import ConfigurationError, host
from resumable.operators.databricks_workflow import LaunchOperator
from tests.contract.cases import CASES, Bench, Case
from tests.support.names import DAG
from tests.support.runner import TaskInstance, WorkerDied

pytestmark = pytest.mark.usefixtures("no_waiting")

WITH_THEIR_OWN = [c for c in CASES if isinstance(c.theirs, type) and issubclass(c.theirs, ResumableJobMixin) and not c.deferrable]


@pytest.fixture(params=WITH_THEIR_OWN, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def die_in_the_wait(instance: TaskInstance) -> None:
    def listen(effect: str) -> None:
        instance.effects.dead = bool(instance.data) and effect != "store.set"

    with pytest.raises(WorkerDied):
        instance.attempt(listener=listen)


def test_a_retry_goes_on_by_the_providers_own_durability(case: Case, bench: Bench) -> None:
    ours = TaskInstance(lambda: case.ours(task_id="task", durable=False, **bench.arguments()))
    die_in_the_wait(ours)
    assert "resumable" not in ours.data
    ours.attempt(listener=lambda effect: effect.startswith("store") and bench.finish())
    assert bench.jobs() == 1


@pytest.mark.parametrize("given", [{"durable": False}, {"default_args": {"durable": False}}], ids=["argument", "default_args"])
@pytest.mark.parametrize("in_a_dag", [False, True])
def test_its_own_default_is_in_force_wherever_ours_was_switched_off(
    case: Case, bench: Bench, given: dict[str, Any], in_a_dag: bool
) -> None:
    bench.at_once()
    if in_a_dag:
        with DAG("d", schedule=None, default_args=given.get("default_args", given)):
            ours = case.ours(task_id="task", **bench.arguments())
    else:
        ours = case.ours(task_id="task", **bench.arguments(), **given)
    assert ours.durable is False
    instance = TaskInstance(lambda: ours)
    instance.attempt()
    theirs = TaskInstance(lambda: case.theirs(task_id="task", **bench.arguments()))
    theirs.attempt()
    assert set(instance.data) == set(theirs.data) == ({ours.external_id_key} if host.has_task_state() else set())


def waited(operator: Any, state: str) -> Any:
    hook = mock.MagicMock()
    hook.get_run.return_value = {"state": {"life_cycle_state": state}}
    hook.get_run_state.return_value = SimpleNamespace(life_cycle_state=state)
    operator.__dict__["_hook"] = hook
    try:
        operator._wait_for_job_to_start(1)
    except Exception as e:
        return str(e), hook.mock_calls
    return None, hook.mock_calls


@pytest.mark.parametrize("state", ["TERMINATED", "TERMINATING", "RUNNING", "QUEUED"])
def test_a_launch_that_is_not_durable_waits_as_the_providers_does(state: str) -> None:
    ours = LaunchOperator(task_id="launch", databricks_conn_id="d", durable=False)
    provider = theirs._CreateDatabricksWorkflowOperator(task_id="launch", databricks_conn_id="d")
    assert waited(ours, state) == waited(provider, state)
    assert ours.caller == provider.caller


def test_no_word_about_the_job_is_asked_of_a_task_that_is_not_durable() -> None:
    """A task of a workflow's group may be anything that converts itself: the fingerprint is of the durable ones."""
    launch = LaunchOperator(task_id="launch", databricks_conn_id="d", durable=False, tasks_to_convert={"one": object()})
    launch.render_template_fields({"ti": None}, mock.MagicMock())


def test_what_durable_is_given_is_checked_all_the_same() -> None:
    with pytest.raises(ConfigurationError, match="neither True nor False"):
        LaunchOperator(task_id="launch", databricks_conn_id="d", durable="no")  # type: ignore[arg-type]
