"""
Each private or undocumented name that we use, with a check of its own and what breaks where it is gone.

    python -m tests.canary.names           the checks, against what is installed in this environment
    python -m tests.canary.names --json    the same, with a hash of each name's source, to compare two environments by
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

SDK = "airflow.sdk.execution_time"
DATABRICKS = "airflow.providers.databricks"
AMAZON = "airflow.providers.amazon.aws"


@dataclass(frozen=True)
class Name:
    """
    One thing that we rely upon.

    Attributes:
        path: ``module:attribute.attribute``, or a module.
        breaks: what goes wrong, for whom, if it is gone.
        check: is called with what the path names; raises if it is not what we take it for.
        loops: it came with Airflow 3.4.
    """

    path: str
    breaks: str
    check: Callable[[Any], None] = lambda found: None
    loops: bool = False

    def found(self) -> Any:
        module, _, attributes = self.path.partition(":")
        found = importlib.import_module(module)
        for one in filter(None, attributes.split(".")):
            found = getattr(found, one)
        return found

    def problem(self) -> str | None:
        """Why it is not there as we use it, None if it is."""
        try:
            self.check(self.found())
        except Exception as e:
            return f"{type(e).__name__}: {e}"
        return None

    def digest(self) -> str:
        try:
            found = self.found()
            text = inspect.getsource(found) if not isinstance(found, str | int | float) else repr(found)
        except Exception:
            return "-"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _has(*names: str) -> Callable[[Any], None]:
    """Attributes, fields of a model, columns."""

    def check(found: Any) -> None:
        known = {*dir(found), *getattr(found, "model_fields", ()), *getattr(found, "__annotations__", ())}
        if missing := [name for name in names if name not in known]:
            raise AttributeError(f"has no {', '.join(missing)}")

    return check


def _takes(*names: str) -> Callable[[Any], None]:
    def check(found: Any) -> None:
        known = inspect.signature(found).parameters
        if missing := [name for name in names if name not in known]:
            raise TypeError(f"takes no {', '.join(missing)}")

    return check


def _says(*texts: str) -> Callable[[Any], None]:
    """Its source has these words: where nothing but the source tells what it does."""

    def check(found: Any) -> None:
        source = inspect.getsource(found)
        if missing := [text for text in texts if text not in source]:
            raise LookupError(f"does not say {missing}")

    return check


_new = partial(Name, loops=True)

OTHERS_STATE = "a task in a loop takes another iteration's state for its own"
ONE_TOKEN = "iterations of a loop share a token and a record"


AIRFLOW: tuple[Name, ...] = (
    # -- a task and its supervisor
    Name(f"{SDK}.task_runner", "no task talks to its supervisor: store, own state, stops", _says("SUPERVISOR_COMMS")),
    Name(
        f"{SDK}.comms:CommsDecoder",
        "a stop interrupts a request: answers are mixed up, or the task deadlocks",
        _has("send", "asend", "socket", "_thread_lock"),
    ),
    Name(
        f"{SDK}.supervisor:InProcessSupervisorComms",
        "dag.test() is taken for a run by a scheduler, by its name",
    ),
    Name(f"{SDK}.comms:GetTaskStates", "no task learns why it is stopped", _has("dag_id", "task_ids", "run_ids", "map_index")),
    Name(f"{SDK}.comms:TaskStatesResult", "no task learns why it is stopped", _has("task_states")),
    Name(f"{SDK}.task_runner:RuntimeTaskInstance.get_task_states", "no task learns why it is stopped", _takes("map_index")),
    _new(f"{SDK}.comms:GetTaskBreadcrumbs", OTHERS_STATE, _has("run_id")),
    _new(f"{SDK}.comms:TaskBreadcrumbsResult", OTHERS_STATE, _has("breadcrumbs")),
    _new(
        "airflow.api_fastapi.execution_api.routes.task_instances:get_task_instance_breadcrumbs",
        OTHERS_STATE,
        _says("region_id", "region_index", "TI.state"),
    ),
    _new(
        f"{SDK}.task_runner:RuntimeTaskInstance",
        ONE_TOKEN,
        _has("region_id", "region_index", "map_index", "max_tries", "try_number"),
    ),
    _new(f"{SDK}.loop:LoopContextAccessor", ONE_TOKEN, _has("index")),
    _new(f"{SDK}.task_runner", ONE_TOKEN, _says('_cached_template_context["loop"]')),
    _new(
        f"{SDK}.supervisor:KILLED_TASK_CLEANUP_TIME",
        "a stopped task waits ten seconds, then runs the failure callbacks of a task that did not fail",
        lambda found: float(found),
    ),
    Name(f"{SDK}.supervisor:ActivitySubprocess", "what a stop by the server does to the task", _says("SIGTERM", "force=True")),
    # -- stores
    Name(f"{SDK}.context:TaskStateStoreAccessor", "no record is kept", _has("get", "set", "delete")),
    Name(f"{SDK}.context:TaskStateStoreAccessor.__init__", "values kept by a workers' backend are not fenced", _takes("ti_id")),
    Name(f"{SDK}.context:TaskStateStoreAccessor.set", "records of long jobs expire", _takes("retention")),
    Name(
        f"{SDK}.context:AssetStateStoreAccessor",
        "marks kept by a workers' backend are not fenced",
        _has("_build_get_message"),
    ),
    Name(f"{SDK}.comms:GetTaskStateStore", "values kept by a workers' backend are not fenced", _has("ti_id", "key")),
    Name(f"{SDK}.comms:SetTaskStateStore", "values kept by a workers' backend are not fenced", _has("ti_id", "expires_at")),
    Name(f"{SDK}.comms:TaskStateStoreResult", "values kept by a workers' backend are not fenced", _has("value")),
    Name("airflow.sdk.exceptions:ErrorType", "an error of the store is taken for an empty store", _has("TASK_STORE_NOT_FOUND")),
    Name("airflow.sdk.exceptions:ErrorType", "an error is taken for a missing Variable", _has("VARIABLE_NOT_FOUND")),
    Name(f"{SDK}.comms:GetVariable", "nothing that 3.2 has left is found", _has("key")),
    Name(f"{SDK}.comms:GetVariableKeys", "each start asks for each key that 3.2 may have left", _has("prefix")),
    Name(f"{SDK}.comms:VariableKeysResult", "each start asks for each key that 3.2 may have left", _has("keys", "total_entries")),
    Name("airflow.sdk:NEVER_EXPIRE", "records of long jobs expire"),
    # -- operators
    Name("airflow.sdk.bases.operator:BaseOperatorMeta._apply_defaults", "durable and resume_policy ignore default_args"),
    Name(
        "airflow.sdk.definitions.mappedoperator:MappedOperator._get_specified_expand_input",
        "what upstream tasks give a mapped task counts as an author's edit",
    ),
    Name("airflow.sdk.bases.operator:BaseOperator._do_render_template_fields", "a stop between rendering and execute is lost"),
    Name("airflow.sdk.bases.operator:ExecutorSafeguard", "the provider's execute() warns when we call it", _has("tracker")),
    Name("airflow.exceptions:AirflowRescheduleException", "nothing is handed back, nothing waits by being rescheduled"),
    Name("airflow.triggers.base:BaseTrigger.on_kill", "a deferred task that a user stops leaves its job"),
    Name("airflow.sdk.bases.resumablejobmixin:ResumableJobMixin", "make_resumable"),
    Name("airflow.sdk.definitions.retry_policy:RetryAction", "what is the last try", _has("FAIL")),
    _new("airflow.sdk.definitions.retry_policy:RetryAction", "a try that runs again is taken for the last", _has("RESCHEDULE")),
    _new(
        "airflow.sdk.definitions.retry_policy:RetryDecision",
        "a try that runs again is taken for the last",
        _has("max_reschedules", "reschedule_timeout"),
    ),
    # -- servers
    Name(f"{SDK}.context:_preset_connections", "the sweep finds no connection of a team"),
    Name(f"{SDK}.supervisor", "the sweep and the listener run nowhere", _says("_AIRFLOW_PROCESS_CONTEXT")),
    Name("airflow.models.task_state_store:TaskStateStoreModel", "sweep and listener", _has("dag_id", "run_id", "task_id", "key")),
    _new("airflow.models.task_state_store:TaskStateStoreModel", "sweep and listener", _has("region_id", "region_index")),
    _new("airflow.models.taskinstance:TaskInstance", "sweep: which try counts", _has("working_set", "archived_reason")),
    _new(
        "airflow.models.taskinstance:clear_task_instances",
        "the job of an iteration that a clear has taken out of its loop runs on",
        _says('reason="superseded"'),
    ),
    _new("airflow.models.dynamic_region:DynamicRegion", "the sweep calls an iteration a map index", _has("node_id")),
    _new("airflow.models.dynamic_region:SENTINEL_REGION_ID", "the sweep calls a plain task an iteration"),
    _new(
        "airflow.state.metastore:MetastoreBackend",
        "a clear takes the record away: two jobs",
        _says("delete(TaskStateStoreModel)"),
    ),
    _new(
        "airflow.api_fastapi.core_api.routes.public.task_instances:post_clear_task_instances",
        "a clear takes the record away: two jobs",
        _says("_discard_task_state_store", "keep_task_state"),
    ),
    Name(
        "airflow._shared.listeners.spec.taskinstance:on_task_instance_failed",
        "no user's mark is heard",
        _takes("previous_state", "task_instance"),
    ),
    Name("airflow.listeners.spec.dagrun:on_dag_run_failed", "the end of a run by a user is not heard", _takes("dag_run", "msg")),
    Name("airflow.jobs.scheduler_job_runner", "dagrun_timeout is not heard", _says('msg="timed_out"')),
    Name(
        "airflow.api_fastapi.core_api.services.public.dag_run",
        "a run that a user marks is not told from one that failed",
        _says("state was manually set to"),
    ),
)

PROVIDERS: tuple[Name, ...] = (
    Name(f"{DATABRICKS}.operators.databricks:DatabricksSubmitRunOperator", "Databricks runs", _has("_hook", "execute")),
    Name(f"{DATABRICKS}.operators.databricks:DatabricksRunNowOperator", "Databricks jobs", _has("_hook", "execute")),
    Name(f"{DATABRICKS}.hooks.databricks:DatabricksHook", "Databricks runs", _has("submit_run", "run_now", "get_run")),
    Name(f"{DATABRICKS}.hooks.databricks:DatabricksHook", "SQL statements", _has("_do_api_call", "cancel_sql_statement")),
    Name(f"{DATABRICKS}.hooks.databricks_base:BaseDatabricksHook.__init__", "lost answers are not noted", _says("retry_args")),
    Name(f"{DATABRICKS}.triggers.databricks:DatabricksExecutionTrigger", "deferred Databricks runs", _has("run", "serialize")),
    Name(
        f"{DATABRICKS}.operators.databricks_workflow:_CreateDatabricksWorkflowOperator._wait_for_job_to_start",
        "the workflow group",
    ),
    Name(f"{DATABRICKS}.operators.databricks:DatabricksTaskBaseOperator._get_task_base_json", "the workflow group"),
    Name(f"{AMAZON}.operators.ecs:EcsRunTaskOperator", "ECS", _has("_check_success_task", "_wait_for_task_ended")),
    Name(f"{AMAZON}.operators.datasync:DataSyncOperator._cancel_datasync_task_execution", "DataSync"),
    Name(f"{AMAZON}.operators.sagemaker:SageMakerBaseOperator._get_unique_job_name", "SageMaker: names of jobs"),
    Name(f"{AMAZON}.operators.batch:BatchOperator.monitor_job", "Batch"),
    Name(f"{AMAZON}.operators.glue:GlueJobOperator.submit_job", "Glue on Airflow 3.3"),
    Name(f"{AMAZON}.operators.emr:EmrAddStepsOperator", "EMR steps", _has("execute", "execute_complete")),
    Name("botocore.hooks:HierarchicalEmitter", "all of Amazon", _has("register", "register_first", "unregister")),
)

NAMES = AIRFLOW + PROVIDERS


def wanted() -> tuple[Name, ...]:
    """Those that this Airflow is to have."""
    has_loops = importlib.util.find_spec("airflow.sdk.definitions.loop") is not None
    return tuple(name for name in NAMES if has_loops or not name.loops)


def main(arguments: list[str]) -> int:
    found = [(name, name.problem()) for name in wanted()]
    if "--json" in arguments:
        rows = [{"path": n.path, "breaks": n.breaks, "problem": problem, "digest": n.digest()} for n, problem in found]
        print(json.dumps(rows))
        return 0
    for name, problem in found:
        print(f"{'GONE' if problem else 'ok':4} {name.path}{f': {problem}. What breaks: {name.breaks}' if problem else ''}")
    return int(any(problem for _, problem in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
