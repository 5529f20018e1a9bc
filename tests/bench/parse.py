"""
What constructing a task costs, as each parse of a DAG file does: ours against the provider's own operators.

    python -m tests.bench.parse [--tasks 2000] [--rounds 7] [--json FILE]

CPU time, in one process; the two take turns, and of the rounds the least of each counts: everything else that a machine does only
adds to it. A task of ours is to cost at most `MOST` microseconds more than the provider's.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST = 30.0
"""Microseconds of CPU that ours may take more for a task."""

_JOB = {"new_cluster": {"spark_version": "15.4.x", "num_workers": 2}, "notebook_task": {"notebook_path": "/train"}}


def operators() -> dict[str, tuple[type[Any], type[Any], dict[str, Any]]]:
    """Return by name: the provider's class, ours, arguments."""
    from airflow.providers.amazon.aws.operators.athena import AthenaOperator
    from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

    from resumable.operators.athena import ResumableAthenaOperator
    from resumable.operators.databricks import ResumableDatabricksOperator

    query = {"query": "select 1", "database": "d", "output_location": "s3://bucket/out"}
    return {
        "Athena": (AthenaOperator, ResumableAthenaOperator, query),
        "Databricks": (DatabricksSubmitRunOperator, ResumableDatabricksOperator, {"json": _JOB}),
    }


def cost(make: Callable[[int], Any], tasks: int) -> float:
    """Return microseconds of CPU per call."""
    began = time.process_time()
    for number in range(tasks):
        make(number)
    return (time.process_time() - began) / tasks * 1e6


def measured(tasks: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each operator and each way of writing it."""
    from tests.support.names import DAG

    rows = []
    for name, (theirs, ours, arguments) in operators().items():
        ways: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "as it is": ({}, {}),
            "resume_policy of its own": ({}, {"resume_policy": {"on_clear": "reattach", "wait": "reschedule"}}),
            "in a DAG with default_args": ({"default_args": {"retries": 2, "owner": "me"}}, {}),
        }
        for way, (of_dag, own) in ways.items():
            least = [float("inf"), float("inf")]
            for _ in range(rounds):
                for index, (cls, more) in enumerate(((theirs, {}), (ours, own))):
                    with DAG(dag_id="dag", schedule=None, **of_dag) if of_dag else warnings.catch_warnings():
                        given = {**arguments, **more}
                        spent = cost(lambda n, cls=cls, given=given: cls(task_id=f"t{n}", **given), tasks)
                    least[index] = min(least[index], spent)
            more = least[1] - least[0]
            rows.append({"operator": name, "written": way, "theirs": least[0], "ours": least[1], "more": more})
    return rows


def main() -> None:
    """Print the table; exit with 1 if a task of ours costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = measured(given.tasks, given.rounds)
    print("| operator | written | provider's, µs | ours, µs | more, µs |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print("| {operator} | {written} | {theirs:.1f} | {ours:.1f} | {more:.1f} |".format(**row))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(any(row["more"] > MOST for row in rows))


if __name__ == "__main__":
    main()
