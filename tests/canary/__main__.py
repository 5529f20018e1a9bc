"""
Looks ahead: our tests on the newest pre-release of Airflow with the newest providers, and what changed in what we rely upon.

    python3 dev.py canary              names, unit and contract tests, the core scenarios on a real Airflow
    python3 dev.py canary --names      only the list of the names that we rely upon (`tests.canary.names`)

The environment is `.venvs/canary`, resolved anew each time. A pre-release is taken of Airflow's own packages only. A name is
compared with the one in `.venv`: GONE tells what breaks; CHANGED is to be read, since its source is another.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.versions.matrix import ROOT, SCENARIOS, UNIT, UV

VENV = ROOT / ".venvs" / "canary"
PYTHON = VENV / "bin" / "python"
WANTED = (
    "apache-airflow-core>=3.0.0.dev0",
    "apache-airflow-task-sdk>=1.0.0.dev0",
    "apache-airflow-providers-databricks",
    "apache-airflow-providers-amazon[aiobotocore]",
)
"""What has a pre-release in its bounds may come as one. The providers have no upper bound here, other than in pyproject.toml."""
SHOWN = ("apache-airflow", "apache-airflow-task-sdk", "apache-airflow-providers-databricks", "apache-airflow-providers-amazon")


def main(arguments: list[str]) -> int:
    if unknown := set(arguments) - {"--names"}:
        sys.exit(f"canary: {sorted(unknown)} is not --names")
    if not UV.exists():
        sys.exit("canary: the environment needs uv, which could not be installed")
    began = time.monotonic()
    make_environment()
    print("canary:", ", ".join(f"{name} {version}" for name, version in versions().items()), flush=True)
    failed = print_names(names_in(Path(sys.executable)), names_in(PYTHON))
    if not arguments:
        failed |= step("unit and contract", [*UNIT, "tests/canary"])
        failed |= step("core scenarios", SCENARIOS, MATRIX_CORE="1")
    print(f"canary: {'FAILED' if failed else 'passed'} in {time.monotonic() - began:.0f} s")
    return int(failed)


def make_environment() -> None:
    if not PYTHON.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, VENV], check=True)
    pip = [UV, "pip", "install", "--quiet", "--python", PYTHON]
    newest = ["--upgrade", "--prerelease", "if-necessary-or-explicit", f"apache-airflow=={newest_airflow()}"]
    subprocess.run([*pip, *newest, *WANTED, "--group", "dev", "tenacity"], check=True, cwd=ROOT)
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)


def newest_airflow() -> str:
    """The newest on the package index, which uv by itself takes only if nothing stable fits."""
    told = output(Path(sys.executable), "-m", "pip", "index", "versions", "apache-airflow", "--pre")
    found = re.match(r"apache-airflow \((\S+)\)", told)
    if found is None:
        sys.exit(f"canary: pip does not tell the newest Airflow: {told[:200]!r}")
    return found[1]


def versions() -> dict[str, str]:
    ask = f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {SHOWN!r}}}))"
    return dict(json.loads(output(PYTHON, "-c", ask)))


def names_in(python: Path) -> dict[tuple[str, str], dict[str, Any]]:
    rows = json.loads(output(python, "-W", "ignore", "-m", "tests.canary.names", "--json").splitlines()[-1])
    return {(row["path"], row["breaks"]): row for row in rows}


def output(python: Path, *arguments: str) -> str:
    done = subprocess.run([python, *arguments], cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"canary: {python} {arguments[:4]} ended with {done.returncode}")
    return done.stdout


def print_names(here: dict[tuple[str, str], Any], there: dict[tuple[str, str], Any]) -> bool:
    """Print what is gone and what changed; whether anything is gone."""
    gone = [row for row in there.values() if row["problem"]]
    changed = {row["path"] for key, row in there.items() if key in here and here[key]["digest"] != row["digest"]}
    for row in gone:
        print(f"GONE     {row['path']}: {row['problem']}. What breaks: {row['breaks']}")
    for path in sorted(changed - {row["path"] for row in gone}):
        print(f"CHANGED  {path}")
    print(f"canary: of {len(there)} names {len(gone)} are gone, {len(changed)} have another source than in .venv", flush=True)
    return bool(gone)


def step(name: str, arguments: Sequence[str], **env: str) -> bool:
    """Run tests in the environment; whether any failed."""
    print(f"canary: {name}", flush=True)
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, check=False).returncode != 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
