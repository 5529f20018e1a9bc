"""
A history as a script: what a machine was made to do, one step a line, in words that a person can read and that run by themselves.

A machine is a `Told`, and its rules are `step`s. When something that must hold is broken, the shrunk history is added to the
error and written to a file; `keep` makes a test of that file (``python3 dev.py night --keep FILE``)::

    # a job more than tries: 3 jobs in 2 tries
    tests.property.test_state_machine:TaskLife
    begin(on_clear='restart', lag=0.0)
    start(steps=3)
    job_ends(which=0, verdict='FAILED')

How much is drawn is said by the environment, so that one set of generators serves the tests, the mutants and the night:

- ``LIFE_SEED``: a number. Without it each run draws the same; a test run is to say the same of the same code.
- ``LIFE_TIMES``: so many times the default number of cases.
- ``LIFE_SHRINK=0``: the first history that breaks something will do.
- ``LIFE_REPORT``: a file. Each generator adds a line of JSON, see `Report`.
- ``LIFE_SCRIPTS``: the folder of the files; by default one below that of temporary files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.life.invariants import Broken

ROOT = Path(__file__).resolve().parents[2]
REGRESSIONS = ROOT / "tests" / "regressions"
SHRINKING = 90
"""Seconds after which a script is short enough: hypothesis would take five minutes, which is a test's time-out."""
MOST = 130
"""Characters of a line of code."""


@dataclass
class Report:
    """
    What one run of one generator came to.

    Attributes:
        machine: its class, as ``module:Class``.
        seed: `LIFE_SEED`, None for the default draw.
        cases: histories that were played, the failing one included.
        seconds: of the clock.
        covered: how often each step was taken, and what the machine counted by `Told.cover`.
        broken: the name of the invariant, or of the error, that ended it; None if all held.
        script: the file of the (shrunk) history that broke it.
    """

    machine: str
    seed: int | None = None
    cases: int = 0
    seconds: float = 0.0
    covered: dict[str, int] = field(default_factory=dict)
    broken: str | None = None
    script: str | None = None

    def write(self) -> None:
        if path := os.environ.get("LIFE_REPORT"):
            with Path(path).open("a") as lines:
                lines.write(json.dumps(asdict(self)) + "\n")


class Told(RuleBasedStateMachine):
    """A machine whose history is a script. Its rules are `step`s; what is to be done at the end of each history is `end`."""

    salt = ""
    """What tells machines of one class apart, so that each draws its own."""
    cases = 0
    covered: Counter[str] = Counter()
    first_broken: tuple[int, str] | None = None
    """After how many cases, and what."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[str, dict[str, Any]]] = []
        self.seldom_of_late: set[str] = set()
        type(self).cases += 1

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, act in list(vars(cls).items()):
            for n, again in enumerate(getattr(act, "again", ())):
                setattr(cls, f"{name}_again_{n}", again)

    def end(self) -> None:
        """Bring the history to an end; what must hold in the end is checked here."""

    def clean_up(self) -> None:
        """Called after `end`, whatever came of it."""

    def cover(self, what: str) -> None:
        """Count that something was drawn, for a report of what was covered."""
        type(self).covered[what] += 1

    def met(self, what: str) -> None:
        """Count that something drawn has had an effect: the code under test has met it. See `run`."""
        self.cover(f"met: {what}")

    def teardown(self) -> None:
        try:
            self.tell(self.end)
        finally:
            self.clean_up()

    def tell(self, act: Callable[[], Any]) -> Any:
        """Call ``act``; what it raises is told with the history that led there."""
        try:
            return act()
        except Exception as e:
            if not getattr(e, "is_told", False):
                e.is_told = True  # type: ignore[attr-defined]
                self._tell(e)
            raise

    def _tell(self, error: Exception) -> None:
        broken = error.invariant.name if isinstance(error, Broken) else type(error).__name__
        cls = type(self)
        cls.first_broken = cls.first_broken or (cls.cases, broken)
        text = written(cls, self.history, f"{error}")
        folder = Path(os.environ.get("LIFE_SCRIPTS") or Path(tempfile.gettempdir()) / "resumable-scripts")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{cls.__name__}-{_slug(broken)}.script"
        path.write_text(text)
        cls.script = str(path)
        if hasattr(error, "add_note"):
            error.add_note(f"\n{text}\nA test of it: python3 dev.py night --keep {path}")

    script: str | None = None


def step(
    when: Callable[[Any], Any] | None = None, *, first: bool = False, often: int = 1, seldom: bool = False, **arguments: Any
) -> Callable[[Any], Any]:
    """
    A rule of a `Told`.

    Hypothesis draws each rule as often as any other, and leaves many of them out of a history. A history in which the task is
    started once is one that finds little: so what everything else is for is ``often``, and what only prepares it is ``seldom``.

    Args:
        when: given the machine, whether the step can be taken now.
        first: it is the first step of each history.
        often: it is drawn as often as so many others.
        seldom: it is not drawn again before one that is not seldom was.
        arguments: a strategy each; the values must be literals (numbers, strings, None, lists, tuples, dicts of such).
    """

    def make(act: Callable[..., Any]) -> Any:
        def drawn_when(self: Told) -> Any:
            return not (seldom and act.__name__ in self.seldom_of_late) and (when is None or when(self))

        def rule_named(name: str) -> Any:
            @functools.wraps(act)
            def told(self: Told, **given: Any) -> Any:
                self.history.append((act.__name__, given))
                type(self).covered[act.__name__] += 1
                if seldom:
                    self.seldom_of_late.add(act.__name__)
                else:
                    self.seldom_of_late.clear()
                return self.tell(lambda: act(self, **given))

            told.__name__ = name  # by it Hypothesis knows which rules it has left out
            told.can_be_taken = when  # type: ignore[attr-defined]
            ruled = (initialize if first else rule)(**arguments)(told)
            return ruled if first else precondition(drawn_when)(ruled)

        ruled = rule_named(act.__name__)
        ruled.again = [rule_named(f"{act.__name__}_again_{n}") for n in range(often - 1)]
        return ruled

    return make


# -- a script as text


def written(machine: type[Any], history: list[tuple[str, dict[str, Any]]], why: str = "") -> str:
    """The script of a history."""
    lines = [f"# {line[:300]}" for line in why.strip().splitlines()[:3]]
    lines.append(f"{machine.__module__}:{machine.__qualname__}")
    lines += [f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in history]
    return "\n".join(lines) + "\n"


def read(text: str) -> tuple[type[Any], list[tuple[str, dict[str, Any]]]]:
    """The machine and the steps of a script."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    module, _, name = lines[0].partition(":")
    return getattr(import_module(module), name), [_call(line) for line in lines[1:]]


def _call(line: str) -> tuple[str, dict[str, Any]]:
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call), f"no step: {line}"
    assert isinstance(call.func, ast.Name), f"no step: {line}"
    return call.func.id, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}


def play(text: str) -> None:
    """
    Play a script. A step that can no longer be taken, because the code took another way by then, is left out.

    Raises: what the machine raises, `Broken` for what must hold.
    """
    made, steps = read(text)
    machine = made()
    try:
        for name, given in steps:
            act = getattr(machine, name)
            when = getattr(inspect.unwrap(act, stop=lambda f: hasattr(f, "can_be_taken")), "can_be_taken", None)
            if when is None or when(machine):
                act(**given)
    except BaseException:
        machine.clean_up()
        raise
    machine.teardown()


def shortened(text: str, *, seconds: float = 60.0) -> str:
    """
    A script without the steps that the fault does not need: what only ends badly is not shrunk by Hypothesis, which plays on.

    Args:
        text: a script that breaks something.
        seconds: for the search.
    """
    comments = [line for line in text.splitlines() if line.startswith("#")]
    head, *steps = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    until = time.monotonic() + seconds
    what, size = _played([head, *steps]), max(1, len(steps) // 2)
    while what is not None and size and time.monotonic() < until:
        shorter = [steps[:n] + steps[n + size :] for n in range(1, len(steps), size)]
        found = next((one for one in shorter if time.monotonic() < until and _played([head, *one]) == what), None)
        steps, size = (steps, size // 2) if found is None else (found, min(size, max(1, len(found) // 2)))
    return "\n".join([*comments, head, *steps]) + "\n"


def _played(lines: list[str]) -> str | None:
    """What a script breaks, None if it breaks nothing."""
    machine = read("\n".join(lines))[0]
    before = machine.script, machine.first_broken, machine.cases, machine.covered, os.environ.get("LIFE_SCRIPTS")
    try:
        with tempfile.TemporaryDirectory() as elsewhere:
            os.environ["LIFE_SCRIPTS"] = elsewhere
            machine.covered = Counter()
            play("\n".join(lines))
    except Exception as e:
        return e.invariant.name if isinstance(e, Broken) else type(e).__name__
    finally:
        machine.script, machine.first_broken, machine.cases, machine.covered, folder = before
        os.environ.pop("LIFE_SCRIPTS", None) if folder is None else os.environ.update(LIFE_SCRIPTS=folder)
    return None


def keep(file: str | Path, name: str | None = None, folder: Path = REGRESSIONS) -> Path:
    """
    Make a test of a script's file.

    Args:
        file: the script.
        name: of the test; by default what is broken.
        folder: where to.
    """
    text = Path(file).read_text()
    read(text)
    why = " ".join(line[1:].strip() for line in text.splitlines() if line.startswith("#")) or "Something was broken"
    script = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    wanted = _slug(name or why.partition(":")[0])
    taken = {path.stem for path in folder.glob("test_*.py")}
    names = (wanted if n == 1 else f"{wanted}_{n}" for n in range(1, 1000))
    stem = next(name for name in names if f"test_{name}" not in taken)
    path = folder / f"test_{stem}.py"
    folder.mkdir(parents=True, exist_ok=True)
    text = _TEST.format(why=_wrapped(why), script=script.strip(), name=stem)
    if any(len(line) > MOST for line in text.splitlines()):
        text = f"# ruff: noqa: E501 - a step is a line\n{text}"
    path.write_text(text)
    return path


_TEST = '''\
"""
{why}

Found by a generator, and shrunk by it.
"""

from __future__ import annotations

from tests.life.script import play

SCRIPT = r"""
{script}
"""


def test_{name}() -> None:
    play(SCRIPT)
'''


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")[:70]


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text.replace('"""', "'''").replace("\\", "/"), 120))


# -- a test of a machine


def budget(examples: int, steps: int) -> settings:
    """How much is drawn, see this module's environment."""
    return settings(
        max_examples=max(1, int(examples * float(os.environ.get("LIFE_TIMES", "1")))),
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate] if os.environ.get("LIFE_SHRINK") == "0" else [Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


TURNS = 6
"""How often a machine is run, at most, until the code under test has met all that it is to meet."""


def as_test(machine: type[Told], *, examples: int, steps: int = 30, meets: Collection[str] = ()) -> Callable[[], None]:
    """
    A test that draws histories of ``machine``.

    Args:
        machine: a class; what it counts is its own.
        examples: histories, by default.
        steps: of each, at most.
        meets: as `run` has it.
    """

    def test() -> None:
        run(machine, examples=examples, steps=steps, meets=meets)

    return test


def run(machine: type[Told], *, examples: int, steps: int = 30, meets: Collection[str] = ()) -> None:
    """
    Draw histories of ``machine`` until one breaks something, or the budget is used up; a line for the report.

    Args:
        machine: a class.
        examples: histories, by default.
        steps: of each, at most.
        meets: what the code under test is to have met by then, as `Told.met` counts it. What is drawn and has no effect says
            nothing, however often it is drawn. With the default draw only: another one, or a short one, may miss some. Where
            something was not met there are more histories, `TURNS` times as many at most: what is rare is not in vain.
    """
    machine.cases, machine.covered, machine.first_broken, machine.script = 0, Counter(), None, None
    chosen = os.environ.get("LIFE_SEED")
    named = f"{chosen or 0} {machine.__module__}:{machine.__qualname__} {machine.salt}"
    is_default = chosen is None and float(os.environ.get("LIFE_TIMES", "1")) >= 1
    began = time.monotonic()
    try:
        for turn in range(TURNS):
            text = f"{named} turn {turn}" if turn else named
            seed(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))(machine)
            with mock.patch("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING):
                run_state_machine_as_test(machine, settings=budget(examples, steps))
            never = sorted(what for what in meets if not machine.covered[f"met: {what}"])
            if not never or not is_default:
                break
    except Exception as e:
        if machine.script and os.environ.get("LIFE_SHRINK") != "0":
            path = Path(machine.script)
            path.write_text(shortened(path.read_text()))
            if hasattr(e, "add_note"):
                e.add_note(f"\nShortened:\n{path.read_text()}")
        raise
    else:
        if is_default:
            assert not never, f"{machine.__name__} {machine.salt}: drawn in vain, the code under test has never met {never}"
    finally:
        cases, broken = machine.first_broken or (machine.cases, None)
        Report(
            f"{machine.__module__}:{machine.__qualname__}",
            None if chosen is None else int(chosen),
            cases,
            round(time.monotonic() - began, 1),
            dict(machine.covered),
            broken,
            machine.script,
        ).write()
