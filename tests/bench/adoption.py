"""
What adoption costs the DAG processor: the parse of 500 DAG files, each in a process that is forked for it.

    python -m tests.bench.adoption [--files 500] [--rounds 3]

CPU time of the forked processes. The providers' modules are imported before, as Airflow's processor does by default
(``[dag_processor] parsing_pre_import_modules``); ours once by the listener in the process that forks, once by each process.
The ways take turns, and the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="resumable-bench-"))
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()

    from tests.support import many_dags

    folder = Path(tempfile.mkdtemp(prefix="resumable-bench-dags-"))
    many_dags.write(folder, given.files)
    ways = {
        "without adoption": ("", False),
        "adopt = all": ("all", True),
        "adopt = all, nothing imported beforehand": ("all", False),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(given.rounds):
        for name, (adopt, is_warm) in ways.items():
            least[name] = min(least[name], _processor(folder, given.files, adopt, is_warm=is_warm))
    for name, seconds in least.items():
        print(f"{name:44} {seconds:8.1f} s of CPU for {given.files} files, {seconds / given.files * 1000:7.1f} ms each")


def _processor(folder: Path, files: int, adopt: str, *, is_warm: bool) -> float:
    """CPU seconds of the processes that a fresh DAG processor forks."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.environ["AIRFLOW__RESUMABLE__ADOPT"] = adopt
        import airflow.settings  # noqa: F401 - what a DAG processor has imported
        from airflow.providers_manager import ProvidersManager  # noqa: F401

        from resumable import adoption
        from tests.support import many_dags
        from tests.support.names import DagBag

        exec(compile(many_dags.HEAD, "head", "exec"), {})

        if is_warm:
            adoption.warm_up()
        for number in range(files):
            _parse(DagBag, folder / f"dag_{number}.py")
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(writer, str(spent.ru_utime + spent.ru_stime).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as told:
        return float(told.read())


def _parse(bag: type, file: Path) -> None:
    if (pid := os.fork()) == 0:
        found = bag(str(file))
        os._exit(1 if found.import_errors or len(found.dags) != 1 else 0)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"{file} was not parsed")


if __name__ == "__main__":
    main()
