"""``adopt``: a job that somebody started by hand becomes a task's."""

from __future__ import annotations

import argparse
import json
import time
import uuid
from typing import Any

from resumable import host
from resumable.cli.live import all_live, require_readable, task_and_index
from resumable.cli.output import DONE, TROUBLE, Refused, confirmed, say
from resumable.identity import Generation, TaskIdentity
from resumable.jobs.decision import JobState
from resumable.jobs.record import JobHandle, JobRecord

STARTING = frozenset({"running", "queued", "restarting", "deferred"})
"""States in which a process may be about to submit, or waits for another job."""


def run(given: argparse.Namespace) -> int:
    require_readable()
    beside = host.beside()
    instance = _instance(given.task, given.run)
    dag_id, run_id, task_id, map_index = instance.task
    before = next(
        (one for one in all_live(f"{dag_id}.{task_id}", run_id, only_open=False) if one.kept.row.map_index == map_index), None
    )
    if before is not None and before.is_open:
        raise Refused(f"The task has a job already: {before.job} ({before.state}). `cancel` or `forget` it first.")
    operator, reach = _operator(dag_id, task_id)
    handle = _handle(operator, given.job)
    _check_alone(handle)
    seen = operator.observe(handle)
    if seen.state not in (JobState.ACTIVE, JobState.SUCCEEDED):
        raise Refused(f"{handle} is not seen to run or to have succeeded ({seen}). Nothing was done.")
    what = f"{handle} (state {seen}) becomes the job of {given.task}, run {run_id}: its next attempt reattaches to it."
    if instance.state in ("failed", "success", "skipped", "upstream_failed"):
        what += f" The task is {instance.state}: clear it afterwards."
    if not confirmed(what, yes=given.yes):
        return TROUBLE
    record = _record(instance, handle, reach, 0 if before is None or before.record is None else before.record.submission + 1)
    data = record.noting("adopted by", time.time(), beside.user()).to_json()
    try:
        is_done = beside.write(before.kept, data) if before is not None else beside.put_record(instance.task, _namespace(), data)
    except LookupError as e:
        raise Refused(f"Nothing was done: {e}.") from None
    if not is_done:
        raise Refused("The task has got a record meanwhile. Nothing was done; look again.")
    if beside.state_of(instance.task) in STARTING:
        say("The task has been started meanwhile: look with `show` which job it has.")
        return TROUBLE
    say("Done.")
    return DONE


def _namespace() -> str:
    return host.setting("namespace") or ""


def _instance(task: str, run_id: str | None) -> Any:
    name, index = task_and_index(task)
    found = host.beside().instances(name, run_id, index)
    if len(found) != 1:
        which = "has no task instance" if not found else f"has task instances in {len(found)} runs: say which, by --run"
        raise Refused(f"{task} {which}.")
    if found[0].state in STARTING:
        raise Refused(f"{task} is {found[0].state}: it may be about to submit a job of its own. Mark it failed first.")
    return found[0]


def _operator(dag_id: str, task_id: str) -> tuple[Any, dict[str, Any]]:
    """The adapter of the task's operator, and how the record names it."""
    from resumable import adoption

    task = host.beside().operator_of(dag_id, task_id)
    if task is None:
        raise Refused(f"Airflow's database has no task {task_id} of a DAG {dag_id}.")
    ours = adoption.durable_class_of(task)
    fields = None if ours is None else ours._resumable.service.reach_fields
    if fields is None:
        raise Refused(f"{dag_id}.{task_id} is a {task.task_type}: no operator that reaches its job from here.")
    values = {name: getattr(task, name, None) for name in fields}
    given = {name: value for name, value in values.items() if value is not None}
    if templated := [name for name, value in given.items() if isinstance(value, str) and "{{" in value]:
        raise Refused(f"{', '.join(templated)} of {dag_id}.{task_id} is a template: where its job runs is not known here.")
    path = adoption.path_of_class(ours)
    reach = {"operator": path, **given}
    return ours._resumable.service.of_record(ours, reach), reach


def _handle(operator: Any, job: str) -> JobHandle:
    try:
        ids = json.loads(job)
    except ValueError:
        ids = job
    try:
        if isinstance(ids, dict | list):
            return JobHandle(operator.service, ids, operator.place())
        return operator.handle_of(ids)  # type: ignore[no-any-return]
    except (NotImplementedError, AttributeError):
        raise Refused(f'Give the ids of a job of {operator.service} as JSON, as `jobs --json` shows them under "job".') from None
    except ValueError as e:
        raise Refused(f"{job!r} is not an id of a job of {operator.service}: {e}") from None


def _check_alone(handle: JobHandle) -> None:
    for one in all_live(in_short=True):
        if one.record is not None and one.record.handle is not None:
            theirs = one.record.handle
            if (theirs.service, theirs.ids) == (handle.service, handle.ids):
                raise Refused(f"{handle} is the job of {one.task}, run {one.run_id}. A job has one task.")


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
