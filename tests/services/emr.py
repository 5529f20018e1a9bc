"""
Amazon EMR: moto's server, with the step semantics that moto lacks.

moto 5.2 keeps the first step RUNNING and the others PENDING for ever, has no CancelSteps, answers
DescribeStep of an unknown step with an empty 200 and adds steps to a terminated cluster. Those calls are
served, or checked first, here; all else is moto's, including STS.

Sources, named in brackets below: [boto] botocore's service model of EMR and its documentation; [iss] error
texts quoted in public issues (DescribeStep: apache/airflow 17636, AddJobFlowSteps: raster-foundry 352);
[mem] from memory; [assumed] chosen here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.emr.models import Cluster, emr_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug import Request, Response

from .emr_steps import Rejected, Step, age, end, place, summary
from .server import ServiceServer, json_response

if TYPE_CHECKING:
    from typing import Self

REGION = "us-east-1"
STEPS_PER_PAGE = 50  # [boto] ListSteps
MAX_STEP_IDS = 10  # [boto] ListSteps
UNFINISHED = ("PENDING", "CANCEL_PENDING", "RUNNING")  # [boto] StepState
CLUSTER_ENDED = ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS")  # [boto] ClusterState


class EmrService(ServiceServer):
    """
    EMR clusters and steps. moto's state is one for the process: run one EmrService at a time.

    Steps run in order, as many at a time as the cluster's step concurrency allows (1 by default [boto]);
    PENDING becomes RUNNING at the next call. ActionOnFailure is not acted on; regions are not told apart.

    Attributes:
        duration: seconds from its creation after which a step is COMPLETED; None: only by ``finish()``.
        list_lag: seconds for which ListSteps does not show a new step. No AWS document promises
            read-after-write for it.
    """

    def __init__(self, *, duration: float | None = None) -> None:
        super().__init__()
        self.duration = duration
        self.list_lag = 0.0
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._backends = emr_backends[DEFAULT_ACCOUNT_ID]

    def __enter__(self) -> Self:
        for backend in self._backends.values():
            backend.reset()
        return super().__enter__()

    # -- the test's side -------------------------------------------------------------------------

    def env(self) -> dict[str, str]:
        """Return the environment that points boto3, and aiobotocore, here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    def create_cluster(self, name: str = "cluster") -> str:
        """Start a cluster that waits for steps, and return its id."""
        with self.lock:
            # Not the backend's run_job_flow(): that makes EC2 security groups too.
            cluster = Cluster(  # type: ignore[abstract]
                self._backends[REGION],
                name=name,
                log_uri="s3://logs/emr/",
                job_flow_role="",
                service_role="",
                steps=[],
                instance_attrs={"keep_job_flow_alive_when_no_steps": True},
                release_label="emr-7.0.0",
                kerberos_attributes={},
            )
            self._progress()
            return str(cluster.id)

    def terminate_cluster(self, cluster_id: str) -> None:
        """Terminate a cluster; its unfinished steps become CANCELLED."""
        with self.lock:
            self._cluster(cluster_id).terminate()
            self._progress()

    def steps(self, cluster_id: str) -> list[Step]:
        """Return the steps of a cluster, oldest first, list lag or not."""
        with self.lock:
            self._progress()
            return [Step(step.id, step.name, step.state) for step in self._cluster(cluster_id).steps]

    def finish(self, step_id: str, state: str = "COMPLETED", reason: str = "") -> None:
        """End a step as COMPLETED, FAILED, CANCELLED or INTERRUPTED."""
        with self.lock:
            _, step = self._find(step_id)
            end(step, state, reason)
            self._progress()

    def forget(self, step_id: str) -> None:
        """Drop a step as after the retention time."""
        with self.lock:
            cluster, step = self._find(step_id)
            cluster.steps.remove(step)

    # -- moto's state ----------------------------------------------------------------------------

    def _clusters(self) -> Iterator[Any]:
        for backend in self._backends.values():
            yield from backend.clusters.values()

    def _cluster(self, cluster_id: str | None) -> Any:
        for cluster in self._clusters():
            if cluster.id == cluster_id:
                return cluster
        raise Rejected("InvalidRequestException", f"Cluster id '{cluster_id}' is not valid.")

    def _find(self, step_id: str) -> tuple[Any, Any]:
        """Return a step and its cluster."""
        for cluster in self._clusters():
            for step in cluster.steps:
                if step.id == step_id:
                    return cluster, step
        raise KeyError(step_id)

    def _progress(self) -> None:
        """Bring every cluster up to now."""
        for cluster in self._clusters():
            unfinished = [step for step in cluster.steps if step.state in UNFINISHED]
            if cluster.state in CLUSTER_ENDED:
                for step in unfinished:
                    end(step, "CANCELLED", "Cluster terminated.")
                continue
            if self.duration is not None:
                for step in unfinished:
                    if age(step) >= self.duration:
                        end(step, "COMPLETED")
                unfinished = [step for step in unfinished if step.state in UNFINISHED]
            for number, step in enumerate(unfinished):
                place(step, is_running=number < cluster.step_concurrency_level)
            cluster.state = "RUNNING" if unfinished else "WAITING"
            if cluster.steps and not unfinished and not cluster.keep_job_flow_alive_when_no_steps:
                cluster.terminate()

    # -- the API ---------------------------------------------------------------------------------

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        target = request.headers.get("X-Amz-Target")
        if target:
            return target.rpartition(".")[2], request.get_json(force=True, silent=True) or {}
        body = request.form.to_dict()  # the query protocol, STS's
        return body.get("Action", request.path), body

    def error_body(self, status: int, message: str) -> dict[str, Any]:
        code = {400: "ThrottlingException", 503: "ServiceUnavailable"}.get(status, "InternalServerException")
        return {"__type": code, "message": message}

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        self._progress()
        try:
            if operation == "AddJobFlowSteps":
                self._check_open(body.get("JobFlowId"))
            elif operation == "DescribeStep":
                step = self._step(self._cluster(body.get("ClusterId")), body.get("StepId"))
                return json_response({"Step": summary(step)})
            elif operation == "ListSteps":
                return json_response(self._list_steps(body))
            elif operation == "CancelSteps":
                return json_response(self._cancel_steps(body))
        except Rejected as error:
            return json_response({"__type": error.code, "message": str(error)}, 400)
        environ = {**request.environ, "wsgi.input": io.BytesIO(request.get_data())}
        response = Response.from_app(self._moto, environ, buffered=True)
        if operation == "TerminateJobFlows":
            self._progress()
        return response

    def _check_open(self, cluster_id: str | None) -> None:
        cluster = next((cluster for cluster in self._clusters() if cluster.id == cluster_id), None)
        if cluster is None:
            raise Rejected("ValidationException", "Specified job flow ID does not exist.")  # [iss]
        if cluster.state in CLUSTER_ENDED:  # text: [mem]
            message = "A job flow that is shutting down, terminated, or finished may not be modified."
            raise Rejected("ValidationException", message)

    def _step(self, cluster: Any, step_id: str | None) -> Any:
        for step in cluster.steps:
            if step.id == step_id:
                return step
        raise Rejected("InvalidRequestException", f"Step id '{step_id}' is not valid.")  # [iss]

    def _list_steps(self, body: dict[str, Any]) -> dict[str, Any]:
        """
        List the newest first; *Marker* is the place to go on from.

        [boto]: "in reverse order unless you specify stepIds with the request or filter by StepStates".
        Which order that is it does not say; here the oldest first, so that nobody comes to rely on either.
        """
        cluster = self._cluster(body.get("ClusterId"))
        wanted, states = body.get("StepIds", []), body.get("StepStates", [])
        if len(wanted) > MAX_STEP_IDS:  # text: [assumed]
            message = f"A maximum of {MAX_STEP_IDS} step IDs can be specified."
            raise Rejected("InvalidRequestException", message)
        for step_id in wanted:
            self._step(cluster, step_id)
        steps = [
            step
            for step in (cluster.steps if wanted or states else reversed(cluster.steps))
            if (not wanted or step.id in wanted) and (not states or step.state in states) and age(step) >= self.list_lag
        ]
        start = int(body.get("Marker") or 0)
        following = start + STEPS_PER_PAGE
        page = {"Steps": [summary(step) for step in steps[start:following]]}
        return {**page, "Marker": str(following)} if following < len(steps) else page

    def _cancel_steps(self, body: dict[str, Any]) -> dict[str, Any]:
        """Cancel PENDING and RUNNING steps, the latter as EMR does from 5.28 on [boto]; at once [assumed]."""
        cluster = self._cluster(body.get("ClusterId"))
        answers = []
        for step in [self._step(cluster, step_id) for step_id in body.get("StepIds", [])]:
            if step.state in UNFINISHED:
                end(step, "CANCELLED", "Cancelled by user.")
                answers.append({"StepId": step.id, "Status": "SUBMITTED"})
            else:
                reason = f"Step is in state {step.state}."
                answers.append({"StepId": step.id, "Status": "FAILED", "Reason": reason})
        self._progress()
        return {"CancelStepsInfoList": answers}
