"""``adopt``: a job that somebody started by hand becomes a task's."""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from resumable import host
from resumable.cli.live import Named, all_live, require_readable, which_runs
from resumable.cli.output import DONE, TROUBLE, Refused, confirmed, say
from resumable.errors import InvalidHandleError, RecordError
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.decision import JobState, Observation
from resumable.jobs.record import JobHandle, JobRecord

CONNECTION = frozenset({"databricks_conn_id", "aws_conn_id", "region_name"})
"""Arguments that say where a job runs: a default in their place may be another account."""

STARTING = frozenset({"running", "queued", "restarting", "deferred"})
"""States in which a process may be about to submit, or waits for another job."""


def run(given: argparse.Namespace) -> int:
    require_readable()
    beside = host.beside()
    instance = _instance(given.task, given.run)
    dag_id, run_id, task_id, map_index = instance.task
    name = f"{given.task}, run {run_id}"
    before = next(
        (one for one in all_live([(dag_id, task_id)], run_id, only_open=False) if one.kept.row.map_index == map_index), None
    )
    if before is not None and before.is_open:
        raise Refused(f"{name}, has a job already: {before.job} ({before.state}). `cancel` or `forget` it first.")
    operator, reach = _operator(dag_id, task_id, _given_values(given.values))
    handle = _handle(operator, given.job)
    _check_alone(operator, handle, instance.task)
    seen = _seen(operator, handle, reach)
    if seen.state not in (JobState.ACTIVE, JobState.SUCCEEDED):
        raise Refused(f"{handle} is not seen to run or to have succeeded ({seen}). Nothing was done.")
    what = f"{handle} (state {seen}, {_said(reach)}) becomes the job of {name}: its next attempt reattaches to it."
    if instance.state in ("failed", "success", "skipped", "upstream_failed"):
        what += f" The task is {instance.state}: clear it afterwards."
    if not confirmed(what, yes=given.yes):
        return TROUBLE
    record = _record(instance, handle, reach, 0 if before is None or before.record is None else before.record.submission + 1)
    data = record.noting("adopted by", time.time(), beside.user()).to_json()
    if beside.state_of(instance.task) in STARTING:  # somebody may have thought about the question for long
        raise Refused(f"{name}, has been started meanwhile, and may submit a job of its own. Nothing was done; look with `show`.")
    _check_alone(operator, handle, instance.task)
    try:
        is_done = beside.write(before.kept, data) if before is not None else beside.put_record(instance.task, _namespace(), data)
    except LookupError as e:
        raise Refused(f"Nothing was done: {e}.") from None
    if not is_done:
        raise Refused(f"{name}, has got a record meanwhile. Nothing was done; look again.")
    if beside.state_of(instance.task) in STARTING:
        say("Done, but the task has been started meanwhile: look with `show` which job it has.")
        return TROUBLE
    say("Done.")
    return DONE


def _seen(operator: Any, handle: JobHandle, reach: dict[str, Any]) -> Observation:
    try:
        return operator.observe(handle)  # type: ignore[no-any-return]
    except RecordError:
        raise Refused(_bad_ids(operator, json.dumps(handle.ids))) from None
    except Exception as e:  # a service, or somebody's operator, may raise anything
        said = f"{type(e).__name__}: {e}"
        raise Refused(f"{handle} cannot be looked at ({_said(reach)}): {said[:300]}. Nothing was done.") from e


def _said(reach: dict[str, Any]) -> str:
    """Through what it is looked at, in words."""
    return "by " + ", ".join(f"{name}={value}" for name, value in reach.items() if name != "operator")


def _given_values(texts: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` of each ``--with``."""
    values = dict(text.partition("=")[::2] for text in texts)
    if bad := [text for text in texts if not text.partition("=")[0] or "=" not in text]:
        raise Refused(f"--with {bad[0]!r} is not NAME=VALUE, e.g. --with aws_conn_id=prod.")
    return values


def _namespace() -> str:
    return host.setting("namespace") or ""


def _instance(task: str, run_id: str | None) -> Any:
    named = Named.of(task)
    found = host.beside().instances(named.tasks, run_id)
    chosen = named.among((one.task for one in found), "task instance")
    found = [one for one in found if (one.task[0], *one.task[2:]) in chosen]
    if not found:
        of = f" in run {run_id}" if run_id else ""
        raise Refused(f"{task} has no task instance{of}: the job would be nobody's. `airflow dags list-runs` has the runs.")
    if len(found) > 1:
        raise Refused(f"{task} has task instances in {which_runs(one.task[1] for one in found)}")
    if found[0].state in STARTING:
        raise Refused(
            f"{task}, run {found[0].task[1]}, is {found[0].state}: it may be about to submit a job of its own. Mark it failed "
            "first."
        )
    return found[0]


def _operator(dag_id: str, task_id: str, values: Mapping[str, str]) -> tuple[Any, dict[str, Any]]:
    """
    The adapter of the task's operator, and how the record names it.

    Args:
        dag_id: of the task.
        task_id: of the task.
        values: arguments of the operator that somebody has said himself.
    """
    from resumable import adoption

    name = f"{dag_id}.{task_id}"
    task = host.beside().operator_of(dag_id, task_id)
    if task is None:
        raise Refused(f"Airflow's database has no task {task_id} of a DAG {dag_id}: how it would reach the job is not known.")
    ours = adoption.durable_class_of(task)
    fields = None if ours is None else ours._resumable.service.reach_fields
    if fields is None:
        raise Refused(
            f"{name} is a {task.task_type}: not one of the operators that reach their job from here (docs/operators.md)."
        )
    launch = f"{task_id.rpartition('.')[0]}.launch"
    if ours._resumable.service.joins_workflows and launch in task.upstream_task_ids:
        raise Refused(f"{name} watches its part of the run that {launch} starts, and has no job of its own. Adopt for {launch}.")
    if others := set(values) - set(fields):
        raise Refused(f"--with {min(others)}: the job of {name} is reached by {', '.join(fields)}, and by nothing else.")
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for field in fields:
        try:
            known |= {field: values[field]} if field in values else host.beside().argument_of(task, field)
        except LookupError:
            unknown += [field] if field in CONNECTION else []
    if unknown:
        raise Refused(
            f"{' and '.join(unknown)} of {name} cannot be read from Airflow's database, so where its job runs is not known. Say "
            f"what the DAG says: {' '.join(f'--with {field}=VALUE' for field in unknown)} (an empty VALUE is None)."
        )
    if templated := [field for field, value in known.items() if isinstance(value, str) and "{{" in value]:
        raise Refused(
            f"{templated[0]} of {name} is a template: where its job runs is not known here. Say it: --with {templated[0]}=VALUE."
        )
    reach = {
        "operator": adoption.path_of_class(ours),
        **{field: None if value == "" else value for field, value in known.items()},
    }
    try:
        return ours._resumable.service.of_record(ours, reach), reach
    except Exception as e:  # a connection that is not there, an operator of somebody's own
        raise Refused(f"There is no way to the job of {name} ({_said(reach)}): {type(e).__name__}: {e}. Nothing was done.") from e


def _handle(operator: Any, job: str) -> JobHandle:
    text = job.strip()
    try:
        ids = json.loads(text) if text[:1] in ("{", "[", '"') else text
    except ValueError as e:
        raise Refused(f"{job!r} is no JSON: {e}. Nothing was done.") from None
    try:
        handle = JobHandle(operator.service, ids, operator.place()) if isinstance(ids, dict | list) else operator.handle_of(ids)
    except (NotImplementedError, AttributeError, ValueError, InvalidHandleError):
        raise Refused(_bad_ids(operator, job)) from None
    except Exception as e:  # the connection is asked where it points
        raise Refused(f"There is no way to {operator.service} from here: {type(e).__name__}: {e}. Nothing was done.") from e
    return handle


def _bad_ids(operator: Any, job: str) -> str:
    return (
        f"{job!r} are not the ids of a job of {operator.service}. Nothing was done. Give them as JSON, as `jobs --json` and "
        '`show --json` have them under "job" for another job of this operator.'
    )


def _check_alone(operator: Any, handle: JobHandle, task: tuple[str, str, str, int]) -> None:
    """
    Raises:
        Refused: another task's record is of this job. One that was forgotten is of none.
    """
    for one in all_live(only_open=False, in_short=True):
        record = one.record
        if record is None or record.handle is None or record.forgotten_by or one.kept.row.task == task:
            continue
        if record.service == handle.service and operator.is_same_job(record.handle, handle):
            raise Refused(
                f"{handle} is the job of {one.task}, run {one.run_id} ({one.state}). A job has one task. Nothing was done."
            )


def _record(instance: Any, handle: JobHandle, reach: dict[str, Any], submission: int) -> JobRecord:
    """As of no attempt: the first one that comes makes it its own, also after a clear."""
    dag_id, run_id, task_id, map_index = instance.task
    generation = Generation(**instance.generation)
    task = TaskIdentity(dag_id, run_id, task_id, map_index, _namespace())
    now = time.time()
    return JobRecord(
        service=handle.service,
        token=task.token(generation, submission),
        generation=generation,
        submission=submission,
        owner=uuid.uuid4().hex[:12],
        attempt=0,
        intended_at=now,
        handle=handle,
        submitted_at=now,
        reach=reach,
    )
