"""A Variable as an older Airflow has it: found under the same name by every later release, because a job may be in flight."""

from __future__ import annotations

import json
from pathlib import Path

from resumable.identity import TaskIdentity
from resumable.jobs.record import JobRecord
from resumable.stores.variables import VariableStore

FILE = Path(__file__).parent / "variables" / "0.1.0.json"


def test_a_variable_of_an_earlier_release_is_found_under_its_name_and_read():
    kept = json.loads(FILE.read_text())
    task = TaskIdentity("etl", "manual__2026-11-24T10:08:03+00:00", "train", 3)
    names = {name: json.dumps(content) for name, content in kept.items()}
    record = JobRecord.from_json(VariableStore(task, names).get("resumable"))
    assert record.handle is not None
    assert record.handle.ids == {"run_id": 1004}
    assert record.submission == 1
