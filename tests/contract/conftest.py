"""What keeps the contract cheap: botocore reads each of its models once for all the operators that are built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    from botocore.loaders import JSONFileLoader

    read: dict[str, Any] = {}
    load = JSONFileLoader.load_file

    def load_once(self: Any, file_path: str) -> Any:
        if file_path not in read:
            read[file_path] = load(self, file_path)
        return read[file_path]

    with mock.patch.object(JSONFileLoader, "load_file", load_once):
        yield
