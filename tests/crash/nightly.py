"""A custom operator on the mixin, as a user's package would have it: its service is the Databricks simulator, by plain HTTP."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
import urllib.request
from typing import Any

from resumable import ResumableMixin
from tests.support.names import BaseOperator


class NightlyOperator(ResumableMixin, BaseOperator):
    """
    Runs one job.

    Args:
        run_name: the job's name.
        gives_up: the wait fails, with a bug of its own, although the job is well.
    """

    template_fields = ("run_name",)
    reach_fields = ()

    def __init__(self, *, run_name: str, gives_up: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run_name, self.gives_up = run_name, gives_up

    def execute(self, context: Any) -> Any:
        return self.execute_resumable(context)

    def submit_job(self, context: Any) -> Any:
        asked = {"run_name": self.run_name, "idempotency_token": self.idempotency_token}
        return self.ask("POST", "submit", asked)["run_id"]

    def get_job_status(self, external_id: Any, context: Any) -> str:
        state = self.ask("GET", f"get?run_id={external_id}")["state"]
        return str(state.get("result_state") or state["life_cycle_state"])

    def is_job_active(self, status: str) -> bool:
        return status in ("PENDING", "RUNNING", "TERMINATING")

    def is_job_succeeded(self, status: str) -> bool:
        return status == "SUCCESS"

    def poll_until_complete(self, external_id: Any, context: Any) -> None:
        while self.is_job_active(status := self.get_job_status(external_id, context)):
            if self.gives_up:
                raise LookupError("a bug in the wait")
            time.sleep(1)
        if not self.is_job_succeeded(status):
            raise RuntimeError(f"the job ended as {status}")

    def get_job_result(self, external_id: Any, context: Any) -> Any:
        return external_id

    def cancel_job(self, external_id: Any, context: Any) -> None:
        self.ask("POST", "cancel", {"run_id": external_id})

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        there = json.loads(os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"])
        url = f"http://{urllib.parse.urlsplit(there['host']).hostname or there['host']}:{there['port']}/api/2.1/jobs/runs/{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as answer:
            return json.load(answer)
