"""What we rely upon beyond documented interfaces is there, and a check sees when it is not."""

from __future__ import annotations

import pytest

from resumable import host
from tests.canary.names import SDK, Name, _has, _says, _takes, wanted

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="older Airflows do not change any more")


@pytest.mark.parametrize("name", wanted() if host.has_task_state() else [], ids=lambda name: f"{name.path} {name.breaks}")
def test_it_is_there(name: Name) -> None:
    assert name.problem() is None, f"what breaks: {name.breaks}"


@pytest.mark.parametrize(
    "name",
    [
        Name("airflow.sdk.no_such_module", ""),
        Name(f"{SDK}.comms:NoSuchThing", ""),
        Name(f"{SDK}.comms:GetTaskStates", "", _has("no_such_field")),
        Name(f"{SDK}.task_runner:RuntimeTaskInstance.get_task_states", "", _takes("no_such_parameter")),
        Name(f"{SDK}.task_runner", "", _says("no such words in this module")),
    ],
    ids=lambda name: name.path,
)
def test_what_is_gone_is_seen(name: Name) -> None:
    assert name.problem()
