"""Every wait ends in whichever way the job has ended: by each word that the service has for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from tests.contract.attempts import another_task, task
from tests.contract.cases import Bench, Case
from tests.services.aws_jobs import AwsJobs

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.usefixtures("no_waiting")]

MOST = 20
"""Pauses of a wait after the job has ended."""


class WaitsOn(BaseException):
    """Nothing between the wait and the test catches it."""


def ends_of(case: Case, server: Any, look: str) -> list[str]:
    """The words for a job that has ended, of those that botocore's model has in the answer to a look; else the service's own."""
    service, seen, model = case.ours._resumable.service, set(), server._model
    shapes = [model.operation_model(look).output_shape] if look in model.operation_names else []
    while shapes:
        shape = shapes.pop()
        if shape.name in seen:
            continue
        seen.add(shape.name)
        if server.succeeded in getattr(shape, "enum", ()):
            return sorted({*shape.enum} & {*service.succeeded, *service.failed})
        shapes += getattr(shape, "members", {}).values()
        shapes += [shape.member] if hasattr(shape, "member") else []
    return [server.succeeded, server.failed, server.stopped]


def test_a_wait_ends_in_whichever_way_the_job_has_ended(case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    server, pauses, ended = bench.server, [], ""
    asleep = asyncio.sleep

    def pause(_seconds: float) -> None:
        if ended:
            pauses.append(ended)
            if len(pauses) > MOST:
                raise WaitsOn(f"it waits on, although the job is {ended}")

    async def pause_here(seconds: float, *_: Any) -> None:
        pause(seconds)
        await asleep(0)

    def end(_: Any) -> None:
        nonlocal ended
        if instance.data.get("resumable", {}).get("job") and not ended:
            ended = word
            [server.finish(job, word) for job in server.running()]

    monkeypatch.setattr(time, "sleep", pause)
    monkeypatch.setattr(asyncio, "sleep", pause_here)
    if not isinstance(server, AwsJobs):
        pytest.skip("its jobs end by two words alone, with which other tests end them")
    for word in ends_of(case, server, bench.status[0]):
        another_task(bench)
        ended = ""
        pauses.clear()
        instance = task(case, bench)
        instance.on_defer = end
        with contextlib.suppress(Exception):
            instance.attempt(listener=None if case.deferrable else end)
        assert instance.record["state"] in ("succeeded", "failed"), word
        assert bench.active() == 0
