"""
Deletes the Airflow Variables of jobs that nobody can ask about any more: for Airflow before 3.3, and for once after an upgrade.

    python -m resumable.maintenance [--dry-run]      where Airflow's own commands work: beside the scheduler, or as a cron job

A Variable is deleted by its own task when that succeeds. It stays when the task has failed for good (a clear may want to know of
the job), or died in the moment after its success. A daily run of this, also as a DAG (``examples/dags/sweep_variables.py``),
takes those away whose DAG run is gone, and those whose task has succeeded. Every other one is left alone, also what cannot be
read.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from resumable import compat
from resumable.errors import ResumableError
from resumable.stores.variables import GONE, opened

log = logging.getLogger("resumable")

class SweepError(ResumableError):
    """Airflow did not answer about some Variables."""


class Deployment(Protocol):
    """The Airflow to sweep. Every method may raise anything; an error never means that something is gone."""

    def variables(self) -> Iterable[tuple[str, str]]:
        """Names and texts of the Variables whose names begin with `PREFIX`."""

    def task_state(self, task: Mapping[str, Any]) -> str | None:
        """The state of a task instance, None if it has none, `GONE` if there is no such DAG run."""

    def delete(self, name: str) -> None: ...


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


def sweep_from_task(conn_id: str = "airflow_api", *, dry_run: bool = False) -> list[str]:
    """
    `sweep_variables` of the deployment that runs this task.

    Args:
        conn_id: on Airflow 3, where a task cannot list Variables by itself, a connection to Airflow's own REST API: ``host`` is
            its URL, ``login`` and ``password`` are a user's who may read DAG runs and delete Variables. Airflow 2 needs none.
        dry_run: only tell.
    """
    with compat.deployment(conn_id) as airflow:
        return sweep_variables(airflow, dry_run=dry_run)


def _reason(state: str | None, value: Any) -> str | None:
    if state == GONE:
        return "its DAG run is gone"
    if state == "success" and isinstance(value, dict) and _is_settled(value):
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
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.setLevel(logging.INFO)
    unknown = set(arguments) - {"--dry-run"}
    if unknown:
        log.error("%s: no such argument. Usage: python -m resumable.maintenance [--dry-run]", sorted(unknown)[0])
        return 2
    try:
        swept = sweep_variables(compat.database(), dry_run=bool(arguments))
    except SweepError as e:
        log.error("resumable: %s", e)  # noqa: TRY400
        return 1
    log.info("resumable: %d Variables %s", len(swept), "would be deleted" if arguments else "deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
