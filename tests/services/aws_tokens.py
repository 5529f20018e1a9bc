"""
The AWS services whose jobs are told by a token, or by a mark that a client put on them: see `aws_jobs` for the rest.

Sources as there: [boto] botocore's service model and its documentation; [doc] the API reference; [assumed] chosen here.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from .aws_jobs import ACCOUNT, REGION, AwsError, AwsJobs, Job


class TokenJobs(AwsJobs):
    """
    A service that may know tokens.

    Attributes:
        token_field: where the submit carries its token; None: the service knows none.
        token_lifetime: seconds for which it is known; None: for ever.
        list_lag: seconds for which a list does not show a new job. No AWS document promises read-after-write.
    """

    token_field: ClassVar[str | None] = None
    mismatch: ClassVar[AwsError] = AwsError("InvalidRequestException", "Idempotent parameters do not match")

    def __init__(self) -> None:
        super().__init__()
        self.token_lifetime: float | None = None
        self.list_lag = 0.0

    def submitted(self, key: str, body: dict[str, Any]) -> Job:
        """The job of this submit: a new one, or the one that its token made before."""
        token = body.get(self.token_field) if self.token_field else None
        job = self.by_token(token)
        if job is None or (self.token_lifetime is not None and time.time() - job.created >= self.token_lifetime):
            return self.add(key, body, token)
        if job.body != body:
            self.refuse_mismatch(job)
        return self._now(job)

    def refuse_mismatch(self, job: Job) -> None:
        raise self.mismatch

    def listed(self) -> list[Job]:
        """What a list shows, the newest first."""
        known = [self._now(job) for job in reversed(self.all) if job.id in self._known]
        return [job for job in known if time.time() - job.created >= self.list_lag]


class Athena(TokenJobs):
    api = "athena"
    token_field = "ClientRequestToken"
    active, succeeded, failed, stopped = "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"
    missing = AwsError("InvalidRequestException", "QueryExecution was not found")

    def start_query_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"QueryExecutionId": self.submitted(f"query-{self.number()}", body).id}

    def get_query_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"QueryExecution": self._shown(self.get(body["QueryExecutionId"]))}

    def batch_get_query_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        if len(body["QueryExecutionIds"]) > 50:  # [boto]
            raise AwsError("InvalidRequestException", "at most 50 ids")
        known = [key for key in body["QueryExecutionIds"] if key in self._known]
        lost = [{"QueryExecutionId": key} for key in body["QueryExecutionIds"] if key not in self._known]
        return {"QueryExecutions": [self._shown(self.get(key)) for key in known], "UnprocessedQueryExecutionIds": lost}

    def _shown(self, job: Job) -> dict[str, Any]:
        status = {"State": job.state, "StateChangeReason": job.reason, "SubmissionDateTime": job.created}
        return {"QueryExecutionId": job.id, "Query": job.body["QueryString"], "Status": status}

    def stop_query_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["QueryExecutionId"])
        return {}


class Batch(TokenJobs):
    """SubmitJob knows no token. Lists are by name, the newest first; DescribeJobs alone shows tags [boto]."""

    api = "batch"
    active, succeeded, failed, stopped = "RUNNING", "SUCCEEDED", "FAILED", "FAILED"
    missing = AwsError("ClientException", "no such job")  # of TerminateJob; DescribeJobs leaves it out

    def submit_job(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.submitted(f"job-{self.number()}", body)
        return {"jobId": job.id, "jobName": body["jobName"]}

    def describe_jobs(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"jobs": [self._shown(self.get(key)) for key in body["jobs"] if key in self._known]}

    def _shown(self, job: Job) -> dict[str, Any]:
        where = f"arn:aws:batch:{REGION}:{ACCOUNT}"
        return {
            "jobId": job.id,
            "jobName": job.body["jobName"],
            "jobQueue": f"{where}:job-queue/{job.body['jobQueue']}",
            "jobDefinition": f"{where}:job-definition/{job.body['jobDefinition']}",
            "status": job.state,
            "statusReason": job.reason,
            "createdAt": int(job.created * 1000),
            "tags": job.body.get("tags", {}),
            "container": {"logStreamName": f"stream/{job.id}", "exitCode": 0},
            "attempts": [{"container": {"logStreamName": f"stream/{job.id}"}}],
        }

    def list_jobs(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body["filters"][0]["values"][0].lower()
        found = [job for job in self.listed() if job.body["jobName"].lower() == wanted]
        shown = ("jobId", "jobName", "createdAt", "status")
        return {"jobSummaryList": [{k: v for k, v in self._shown(job).items() if k in shown} for job in found]}

    def terminate_job(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["jobId"])
        return {}


class Glue(TokenJobs):
    """Runs of one job, which is there. StartJobRun knows no token; GetJobRuns gives the newest first [doc]."""

    api = "glue"
    active, succeeded, failed, stopped = "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"
    missing = AwsError("EntityNotFoundException", "Job Run not found")

    def get_job(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"Job": {"Name": body["JobName"], "Description": "as it was"}}

    def update_job(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"JobName": body["JobName"]}

    def start_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"JobRunId": self.submitted(f"jr_{self.number():064x}", body).id}

    def get_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"JobRun": self._shown(self.get(body["RunId"]))}

    def _shown(self, job: Job) -> dict[str, Any]:
        return {
            "Id": job.id,
            "JobName": job.body["JobName"],
            "JobRunState": job.state,
            "ErrorMessage": job.reason,
            "StartedOn": job.created,
            "Arguments": job.body.get("Arguments", {}),
        }

    def get_job_runs(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"JobRuns": [self._shown(job) for job in self.listed() if job.body["JobName"] == body["JobName"]]}

    def batch_stop_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        for run in body["JobRunIds"]:
            self.stop(run)
        return {"SuccessfulSubmissions": [{"JobName": body["JobName"], "JobRunId": run} for run in body["JobRunIds"]]}


class EmrContainers(TokenJobs):
    """Job runs of a virtual cluster; a run tells its token [boto]."""

    api = "emr-containers"
    token_field = "clientToken"
    active, succeeded, failed, stopped = "RUNNING", "COMPLETED", "FAILED", "CANCELLED"
    missing = AwsError("ResourceNotFoundException", "no such job run")
    mismatch = AwsError("ValidationException", "the token was used with other parameters")  # [assumed]

    def start_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.submitted(f"{self.number():019d}", body)
        cluster = body["virtualClusterId"]
        arn = f"arn:aws:emr-containers:{REGION}:{ACCOUNT}:/virtualclusters/{cluster}/jobruns/{job.id}"
        return {"id": job.id, "name": body.get("name"), "arn": arn, "virtualClusterId": cluster}

    def _shown(self, job: Job) -> dict[str, Any]:
        names = ("name", "virtualClusterId", "clientToken")
        reason = {"failureReason": "USER_ERROR", "stateDetails": job.reason} if job.reason else {}
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.created))
        return {"id": job.id, "state": job.state, "createdAt": created, **reason, **{n: job.body.get(n) for n in names}}

    def describe_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"jobRun": self._shown(self.get(body["id"]))}

    def list_job_runs(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"jobRuns": [self._shown(job) for job in self.listed()]}

    def cancel_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["id"])
        return {"id": body["id"], "virtualClusterId": body["virtualClusterId"]}


class EmrServerless(TokenJobs):
    """Job runs of an application."""

    api = "emr-serverless"
    token_field = "clientToken"
    active, succeeded, failed, stopped = "RUNNING", "SUCCESS", "FAILED", "CANCELLED"
    missing = AwsError("ResourceNotFoundException", "no such job run", 404)
    mismatch = AwsError("ConflictException", "the token was used with other parameters", 409)

    def __init__(self) -> None:
        super().__init__()
        self.application = "STARTED"

    def get_application(self, body: dict[str, Any]) -> dict[str, Any]:
        arn = f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{body['applicationId']}"
        times = {"createdAt": 1.0, "updatedAt": 1.0}
        labels = {"releaseLabel": "emr-7.0.0", "type": "SPARK"}
        return {"application": {"applicationId": body["applicationId"], "arn": arn, "state": self.application, **labels, **times}}

    def start_application(self, body: dict[str, Any]) -> dict[str, Any]:
        self.application = "STARTED"
        return {}

    def start_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.submitted(f"00f{self.number():013d}", body)
        application = body["applicationId"]
        arn = f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/{application}/jobruns/{job.id}"
        return {"applicationId": application, "jobRunId": job.id, "arn": arn}

    def get_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["jobRunId"])
        run = {"applicationId": body["applicationId"], "jobRunId": job.id, "state": job.state, "stateDetails": job.reason}
        return {"jobRun": {**run, "name": job.body.get("name"), "createdAt": job.created, "updatedAt": job.created}}

    def cancel_job_run(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["jobRunId"])
        return {"applicationId": body["applicationId"], "jobRunId": body["jobRunId"]}


class EmrClusters(TokenJobs):
    """Clusters as jobs: STARTING, then WAITING, or TERMINATED_WITH_ERRORS. ListClusters shows no tags [boto]."""

    api = "emr"
    active, succeeded, failed, stopped = "STARTING", "WAITING", "TERMINATED_WITH_ERRORS", "TERMINATED_WITH_ERRORS"
    missing = AwsError("InvalidRequestException", "Cluster id 'j-1' is not valid.")

    def run_job_flow(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.submitted(f"j-{self.number()}", body)
        return {"JobFlowId": job.id, "ClusterArn": self._arn(job)}

    def _arn(self, job: Job) -> str:
        return f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/{job.id}"

    def _shown(self, job: Job) -> dict[str, Any]:
        status = {"State": job.state, "StateChangeReason": {"Message": job.reason}, "Timeline": {"CreationDateTime": job.created}}
        return {"Id": job.id, "Name": job.body["Name"], "Status": status, "ClusterArn": self._arn(job)}

    def describe_cluster(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["ClusterId"])
        return {"Cluster": {**self._shown(job), "Tags": job.body.get("Tags", []), "LogUri": "s3://logs/"}}

    def list_clusters(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"Clusters": [self._shown(job) for job in self.listed()]}

    def terminate_job_flows(self, body: dict[str, Any]) -> dict[str, Any]:
        for key in body["JobFlowIds"]:
            self.stop(key)
        return {}


class EmrNotebooks(TokenJobs):
    """Notebook executions. The list shows names and no tags [boto]; what an unknown one is answered with is [assumed]."""

    api = "emr"
    active, succeeded, failed, stopped = "STARTING", "FINISHED", "FAILED", "STOPPED"
    missing = AwsError("InvalidRequestException", "Notebook execution is not valid.")

    def start_notebook_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"NotebookExecutionId": self.submitted(f"ex-{self.number()}", body).id}

    def _shown(self, job: Job) -> dict[str, Any]:
        named = {name: job.body.get(name) for name in ("EditorId", "NotebookExecutionName")}
        return {"NotebookExecutionId": job.id, "Status": job.state, "StartTime": job.created, **named}

    def describe_notebook_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["NotebookExecutionId"])
        return {"NotebookExecution": {**self._shown(job), "LastStateChangeReason": job.reason, "Tags": job.body["Tags"]}}

    def list_notebook_executions(self, body: dict[str, Any]) -> dict[str, Any]:
        since, editor = body.get("From", 0), body.get("EditorId")
        found = [job for job in self.listed() if job.created >= since and editor in (None, job.body.get("EditorId"))]
        return {"NotebookExecutions": [self._shown(job) for job in found]}

    def stop_notebook_execution(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["NotebookExecutionId"])
        return {}


class Ecs(TokenJobs):
    """Tasks. The same token with other parameters is a ConflictException that names the task [boto]; failures come with 200."""

    api = "ecs"
    token_field = "clientToken"
    active, succeeded, failed, stopped = "RUNNING", "STOPPED", "STOPPED 1", "STOPPED 137"  # with the exit code
    skipped = "STOPPED 99"
    missing = AwsError("InvalidParameterException", "The referenced task was not found.")

    def __init__(self) -> None:
        super().__init__()
        self.has_capacity = True

    def run_task(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self.has_capacity:
            return {"tasks": [], "failures": [{"arn": "instance", "reason": "RESOURCE:MEMORY"}]}
        arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{body.get('cluster', 'default')}/{self.number():032x}"
        job = self.submitted(arn, body)
        return {"tasks": [self._shown(job)], "failures": []}

    def refuse_mismatch(self, job: Job) -> None:
        raise AwsError("ConflictException", f"conflict|{job.id}")

    def error_answer(self, error: AwsError) -> dict[str, Any]:
        code, _, arn = str(error).partition("|")
        return {"__type": error.code, "message": code, **({"resourceIds": [arn]} if arn else {})}

    def _shown(self, job: Job) -> dict[str, Any]:
        status, _, exit_code = job.state.partition(" ")
        container = {"name": "main", "lastStatus": status, **({"exitCode": int(exit_code or 0)} if status == "STOPPED" else {})}
        reason = {"stoppedReason": job.reason} if job.reason else {}
        shown = {"taskArn": job.id, "lastStatus": status, "containers": [container], "startedBy": job.body.get("startedBy")}
        return {**shown, **reason}

    def describe_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        known = [key for key in body["tasks"] if key in self._known]
        lost = [{"arn": key, "reason": "MISSING"} for key in body["tasks"] if key not in self._known]
        return {"tasks": [self._shown(self.get(key)) for key in known], "failures": lost}

    def list_tasks(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = body.get("desiredStatus", "RUNNING")
        found = [j for j in self.listed() if j.body.get("startedBy") == body.get("startedBy") and j.state.startswith(wanted)]
        return {"taskArns": [job.id for job in found]}

    def stop_task(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"task": self._shown(self.stop(body["task"]))}


class RedshiftData(TokenJobs):
    """Statements; a token holds for eight hours [doc]."""

    api = "redshift-data"
    token_field = "ClientToken"
    active, succeeded, failed, stopped = "STARTED", "FINISHED", "FAILED", "ABORTED"
    missing = AwsError("ResourceNotFoundException", "Query does not exist.")
    mismatch = AwsError("ValidationException", "the token was used with other parameters")  # [assumed]

    def execute_statement(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"Id": self.submitted(f"statement-{self.number()}", body).id, "CreatedAt": time.time()}

    batch_execute_statement = execute_statement

    def describe_statement(self, body: dict[str, Any]) -> dict[str, Any]:
        job = self.get(body["Id"])
        more = [{"Id": f"{job.id}:{n + 1}"} for n in range(len(job.body.get("Sqls", [])))]
        answer = {"Id": job.id, "Status": job.state, "CreatedAt": job.created}
        return {**answer, **({"Error": job.reason} if job.reason else {}), **({"SubStatements": more} if more else {})}

    def cancel_statement(self, body: dict[str, Any]) -> dict[str, Any]:
        self.stop(body["Id"])
        return {"Status": True}
