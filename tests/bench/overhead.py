"""
What durability costs an undisturbed run, and a DAG file at each parse: ours against the provider's own operators.

    python -m tests.bench.overhead [--pairs 7] [--json FILE]

Calls are counted, so they are the same on every machine. Import times come from pairs of fresh interpreters, one with the
provider's module and one with ours, right after each other: the median of the pairs' ratios. CPU time is what counts on a
machine that has other things to do. "On top" is the CPU time of importing ours where the provider's is imported already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

IMPORTS = {
    "resumable.operators.databricks": "airflow.providers.databricks.operators.databricks",
    "resumable.operators.emr": "airflow.providers.amazon.aws.operators.emr",
}

_TIMED = """
import time
def spent():
    return time.perf_counter(), time.process_time()
start = spent()
import {first}
middle = spent()
import {then}
print(middle[0] - start[0], middle[1] - start[1], spent()[1] - middle[1])
"""


class Environ:
    """What the cases ask of pytest's monkeypatch."""

    setenv = staticmethod(os.environ.__setitem__)


def counted(operator: type[Any], case: Any) -> Counter[str]:
    """Return the effects of one undisturbed run against a service of its own."""
    from tests.support.runner import TaskInstance

    with case.bench(Environ) as bench:
        bench.at_once()
        arguments = {**bench.arguments(), **case.extra}
        instance = TaskInstance(lambda: operator(task_id="task", **arguments))
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            instance.attempt()
        assert bench.jobs() == 1
        return Counter(instance.effects.done)


def calls() -> list[dict[str, Any]]:
    """Count store calls and remote calls per contract case."""
    import tests.conftest  # noqa: F401  a home for Airflow
    from tests.contract.cases import CASES

    rows = []
    for case in CASES:
        ours, theirs = counted(case.ours, case), counted(case.theirs, case)
        more = {name: n - theirs[name] for name, n in sorted(ours.items()) if name.startswith("http") and n != theirs[name]}
        rows.append(
            {
                "case": str(case),
                "store get": [ours["store.get"], theirs["store.get"]],
                "store set": [ours["store.set"], theirs["store.set"]],
                "remote": [_remote(ours), _remote(theirs)],
                "more remote": more,
            }
        )
    return rows


def _remote(effects: Counter[str]) -> int:
    return sum(n for name, n in effects.items() if name.startswith("http "))


def import_seconds(first: str, then: str) -> tuple[float, float, float]:
    """Return wall and CPU seconds of importing `first`, and CPU seconds of importing `then` after it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TIMED.format(first=first, then=then)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{first}, then {then}:\n{done.stderr}")
    wall, cpu, more = map(float, done.stdout.split()[-3:])
    return wall, cpu, more


def imports(pairs: int) -> list[dict[str, Any]]:
    """Time ours against the provider's module alone; which of a pair goes first alternates."""
    rows = []
    for ours, theirs in IMPORTS.items():
        import_seconds(ours, theirs)  # byte code, file cache
        mine, alone = [], []
        for number in range(pairs):
            if number % 2:
                mine.append(import_seconds(ours, theirs))
            alone.append(import_seconds(theirs, ours))
            if not number % 2:
                mine.append(import_seconds(ours, theirs))
        row: dict[str, Any] = {"module": ours, "pairs": pairs}
        for column, name in enumerate(("wall", "cpu")):
            ratios = [one[column] / other[column] for one, other in zip(mine, alone, strict=True)]
            row[f"{name} ours"] = round(statistics.median(one[column] for one in mine), 2)
            row[f"{name} provider"] = round(statistics.median(one[column] for one in alone), 2)
            row[f"{name} ratio"] = round(statistics.median(ratios), 3)
            row[f"{name} ratios"] = [round(min(ratios), 3), round(max(ratios), 3)]
        row["on top"] = round(statistics.median(other[2] for other in alone), 4)
        row["on top ratio"] = round(1 + statistics.median(other[2] / other[1] for other in alone), 3)
        rows.append(row)
    return rows


def show(found: dict[str, Any]) -> None:
    print("\nCalls of an undisturbed run (ours / provider's)\n")
    print(f"{'case':38}{'store get':>12}{'store set':>12}{'remote':>10}  more remote calls")
    for row in found["calls"]:
        cells = ["{} / {}".format(*row[name]) for name in ("store get", "store set", "remote")]
        more = ", ".join(f"{name.removeprefix('http ')} {n:+}" for name, n in row["more remote"].items()) or "none"
        print(f"{row['case']:38}{cells[0]:>12}{cells[1]:>12}{cells[2]:>10}  {more}")
    print("\nImport time over the provider's module alone (medians)\n")
    print(f"{'module':34}{'':6}{'ours':>10}{'provider':>10}{'ratio':>8}  lowest to highest")
    for row in found["imports"]:
        for name in ("cpu", "wall"):
            spread = "{} to {} of {} pairs".format(*row[f"{name} ratios"], row["pairs"])
            times = f"{row[f'{name} ours']:>8} s{row[f'{name} provider']:>8} s"
            print(f"{row['module']:34}{name:6}{times}{row[f'{name} ratio']:>8}  {spread}")
        print(f"{'':34}{'on top':6}{row['on top']:>8} s{'':10}{row['on top ratio']:>8}")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="pairs of fresh interpreters for an import time")
    parser.add_argument("--json", type=Path, help="where to write the numbers; printed after the tables otherwise")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    found = {"calls": calls(), "imports": imports(given.pairs), "python": sys.version.split()[0]}
    found["seconds"] = round(time.monotonic() - began)
    show(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
