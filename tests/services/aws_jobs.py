"""
AWS services as far as the operators need them: jobs that are submitted by a name or a token, looked at, and stopped.

Requests and answers are told apart by botocore's own service models. Each class is one service, with its words and its errors as
the model has them; what the model does not say is marked: [doc] the API reference, [iss] public issues, [assumed] chosen here.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar
from xml.sax.saxutils import escape

import botocore.session
from botocore import xform_name
from werkzeug import Request, Response

from .faults import Refuse
from .server import ServiceServer, json_response

REGION = "us-east-1"
ACCOUNT = "123456789012"


class AwsError(Exception):
    """An error answer with an AWS error *code*."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass
class Job:
    """A job as the service has it."""

    id: str
    body: dict[str, Any]
    state: str
    token: str | None = None
    created: float = field(default_factory=time.time)
    reason: str = ""
    ended: float | None = None


class AwsJobs(ServiceServer):
    """
    One AWS service with one kind of job. An operation is served by the method of its name (``StartExecution``:
    ``start_execution``), called with the parsed request; it returns the answer's members.

    Attributes:
        duration: seconds after which a job has succeeded; None: only by ``finish()``.
        all: every job, forgotten ones too.
        has_input: what S3 says about any object.
    """

    api: ClassVar[str]
    active: ClassVar[str]
    succeeded: ClassVar[str]
    failed: ClassVar[str]
    stopped: ClassVar[str]
    missing: ClassVar[AwsError]
    """What a look at an unknown job is answered with."""
    author_names: ClassVar[bool] = False
    """A job's name is the author's, and taken once."""

    def __init__(self) -> None:
        super().__init__()
        self.duration: float | None = None
        self.all: list[Job] = []
        self.has_input = True
        self._known: dict[str, Job] = {}
        self._numbers = itertools.count(1)
        self._model = botocore.session.get_session().get_service_model(self.api)
        rest = self._model.operation_names if self._model.protocol.startswith("rest") else ()
        routes = [_route(self._model.operation_model(name)) for name in rest]
        self._routes = sorted(routes, key=lambda route: -route[2].pattern.count("/"))  # the longest path that fits is meant

    # -- the test's side -------------------------------------------------------------------------

    def env(self) -> dict[str, str]:
        """Return the environment that points boto3, and aiobotocore, here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
        }

    def running(self) -> list[Job]:
        with self.lock:
            return [job for job in self.all if self._now(job).state == self.active]

    def finish(self, job: Job, state: str | None = None, reason: str = "") -> None:
        """End a job, by default well."""
        with self.lock:
            job.state, job.reason, job.ended = state or self.succeeded, reason, time.time()

    def forget(self) -> None:
        """Let the service know none of its jobs any more."""
        with self.lock:
            self._known.clear()

    # -- for the services ------------------------------------------------------------------------

    def number(self) -> int:
        return next(self._numbers)

    def add(self, key: str, body: dict[str, Any], token: str | None = None) -> Job:
        job = Job(key, body, self.active, token)
        self.all.append(job)
        self._known[key] = job
        return self._now(job)

    def by_token(self, token: Any) -> Job | None:
        """The job of an earlier submit with this token."""
        return next((job for job in self.all if token and job.token == token), None)

    def get(self, key: Any) -> Job:
        if key not in self._known:
            raise self.missing
        return self._now(self._known[key])

    def stop(self, key: Any) -> Job:
        job = self.get(key)
        if job.state == self.active:
            self.finish(job, self.stopped, "stopped by a user")
        return job

    def _now(self, job: Job) -> Job:
        if self.duration is not None and job.state == self.active and time.time() - job.created >= self.duration:
            job.state, job.ended = self.succeeded, time.time()
        return job

    # -- the API ---------------------------------------------------------------------------------

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        target = request.headers.get("X-Amz-Target")
        if target:
            return target.rpartition(".")[2], request.get_json(force=True, silent=True) or {}
        if "Action" in request.form:
            return request.form["Action"], request.form.to_dict()
        for name, method, path in self._routes:
            found = path.fullmatch(request.path)
            if method == request.method and found:
                return name, {**request.args, **(request.get_json(force=True, silent=True) or {}), **found.groupdict()}
        return request.path, {}

    def error_body(self, status: int, message: str) -> Any:
        codes = {400: "ThrottlingException", 403: "AccessDeniedException", 503: "ServiceUnavailable"}
        code = codes.get(status, "InternalFailure")
        if self._model.protocol == "query":
            return f"<ErrorResponse><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></ErrorResponse>"
        return {"__type": code, "message": message}

    def error_answer(self, error: AwsError) -> dict[str, Any]:
        return {"__type": error.code, "message": str(error)}

    def _answer(self, fault: Any, request: Request, operation: str, body: dict[str, Any]) -> Any:
        if isinstance(fault, Refuse) and isinstance(fault.body, dict) and self._model.protocol == "query":
            fault = replace(fault, body=self.error_body(fault.status, str(fault.body.get("message"))))  # in the service's XML
        return super()._answer(fault, request, operation, body)

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        if request.method == "HEAD":  # S3: is there such a bucket, or object
            return Response(status=200 if self.has_input else 404)
        if operation == "GetCallerIdentity":
            return _xml(operation, {"Account": ACCOUNT, "UserId": "me", "Arn": f"arn:aws:iam::{ACCOUNT}:user/me"})
        method = getattr(self, xform_name(operation), None)
        is_query = self._model.protocol == "query"
        try:
            if method is None:
                raise AwsError("UnknownOperationException", f"{operation} is not simulated", 404)
            answer = method(body)
        except AwsError as e:
            if is_query:
                text = f"<ErrorResponse><Error><Code>{e.code}</Code><Message>{escape(str(e))}</Message></Error></ErrorResponse>"
                return Response(text, e.status, content_type="text/xml")
            return json_response(self.error_answer(e), e.status)
        if is_query:
            return _xml(operation, answer, self._model.operation_model(operation).output_shape)
        return json_response(answer, int(self._model.operation_model(operation).http.get("responseCode", 200)))


def _route(operation: Any) -> tuple[str, str, re.Pattern[str]]:
    parts = re.split(r"\{(\w+)\+?\}", operation.http["requestUri"].partition("?")[0])
    shape = operation.input_shape
    members = {m.serialization.get("name", n): n for n, m in shape.members.items()} if shape else {}
    pattern = "".join(re.escape(p) if i % 2 == 0 else f"(?P<{members.get(p, p)}>.+)" for i, p in enumerate(parts))
    return operation.name, operation.http["method"], re.compile(pattern)


def _xml(operation: str, answer: dict[str, Any], shape: Any = None) -> Response:
    def written(value: Any, shape: Any) -> str:
        if isinstance(value, dict):
            members = shape.members if shape else {}
            return "".join(f"<{k}>{written(v, members.get(k))}</{k}>" for k, v in value.items())
        if isinstance(value, list):
            name = shape.member.serialization.get("name", "member")
            return "".join(f"<{name}>{written(v, shape.member)}</{name}>" for v in value)
        return escape(str(value))

    body = f"<{operation}Result>{written(answer, shape)}</{operation}Result>"
    return Response(f"<{operation}Response>{body}</{operation}Response>", 200, content_type="text/xml")


class StepFunctions(AwsJobs):
    """Executions of one state machine."""

    api = "stepfunctions"
    author_names = True
    active, succeeded, failed, stopped = "RUNNING", "SUCCEEDED", "FAILED", "ABORTED"
    missing = AwsError("ExecutionDoesNotExist", "Execution Does Not Exist")
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:nightly"

    def __init__(self) -> None:
        super().__init__()
        self.type = "STANDARD"
        self.redrives: dict[str, str] = {}

    def describe_state_machine(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"stateMachineArn": body["stateMachineArn"], "name": "nightly", "type": self.type}

    def start_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        machine = body["stateMachineArn"].split(":")[6]
        name = body.get("name") or f"random-{self.number()}"
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:{machine}:{name}"
        if self.type == "EXPRESS":
            arn = arn.replace("execution", "express") + f":{self.number()}"
        job = self._known.get(arn)
        if job is None:
            job = self.add(arn, body)
        elif self._now(job).state != self.active or job.body.get("input") != body.get("input"):
            raise AwsError("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
        return {"executionArn": arn, "startDate": job.created}

    def redrive_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        """The token's answer is kept (15 minutes [boto], not told apart here)."""
        job = self.get(body["executionArn"])
        if self.redrives.get(body["clientToken"]) != job.id:
            if job.state not in (self.failed, self.stopped):
                raise AwsError("ExecutionNotRedrivable", f"Execution {job.id} is not redrivable")
            job.state = self.active
            self.redrives[body["clientToken"]] = job.id
        return {"redriveDate": time.time()}

    def describe_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["executionArn"])
        answer = {
            "executionArn": job.id,
            "stateMachineArn": self.machine,
            "name": job.id.rpartition(":")[2],
            "status": job.state,
            "startDate": job.created,
        }
        return {**answer, "error": job.reason} if job.reason else answer

    def stop_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["executionArn"])
        return {"stopDate": time.time()}


class SageMakerJobs(AwsJobs):
    """Jobs of one kind, by their names. Texts of "not found": [iss]."""

    api = "sagemaker"
    author_names = True
    active, succeeded, failed, stopped = "InProgress", "Completed", "Failed", "Stopped"
    missing = AwsError("ValidationException", "Requested resource not found.")
    kind: ClassVar[str] = "TrainingJob"
    length: ClassVar[int] = 63

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body[f"{self.kind}Name"]
        if len(name) > self.length:
            raise AwsError("ValidationException", f"Member must have length less than or equal to {self.length}")
        if any(name.lower() == known.lower() for known in self._known):
            raise AwsError("ResourceInUse", f"{self.kind} {name} already exists")
        self.add(name, body)
        return {f"{self.kind}Arn": self.arn(name)}

    def arn(self, name: str) -> str:
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{self.kind.lower()}/{name}"

    def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body[f"{self.kind}Name"])
        answer = {**job.body, f"{self.kind}Status": job.state, f"{self.kind}Arn": self.arn(job.id), "CreationTime": job.created}
        return {**answer, "FailureReason": job.reason} if job.reason else answer

    def end(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body[f"{self.kind}Name"])
        return {}


class SageMakerTraining(SageMakerJobs):
    create_training_job = SageMakerJobs.create
    stop_training_job = SageMakerJobs.end

    def describe_training_job(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["TrainingJobName"])
        times = {"TrainingStartTime": job.created, "TrainingEndTime": job.ended} if job.ended else {}
        return {**self.describe(body), **times, "SecondaryStatusTransitions": []}


class SageMakerProcessing(SageMakerJobs):
    kind = "ProcessingJob"
    missing = AwsError("ValidationException", "Could not find requested job with name")
    create_processing_job = SageMakerJobs.create
    describe_processing_job = SageMakerJobs.describe
    stop_processing_job = SageMakerJobs.end


class SageMakerTransform(SageMakerJobs):
    kind = "TransformJob"
    missing = AwsError("ValidationException", "Could not find requested job with name")
    describe_transform_job = SageMakerJobs.describe
    stop_transform_job = SageMakerJobs.end

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, dict[str, Any]] = {}

    def create_model(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["ModelName"]
        if name in self.models:
            raise AwsError("ValidationException", f"Cannot create already existing model {name}")  # [iss]
        self.models[name] = body
        return {"ModelArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/{name}"}

    def describe_model(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["ModelName"] not in self.models:
            raise AwsError("ValidationException", "Could not find model")
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/{body['ModelName']}"
        return {**self.models[body["ModelName"]], "CreationTime": 1.0, "ModelArn": arn}

    def create_transform_job(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["ModelName"] not in self.models:
            raise AwsError("ValidationException", "Could not find model")
        return self.create(body)


class SageMakerTuning(SageMakerJobs):
    kind, length = "HyperParameterTuningJob", 32
    missing = AwsError("ResourceNotFound", "Amazon SageMaker can't find a tuning job with that name")
    create_hyper_parameter_tuning_job = SageMakerJobs.create
    describe_hyper_parameter_tuning_job = SageMakerJobs.describe
    stop_hyper_parameter_tuning_job = SageMakerJobs.end


class SageMakerAutoML(SageMakerJobs):
    kind, length = "AutoMLJob", 32
    missing = AwsError("ResourceNotFound", "Could not find requested job")
    create_auto_ml_job = SageMakerJobs.create
    stop_auto_ml_job = SageMakerJobs.end

    def describe_auto_ml_job(self, body: dict[str, Any]) -> dict[str, Any]:
        described = {**self.describe(body), "AutoMLJobSecondaryStatus": "Completed"}
        done = described["AutoMLJobStatus"] == self.succeeded
        return {**described, "BestCandidate": {"CandidateName": "best"}} if done else described


class SageMakerPipelines(AwsJobs):
    """Executions of pipelines; a token's answer is kept for ever [assumed]."""

    api = "sagemaker"
    active, succeeded, failed, stopped = "Executing", "Succeeded", "Failed", "Stopped"
    missing = AwsError("ResourceNotFound", "Pipeline execution does not exist")

    def start_pipeline_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body["ClientRequestToken"]
        if not 32 <= len(token) <= 128:
            raise AwsError("ValidationException", "length of ClientRequestToken")
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{body['PipelineName']}/execution/{self.number()}"
        job = self.by_token(token) or self.add(arn, body, token)
        return {"PipelineExecutionArn": job.id}

    def describe_pipeline_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["PipelineExecutionArn"])
        return {"PipelineExecutionArn": job.id, "PipelineExecutionStatus": job.state, "FailureReason": job.reason or "none"}

    def list_pipeline_execution_steps(self, body: dict[str, Any]) -> dict[str, Any]:
        self.get(body["PipelineExecutionArn"])
        return {"PipelineExecutionSteps": []}

    def stop_pipeline_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"PipelineExecutionArn": self.stop(body["PipelineExecutionArn"]).id}


class Bedrock(AwsJobs):
    api = "bedrock"

    def forget(self) -> None:
        """Tokens too: what is answered to one whose job is gone is not said [assumed]."""
        super().forget()
        for job in self.all:
            job.token = None


class BedrockJobs(Bedrock):
    """
    Jobs by name and token. "If this token matches a previous request, Amazon Bedrock ignores the request, but does not return an
    error" [boto]: what it returns then is not said.

    Attributes:
        repeats_arn: whether the answer to a repetition names the job.
    """

    active, succeeded, failed, stopped = "InProgress", "Completed", "Failed", "Stopped"
    missing = AwsError("ResourceNotFoundException", "Could not find the job", 404)
    repeats_arn = False
    author_names = True

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.by_token(body.get("clientRequestToken"))
        if job is not None:
            return {"jobArn": job.id} if self.repeats_arn else {}
        if any(known.body["jobName"] == body["jobName"] for known in self._known.values()):
            raise AwsError("ConflictException", "The provided job name is currently in use.", 400)
        arn = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:job/{self.number()}"
        return {"jobArn": self.add(arn, body, body["clientRequestToken"]).id}

    def get_job(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body["jobIdentifier"]
        job = self.get(next((key for key, job in self._known.items() if wanted in (key, job.body["jobName"])), wanted))
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created))
        answer = {"jobArn": job.id, "jobName": job.body["jobName"], "status": job.state, "creationTime": created}
        return {**answer, "submitTime": created}

    def stop_job(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.get(body["jobIdentifier"]).state != self.active:
            raise AwsError("ConflictException", "The job cannot be stopped in its state")
        self.stop(body["jobIdentifier"])
        return {}


class BedrockInvocations(BedrockJobs):
    create_model_invocation_job = BedrockJobs.create
    get_model_invocation_job = BedrockJobs.get_job
    stop_model_invocation_job = BedrockJobs.stop_job

    def list_model_invocation_jobs(self, body: dict[str, Any]) -> dict[str, Any]:
        jobs = [job for job in self._known.values() if body.get("nameContains", "") in job.body["jobName"]]
        return {"invocationJobSummaries": [self.get_job({"jobIdentifier": job.id}) for job in jobs]}


class BedrockCustomizations(BedrockJobs):
    create_model_customization_job = BedrockJobs.create
    get_model_customization_job = BedrockJobs.get_job
    stop_model_customization_job = BedrockJobs.stop_job


class BedrockThroughputs(Bedrock):
    """Provisioned throughputs, by name and token."""

    active, succeeded, failed, stopped = "Creating", "InService", "Failed", "Deleted"
    missing = AwsError("ResourceNotFoundException", "Could not find the throughput", 404)

    def create_provisioned_model_throughput(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.by_token(body["clientRequestToken"]):
            return {}
        arn = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:provisioned-model/{self.number()}"
        return {"provisionedModelArn": self.add(arn, body, body["clientRequestToken"]).id}

    def get_provisioned_model_throughput(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body["provisionedModelId"]
        # a name is taken once there [doc: it identifies a throughput]; here the last of that name has it
        names = (key for key, job in reversed(self._known.items()) if wanted in (key, job.body["provisionedModelName"]))
        job = self.get(next(names, wanted))
        return {"provisionedModelArn": job.id, "status": job.state}

    def delete_provisioned_model_throughput(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["provisionedModelId"])
        self._known.pop(body["provisionedModelId"], None)
        return {}


class ComprehendPii(AwsJobs):
    """A token's answer is kept for ever [assumed]."""

    api = "comprehend"
    active, succeeded, failed, stopped = "IN_PROGRESS", "COMPLETED", "FAILED", "STOPPED"
    missing = AwsError("JobNotFoundException", "The specified job was not found.")

    def start_pii_entities_detection_job(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body.get("ClientRequestToken")
        job = self.by_token(token) or self.add(f"{self.number():032x}", body, token)
        return {"JobId": job.id, "JobStatus": "SUBMITTED"}

    def describe_pii_entities_detection_job(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["JobId"])
        return {"PiiEntitiesDetectionJobProperties": {"JobId": job.id, "JobStatus": job.state}}

    def stop_pii_entities_detection_job(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"JobId": self.stop(body["JobId"]).id}


class ComprehendClassifiers(AwsJobs):
    """A token's answer is kept for ever [assumed]; names are told apart only with ``takes_names_once``."""

    api = "comprehend"
    takes_names_once = False
    active, succeeded, failed, stopped = "TRAINING", "TRAINED", "IN_ERROR", "STOPPED"
    missing = AwsError("ResourceNotFoundException", "The specified resource was not found.")

    def create_document_classifier(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body.get("ClientRequestToken")
        name = f"c/version/{self.number()}"
        if self.takes_names_once:
            version = body.get("VersionName")
            name = body["DocumentClassifierName"] + (f"/version/{version}" if version else "")
        arn = f"arn:aws:comprehend:{REGION}:{ACCOUNT}:document-classifier/{name}"
        if self.by_token(token) is None and any(job.id == arn for job in self.all):
            raise AwsError("ResourceInUseException", "The specified resource name is already in use.")
        return {"DocumentClassifierArn": (self.by_token(token) or self.add(arn, body, token)).id}

    def describe_document_classifier(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["DocumentClassifierArn"])
        more = {"Message": job.reason, "OutputDataConfig": {"S3Uri": "s3://out/"}, "ClassifierMetadata": {}}
        return {"DocumentClassifierProperties": {"DocumentClassifierArn": job.id, "Status": job.state, **more}}

    def stop_training_document_classifier(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["DocumentClassifierArn"])
        return {}


class GlueQuality(AwsJobs):
    """Data quality runs; a token's answer is kept for ever [assumed]."""

    api = "glue"
    active, succeeded, failed, stopped = "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"
    missing = AwsError("EntityNotFoundException", "Cannot find the run")

    def __init__(self) -> None:
        super().__init__()
        self.rules = ["PASS"]
        self.has_ruleset = True

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body.get("ClientToken")
        return {"RunId": (self.by_token(token) or self.add(f"dqrun-{self.number()}", body, token)).id}

    def describe(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["RunId"])
        return {"RunId": job.id, "Status": job.state, "ResultIds": [f"dqresult-{job.id}"]}

    def cancel(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["RunId"])
        return {}

    def get_data_quality_ruleset(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.has_ruleset:
            raise AwsError("EntityNotFoundException", "Cannot find the ruleset")
        return {"Name": body["Name"]}

    def batch_get_data_quality_result(self, body: dict[str, Any]) -> dict[str, Any]:
        rules = [{"Name": f"Rule_{i}", "Result": result} for i, result in enumerate(self.rules)]
        return {"Results": [{"ResultId": name, "RuleResults": rules} for name in body["ResultIds"]]}

    start_data_quality_ruleset_evaluation_run = start
    get_data_quality_ruleset_evaluation_run = describe
    cancel_data_quality_ruleset_evaluation_run = cancel
    start_data_quality_rule_recommendation_run = start
    get_data_quality_rule_recommendation_run = describe
    cancel_data_quality_rule_recommendation_run = cancel


class RdsExports(AwsJobs):
    """Exports of snapshots, by identifier."""

    api = "rds"
    author_names = True
    active, succeeded, failed, stopped = "IN_PROGRESS", "COMPLETE", "FAILED", "CANCELED"
    missing = AwsError("ExportTaskNotFound", "The export task does not exist", 404)

    def start_export_task(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["ExportTaskIdentifier"] in self._known:
            raise AwsError("ExportTaskAlreadyExists", "An export task with the same identifier exists")
        return self._task(self.add(body["ExportTaskIdentifier"], body))

    def describe_export_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"ExportTasks": [self._task(self.get(body["ExportTaskIdentifier"]))]}

    def cancel_export_task(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._task(self.stop(body["ExportTaskIdentifier"]))

    @staticmethod
    def _task(job: Job) -> dict[str, Any]:
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created))
        names = {"ExportTaskIdentifier": job.id, "SourceArn": job.body["SourceArn"], "S3Bucket": job.body["S3BucketName"]}
        return {**names, "Status": job.state, "TaskStartTime": began}


class RdsSnapshots(AwsJobs):
    """
    Snapshots of instances and of clusters, by identifier, whatever its case. One that is being created cannot be deleted; tags in
    the request keep those of the database away (moto's authors against AWS).

    Attributes:
        inherited: the tags that a snapshot gets of its database, or of its source.
    """

    api = "rds"
    author_names = True
    active, succeeded, failed, stopped = "creating", "available", "failed", "deleted"
    missing = AwsError("DBSnapshotNotFound", "The snapshot does not exist", 404)

    def __init__(self) -> None:
        super().__init__()
        self.inherited: dict[str, str] = {}

    def _create(self, kind: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name.lower() in self._known:
            code = "DBSnapshotAlreadyExists" if kind == "DBSnapshot" else "DBClusterSnapshotAlreadyExistsFault"
            raise AwsError(code, f"Cannot create the snapshot because a snapshot with the identifier {name} already exists.")
        return {kind: self._shown(kind, self.add(name.lower(), body))}

    def _shown(self, kind: str, job: Job) -> dict[str, Any]:
        given = dict(_pairs(job.body, "Tags.Tag"))
        database = "DBInstanceIdentifier" if kind == "DBSnapshot" else "DBClusterIdentifier"
        resource = "snapshot" if kind == "DBSnapshot" else "cluster-snapshot"
        return {
            f"{kind}Identifier": job.id,
            database: job.body.get(database, "db"),
            "Status": job.state,
            "SnapshotCreateTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created)),
            f"{kind}Arn": f"arn:aws:rds:{REGION}:{ACCOUNT}:{resource}:{job.id}",
            "TagList": [{"Key": key, "Value": value} for key, value in (given or self.inherited).items()],
        }

    def _delete(self, kind: str, name: str) -> dict[str, Any]:
        job = self.get(name.lower())
        if job.state == "creating":
            code = "InvalidDBSnapshotState" if kind == "DBSnapshot" else "InvalidDBClusterSnapshotStateFault"
            raise AwsError(code, "Cannot delete the snapshot because it is not currently in the available or failed state.")
        self.finish(job, self.stopped)
        return {kind: self._shown(kind, self._known.pop(name.lower()))}

    def create_db_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._create("DBSnapshot", body["DBSnapshotIdentifier"], body)

    def create_db_cluster_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._create("DBClusterSnapshot", body["DBClusterSnapshotIdentifier"], body)

    def copy_db_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._create("DBSnapshot", body["TargetDBSnapshotIdentifier"], body)

    def copy_db_cluster_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._create("DBClusterSnapshot", body["TargetDBClusterSnapshotIdentifier"], body)

    def describe_db_snapshots(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"DBSnapshots": [self._shown("DBSnapshot", self.get(body["DBSnapshotIdentifier"].lower()))]}

    def describe_db_cluster_snapshots(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["DBClusterSnapshotIdentifier"].lower())
        return {"DBClusterSnapshots": [self._shown("DBClusterSnapshot", job)]}

    def delete_db_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._delete("DBSnapshot", body["DBSnapshotIdentifier"])

    def delete_db_cluster_snapshot(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._delete("DBClusterSnapshot", body["DBClusterSnapshotIdentifier"])


class RdsCopies(RdsSnapshots):
    """Copies, which are stopped by deleting them."""

    active = "copying"


def _pairs(body: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Key and Value of each member of a list, as the query protocol writes it."""
    for number in itertools.count(1):
        if f"{prefix}.{number}.Key" not in body:
            return
        yield body[f"{prefix}.{number}.Key"], body[f"{prefix}.{number}.Value"]


class QuickSight(AwsJobs):
    """Ingestions of data sets, by id."""

    api = "quicksight"
    author_names = True
    active, succeeded, failed, stopped = "RUNNING", "COMPLETED", "FAILED", "CANCELLED"
    missing = AwsError("ResourceNotFoundException", "Ingestion is not found", 404)

    @staticmethod
    def _key(body: dict[str, Any]) -> str:
        return f"{body['AwsAccountId']}/{body['DataSetId']}/{body['IngestionId']}"

    def _shown(self, job: Job) -> dict[str, Any]:
        arn = f"arn:aws:quicksight:{REGION}:{ACCOUNT}:dataset/{job.body['DataSetId']}/ingestion/{job.body['IngestionId']}"
        return {"Arn": arn, "IngestionId": job.body["IngestionId"], "IngestionStatus": job.state}

    def create_ingestion(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._key(body) in self._known:
            raise AwsError("ResourceExistsException", f"Ingestion {body['IngestionId']} already exists", 409)
        return {**self._shown(self.add(self._key(body), body)), "RequestId": "r"}

    def describe_ingestion(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(self._key(body))
        return {"Ingestion": {**self._shown(job), "CreatedTime": job.created}, "RequestId": "r"}

    def cancel_ingestion(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(self._key(body))
        if job.state != self.active:
            raise AwsError("InvalidParameterValueException", "the ingestion has ended")  # [assumed]
        self.stop(self._key(body))
        return {"IngestionId": job.body["IngestionId"], "RequestId": "r"}


class DataSync(AwsJobs):
    """
    Executions of tasks between locations; lists come in pages of two [assumed], and with a task goes what is known of its
    executions [assumed]. A task runs one execution at a time [boto]. Errors are all of one kind [boto].

    Attributes:
        locations, tasks: by ARN, what they were made of.
        list_lag: seconds for which neither list nor task shows a new execution.
    """

    api = "datasync"
    active, succeeded, failed, stopped = "TRANSFERRING", "SUCCESS", "ERROR", "ERROR"
    missing = AwsError("InvalidRequestException", "Request parameters are not valid: the task execution is not found.")
    prefix = f"arn:aws:datasync:{REGION}:{ACCOUNT}"

    def __init__(self) -> None:
        super().__init__()
        self.locations: dict[str, str] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.list_lag = 0.0

    def seed(self) -> str:
        """A task between s3://from/ and s3://to/."""
        ends = [self.create_location_s3({"S3BucketArn": f"arn:aws:s3:::{end}"})["LocationArn"] for end in ("from", "to")]
        return str(self.create_task({"SourceLocationArn": ends[0], "DestinationLocationArn": ends[1]})["TaskArn"])

    def create_location_s3(self, body: dict[str, Any]) -> dict[str, Any]:
        arn = f"{self.prefix}:location/loc-{self.number():017x}"
        self.locations[arn] = f"s3://{body['S3BucketArn'].rpartition(':')[2]}/"
        return {"LocationArn": arn}

    def list_locations(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._page("Locations", [{"LocationArn": a, "LocationUri": u} for a, u in self.locations.items()], body)

    @staticmethod
    def _page(name: str, found: list[Any], body: dict[str, Any]) -> dict[str, Any]:
        start = int(body.get("NextToken") or 0)
        return {name: found[start : start + 2], **({"NextToken": str(start + 2)} if len(found) > start + 2 else {})}

    def create_task(self, body: dict[str, Any]) -> dict[str, Any]:
        arn = f"{self.prefix}:task/task-{self.number():017x}"
        self.tasks[arn] = body
        return {"TaskArn": arn}

    def _task(self, arn: str) -> dict[str, Any]:
        if arn not in self.tasks:
            raise AwsError("InvalidRequestException", "Request parameters are not valid: the task is not found.")
        return self.tasks[arn]

    def list_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._page("Tasks", [{"TaskArn": arn, "Status": "AVAILABLE"} for arn in self.tasks], body)

    def describe_task(self, body: dict[str, Any]) -> dict[str, Any]:
        task, shown = self._task(body["TaskArn"]), self._of(body["TaskArn"])
        latest = {"CurrentTaskExecutionArn": shown[-1].id} if shown else {}
        ends = {name: task[name] for name in ("SourceLocationArn", "DestinationLocationArn")}
        return {"TaskArn": body["TaskArn"], "Status": "AVAILABLE", **ends, **latest}

    def update_task(self, body: dict[str, Any]) -> dict[str, Any]:
        self._task(body["TaskArn"]).update(body)
        return {}

    def delete_task(self, body: dict[str, Any]) -> dict[str, Any]:
        self._task(body["TaskArn"])
        for job in self._of(body["TaskArn"]):
            self._known.pop(job.id)
        del self.tasks[body["TaskArn"]]
        return {}

    def _of(self, task: str) -> list[Job]:
        shown = [job for job in self._known.values() if time.time() - job.created >= self.list_lag]
        return [self._now(job) for job in shown if job.id.startswith(task)]

    def start_task_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        self._task(body["TaskArn"])
        if any(self._now(job).state == self.active for job in self._known.values() if job.id.startswith(body["TaskArn"])):
            raise AwsError("InvalidRequestException", "the task has an execution that is in progress")  # [assumed]
        return {"TaskExecutionArn": self.add(f"{body['TaskArn']}/execution/exec-{self.number():017x}", body).id}

    def list_task_executions(self, body: dict[str, Any]) -> dict[str, Any]:
        self._task(body["TaskArn"])
        found = [{"TaskExecutionArn": job.id, "Status": job.state} for job in self._of(body["TaskArn"])]
        return self._page("TaskExecutions", found, body)

    def list_tags_for_resource(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"Tags": self.get(body["ResourceArn"]).body.get("Tags", [])}

    def describe_task_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["TaskExecutionArn"])
        return {"TaskExecutionArn": job.id, "Status": job.state, "Result": {"ErrorDetail": job.reason}}

    def cancel_task_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.get(body["TaskExecutionArn"]).state != self.active:
            raise AwsError("InvalidRequestException", "the task execution cannot be cancelled in its status")  # [assumed]
        self.stop(body["TaskExecutionArn"])
        return {}


class Appflow(AwsJobs):
    """Executions of one flow, in pages of two [assumed]; a token's eight hours [boto] are not told apart here."""

    api = "appflow"
    active, succeeded, failed, stopped = "InProgress", "Successful", "Error", "Canceled"
    missing = AwsError("ResourceNotFoundException", "Flow does not exist", 404)

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[dict[str, Any]] = []

    def describe_flow(self, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "flowName": body["flowName"],
            "sourceFlowConfig": {"connectorType": "Salesforce", "sourceConnectorProperties": {"Salesforce": {"object": "o"}}},
            "destinationFlowConfigList": [
                {"connectorType": "S3", "destinationConnectorProperties": {"S3": {"bucketName": "out"}}},
            ],
            "triggerConfig": {"triggerType": "OnDemand", "triggerProperties": {}},
            "tasks": self.tasks,
        }

    def update_flow(self, body: dict[str, Any]) -> dict[str, Any]:
        self.tasks = body["tasks"]
        return {"flowStatus": "Active"}

    def start_flow(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body["clientToken"]
        job = self.by_token(token) or self.add(f"execution-{self.number()}", {**body, "tasks": self.tasks}, token)
        return {"flowArn": "arn", "flowStatus": "Active", "executionId": job.id}

    def describe_flow_execution_records(self, body: dict[str, Any]) -> dict[str, Any]:
        jobs, start = list(self._known.values())[::-1], int(body.get("nextToken") or 0)
        page = [{"executionId": job.id, "executionStatus": self._now(job).state} for job in jobs[start : start + 2]]
        return {"flowExecutions": page, **({"nextToken": str(start + 2)} if len(jobs) > start + 2 else {})}

    def cancel_flow_executions(self, body: dict[str, Any]) -> dict[str, Any]:
        for execution in body["executionIds"]:
            self.stop(execution)
        return {"invalidExecutions": []}


class Mwaa(AwsJobs):
    """The REST API of one environment's Airflow; each method of it is an operation of its own in the journal."""

    api = "mwaa"
    active, succeeded, failed, stopped = "running", "success", "failed", "failed"
    missing = AwsError("RestApiClientException", "DAGRun not found")

    def parse(self, request: Request) -> tuple[str, dict[str, Any]]:
        operation, body = super().parse(request)
        return (f"{body['Method']} dagRuns" if operation == "InvokeRestApi" else operation), body

    def respond(self, request: Request, operation: str, body: dict[str, Any]) -> Response:
        if not operation.endswith(" dagRuns"):
            return super().respond(request, operation, body)
        name = body["Path"].rpartition("/")[2]
        given = body.get("Body") or {}
        if operation.startswith("POST"):
            name = given.get("dag_run_id") or f"manual__{self.number()}"
            if name in self._known:
                return self._refused(409, "DAGRun already exists")
            self.add(name, given)
        if name not in self._known:
            return self._refused(404, "DAGRun not found")
        if operation.startswith("PATCH"):
            self.stop(name)
        run = {"dag_run_id": name, "state": self.get(name).state, "conf": self._known[name].body.get("conf", {})}
        return json_response({"RestApiStatusCode": 200, "RestApiResponse": run})

    def create_web_login_token(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"WebServerHostname": "environment.invalid", "WebToken": "token"}

    @staticmethod
    def _refused(status: int, detail: str) -> Response:
        answer = {"__type": "RestApiClientException", "RestApiStatusCode": status, "RestApiResponse": {"detail": detail}}
        return json_response(answer, 400)
