"""
Deletes what this library has left behind for tasks that nobody can ask about any more.

    python -m resumable.maintenance [--dry-run]      where Airflow's own commands work: beside the scheduler, or as a cron job
    python -m resumable.maintenance --list           everything that is kept, and whose it is
    python -m resumable.maintenance --remove NAME    one of these names

- Airflow Variables of jobs, checkpoints and `once`, on Airflow before 3.3 and after an upgrade. One is deleted by its own task
  when that succeeds. It stays when the task has failed for good (a clear may want to know of the job), or died in the moment
  after its success. Those whose DAG run is gone and those whose task has succeeded are taken away.
- Variables of watermarks that no asset holds. They outlive DAG runs; those whose DAG was deleted are taken away, as long as
  Airflow knows any DAG.
- What lies below ``[resumable] store_path``: records of an `ObjectStorageStore`, and what checkpoints had no room for.

Every other one is left alone, also what cannot be read, and what another deployment or namespace keeps in the same place.
Airflow's own task state (3.3 and later) goes with its DAG run, and asset state with the asset.

A daily run of this, also as a DAG for Variables (``examples/dags/sweep_variables.py``), is enough.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from resumable import host
from resumable.errors import SweepError
from resumable.stores.object_storage import Folder, folders
from resumable.stores.task_variables import is_of_dag
from resumable.stores.variables import GONE, opened

log = logging.getLogger("resumable")


class Deployment(Protocol):
    """The Airflow to sweep. Every method may raise anything; an error never means that something is gone."""

    def variables(self) -> Iterable[tuple[str, str]]:
        """Names and texts of the Variables whose names begin with `PREFIX`."""

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        """The state of a task instance, None if it has none, `GONE` if there is no such DAG run."""

    def delete(self, name: str) -> None: ...


class Beside(Deployment, Protocol):
    """The same where the metadata database is at hand."""

    def marks(self) -> Iterable[tuple[str, str]]:
        """Names and texts of the Variables of watermarks."""

    def dags(self) -> Iterable[str]:
        """Ids of all DAGs that Airflow knows, also of those that are not parsed any more."""


def sweep_variables(airflow: Deployment, *, dry_run: bool = False) -> list[str]:
    """
    Delete the Variables that nobody needs; with ``dry_run`` only tell which.

    Returns: their names. Each is logged with the reason and, if it has one that may still run, with its job.

    Raises:
        SweepError: Airflow did not answer about some of them; those are left alone, and all others are done.
    """
    swept, errors = [], {}
    for name, text in list(airflow.variables()):
        try:
            task, value = opened(text)
        except ValueError as e:
            log.warning("resumable: the Variable %s is left alone, it cannot be read: %s", name, e)
            continue
        try:
            why = _reason(airflow.task_state(task), value)
            if why and not dry_run:
                airflow.delete(name)
        except Exception as e:
            log.warning("resumable: the Variable %s is left alone, Airflow does not answer about it: %r", name, e)
            errors[name] = e
            continue
        if why:
            log.info("resumable: %s %s: %s%s", "would delete" if dry_run else "deleted", name, why, _open_job(value))
            swept.append(name)
    if errors:
        name, error = next(iter(errors.items()))
        raise SweepError(
            f"Airflow did not answer about {len(errors)} Variables, the first is {name} ({type(error).__name__}: {error}). They "
            f"are left alone; {len(swept)} others {'would be' if dry_run else 'were'} deleted. Run it again."
        ) from error
    return swept


def sweep_marks(airflow: Beside, *, dry_run: bool = False) -> list[str]:
    """Delete the Variables of watermarks whose DAG was deleted; with ``dry_run`` only tell which. Returns their names."""
    dags, swept, marks = list(airflow.dags()), [], list(airflow.marks())
    if marks and not dags:  # Variables were brought over into a new deployment, which has not parsed a DAG yet
        log.warning("resumable: Airflow knows no DAG at all; %d marks are left alone until it does", len(marks))
        return []
    for name, _ in marks:
        if not any(is_of_dag(name, dag_id) for dag_id in dags):
            if not dry_run:
                airflow.delete(name)
            log.info("resumable: %s %s: its DAG is gone", "would delete" if dry_run else "deleted", name)
            swept.append(name)
    return swept


def sweep_folders(airflow: Deployment, found: Iterable[Folder], *, dry_run: bool = False) -> list[str]:
    """Delete the folders below ``[resumable] store_path`` that nobody needs; with ``dry_run`` only tell which. Returns them."""
    swept = []
    for folder in found:
        try:
            values = folder.values()
            state = airflow.task_state(folder.ids)
            reasons = [_reason(state, value) for value in values] or [_reason(state, None)]
            if not all(reasons):
                continue
            if not dry_run:
                folder.delete()
        except Exception as e:
            log.warning("resumable: %s is left alone: %r", folder, e)
            continue
        left = "".join(map(_open_job, values))
        log.info("resumable: %s %s: %s%s", "would delete" if dry_run else "deleted", folder, reasons[0], left)
        swept.append(str(folder))
    return swept


def sweep_from_task(conn_id: str = "airflow_api", *, dry_run: bool = False) -> list[str]:
    """
    `sweep_variables` of the deployment that runs this task.

    Args:
        conn_id: on Airflow 3, where a task cannot list Variables by itself, a connection to Airflow's own REST API: ``host`` is
            its URL, ``login`` and ``password`` are a user's who may read DAG runs and delete Variables. Airflow 2 needs none.
        dry_run: only tell.
    """
    with host.deployment(conn_id) as airflow:
        return sweep_variables(airflow, dry_run=dry_run)


def kept(airflow: Beside, found: Iterable[Folder]) -> Iterator[tuple[str, str]]:
    """Names of everything that is kept outside of Airflow's own state stores, each with whose it is."""
    for name, text in airflow.variables():
        try:
            task, value = opened(text)
        except ValueError as e:
            yield name, f"cannot be read: {e}"
            continue
        yield name, f"{_ids(task)}, {airflow.task_state(task)}{_open_job(value)}"
    dags = list(airflow.dags())
    for name, _ in airflow.marks():
        of = next((dag_id for dag_id in dags if is_of_dag(name, dag_id)), None)
        yield name, f"a mark of the DAG {of}" if of else "a mark of a DAG that is gone"
    for folder in found:
        yield str(folder), f"{_ids(folder.ids)}, {airflow.task_state(folder.ids)}" if folder.ids else "nobody knows whose"


def remove(airflow: Beside, found: Iterable[Folder], name: str) -> bool:
    """Delete what `kept` gave this name; False if there is none."""
    if name in {one for one, _ in [*airflow.variables(), *airflow.marks()]}:
        airflow.delete(name)
        return True
    for folder in found:
        if str(folder) == name:
            folder.delete()
            return True
    return False


def _ids(task: Mapping[str, Any]) -> str:
    index = "" if task["map_index"] < 0 else f" map_index={task['map_index']}"
    return f"{task['dag_id']} {task['run_id']} {task['task_id']}{index}"


def _reason(state: str | None, value: Any) -> str | None:
    if state == GONE:
        return "its DAG run is gone"
    if state == "success" and (value is None or (isinstance(value, dict) and _is_settled(value))):
        return "its task has succeeded"
    return None


def _is_settled(value: Mapping[str, Any]) -> bool:
    """Whether nothing stands open in what is kept of a task that has succeeded: no job, and nothing that `once` made."""
    if "job" in value or "service" in value:
        return value.get("state") == "succeeded"
    if "made_at" in value:
        return value.get("state") != "made" or not value.get("cleanup")
    return value.get("state") == "succeeded" or bool({"kind", "ids", "moves"} & set(value))  # a checkpoint, its list, an interval


def _open_job(value: Any) -> str:
    if isinstance(value, dict) and value.get("state") == "made" and value.get("cleanup"):
        return f"; once made {value.get('value')!r:.200}, and nobody has cleaned it up: look there"
    if not isinstance(value, dict) or value.get("state") not in ("submitting", "submitted"):
        return ""
    job = f"{value.get('service')} {value.get('job') or 'job with token ' + str(value.get('token'))}"
    return f"; {job} was not seen to end: look there"


def main(arguments: list[str]) -> int:
    """The command. Returns 0, 1 if Airflow did not answer about some, 2 for arguments that are none."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(prog="python -m resumable.maintenance", description=__doc__.strip().splitlines()[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
    what.add_argument("--list", action="store_true", help="say what is kept, and whose it is")
    what.add_argument("--remove", metavar="NAME", help="delete what --list gave this name, whosever it is")
    try:
        given = parser.parse_args(arguments)
    except SystemExit as e:
        return int(e.code or 0)
    airflow = host.database()
    found = _Folders()
    if given.list:
        for name, whose in kept(airflow, found):
            print(f"{name}  {whose}")
        return 1 if found.trouble else 0
    if given.remove:
        is_there = remove(airflow, found, given.remove)
        log.info("resumable: %s %s", given.remove, "deleted" if is_there else "is not there")
        return 0 if is_there else 1
    how = {"dry_run": given.dry_run}
    would = "would be deleted" if given.dry_run else "deleted"
    status = 0
    try:
        log.info("resumable: %d Variables %s", len(sweep_variables(airflow, **how)), would)
    except SweepError as e:
        log.error("resumable: %s", e)  # noqa: TRY400
        status = 1
    log.info("resumable: %d marks %s", len(sweep_marks(airflow, **how)), would)
    log.info("resumable: %d folders %s", len(sweep_folders(airflow, found, **how)), would)
    return 1 if found.trouble else status


class _Folders:
    """Those below ``[resumable] store_path``. Where they cannot be looked through, one line says so, and all else is done."""

    trouble: Exception | None = None

    def __iter__(self) -> Iterator[Folder]:
        try:
            yield from folders()
        except Exception as e:  # a file system may raise anything
            self.trouble = e
            log.error("resumable: what lies below [resumable] store_path is left alone: %s: %s", type(e).__name__, e)  # noqa: TRY400
