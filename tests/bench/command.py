"""
What `python -m resumable jobs` costs with many live records.

    python -m tests.bench.command [--records 10000]

CPU and wall-clock time and the greatest memory of the command's own work, imports not counted: on Airflow 3.3 records are rows of
task state, before they are Variables, each of which is decrypted.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import os
import resource
import tempfile
import time

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="resumable-bench-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(b"0" * 32).decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    count = parser.parse_args().records

    from resumable import host
    from resumable.cli.main import main as command

    put = _rows if host.has_task_state() else _variables
    put(count)
    for arguments in (["jobs", "--limit", "1"], ["jobs"], ["jobs", "--json"], ["jobs", "--orphans", "--json"]):
        before, cpu, began = _peak(), time.process_time(), time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            command(arguments)
        spent = time.process_time() - cpu
        print(
            f"{' '.join(arguments):28} {count} records: {spent:.2f} s of CPU, {time.monotonic() - began:.2f} s in all, "
            f"peak memory {before:.0f} -> {_peak():.0f} MB, {len(printed.getvalue())} characters"
        )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _record(number: int) -> dict[str, object]:
    from resumable.identity import Generation
    from resumable.jobs.record import JobHandle, JobRecord
    from resumable.jobs.spec import Spec

    spec = Spec("0" * 16, {f"field_{n}": "0123456789" for n in range(6)})
    reach = {"operator": "resumable.operators.databricks:ResumableDatabricksOperator", "databricks_conn_id": "databricks_default"}
    record = JobRecord("databricks", f"{number:048x}", Generation(3, 0, None), 0, "owner", 1, time.time(), spec=spec, reach=reach)
    handle = JobHandle("databricks", {"run_id": number, "job_id": number}, {"workspace": "adb-1.7.azuredatabricks.net"})
    return record.submitted(handle, time.time()).noting("worker lost", time.time()).noting("reattached", time.time()).to_json()


def _rows(count: int) -> None:
    from tests.support import database

    database.empty()
    database.put_many("etl", [(f"run_{n // 10}", f"task_{n % 10}", _record(n)) for n in range(count)])


def _variables(count: int) -> None:
    from airflow.models import Variable
    from airflow.utils.session import create_session

    from resumable.identity import TaskIdentity
    from resumable.stores.variables import VariableStore, name_of
    from tests.support import database

    database.empty()
    kept: dict[str, str] = {}

    class Variables:
        def set(self, name: str, text: str, description: str) -> None:
            kept[name] = text

    for number in range(count):
        task = TaskIdentity("etl", f"run_{number // 10}", f"task_{number % 10}")
        VariableStore(task, Variables()).set("resumable", _record(number))  # type: ignore[arg-type]
        assert name_of(task) in kept
    with create_session() as session:
        session.add_all([Variable(key=name, val=text) for name, text in kept.items()])


if __name__ == "__main__":
    main()
