"""Why a test of the provider's fails on our classes: four reasons are allowed, a failure that shows none of them is a fault."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from unittest import mock

from resumable.errors import UnseenSubmitError
from tests.peers.stamp import is_stamped, only_stamped

DURABILITY = "the provider's own durability"
EXACT = "request compared exactly"
PRIVATE = "private name patched"
MOCK = "mock without signature or state"

CATEGORIES = {
    DURABILITY: "what it tests is the provider's own durable=True or reattach, in whose place ours stands",
    EXACT: "it compares a request, a job's name or a trigger, and ours has our token in it, or is our trigger; no more differs",
    PRIVATE: "it patches a private name of the provider's that our class does not go through",
    MOCK: "its mock has nothing of use where a job's id or state is needed, or a stop's reason, or stands before the submit",
}

UNEXPLAINED = "unexplained"

_DURABILITY = re.compile(r"durable|task_state_store|reattach|task_uuid|resume_glue_job|previous_job_run", re.IGNORECASE)
_PRIVATE = re.compile(r"patch(?:\.object)?\([^()]*[\"'.]_(?!_)\w+[\"']")
_TRIGGER = re.compile(r"resumable\.operators\.\S*Trigger")
_ASSERTS = ("assert_called_with", "assert_called_once_with", "assert_any_call", "assert_has_calls")


def category(item: Any, error: BaseException) -> str:
    """The reason for which ``item`` failed with ``error``, as far as the two show it."""
    source = _source(item)
    if _DURABILITY.search(f"{item.nodeid} {source}"):
        return DURABILITY
    if _differs_by_a_stamp(error) or _TRIGGER.search(_asserted(error)):
        return EXACT
    if _PRIVATE.search(source):
        return PRIVATE
    if any("Mock" in str(e) or isinstance(e, UnseenSubmitError) for e in _chain(error)):
        return MOCK
    return UNEXPLAINED


def _source(item: Any) -> str:
    """The test's, and that of its fixtures that are of its module."""
    functions = [item.function, *(f[-1].func for f in item._fixtureinfo.name2fixturedefs.values())]
    return "\n".join(inspect.getsource(f) for f in functions if inspect.getmodule(f) is item.module)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came of: in a circle where an older one is raised from a newer one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _asserted(error: BaseException) -> str:
    return str(error) if isinstance(error, AssertionError) else ""


def _differs_by_a_stamp(error: BaseException) -> bool:
    call = _compared_call(error.__traceback__) if isinstance(error, AssertionError) else None
    if call is None:
        return is_stamped(_asserted(error))
    expected, actual = call
    return expected != actual and only_stamped(expected, actual)


def _compared_call(traceback: TracebackType | None) -> tuple[Any, Any] | None:
    """What a mock was asked to have been called with, and what it was called with."""
    while traceback is not None:
        names, code = traceback.tb_frame.f_locals, traceback.tb_frame.f_code
        if code.co_name in _ASSERTS and isinstance(mocked := names.get("self"), mock.NonCallableMock) and mocked.call_args:
            return [names.get("args"), names.get("kwargs")], [mocked.call_args.args, mocked.call_args.kwargs]
        traceback = traceback.tb_next
    return None
