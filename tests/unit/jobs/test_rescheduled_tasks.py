"""What Airflow makes of a task that is up for reschedule: what the documentation says of pools, limits and callbacks."""

from __future__ import annotations

import inspect

import pytest
from airflow.ti_deps import dependencies_states
from airflow.utils.state import TaskInstanceState

from resumable import host

UP_FOR_RESCHEDULE = TaskInstanceState.UP_FOR_RESCHEDULE


def test_no_limit_counts_a_rescheduled_task():
    assert UP_FOR_RESCHEDULE not in dependencies_states.EXECUTION_STATES
    assert UP_FOR_RESCHEDULE not in getattr(dependencies_states, "ACTIVE_STATES", ())


def test_no_pool_counts_a_rescheduled_task():
    from airflow.models.pool import Pool  # noqa: TID251

    counted = Pool(pool="p", slots=1, include_deferred=True).get_occupied_states()
    assert TaskInstanceState.DEFERRED in counted
    assert UP_FOR_RESCHEDULE not in counted


@pytest.mark.skipif(not host.has_task_state(), reason="the runner of Airflow 3.3")
def test_no_callback_is_run_for_a_rescheduled_task():
    from airflow.sdk.execution_time import task_runner

    source = inspect.getsource(task_runner.finalize)
    assert "on_failure_callback" in source
    assert "RESCHEDULE" not in source.upper()
