"""Object storage (S3, GCS, a shared folder), for deployments that keep state out of Airflow's metadata database."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from typing import Any

from resumable import compat
from resumable.errors import ConfigurationError
from resumable.identity import TaskIdentity

_PART = 60


class ObjectStorageStore:
    """
    One object per task instance and key, below ``[resumable] store_path``, deleted when the task has succeeded.

    ``[resumable] store = resumable.stores.object_storage.ObjectStorageStore`` and, say, ``store_path = s3://aws_default@bucket/state``
    (an Airflow connection before the @), or ``file:///shared/state``: a folder that every worker mounts. Such a folder is never
    made here: where it is missing, the mount is, and what is empty for that reason must not be taken for a store without jobs.
    """

    fences_writes = False
    outlives_success = False

    def __init__(self, task: TaskIdentity) -> None:
        parts = [task.namespace, task.dag_id, task.run_id, task.task_id, str(task.map_index)]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
        run, name = _readable(task.run_id), _readable(task.task_id)
        mapped = f".{task.map_index}" if task.map_index >= 0 else ""
        self._base = compat.object_storage_path()(_base())
        self._folder = self._base / _readable(task.dag_id) / run / f"{name}{mapped}.{digest}"

    @classmethod
    def check_settings(cls) -> None:
        """
        Raises:
            ConfigurationError: ``[resumable] store_path`` is missing, no URL, or no provider here opens such URLs.
        """
        path = _base()
        if not compat.has_object_storage(path.partition("://")[0]):
            raise ConfigurationError(
                f"airflow.cfg [resumable]: store_path={path!r} cannot be opened: no provider here knows such URLs. Nothing was "
                "submitted. Install one, e.g. apache-airflow-providers-amazon[s3fs] for s3://, wherever DAGs are parsed."
            )

    def get(self, key: str) -> Any:
        try:
            return json.loads(self._object(key).read_bytes())
        except FileNotFoundError:
            self._see_folder()
            return None

    def set(self, key: str, value: Any) -> None:
        data = json.dumps(value).encode()
        target = self._object(key)
        if not self._is_local():
            target.write_bytes(data)  # an object is there as a whole, or not at all
            return
        self._see_folder()
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{uuid.uuid4().hex}"
        with open(fresh.path, "wb") as file:  # noqa: PTH123 - not a path of this machine's own kind
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the node may be lost right after: that is what the record is for
        os.replace(fresh.path, target.path)  # noqa: PTH105

    def delete(self, key: str) -> None:
        self._object(key).unlink(missing_ok=True)

    def _see_folder(self) -> None:
        if self._is_local() and not self._base.is_dir():
            raise FileNotFoundError(f"[resumable] store_path {self._base} is no folder on this worker: is it mounted here?")

    def _object(self, key: str) -> Any:
        name = _readable(key)
        if name != key.replace(".", "-") or "-" in key:  # what a person reads does not tell the key
            name += f".{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return self._folder / f"{name}.json"

    def _is_local(self) -> bool:
        return str(self._folder).startswith(("file:", "local:", "/"))


def _base() -> str:
    path = compat.setting("store_path")
    if not path or "://" not in path:
        raise ConfigurationError(
            f"airflow.cfg [resumable]: store_path={path!r} is no URL, and ObjectStorageStore needs one. Nothing was submitted. "
            "Give e.g. s3://aws_default@bucket/folder, gs://google_cloud_default@bucket/folder or file:///a/shared/folder."
        )
    return path


def _readable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)[:_PART] or "-"
