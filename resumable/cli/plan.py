"""``plan``: what adoption would do to the DAGs of a folder, task by task; and what stands in the way of going back."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resumable import adoption, host
from resumable.cli import live as records
from resumable.cli.output import DONE, TROUBLE, Refused, complain, duration, print_json, print_table, say
from resumable.jobs.operator import is_durable_class

ADOPTED, STAYS, OURS, CANNOT = "adopted", "stays", "durable already", "cannot be adopted"


@dataclass(frozen=True)
class Line:
    """What becomes of one task."""

    dag_id: str
    task_id: str
    operator: str
    what: str
    why: str


def run(given: argparse.Namespace) -> int:
    return _back(given) if given.back else _forth(given)


def _forth(given: argparse.Namespace) -> int:
    wanted = adoption.choice(given.adopt)
    if not wanted.names:
        raise Refused("Nothing is to be adopted: airflow.cfg has no [resumable] adopt, and --adopt was not given.")
    if unknown := wanted.unknown_names():
        services = ", ".join(sorted(adoption.services()))
        raise Refused(f"adopt: {unknown[0]!r} is neither a service nor an operator class of one. Services are {services}.")
    folder = Path(given.folder or host.airflow_setting("core", "dags_folder", ""))
    if not folder.exists():
        raise Refused(f"There is no folder or file {folder}.")
    with adoption.suspended():
        bag = host.dag_bag(given.folder)
    lines = [line for dag in bag.dags.values() for task in dag.tasks if (line := line_of(task, wanted)) is not None]
    lines.sort(key=lambda line: (line.dag_id, line.task_id))
    counts = Counter(line.what for line in lines)
    if given.json:
        print_json({"tasks": [asdict(line) for line in lines], "counts": counts, "import_errors": bag.import_errors})
    else:
        if lines:
            print_table(("dag", "task", "operator", "what", "why"), ((*asdict(line).values(),) for line in lines))
        say(f"{len(bag.dags)} DAGs: " + (", ".join(f"{n} {what}" for what, n in counts.items()) or "no task of such an operator"))
        for path in bag.import_errors:
            complain(f"{path} cannot be parsed, nothing is known of its tasks")
    return TROUBLE if bag.import_errors else DONE


def line_of(task: Any, wanted: adoption.Choice) -> Line | None:
    """What becomes of a task; None if its operator has nothing to do with ours."""
    cls: Any = task.operator_class if host.is_mapped(task) else type(task)
    is_of_file = cls.__module__.startswith("unusual_prefix_")  # Airflow's name for the module of a DAG file
    named = cls.__qualname__ if is_of_file else f"{cls.__module__}.{cls.__qualname__}"

    def line(what: str, why: str) -> Line:
        return Line(task.dag.dag_id, task.task_id, named, what, why)

    if is_durable_class(cls):
        return line(OURS, "the DAG names the durable operator itself")
    provider = next((one for one in cls.__mro__ if adoption.durable_class(one) is not None), None)
    if provider is None:
        return None
    if not wanted.names_class(provider):
        return line(STAYS, "[resumable] adopt does not name it")
    if provider is not cls:
        own = "with an execute of its own" if "execute" in _own_names(cls, provider) else "with code of its own"
        fix = f"let it inherit from {adoption.durable_class(provider).__qualname__}"
        return line(CANNOT, f"a subclass of {provider.__name__} {own}: {fix}")
    if not wanted.takes(task):
        return line(STAYS, "adopt_dags or adopt_skip leave it out")
    if adoption.says_not_durable(task):
        return line(STAYS, "its author gave durable=False")
    return line(ADOPTED, f"becomes {adoption.durable_class(provider).__qualname__}")


def _own_names(cls: type, provider: type) -> set[str]:
    return {name for one in cls.__mro__[: cls.__mro__.index(provider)] for name in vars(one)}


def _back(given: argparse.Namespace) -> int:
    records.require_readable()
    found = list(in_flight())
    if given.json:
        print_json([one.to_json() for one in found])
    elif found:
        print_table(
            ("task", "run", "service", "job", "state", "age", "watched by"),
            ((one.task, one.run_id, one.service, one.job, one.state, duration(one.age), one.watcher) for one in found),
        )
    if not given.json:
        is_first = adoption.takes_new() and host.setting("adopt") is not None
        step = "First set [resumable] adopt_new = false, so that no other task becomes durable. " if is_first else ""
        left = f"{len(found)} jobs of adopted tasks are in flight: take the adopt line away when there are none."
        say(step + (left if found else "No job of an adopted task is in flight: the adopt line may go."))
    return TROUBLE if found else DONE


def in_flight() -> Iterator[records.Live]:
    """Open records of tasks whose DAG names the provider's operator."""
    known: dict[tuple[str, str], bool] = {}
    for one in records.all_live(in_short=True):
        name = (one.kept.row.dag_id, one.kept.row.task_id)
        if name not in known:
            task = host.beside().operator_of(*name)
            known[name] = task is None or str(getattr(task, "_task_module", "")).startswith("airflow.providers.")
        if known[name] and (one.is_watched or one.is_orphan):
            yield one
