"""
A plugin for pytest that has the providers' tests run on our operators.

``--peers-on``: ``provider`` (their classes, a check of the rig), ``durable=False`` or ``durable=True`` (then the default of our
classes). ``--peers-to``: a file for what became of each test.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers.classify import category
from tests.peers.context import contexts_completed, without_network, without_pauses
from tests.peers.mocks import events_around_mocked_clients, signatures_of_mocked_hooks
from tests.peers.stamp import tokens_noted
from tests.peers.swap import ours_of_theirs, swapped

PROVIDER = "provider"
DURABLE = {"durable=False": False, "durable=True": True}


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--peers-on", choices=[PROVIDER, *DURABLE], default=PROVIDER)
    parser.addoption("--peers-to", type=Path)


def pytest_configure(config: Any) -> None:
    on, to = config.getoption("--peers-on"), config.getoption("--peers-to")
    if on != PROVIDER:
        for ours in ours_of_theirs().values():
            ours.__init__ = with_durable(ours.__init__, DURABLE[on])  # type: ignore[misc]
    if to and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(to))


def with_durable(init: Any, durable: bool) -> Any:
    """``__init__`` with ours on or off. A test's own ``durable`` is the provider's; where it is False, ours is off as well."""

    @functools.wraps(init)
    def of_ours(self: Any, **kwargs: Any) -> None:
        given = kwargs.pop("durable", None)
        is_ours = durable and given is not False
        init(self, **kwargs, durable=is_ours)
        if given is not None and not is_ours:
            self._resumable.their_durable = vars(self)["durable"] = given

    return of_ours


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """`mock.patch` by a string stays on the provider's class, whose methods ours inherit."""
    if config.getoption("--peers-on") == PROVIDER:
        return
    ours = ours_of_theirs()
    for module in {item.module for item in items}:
        names = vars(module)
        names.update({name: swapped(value, ours) for name, value in names.items() if not name.startswith("__")})
    for item in items:
        if hasattr(item, "callspec"):
            item.callspec.params.update(swapped(item.callspec.params, ours))


@pytest.fixture(autouse=True)
def _on_our_classes(request: Any) -> Any:
    if request.config.getoption("--peers-on") == PROVIDER:
        with without_network():
            yield
        return
    with (
        without_network(),
        contexts_completed(),
        events_around_mocked_clients(),
        signatures_of_mocked_hooks(),
        without_pauses(),
        tokens_noted(),
    ):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    report = yield
    if report.failed:
        error = call.excinfo.value
        told = f"{type(error).__name__}: {error}"
        report.user_properties.append(("why", {"category": category(item, error), "error": told.splitlines()[0][:300]}))
    return report


class Results:
    """Writes what became of each test, once all have run."""

    def __init__(self, to: Path) -> None:
        self._to, self._passed, self._failed = to, 0, {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed[report.nodeid] = dict(report.user_properties)["why"]
        elif report.when == "call" and report.passed:
            self._passed += 1

    def pytest_sessionfinish(self) -> None:
        self._to.write_text(json.dumps({"passed": self._passed, "failed": self._failed}, indent=1))
