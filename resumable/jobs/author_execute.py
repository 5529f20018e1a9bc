"""
An author's own ``execute`` around ours: that the task is to be started again passes through it, whatever it catches; and what he
does once the job has ended is stopped by his own ``on_kill``.

A hand-back is an `AirflowRescheduleException` to Airflow, which an ``except Exception`` would take for the job's failure: the try
would fail, or end well, while the job runs on. So it leaves our code as a `HandedBack`, and becomes Airflow's exception where the
author's code is over.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from resumable import host
from resumable.errors import HandedBack
from resumable.jobs import ending
from resumable.jobs.code import reached_from
from resumable.stop.sigterm import Interrupted

if TYPE_CHECKING:
    from resumable.jobs.operator import DurableTask

_log = logging.getLogger("resumable")

_MARK = "_resumable_is_left_by_hand_backs"


def warn_of_own_execute(cls: Any) -> None:
    """Of a subclass of a ready-made operator whose ``execute`` passes ours by."""
    if "execute" in vars(cls) and "execute" not in reached_from(cls, "execute"):
        _log.warning(
            "resumable: %s.execute calls no super().execute: what it submits by itself is not durable. Call "
            "super().execute(context) for the job, or give durable=False",
            cls.__qualname__,
        )


def let_hand_backs_through(cls: Any) -> None:
    """Called for each subclass of a durable class: where its ``execute`` is not ours, a hand-back leaves it uncaught."""
    owner = next((c for c in cls.__mro__ if "execute" in vars(c)), None)
    if owner in (None, host.base_operator(), cls._resumable.operator):
        return
    found = cls.execute
    if getattr(found, _MARK, False) or getattr(found, "__isabstractmethod__", False):
        return
    is_own = owner is cls

    @functools.wraps(found)
    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _around(self._resumable):
            return (found if is_own else super(cls, self).execute)(*(self, *args)[not is_own :], **kwargs)

    setattr(execute, _MARK, True)
    cls.execute = execute


@contextmanager
def _around(task: DurableTask) -> Iterator[None]:
    """Open while the author's code runs; of several, one class above the other, it is the outermost that counts."""
    if task.has_author_around:
        yield
        return
    task.has_author_around = True
    try:
        yield
    except HandedBack as e:
        raise e.hand_back from e.hand_back.__cause__
    except Interrupted as e:  # the author has ours at work in another thread: what leaves the main one leaves his code
        _leave(task, e)
    finally:
        task.has_author_around = task.is_in_authors_hands = False


def _leave(task: DurableTask, interrupted: Interrupted) -> NoReturn:
    run = task.run
    assert run is not None
    run.attempt.left_by = interrupted
    if run.watch is not None:
        run.watch.close()
    with host.airflow_errors(run.context):
        ending.leave(run, interrupted.stop)


@contextmanager
def past_the_author(task: DurableTask) -> Iterator[None]:
    """Open around all that is ours: a hand-back leaves it in a way that nobody between it and `_around` takes for a failure."""
    try:
        yield
    except BaseException as e:
        if task.has_author_around and host.is_hand_back(e):
            raise HandedBack(e) from None
        raise
    if task.has_author_around:
        _hand_over(task)


@contextmanager
def in_authors_hands(task: DurableTask) -> Iterator[None]:
    """Open while a method of the author's own may be at work, after a deferral."""
    _hand_over(task)
    try:
        yield
    finally:
        task.is_in_authors_hands = False


def _hand_over(task: DurableTask) -> None:
    """From now on a SIGTERM is for the author's own ``on_kill``, if there is one, and if there is no job that it might stop."""
    service = task.run.service if task.run is not None else None
    task.is_in_authors_hands = service is not None and service.waits() and service.has_own_on_kill()
