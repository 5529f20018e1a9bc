"""
Run the crash points and the transport faults of every operator, and write the table of docs/operators.md.

    python -m tests.contract.matrix [NAME ...]    all of them, some minutes; with names only those cases, and the table to stdout
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable.jobs.decision import Recovery

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operators.md"
BEGIN, END = "<!-- the matrix begins -->", "<!-- the matrix ends -->"

_COLUMNS = (
    "operator",
    "recovery",
    "how doubt is cleared up",
    "the window that is left",
    "deaths / second jobs",
    "provider's",
    "lost answers: second jobs",
    "provider's",
)
HEAD = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"

FAULTS = ("503 after the service accepted", "dropped answer", "time-out")


def operators() -> list[type[Any]]:
    from tests.contract.cases import CASES

    return list(dict.fromkeys(case.ours for case in CASES))


def claims(operator: type[Any]) -> list[str]:
    """What the class says of itself: name, recovery, how doubt is cleared up, the window."""
    service = operator._resumable.service
    if service.recovery is Recovery.LOOK_UP:
        word = "look up"
    elif getattr(service, "conflicts", None) and service.token_lifetime is None:
        word = "repeat by name"
    else:
        word = "repeat by token"
    return [f"`{operator.__name__}`", word, service.doubt, service.window]


def lost_answer(case: Any, environ: pytest.MonkeyPatch, fault: str, make: Any) -> int:
    """The jobs at the service after one fault of the submit, with the retry that Airflow would start if the task failed."""
    import botocore.exceptions
    import requests.exceptions

    from tests.contract.cases import DROP_ANSWER, SERVER_ERROR_AFTER_EFFECT

    with case.bench(environ) as bench:
        bench.at_once()
        left = [fault]

        def listen(effect: str) -> None:
            if fault == FAULTS[2] and effect.endswith(bench.submit) and left:
                left.clear()
                if "/" in effect:
                    raise requests.exceptions.ReadTimeout("injected")
                raise botocore.exceptions.ReadTimeoutError(endpoint_url="injected")

        if fault != FAULTS[2]:
            bench.server.fault(bench.submit, SERVER_ERROR_AFTER_EFFECT if fault == FAULTS[0] else DROP_ANSWER)
        instance = make(case, bench)
        try:
            instance.attempt(listener=listen)
        except Exception:
            with contextlib.suppress(Exception):
                instance.attempt()
        return bench.jobs()


def figures(case: Any, environ: pytest.MonkeyPatch) -> list[int]:
    """Points, second jobs of ours and of the provider's; faults' second jobs of ours and of the provider's."""
    from tests.contract.crash_points import deaths, of_ours, of_theirs, undisturbed

    ours = list(deaths(case, environ, undisturbed(case, environ)[1]))
    theirs = 0
    effects = undisturbed(case, environ, of_theirs)[1]
    points = deaths(case, environ, effects, of_theirs)
    with contextlib.suppress(Exception):  # a provider's retry may fail, because its first job is in the way
        for point in points:
            theirs += point.jobs > 1
    lost = [sum(lost_answer(case, environ, fault, make) > 1 for fault in FAULTS) for make in (of_ours, of_theirs)]
    return [len(ours), sum(point.jobs != 1 for point in ours), theirs, *lost]


def table(names: list[str], say: Callable[[str], None]) -> str:
    from tests.contract.cases import CASES

    rows: dict[type[Any], list[int]] = {}
    environ = pytest.MonkeyPatch()
    for case in CASES:
        if names and case.name not in names:
            continue
        began = time.monotonic()
        found = figures(case, environ)
        environ.undo()
        say(f"{case}: {found} in {time.monotonic() - began:.0f} s")
        rows[case.ours] = [a + b for a, b in zip(rows.get(case.ours, [0] * 5), found, strict=True)]
    lines = [HEAD]
    for operator, (points, second, theirs, lost, theirs_lost) in rows.items():
        cells = [*claims(operator), f"{points} / {second}", str(theirs), str(lost), str(theirs_lost)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(*names: str) -> None:
    import tests.conftest  # noqa: F401 - a home for Airflow
    from tests.support.clients import reading_once

    logging.disable(logging.CRITICAL)
    sleep, async_sleep = time.sleep, asyncio.sleep
    time.sleep = lambda seconds: sleep(min(seconds, 0.005))  # type: ignore[assignment]
    asyncio.sleep = lambda seconds, *a: async_sleep(min(seconds, 0.005), *a)  # type: ignore[assignment]
    with reading_once():
        text = table(list(names), lambda line: print(line, file=sys.stderr, flush=True))
    if names:
        print(text)
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
