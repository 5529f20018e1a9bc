"""
Which files of ours one fresh attempt of a Databricks task enters, from ``execute()`` to the submit's request.

    python -m tests.bench.files_entered [--calls]

Traced with `sys.setprofile` in every thread, against the simulator. A file counts once a function, property or method of it is
called. ``--calls``: the calls too, in the order in which they come.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import requests

import resumable

ROOT = Path(resumable.__file__).parent
NOTEBOOK = {"notebook_task": {"notebook_path": "/x"}, "existing_cluster_id": "c"}


class Submitted(BaseException):
    """The request is on its way: nothing after it is of interest."""


def calls_of_a_fresh_attempt() -> list[tuple[str, str]]:
    """Return each call as file and function, in order."""
    from resumable.operators.databricks import ResumableDatabricksSubmitRunOperator
    from tests.services import DatabricksSimulator
    from tests.support.runner import TaskInstance

    seen: list[tuple[str, str]] = []

    def note(frame: Any, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT) and not frame.f_code.co_name.startswith("<"):
            seen.append((str(path.relative_to(ROOT)), frame.f_code.co_qualname))

    class Traced(ResumableDatabricksSubmitRunOperator):
        def execute(self, context: Any) -> Any:
            sys.setprofile(note)
            threading.setprofile(note)
            try:
                return super().execute(context)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)  # type: ignore[arg-type]

    send = requests.Session.send

    def send_or_stop(self: Any, request: Any, **kwargs: Any) -> Any:
        if "runs/submit" in request.url:
            sys.setprofile(None)
            raise Submitted
        return send(self, request, **kwargs)

    with DatabricksSimulator() as simulator:
        os.environ.update(simulator.env())
        requests.Session.send = send_or_stop  # type: ignore[method-assign]
        try:
            TaskInstance(lambda: Traced(task_id="task", json=NOTEBOOK)).attempt()
        except Submitted:
            pass
        finally:
            requests.Session.send = send  # type: ignore[method-assign]
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.files_entered", description=__doc__)
    parser.add_argument("--calls", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    calls = calls_of_a_fresh_attempt()
    if given.calls:
        for file, name in calls:
            print(f"{file:40} {name}")
    counts = Counter(file for file, _ in calls)
    lines = {file: len((ROOT / file).read_text().splitlines()) for file in counts}
    print(f"{len(counts)} files, {len(calls)} calls")
    for file in counts:
        print(f"{file:40} {counts[file]:4} calls, {lines[file]:5} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
