"""What a night is made of: a run of each part, for a seed."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATES = re.compile(
    r"^(?:from|import) hypothesis\b|^from tests\.life\.script import .*\b(?:as_test|run)\b|pytest\.mark\.generator\b",
    re.MULTILINE,
)
"""A test file with this in it draws what it tests."""

LIMIT = 1800.0
SOAK = ("--tasks", "12", "--disruptions", "16")
CRASH_TESTS = 4


@dataclass(frozen=True)
class Run:
    """
    One process of a night.

    Attributes:
        command: arguments of this Python.
        repeat: what a person types to have the same again.
        limit: seconds.
    """

    part: str
    seed: int
    command: list[str]
    repeat: str
    env: dict[str, str] = field(default_factory=dict)
    limit: float = LIMIT

    def again(self, test: str) -> str:
        """What repeats one of its tests, where a test alone can be repeated."""
        return self.repeat.replace(self.part, test) if test.startswith(f"{self.part}::") else self.repeat


Part = Callable[[int, Path], Run]
"""A run with a seed, that may write into a folder."""


def generators(only: str = "") -> list[Part]:
    """One part for each test file that draws its cases."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    paths = [str(file.relative_to(ROOT)) for file in files if GENERATES.search(file.read_text())]
    return [_generator(path) for path in paths if only in path and not path.startswith("tests/night/")]


def _generator(path: str) -> Part:
    def run(seed: int, folder: Path) -> Run:
        drawn = ["-m", "not airflow", f"--hypothesis-seed={seed}", path]
        env = {
            "NIGHT_NOTES": str(folder / "notes.jsonl"),
            "NIGHT_RANDOM_ONLY": "1",
            "LIFE_SEED": str(seed),
            "LIFE_REPORT": str(folder / "life.jsonl"),
            "LIFE_SCRIPTS": str(folder / "scripts"),
            # what another seed found is not drawn again: the seed alone has to give this run again
            "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        }
        repeat = f"LIFE_SEED={seed} python3 dev.py test {shlex.join(drawn)}"
        return Run(path, seed, [*PYTEST, *drawn], repeat, env)

    return run


PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.night.watch"]


def on_airflow(only: str = "") -> list[Part]:
    """The parts that start a real Airflow; the soak comes twice, as often as all crash tests together."""
    every = {"soak": _soak(), "crash": crash_tests, "soak --unheld": _soak("--unheld")}
    return [part for name, part in every.items() if only in name]


def _soak(*options: str) -> Part:
    def run(seed: int, folder: Path) -> Run:
        arguments = ["--seed", str(seed), *SOAK, *options]
        files = ["--home", str(folder / "soak"), "--json", str(folder / "soak.json")]
        repeat = f"python3 dev.py soak {shlex.join(arguments)}"
        return Run(" ".join(["soak", *options]), seed, ["-m", "tests.soak", *arguments, *files], repeat)

    return run


def crash_tests(seed: int, folder: Path) -> Run:
    """Some tests of one file that kills workers, drawn by the seed."""
    draw = random.Random(seed)
    every = _collected()
    file = draw.choice(sorted(every))
    chosen = sorted(draw.sample(every[file], min(CRASH_TESTS, len(every[file]))))
    arguments = ["-m", "airflow", *chosen]
    env = {"NIGHT_NOTES": str(folder / "notes.jsonl")}
    return Run("crash", seed, [*PYTEST, *arguments], f"python3 dev.py test {shlex.join(arguments)}", env)


def _collected() -> dict[str, list[str]]:
    """The tests of tests/crash that need an Airflow, by file."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "airflow", "tests/crash"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        if "::" in line:
            found.setdefault(line.partition("::")[0], []).append(line)
    if not found:
        raise RuntimeError(f"no test was collected\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
    return found
