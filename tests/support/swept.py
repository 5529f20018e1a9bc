"""A custom operator that other processes can import, its service, and records of its jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from resumable import JobNotFound, ResumableMixin, host
from resumable.cleanup import sweep
from resumable.identity import Generation
from resumable.jobs.record import JobHandle, JobRecord


class Cloud:
    """The service of `Train`, for this process."""

    states: dict[int, str] = {}
    cancelled: list[tuple[int, str]] = []
    token: str | None = None
    after_a_cancel = "FAILED"


class Train(ResumableMixin, host.base_operator()):
    """A custom operator of a package, which other processes can import."""

    reach_fields = ("conn_id",)

    def __init__(self, *, conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id

    def submit_job(self, context: Any) -> Any:
        raise AssertionError

    def get_job_status(self, external_id: Any, context: Any) -> str:
        if external_id not in Cloud.states:
            raise JobNotFound(f"no job {external_id}")
        return Cloud.states[external_id]

    def is_job_active(self, status: str) -> bool:
        return status == "RUNNING"

    def is_job_succeeded(self, status: str) -> bool:
        return status == "DONE"

    def is_job_failed(self, status: str) -> bool:
        return status == "FAILED"

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        raise AssertionError

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        raise AssertionError

    def cancel_job(self, external_id: Any, context: Any) -> None:
        Cloud.cancelled.append((external_id, self.conn_id))
        Cloud.states[external_id] = Cloud.after_a_cancel


class Findable(Train):
    """One whose service can be asked for the token of a job."""

    settle_time = 0.0

    def find_job(self, token: str, context: Any) -> Any:
        return 7 if token == Cloud.token else None


REACH = {"operator": f"{__name__}:Train", "conn_id": "trainer"}


def record(**changes: Any) -> JobRecord:
    base = JobRecord("Train", "t" * 48, Generation(3, 0, None), 0, "owner", 1, 1e9, handle=JobHandle("Train", 7), reach=REACH)
    return replace(base, **changes)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Any:
    from tests.support import database

    database.empty()
    Cloud.states, Cloud.cancelled, Cloud.after_a_cancel = {7: "RUNNING"}, [], "FAILED"
    monkeypatch.setattr(sweep, "_sleep", lambda seconds: None)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", Train.__module__)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return database
