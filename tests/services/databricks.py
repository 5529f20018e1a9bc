"""
The Databricks Jobs and SQL statement APIs as far as Airflow's provider uses them, with their documented idempotency.

Sources, named in brackets below: [doc] the Jobs API reference, whose texts the Databricks SDKs repeat
(jobs/runs: submit, run-now, list, get, cancel, repair, delete); [kb] the knowledge base article "How to
ensure idempotency for jobs"; [sdk] databricks-sdk-py ``errors/overrides.py``; [hook] what the provider's
``DatabricksHook`` sends and reads; [assumed] neither documented nor observed, chosen here.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from werkzeug import Request, Response

from .databricks_runs import Run
from .databricks_sql import Statements
from .databricks_wire import ERROR_CODES, Rejected, describe_run, page_of
from .server import ServiceServer, json_response

MAX_TOKEN_LENGTH = 64  # [doc]
_PATH = re.compile(r"/api/2\.[12]/jobs/(?P<operation>.+)")


class DatabricksSimulator(ServiceServer):
    """
    A Databricks workspace that knows runs, jobs and SQL statements, and nothing of clusters.

    Attributes:
        runs: every run by its id, deleted and forgotten ones excepted.
        jobs: settings of every job by its id.
        duration: seconds after which a run finishes with SUCCESS by itself; None: only by ``finish()``.
        cancel_lag_reads: for how many reads a cancelled run is still TERMINATING ([doc]: the run is
            cancelled asynchronously).
        sql: its SQL statements.
        missing_status: 400 as the service answers for an unknown run ([sdk] remaps exactly this), or 404.
    """

    def __init__(self, *, duration: float | None = None) -> None:
        super().__init__()
        self.runs: dict[int, Run] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.duration = duration
        self.cancel_lag_reads = 0
        self.missing_status = 400
        self.sql = Statements()
        self._tokens: dict[str, int] = {}
        self._ids = itertools.count(1001)

    # -- the test's side -------------------------------------------------------------------------

    def connection_json(self) -> str:
        """Return the value of AIRFLOW_CONN_DATABRICKS_DEFAULT: [hook] takes the URL scheme from *schema*."""
        return json.dumps(
            {
                "conn_type": "databricks",
                "schema": "http",
                "host": self.host,
                "port": self.port,
                "password": "token",
            }
        )

    def env(self) -> dict[str, str]:
        """Return the environment that points the provider's default connection here."""
        return {"AIRFLOW_CONN_DATABRICKS_DEFAULT": self.connection_json()}

    def add_job(self, name: str, **settings: Any) -> int:
        """Create a job and return its id."""
        with self.lock:
            job_id = next(self._ids)
            self.jobs[job_id] = {"name": name, **settings}
            return job_id

    def active(self) -> list[Run]:
        """Return the runs that have not ended."""
        with self.lock:
            return [run for run in self._progressed() if run.is_active]

    def finish(self, run_id: int, result: str = "SUCCESS", message: str = "") -> None:
        """End a run, as FAILED with *message* for instance; the message is its tasks' error too."""
        with self.lock:
            self.runs[run_id].end(result, message)

    def set_state(self, run_id: int, life_cycle_state: str, result_state: str | None = None) -> None:
        """Put a run into any state, e.g. QUEUED or INTERNAL_ERROR."""
        with self.lock:
            self.runs[run_id].life_cycle_state = life_cycle_state
            self.runs[run_id].result_state = result_state

    def forget(self, run_id: int) -> None:
        """Drop a run as after the retention time; its token stays taken [assumed: as for a deleted run]."""
        with self.lock:
            del self.runs[run_id]

    def _progressed(self) -> list[Run]:
        if self.duration is not None:
            for run in self.runs.values():
                run.end_if_older_than(self.duration)
        return list(self.runs.values())

    # -- the API ---------------------------------------------------------------------------------

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        if (statement := self.sql.parse(request)) is not None:
            return statement
        found = _PATH.fullmatch(request.path)
        # [hook] sends a GET's parameters in the query when synchronous, as a JSON body when asynchronous.
        body = {**request.args.to_dict(), **(request.get_json(silent=True) or {})}
        name = found["operation"] if found else request.path
        return (name if name.startswith("run") else f"jobs/{name}"), body

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        return {"error_code": ERROR_CODES.get(status, "INTERNAL_ERROR"), "message": message}

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        handler = getattr(self, "_do_" + re.sub(r"\W", "_", operation), None)
        try:
            if "Authorization" not in request.headers:
                raise Rejected("Credential was not sent or was of an unsupported type", 401)
            if operation.startswith("sql/"):
                return json_response(self.sql.answer(operation, body))
            if handler is None:
                raise Rejected(f"No API found for '{request.path}'", 404, "ENDPOINT_NOT_FOUND")
            self._progressed()
            return json_response(handler(body))
        except Rejected as error:
            return json_response({"error_code": error.code, "message": str(error)}, error.status)

    def _run(self, run_id: Any) -> Run:
        """Return the run with that id, or whose task has it: [hook] reads task runs the same way."""
        for run in self.runs.values():
            if int(run_id) == run.run_id or int(run_id) in run.tasks:
                return run
        raise Rejected(f"Run {run_id} does not exist.", self.missing_status)

    def _job(self, job_id: Any) -> dict[str, Any]:
        if int(job_id) not in self.jobs:
            raise Rejected(f"Job {job_id} does not exist.", self.missing_status)
        return self.jobs[int(job_id)]

    def _start(self, body: dict[str, Any], job_id: int | None, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Start a run, or return the one that has the token.

        [doc]: a run with the token exists: its id is returned and no run created; that run was deleted:
        an error. [kb]: all requests with a token return 200 with the same run id. So neither its state
        nor the payload is looked at. The tokens of submit and run-now share one space [assumed].
        """
        token = body.get("idempotency_token") or None
        if token is not None and len(token) > MAX_TOKEN_LENGTH:
            raise Rejected(f"idempotency_token must have at most {MAX_TOKEN_LENGTH} characters")
        if token in self._tokens:
            run_id = self._tokens[token]
            if run_id not in self.runs:
                raise Rejected(f"The run with idempotency token {token} was deleted.")
            return {"run_id": run_id}

        run_id = next(self._ids)
        one_time = job_id is None
        run = Run(run_id, next(self._ids) if job_id is None else job_id, token, body, is_one_time=one_time)
        # [hook] finds a task of a run without tasks by the run's name
        only = [{"task_key": body.get("run_name") or "task"}]
        run.tasks = {next(self._ids): task.get("task_key", "task") for task in tasks or only}
        self.runs[run_id] = run
        if token is not None:
            self._tokens[token] = run_id
        return {"run_id": run_id}

    def _do_runs_submit(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._start(body, None, body.get("tasks", []))

    def _do_run_now(self, body: dict[str, Any]) -> dict[str, Any]:
        tasks = self._job(body.get("job_id", 0)).get("tasks", [])
        return self._start(body, int(body["job_id"]), tasks)

    def _do_runs_get(self, body: dict[str, Any]) -> dict[str, Any]:
        run = self._run(body.get("run_id", 0))
        run.note_read()
        has_history = str(body.get("include_history", "")).lower() == "true"
        return describe_run(run, int(body["run_id"]), self.url, include_history=has_history)

    def _do_runs_get_output(self, body: dict[str, Any]) -> dict[str, Any]:
        run_id = int(body.get("run_id", 0))
        run = self._run(run_id)
        if run_id == run.run_id and len(run.tasks) > 1:
            raise Rejected("Retrieving the output of runs with multiple tasks is not supported.")
        output = {"metadata": describe_run(run, run_id, self.url)}
        return {**output, "error": run.message} if run.result_state == "FAILED" else output

    def _do_runs_list(self, body: dict[str, Any]) -> dict[str, Any]:
        """List the newest first, 20 by default and less than 26 a page [doc]."""
        runs = list(reversed(self.runs.values()))
        if body.get("job_id"):
            runs = [run for run in runs if run.job_id == int(body["job_id"])]
        if str(body.get("active_only", "")).lower() == "true":
            runs = [run for run in runs if run.is_active]
        if str(body.get("completed_only", "")).lower() == "true":
            runs = [run for run in runs if not run.is_active]
        if body.get("run_type"):
            runs = [run for run in runs if run.run_type == body["run_type"]]
        page, token = page_of(runs, body, default=20, maximum=25)
        described = [describe_run(run, run.run_id, self.url) for run in page]
        return {"runs": described, "has_more": bool(token), **token}

    def _do_runs_cancel(self, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel; a run that has ended stays as it is."""
        self._run(body.get("run_id", 0)).cancel(self.cancel_lag_reads)
        return {}

    def _do_runs_cancel_all(self, body: dict[str, Any]) -> dict[str, Any]:
        self._job(body.get("job_id", 0))
        for run in self.runs.values():
            if run.job_id == int(body["job_id"]):
                run.cancel(self.cancel_lag_reads)
        return {}

    def _do_runs_repair(self, body: dict[str, Any]) -> dict[str, Any]:
        """Re-run a failed run; each repair but the first names the latest one [doc]."""
        run = self._run(body.get("run_id", 0))
        if run.is_active or run.result_state == "SUCCESS":
            raise Rejected(f"Run {run.run_id} cannot be repaired in its current state.")
        if run.repair_ids and body.get("latest_repair_id") != run.repair_ids[-1]:
            raise Rejected("latest_repair_id must be the id of the latest repair of this run.")
        repair_id = next(self._ids)
        run.repair(repair_id)
        return {"repair_id": repair_id}

    def _do_runs_delete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Delete a run that is not active, else an error [doc]."""
        run = self._run(body.get("run_id", 0))
        if run.is_active:
            raise Rejected(f"Run {run.run_id} is active and cannot be deleted.")
        del self.runs[run.run_id]
        return {}

    def _do_jobs_list(self, body: dict[str, Any]) -> dict[str, Any]:
        """List jobs; *name* matches whole names, whatever their case [doc]."""
        name = str(body.get("name", "")).lower()
        jobs = [
            {"job_id": job_id, "settings": settings}
            for job_id, settings in self.jobs.items()
            if not name or settings["name"].lower() == name
        ]
        page, token = page_of(jobs, body, default=20, maximum=100)
        return {"jobs": page, **token}

    def _do_jobs_create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a job; nothing keeps two from having one name [doc]."""
        job_id = next(self._ids)
        self.jobs[job_id] = dict(body)
        return {"job_id": job_id}

    def _do_jobs_reset(self, body: dict[str, Any]) -> dict[str, Any]:
        """Overwrite all settings; runs that are active go on as they are [doc]."""
        self._job(body.get("job_id", 0))
        self.jobs[int(body["job_id"])] = dict(body.get("new_settings", {}))
        return {}

    def _do_jobs_update(self, body: dict[str, Any]) -> dict[str, Any]:
        self._job(body.get("job_id", 0)).update(body.get("new_settings", {}))
        return {}
