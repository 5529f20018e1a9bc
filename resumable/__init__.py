"""Airflow tasks that survive their worker: a retry reattaches to the running job instead of starting a second one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resumable.checkpoint.checkpoint import Checkpoint
    from resumable.errors import (
        ConfigurationError,
        ForeignJobError,
        InvalidHandleError,
        ItemsFailedError,
        JobFailedError,
        JobGoneError,
        JobNotFound,
        JobTimeoutError,
        LostSightError,
        NotSubmitted,
        RecordError,
        RefusedError,
        ResumableError,
        StateStoreError,
        WaitLimitError,
    )
    from resumable.jobs.make_resumable import make_resumable
    from resumable.jobs.mixin import ResumableMixin
    from resumable.policy import (
        OnChange,
        OnClear,
        OnFailed,
        OnFinalFailure,
        OnMissing,
        OnTimeout,
        ResumePolicy,
        Wait,
    )
    from resumable.setup_once import once
    from resumable.stores.base import StateStore
    from resumable.watermark import Watermark

_HOMES = {
    "Checkpoint": "resumable.checkpoint.checkpoint",
    "ConfigurationError": "resumable.errors",
    "ForeignJobError": "resumable.errors",
    "InvalidHandleError": "resumable.errors",
    "ItemsFailedError": "resumable.errors",
    "JobFailedError": "resumable.errors",
    "JobGoneError": "resumable.errors",
    "JobNotFound": "resumable.errors",
    "JobTimeoutError": "resumable.errors",
    "LostSightError": "resumable.errors",
    "NotSubmitted": "resumable.errors",
    "OnChange": "resumable.policy",
    "OnClear": "resumable.policy",
    "OnFailed": "resumable.policy",
    "OnFinalFailure": "resumable.policy",
    "OnMissing": "resumable.policy",
    "OnTimeout": "resumable.policy",
    "RecordError": "resumable.errors",
    "RefusedError": "resumable.errors",
    "ResumableError": "resumable.errors",
    "ResumableMixin": "resumable.jobs.mixin",
    "ResumePolicy": "resumable.policy",
    "StateStore": "resumable.stores.base",
    "StateStoreError": "resumable.errors",
    "Wait": "resumable.policy",
    "WaitLimitError": "resumable.errors",
    "Watermark": "resumable.watermark.mark",
    "make_resumable": "resumable.jobs.make_resumable",
    "once": "resumable.setup_once",
}

__all__ = [
    "Checkpoint",
    "ConfigurationError",
    "ForeignJobError",
    "InvalidHandleError",
    "ItemsFailedError",
    "JobFailedError",
    "JobGoneError",
    "JobNotFound",
    "JobTimeoutError",
    "LostSightError",
    "NotSubmitted",
    "OnChange",
    "OnClear",
    "OnFailed",
    "OnFinalFailure",
    "OnMissing",
    "OnTimeout",
    "RecordError",
    "RefusedError",
    "ResumableError",
    "ResumableMixin",
    "ResumePolicy",
    "StateStore",
    "StateStoreError",
    "Wait",
    "WaitLimitError",
    "Watermark",
    "make_resumable",
    "once",
]


def __getattr__(name: str) -> Any:
    # Lazy, because a scheduler that discovers providers imports this package for its metadata only.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("airflow-resumable")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
