"""Specs of a job, by name: as of a DAG file that has this one word in it."""

from __future__ import annotations

from resumable.jobs.spec import Spec


def written(word: str) -> Spec:
    """Return the spec of a task whose author wrote ``word``. Of another word it is an edit."""
    return Spec.of({"job": word}, f"job = {word!r}")
