"""
Runs the tests in an environment per version of Airflow, and prints what each version does.

    python3 dev.py matrix                  every version: unit and contract tests, the scenarios, the upgrades to 3.3 and to 3.4
    python3 dev.py matrix 2.11 --core      only what CI runs, on 2.11: tests of stores and patterns, and the scenarios of `CHOSEN`
    python3 dev.py matrix --lowest         unit and contract tests with the oldest of all that our bounds admit, 2.11 and 3.3
    python3 dev.py matrix 3.4 --crash      what `python3 dev.py crash` runs on 3.3: workers killed, stops, every way to wait
    python3 dev.py matrix --measure        milliseconds per store operation in a real task, Variables left of 200 task instances

An environment is `.venvs/VERSION`, made from `constraints-VERSION.txt` by uv, or by pip where uv cannot be had; 3.3 is `.venv`
itself, as the lock file says. Of 3.4 there are pre-releases only, and of nothing else is one taken.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UV = Path(sys.executable).parent / "uv"
VERSIONS = ("2.11", "3.0", "3.1", "3.2", "3.3", "3.4")
AT_BOTH_ENDS = ("2.11", "3.3")
"""The versions of which the oldest resolution is tested: `constraints-VERSION-lowest.txt`."""
OLDER = {"3.3": "3.2", "3.4": "3.3"}
"""The version from which an upgrade with jobs in flight is run."""
UNIT = ["tests/unit", "tests/contract"]
STORES = ["tests/unit/stores/test_stores.py", "tests/unit/cleanup/test_maintenance.py", "tests/unit/jobs/test_old_records.py"]
PATTERNS = [
    "tests/unit/test_once_safe.py",
    *(f"tests/unit/checkpoint/test_{name}.py" for name in ("checkpoint", "checkpoint_safe", "read_ahead")),
    *(f"tests/unit/watermark/test_{name}.py" for name in ("watermark", "watermark_safe")),
]
"""`Checkpoint`, `once`, `Watermark`: what differs between versions is where they keep their state, and Airflow's errors."""
SCENARIOS = ["-m", "versions", "tests/versions/test_scenarios.py"]
OTHERS = [
    "-m",
    "versions",
    *(f"tests/versions/test_{name}.py" for name in ("maintenance_dag", "without_a_server", "loops", "beta")),
]
CRASH = ["-s", "-m", "not harness", "tests/crash"]
MEASURE = ["-s", "-m", "versions", "tests/versions/test_measured.py"]
UPGRADE = ["-m", "versions", "tests/versions/test_upgrade.py"]


def main(arguments: list[str]) -> int:
    flags = {one for one in arguments if one.startswith("--")}
    possible = AT_BOTH_ENDS if "--lowest" in flags else VERSIONS
    versions = [one for one in arguments if one not in flags] or list(possible)
    if unknown := (flags - {"--core", "--lowest", "--measure", "--crash"}) | (set(versions) - set(possible)):
        sys.exit(f"matrix: {sorted(unknown)} is none of {', '.join(possible)}, --core, --lowest, --measure, --crash")
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as table:
        results = {version: run(version, flags, table.name) for version in versions}
        found = [json.loads(line) for line in table]
    print(printed_costs(found) if "--measure" in flags else printed(found, versions))
    for version, steps in results.items():
        print(version, "  ".join(f"{step} {'passed' if code == 0 else 'FAILED'} in {spent:.0f} s" for step, code, spent in steps))
    return int(any(code for steps in results.values() for _, code, _ in steps))


def run(version: str, flags: set[str], table: str) -> list[tuple[str, int, float]]:
    """Return name, exit code and seconds of each step."""
    python = environment(version, "--lowest" in flags)
    env = {**os.environ, "MATRIX_TABLE": table}
    if "--measure" in flags:
        return [step("measured", python, MEASURE, env)]
    if "--crash" in flags:
        return [step("crash", python, CRASH, env)]
    if "--core" in flags:
        return [step("stores", python, STORES + PATTERNS, env), step("scenarios", python, SCENARIOS, {**env, "MATRIX_CORE": "1"})]
    steps = [step("unit and contract", python, UNIT, env)]
    if "--lowest" not in flags:
        steps.append(step("scenarios", python, SCENARIOS, env))
        steps.append(step("sweep, loops, without a server", python, OTHERS, env))
        if version in OLDER:
            steps.append(step("upgrade", python, UPGRADE, {**env, "MATRIX_OLDER": str(environment(OLDER[version]))}))
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
    if not UV.exists():
        with_pip(python, pins)
        return python
    if not python.exists():
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, python.parents[1]], check=True)
    pip = [UV, "pip", "--quiet"]
    subprocess.run([*pip, "sync", "--python", python, pins], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--python", python, "--editable", ROOT], check=True)
    return python


def with_pip(python: Path, pins: Path) -> None:
    print(f"matrix: making {python.parents[1]}; uv cannot be had, and pip takes a few minutes", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--requirement", pins], check=True)
    subprocess.run([*pip, "--editable", ROOT], check=True)


def printed(found: list[dict[str, str]], versions: list[str]) -> str:
    """Return the table, scenario by version."""
    by_key = {(one["scenario"], one["airflow"]): one["found"] for one in found}
    names = list(dict.fromkeys(one["scenario"] for one in found))
    width = max(map(len, names), default=8)
    rows = [" ".join([f"{'scenario':{width}}", *(f"{version:>5}" for version in versions)])]
    rows += [" ".join([f"{name:{width}}", *(f"{by_key.get((name, version), '-'):>5}" for version in versions)]) for name in names]
    return "\n".join(rows)


def printed_costs(found: list[dict[str, Any]]) -> str:
    """Return the table of what stores cost: median and 95th percentile in milliseconds."""
    heads = "".join(f" {name:>15}" for name in ("set", "get", "get of nothing", "delete"))
    rows = [f"{'Airflow':8} {'store':16}{heads}  Variables left of 200"]
    for one in found:
        for store, spent in one["milliseconds"].items():
            columns = ["{:.1f} / {:.1f}".format(*spent[name]) for name in ("set", "get", "miss", "delete")]
            left = one["variables left of 200"] if store == "default" else ""
            rows.append(" ".join([f"{one['airflow']:8} {store:16}", *(f"{column:>15}" for column in columns), f" {left}"]))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
