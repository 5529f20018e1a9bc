"""A night survives whatever its parts do, tells it, and leaves no process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.night import __main__ as command
from tests.night import keeper, parts
from tests.night.__main__ import Night
from tests.night.parts import Part, Run, generators
from tests.night.report import Report
from tests.night.watch import counted

RANDOM_TEST = """
from hypothesis import event, given, settings, strategies as st

@settings(max_examples=20, database=None)
@given(st.integers(0, 5))
def test_drawn(number):
    event("large" if number > 2 else "small")
    assert number < {below}, "too large"

def test_not_drawn():
    raise AssertionError("not a random test")
"""
DETACHED = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, flush=True); "


def part(name: str, *arguments: str, limit: float = 60.0, **env: str) -> Part:
    return lambda seed, folder: Run(name, seed, list(arguments), f"again {seed}", {"FOLDER": str(folder), **env}, limit)


def broken(seed: int, folder: Path) -> Run:
    raise LookupError("nothing was collected")


def wait_for(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def a_night(folder: Path, *every: Part, runs: int | None = None) -> Report:
    report = Report(folder, 1.0)
    night = Night(report, 1, None)
    thread = night.lane(lambda: list(every))
    wait_for(lambda: len(report.ran) >= (runs or len(every)))
    night.end("enough")
    thread.join(60)
    return report


def test_a_part_that_fails_or_cannot_start_or_does_not_end_stops_no_other(tmp_path: Path) -> None:
    report = a_night(
        tmp_path,
        broken,
        part("dies", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
        part("hangs", "-c", "import time; time.sleep(300)", limit=0.5),
        part("well", "-c", "print('fine')"),
    )
    lines = {one.part: [line for _, line, _ in one.failures] for one in report.ran[:4]}
    assert lines == {
        "the night itself": ["LookupError: nothing was collected"],
        "dies": ["ended with code 247"],
        "hangs": ["did not end in time"],
        "well": [],
    }
    written = (tmp_path / "report.md").read_text()
    assert all(text in written for text in ("did not end in time", "again ", "nothing was collected", "| **all** | "))
    assert [one["failures"] for one in json.loads((tmp_path / "report.json").read_text())["runs"][:2]][1]


def test_what_a_generator_drew_and_what_failed_is_told_with_the_seed_that_repeats_it(tmp_path: Path) -> None:
    file = tmp_path / "test_drawn.py"
    file.write_text(RANDOM_TEST.format(below=5))

    def drawn(seed: int, folder: Path) -> Run:
        env = {"NIGHT_NOTES": str(folder / "notes.jsonl"), "NIGHT_RANDOM_ONLY": "1"}
        arguments = [*parts.PYTEST, "-p", "no:cacheprovider", "-c", "/dev/null", f"--hypothesis-seed={seed}", str(file)]
        return Run(str(file), seed, arguments, f"--hypothesis-seed={seed} {file}", env)

    report = a_night(tmp_path / "home", drawn, runs=1)
    ran = report.ran[0]
    assert [note["test"].rpartition("::")[2] for note in ran.notes] == ["test_drawn"]
    assert ran.notes[0]["cases"] > 0
    assert "small" in ran.notes[0]["events"]
    assert [line for _, line, _ in ran.failures] == ["AssertionError: too large"]
    assert f"--hypothesis-seed={ran.seed} " in (tmp_path / "home" / "report.md").read_text()


def test_a_signal_ends_the_night_with_its_report_and_without_a_process(tmp_path: Path) -> None:
    program = f"""
import sys
from tests.night import __main__ as command
from tests.night.parts import Run
command.generators = lambda only: [lambda seed, folder: Run('p', seed, ['-c', {DETACHED + "time.sleep(300)"!r}], 'again')]
sys.argv[1:] = ['--no-airflow', '--home', {str(tmp_path)!r}]
sys.exit(command.main())
"""
    night = subprocess.Popen([sys.executable, "-c", program], cwd=parts.ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: [log for log in tmp_path.glob("*/0001/log") if log.read_text().endswith("\n")])
    family = psutil.Process(night.pid).children(recursive=True)
    left = psutil.Process(int(next(tmp_path.glob("*/0001/log")).read_text()))
    night.send_signal(signal.SIGTERM)
    assert night.wait(60) == 0
    psutil.wait_procs([left, *family], 10)
    assert not [one for one in [left, *family] if one.is_running()]
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["ended"] == "told to end"
    assert [run["code"] for run in told["runs"]] == [keeper.TOLD]


def test_what_a_run_started_elsewhere_ends_with_it_also_when_the_night_is_killed(tmp_path: Path) -> None:
    kept = [sys.executable, "-m", keeper.__name__, "300", sys.executable, "-c", DETACHED + "time.sleep(300)"]
    starts = f"import subprocess, time; subprocess.Popen({kept!r}); time.sleep(300)"
    starter = subprocess.Popen([sys.executable, "-c", starts], cwd=parts.ROOT, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    left = psutil.Process(int(starter.stdout.readline()))
    starter.kill()
    starter.wait()
    psutil.wait_procs([left], 60)
    assert not left.is_running()


def test_every_file_that_draws_its_cases_is_a_part_of_a_night() -> None:
    found = {one(1, Path("f")).part for one in generators()}
    assert {"tests/property/test_state_machine.py", "tests/property/test_checkpoint_machine.py"} <= found
    assert not [path for path in found if not (parts.ROOT / path).exists()]
    assert next(one(7, Path("f")).again("tests/x") for one in generators("test_state_machine.py")).startswith("LIFE_SEED=7 ")


def test_crash_tests_are_drawn_by_the_seed_from_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    every = {"a.py": [f"a.py::t{n}" for n in range(9)], "b.py": ["b.py::t"]}
    monkeypatch.setattr(parts, "_collected", lambda: every)
    drawn = [parts.crash_tests(seed, Path("f")) for seed in range(20)]
    assert {run.part for run in drawn} == {"crash"}
    assert [run.command for run in drawn] == [parts.crash_tests(seed, Path("f")).command for seed in range(20)]
    assert len({run.repeat for run in drawn}) > 5


def test_statistics_of_hypothesis_are_counted_whatever_its_version_calls_them() -> None:
    said = "  - during generate phase (1 s):\n    - {}\n    - Events:\n      * 50.00%, late fail\n      * 9.00%, Retried draw x\n"
    for word in ("", " examples"):
        line = f"7 passing{word}, 1 failing{word}, and 2 invalid{word}"
        assert counted(said.format(line)) == {"cases": 10, "events": {"late fail": 5}}
    assert counted("") == {}


def test_the_command_says_which_parts_it_does_not_have(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["night", "--only", "no such part", "--home", "/nonexistent"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no part has 'no such part' in its name" in capsys.readouterr().err
