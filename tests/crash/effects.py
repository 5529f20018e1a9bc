"""Notes every effect of every item in a file, which outlives whoever is killed."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.names import get_current_context


def effect(what: str) -> None:
    """One line of one write: it is there as a whole or not at all."""
    context = get_current_context()
    line = f"{context['ti'].dag_id} {context['ti'].run_id} {what}\n"
    with (Path(os.environ["TEST_TARGET"]) / "effects").open("a", buffering=1) as file:
        file.write(line)


def remove_anywhere(cluster: str) -> None:
    """A clean-up that the sweep can call too, where there is no context."""
    with (Path(os.environ["TEST_TARGET"]) / "removed").open("a") as file:
        file.write(f"{cluster}\n")
