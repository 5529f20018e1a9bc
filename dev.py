#!/usr/bin/env python3
"""
The one entry for newcomers and CI: makes `.venv` as the lock file says, then runs a command in it.

    python3 dev.py demo            a real Airflow, a killed worker, the retry that reattaches (no cloud, no account)
    python3 dev.py check           format, lint, types, and the unit tests but the slow ones: what to run before each commit
    python3 dev.py test [ARGS]     format, lint, types, every test, the core of them on Airflow 2.11; with ARGS only pytest ARGS
    python3 dev.py crash           only the tests that kill workers of a real Airflow, with their table
    python3 dev.py catalog         the whole contract of every operator, a crash at every call included
    python3 dev.py soak [ARGS]     40 mapped tasks on a real Airflow, 60 random disruptions by a seed, the jobs counted (--help)
    python3 dev.py mutants [ARGS]  planted faults, and which generator finds each with fresh seeds (--list, --help)
    python3 dev.py night [--hours N]
                                   goes on with fresh seeds over all generators and a real Airflow; the report is in .night/
    python3 dev.py celery [ARGS]   stopped workers on Celery; needs: apt-get install -y redis-server postgresql
    python3 dev.py peers           the providers' own operator tests, on our classes, and what may fail (--help)
    python3 dev.py matrix [VERSION ...] [--core | --lowest | --measure | --crash]
                                   the tests on other Airflows (2.11 to 3.4), and one table; see tests/versions
    python3 dev.py canary          the newest pre-release of Airflow and the newest providers: the names we rely upon, the tests
    python3 dev.py lint | types    ruff, the format too | mypy
    python3 dev.py format          write the format that lint asks for
    python3 dev.py lock            resolve again: remake requirements.lock from pyproject.toml
    python3 dev.py help            this text

Needs Python 3.10 or later with venv, and the network for the first installation; nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = VENV / "bin" / "uv"
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "installed-from.txt"
LOWEST = (3, 10)

RESOLVE = "pyproject.toml --all-extras --group dev --universal --python-version 3.10 --generate-hashes --no-annotate --upgrade"

FORMAT = ["-m", "ruff", "format", "."]
IS_FORMATTED = [*FORMAT, "--check"]
LINT = ["-m", "ruff", "check", "."]
TYPES = ["-m", "mypy"]
BY_DEFAULT = "not harness and not stops and not versions and not catalog"
PARALLEL = ["-n", "auto", "--dist", "worksteal"]
MATRIX = ["-m", "tests.versions.matrix"]
OLDEST_RUNS_ON = ((3, 11), (3, 13))
BESIDE = ["tests/unit/test_adoption.py", "tests/unit/checkpoint/test_read_ahead.py"]
"""What has tests of the catalog outside of the contract."""
CRASH = ["-m", "pytest", "-s", "-m", "not harness", "tests/crash"]


def main(command: str = "help", *arguments: str) -> None:
    if sys.version_info < LOWEST:
        found, lowest = (".".join(map(str, version)) for version in (sys.version_info[:3], LOWEST))
        sys.exit(f"dev.py: this is Python {found}, and Airflow 3.3 needs {lowest} or later. Run dev.py with a newer python3.")
    commands = {"demo": demo, "check": check, "test": test, "crash": crash, "matrix": matrix}
    commands |= {"format": format_, "lint": lint, "types": types, "lock": lock}
    commands |= {"catalog": catalog, "soak": soak, "mutants": mutants, "night": night, "celery": celery, "peers": peers}
    commands |= {"canary": canary}
    if command not in commands:
        print(__doc__.strip())
        sys.exit(0 if command in ("help", "-h", "--help") else f"\ndev.py: there is no command {command!r}")
    os.chdir(ROOT)
    install()
    commands[command](*arguments)


def demo(*arguments: str) -> None:
    become("-m", "examples.demo", *arguments)


def check(*arguments: str) -> None:
    run("format (python3 dev.py format writes it)", *IS_FORMATTED)
    run("lint", *LINT)
    run("types", *TYPES)
    say("unit tests but the slow ones, one process per core")
    become("-m", "pytest", "-q", *PARALLEL, "-m", f"not airflow and not slow and {BY_DEFAULT}", "tests/unit", *arguments)


def test(*arguments: str) -> None:
    if arguments:
        become("-m", "pytest", *arguments)
    run("format (python3 dev.py format writes it)", *IS_FORMATTED)
    run("lint", *LINT)
    run("types", *TYPES)
    run("tests without an Airflow, one process per core", "-m", "pytest", *PARALLEL, "-m", f"not airflow and {BY_DEFAULT}")
    if OLDEST_RUNS_ON[0] <= sys.version_info < OLDEST_RUNS_ON[1]:
        run("the core scenarios on Airflow 2.11", *MATRIX, "2.11", "--core")
    else:
        say("the core scenarios on Airflow 2.11 are left out: that one runs here on Python 3.11 and 3.12 only")
    say("tests on a real Airflow, one after the other")
    become("-m", "pytest", "-m", f"airflow and {BY_DEFAULT}")


def crash(*arguments: str) -> None:
    become(*CRASH, *arguments)


def catalog(*arguments: str) -> None:
    become("-m", "pytest", *PARALLEL, "-m", "not airflow", "tests/contract", *BESIDE, *arguments)


def soak(*arguments: str) -> None:
    become("-m", "tests.soak", *arguments)


def mutants(*arguments: str) -> None:
    become("-m", "tests.mutants", *arguments)


def night(*arguments: str) -> None:
    become("-m", "tests.night", *arguments)


def celery(*arguments: str) -> None:
    become("-m", "pytest", "-s", "tests/celery", *arguments, python=beside("celery"))


def peers(*arguments: str) -> None:
    become("-m", "tests.peers", *arguments, python=beside("peers"))


def beside(group: str) -> Path:
    """The Python of an environment of its own beside `.venv`: the lock file's, with a group of pyproject.toml."""
    if not UV.exists():
        sys.exit(f"dev.py: the environment for {group} needs uv, which could not be installed")
    venv = ROOT / ".venvs" / group
    python, stamp = venv / "bin" / "python", venv / STAMP.name
    if not python.exists() or not stamp.exists() or stamp.read_text() != wanted():
        say(f"making .venvs/{group}")
        need([UV, "venv", "--quiet", "--allow-existing", "--python", sys.executable, venv])
        install = [UV, "pip", "install", "--quiet", "--python", python]
        need([*install, "--requirements", LOCK, "--group", group])
        need([*install, "--no-deps", "--editable", ROOT])
        stamp.write_text(wanted())
    return python


def matrix(*arguments: str) -> None:
    become(*MATRIX, *arguments)


def canary(*arguments: str) -> None:
    become("-m", "tests.canary", *arguments)


def format_(*arguments: str) -> None:
    become(*FORMAT, *arguments)


def lint(*arguments: str) -> None:
    run("format (python3 dev.py format writes it)", *IS_FORMATTED)
    become(*LINT, *arguments)


def types(*arguments: str) -> None:
    become(*TYPES, *arguments)


def lock() -> None:
    if not UV.exists():
        sys.exit("dev.py: remaking the lock file needs uv, which could not be installed")
    say(f"resolving into {LOCK.name}")
    comment = ["--custom-compile-command", "python3 dev.py lock"]
    subprocess.run([UV, "pip", "compile", "--quiet", *RESOLVE.split(), *comment, "--output-file", LOCK.name], check=True)


def install() -> None:
    """Make `.venv`, or bring it up to date, if the lock file or pyproject.toml changed since the last time."""
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted():
        return
    started = time.monotonic()
    if not (VENV / "bin" / "pip").exists():
        say(f"making {VENV.name} with Python {sys.version.split()[0]}")
        if subprocess.run([sys.executable, "-m", "venv", VENV], check=False).returncode:
            sys.exit("dev.py: this Python cannot make a virtual environment (Debian: install python3-venv)")
    if not UV.exists():
        say("installing uv")
        subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=False)
    say(f"installing what {LOCK.name} names")
    if UV.exists():
        uv = [UV, "pip", "--quiet"]
        locked, project = [*uv, "sync", "--python", PYTHON], [*uv, "install", "--python", PYTHON]
    else:
        say("uv cannot be had; pip takes a few minutes")
        locked = project = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        locked = [*locked, "-r"]
    need([*locked, LOCK, "--require-hashes"])
    need([*project, "--no-deps", "--editable", ROOT])
    STAMP.write_text(wanted())
    say(f"installed in {time.monotonic() - started:.0f} s")


def wanted() -> str:
    """What an environment is made from, for its stamp."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in (LOCK, ROOT / "pyproject.toml"))).hexdigest()


def need(command: list) -> None:
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(f"dev.py: the installation failed (exit code {code}); run the same command again to go on")


def run(what: str, *arguments: str) -> None:
    """Run Python in `.venv`; end here with its exit code if that is not 0."""
    say(what)
    if code := subprocess.run([PYTHON, *arguments], check=False).returncode:
        sys.exit(code)


def become(*arguments: str, python: Path = PYTHON) -> None:
    """Let Python in `.venv`, or another, take the place of this process: Ctrl-C, signals and the exit code are its own."""
    sys.stdout.flush()
    os.execv(python, [str(python), *arguments])


def say(text: str) -> None:
    print(f"dev.py: {text}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
