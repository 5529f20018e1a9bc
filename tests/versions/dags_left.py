"""Mapped tasks that fail for good and leave their job running: each leaves its Variable behind. Airflow 3 keeps none of them."""

from __future__ import annotations

from typing import Any

from resumable import ResumableMixin
from tests.airflow.attempts import note_attempt
from tests.support.names import DAG, BaseOperator


class Lost(ResumableMixin, BaseOperator):
    """Loses sight of a job that runs."""

    template_fields = ("number",)

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)

    def submit_job(self, context: Any) -> Any:
        return f"job-{self.number}"

    def get_job_status(self, external_id: Any, context: Any) -> str:
        return "RUNNING"

    def is_job_active(self, status: str) -> bool:
        return True

    def is_job_succeeded(self, status: str) -> bool:
        return False

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        raise RuntimeError("lost")

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return self.number


with DAG("left", schedule=None) as left:
    Lost.partial(task_id="job", retries=0, pre_execute=note_attempt).expand(number=list(range(5)))
