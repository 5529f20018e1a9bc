"""
Both providers' own unit tests of the operators that ours extend, from the sdists of the locked versions: `python3 dev.py peers`.

They run on the provider's classes (all must pass: a check of the rig), and on ours with ``durable=False`` and ``durable=True``.
`allowed.json` names each test that may fail, by its reason; what fails besides is a fault of ours. The file may only get shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.peers.classify import CATEGORIES, UNEXPLAINED
from tests.peers.plugin import DURABLE, PROVIDER
from tests.peers.swap import ours_of_theirs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".venvs" / "peers-tests"
ALLOWED = HERE / "allowed.json"
PACKAGES = ("apache-airflow-providers-amazon", "apache-airflow-providers-databricks")

Failures = dict[str, dict[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.py peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the failures that have a reason to allowed.json")
    parser.add_argument(
        "pytest", nargs="*", metavar="ARG", help="given to pytest, after --: e.g. -- -k test_glue; no comparison then"
    )
    given = parser.parse_args()
    tests = unpacked()
    found = {on: run(on, tests, given.pytest) for on in (PROVIDER, *DURABLE)}
    allowed = json.loads(ALLOWED.read_text())
    for on in DURABLE:
        explain(found[on]["failed"], allowed["by hand"])
    print(table(found))
    if given.pytest:
        return
    faults = [f"{PROVIDER}: {test}: {why['error']}" for test, why in found[PROVIDER]["failed"].items()]
    for on in DURABLE:
        failed, may = found[on]["failed"], allowed[on]
        faults += [
            f"{on}: {test}: {why['category']}: {why['error']}"
            for test, why in failed.items()
            if why["category"] == UNEXPLAINED or (not given.write and test not in may[why["category"]])
        ]
        passing = [test for tests in may.values() for test in tests if test not in failed]
        if passing and not given.write:
            print(f"{on}: {len(passing)} tests of {ALLOWED.name} pass now; `python3 dev.py peers --write` takes them out")
        allowed[on] = {c: sorted(test for test, why in failed.items() if why["category"] == c) for c in CATEGORIES}
    if given.write:
        ALLOWED.write_text(json.dumps(allowed, indent=1) + "\n")
    if faults:
        sys.exit("\n".join(["failures that are not allowed:", *faults]))


def unpacked() -> Path:
    """The folder with the tests of both providers, of the versions that are installed."""
    home = CACHE / "-".join(version(package) for package in PACKAGES)
    if not (home / "complete").exists():
        for package in PACKAGES:
            sdist = [f"{package}=={version(package)}", "--no-deps", "--no-binary", package, "--dest", home]
            subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *sdist], check=True)
        for archive in home.glob("*.tar.gz"):
            with tarfile.open(archive) as tar:
                for member in tar.getmembers():
                    member.path = member.path.partition("/")[2]
                    if member.path.startswith("tests/"):
                        tar.extract(member, home, filter="data")
        (home / "complete").touch()
    return home / "tests"


def modules(tests: Path) -> list[str]:
    """The operator tests that speak of a class that ours extend."""
    of_ours = re.compile(rf"\b({'|'.join(theirs.__name__ for theirs in ours_of_theirs())})\b")
    files = sorted(tests.glob("unit/**/operators/test_*.py"))
    return [str(file.relative_to(tests)) for file in files if of_ours.search(file.read_text())]


def run(on: str, tests: Path, arguments: list[str]) -> dict[str, Any]:
    """What became of each test: the number that passed, and why the others failed."""
    print(f"peers: on {on}", flush=True)
    to = CACHE / f"{on}.json"
    to.unlink(missing_ok=True)
    env = os.environ | {
        "AIRFLOW_HOME": str(CACHE / "airflow"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__RESUMABLE__LOST_SIGHT_AFTER": "1",  # a mocked client's job is not to be seen in hours either
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE / "stub", tests))),
    }
    ours = ["-p", "tests.peers.plugin", "--peers-on", on, "--peers-to", to, "-c", HERE / "pytest.ini", "--rootdir", tests]
    command = [sys.executable, "-m", "pytest", *ours, "-n", "auto", *modules(tests), *arguments]
    code = subprocess.run(command, cwd=tests, env=env, check=False, stdout=(CACHE / f"{on}.txt").open("w")).returncode
    if code > 1 or not to.exists():
        sys.exit(f"peers: pytest ended with {code}; see {CACHE / f'{on}.txt'}")
    result: dict[str, Any] = json.loads(to.read_text())
    return result


def explain(failed: Failures, by_hand: dict[str, dict[str, str]]) -> None:
    """Give a failure that does not show its reason, or seems to show another, the one that somebody found."""
    for test, why in failed.items():
        if test in by_hand:
            why["category"] = by_hand[test]["category"]


def table(found: dict[str, Any]) -> str:
    rows = [["", *found], ["passed", *(str(result["passed"]) for result in found.values())]]
    for reason in (*CATEGORIES, UNEXPLAINED):
        counts = [sum(why["category"] == reason for why in result["failed"].values()) for result in found.values()]
        rows.append([reason, *map(str, counts)])
    rows[1:1] = [["---"] * len(rows[0])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
