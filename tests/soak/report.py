"""The tables of a soak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.airflow.proxy import ExecutionApiProxy
from tests.soak.conductor import Conductor, Task
from tests.soak.oracle import at_once, by_name, late_seconds, uncalled_cancels, unwanted_seconds


def figures(conductor: Conductor, tasks: Iterable[Task]) -> dict[str, Any]:
    """What a soak came to, in numbers."""
    tasks = list(tasks)
    every = [(task.ledger, task.jobs) for task in tasks]
    return {
        "disruptions": conductor.struck.total(),
        "jobs asked for": sum(ledger.asked for ledger, _ in every),
        "jobs submitted": sum(len(jobs) for _, jobs in every),
        "most jobs of one task at once": max(at_once(jobs) for _, jobs in every),
        "jobs cancelled for nobody": sum(uncalled_cancels(*one) for one in every),
        "job-seconds for nobody": round(sum(unwanted_seconds(*one) for one in every)),
        "job-seconds after a user's stop": round(sum(late_seconds(*one) for one in every)),
        "tries used": sum(ledger.tries for ledger, _ in every),
        "executions": sum(len(task.attempts) for task in tasks),
        "tasks not as asked at the end": sum(ledger.state != ledger.expected for ledger, _ in every),
        "seconds": round(conductor.seconds),
        **{f"broken: {name}": count for name, count in sorted(by_name(every).items())},
    }


def table(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a figure, one column a soak."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [f"{'':46}" + "".join(f"{title:>10}" for title in columns)]
    rows += [f"{name:46}" + "".join(f"{column.get(name, 0):>10}" for column in columns.values()) for name in names]
    return "\n".join(rows)


def struck(conductor: Conductor) -> str:
    """Which disruptions there were."""
    return "\n".join(f"{count:4}  {what}" for what, count in sorted(conductor.struck.items()))


def slot_seconds(proxy: ExecutionApiProxy, ti_id: str) -> tuple[float, int]:
    """
    How long a task instance has held a worker's slot, and in how many pieces: from each start that it reported to Airflow to the
    report that ended it (success, deferral, reschedule).
    """
    starts = [r.time for r in proxy.requests("PATCH", rf"/{ti_id}/run$") if r.status == 200]
    ends = [r.time for r in proxy.requests("PATCH", rf"/{ti_id}/state$") if r.status is not None and 200 <= r.status < 300]
    return sum(end - start for start, end in zip(starts, ends, strict=True)), len(starts)


def slots_table(proxy: ExecutionApiProxy, tasks: Iterable[Task]) -> str:
    """One row for each way to wait."""
    rows = [f"{'waiting mode':14}{'service':>12}{'job, s':>8}{'slot held, s':>14}{'starts':>8}"]
    for task in tasks:
        held, pieces = slot_seconds(proxy, str(task.row["id"]))
        rows.append(f"{task.key.mode:14}{task.key.service:>12}{task.jobs[-1].age:>8.0f}{held:>14.1f}{pieces:>8}")
    return "\n".join(rows)
