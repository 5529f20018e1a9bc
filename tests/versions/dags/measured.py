"""Two hundred task instances with a job each, and one that measures its store from within."""

from __future__ import annotations

import statistics
import time
from typing import Any

from resumable import ResumableMixin, host
from resumable.stores.object_storage import ObjectStorageStore
from tests.airflow.attempts import note_attempt
from tests.support.names import DAG, BaseOperator

OPERATIONS = 60


class Quick(ResumableMixin, BaseOperator):
    """A job that has succeeded as soon as it is submitted."""

    template_fields = ("number",)

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)

    def submit_job(self, context: Any) -> Any:
        return f"{self.number} {self.idempotency_token}"

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return "SUCCEEDED"

    def is_job_active(self, status: str) -> bool:
        return False

    def is_job_succeeded(self, status: str) -> bool:
        return True

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        """It is complete."""

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return self.number


class Slow(Quick):
    """A job that takes some seconds, and is waited for in the triggerer."""

    reach_fields = ()
    SECONDS = 3.0

    def submit_job(self, context: Any) -> Any:
        return f"{time.time()} {self.idempotency_token}"

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return "RUNNING" if time.time() < float(external_id.split()[0]) + self.SECONDS else "SUCCEEDED"

    def is_job_active(self, status: str) -> bool:
        return status == "RUNNING"


class Measure(BaseOperator):
    """Returns milliseconds per operation, median and 95th percentile, of the stores that can be had here."""

    def execute(self, context: Any) -> Any:
        stores = {"default": host.state_store(context), "object storage": ObjectStorageStore(host.task_identity(context))}
        return {name: self.measured(store) for name, store in stores.items()}

    def measured(self, store: Any) -> dict[str, list[float]]:
        value = {"state": "submitted", "filler": "x" * 700}
        spent: dict[str, list[float]] = {"miss": [], "set": [], "get": [], "delete": []}
        for _ in range(OPERATIONS):
            for name, order in (
                ("miss", lambda: store.get("resumable")),
                ("set", lambda: store.set("resumable", value)),
                ("get", lambda: store.get("resumable")),
                ("delete", lambda: store.delete("resumable")),
            ):
                started = time.perf_counter()
                order()
                spent[name].append((time.perf_counter() - started) * 1000)
        return {name: [round(statistics.median(ms), 2), round(sorted(ms)[int(0.95 * len(ms))], 2)] for name, ms in spent.items()}


with DAG("many", schedule=None, max_active_tasks=32) as many:
    Quick.partial(task_id="job", pre_execute=note_attempt).expand(number=list(range(200)))

with DAG("measure", schedule=None) as measure:
    Measure(task_id="job", pre_execute=note_attempt)
