"""An operator of one's own for a service with an HTTP job API: six methods, and the token that closes the last window."""
# ruff: noqa: ARG002 (the methods' arguments are given)

from __future__ import annotations

import time
from typing import Any

import requests
from airflow.sdk import DAG, BaseHook, BaseOperator

from resumable import JobNotFound, ResumableMixin


class TrainOperator(ResumableMixin, BaseOperator):
    template_fields = ("model", "data")  # an edit of one of them is a change of the job

    def __init__(self, *, model: str, data: str, poll_seconds: float = 30, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model, self.data, self.poll_seconds = model, data, poll_seconds

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)

    def submit_job(self, context: Any) -> str:  # one token for every try: the service makes one job of it
        return self._call("POST", "/jobs", json={"model": self.model, "data": self.data, "id": self.idempotency_token})["job"]

    def get_job_status(self, external_id: str, context: Any) -> str:
        return self._call("GET", f"/jobs/{external_id}")["status"]

    def is_job_active(self, status: str) -> bool:
        return status in ("QUEUED", "RUNNING")

    def is_job_succeeded(self, status: str) -> bool:
        return status == "DONE"

    def poll_until_complete(self, external_id: str, context: Any) -> None:
        while self.is_job_active(status := self.get_job_status(external_id, context)):
            time.sleep(self.poll_seconds)
        if not self.is_job_succeeded(status):
            raise RuntimeError(f"training job {external_id} ended as {status}")

    def get_job_result(self, external_id: str, context: Any) -> str:
        return self._call("GET", f"/jobs/{external_id}")["model_url"]

    def cancel_job(self, external_id: str, context: Any) -> None:  # optional: a user's stop then stops the job too
        self._call("POST", f"/jobs/{external_id}/cancel")

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        url = f"{BaseHook.get_connection('training').host}{path}"
        answer = requests.request(method, url, timeout=30, **request)
        if answer.status_code == 404 and method == "GET":
            raise JobNotFound(path)
        answer.raise_for_status()
        return answer.json()


with DAG("custom_operator", schedule=None):
    TrainOperator(task_id="train", model="churn", data="s3://my-bucket/{{ ds }}/", retries=3)
