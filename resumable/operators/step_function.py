"""
Step Functions executions that survive their worker.

Recovery: repeat by name. An execution's name is unique in its state machine.

Facts on the service (API reference, botocore's service model): StartExecution of a STANDARD state machine with the name and
input of a running execution is answered with that execution, with the name of any other of the last 90 days with
ExecutionAlreadyExists; an EXPRESS one starts another execution each time. Names hold 80 characters. DescribeExecution is
eventually consistent and knows no EXPRESS executions. RedriveExecution starts a failed execution again, under a token that holds
for 15 minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resumable._extras import provider_import
from resumable.errors import RefusedError
from resumable.helpers import account_of
from resumable.jobs.attempt import Attempt
from resumable.jobs.decision import Submit
from resumable.jobs.limits import Limit
from resumable.jobs.operator import durable_operator
from resumable.jobs.record import JobHandle

with provider_import("amazon"):
    from airflow.providers.amazon.aws.operators.step_function import StepFunctionStartExecutionOperator
    from airflow.providers.amazon.aws.triggers.step_function import StepFunctionsExecutionCompleteTrigger
    from botocore.exceptions import ClientError

    from resumable.operators._aws.names import AwsOwnNamedJob

__all__ = ["ResumableStepFunctionStartExecutionOperator", "ResumableStepFunctionsExecutionCompleteTrigger"]

_REDRIVE = "RedriveExecution"
_ACTIVE, _FAILED = ("RUNNING", "PENDING_REDRIVE"), ("FAILED", "TIMED_OUT", "ABORTED")


class ResumableStepFunctionsExecutionCompleteTrigger(StepFunctionsExecutionCompleteTrigger):
    """The provider's trigger, which also ends when the execution timed out: the provider's waits on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        ends = {"SUCCEEDED": "success"} | dict.fromkeys(_ACTIVE, "retry") | dict.fromkeys(_FAILED, "failure")
        acceptors = [{"matcher": "path", "argument": "status", "expected": word, "state": end} for word, end in ends.items()]
        self.waiter_config_overrides = {"acceptors": acceptors}


class StateMachineExecution(AwsOwnNamedJob):
    """One execution of a state machine."""

    together = "sfn"
    service = "sfn"
    limits = (Limit("waiter_max_attempts", "waiter_delay", deferred_only=True),)
    own_trigger = ResumableStepFunctionsExecutionCompleteTrigger
    doubt = (
        "the start is repeated under the same name; Step Functions answers with the execution, or that the name is taken; one of "
        "the author's name is taken up if it began since"
    )
    window = (
        "none known, as long as the doubt is not older than the 90 days for which a name is kept; with a `name` of the author's, "
        "an execution that somebody else starts under it while a start is in doubt, or in the 15 minutes before, is taken for "
        "ours"
    )
    name_argument, name_param, name_length, warns_of_name = "name", "name", 80, True
    operation = ("StartExecution", _REDRIVE)
    status_calls = ("DescribeExecution",)
    conflicts = frozenset({"ExecutionAlreadyExists"})
    wait_argument = "deferrable"
    goes_on_undeferred = True
    active = frozenset(_ACTIVE)
    succeeded = frozenset({"SUCCEEDED"})
    failed = frozenset(_FAILED)
    missing_codes = frozenset({"ExecutionDoesNotExist"})

    def before_execute(self, attempt: Attempt) -> None:
        self.known_account = account_of(self.operator.state_machine_arn)
        if self.operator.is_redrive_execution:
            in_doubt = isinstance(attempt.plan, Submit) and attempt.plan.in_doubt
            # In doubt, "not redrivable" means that it runs, or ran well, since then; else it is the service's no.
            vars(self)["conflicts"] = frozenset({"ExecutionNotRedrivable"} if in_doubt else ())
        elif not attempt.replays:
            self._refuse_express()

    def _refuse_express(self) -> None:
        machine = self.operator.state_machine_arn
        try:
            kind = self.hook.conn.describe_state_machine(stateMachineArn=machine).get("type")
        except ClientError as e:
            if e.response.get("Error", {}).get("Code") != "AccessDeniedException":
                raise
            self.log.warning("resumable: %s is taken for a STANDARD one: states:DescribeStateMachine is not allowed", machine)
            return
        if kind == "EXPRESS":
            raise RefusedError(
                f"{machine} is an EXPRESS state machine: a start whose answer is lost cannot be told from none, and a repeated "
                "one starts a second execution. Nothing was started by this attempt. Use a STANDARD state machine, or give "
                "durable=False to run it as the provider's operator does."
            )

    def name_for(self, attempt: Attempt, given: Any) -> str:
        name: str = given if self.operator.is_redrive_execution else super().name_for(attempt, given)
        return name

    def name_in(self, handle: JobHandle) -> str:
        return self.ids(handle, "execution")[0].rpartition(":")[2]

    def lookup_hints(self, params: Mapping[str, Any]) -> Mapping[str, str]:
        return {} if "executionArn" in params else super().lookup_hints(params)

    def add_token(self, params: dict[str, Any], token: str) -> None:
        if "executionArn" in params:
            params["clientToken"] = token

    def ids_of(self, response: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, str]:
        return {"execution": self.require_id(params.get("executionArn") or response.get("executionArn"), "execution's ARN")}

    def ids_after_conflict(self, error: Mapping[str, Any], params: Mapping[str, Any], token: str) -> dict[str, str] | None:
        if "executionArn" in params:
            return {"execution": params["executionArn"]}
        head, _, machine = params["stateMachineArn"].partition(":stateMachine:")
        execution = f"{head}:execution:{machine.split(':')[0]}:{params['name']}"  # without a version or an alias
        if self.is_named_by(params["name"], token):
            return {"execution": execution}
        began = self.hook.conn.describe_execution(executionArn=execution)["startDate"]
        return {"execution": execution} if self.may_be_ours(error, began) else None

    def response_of(self, handle: JobHandle) -> dict[str, Any]:
        return {"executionArn": self.ids(handle, "execution")[0]}

    def state_of(self, handle: JobHandle) -> str:
        return str(self.hook.conn.describe_execution(executionArn=self.ids(handle, "execution")[0])["status"])

    def stop_call(self, handle: JobHandle) -> tuple[str, dict[str, Any]]:
        return "stop_execution", {"executionArn": self.ids(handle, "execution")[0], "cause": "stopped by Airflow"}


@durable_operator(StateMachineExecution)
class ResumableStepFunctionStartExecutionOperator(StepFunctionStartExecutionOperator):
    """
    `StepFunctionStartExecutionOperator` with ``durable`` and ``resume_policy``; every other argument is the provider's.

    The first execution of a task instance has the ``name`` given, sent as written, with a warning; one that follows it, after a
    failure or a clear, has 8 hex characters more: Step Functions keeps a name for 90 days. Without a ``name`` the execution is
    named by its token. With ``deferrable=True`` it stops the execution when a user stops the task, unlike the provider's.
    Without, the task ends with the start, as the provider's does, and nobody watches the execution.

    Only STANDARD state machines: an EXPRESS one starts a second execution for every repeated request, and none of them can be
    looked up. It is refused before anything is started; ``durable=False`` runs it as the provider does. This takes one
    DescribeStateMachine request per start; without the permission for it, the state machine is taken for a STANDARD one.

    With ``is_redrive_execution=True`` an unanswered redrive is repeated: under its token for 15 minutes; after that the execution
    is redriven once more only if it failed again meanwhile.
    """
