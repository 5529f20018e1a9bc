"""A `Checkpoint` in an operator that has a job of its own: neither takes the other's stop away."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from resumable import Checkpoint, ResumableMixin, host
from tests.support.checkpointed import until
from tests.support.names import AirflowRescheduleException
from tests.support.runner import TaskInstance

JOBS: list[str] = []


class LoadThenTrain(ResumableMixin, host.base_operator()):  # type: ignore[misc]
    """Prepares items, trains on the first half of them, prepares the rest."""

    stop_at: str | None = None
    worked: list[str] = []

    def execute(self, context: Any) -> Any:
        with Checkpoint("items", context=context, every=1000) as checkpoint:
            for item in checkpoint.items(["a", "b", "job", "c", "d"]):
                if item == "job":
                    self.execute_resumable(context)
                if item == type(self).stop_at:
                    type(self).stop_at = None
                    signal.raise_signal(signal.SIGTERM)
                    until(lambda: checkpoint._block.is_stopping)
                self.worked.append(item)

    def submit_job(self, context: Any) -> Any:
        JOBS.append(self.idempotency_token)
        return f"job-{len(JOBS)}"

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return "SUCCEEDED"

    def is_job_active(self, status: str) -> bool:
        return False

    def is_job_succeeded(self, status: str) -> bool:
        return True

    def poll_until_complete(self, external_id: Any, context: Any) -> None: ...

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return external_id


@pytest.mark.parametrize("stop_at", ["b", "c"])
def test_an_eviction_before_or_after_the_job_hands_the_task_back_and_nothing_is_done_twice(stop_at: str) -> None:
    JOBS.clear()
    LoadThenTrain.stop_at, LoadThenTrain.worked = stop_at, []
    task = TaskInstance(lambda: LoadThenTrain(task_id="task"))
    with pytest.raises(AirflowRescheduleException):
        task.attempt()
    task.attempt()
    assert LoadThenTrain.worked == ["a", "b", "job", "c", "d"]
    assert len(JOBS) == 1
    assert set(task.data) >= {"resumable", "resumable.checkpoint.items"}
