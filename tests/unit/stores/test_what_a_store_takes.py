"""What a value may be: the same as Airflow's own way from a task to its server lets through, and gives back."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable import host
from resumable.stores.base import json_text

texts = st.text(st.characters(codec=None), max_size=5) | st.sampled_from(["caf\udce9", "a\0b", "\u2028", "😀"])
numbers = st.integers(-(2**66), 2**66) | st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=True) | texts,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(texts, parts, max_size=3),
    max_leaves=8,
)


def through_airflow(value):
    """From the task to its supervisor, from there to the server, into a column of text, and read again."""
    import msgspec
    from airflow.sdk.api.datamodels._generated import TaskStateStorePutBody
    from airflow.sdk.execution_time.comms import SetTaskStateStore, _RequestFrame

    said = SetTaskStateStore(ti_id=uuid.uuid4(), key="k", value=value, expires_at=None)
    frame = _RequestFrame(id=1, body=said.model_dump()).as_bytes()
    heard = msgspec.msgpack.Decoder(_RequestFrame).decode(bytes(frame)[4:])
    asked = TaskStateStorePutBody(value=heard.body["value"], expires_at=None).model_dump_json()
    return json.loads(json.dumps(TaskStateStorePutBody.model_validate_json(asked).value))


@pytest.mark.skipif(not host.has_task_state(), reason="there is no task state store")
@given(values)
def test_what_is_taken_comes_back_from_airflow_as_it_was(value):
    value = {"value": value}
    try:
        text = json_text(value)
    except ValueError:
        return
    assert json.dumps(through_airflow(value)) == text


REFUSED = {
    "half a character": "caf\udce9",
    "in a name": {"\ud800": 1},
    "too large": [2**64],
    "too small": {"a": -(2**63) - 1},
    "not a number": float("nan"),
    "a key that is no text": {1: 2},
    "a tuple": (1, 2),
    "bytes": b"x",
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_what_no_store_or_not_every_one_takes_is_refused(value):
    with pytest.raises(ValueError):
        json_text(value)


def test_a_value_of_a_thousand_levels_is_refused():
    value = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError):
        json_text(value)
