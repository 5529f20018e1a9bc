"""
Runs the tests in an environment per version of Airflow, and prints what each version does.

    python3 dev.py matrix                  every version: unit and contract tests, the scenarios, the upgrade from 3.2 to 3.3
    python3 dev.py matrix 2.11 --core      only the scenarios that CI runs, on 2.11
    python3 dev.py matrix 2.11 --lowest    unit and contract tests with the oldest providers that our extras admit

An environment is `.venvs/VERSION`, made by uv from `constraints-VERSION.txt`; 3.3 is `.venv` itself, as the lock file says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UV = Path(sys.executable).parent / "uv"
VERSIONS = ("2.11", "3.0", "3.1", "3.2", "3.3")
UNIT = ["tests/unit", "tests/contract"]
SCENARIOS = ["-m", "versions", "tests/versions/test_scenarios.py"]
UPGRADE = ["-m", "versions", "tests/versions/test_upgrade.py"]


def main(arguments: list[str]) -> int:
    flags = {one for one in arguments if one.startswith("--")}
    versions = [one for one in arguments if one not in flags] or list(VERSIONS)
    if unknown := (flags - {"--core", "--lowest"}) | (set(versions) - set(VERSIONS)):
        sys.exit(f"matrix: {sorted(unknown)} is none of {', '.join(VERSIONS)}, --core, --lowest")
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as table:
        results = {version: run(version, flags, table.name) for version in versions}
        found = [json.loads(line) for line in table]
    print(printed(found, versions))
    for version, steps in results.items():
        print(version, "  ".join(f"{step} {'passed' if code == 0 else 'FAILED'} in {spent:.0f} s" for step, code, spent in steps))
    return max(code for steps in results.values() for _, code, _ in steps)


def run(version: str, flags: set[str], table: str) -> list[tuple[str, int, float]]:
    """Return name, exit code and seconds of each step."""
    python = environment(version, "--lowest" in flags)
    env = {**os.environ, "MATRIX_TABLE": table}
    if "--core" in flags:
        return [step("scenarios", python, SCENARIOS, {**env, "MATRIX_CORE": "1"})]
    steps = [step("unit and contract", python, UNIT, env)]
    if "--lowest" not in flags:
        steps.append(step("scenarios", python, SCENARIOS, env))
        if version == "3.3":
            steps.append(step("upgrade", python, UPGRADE, {**env, "MATRIX_OLDER": str(environment("3.2"))}))
    return steps


def step(name: str, python: Path, arguments: list[str], env: dict[str, str]) -> tuple[str, int, float]:
    started = time.monotonic()
    print(f"matrix: {python.parents[1].name}: {name}", flush=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    return name, code, time.monotonic() - started


def environment(version: str, lowest: bool = False) -> Path:
    """Return the interpreter of the version's environment, made or brought up to date."""
    if version == "3.3" and not lowest:
        return Path(sys.executable)
    name = f"{version}-lowest" if lowest else version
    pins = HERE / f"constraints-{name}.txt"
    if not pins.exists():
        sys.exit(f"matrix: there is no {pins.name}")
    python = ROOT / ".venvs" / name / "bin" / "python"
    if not python.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    pip = [UV, "pip", "--quiet"]
    subprocess.run([*pip, "sync", "--python", python, pins], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--python", python, "--editable", ROOT], check=True)
    return python


def printed(found: list[dict[str, str]], versions: list[str]) -> str:
    """Return the table, scenario by version."""
    by_key = {(one["scenario"], one["airflow"]): one["found"] for one in found}
    names = list(dict.fromkeys(one["scenario"] for one in found))
    width = max(map(len, names), default=8)
    rows = [" ".join([f"{'scenario':{width}}", *(f"{version:>5}" for version in versions)])]
    rows += [" ".join([f"{name:{width}}", *(f"{by_key.get((name, version), '-'):>5}" for version in versions)]) for name in names]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
