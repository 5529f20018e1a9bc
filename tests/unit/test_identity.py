"""A retry can compute its token again; a generation tells a retry from a clear."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from resumable.identity import Generation, Relation, TaskIdentity

TASK = TaskIdentity("etl", "scheduled__2026-01-01T00:00:00+00:00", "train", 3, "prod")
STARTED = "2026-01-01T00:00:07.250000+00:00"
RESTARTED = "2026-01-02T09:00:00+00:00"
GENERATION = Generation(2, 1, STARTED)

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

identities = st.builds(TaskIdentity, st.text(), st.text(), st.text(), st.integers(min_value=-1, max_value=2**31), st.text())
generations = st.builds(
    Generation,
    st.integers(0, 100),
    st.none() | st.integers(0, 100),
    st.none() | st.sampled_from([STARTED, RESTARTED]),
)

# -- token ---------------------------------------------------------------------------------------------------


def test_a_token_is_the_same_in_every_release():
    assert TASK.token(GENERATION, 0) == "a002e5d862178dd917dc91bb71af6c42ce96215761ab8669"
    assert TaskIdentity("d", "r", "t").token(Generation(0), 5) == "8d5ee470e2d850f1bd26cdb2c62c357fd25cef047939ded7"


def test_a_token_is_the_same_in_another_process():
    code = (
        "from resumable.identity import *; "
        f"print(TaskIdentity(*{TASK.dag_id, TASK.run_id, TASK.task_id, 3, 'prod'!r})"
        f".token(Generation(2, 1, {STARTED!r}), 0))"
    )
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert printed.stdout.strip() == TASK.token(GENERATION, 0)


@UNHURRIED
@given(identities, generations, st.integers(0, 1000))
def test_a_token_is_48_lower_case_hex_characters_and_computable_again(task, generation, submission):
    token = task.token(generation, submission)
    assert re.fullmatch("[0-9a-f]{48}", token)
    assert replace(task).token(Generation.from_json(json.loads(json.dumps(generation.to_json()))), submission) == token


@UNHURRIED
@given(
    st.tuples(identities, generations, st.integers(0, 50)),
    st.tuples(identities, generations, st.integers(0, 50)),
)
def test_different_submissions_have_different_tokens(one, other):
    assume(one != other)
    assert one[0].token(one[1], one[2]) != other[0].token(other[1], other[2])


@pytest.mark.parametrize(
    "other",
    [
        {"namespace": "test"},
        {"dag_id": "elt"},
        {"run_id": "scheduled__2026-01-02T00:00:00+00:00"},
        {"task_id": "trai"},
        {"map_index": 4},
        {"map_index": -1},
        {"dag_id": "etltrain", "task_id": ""},
    ],
    ids=str,
)
def test_a_token_differs_by_each_component_of_the_task(other):
    assert replace(TASK, **other).token(GENERATION, 0) != TASK.token(GENERATION, 0)


@pytest.mark.parametrize(
    "other",
    [Generation(3, 1, STARTED), Generation(2, 2, STARTED), Generation(2, 1, RESTARTED), Generation(2)],
    ids=str,
)
def test_a_token_differs_by_each_component_of_the_generation(other):
    assert TASK.token(other, 0) != TASK.token(GENERATION, 0)


def test_a_token_differs_by_submission_and_components_do_not_run_into_each_other():
    assert TASK.token(GENERATION, 1) != TASK.token(GENERATION, 0)
    assert TaskIdentity("a", "b", "c", 1).token(Generation(1), 11) != TaskIdentity("a", "b", "c", 11).token(Generation(1), 1)
    assert TaskIdentity("a b", "c", "d").token(GENERATION, 0) != TaskIdentity("a", "b c", "d").token(GENERATION, 0)


def test_no_token_can_depend_on_the_try():
    assert not [name for name in (*TaskIdentity.__slots__, *Generation.__slots__) if "try" in name]


def test_a_task_names_itself_with_its_index_only_when_mapped():
    assert str(TASK) == "etl.train[3] scheduled__2026-01-01T00:00:00+00:00"
    assert str(replace(TASK, map_index=0)).startswith("etl.train[0] ")
    assert str(replace(TASK, map_index=-1)).startswith("etl.train ")


# -- generation ----------------------------------------------------------------------------------------------

# (max_tries, clear_number) before and after, and whether the run was finished and so got a new start_date.
# Seen on 3.3.2; the try number is not part of it.
SEEN = [
    ("natural retry", (1, 0), (1, 0), False, Relation.SAME),
    ("heartbeat timeout", (2, 0), (2, 0), False, Relation.SAME),
    ("reschedule or resume after deferral", (1, 0), (1, 0), False, Relation.SAME),
    ("edit of retries 1->3 while running", (1, 0), (1, 0), False, Relation.SAME),
    ("clear after success at try 2", (1, 0), (3, 1), False, Relation.CLEARED),
    ("clear after success at try 2, run finished", (1, 0), (3, 1), True, Relation.CLEARED),
    ("two clears before a re-run", (3, 1), (4, 3), False, Relation.CLEARED),
    ("fail, fail, clear", (1, 0), (3, 1), False, Relation.CLEARED),
    ("edit of retries 1->3, then clear", (1, 0), (4, 1), False, Relation.CLEARED),
    ("clear with reset_dag_runs=false", (1, 0), (2, 0), False, Relation.CLEARED),
    ("clear of the whole run", (1, 0), (3, 1), True, Relation.CLEARED),
    ("clear while running, executor reports success", (2, 0), (3, 1), False, Relation.CLEARED),
    ("the same with retries=0", (0, 0), (1, 1), False, Relation.CLEARED),
    ("clear while deferred", (1, 0), (2, 1), False, Relation.CLEARED),
    ("edit of retries 1->0, clear after success, run finished", (1, 0), (1, 1), True, Relation.CLEARED),
    ("run deleted and made anew", (1, 0), (1, 0), True, Relation.CLEARED),
    # clear_number moved alone: a sibling's clear and three of one's own look the same
    ("clear of a sibling", (1, 0), (1, 1), False, Relation.SAME),
    ("clear of a task that never ran", (1, 0), (1, 1), False, Relation.SAME),
    ("clear while running, executor reports failed", (2, 0), (2, 1), False, Relation.SAME),
    ("the same with retries=0 ", (0, 0), (0, 1), False, Relation.SAME),
    ("edit of retries 1->0, clear after success, run still running", (1, 0), (1, 1), False, Relation.SAME),
]


@pytest.mark.parametrize(("before", "after", "restarted", "relation"), [s[1:] for s in SEEN], ids=[s[0] for s in SEEN])
def test_what_airflow_3_3_shows_tells_a_retry_from_a_clear(before, after, restarted, relation):
    earlier = Generation(*before, STARTED)
    now = Generation(*after, RESTARTED if restarted else STARTED)
    assert now.relation_to(earlier) is relation


@UNHURRIED
@given(generations, generations)
def test_the_relation_is_the_same_both_ways_and_an_attempt_is_of_its_own_generation(one, other):
    assert one.relation_to(other) is other.relation_to(one)
    assert one.relation_to(one) is Relation.SAME
