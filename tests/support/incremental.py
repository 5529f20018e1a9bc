"""Airflow as a `Watermark` sees it: DAG runs of one task, what is kept between them, and calls that a test can stop at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from resumable.stores.base import json_text
from tests.support.runner import StoreDown

ASSET = "orders"
DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Accessor:
    """``context["task_state_store"]`` or one asset's: data that outlives the process; every call passes ``at`` first."""

    def __init__(self, data: dict[str, str], at: Callable[[str], None], trouble: list[str] | None = None) -> None:
        self._data, self._at = data, at
        self._trouble = [] if trouble is None else trouble

    def get(self, key: str, default: Any = None) -> Any:
        self._at("get")
        self._meet_trouble("get")
        return json.loads(self._data[key]) if key in self._data else default

    def set(self, key: str, value: Any) -> None:
        text = json_text(value)
        self._at("set")
        late = self._meet_trouble("set")
        self._data[key] = text
        if late:
            raise StoreDown("set: no answer in time")

    def delete(self, key: str) -> None:
        self._at("delete")
        self._data.pop(key, None)

    def _meet_trouble(self, call: str) -> bool:
        """Whether the answer to this call comes too late; what does not answer at all raises."""
        what = self._trouble.pop() if self._trouble else ""
        if what == "down":
            raise StoreDown(call)
        return what == "late"


@dataclass
class Run:
    """One DAG run's instance of the task."""

    run_id: str
    state: str = "running"
    try_number: int = 1
    max_tries: int = 3
    clear_number: int = 0
    run_type: str = "scheduled"
    interval: tuple[datetime | None, datetime | None] = (None, None)
    data: dict[str, str] = field(default_factory=dict)
    started: datetime = DAY
    map_index: int = -1
    task_id: str = "task"

    def clear(self) -> None:
        self.max_tries = self.try_number + 3
        self.try_number += 1
        self.clear_number += 1
        self.started += timedelta(hours=1)
        self.state = "running"

    def retry(self) -> None:
        self.try_number += 1
        self.state = "running"


class Deployment:
    """All runs, the asset's state, and the task's Variables."""

    def __init__(self) -> None:
        self.asset: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.at: Callable[[str], None] = lambda call: None
        self.is_down = False
        self.trouble: list[str] = []
        """What the next calls of the stores meet, the first of them last: ``down``, ``late``."""
        self.max_active_runs = 1
        self.assets: tuple[str, ...] = (ASSET,)
        self.inlets: tuple[str, ...] = (ASSET,)

    def run(self, run_id: str, **more: Any) -> Run:
        return self.runs.setdefault(run_id, Run(run_id, **more))

    def context(self, run: Run, at: Callable[[str], None] | None = None) -> dict[str, Any]:
        def called(call: str) -> None:
            (at or self.at)(call)
            if self.is_down:
                raise StoreDown(call)

        task = SimpleNamespace(dag=SimpleNamespace(max_active_runs=self.max_active_runs), inlets=self.inlets)
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=run.run_id,
            task_id=run.task_id,
            map_index=run.map_index,
            try_number=run.try_number,
            max_tries=run.max_tries,
            task=task,
            get_task_states=lambda **asked: self._states(called, **asked),
        )
        dag_run = SimpleNamespace(
            clear_number=run.clear_number,
            start_date=run.started,
            run_type=run.run_type,
            data_interval_start=run.interval[0],
            data_interval_end=run.interval[1],
        )
        return {
            "ti": ti,
            "task": task,
            "dag_run": dag_run,
            "task_state_store": Accessor(run.data, called, self.trouble),
            "asset_state_store": {name: Accessor(self.asset, called, self.trouble) for name in self.assets},
            "variables": Accessor(self.variables, called, self.trouble),
        }

    def _states(self, called: Callable[[str], None], dag_id: str, task_ids: list[str], run_ids: list[str], map_index: Any) -> Any:
        called("states")
        assert dag_id == "dag"
        (task_id,) = task_ids
        name = task_id if map_index is None else f"{task_id}_{map_index}"
        asked = (run_id for run_id in run_ids if run_id in self.runs)
        own = -1 if map_index is None else map_index
        runs = [run for run_id in asked if (run := self.runs[run_id]).task_id == task_id and run.map_index == own]
        return {run.run_id: {name: run.state} for run in runs}

    @property
    def record(self) -> dict[str, Any]:
        """The mark's record."""
        (text,) = (self.asset or self.variables).values()
        found: dict[str, Any] = json.loads(text)
        return found
