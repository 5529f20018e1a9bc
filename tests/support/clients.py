"""botocore made cheap: it works out once what is the same for all the clients that are built."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """A client in a tenth of the time: models are read, folders listed, handlers' signatures looked at, once per process."""
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
        mock.patch.object(botocore.hooks, "accepts_kwargs", functools.cache(botocore.hooks.accepts_kwargs)),
    ):
        yield


def _once(method: Any) -> Any:
    """The method, asked once per arguments, whichever loader is asked: all read the same folders."""
    known: dict[Any, Any] = {}

    def ask(self: Any, *arguments: Any, **named: Any) -> Any:
        key = (arguments, tuple(named.items()))
        if key not in known:
            known[key] = method(self, *arguments, **named)
        return known[key]

    return ask
