"""SIGTERM and SIGKILL as Airflow sends them, and the end of a process that it has written off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from resumable import host
from resumable.host import _three, _two
from resumable.host.config import conf
from resumable.host.versions import exception

_log = logging.getLogger("resumable")

SIGKILL_GRACE_SECONDS = 10.0
"""Seconds to wait for the SIGKILL that Airflow 3 has announced (it comes after five)."""


def request_lock() -> AbstractContextManager[Any]:
    """The lock that is held while a request to the supervisor, or of ours to the database, is in flight."""
    if not host.has_sdk():
        return _two.DATABASE_LOCK
    comms = _three.supervisor()
    return nullcontext() if comms is None else cast("AbstractContextManager[Any]", _three.request_lock(comms))


def sigterm_calls(on_kill: Callable[[], None]) -> AbstractContextManager[None]:
    """While it is open, SIGTERM calls ``on_kill`` and does nothing else: what Airflow 3 does anyway."""
    return nullcontext() if host.has_sdk() else _two.sigterm_calls(on_kill)


def users_stop_grace() -> float:
    """Seconds that a task has from the SIGTERM of a user's stop to its SIGKILL. A lost API server always gives it five."""
    return _three.server_grace() if host.has_sdk() else _three.SERVER_GRACE


def end_stopped_task(*, taken_over: bool) -> None:
    """
    The end of a process that Airflow has written off. Returns, at the latest, when a SIGKILL is overdue.

    On Airflow 3 that comes five seconds after SIGTERM, and an exception would run the failure callbacks of a task that did not
    fail. From 3.4 on it comes after ``[core] killed_task_cleanup_time``, a minute by default, and a cleared task is not started
    again before: so this process does not wait for it. Airflow 2 waits for ``AirflowTaskTerminated``, the one exception after
    which it leaves a state alone that a user has set; but if another attempt has taken over, that would change the other's state.
    """
    if host.has_sdk():
        if _three.is_supervised_process() and _three.server_grace() > _three.SERVER_GRACE:
            _log.info(
                "resumable: all is done after the stop: this process ends itself, so that Airflow need not wait for it. (Airflow "
                "takes the signal for a likely lack of memory, and says so; it is none.)"
            )
            _three.end_process()
        time.sleep(SIGKILL_GRACE_SECONDS)
    elif taken_over:
        time.sleep(conf().getint("core", "killed_task_cleanup_time", fallback=60) + SIGKILL_GRACE_SECONDS)
    else:
        raise exception("AirflowTaskTerminated")("The task was stopped")
