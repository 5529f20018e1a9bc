"""botocore made cheap: it works out once what is the same for all the clients that are built."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """
    A client in a tenth of the time: models are read, folders listed, handlers' signatures looked at, once per process.

    And Airflow's hook, which looks at its callers' classes for the user agent, does so without reading the source of each frame.
    """
    import botocore.hooks
    from botocore.hooks import EventAliaser
    from botocore.loaders import JSONFileLoader, Loader

    aliased: dict[str, str] = {}
    alias = EventAliaser._alias_event_name

    def alias_once(self: Any, event_name: str) -> str:
        if event_name not in aliased:
            aliased[event_name] = alias(self, event_name)
        return aliased[event_name]

    with (
        mock.patch.object(JSONFileLoader, "load_file", _once(JSONFileLoader.load_file)),
        mock.patch.object(Loader, "list_available_services", _once(Loader.list_available_services)),
        mock.patch.object(Loader, "determine_latest_version", _once(Loader.determine_latest_version)),
        mock.patch.object(EventAliaser, "_alias_event_name", alias_once),
        mock.patch.object(inspect, "stack", _callers),
        mock.patch.object(botocore.hooks, "accepts_kwargs", functools.cache(botocore.hooks.accepts_kwargs)),
    ):
        yield


def _callers(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack` without lines of source: to look for those of one frame goes through all modules that are imported."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return found


def _once(method: Any) -> Any:
    """The method, asked once per arguments, whichever loader is asked: all read the same folders."""
    known: dict[Any, Any] = {}

    def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        key = (arguments, tuple(named.items()))
        if key not in known:
            known[key] = method(self, *arguments, **named)
        return known[key]

    return ask
