"""A record in which one field is not what it should be: an error in words, never a traceback of ours, and no field is a clear."""

from __future__ import annotations

import copy
import json

import pytest

from resumable import ResumableError, once
from resumable.identity import Generation
from tests.support.checkpointed import KEY, Task, WorkError
from tests.support.incremental import Deployment
from tests.support.names import AirflowFailException
from tests.support.watermarked import work

pytestmark = pytest.mark.usefixtures("no_waiting")

IN_WORDS = (ResumableError, AirflowFailException)

ODD = [None, "", [], {}, "x" * 50, -1, 10**18, 1e308, float("nan"), True, "\x1b[31m\n", [1], {"a": 1}, 0, 1, "1", "0-99", 1.5]

MISSING = object()


def places(value, path=()):
    """Of all that is in a JSON value."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))


def with_odd(value, path, odd):
    changed = copy.deepcopy(value)
    at = changed
    for step in path[:-1]:
        at = at[step]
    if odd is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = odd
    return changed


def each_odd(value):
    for path in places(value):
        if path:
            for odd in (*ODD, MISSING):
                yield path, odd, with_odd(value, path, odd)


def run(task, kind, stop=None):
    worked = []
    with task.checkpoint(every=1) as checkpoint:
        pages = checkpoint.pages(lambda at: (at, at + 1 if at < 9 else None), start=0)
        for item in checkpoint.items(range(10)) if kind == "items" else pages:
            if item == stop:
                raise WorkError
            worked.append(item)
    return worked


@pytest.mark.parametrize(("kind", "which"), [("items", "record"), ("items", "list"), ("pages", "record")])
def test_a_checkpoint_of_which_a_field_is_odd_is_worked_to_its_end_or_is_an_error_in_words(kind, which):
    task = Task()
    with pytest.raises(WorkError):
        run(task, kind, 4)
    before = task.data
    key = KEY if which == "record" else next(name for name in before if ".items." in name)
    for path, odd, value in each_odd(before[key]):
        if path[0] in ("cursor", "ranges"):  # what was done, as the work itself has it
            continue
        task = Task()
        task.data, task.try_number = {**copy.deepcopy(before), key: value}, 1
        try:
            assert set(run(task, kind)) >= set(range(4, 10)), (path, odd)
        except IN_WORDS:
            continue


def test_a_value_of_once_of_which_a_field_is_odd_is_neither_removed_nor_made_again_but_for_a_clear():
    task = Task()
    once("c", lambda: "v", cleanup=lambda value: None, context=task.context())
    before = task.data["resumable.once.c"]
    for path, odd, value in each_odd(before):
        task, removed = Task(), []
        task.data, task.try_number = {"resumable.once.c": value}, 1
        try:
            found = once("c", lambda: "new", cleanup=removed.append, context=task.context())
        except IN_WORDS:
            assert removed == [], (path, odd)
            continue
        is_clear = path[0] == "generation" and (isinstance(odd, int | float | str) or path[1:] == ("run_started",))
        assert is_clear or path[0] in ("value", "state") or (found, removed) == ("v", []), (path, odd)


@pytest.mark.parametrize("which", ["mark", "own"])
def test_a_watermark_of_which_a_field_is_odd_reads_from_no_later_or_is_an_error_in_words(which):
    airflow = Deployment()
    work(airflow, "r1", to=5, state="running" if which == "own" else "success")
    kept = airflow.asset, airflow.runs["r1"].data
    ((key, text),) = kept[0 if which == "mark" else 1].items()
    for path, odd, value in each_odd(json.loads(text)):
        airflow = Deployment()
        airflow.asset, run_ = dict(kept[0]), airflow.run("r1")
        run_.data, run_.state = dict(kept[1]), "success"
        (airflow.asset if which == "mark" else run_.data)[key] = json.dumps(value)
        try:
            since, _ = work(airflow, "r2" if which == "mark" else "r1", to=9)
        except IN_WORDS:
            continue
        assert since <= 5 or path[-1] in ("mark", "since", "until"), (path, odd)


DAMAGED = [
    {"run_started": []},
    {"run_started": {}},
    {"run_started": 1},
    {"clear_number": "1"},
    {"retries": [1]},
    {"region": 7},
    {"max_tries": None},
    {"max_tries": {}},
]


@pytest.mark.parametrize("damage", DAMAGED, ids=str)
def test_damage_of_a_generation_is_no_clear(damage):
    generation = Generation(3, 0, "2026-01-01T00:00:00+00:00")
    assert Generation.from_json(generation.to_json()) == generation
    with pytest.raises((TypeError, ValueError)):
        Generation.from_json({**generation.to_json(), **damage})
