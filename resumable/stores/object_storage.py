"""Object storage (S3, GCS, a shared folder), for deployments that keep state out of Airflow's metadata database."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from resumable import host
from resumable.errors import ConfigurationError, RecordError
from resumable.identity import TaskIdentity
from resumable.stores.base import read_from

_log = logging.getLogger("resumable")

_PART = 60

WHOSE = "task.txt"
"""Name of the file in a task's folder that says whose it is."""


class ObjectStorageStore:
    """
    One object per task instance and key, below ``[resumable] store_path``, deleted when the task has succeeded.

    ``[resumable] store = resumable.stores.object_storage.ObjectStorageStore`` and, say, ``store_path = s3://aws_default@bucket/state``
    (an Airflow connection before the @), or ``file:///shared/state``: a folder that every worker mounts. Such a folder is never
    made here: where it is missing, the mount is, and what is empty for that reason must not be taken for a store without jobs.

    In it a file ``resumable-owner.txt``, one for each ``[resumable] namespace``, says which Airflow deployment keeps its records
    here: another one that gives the same ids to its runs would take them for its own. A file in each task's folder names it.
    """

    fences_writes = False
    outlives_success = False

    def __init__(self, task: TaskIdentity) -> None:
        self._task, self._is_named = task, False
        looped = [str(task.iteration)] if task.is_in_loop else []
        parts = [task.namespace, task.dag_id, task.run_id, task.task_id, str(task.map_index), *looped]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
        run, name = _readable(task.run_id), _readable(task.task_id)
        mapped = "".join(f".{part}" for part in [*(f"loop{i}" for i in looped), task.map_index] if part != -1)
        self._base = host.object_storage_path()(_base())
        self._folder = self._base / _readable(task.dag_id) / run / f"{name}{mapped}.{digest}"

    @classmethod
    def check_settings(cls) -> None:
        """
        Raises:
            ConfigurationError: ``[resumable] store_path`` is missing, no URL, or no provider here opens such URLs.
        """
        check_scheme(_base())

    def require_owner(self, deployment: str) -> None:
        """
        Raises:
            ConfigurationError: another deployment keeps its records here under the same namespace.
        """
        require_owner(self._base, self._task.namespace, deployment)

    def get(self, key: str) -> Any:
        try:
            return _read_json(self._object(key))
        except FileNotFoundError:
            self._see_folder()
            return None

    def set(self, key: str, value: Any) -> None:
        self._see_folder()
        if self._is_local():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._name_folder()
        write_whole(self._base, self._object(key), json.dumps(value).encode())

    def delete(self, key: str) -> None:
        self._object(key).unlink(missing_ok=True)
        tidy(self._folder)

    def _name_folder(self) -> None:
        if not self._is_named:
            name_folder(self._base, self._folder, self._task)
            self._is_named = True

    def _see_folder(self) -> None:
        see_folder(self._base)

    def _object(self, key: str) -> Any:
        name = _readable(key)
        # What a person reads does not tell the key; nor does it where a shared folder takes "Files" and "files" for one name.
        if name != key.replace(".", "-") or "-" in key or key != key.lower():
            name += f".{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        return self._folder / f"{name}.json"

    def _is_local(self) -> bool:
        return is_local(self._folder)


def check_scheme(path: str) -> None:
    """
    Raises:
        ConfigurationError: no provider here opens URLs like ``path``.
    """
    scheme, mark, _ = path.partition("://")
    if mark and not host.has_object_storage(scheme):
        raise ConfigurationError(
            f"airflow.cfg [resumable]: store_path={path!r} cannot be opened: no provider here knows such URLs. Nothing was "
            "submitted. Install one, e.g. apache-airflow-providers-amazon[s3fs] for s3://, wherever DAGs are parsed."
        )


class Folder:
    """What is kept of one task instance below ``[resumable] store_path``."""

    def __init__(self, path: Any, ids: Mapping[str, Any]) -> None:
        self._path, self.ids = path, ids

    def __str__(self) -> str:
        return str(self._path)

    def values(self) -> list[Any]:
        """The values of an `ObjectStorageStore`; what a checkpoint had no room for is none."""
        return [_read_json(path) for path in self._path.iterdir() if path.name.endswith(".json")]

    def delete(self) -> None:
        for path in [path for path in self._path.iterdir() if path.name != WHOSE]:
            path.unlink(missing_ok=True)
        tidy(self._path)


def folders() -> Iterator[Folder]:
    """Those of this deployment's namespace that say whose they are; none without ``[resumable] store_path``."""
    path, namespace = (host.setting("store_path") or "").strip(), host.setting("namespace") or ""
    if not path:
        return
    check_scheme(path)
    base = host.object_storage_path()(path)
    see_folder(base)
    for whose in base.glob(f"**/{WHOSE}"):
        try:
            ids = dict(_read_json(whose))
            if missing := TaskIdentity("", "", "").ids.keys() - ids.keys():
                raise ValueError(f"it has no {', '.join(sorted(missing))}")
        except (ValueError, TypeError, FileNotFoundError) as e:  # one odd folder must not hide the others
            _log.warning("resumable: %s is left alone, whose it is cannot be read: %s", whose.parent, e)
            continue
        if ids.pop("namespace", None) == namespace:
            yield Folder(whose.parent, ids)


def name_folder(base: Any, folder: Any, task: TaskIdentity) -> None:
    """Write whose folder it is, for `resumable.maintenance`: its own name cannot be read back."""
    whose = folder / WHOSE
    if not whose.exists():
        write_whole(base, whose, json.dumps({**task.ids, "namespace": task.namespace}).encode())


def _read_json(path: Any) -> Any:
    """
    Raises:
        FileNotFoundError: there is no such object. DamagedValueError: it is no JSON.
    """
    data = path.read_bytes()
    with read_from(str(path)):
        return json.loads(data)


def write_whole(base: Any, target: Any, data: bytes) -> None:
    """
    Write an object that is there as a whole or not at all, and still there if the node loses its power right after: that is what
    a record is for.
    """
    if not is_local(target):
        target.write_bytes(data)  # object storage does so by itself
        return
    folder = Path(target.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{uuid.uuid4().hex}"
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, target.path)  # noqa: PTH105 - what a test stops
    top = Path(base.path)
    for one in (folder, *folder.parents):  # a new name is its folder's, and that folder's its parent's
        _sync_folder(one)
        if one == top:
            break


def tidy(folder: Any) -> None:
    """Take an empty folder away. One that stays is swept one day."""
    with suppress(OSError, ValueError):
        left = [path.name for path in folder.iterdir()]
        if left == [WHOSE]:
            (folder / WHOSE).unlink(missing_ok=True)
        if is_local(folder) and left in ([], [WHOSE]):
            Path(folder.path).rmdir()


def require_owner(base: Any, namespace: str, deployment: str) -> None:
    """
    Claim ``base`` for a deployment, or make sure that it is its own.

    Raises:
        ConfigurationError: it is another's. RecordError: whose it is cannot be read.
    """
    see_folder(base)
    of_namespace = f".{hashlib.sha256(namespace.encode()).hexdigest()[:12]}" if namespace else ""
    mark = base / f"resumable-owner{of_namespace}.txt"
    if not mark.exists():
        write_whole(base, mark, json.dumps({"namespace": namespace, "deployment": deployment}).encode())
    try:
        owner = _read_json(mark)["deployment"]
    except (ValueError, TypeError, KeyError) as e:
        raise RecordError(
            f"airflow.cfg [resumable]: store_path={base}: {mark.name}, which says which Airflow deployment keeps its records "
            f"there, cannot be read ({type(e).__name__}: {e}). Nothing was submitted. If no other one keeps any there, delete "
            "that file."
        ) from e
    if owner != deployment:
        raise ConfigurationError(
            f"airflow.cfg [resumable]: store_path={base} keeps the records of another Airflow deployment under the same "
            f"namespace={namespace!r} ({mark.name} names {owner}, this one is {deployment}). Nothing was submitted. Give each "
            "deployment a store_path or a [resumable] namespace of its own. If this is that deployment with a new metadata "
            "database, delete the file."
        )


def is_local(path: Any) -> bool:
    return str(path).startswith(("file:", "local:", "/"))


def see_folder(base: Any) -> None:
    """
    Raises:
        NotADirectoryError: the folder that ``[resumable] store_path`` names is not there. What is empty for that reason must not
            be taken for a store without jobs, and one made here would be on this worker's own disk. No `FileNotFoundError`, which
            says of an object that it was never written.
    """
    if is_local(base) and not base.is_dir():
        raise NotADirectoryError(f"[resumable] store_path {base} is no folder on this worker: is it mounted here?")


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError:  # some network file systems have no such call for folders
        pass
    finally:
        os.close(fd)


def _base() -> str:
    path = host.setting("store_path")
    if not path or "://" not in path:
        raise ConfigurationError(
            f"airflow.cfg [resumable]: store_path={path!r} is no URL, and ObjectStorageStore needs one. Nothing was submitted. "
            "Give e.g. s3://aws_default@bucket/folder, gs://google_cloud_default@bucket/folder or file:///a/shared/folder."
        )
    return path


def _readable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)[:_PART] or "-"
