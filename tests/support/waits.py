"""Waits made short. `no_waiting` is a fixture of every test: ``pytestmark = pytest.mark.usefixtures("no_waiting")``."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

SECONDS = 0.002

real_sleep, real_async_sleep = time.sleep, asyncio.sleep


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``time.sleep`` and ``asyncio.sleep`` take no longer than `SECONDS`."""

    def sleep(seconds: float) -> None:
        real_sleep(min(seconds, SECONDS))

    async def async_sleep(seconds: float, *result: Any) -> Any:
        return await real_async_sleep(min(seconds, SECONDS), *result)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", async_sleep)


def shorten_those_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, but let helper threads wait as they do: they are timed against the main thread."""
    shorten(monkeypatch)
    short = time.sleep

    def sleep(seconds: float) -> None:
        (short if threading.current_thread() is threading.main_thread() else real_sleep)(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
