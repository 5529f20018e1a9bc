"""A history that breaks something comes back as a short script, and the script is a test with one command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.life import invariants
from tests.life.script import ROOT, Told, as_test, keep, play, read, step


class Counter(Told):
    """It may count to two, and goes wrong beyond."""

    closed = 0

    @step(first=True, start=st.integers(0, 1))
    def begin(self, start: int) -> None:
        self.count, self.looks = start, 0

    @step(by=st.integers(1, 3))
    def add(self, by: int) -> None:
        self.count += by

    @step(lambda self: self.count > 0)
    def look(self) -> None:
        self.looks += 1  # of no consequence: none is left in what is shrunk

    def end(self) -> None:
        invariants.jobs_per_try(self.count, 2)

    def clean_up(self) -> None:
        type(self).closed += 1


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the script of a run that breaks something."""
    monkeypatch.setenv("LIFE_SCRIPTS", str(tmp_path))
    monkeypatch.setenv("LIFE_REPORT", str(tmp_path / "report"))
    monkeypatch.delenv("LIFE_SHRINK", raising=False)
    with pytest.raises(invariants.Broken, match="a job more than tries: 3 jobs in 2 tries"):
        as_test(Counter, examples=100)()
    return next(tmp_path.glob("*.script"))


def test_the_script_is_shrunk_and_names_what_is_broken(broken: Path) -> None:
    assert broken.name == "Counter-a_job_more_than_tries.script"
    steps = read(broken.read_text())[1]
    assert steps[0][0] == "begin"
    assert sum(given.get("start", 0) + given.get("by", 0) for _, given in steps) == 3, "the least that is too much"
    assert broken.read_text().startswith("# a job more than tries: 3 jobs in 2 tries")


def test_the_report_says_how_many_cases_it_took_and_what_was_covered(broken: Path, tmp_path: Path) -> None:
    line = json.loads((tmp_path / "report").read_text())
    assert line["broken"] == "a job more than tries"
    assert 1 <= line["cases"] <= 100
    assert line["covered"]["add"] >= 1
    assert line["script"] == str(broken)


def test_a_script_runs_by_itself(broken: Path) -> None:
    before = Counter.closed
    with pytest.raises(invariants.Broken, match="a job more than tries"):
        play(broken.read_text())
    assert Counter.closed == before + 1


def test_a_step_that_can_no_longer_be_taken_is_left_out() -> None:
    play("tests.life.test_script:Counter\nbegin(start=0)\nlook()\nadd(by=2)")


def test_one_call_makes_a_test_of_it_that_fails_while_the_fault_is_there(broken: Path, tmp_path: Path) -> None:
    path = keep(broken, folder=tmp_path)
    assert path.name == "test_a_job_more_than_tries.py"
    assert keep(broken, folder=tmp_path).name == "test_a_job_more_than_tries_2.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), str(path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "a job more than tries: 3 jobs in 2 tries" in ended.stdout
    assert ended.returncode == 1
