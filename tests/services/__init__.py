"""
Simulated remote services that tests, and the demo, run in their own process.

The EMR part is imported on first use: moto takes seconds to import, and the demo does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .databricks import DatabricksSimulator
from .databricks_runs import Run
from .faults import Drop, Fault, Hold, Refuse
from .journal import Call
from .server import ServiceServer

if TYPE_CHECKING:
    from .emr import EmrService
    from .emr_steps import Step

__all__ = [
    "Call",
    "DatabricksSimulator",
    "Drop",
    "EmrService",
    "Fault",
    "Hold",
    "Refuse",
    "Run",
    "ServiceServer",
    "Step",
]


def __getattr__(name: str) -> Any:
    if name in ("EmrService", "Step"):
        from . import emr

        return getattr(emr, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
