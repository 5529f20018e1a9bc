"""Where the rare progress goes that task state is too small for: a folder in object storage."""

from __future__ import annotations

import hashlib
from typing import Any

from resumable import host
from resumable.identity import TaskIdentity
from resumable.stores.object_storage import check_scheme, name_folder, see_folder, tidy, write_whole


class ObjectFolder:
    """Objects of one task instance below ``[resumable] store_path``, e.g. ``s3://aws_default@bucket/state``."""

    def __init__(self, base: str, task: TaskIdentity) -> None:
        digest = hashlib.sha256(repr((task.namespace, str(task))).encode()).hexdigest()[:20]
        self._base = host.object_storage_path()(base)
        self._folder, self._task = self._base / "checkpoints" / digest, task

    @classmethod
    def configured(cls, task: TaskIdentity) -> ObjectFolder | None:
        """
        The folder, None if airflow.cfg names no place.

        Raises:
            ConfigurationError: no provider here opens such URLs.
        """
        base = (host.setting("store_path") or "").strip()
        if not base:
            return None
        check_scheme(base)
        return cls(base, task)

    def put(self, name: str, data: bytes) -> None:
        """Names are of contents: an object that is there already may be written again."""
        see_folder(self._base)
        self._folder.mkdir(parents=True, exist_ok=True)
        name_folder(self._base, self._folder, self._task)
        write_whole(self._base, self._folder / name, data)

    def get(self, name: str) -> bytes:
        """Raises: FileNotFoundError: there is no such object. NotADirectoryError: it cannot be told, nothing is mounted here."""
        try:
            data: Any = (self._folder / name).read_bytes()
        except FileNotFoundError:
            see_folder(self._base)
            raise
        return bytes(data)

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        tidy(self._folder)
