"""What `python3 dev.py peers` lets pass, without running it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resumable.identity import Generation, TaskIdentity
from tests.peers.classify import CATEGORIES
from tests.peers.stamp import only_stamped, tokens_noted
from tests.peers.swap import ours_of_theirs, swapped

ALLOWED = json.loads((Path(__file__).parent / "allowed.json").read_text())


@pytest.fixture
def token():
    with tokens_noted():
        yield TaskIdentity("dag", "run", "task").token(Generation(0), 1)


def test_a_request_may_have_the_token_as_an_entry_more_or_in_a_text(token):
    own = {"Name": "nightly", "Tags": [{"Key": "team"}], "Depth": {"n": 1}}
    assert only_stamped(own, {**own, "ClientToken": token})
    assert only_stamped(own, {**own, "Name": f"nightly-{token[:24]}"})
    assert only_stamped(own, {**own, "Tags": [{"Key": "team"}, {"Key": "resumable-token", "Value": token}]})
    assert only_stamped(own, {**own, "Depth": {"n": 1, "token": token}})


@pytest.mark.parametrize("changed", [{"Name": "nightly-2"}, {"More": 1}, {"Depth": {"n": 2}}, {"Tags": []}, {"Tags": [1, 2]}])
def test_any_other_change_of_a_request_is_more_than_a_stamp(token, changed):
    own = {"Name": "nightly", "Tags": [{"Key": "team"}], "Depth": {"n": 1}}
    assert not only_stamped(own, {**own, "ClientToken": token, **changed})


def test_a_request_that_lacks_something_is_more_than_stamped(token):
    assert not only_stamped({"Name": "nightly", "Depth": 1}, {"Name": "nightly", "ClientToken": token})


def test_every_class_of_the_documents_is_put_for_the_provider_s():
    ours = ours_of_theirs()
    assert len(ours) == 42  # 40 operators, the workflow group and its launch task
    assert all(issubclass(ours[theirs], theirs) for theirs in ours)
    some = next(iter(ours))
    assert swapped([(some, {"k": some}), 1], ours) == [(ours[some], {"k": ours[some]}), 1]


def test_what_may_fail_has_one_of_four_reasons_each_test_once():
    assert len(CATEGORIES) == 4
    for mode in ("durable=False", "durable=True"):
        assert ALLOWED[mode].keys() == CATEGORIES.keys()
        tests = [test for of_category in ALLOWED[mode].values() for test in of_category]
        assert len(tests) == len(set(tests))


def test_a_reason_that_was_found_by_hand_is_of_a_test_that_fails():
    failing = {test for mode in ("durable=False", "durable=True") for tests in ALLOWED[mode].values() for test in tests}
    for test, found in ALLOWED["by hand"].items():
        assert test in failing
        assert found["category"] in CATEGORIES
        assert found["why"]
