"""Triggers as an earlier release has serialised them: in a rolling deploy a triggerer of this one has to run them."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from pathlib import Path

import pytest

from resumable import host
from resumable.stop.triggers import StopGuard

EARLIER = json.loads((Path(__file__).parent / "triggers" / "0.1.0.json").read_text())


def made(name):
    path, kwargs = EARLIER[name]["path"], EARLIER[name]["kwargs"]
    module, _, cls = path.rpartition(".")
    trigger = getattr(import_module(module), cls)(**kwargs)
    trigger.task_instance = None
    return trigger


@pytest.mark.parametrize("name", EARLIER)
def test_a_trigger_of_an_earlier_release_is_made_and_serialised_under_its_path(name):
    path, kwargs = made(name).serialize()
    assert path == EARLIER[name]["path"]
    assert set(kwargs) == set(EARLIER[name]["kwargs"])
    assert {**kwargs, "keeps_on_clear": False} == EARLIER[name]["kwargs"]


@pytest.mark.parametrize("name", EARLIER)
def test_its_triggers_of_the_provider_are_there(name):
    kwargs = EARLIER[name]["kwargs"]
    if "path" in kwargs:
        module, _, cls = kwargs["path"].rpartition(".")
        getattr(import_module(module), cls)(**kwargs["kwargs"])


@pytest.mark.parametrize("name", EARLIER)
@pytest.mark.parametrize(("state", "cancels"), [("deferred", 0), ("queued", 0), (None, 0), ("failed", 1), ("success", 1)])
def test_a_trigger_of_an_earlier_release_cancels_for_a_users_mark_alone(name, state, cancels, monkeypatch):
    async def state_seen(ti):
        return state

    calls = []

    async def cancel(self):
        calls.append(1)

    trigger = made(name)
    monkeypatch.setattr(host, "state_seen_by_trigger", state_seen)
    monkeypatch.setattr(type(trigger), "cancel", cancel)
    asyncio.run(trigger.on_kill())
    assert len(calls) == cancels
    assert isinstance(trigger, StopGuard)
