"""Stops a task where it writes its record: for an Airflow whose tasks write to the database without a request in between."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from resumable import host
from resumable.identity import TaskIdentity
from resumable.stores.variables import VariableStore

GATES_FOLDER = "RESUMABLE_TEST_GATES"


class GatedStore(VariableStore):
    """`VariableStore`, waiting before a write for which somebody has closed a gate. Give it as ``[resumable] store``."""

    def __init__(self, task: TaskIdentity) -> None:
        super().__init__(task, host.variables(task))
        self._run_id = task.run_id

    def set(self, key: str, value: Any) -> None:
        gate = Gate(Path(os.environ[GATES_FOLDER]), self._run_id, value.get("state", "no job"))
        if gate.closed.exists():
            gate.reached.touch()
            while gate.closed.exists():
                time.sleep(0.02)
        super().set(key, value)


class Gate:
    """Before the write of a record in this state, of this run."""

    def __init__(self, folder: Path, run_id: str, state: str) -> None:
        self.closed = folder / f"{run_id}.{state}"
        self.reached = folder / f"{run_id}.{state}.reached"

    def close(self) -> Gate:
        self.closed.touch()
        return self

    def wait_reached(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not self.reached.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing was written at {self.closed.name} within {timeout:g} s")
            time.sleep(0.02)

    def refuse(self) -> None:
        """Open it: for the next process, because the one that waited is dead by now."""
        self.closed.unlink()
