"""
What a test says to an Airflow 2 and sees of it, by its Python API: one JSON line in, one out.

    python -m tests.airflow.orm      with the environment of the Airflow under test

Airflow 2's web server would take half a minute to start for the same answers.
"""

from __future__ import annotations

import json
import sys
import traceback
from datetime import datetime, timezone
from typing import Any

from airflow.models import DagModel, DagRun, TaskInstance, Variable, XCom
from airflow.models.dagbag import DagBag
from airflow.models.errors import ParseImportError
from airflow.models.taskinstance import clear_task_instances
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.session import create_session

from resumable.stores.variables import PREFIX, opened


def ready(since: float, names: list[str]) -> dict[str, bool]:
    from airflow.jobs.job import Job

    with create_session() as session:
        after = datetime.fromtimestamp(since, timezone.utc)
        jobs = session.query(Job.job_type).filter(Job.latest_heartbeat > after, Job.state == "running").all()
        found = {kind.replace("Job", "").lower() for (kind,) in jobs}
        return {name: name in found for name in names}


def listed() -> dict[str, Any]:
    with create_session() as session:
        errors = [error.stacktrace for error in session.query(ParseImportError)]
        return {"errors": errors, "files": [fileloc for (fileloc,) in session.query(DagModel.fileloc).filter(DagModel.is_active)]}


def trigger(dag_id: str, conf: dict[str, Any], run_id: str | None) -> str:
    from airflow.api.common.trigger_dag import trigger_dag

    now = datetime.now(timezone.utc)
    run = trigger_dag(dag_id, run_id=run_id, conf=conf, execution_date=now, replace_microseconds=False)
    return str(run.run_id)


def _dag(dag_id: str) -> Any:
    return DagBag(read_dags_from_db=True).get_dag(dag_id)


def _rows(session: Any, model: Any, dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None) -> Any:
    rows = session.query(model).filter_by(dag_id=dag_id, run_id=run_id)
    rows = rows if task_id is None else rows.filter_by(task_id=task_id)
    return rows if map_index is None else rows.filter_by(map_index=map_index)


def clear(dag_id: str, run_id: str, task_ids: list[Any] | None) -> None:
    dag = _dag(dag_id)  # before the session: a second use of it inside would close it
    with create_session() as session:
        rows = _rows(session, TaskInstance, dag_id, run_id).all()
        chosen = [row for row in rows if task_ids is None or row.task_id in task_ids or [row.task_id, row.map_index] in task_ids]
        clear_task_instances(chosen, session, dag=dag)


def mark(dag_id: str, run_id: str, task_id: str, state: str, map_index: int) -> None:
    if state != "skipped":  # which Airflow 2 has no button for
        _dag(dag_id).set_task_instance_state(task_id=task_id, map_indexes=[map_index], run_id=run_id, state=state, commit=True)
        return
    with create_session() as session:
        _rows(session, TaskInstance, dag_id, run_id, task_id, map_index).one().set_state(state, session=session)


def task(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    with create_session() as session:
        return _told(_rows(session, TaskInstance, dag_id, run_id, task_id, map_index).one())


def tries(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]]:
    with create_session() as session:
        both = [_rows(session, model, dag_id, run_id, task_id, map_index).all() for model in (TaskInstanceHistory, TaskInstance)]
        return [_told(row) for rows in both for row in rows]


def _told(row: Any) -> dict[str, Any]:
    return {"state": row.state, "try_number": row.try_number, "max_tries": row.max_tries}


def run_state(dag_id: str, run_id: str) -> str:
    with create_session() as session:
        return str(session.query(DagRun.state).filter_by(dag_id=dag_id, run_id=run_id).scalar())


def delete_run(dag_id: str, run_id: str) -> None:
    with create_session() as session:
        session.delete(session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one())


def xcoms(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    with create_session() as session:
        rows = _rows(session, XCom, dag_id, run_id, task_id, map_index)
        return {row.key: row.value for row in rows}


def links(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    operator = _dag(dag_id).get_task(task_id)
    with create_session() as session:
        row = _rows(session, TaskInstance, dag_id, run_id, task_id, map_index).one()
        return {name: operator.get_extra_links(row, name) for name in operator.extra_links}


def variables() -> dict[str, Any]:
    with create_session() as session:
        return {row.key: row.val for row in session.query(Variable).filter(Variable.key.startswith(PREFIX))}


def state_store(dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
    ids = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    kept = [value for of, value in map(opened, variables().values()) if of == ids]
    return {"resumable": kept[0]} if kept else {}


ORDERS = {
    order.__name__: order
    for order in (ready, listed, trigger, clear, mark, task, tries, run_state, delete_run, xcoms, links, variables, state_store)
}


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # Airflow prints
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"answer": ORDERS[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
