"""Thousands of files in object storage in one asynchronous task: a retry goes on with the files that are not done yet."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from airflow.sdk import DAG, ObjectStoragePath, task

from resumable import Checkpoint

SOURCE = os.environ.get("EXAMPLE_SOURCE", "s3://aws_default@landing/orders")
TARGET = os.environ.get("EXAMPLE_TARGET", "s3://aws_default@clean/orders")


async def clean(path: str) -> None:
    """Write one file's clean version. Done twice it is the same: a file under way when the worker dies is done again."""

    def copy() -> None:
        text = ObjectStoragePath(path).read_text()
        (ObjectStoragePath(TARGET) / path.rsplit("/", 1)[-1]).write_text(text.strip().lower())

    await asyncio.to_thread(copy)


with DAG("checkpointed_files", schedule="@daily", catchup=False, doc_md=__doc__) as dag:

    @task(retries=3, retry_delay=timedelta(minutes=1))
    async def clean_files() -> int:
        files = sorted(str(path) for path in ObjectStoragePath(SOURCE).iterdir())
        async with Checkpoint("files", seconds=5) as checkpoint:
            await checkpoint.map(clean, files, concurrency=20, tries=3, on_error="collect")
        return len(files)

    clean_files()
