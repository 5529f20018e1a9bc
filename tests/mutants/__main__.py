"""Plant each fault in a copy of the tree and see which generator finds it, after how many cases; see `tests.mutants`."""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tests.mutants.catalog import GENERATORS, MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "node_modules")
FORKED = ("core", "lives", "operators", "once", "checkpoint", "watermark")
"""Generators that keep nothing outside of their process: they are run in forks of one that has Airflow."""

_AWS = "appflow athena batch bedrock comprehend datasync ecs emr glue mwaa quicksight rds redshift_data sagemaker step_function"
WARM = (
    *("pytest", "hypothesis.stateful", "requests", "moto.emr.models", "moto.moto_server.werkzeug_app", "aiobotocore.session"),
    *("airflow.sdk", "airflow.providers.common.compat.sdk", "airflow.providers.databricks.operators.databricks"),
    *("airflow.providers.amazon.aws.triggers.emr", "airflow.providers.databricks.triggers.databricks"),
    *(f"airflow.providers.amazon.aws.operators.{name}" for name in _AWS.split()),
)
LONGEST = 900
"""
Seconds of work of one generator with one seed; a mutant that makes it hang longer counts as caught by that. Four times as many of
the clock, on a machine that is busy with other things.
"""


def main(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="dev.py mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="these alone, by name or a part of it")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="fresh seeds for each (default: 3)")
    parser.add_argument("--seed", type=int, help="the first of the seeds, to run the same again")
    parser.add_argument("--by", help="this generator instead of those of the list")
    parser.add_argument("--list", action="store_true", help="print the list and run nothing")
    parser.add_argument("--healthy", action="store_true", help="first run each generator on the tree as it is")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="JSON lines: what stands there is not run again, the rest is added"
    )
    parser.add_argument("--table", action="store_true", help="print what stands in the file of --results, and run nothing")
    given = parser.parse_args(arguments)
    if given.table and given.results is None:
        parser.error("--table needs --results")
    chosen = [m for m in MUTANTS if not given.only or any(part in m.name for part in given.only)]
    results = Results(given.results)
    if given.table:
        print("\n".join(_row(mutant, results.of(mutant)[-given.seeds :]) for mutant in chosen))
        return 0
    if given.list:
        for mutant in chosen:
            print(f"{mutant.name:42} {mutant.file}: {mutant.breaks} [{', '.join(mutant.by)}]")
        return 0
    first = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    seeds = [first + n for n in range(given.seeds)]
    print(f"{len(chosen)} mutants, seeds {', '.join(map(str, seeds))}\n", flush=True)
    if given.healthy and not _all_healthy(chosen, seeds):
        return 1
    missed = []
    for mutant in sorted(chosen, key=lambda mutant: len(results.of(mutant))):
        for seed in seeds[: max(0, given.seeds - len(results.of(mutant)))]:
            results.add(mutant, seed, hunt(mutant, seed, (given.by,) if given.by else mutant.by))
        found = results.of(mutant)
        print(_row(mutant, found), flush=True)
        if not all(one.by for one in found):
            missed.append(mutant.name)
    print(f"\n{len(chosen) - len(missed)} of {len(chosen)} caught with every seed", flush=True)
    if missed:
        print(f"not caught with every seed: {', '.join(missed)}")
    return 1 if missed else 0


def _all_healthy(chosen: Sequence[Mutant], seeds: Sequence[int]) -> bool:
    names = sorted({name for mutant in chosen for name in mutant.by})
    well = True
    with tree() as copy:
        for name in names:
            for seed in seeds:
                ended = generate(copy, name, seed)
                print(f"as it is, {name}, seed {seed}: {'fails: ' + ended.broken if ended.by else 'holds'}", flush=True)
                well &= not ended.by
    return well


@dataclass
class Found:
    """By which generator, what was broken, after how many cases, in how many seconds. ``by`` is None if nothing was."""

    by: str | None
    broken: str = ""
    cases: int = 0
    seconds: float = 0.0


class Results:
    """What came of each mutant with each seed; kept in a file if one is given, so that a long run can be gone on with."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, list[Found]] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else []:
            told = json.loads(line)
            self._found.setdefault(told["mutant"], []).append(Found(**told["found"]))

    def of(self, mutant: Mutant) -> list[Found]:
        return self._found.get(mutant.name, [])

    def add(self, mutant: Mutant, seed: int, found: Found) -> None:
        self._found.setdefault(mutant.name, []).append(found)
        if self._path is not None:
            with self._path.open("a") as lines:
                lines.write(json.dumps({"mutant": mutant.name, "seed": seed, "found": asdict(found)}) + "\n")


def _row(mutant: Mutant, found: Sequence[Found]) -> str:
    told = []
    for one in found:
        told.append(f"{one.by}: {one.broken}, case {one.cases or '?'} ({one.seconds:.0f} s)" if one.by else "NOT CAUGHT")
    return f"| {mutant.name} | {mutant.breaks} | {' | '.join(told)} |"


def hunt(mutant: Mutant, seed: int, generators: Sequence[str]) -> Found:
    """The first of the generators that fails on the mutant."""
    with tree() as copy:
        plant(mutant, copy)
        for name in generators:
            found = generate(copy, name, seed)
            if found.by:
                return found
    return Found(None)


@contextmanager
def tree() -> Iterator[Path]:
    """A copy of the tree, without what is hidden."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
        yield copy


def plant(mutant: Mutant, copy: Path) -> None:
    path = copy / mutant.file
    path.write_text(planted(mutant, path.read_text()))


def planted(mutant: Mutant, text: str) -> str:
    """
    The text of its file with the fault in it.

    Raises:
        ValueError: what it replaces is not there, or not once.
    """
    if (found := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: what it replaces stands {found} times in {mutant.file}, not once. Write it anew.")
    return text.replace(mutant.old, mutant.new)


def generate(copy: Path, generator: str, seed: int) -> Found:
    """One generator on a tree, at its default budget, until something is broken."""
    name, _, word = generator.partition(":")
    report = copy / "report.jsonl"
    report.unlink(missing_ok=True)
    environment = {
        "LIFE_SEED": str(seed),
        "LIFE_SHRINK": "0",
        "LIFE_REPORT": str(report),
        "LIFE_SCRIPTS": str(copy / "scripts"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(copy),
    }
    asked = ["-q", "-x", "-p", "no:cacheprovider", "--show-capture=no", f"--hypothesis-seed={seed}", "--timeout=0"]
    asked += [*GENERATORS[name], *(["-k", word] if word else [])]
    began = time.monotonic()
    code, said = _pytest(copy, asked, environment, output=copy / "output.txt", is_warm=name in FORKED)
    seconds = time.monotonic() - began
    if code is None:
        return Found(generator, f"does not end within {LONGEST} s", 0, seconds)
    if code == 0:
        return Found(None, seconds=seconds)
    lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
    told = next((line for line in lines if line["broken"]), None)
    if code != 1 or (told is None and "failed" not in said):
        sys.exit(f"{generator} could not be run (exit code {code}):\n{said[-4000:]}")
    if told is None:
        return Found(generator, _first_error(said), 0, seconds)
    before = sum(line["cases"] for line in lines[: lines.index(told)])
    return Found(generator, told["broken"], before + told["cases"], seconds)


def _pytest(copy: Path, asked: list[str], environment: dict[str, str], *, output: Path, is_warm: bool) -> tuple[int | None, str]:
    """Exit code and output of pytest in the copy, None if it does not end. Warm: in a fork of a process that has Airflow."""
    os.environ.pop("AIRFLOW_HOME", None)
    if is_warm:
        _warm()
    with output.open("w") as said:
        if is_warm:
            sys.stdout.flush()
            if (child := os.fork()) == 0:
                _be_pytest(copy, asked, environment, said.fileno())
            code = _waited(child)
        else:
            command, every = [sys.executable, "-m", "pytest", *asked], {**os.environ, **environment}
            to = {"cwd": copy, "env": every, "stdout": said, "stderr": said}
            code = _waited(subprocess.Popen(command, **to).pid)  # type: ignore[call-overload]
    return code, output.read_text()


def _waited(child: int) -> int | None:
    until = time.monotonic() + 4 * LONGEST
    while time.monotonic() < until and _worked(child) < LONGEST:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _worked(process: int) -> float:
    """Seconds of work of a process and of those of its children that have ended; 0 where Linux's ``/proc`` is not there."""
    try:
        told = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, told[11:15])) / os.sysconf("SC_CLK_TCK")


def _be_pytest(copy: Path, asked: list[str], environment: dict[str, str], said: int) -> NoReturn:
    """In the fork: take up what the copy has, and nothing of this tree."""
    code = 3
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(copy)
        os.environ.update(environment)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("resumable", "tests")]:
            del sys.modules[name]
        sys.path[:] = [str(copy), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
        sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
        sys.path_importer_cache.clear()
        import pytest

        import resumable

        assert Path(str(resumable.__file__)).is_relative_to(copy), resumable.__file__
        code = int(pytest.main(asked))
    except BaseException as e:
        os.write(2, repr(e).encode())
    finally:
        os._exit(code)


@cache
def _warm() -> None:
    """Import once what takes seconds: Airflow, the providers, botocore's and moto's models of services."""
    home = tempfile.mkdtemp(prefix="mutants-airflow-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    for name in WARM:
        with suppress(ImportError):
            import_module(name)


def _first_error(output: str) -> str:
    return next((line[2:].strip()[:120] for line in output.splitlines() if line.startswith("E  ")), "a test failed")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
