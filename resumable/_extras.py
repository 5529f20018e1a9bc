"""A missing provider package is told by the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def provider_import(extra: str) -> Iterator[None]:
    """
    Wrap the imports of a provider.

    Raises:
        ImportError: the provider is not installed; the message names the extra.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        if e.name and f"airflow.providers.{extra}".startswith(e.name):
            raise ImportError(
                f"resumable.operators needs the {extra} provider, which is not installed. Nothing was submitted. "
                f"Install it with: pip install 'airflow-resumable[{extra}]'",
                name=e.name,
            ) from e
        raise
