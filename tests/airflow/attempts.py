"""Where a task says which processes run it: give `pre_execute=note_attempt` to an operator under test."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

ATTEMPTS_FILE = "RESUMABLE_TEST_ATTEMPTS"


def note_attempt(context: Any) -> None:
    """Append one JSON line about this execution; a resume after a deferral or a reschedule is a line too."""
    ti = context["ti"]
    line = {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "try_number": ti.try_number,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "time": time.time(),
    }
    file = os.open(os.environ[ATTEMPTS_FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())  # one write: lines of two tasks never mix
    finally:
        os.close(file)


def read_attempts(file: Path) -> list[dict[str, Any]]:
    """Every line written so far, oldest first."""
    if not file.exists():
        return []
    whole = file.read_text().rpartition("\n")[0]  # a reader may come in the middle of a write
    return [json.loads(line) for line in whole.splitlines()]
