"""A script that runs in a process of its own, with an Airflow of its own: an empty folder, and its database in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def printed_by(script: str, home: Path, **dag_files: str) -> list[str]:
    """The lines that ``script`` prints; it may import the DAG files, which are given by module name."""
    dags = home / "dags"
    dags.mkdir()
    for name, text in dag_files.items():
        (dags / f"{name}.py").write_text(text)
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "PYTHONPATH": os.pathsep.join([str(dags), str(ROOT)]),
    }
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()
