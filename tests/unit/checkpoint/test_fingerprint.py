"""A fingerprint of what a checkpoint's work is done by sees edits."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resumable.checkpoint.setting import fingerprint

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def canonical(value):
    return json.dumps(value, sort_keys=True)


@UNHURRIED
@given(json_values, json_values)
def test_a_fingerprint_sees_every_edit_and_nothing_else(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (canonical(one) == canonical(other))


@UNHURRIED
@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=4))
def test_a_fingerprint_ignores_the_order_of_a_dict(spec):
    assert fingerprint(dict(reversed(spec.items()))) == fingerprint(spec)


@UNHURRIED
@given(st.lists(st.text(), min_size=2, unique=True))
def test_a_fingerprint_ignores_the_order_of_a_set_and_sees_that_of_a_list(items):
    assert fingerprint(set(items)) == fingerprint(set(reversed(items)))
    assert fingerprint(items) != fingerprint(items[::-1])


class Client:
    """Has no stable text: its repr is an address."""


class Other(Client):
    pass


def test_a_fingerprint_ignores_the_address_of_an_object_and_sees_its_type():
    first, second = Client(), Client()
    assert repr(first) != repr(second)
    assert fingerprint({"a": [first]}) == fingerprint({"a": [second]})
    assert fingerprint(Client()) != fingerprint(Other())
    assert fingerprint(lambda: 1) == fingerprint(lambda: 2)


def test_a_text_that_looks_like_an_address_counts_in_full():
    assert fingerprint("job at 0x1") != fingerprint("job at 0x2")
    assert fingerprint("object at x") != fingerprint("object at y")


class Size(Enum):
    S = "small"
    L = "large"


class Level(str, Enum):
    LOW = "low"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Size.S, Size.L),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 1, 1, tzinfo=timezone.utc)),
        (timedelta(1), timedelta(2)),
        (b"a", b"b"),
        (Path("a"), Path("b")),
        ("{{ ds }}", "{{ ts }}"),
        (True, 1),
        ("1", 1),
        (None, "None"),
    ],
    ids=str,
)
def test_a_fingerprint_sees_an_edit_of_other_values(one, other):
    assert fingerprint({"x": one}) != fingerprint({"x": other})
    assert fingerprint({"x": one}) == fingerprint({"x": one})


def test_an_enum_of_strings_and_a_tuple_count_as_what_they_render_to():
    assert fingerprint(Level.LOW) == fingerprint("low")
    assert fingerprint((1, 2)) == fingerprint([1, 2])


def test_a_fingerprint_is_the_same_in_every_release():
    assert fingerprint({"b": [1, 2.5, None], "a": "ü", "w": timedelta(minutes=1)}) == "dfbf630d2179dea1"
