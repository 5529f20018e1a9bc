"""
Goes on with fresh seeds: every generator of the tests, and beside them soaks and crash tests on a real Airflow.

    python3 dev.py night [--hours N] [--seed N] [--only TEXT] [--no-airflow] [--lock FILE]
    python3 dev.py night --keep FILE

The report is `.night/report.md` and `.night/report.json`, whole after each run; logs and older nights are in folders beside
them. A part that fails stops nothing. SIGTERM and Ctrl-C end it early, with the report, and leave no process. Exit code 1 if
anything failed.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.life.script import keep
from tests.night import keeper
from tests.night.parts import ROOT, Part, Run, generators, on_airflow
from tests.night.report import Ran, Report, read

SOON = 5.0
"""Seconds before the next run of a part that could not even be started."""


class Night:
    """
    Two lanes, each one run after the other: the generators, and what needs an Airflow.

    What a lane has to run is asked for anew each time around: a part that comes with an update of the tree is taken up.

    Args:
        lock: a file that is locked while an Airflow of ours runs.
    """

    def __init__(self, report: Report, seed: int, lock: Path | None) -> None:
        self.report, self._lock = report, lock
        self._seeds, self._numbers = random.Random(seed), itertools.count(1)
        self._mutex = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._busy = 0
        self.is_over = threading.Event()

    def lane(self, parts: Callable[[], list[Part]], *, alone: bool = False) -> threading.Thread:
        thread = threading.Thread(target=self._go_on, args=(parts, alone), daemon=True)
        thread.start()
        return thread

    @property
    def is_busy(self) -> bool:
        """A run has not been reported yet."""
        return self._busy > 0

    def end(self, why: str) -> None:
        with self._mutex:
            self.is_over.set()
            self.report.ended = why
            for process in self._running:
                process.terminate()

    def _go_on(self, parts: Callable[[], list[Part]], alone: bool) -> None:
        for part in itertools.chain.from_iterable(parts() for _ in itertools.count()):
            if self.is_over.is_set():
                return
            with self._alone(alone), self._counted():
                self._one(part)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._mutex:
            self._busy += 1
        try:
            yield
        finally:
            with self._mutex:
                self._busy -= 1

    @contextmanager
    def _alone(self, alone: bool) -> Iterator[None]:
        if not (alone and self._lock):
            yield
            return
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _one(self, part: Part) -> None:
        with self._mutex:
            seed, number = self._seeds.randrange(2**31), next(self._numbers)
        folder = self.report.folder / f"{number:04}"
        folder.mkdir()
        began, run = time.monotonic(), None
        try:
            run = part(seed, folder)
            if (code := self._kept(run, folder)) is None:
                return
            ran = read(run, code, time.monotonic() - began, folder)
        except Exception:
            trouble = traceback.format_exc()
            ran = Ran(run, run.part if run else "the night itself", seed, None, time.monotonic() - began, folder, trouble=trouble)
            self.is_over.wait(SOON)
        if not ran.failures:
            shutil.rmtree(folder / "soak", ignore_errors=True)
        shutil.rmtree(folder / "hypothesis", ignore_errors=True)
        with self._mutex:
            self.report.add(ran)
        say(f"{ran.part}, seed {seed}: {outcome(ran)}, {ran.seconds:.0f} s")

    def _kept(self, run: Run, folder: Path) -> int | None:
        command = [sys.executable, "-m", keeper.__name__, str(run.limit), sys.executable, *run.command]
        with (folder / "log").open("wb") as log:
            with self._mutex:
                if self.is_over.is_set():
                    return None
                options: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, **run.env}, "stdin": subprocess.DEVNULL}
                process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options)
                self._running.add(process)
            code = process.wait()
        with self._mutex:
            self._running.discard(process)
        return code


def outcome(ran: Ran) -> str:
    if ran.failures:
        return f"{len(ran.failures)} FAILED: {ran.failures[0][1]}"
    return "unfinished" if ran.is_unfinished else "well"


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py night", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=None, help="of the seeds; without it, fresh ones")
    parser.add_argument("--only", default="", metavar="TEXT", help="only parts with this in their name, as soak or watermark")
    parser.add_argument("--no-airflow", action="store_true", help="the generators only")
    parser.add_argument("--lock", type=Path, help="a file to lock (flock) while a real Airflow runs")
    parser.add_argument("--home", type=Path, default=ROOT / ".night", help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="only make a regression test of this script")
    given = parser.parse_args()
    if given.keep:
        print(keep(given.keep))
        return 0
    lanes: list[tuple[Callable[[], list[Part]], bool]] = [(partial(generators, given.only), False)]
    lanes += [] if given.no_airflow else [(partial(on_airflow, given.only), True)]
    lanes = [lane for lane in lanes if lane[0]()]
    if not lanes:
        parser.error(f"no part has {given.only!r} in its name")
    report = Report(given.home.resolve(), given.hours)
    seed = random.SystemRandom().randrange(2**31) if given.seed is None else given.seed
    night = Night(report, seed, given.lock)
    told = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: told.set())
    report.write()
    say(f"until {time.strftime('%H:%M', time.localtime(time.time() + given.hours * 3600))}, seed {seed}: {report.folder}")
    threads = [night.lane(parts, alone=alone) for parts, alone in lanes]
    told.wait(given.hours * 3600)
    night.end("told to end" if told.is_set() else "its time was over")
    for thread in threads:
        while thread.is_alive() and night.is_busy:
            thread.join(1.0)
    report.write()
    print((report.folder / "report.md").read_text())
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
