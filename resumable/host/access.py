"""How a task reaches what Airflow keeps: Variables, the server's own rows of state, object storage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from resumable import host
from resumable.host import _three, _two
from resumable.host.config import conf
from resumable.host.versions import first_of
from resumable.identity import TaskIdentity
from resumable.stores.base import Variables

T = TypeVar("T")


def variables(task: TaskIdentity) -> Variables:
    """Airflow Variables as the running ``task`` may use them; a read that fails raises, and is never "no such Variable"."""
    return _three.SupervisorVariables(task) if host.has_sdk() else _two.OrmVariables()


def task_state_rows(accessor: Any) -> Any:
    """The server's own rows of a task's state; None where the accessor keeps values there itself."""
    return _three.TaskStateRows(accessor._ti_id) if hasattr(accessor, "_ti_id") and _has_workers_backend() else None


def asset_state_rows(accessor: Any) -> Any:
    """The same of an asset's state."""
    return _three.AssetStateRows(accessor) if hasattr(accessor, "_build_get_message") and _has_workers_backend() else None


def _has_workers_backend() -> bool:
    return bool(conf().get("workers", "state_store_backend", fallback=None))


async def from_trigger(call: Callable[[], T]) -> T:
    """
    What ``call`` returns, which may look up a connection and take its time: in a thread of its own, from which Airflow can be
    asked, in the context of the trigger that waits for it.
    """
    from asgiref.sync import sync_to_async

    answer: T = await sync_to_async(call, thread_sensitive=False)()
    return answer


def has_object_storage(scheme: str) -> bool:
    """Whether `object_storage_path` opens URLs with this scheme."""
    return bool(first_of("has_fs", "airflow.sdk.io.fs", "airflow.io")(scheme))


def object_storage_path() -> Any:
    """The class of paths on object storage."""
    return first_of("ObjectStoragePath", "airflow.sdk", "airflow.io.path")
