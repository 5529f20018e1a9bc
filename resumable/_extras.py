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
        provider = f"airflow.providers.{extra}"
        if e.name and (provider.startswith(e.name) or e.name.startswith((provider, "boto"))):
            raise ImportError(
                f"resumable.operators needs the {extra} provider, which is not installed. Nothing was submitted. "
                f"Install it with: pip install 'airflow-resumable[{extra}]'",
                name=e.name,
            ) from e
        raise
