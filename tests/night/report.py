"""What a night has shown: a page to read and the same as JSON, written anew after each run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.night.keeper import OVERTIME, TOLD
from tests.night.parts import ROOT, Run

SHOWN = 3000
NO_TESTS = 5
"""The exit code of pytest where nothing is left to run: no test of the file draws anything."""


@dataclass
class Ran:
    """
    A run that has ended.

    Attributes:
        code: the process's exit code; None: it could not be started.
        notes: what the tests noted, one each.
        lives: what the machines told of themselves, see `tests.life.script.Report`.
        figures: of a soak.
        trouble: why there is no run.
    """

    run: Run | None
    part: str
    seed: int
    code: int | None
    seconds: float
    folder: Path
    notes: list[dict[str, Any]] = field(default_factory=list)
    lives: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""
    tail: str = ""
    commit: str = field(default_factory=lambda: commit())

    @property
    def is_unfinished(self) -> bool:
        return self.code == TOLD

    @property
    def failures(self) -> list[tuple[str, str, str]]:
        """What failed: the test, a line, and all that was said."""
        found = [(one["test"], one["error"], one["said"]) for one in self.notes if one["outcome"] == "failed"]
        found += [("soak", line, self.tail) for line in self.figures.get("violations", [])]
        if self.trouble:
            found.append((self.part, self.trouble.strip().splitlines()[-1], self.trouble))
        if self.code == OVERTIME:
            found.append((self.part, "did not end in time", self.tail))
        elif self.code not in (0, None, TOLD, NO_TESTS) and not found:
            found.append((self.part, f"ended with code {self.code}", self.tail))
        return found


def read(run: Run, code: int, seconds: float, folder: Path) -> Ran:
    """What a run left in its folder."""
    ran = Ran(run, run.part, run.seed, code, seconds, folder)
    ran.notes, ran.lives = _lines(folder / "notes.jsonl"), _lines(folder / "life.jsonl")
    if (soak := folder / "soak.json").exists():
        ran.figures = json.loads(soak.read_text())
    if (log := folder / "log").exists():
        ran.tail = log.read_text(errors="replace")[-SHOWN:]
    return ran


def _lines(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


class Report:
    """All runs of one night, in a folder of its own; the newest report is beside the folders too."""

    def __init__(self, home: Path, hours: float) -> None:
        self.began, self.hours = time.time(), hours
        self.folder = home / datetime.now().strftime("%Y%m%d-%H%M%S")
        self.folder.mkdir(parents=True)
        self.home, self.ran = home, list[Ran]()
        self.ended = ""

    def add(self, ran: Ran) -> None:
        self.ran.append(ran)
        self.write()

    def write(self) -> None:
        for name, text in (("report.json", json.dumps(self.as_json(), indent=1)), ("report.md", self.as_text())):
            for folder in (self.folder, self.home):
                draft = folder / f"{name}.draft"
                draft.write_text(text)
                draft.replace(folder / name)

    @property
    def failures(self) -> dict[tuple[str, str], list[tuple[Ran, str]]]:
        """Each kind of failure (test and line), with the runs that had it and what they said."""
        found: dict[tuple[str, str], list[tuple[Ran, str]]] = {}
        for ran in self.ran:
            for test, line, said in ran.failures:
                found.setdefault((test, line), []).append((ran, said))
        return found

    def as_json(self) -> dict[str, Any]:
        return {
            **self._head(),
            "runs": [
                {
                    "part": one.part,
                    "seed": one.seed,
                    "commit": one.commit,
                    "code": one.code,
                    "seconds": round(one.seconds, 1),
                    "repeat": one.run.repeat if one.run else "",
                    "log": str(one.folder.relative_to(self.home) / "log"),
                    "tests": [{k: v for k, v in note.items() if k != "said"} for note in one.notes],
                    "lives": one.lives,
                    "soak": one.figures,
                    "failures": [{"test": test, "error": line} for test, line, _ in one.failures],
                }
                for one in self.ran
            ],
        }

    def _head(self) -> dict[str, Any]:
        return {
            "began": _moment(self.began),
            "until": _moment(time.time()),
            "hours asked for": self.hours,
            "ended": self.ended or "goes on",
            "commit": commit(),
            "Python": platform.python_version(),
            "Airflow": version("apache-airflow"),
            "hypothesis": version("hypothesis"),
            "processors": os.cpu_count(),
            "load at the end": round(os.getloadavg()[0], 1),
        }

    def as_text(self) -> str:
        parts = list(dict.fromkeys(one.part for one in self.ran))
        lines = ["# A night of generators", "", *(f"- {name}: {value}" for name, value in self._head().items())]
        lines += ["", "| part | runs | unfinished | tests | cases | failed | minutes |"]
        lines += ["| --- | --: | --: | --: | --: | --: | --: |"]
        lines += [self._row(part, [one for one in self.ran if one.part == part]) for part in parts]
        lines += [self._row("**all**", self.ran), "", "## What failed", ""]
        for (test, line), every in self.failures.items():
            first, said = every[0]
            again = first.run.again(test) if first.run else ""
            seeds = ", ".join(str(ran.seed) for ran, _ in every)
            lines += [f"### {test}", "", line, "", f"- times: {len(every)}; seeds: {seeds}", f"- again: `{again}`"]
            lines += [f"- log: {first.folder.relative_to(self.home) / 'log'}"]
            scripts = [life["script"] for life in first.lives if life["script"]]
            lines += [f"- a test of it: `python3 dev.py night --keep {script}`" for script in scripts]
            lines += ["", "```", said[-SHOWN:], "```", ""]
        if not self.failures:
            lines += ["Nothing.", ""]
        lines += ["## What was covered", ""]
        for part in parts:
            if covered := self._covered([one for one in self.ran if one.part == part]):
                lines += [f"### {part}", "", *(f"- {count} x {what}" for what, count in covered.most_common()), ""]
        lines += ["## Seeds", ""]
        for part in parts:
            lines.append(f"- {part}: {', '.join(str(one.seed) for one in self.ran if one.part == part)}")
        return "\n".join(lines) + "\n"

    def _row(self, part: str, ran: list[Ran]) -> str:
        notes = [note for one in ran for note in one.notes]
        soaks = sum(bool(one.figures) for one in ran)
        cases = sum(note.get("cases", 0 if one.lives else 1) for one in ran for note in one.notes)
        cases += sum(life["cases"] for one in ran for life in one.lives)
        cases += sum(one.figures.get("disruptions", 0) for one in ran)
        numbers = [len(ran), sum(one.is_unfinished for one in ran), len(notes) + soaks, cases]
        numbers += [sum(len(one.failures) for one in ran), round(sum(one.seconds for one in ran) / 60)]
        return f"| {part} | " + " | ".join(map(str, numbers)) + " |"

    def _covered(self, ran: list[Ran]) -> Counter[str]:
        found: Counter[str] = Counter()
        for one in ran:
            found.update(one.figures.get("struck", {}))
            for life in one.lives:
                found.update(life["covered"])
            for note in one.notes:
                found.update(note.get("events", {}))
                if "cases" not in note and not one.lives:
                    found[note["test"].partition("::")[2]] += 1
        return found


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def commit() -> str:
    asked = subprocess.run(["git", "log", "-1", "--format=%h"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"
