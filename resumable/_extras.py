"""A missing provider package is told by the extra that brings it."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

COVERED = {"databricks": ("7.20.0", "8"), "amazon": ("9.35.0", "10")}
"""Versions of each provider that the operators were made for and tested with: from the first up to, and without, the second."""


@contextmanager
def provider_import(extra: str) -> Iterator[None]:
    """
    Wrap the imports of a provider. One whose version is not covered is one warning in a process.

    Raises:
        ImportError: the provider is not installed; the message names the extra.
    """
    try:
        yield
        _check_version(extra)
    except ModuleNotFoundError as e:
        provider = f"airflow.providers.{extra}"
        if e.name and (provider.startswith(e.name) or e.name.startswith((provider, "boto"))):
            raise ImportError(
                f"resumable.operators needs the {extra} provider, which is not installed. Nothing was submitted. "
                f"Install it with: pip install 'airflow-resumable[{extra}]'",
                name=e.name,
            ) from e
        raise


@cache
def _check_version(extra: str) -> None:
    version = str(getattr(importlib.import_module(f"airflow.providers.{extra}"), "__version__", ""))
    least, below = COVERED[extra]
    if not version or _numbers(least) <= _numbers(version) < _numbers(below):
        return
    logging.getLogger("resumable").warning(
        "resumable: apache-airflow-providers-%s %s is not covered (%s up to %s): it may start jobs by other ways. "
        "Install airflow-resumable[%s], which brings a version that is",
        extra,
        version,
        least,
        below,
        extra,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
