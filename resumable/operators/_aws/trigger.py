"""The trigger of AWS operators, and what the answer to a cancel says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from importlib import import_module
from typing import Any

import jmespath

from resumable import host
from resumable.errors import StopNotTaken
from resumable.stop.triggers import StopGuard

_NOT_TAKEN: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "batch_stop_job_run": lambda answer: answer.get("Errors"),
    "cancel_flow_executions": lambda answer: answer.get("invalidExecutions"),
    "cancel_ingestion": lambda answer: answer.get("Status", 200) >= 300,  # an HTTP status, in the body
    "cancel_statement": lambda answer: answer.get("Status") is False,
    "cancel_steps": lambda answer: [s for s in answer.get("CancelStepsInfoList", ()) if s.get("Status") == "FAILED"],
    "stop_pii_entities_detection_job": lambda answer: answer.get("JobStatus") in ("SUBMITTED", "IN_PROGRESS"),
    "stop_task": lambda answer: answer.get("task", {}).get("desiredStatus", "STOPPED") != "STOPPED",
    "invoke_rest_api": lambda answer: (answer.get("RestApiResponse") or {}).get("state") != "failed",
}
"""By method of a client, what its answer says of a job that was not stopped (botocore's service models). All others answer a
cancel that they do not take with an error."""


def require_taken(method: str, answer: Mapping[str, Any]) -> None:
    """Raises: StopNotTaken: the answer to the cancel ``method`` says that it was not done."""
    if method in _NOT_TAKEN and _NOT_TAKEN[method](answer):
        told = {name: value for name, value in answer.items() if name != "ResponseMetadata"}
        raise StopNotTaken(f"{method} was answered, and not done: {told}")


PATH = "resumable.operators._aws.ResumableAwsTrigger"
"""By which a triggerer, of an older release too, finds the class."""


class ResumableAwsTrigger(StopGuard, host.base_trigger()):  # type: ignore[misc]
    """
    Any trigger of the provider's, with a cancel of the job when a user stops the deferred task.

    Args:
        path: the provider's trigger, as it serialises itself.
        kwargs: its arguments.
        stop: ``service``, ``method`` and ``arguments`` of the request that stops the job. With ``only_while`` it is made only
            while the job has one of its ``words``, at ``path`` in the answer to its own ``method`` and ``arguments``.
        connection: ``aws_conn_id``, ``region_name``, ``verify`` and ``config`` of the hook for that request.
    """

    def __init__(
        self,
        *,
        path: str,
        kwargs: dict[str, Any],
        stop: dict[str, Any],
        connection: dict[str, Any],
        keeps_on_clear: bool = True,
    ) -> None:
        super().__init__(keeps_on_clear=keeps_on_clear)
        self.path, self.kwargs, self.stop, self.connection = path, kwargs, stop, connection

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return PATH, {
            "path": self.path,
            "kwargs": self.kwargs,
            "stop": self.stop,
            "connection": self.connection,
            "keeps_on_clear": True,
        }

    async def watch(self) -> AsyncIterator[Any]:
        module, _, name = self.path.rpartition(".")
        theirs = getattr(import_module(module), name)(**self.kwargs)
        for known in ("task_instance", "trigger_id", "triggerer_job_id", "timeout_after"):
            if known in vars(self):
                setattr(theirs, known, vars(self)[known])
        if hasattr(theirs, "cancel_on_kill"):
            theirs.cancel_on_kill = False  # before 3.3 some cancel by themselves, after a clear as well
        async for event in theirs.run():
            yield event

    async def cancel(self) -> None:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        hook = AwsBaseHook(client_type=self.stop["service"], **self.connection)
        async with await hook.get_async_conn() as client:
            if (only := self.stop.get("only_while")) is not None:
                word = jmespath.search(only["path"], await getattr(client, only["method"])(**only["arguments"]))
                if word not in only["words"]:
                    self.log.info("resumable: the job is %s, there is nothing left to stop", word)
                    return
            require_taken(self.stop["method"], await getattr(client, self.stop["method"])(**self.stop["arguments"]))
