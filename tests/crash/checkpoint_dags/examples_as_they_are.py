"""examples/dags/checkpointed_files.py and setup_once.py, their work noted and slowed down: see test_checkpoint_crash.py."""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import timedelta
from typing import Any

from resumable import host
from tests.airflow.attempts import note_attempt
from tests.crash.effects import effect
from tests.support.names import DAG

if host.has_task_state():
    import examples.dags.checkpointed_files as files
    import examples.dags.setup_once as cluster

    clean, load = files.clean, cluster.load

    @functools.wraps(clean)
    async def clean_and_note(path: str) -> None:
        await clean(path)
        effect(path)
        await asyncio.sleep(0.4)

    @functools.wraps(load)
    def load_and_note(table: str, cluster: str) -> None:
        effect(f"begun {table}")
        time.sleep(3)
        load(table, cluster)
        effect(f"done {table}")

    files.clean, cluster.load = clean_and_note, load_and_note  # type: ignore[assignment]
    dags: list[DAG] = [value for module in (files, cluster) for value in vars(module).values() if isinstance(value, DAG)]
    for dag in dags:
        globals()[dag.dag_id] = dag
        for task in dag.tasks:
            job: Any = task
            job._pre_execute_hook, job.retry_delay = note_attempt, timedelta(seconds=1)
else:
    none = DAG("examples_of_a_later_airflow", schedule=None)  # the harness waits for a DAG of each file
